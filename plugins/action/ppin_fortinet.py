# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller in front of the module ppin_fortinet."""

from __future__ import annotations

import typing as t

from ansible_collections.hsmops.primus.plugins.plugin_utils._credential_action import CredentialAction
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import PROXY, Gate, Subject
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_action import Result


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_fortinet"
    passwords = ("setup_password", "pkcs11_password")

    def _subject(self, gate: Gate) -> Subject:
        return self._setup_and_pin(gate, *self._proxy(gate))

    def _vouched(self, gate: Gate, look: Result) -> bool:
        proxy = self._proxy(gate)
        return all(gate.accepted(subject) for subject in proxy) if proxy else super()._vouched(gate, look)

    def _proxy(self, gate: Gate) -> t.List[Subject]:
        user, password = self._arguments.get("proxy_user"), self._arguments.get("proxy_password")
        return [gate.credential(PROXY, str(user), str(password))] if password is not None else []
