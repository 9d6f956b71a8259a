# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of ppin_fortinet: passes the attempt gate, then runs the module on the host."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import (
    CredentialAction,
    GatedProxiedSecret,
)


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_fortinet"
    credential_class = GatedProxiedSecret
