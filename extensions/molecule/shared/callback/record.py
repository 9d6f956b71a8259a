# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes down what each playbook run did, so that verify.yml can judge the runs before it.

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
short_description: Writes down what each playbook run did
description: See the source.
"""

# In check mode, one sentence tells of what cannot be tried: it and the tasks that it stands for have one name here.
SAME = {
    r"Check mode .*: The provider \S+ would be installed|(Create|Download|Put|Remove) .*\b(package|temporary)\b.*"
    r"|The package .*|The \.(deb|rpm) is installed.*|Let the group use the provider.*|The provider is .*"
    r"|The present provider is kept as a backup": "installed",
    r"(?:Check mode .*|Move the configuration to .*): (\S+)( would be moved .*)?": r"moved: \1",
    r"(?:Check mode .*|Put what the client has none of .*): (\S+)( would be put in place .*)?": r"copied: \1",
    r"(?:Check mode .*|Each user is a member .*): (\S+)( would become a member .*)?": r"joined: \1",
    r"(It is told which|The) service proxy passwords? .*: (\S+)": r"service proxy password: \2",
    r"(It is told which|The) permanent secrets? .*: (\S+)": r"permanent secret: \2",
}


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
        if result._result.get("changed") and "results" not in result._result:
            self.note(result)

    def v2_runner_item_on_ok(self, result):
        if result._result.get("changed"):
            item = result._result[result._result.get("ansible_loop_var", "item")]
            self.note(result, f": {item}")

    def note(self, result, item=""):
        name = result._task.get_name().rpartition(" : ")[2] + item  # without that of the role
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
