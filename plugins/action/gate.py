# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module gate. It works on the controller, where the gate's store is, whatever the hosts of the play."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.hsmops.primus.plugins.module_utils._errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._gate_options import GATE_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._validity import (
    LIFESPAN_ARGUMENT,
    check_lifespan,
    validity,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import LABELS, when
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_store import GateError, Record, open_store

ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "name": {"type": "str"},
    "kind": {"type": "str", "choices": list(LABELS)},
    "clear": {"type": "bool", "default": False},
    "gate_store": GATE_ARGUMENTS["gate_store"],
    "setup_password_lifespan": LIFESPAN_ARGUMENT,
}


class ActionModule(ActionBase):  # type: ignore[misc]
    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            check_lifespan(options["setup_password_lifespan"])
            store = open_store(options["gate_store"])
            found = [(key, record) for key, record in store.items() if _asked(record, options)]
            everything = options["name"] is None and options["kind"] is None
            keys = store.keys() if everything else [key for key, _record in found]  # all: the damaged ones, too
            if options["clear"] and not self._task.check_mode:
                for key in keys:
                    store.remove(key)
        except PpinError as exc:
            return {"failed": True, **exc.failure()}
        except GateError as exc:
            return {"failed": True, "msg": str(exc)}
        lifespan = options["setup_password_lifespan"]
        entries = [_shown(record, lifespan) for _key, record in sorted(found, key=lambda item: str(item[1]["time"]))]
        return {"changed": bool(options["clear"] and keys), "entries": entries}


def _asked(record: Record, options: t.Mapping[str, t.Any]) -> bool:
    return all(options[key] is None or record[key] == options[key] for key in ("name", "kind"))


def _shown(record: Record, lifespan: t.Optional[int]) -> t.Dict[str, t.Any]:
    shown = {key: record.get(key) for key in ("name", "kind", "verdict", "host", "code", "meaning")}
    unclear = [when(moment) for moment in record.get("unclear", [])]
    first_used = record.get("first_used")
    valid = validity(when(first_used), lifespan) if first_used else None
    return {**shown, "time": when(record["time"]), "unclear": unclear, "setup_password_validity": valid}
