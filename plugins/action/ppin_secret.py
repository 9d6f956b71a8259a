# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the control node in front of the module ppin_secret."""

from __future__ import annotations

import typing as t

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import (
    CredentialAction,
    SecretTrial,
    Trial,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_secret"
    trial = SecretTrial
    once: t.Mapping[str, t.Any] = {"retries": 0}

    def _says(self, gate: Gate, trials: t.Sequence[Trial]) -> t.Dict[str, t.Any]:
        return self._says_of_secrets(gate, trials)
