# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The options of the attempt gate, and the option in which an action plugin gives the gate's findings to a module."""

import typing as t

GATE_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "gate": {"type": "bool", "default": True},
    "gate_store": {"type": "str", "no_log": True},
    "gate_budget": {"type": "int", "default": 3},
    "gate_parallel": {"type": "int", "default": 16},
    "gate_window": {"type": "int", "default": 3600},
}
"""The options of the doc fragment `ppin.gate`."""

GATE_FINDINGS_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "gate_findings": {
        "type": "dict",
        "options": {
            "record": {"type": "bool", "default": False},
            "checked": {"type": "list", "elements": "str", "default": []},
            "stale": {"type": "list", "elements": "str", "default": []},
            "origins": {"type": "dict", "default": {}},
        },
    },
}
"""The gate's findings, which the action plugin gives to a module that logs in. Users do not set this option."""


class GateFindings(t.NamedTuple):
    """The value of the option `gate_findings`.

    :ivar record: record the verdict of a login in check mode, too. The gate observes in check mode before the run.
    :ivar checked: partitions whose verdict in the ledger is from a login of this run.
    :ivar stale: origins of permanent secrets that several clients have found to be rejected.
    :ivar origins: the origins to record for the secrets that this run fetches, by partition.
    """

    record: bool = False
    checked: t.Sequence[str] = ()
    stale: t.Sequence[str] = ()
    origins: t.Mapping[str, str] = {}  # noqa: RUF012 (never changed)

    @classmethod
    def of(cls, params: t.Mapping[str, t.Any]) -> "GateFindings":
        return cls(**(params.get("gate_findings") or {}))
