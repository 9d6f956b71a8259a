# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller in front of the module ppin_secret."""

from __future__ import annotations

import typing as t

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.action import Result, display
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import CredentialAction
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate, Subject
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import judge_login


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_secret"
    passwords = ("setup_password", "pkcs11_password")
    once: t.Mapping[str, t.Any] = {"retries": 0}

    _says: t.Mapping[str, t.Any] = {}  # what the gate knows of the secret that is there

    def _subject(self, gate: Gate) -> Subject:
        return self._setup_and_pin(gate)

    def _use(self, gate: Gate, look: Result, changes: t.Mapping[str, t.Any]) -> Result:
        origin = gate.origin(str(self._name), str(self._arguments["setup_password"]))
        return super()._use(gate, look, {**changes, "gate_says": {**self._says, "origin": origin}})

    def _verify(self, gate: Gate, look: Result) -> Result:
        subject = gate.permanent(str(self._name), self._entry)
        try:
            with gate.permission(subject):
                # In check mode nothing is written, so the module cannot note the verdict for the run after it.
                look = self._module(check=True, gate_says={"look": not self._task.check_mode})
                with rules.reported(display.warning):
                    gate.end(subject, judge_login(look))
        except rules.Refused as exc:
            return self._refused(exc, look)
        except rules.Stale as exc:
            self._says = {"stale": [self._entry.origin]}
            look = self._module(check=True, gate_says=self._says)
            if look.get("failed"):
                look["msg"] += f" {rules.found_by(exc.record)}"
            return look
        self._says = {"checked": True}
        return look
