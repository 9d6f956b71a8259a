# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What the action plugins do in front of the modules that log in with the permanent secrets that a client has."""

from __future__ import annotations

import contextlib
import typing as t

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.hsmops.primus.plugins.module_utils._ppin import ARGUMENTS as PPIN_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.plugin_utils import _gate
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_action import GatedAction, Result, display


class LoginAction(GatedAction):
    """Base of them. The module tells with C(known_stale_ages) what the gate knows, and returns C(partitions)."""

    kind = _gate.SECRET

    def _needs_gate(self) -> bool:
        return True

    def _pass(self, options: t.Mapping[str, t.Any]) -> Result:
        names, failure = self._names()
        return failure or self._log_in([self._gate_for(options, name) for name in sorted(names)])

    def _names(self) -> t.Tuple[t.Set[str], Result]:
        """The partitions that the module may log in to, without those that lack a secret; or why they are not known."""
        if self._name is not None:
            return {self._name}, {}
        look = self._execute_module(
            module_name="hsmops.primus.ppin_info",
            module_args={option: self._arguments[option] for option in PPIN_ARGUMENTS if option in self._arguments},
            task_vars=self._task_vars,
        )
        if look.get("failed") or look.get("unreachable"):
            return set(), look
        if look.get("error"):  # without the names, the gate would guard nothing
            error = look["error"] if isinstance(look["error"], dict) else {}
            msg = "%s. %s No login was made." % (error.get("msg"), error.get("hint"))
            return set(), {"failed": True, "changed": False, "msg": msg, "error": error, "logins": 0, "ok": False}
        return {name for name, found in _by_name(look.get("partitions")).items() if found.get("configured")}, {}

    def _log_in(self, gates: t.Sequence[_gate.Gate]) -> Result:
        """One host alone logs in to a partition of which nothing is known; all others go by what it finds.

        The turns of several partitions are taken in the order of their names, by every host, so there is no ring.
        """
        forced = boolean(self._arguments.get("force") or False, strict=False)
        with contextlib.ExitStack() as turns:
            held = [] if forced else [gate for gate in gates if not gate.permanent().known]
            for gate in held:
                turns.enter_context(gate.turn())
            if all(gate.permanent().known for gate in held):
                turns.close()
                held = []
            for gate in held:
                try:
                    gate.check_budget()
                except _gate.Refused as exc:
                    return {**exc.failure(), "logins": 0, "ok": False}
            stale = {gate.name: record for gate in gates for record in [gate.permanent().stale] if record}
            ages = {gate.name: gate.stale_age(stale[gate.name]) for gate in gates if gate.name in stale}
            started = max((gate.store.now() for gate in gates), default=0.0)
            result = self._module(known_stale_ages={} if forced else ages)
            verdicts = _by_name(result.get("partitions"))
            for gate in held:
                with _gate.reported(display.warning):
                    gate.note_permanent(verdicts.get(gate.name, {}), started)
        for gate in gates:  # with no turn left: these are no longer taken in the order of the names
            verdict = verdicts.get(gate.name, {})
            with _gate.reported(display.warning):
                if gate not in held and gate.learnt_permanent(verdict):
                    with gate.turn():
                        gate.note_permanent(verdict, started, stale.get(gate.name))
        if result.get("failed") and result.get("refused"):
            result["msg"] += "".join(
                " It was %s that found out about '%s', at %s."
                % (stale[name]["host"], name, _gate.when(stale[name]["time"]))
                for name in result["refused"]
                if name in stale
            )
        return result


def _by_name(partitions: t.Any) -> t.Dict[str, t.Mapping[str, t.Any]]:
    """The C(partitions) of a host's result, which may be anything, by their names."""
    listed = partitions if isinstance(partitions, list) else []
    named = [found for found in listed if isinstance(found, dict) and isinstance(found.get("user_name"), str)]
    return {found["user_name"]: found for found in named}
