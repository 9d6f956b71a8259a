# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller in front of the module ppin_proxy."""

from __future__ import annotations

import typing as t

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import CredentialAction
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import PROXY, Gate, Subject


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_proxy"
    name_options = ("name", "service_user")
    passwords = ("password",)
    once: t.Mapping[str, t.Any] = {"retries": 0}

    def _subject(self, gate: Gate) -> Subject:
        return gate.credential(PROXY, str(self._name), str(self._arguments["password"]))
