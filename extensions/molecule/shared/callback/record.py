# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes down what each playbook run did, so that verify.yml can judge the runs before it.

One JSON line per run is added to the file that PRIMUS_RUNS names: {"playbook": its file's name, "check": bool,
"stats": {host: {"ok", "changed", "failures", "unreachable", "skipped", "rescued", "ignored"}}, "changed": {host:
["task" or "task: item", …]}}.
"""

from __future__ import annotations

import json
import os

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: record
type: notification
short_description: Writes down what each playbook run did
description: See the source.
"""


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
        self.changed.setdefault(result._host.get_name(), []).append(result._task.get_name() + item)

    def v2_playbook_on_stats(self, stats):
        run = {
            "playbook": self.playbook,
            "check": context.CLIARGS["check"],
            "stats": {host: stats.summarize(host) for host in stats.processed},
            "changed": self.changed,
        }
        with open(os.environ["PRIMUS_RUNS"], "a", encoding="utf-8") as runs:
            runs.write(json.dumps(run) + "\n")
