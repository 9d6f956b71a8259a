# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Base class of the action plugins of modules that log in with the permanent secrets of a client."""

from __future__ import annotations

import contextlib
import typing as t

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import PPIN_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.gated_action import GatedAction, Result, display
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate, Subject
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError, Record
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import (
    NOT_TRIED,
    PresentSecret,
    Verdict,
    present_secret,
    sanitized_error,
    verdict_on_credential,
    verdict_on_secret,
)


class LoginAction(GatedAction):
    """Base class. The module returns the HSM's verdict on each permanent secret in `partitions`."""

    def _needs_gate(self) -> bool:
        return True

    def _run_with_gate(self, options: t.Mapping[str, t.Any]) -> Result:
        entries, failure = self._inspect()
        if failure:
            return failure
        gate = self._open_gate(options)
        # Every host uses the order of the names, so that hosts cannot wait for each other in a ring.
        subjects = [gate.secret_subject(name, entries[name]) for name in sorted(entries)]
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
                        except rules.StaleSecret as exc:
                            stale[subject] = exc.record
                except (rules.AttemptRefused, GateError):
                    for subject in allowed:  # before the turns are released
                        with rules.warn_on_gate_error(display.warning):
                            gate.record_verdict(subject, NOT_TRIED)
                    raise
                origins = [str(entries[subject.name].origin) for subject in stale]
                result = self._log_in(gate, allowed, {"stale": origins})
        except rules.AttemptRefused as exc:
            return {**exc.failure(), "logins": 0, "ok": False}
        if result.get("failed") and result.get("refused"):
            result["msg"] += "".join(
                f" {rules.witnesses_sentence(record)}"
                for subject, record in stale.items()
                if subject.name in result["refused"]
            )
        return result

    @property
    def _forced(self) -> bool:
        return bool(boolean(self._arguments.get("force") or False, strict=False))

    def _inspect(self) -> t.Tuple[t.Dict[str, PresentSecret], Result]:
        """Return the partitions that the module may log in to, and the result of a failure. One of both is empty."""
        facts = self._execute_module(
            module_name="hsmops.primus.ppin_info",
            module_args={option: self._arguments[option] for option in PPIN_ARGUMENTS if option in self._arguments},
            task_vars=self._task_vars,
        )
        if facts.get("failed") or facts.get("unreachable"):
            return {}, facts
        if facts.get("error"):  # without the names, the gate would guard nothing
            error = facts["error"] if isinstance(facts["error"], dict) else {}
            msg = "%s. %s No login was made." % (error.get("msg"), error.get("hint"))
            return {}, {"failed": True, "changed": False, "msg": msg, "error": error, "logins": 0, "ok": False}
        listed = _by_name(facts.get("partitions")).items()
        asked = (None, self._credential_name)
        return {
            name: present_secret(found)
            for name, found in listed
            if found.get("configured")
            and (self._credential_name is None or name in asked)
            # The module itself refuses a secret that is rejected in the ledger, unless force is set.
            and (self._forced or not found.get("rejected"))
        }, {}

    def _log_in(self, gate: Gate, subjects: t.Sequence[Subject], findings: t.Mapping[str, t.Any]) -> Result:
        result = self._run_module(gate_findings=findings)
        partitions = _by_name(result.get("partitions"))
        for subject in subjects:
            with rules.warn_on_gate_error(display.warning):
                gate.record_verdict(subject, self._verdict(result, partitions.get(subject.name)))
        return result

    @staticmethod
    def _verdict(result: Result, partition: t.Optional[t.Mapping[str, t.Any]]) -> Verdict:
        verdict = verdict_on_secret(partition or {})
        listed = result.get("hsms")
        hsms = [hsm for hsm in (listed if isinstance(listed, list) else []) if isinstance(hsm, dict)]
        if partition is None and hsms and not any(hsm.get("connected") for hsm in hsms):
            return Verdict(None, sanitized_error(hsms[0].get("error")), unreachable=True)
        if partition is None and result.get("failed"):
            verdict = verdict_on_credential(result)  # a login may have been made before it failed
            if verdict.value is not None:
                verdict = verdict_on_secret({"logins": 1, "error": sanitized_error(result.get("error"))})
        return verdict


def _by_name(partitions: t.Any) -> t.Dict[str, t.Mapping[str, t.Any]]:
    """Return the `partitions` of a host's result by name. The result is not trusted: it may have any form."""
    listed = partitions if isinstance(partitions, list) else []
    named = [found for found in listed if isinstance(found, dict) and isinstance(found.get("user_name"), str)]
    return {found["user_name"]: found for found in named}
