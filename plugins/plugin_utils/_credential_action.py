# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What the action plugins do in front of the modules that are given a credential: look, have the turn, run.

A host has one turn at a time and gives it back before it asks for another, so hosts never wait for each other in a
ring, whatever strategy, forks, serial or throttle a play has.
"""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.collections import is_string
from ansible_collections.hsmops.primus.plugins.plugin_utils import _gate
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_action import GatedAction, Result, display
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_store import Record, open_store

_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a dictionary"}


class CredentialAction(GatedAction):
    """Base of them. ``passwords`` are the options that are judged together."""

    passwords: t.Tuple[str, ...] = ()

    def _needs_gate(self) -> bool:
        uses = (self._given or self._verifies) and self._arguments.get("state") != "absent"
        return uses and self._name is not None

    def _pass(self, options: t.Mapping[str, t.Any]) -> Result:
        passwords = [self._arguments.get(option) for option in self.passwords]
        for option, password in zip(self.passwords, passwords):
            if password is not None and not is_string(password):  # a literal that Ansible has read may be another one
                kind = next((name for kind, name in _KINDS.items() if isinstance(password, kind)), "no string")
                problem = f"{option} is {kind}, and must be a string: put it in quotes, or use | string."
                raise AnsibleActionFail(problem + " Nothing was tried.")
        given = [] if None in passwords else [str(password) for password in passwords]
        if self._task.check_mode and not self._verifies and open_store(options["gate_store"]).is_new():
            return self._module()  # check mode makes no store
        return self._look_and_try(self._gate_for(options, str(self._name), given))

    @property
    def _given(self) -> bool:
        """Whether there is a credential that the module may try."""
        return all(self._arguments.get(option) is not None for option in self.passwords)

    @property
    def _verifies(self) -> bool:
        """Whether the module logs in with the secret that is there, too."""
        return bool(self._arguments.get("verify") == "always")

    def _look_and_try(self, gate: _gate.Gate) -> Result:
        # In check mode the module spends no credential that it was given; most hosts need nothing and end here, so that
        # they never wait.
        look = self._look_verified(gate) if self._verifies else self._module(check=True)
        if self._task.check_mode and look.get("changed") and self._given:
            try:
                gate.foresee()
            except _gate.Refused as exc:
                return self._refused(exc, look)
        if self._task.check_mode or look.get("failed") or not (look.get("changed") or look.get("interrupted")):
            return look
        if not look.get("changed"):
            self._clean_up()
            return look
        if look.get("verified") is False and not self._stale:  # what was found could not be noted
            self._stale = {"known_stale_age": _gate.STALE_SLACK}
        return self._try(gate, gate.accepted(), look)

    def _try(self, gate: _gate.Gate, accepted: bool, look: Result) -> Result:
        """Use the credential, alone when nobody has had it accepted yet."""
        if not accepted:
            with gate.turn():
                accepted = gate.accepted()
                if not accepted:
                    return self._first(gate, look)
        try:
            with gate.permit():
                result = self._use(look)
                with _gate.reported(display.warning):
                    gate.end(result)
        except _gate.Refused as exc:
            return self._refused(exc, look)
        return result

    def _first(self, gate: _gate.Gate, look: Result) -> Result:
        """Try the credential, having the turn, or fail as an earlier try says."""
        try:
            gate.begin()
        except _gate.Refused as exc:
            return self._refused(exc, look)
        result = self._use(look)
        with _gate.reported(display.warning):
            gate.end(result)
        return result

    def _refused(self, exc: _gate.Refused, look: Result) -> Result:
        """The result of a host that the gate does not let try."""
        failed = {**look, **exc.failure(), "action": "none"}
        failed.pop("diff", None)
        if look.get("interrupted") and not self._task.check_mode:
            self._clean_up()
        return failed

    def _clean_up(self) -> None:
        """Have the module remove what a run left that died, which takes no credential, however it ends then."""
        without_login: t.Dict[str, t.Any] = {"verify": "never"} if self._verifies else {}
        self._module(**dict.fromkeys(self.passwords), **without_login)

    def _use(self, look: Result) -> Result:
        """Run the module; the logins of the look count, too."""
        result = self._module(**self._stale)
        logins = _gate.logins_of(result)
        if logins is not None:
            result["logins"] = logins + (_gate.logins_of(look) or 0)
        return result

    # The login with the secret that is there

    _stale: t.Dict[str, t.Any] = {}

    def _look_verified(self, gate: _gate.Gate) -> Result:
        permanent = gate.permanent()
        if not permanent.known:
            # Only a host that would log in waits for the verdict of another.
            look = self._module(check=True, verify="never")
            if look.get("failed") or look.get("changed") or look.get("interrupted"):
                return look
            with gate.turn():
                permanent = gate.permanent()
                if not permanent.known:
                    try:
                        gate.check_budget()
                    except _gate.Refused as exc:
                        return self._refused(exc, look)
                    started = gate.store.now()
                    look = self._module(check=True)
                    with _gate.reported(display.warning):
                        gate.note_permanent(look, started)
                        self._set_stale(gate, gate.permanent().stale)
                    return look
        stale = permanent.stale
        self._set_stale(gate, stale)
        started = gate.store.now()
        look = self._module(check=True, **self._stale)
        with _gate.reported(display.warning):
            if gate.learnt_permanent(look):
                with gate.turn():
                    gate.note_permanent(look, started, stale)
                self._set_stale(gate, gate.permanent().stale)
            elif stale and look.get("verified") is False and look.get("failed"):
                look["msg"] += " It was %s that found out, at %s." % (stale["host"], _gate.when(stale["time"]))
        return look

    def _set_stale(self, gate: _gate.Gate, stale: t.Optional[Record]) -> None:
        """Have the module of this host go by what is known, so that it does not log in to find out."""
        self._stale = {"known_stale_age": gate.stale_age(stale)} if stale else {}
