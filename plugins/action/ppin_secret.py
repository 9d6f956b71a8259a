# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of ppin_secret: passes the attempt gate, then runs the module on the host."""

from __future__ import annotations

import typing as t

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import (
    CredentialAction,
    GatedCredential,
    GatedSecret,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_secret"
    credential_class = GatedSecret
    single_try: t.Mapping[str, t.Any] = {"retries": 0}

    def _gate_findings(self, gate: Gate, credentials: t.Sequence[GatedCredential]) -> t.Dict[str, t.Any]:
        return self._findings_for_secrets(gate, credentials)
