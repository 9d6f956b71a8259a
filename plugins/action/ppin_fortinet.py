# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller in front of the module ppin_fortinet."""

from __future__ import annotations

import typing as t

from ansible_collections.hsmops.primus.plugins.plugin_utils._credential_action import CredentialAction
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import SECRET
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_action import Result


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_fortinet"
    kind = SECRET
    passwords: t.Tuple[str, ...] = ("setup_password", "pkcs11_password")

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> Result:
        if self._task.args.get("proxy_password") is not None:
            # ppin does not tell which of the passwords was rejected, so they are judged together.
            self.passwords = (*self.passwords, "proxy_password")
        return super().run(tmp, task_vars)
