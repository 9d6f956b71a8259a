# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What the action plugins do in front of the modules that log in with the permanent secrets that a client has."""

from __future__ import annotations

import contextlib
import typing as t

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import PPIN_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.action import GatedAction, Result, display
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate, Subject
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError, Record
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import (
    NOT_TRIED,
    Entry,
    Verdict,
    bounded,
    entry_of,
    judge,
    judge_login,
)


class LoginAction(GatedAction):
    """Base of them. The module tells with `partitions` what the HSM said of each."""

    def _needs_gate(self) -> bool:
        return True

    def _pass(self, options: t.Mapping[str, t.Any]) -> Result:
        entries, failure = self._look()
        if failure:
            return failure
        gate = self._open_gate(options)
        # In the order of the names, by every host, so that none waits for another in a ring.
        subjects = [gate.permanent(name, entries[name]) for name in sorted(entries)]
        if self._forced:
            return self._log_in(gate, subjects, {})
        allowed: t.List[Subject] = []
        stale: t.Dict[Subject, Record] = {}
        try:
            with contextlib.ExitStack() as permissions:
                try:
                    for subject in subjects:
                        try:
                            permissions.enter_context(gate.permission(subject))
                            allowed.append(subject)
                        except rules.Stale as exc:
                            stale[subject] = exc.record
                except (rules.Refused, GateError):
                    for subject in allowed:  # while this host still has the turns
                        with rules.reported(display.warning):
                            gate.end(subject, NOT_TRIED)
                    raise
                origins = [str(entries[subject.name].origin) for subject in stale]
                result = self._log_in(gate, allowed, {"stale": origins})
        except rules.Refused as exc:
            return {**exc.failure(), "logins": 0, "ok": False}
        if result.get("failed") and result.get("refused"):
            result["msg"] += "".join(
                f" {rules.found_by(record)}" for subject, record in stale.items() if subject.name in result["refused"]
            )
        return result

    @property
    def _forced(self) -> bool:
        return bool(boolean(self._arguments.get("force") or False, strict=False))

    def _look(self) -> t.Tuple[t.Dict[str, Entry], Result]:
        """The partitions that the module may log in to, without those that lack a secret; or why they are not known."""
        look = self._execute_module(
            module_name="hsmops.primus.ppin_info",
            module_args={option: self._arguments[option] for option in PPIN_ARGUMENTS if option in self._arguments},
            task_vars=self._task_vars,
        )
        if look.get("failed") or look.get("unreachable"):
            return {}, look
        if look.get("error"):  # without the names, the gate would guard nothing
            error = look["error"] if isinstance(look["error"], dict) else {}
            msg = "%s. %s No login was made." % (error.get("msg"), error.get("hint"))
            return {}, {"failed": True, "changed": False, "msg": msg, "error": error, "logins": 0, "ok": False}
        listed = _by_name(look.get("partitions")).items()
        asked = (None, self._name)
        return {
            name: entry_of(found)
            for name, found in listed
            if found.get("configured")
            and (self._name is None or name in asked)
            # Which the module refuses by what the client's ledger says, unless it is forced.
            and (self._forced or not found.get("rejected"))
        }, {}

    def _log_in(self, gate: Gate, subjects: t.Sequence[Subject], says: t.Mapping[str, t.Any]) -> Result:
        result = self._module(gate_says=says)
        partitions = _by_name(result.get("partitions"))
        for subject in subjects:
            with rules.reported(display.warning):
                gate.end(subject, self._verdict(result, partitions.get(subject.name)))
        return result

    @staticmethod
    def _verdict(result: Result, partition: t.Optional[t.Mapping[str, t.Any]]) -> Verdict:
        verdict = judge_login(partition or {})
        listed = result.get("hsms")
        hsms = [hsm for hsm in (listed if isinstance(listed, list) else []) if isinstance(hsm, dict)]
        if partition is None and hsms and not any(hsm.get("connected") for hsm in hsms):
            return Verdict(None, bounded(hsms[0].get("error")), unreachable=True)
        if partition is None and result.get("failed"):
            verdict = judge(result)  # a login may have been made before it failed
            if verdict.value is not None:
                verdict = judge_login({"logins": 1, "error": bounded(result.get("error"))})
        return verdict


def _by_name(partitions: t.Any) -> t.Dict[str, t.Mapping[str, t.Any]]:
    """The `partitions` of a host's result, which may be anything, by their names."""
    listed = partitions if isinstance(partitions, list) else []
    named = [found for found in listed if isinstance(found, dict) and isinstance(found.get("user_name"), str)]
    return {found["user_name"]: found for found in named}
