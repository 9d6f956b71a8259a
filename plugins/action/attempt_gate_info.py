# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of attempt_gate_info: returns entries. It runs on the control node only."""

from __future__ import annotations

import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import (
    LIFESPAN_ARGUMENT,
    check_lifespan,
    validity,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.entries import (
    EntriesAction,
    Options,
    entry_result,
    select_records,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import utc_time
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import Record, Store


class ActionModule(EntriesAction):
    extra_arguments: t.ClassVar[t.Dict[str, t.Dict[str, t.Any]]] = {"setup_password_lifespan": LIFESPAN_ARGUMENT}

    def _run_on_store(self, store: Store, options: Options) -> t.Dict[str, t.Any]:
        lifespan = options["setup_password_lifespan"]
        check_lifespan(lifespan)
        entries = [
            {**entry_result(record), "setup_password_validity": _validity(record, lifespan)}
            for _key, record in select_records(store, options)
        ]
        return {"changed": False, "entries": entries}


def _validity(record: Record, lifespan: t.Optional[int]) -> t.Optional[t.Dict[str, t.Any]]:
    first_used = record.get("first_used")
    return validity(utc_time(first_used), lifespan) if first_used else None
