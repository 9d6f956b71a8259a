# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of ppin_log_info: passes the attempt gate, then runs the module on the host."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.login_action import LoginAction


class ActionModule(LoginAction):
    module = "hsmops.primus.ppin_log_info"
