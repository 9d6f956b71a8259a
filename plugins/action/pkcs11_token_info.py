# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller in front of the module pkcs11_token_info."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.action import Result
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import CredentialAction
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import PIN, Gate, Refused, Subject


class ActionModule(CredentialAction):
    module = "hsmops.primus.pkcs11_token_info"
    name_options = (*CredentialAction.name_options, "token_label", "slot_id")
    passwords = ("pin",)

    def _subject(self, gate: Gate) -> Subject:
        return gate.credential(PIN, str(self._name), str(self._arguments["pin"]))

    def _look_and_try(self, gate: Gate) -> Result:
        # A host that cannot be reached, or lacks the library, fails before its turn: it tries nothing.
        look = self._module(check=True)
        if look.get("failed"):
            return look
        if not self._task.check_mode:
            return self._try(gate, look)
        try:
            gate.foresee(self._subject(gate))
        except Refused as exc:
            return self._refused(exc, look)
        return look
