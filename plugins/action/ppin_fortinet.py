# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller in front of the module ppin_fortinet."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.action import Result
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import CredentialAction
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import PROXY, Gate, Subject


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_fortinet"
    passwords = ("setup_password", "pkcs11_password")

    def _subject(self, gate: Gate) -> Subject:
        setup = self._setup_and_pin(gate)
        user, password = self._arguments.get("proxy_user"), self._arguments.get("proxy_password")
        if password is None:
            return setup
        proxy = gate.credential(PROXY, str(user), str(password))
        if gate.accepted(proxy):
            return setup._replace(parts=(*setup.parts, proxy))
        # ppin does not tell which of the two was rejected, so they are tried as one.
        return gate.together(setup, proxy)

    def _vouched(self, gate: Gate, look: Result) -> bool:
        return self._arguments.get("proxy_password") is not None or super()._vouched(gate, look)
