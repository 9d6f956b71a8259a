# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller in front of the module pkcs11_token_info."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._credential_action import CredentialAction
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import PIN, Gate, Subject
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_action import Result


class ActionModule(CredentialAction):
    module = "hsmops.primus.pkcs11_token_info"
    name_options = (*CredentialAction.name_options, "token_label", "slot_id")
    passwords = ("pin",)

    def _subject(self, gate: Gate) -> Subject:
        return gate.credential(PIN, str(self._name), str(self._arguments["pin"]))

    def _look_and_try(self, gate: Gate) -> Result:
        return self._try(gate, {})  # each run needs the PIN: there is nothing to look at first
