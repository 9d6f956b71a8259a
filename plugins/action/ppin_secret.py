# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller in front of the module ppin_secret."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._credential_action import CredentialAction
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import SECRET


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_secret"
    kind = SECRET
    passwords = ("setup_password", "pkcs11_password")
