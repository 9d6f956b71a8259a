# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What the action plugins attempt_gate and attempt_gate_info share. Both work on the controller, where the store is."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import FIRST, LABELS, when
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError, Record, Store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.stores import open_store

Options = t.Mapping[str, t.Any]

ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "name": {"type": "str"},
    "kind": {"type": "str", "choices": list(LABELS)},
    "gate_store": GATE_ARGUMENTS["gate_store"],
}
"""The options of the doc fragment `ppin.gate_entries`."""


class EntriesAction(ActionBase):  # type: ignore[misc]
    arguments: t.ClassVar[t.Dict[str, t.Dict[str, t.Any]]] = {}
    """The options that only this module has."""

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec={**ARGUMENTS, **self.arguments})
        try:
            return self._work(open_store(options["gate_store"]), options)
        except PpinError as exc:
            return {"failed": True, **exc.failure()}
        except GateError as exc:
            return {"failed": True, "msg": str(exc)}

    def _work(self, store: Store, options: Options) -> t.Dict[str, t.Any]:
        """The result. :raises GateError: when the store cannot be used. :raises PpinError: when an option is wrong."""
        raise NotImplementedError


def chosen(store: Store, options: Options) -> t.List[t.Tuple[str, Record]]:
    """The records that `name` and `kind` choose, with their keys, the oldest first."""
    given = {option: options[option] for option in ("name", "kind") if options[option] is not None}
    items = [item for item in store.items() if item[1]["kind"] != FIRST]
    found = [item for item in items if all(item[1][option] == value for option, value in given.items())]
    return sorted(found, key=lambda item: float(item[1]["time"]))


def entry(record: Record) -> t.Dict[str, t.Any]:
    """What the modules return of a record."""
    shown = {key: record.get(key) for key in ("name", "kind", "verdict", "host", "code", "meaning")}
    wrong = [when(moment) for moment in record.get("wrong", [])]
    return {**shown, "time": when(record["time"]), "wrong": wrong, "witnesses": record.get("witnesses", [])}
