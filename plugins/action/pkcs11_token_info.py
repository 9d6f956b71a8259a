# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of pkcs11_token_info: passes the attempt gate, then runs the module on the host."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import (
    CredentialAction,
    GatedCredential,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import PIN, Gate, Subject


class GatedPin(GatedCredential):
    passwords = ("pin",)
    # The observation finds a host that cannot be reached, or lacks the library, before it waits for its turn.
    runs_always = True

    def subject(self, gate: Gate) -> Subject:
        return gate.password_subject(PIN, str(self.name), str(self.options["pin"]))


class ActionModule(CredentialAction):
    module = "hsmops.primus.pkcs11_token_info"
    name_options = (*CredentialAction.name_options, "token_label", "slot_id")
    credential_class = GatedPin
