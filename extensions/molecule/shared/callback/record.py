# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records what each playbook run changed, so that verify.yml can check the runs before it.

One JSON line per run is added to the file that PRIMUS_RUNS names: {"playbook": its file's name, "check": bool,
"stats": {host: {"ok", "changed", "failures", "unreachable", "skipped", "rescued", "ignored"}}, "changed": {host: the
sorted names of what changed, "task" or "task: item"}}.
"""

from __future__ import annotations

import json
import os
import re

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: record
type: notification
short_description: Records what each playbook run changed
description: See the source.
"""

# The sentences in which check mode reports what it cannot simulate, and the tasks that do it, get the same name.
SAME = {
    r"The provider \S+ would be installed\.|(Create|Remove) the temporary directory .*|Download the package"
    r"|Copy the package for this host .*|Install the \.(deb|rpm)\b.*|Unpack the package .*|Make ppin executable"
    r"|Set owner, group and permissions of the provider|Keep the present provider as a backup"
    r"|Replace the provider by the new one": "installed",
    r"Remove the package( with zypper)?|Remove the remaining files of the provider": "provider removed",
    r"\S+ would be moved from .*|Move the configuration out of .*": "moved",
    r"\S+ would be put in place from the template .*|Copy missing configuration files .*": "copied",
    r"(\S+) would become a member of .*|Add the members to the group: (\S+)": r"joined: \1\2",
    r"The service proxy password of '(.+)' would be set\.": r"service proxy password: \1",
    r"The permanent secret of '(.+)' would be fetched\.": r"permanent secret: \1",
}
UNSIMULATED = r"Report (changes|credentials) that check mode cannot simulate"


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.changed = {}

    def v2_playbook_on_start(self, playbook):
        self.playbook = os.path.basename(playbook._file_name)

    def v2_runner_on_ok(self, result):
        if not result._result.get("changed") or result._task.loop:
            return
        name = result._task.get_name().rpartition(" : ")[2]  # without that of the role
        if re.fullmatch(UNSIMULATED, name):
            self.note(result, *result._result["msg"])
        elif result._task.action.endswith(".ppin_credentials"):
            changed = [outcome for outcome in result._result["results"] if outcome["changed"]]
            self.note(result, *(kind_and_name(outcome) for outcome in changed))
        else:
            self.note(result, name)

    def v2_runner_item_on_ok(self, result):
        if result._result.get("changed"):
            item = result._result.get("_ansible_item_label", result._result[result._result["ansible_loop_var"]])
            self.note(result, f"{result._task.get_name().rpartition(' : ')[2]}: {item}")

    def note(self, result, *names):
        for name in names:
            for pattern, replacement in SAME.items():
                if match := re.fullmatch(pattern, name):
                    name = match.expand(replacement)
                    break
            self.changed.setdefault(result._host.get_name(), set()).add(name)

    def v2_playbook_on_stats(self, stats):
        run = {
            "playbook": self.playbook,
            "check": context.CLIARGS["check"],
            "stats": {host: stats.summarize(host) for host in stats.processed},
            "changed": {host: sorted(names) for host, names in self.changed.items()},
        }
        with open(os.environ["PRIMUS_RUNS"], "a", encoding="utf-8") as runs:
            runs.write(json.dumps(run) + "\n")


def kind_and_name(outcome):
    """The name of a credential, from an outcome of ppin_credentials."""
    if "service_user" in outcome:
        return f"service proxy password: {outcome['service_user']}"
    return f"permanent secret: {outcome['user_name']}"
