# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of ppin_fortinet: passes the attempt gate, then runs the module on the host."""

from __future__ import annotations

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import CredentialAction, GatedSecret
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import PROXY, Gate, Subject


class GatedFortinetSecret(GatedSecret):
    def subject(self, gate: Gate) -> Subject:
        setup = super().subject(gate)
        user, password = self.options.get("proxy_user"), self.options.get("proxy_password")
        if password is None:
            return setup
        proxy = gate.password_subject(PROXY, str(user), str(password))
        if gate.accepted(proxy):
            return setup._replace(parts=(*setup.parts, proxy))
        # ppin does not report which of the two was rejected, so they are one subject.
        return gate.combined_subject(setup, proxy)

    @property
    def vouched(self) -> bool:
        return self.options.get("proxy_password") is not None or super().vouched


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_fortinet"
    credential_class = GatedFortinetSecret
