# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the control node in front of the module ppin_proxy."""

from __future__ import annotations

import typing as t

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import CredentialAction, ProxyTrial


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_proxy"
    name_options = ("name", "service_user")
    trial = ProxyTrial
    once: t.Mapping[str, t.Any] = {"retries": 0}
