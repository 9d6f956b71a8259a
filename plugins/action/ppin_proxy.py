# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of ppin_proxy: passes the attempt gate, then runs the module on the host."""

from __future__ import annotations

import typing as t

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import (
    CredentialAction,
    GatedProxyPassword,
)


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_proxy"
    name_options = ("name", "service_user")
    credential_class = GatedProxyPassword
    single_try: t.Mapping[str, t.Any] = {"retries": 0}
