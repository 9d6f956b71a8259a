# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What the action plugins of the modules that use credentials do on the controller: pass the attempt gate, run it.

A host has one turn at a time and gives it back before it asks for another, so hosts never wait for each other in a
ring, whatever strategy, forks, serial or throttle a play has.
"""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.hsmops.primus.plugins.module_utils._gate_options import GATE_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.plugin_utils import _gate
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_store import GateError, Record, open_store

Result = t.Dict[str, t.Any]


class GatedAction(ActionBase):  # type: ignore[misc]
    """Base of them. ``passwords`` are the options that are judged together."""

    _supports_async = True
    module = ""
    kind = ""
    name_options: t.Tuple[str, ...] = ()
    passwords: t.Tuple[str, ...] = ()

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> Result:
        super().run(tmp, task_vars)
        self._task_vars = task_vars or {}
        self._arguments = dict(self._task.args)
        options = gate_options(self._arguments)
        named = [self._arguments.get(option) for option in self.name_options]
        name = next((value for value in named if value not in (None, "")), None)
        passwords = [self._arguments.get(option) for option in self.passwords]
        tries = None not in passwords and not self._task.check_mode
        verifies = self._arguments.get("verify") == "always"
        if not options["gate"] or name is None or self._arguments.get("state") == "absent" or not (tries or verifies):
            return self._module()
        if self._task.async_val:
            raise AnsibleActionFail("A task with async cannot pass the attempt gate: set gate to false, or async to 0")
        try:
            return self._pass(self._gate_for(options, str(name), passwords), tries, verifies)
        except GateError as exc:
            return {"changed": False, "failed": True, "msg": "%s. No credential was used." % str(exc).rstrip(".")}

    def _gate_for(self, options: t.Mapping[str, t.Any], name: str, passwords: t.Sequence[t.Any] = ()) -> _gate.Gate:
        return _gate.Gate(
            open_store(options["gate_store"]),
            _gate.Options(options["gate_budget"], options["gate_window"]),
            str(self._task_vars.get("inventory_hostname", "a host")),
            self.kind,
            name,
            [] if None in passwords else [str(password) for password in passwords],
            display.display,
        )

    def _pass(self, gate: _gate.Gate, tries: bool, verifies: bool) -> Result:
        accepted = tries and gate.accepted()
        look: Result = {}
        if verifies or not accepted:
            # In check mode the module spends no credential that it was given; most hosts need nothing and end here.
            look = self._look_verified(gate) if verifies else self._module(check=True)
            if self._task.check_mode or look.get("failed") or not (look.get("changed") or look.get("interrupted")):
                return look
        return self._try(gate, accepted, look)

    def _try(self, gate: _gate.Gate, accepted: bool, look: Result) -> Result:
        """Use the credential, alone when nobody has had it accepted yet."""
        if not accepted:
            with gate.turn():
                accepted = gate.accepted()
                if not accepted:
                    return self._first(gate, look)
        result = self._real(look)
        if _gate.judge(result)[0] == _gate.REJECTED:
            with _gate.reported(display.warning), gate.turn():
                gate.end(result)
        return result

    def _first(self, gate: _gate.Gate, look: Result) -> Result:
        """Try the credential, having the turn, or fail as an earlier try says."""
        try:
            gate.begin()
        except _gate.Refused as exc:
            error = {"code": exc.code, "name": exc.meaning, "class": exc.cls, "hint": exc.hint}
            failed = dict(
                look, failed=True, changed=False, action="none", msg="%s. %s" % (exc.msg, exc.hint), error=error
            )
            failed.pop("diff", None)
            return failed
        result = self._real(look)
        with _gate.reported(display.warning):
            gate.end(result)
        return result

    def _real(self, look: Result) -> Result:
        result = self._module(**self._stale)
        if "logins" in result:
            result["logins"] += look.get("logins", 0)
        return result

    # The login with the secret that is there

    _stale: t.Dict[str, t.Any] = {}

    def _look_verified(self, gate: _gate.Gate) -> Result:
        known, stale = gate.permanent()
        if not known:
            # Only a host that would log in waits for the verdict of another.
            look = self._module(check=True, verify="never")
            if look.get("failed") or look.get("changed") or look.get("interrupted"):
                return look
            with gate.turn():
                known, stale = gate.permanent()
                if not known:
                    started = time.time()
                    look = self._module(check=True)
                    with _gate.reported(display.warning):
                        gate.note_permanent(look, started)
                    self._set_stale(gate, gate.permanent()[1])
                    return look
        self._set_stale(gate, stale)
        started = time.time()
        look = self._module(check=True, **self._stale)
        if gate.learnt_permanent(look):
            with _gate.reported(display.warning), gate.turn():
                gate.note_permanent(look, started, stale)
            self._set_stale(gate, gate.permanent()[1])
        elif stale and look.get("verified") is False and look.get("failed"):
            look["msg"] += " It was %s that found out, at %s." % (stale["host"], _gate.when(stale["time"]))
        return look

    def _set_stale(self, gate: _gate.Gate, stale: t.Optional[Record]) -> None:
        """Have the module of this host go by what is known, so that it does not log in to find out."""
        self._stale = {"known_stale_age": gate.stale_age(stale)} if stale else {}

    # The module

    def _module(self, check: t.Optional[bool] = None, **changes: t.Any) -> Result:
        """Run the module on the host; in check mode, not, or as the task is."""
        before = self._task.check_mode
        self._task.check_mode = before if check is None else check
        try:
            return self._execute_module(  # type: ignore[no-any-return]
                module_name=self.module,
                module_args={**self._arguments, **changes},
                task_vars=self._task_vars,
                wrap_async=self._task.async_val and not self._connection.has_native_async,
            )
        finally:
            self._task.check_mode = before


def gate_options(arguments: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """The gate's options of a task, with defaults, in their types. The hosts do not get to see the store's address."""
    given = {option: arguments[option] for option in GATE_ARGUMENTS if arguments.get(option) is not None}
    arguments.pop("gate_store", None)
    validated = ArgumentSpecValidator(GATE_ARGUMENTS).validate(given)
    options: t.Dict[str, t.Any] = validated.validated_parameters
    problems = list(validated.error_messages)
    if not problems:
        problems = ["%s must be at least 1" % key for key in ("gate_budget", "gate_window") if options[key] < 1]
    if problems:
        raise AnsibleActionFail("; ".join(problems))
    return options


display = Display()
