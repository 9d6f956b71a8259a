# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller in front of the module ppin_proxy."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._credential_action import CredentialAction
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import PROXY


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_proxy"
    kind = PROXY
    name_options = ("name", "service_user")
    passwords = ("password",)
