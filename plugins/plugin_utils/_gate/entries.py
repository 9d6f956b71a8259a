# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Base class of the action plugins attempt_gate and attempt_gate_info, which run on the control node."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.open_store import open_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import FIRST, LABELS, utc_time
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError, Record, Store

Options = t.Mapping[str, t.Any]

GATE_ENTRY_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "name": {"type": "str"},
    "kind": {"type": "str", "choices": list(LABELS)},
    "gate_store": GATE_ARGUMENTS["gate_store"],
}
"""The options of the doc fragment `ppin.gate_entries`."""


class EntriesAction(ActionBase):  # type: ignore[misc]
    extra_arguments: t.ClassVar[t.Dict[str, t.Dict[str, t.Any]]] = {}
    """The options that only one of the modules has."""

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(
            argument_spec={**GATE_ENTRY_ARGUMENTS, **self.extra_arguments}
        )
        try:
            return self._run_on_store(open_store(options["gate_store"]), options)
        except PpinError as exc:
            return {"failed": True, **exc.failure()}
        except GateError as exc:
            return {"failed": True, "msg": str(exc)}

    def _run_on_store(self, store: Store, options: Options) -> t.Dict[str, t.Any]:
        """Return the result. :raises GateError: of the store. :raises PpinError: when an option is invalid."""
        raise NotImplementedError


def select_records(store: Store, options: Options) -> t.List[t.Tuple[str, Record]]:
    """Return the records that the options `name` and `kind` select, with their keys, the oldest first."""
    given = {option: options[option] for option in ("name", "kind") if options[option] is not None}
    items = [item for item in store.items() if item[1]["kind"] != FIRST]
    found = [item for item in items if all(item[1][option] == value for option, value in given.items())]
    return sorted(found, key=lambda item: float(item[1]["time"]))


def entry_result(record: Record) -> t.Dict[str, t.Any]:
    """Return a record as in the `entries` of a result."""
    shown = {key: record.get(key) for key in ("name", "kind", "verdict", "host", "code", "meaning")}
    wrong = [utc_time(moment) for moment in record.get("wrong", [])]
    return {**shown, "time": utc_time(record["time"]), "wrong": wrong, "witnesses": record.get("witnesses", [])}
