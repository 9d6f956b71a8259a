# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the control node in front of the module ppin_fortinet."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import CredentialAction, SecretTrial
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import PROXY, Gate, Subject


class FortinetTrial(SecretTrial):
    def subject(self, gate: Gate) -> Subject:
        setup = super().subject(gate)
        user, password = self.options.get("proxy_user"), self.options.get("proxy_password")
        if password is None:
            return setup
        proxy = gate.credential(PROXY, str(user), str(password))
        if gate.accepted(proxy):
            return setup._replace(parts=(*setup.parts, proxy))
        # ppin does not tell which of the two was rejected, so they are tried as one.
        return gate.together(setup, proxy)

    @property
    def vouched(self) -> bool:
        return self.options.get("proxy_password") is not None or super().vouched


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_fortinet"
    trial = FortinetTrial
