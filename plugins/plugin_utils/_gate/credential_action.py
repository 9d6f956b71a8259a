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
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.action import GatedAction, Result, display
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate, Subject
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import open_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import judge, logins_of

_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a dictionary"}


class CredentialAction(GatedAction):
    """Base of them.

    :cvar passwords: the options that are tried together.
    :cvar once: options with which the module tries once only, as another host has just not reached the HSM.
    """

    passwords: t.Tuple[str, ...] = ()
    once: t.Mapping[str, t.Any] = {}

    def _needs_gate(self) -> bool:
        uses = (self._given or self._verifies) and self._arguments.get("state") != "absent"
        return uses and self._name is not None

    def _pass(self, options: t.Mapping[str, t.Any]) -> Result:
        self._check_types()
        if self._task.check_mode and not self._verifies and open_store(options["gate_store"]).is_new():
            return self._module()  # check mode makes no store
        return self._look_and_try(self._open_gate(options))

    def _check_types(self) -> None:
        for option in self.passwords:
            password = self._arguments.get(option)
            if password is not None and not is_string(password):  # a literal that Ansible has read may be another one
                kind = next((name for kind, name in _KINDS.items() if isinstance(password, kind)), "no string")
                problem = f"{option} is {kind}, and must be a string: put it in quotes, or use | string."
                raise AnsibleActionFail(problem + " Nothing was tried.")

    def _subject(self, gate: Gate) -> Subject:
        """What the module tries, of the passwords given."""
        raise NotImplementedError

    def _setup_and_pin(self, gate: Gate) -> Subject:
        """The setup password, and with it the PKCS#11 password, which has a record of its own."""
        setup, pin = (str(self._arguments[option]) for option in ("setup_password", "pkcs11_password"))
        name = str(self._name)
        return gate.credential(rules.SECRET, name, setup)._replace(parts=(gate.credential(rules.PIN, name, pin),))

    def _vouched(self, gate: Gate, look: Result) -> bool:
        """Whether a rejection can only be of the passwords given, and not of a service proxy's."""
        return look.get("proxy_vouched") is not False

    @property
    def _given(self) -> bool:
        """Whether there is a credential that the module may try."""
        return all(self._arguments.get(option) is not None for option in self.passwords)

    @property
    def _verifies(self) -> bool:
        """Whether the module logs in with the secret that is there, too."""
        return bool(self._arguments.get("verify") == "always")

    def _look_and_try(self, gate: Gate) -> Result:
        if not self._given or self._verifies or self._task.check_mode:
            return self._look_first(gate)
        subject = self._subject(gate)
        with gate.early_permission(subject) as permitted:
            return self._use_and_tell(gate, subject, {}, {}) if permitted else self._look_first(gate)

    def _look_first(self, gate: Gate) -> Result:
        # In check mode the module spends no credential that it was given. Most hosts need nothing and end here.
        look = self._module(check=True, **({"verify": "never"} if self._verifies else {}))
        if self._verifies and not (look.get("failed") or look.get("changed") or look.get("interrupted")):
            look = self._verify(gate, look)
        if self._task.check_mode and look.get("changed") and self._given:
            try:
                gate.foresee(self._subject(gate), self._vouched(gate, look))
            except rules.Refused as exc:
                return self._refused(exc, look)
        if self._task.check_mode or look.get("failed") or not (look.get("changed") or look.get("interrupted")):
            return look
        if not look.get("changed"):
            self._clean_up()
            return look
        return self._try(gate, look)

    def _try(self, gate: Gate, look: Result) -> Result:
        """Use the credential, as soon as the gate lets this host, or fail as an earlier try says."""
        subject, vouched = self._subject(gate), self._vouched(gate, look)
        try:
            with gate.permission(subject, vouched) as once:
                return self._use_and_tell(gate, subject, look, self.once if once else {})
        except rules.Refused as exc:
            return self._refused(exc, look)

    def _refused(self, exc: rules.Refused, look: Result) -> Result:
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

    def _use_and_tell(self, gate: Gate, subject: Subject, look: Result, changes: t.Mapping[str, t.Any]) -> Result:
        result = self._use(gate, look, changes)
        with rules.reported(display.warning):
            gate.end(subject, judge(result), self._vouched(gate, result))
        return result

    def _use(self, gate: Gate, look: Result, changes: t.Mapping[str, t.Any]) -> Result:
        """Run the module; the logins of the look count, too."""
        result = self._module(**changes)
        logins = logins_of(result)
        if logins is not None:
            result["logins"] = logins + (logins_of(look) or 0)
        return result

    def _verify(self, gate: Gate, look: Result) -> Result:
        """Have the module log in with the secret that is there, or go by what other clients found of its origin."""
        raise NotImplementedError
