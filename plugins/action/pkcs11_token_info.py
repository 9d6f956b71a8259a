# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the control node in front of the module pkcs11_token_info."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import CredentialAction, Trial
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import PIN, Gate, Subject


class PinTrial(Trial):
    passwords = ("pin",)
    # The look finds a host that cannot be reached, or lacks the library, before its turn: it tries nothing.
    always = True

    def subject(self, gate: Gate) -> Subject:
        return gate.credential(PIN, str(self.name), str(self.options["pin"]))


class ActionModule(CredentialAction):
    module = "hsmops.primus.pkcs11_token_info"
    name_options = (*CredentialAction.name_options, "token_label", "slot_id")
    trial = PinTrial
