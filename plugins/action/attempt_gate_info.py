# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module attempt_gate_info."""

from __future__ import annotations

import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import (
    LIFESPAN_ARGUMENT,
    check_lifespan,
    validity,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.entries import EntriesAction, Options, chosen, entry
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import when
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import Record, Store


class ActionModule(EntriesAction):
    arguments: t.ClassVar[t.Dict[str, t.Dict[str, t.Any]]] = {"setup_password_lifespan": LIFESPAN_ARGUMENT}

    def _work(self, store: Store, options: Options) -> t.Dict[str, t.Any]:
        lifespan = options["setup_password_lifespan"]
        check_lifespan(lifespan)
        entries = [
            {**entry(record), "setup_password_validity": _validity(record, lifespan)}
            for _key, record in chosen(store, options)
        ]
        return {"changed": False, "entries": entries}


def _validity(record: Record, lifespan: t.Optional[int]) -> t.Optional[t.Dict[str, t.Any]]:
    first_used = record.get("first_used")
    return validity(when(first_used), lifespan) if first_used else None
