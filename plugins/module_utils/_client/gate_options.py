# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The options of the attempt gate. The action plugins use them; of the modules, some are told what the gate knows."""

import typing as t

GATE_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "gate": {"type": "bool", "default": True},
    "gate_store": {"type": "str", "no_log": True},
    "gate_budget": {"type": "int", "default": 3},
    "gate_parallel": {"type": "int", "default": 16},
    "gate_window": {"type": "int", "default": 3600},
}
"""The options of the doc fragment `ppin.gate`."""

GATE_SAYS: t.Dict[str, t.Dict[str, t.Any]] = {
    "gate_says": {
        "type": "dict",
        "options": {
            "look": {"type": "bool", "default": False},
            "checked": {"type": "list", "elements": "str", "default": []},
            "stale": {"type": "list", "elements": "str", "default": []},
            "origins": {"type": "dict", "default": {}},
        },
    },
}
"""What the action plugin tells a module that logs in. Documented where the module is; users do not set it."""


class GateSays(t.NamedTuple):
    """The option `gate_says`.

    :ivar look: check mode, but the verdict of a login is noted, as it was really made.
    :ivar checked: partitions of whose present entry the verdict in the ledger is of this run.
    :ivar stale: origins of permanent secrets that the HSM rejects, as several clients found.
    :ivar origins: of what this run fetches, by partition.
    """

    look: bool = False
    checked: t.Sequence[str] = ()
    stale: t.Sequence[str] = ()
    origins: t.Mapping[str, str] = {}  # noqa: RUF012 (never changed)

    @classmethod
    def of(cls, params: t.Mapping[str, t.Any]) -> "GateSays":
        return cls(**(params.get("gate_says") or {}))
