# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module attempt_gate."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.entries import EntriesAction, Options, chosen, entry
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import Store


class ActionModule(EntriesAction):
    arguments: t.ClassVar[t.Dict[str, t.Dict[str, t.Any]]] = {
        "state": {"type": "str", "choices": ["absent"], "required": True},
        "all": {"type": "bool"},
    }

    def _work(self, store: Store, options: Options) -> t.Dict[str, t.Any]:
        check_choice(options)
        found = chosen(store, options)
        chosen_keys = [key for key, _record in found]
        keys = store.keys() if options["all"] else chosen_keys
        damaged = set(keys).difference(key for key, _record in store.items())  # not those that are not shown
        if not self._task.check_mode:
            for key in keys:
                store.remove(key)
        cleared = {
            "entries": [entry(record) for _key, record in found],
            "damaged": len(damaged),
        }
        result = {"changed": bool(keys), **cleared}
        if self._task.diff and keys:
            header = "entries of the attempt gate"
            after = {"entries": [], "damaged": 0}
            result["diff"] = {"before": cleared, "after": after, "before_header": header, "after_header": header}
        return result


def check_choice(options: Options) -> None:
    """:raises AnsibleActionFail: unless it was said what to clear.

    By value, as ansible-core's own checks take `all=false` or an empty name for a choice.
    """
    chosen_by = [option for option in ("name", "kind") if options[option] is not None]
    if options["name"] == "":
        raise AnsibleActionFail("Nothing was cleared, because name is empty: set it to a partition or service user")
    if not chosen_by and not options["all"]:
        raise AnsibleActionFail(
            "Nothing was cleared, because neither name, kind nor all=true is set: set name or kind, or all=true for "
            "every entry"
        )
    if chosen_by and options["all"]:
        raise AnsibleActionFail(
            "Nothing was cleared, because all=true selects every entry and %s only some: set one or the other"
            % " and ".join(chosen_by)
        )
