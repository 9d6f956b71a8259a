# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of attempt_gate: clears entries. It runs on the control node only."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.entries import (
    EntriesAction,
    Options,
    entry_result,
    select_records,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import Store


class ActionModule(EntriesAction):
    extra_arguments: t.ClassVar[t.Dict[str, t.Dict[str, t.Any]]] = {
        "state": {"type": "str", "choices": ["absent"], "required": True},
        "all": {"type": "bool"},
    }

    def _run_on_store(self, store: Store, options: Options) -> t.Dict[str, t.Any]:
        check_selection(options)
        found = select_records(store, options)
        selected_keys = [key for key, _record in found]
        keys = store.keys() if options["all"] else selected_keys
        damaged = set(keys).difference(key for key, _record in store.items())
        if not self._task.check_mode:
            for key in keys:
                store.remove(key)
        cleared = {
            "entries": [entry_result(record) for _key, record in found],
            "damaged": len(damaged),
        }
        result = {"changed": bool(keys), **cleared}
        if self._task.diff and keys:
            header = "entries of the attempt gate"
            after = {"entries": [], "damaged": 0}
            result["diff"] = {"before": cleared, "after": after, "before_header": header, "after_header": header}
        return result


def check_selection(options: Options) -> None:
    """Check that the options select what to clear. :raises AnsibleActionFail:

    Not with ansible-core's own checks, for which `all=false` or an empty name would be a selection.
    """
    selected_by = [option for option in ("name", "kind") if options[option] is not None]
    if options["name"] == "":
        raise AnsibleActionFail("Nothing was cleared, because name is empty: set it to a partition or service user")
    if not selected_by and not options["all"]:
        raise AnsibleActionFail(
            "Nothing was cleared, because neither name, kind nor all=true is set: set name or kind, or all=true for "
            "every entry"
        )
    if selected_by and options["all"]:
        raise AnsibleActionFail(
            "Nothing was cleared, because all=true selects every entry and %s only some: set one or the other"
            % " and ".join(selected_by)
        )
