# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The options of the attempt gate. The action plugins use them, the modules only know that there are such."""

import typing as t

GATE_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "gate": {"type": "bool", "default": True},
    "gate_store": {"type": "str", "no_log": True},
    "gate_budget": {"type": "int", "default": 3},
    "gate_parallel": {"type": "int", "default": 16},
    "gate_window": {"type": "int", "default": 3600},
}
"""The options of the doc fragment C(ppin.gate)."""
