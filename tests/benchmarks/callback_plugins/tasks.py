# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts what a host does of a play: tasks executed, included and skipped, and executions: of tasks or their items."""

from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_NAME = "tasks"

    def note(self, result, kind):
        if kind == "executed" and isinstance(result._task, TaskInclude):
            kind = "included"
        elif kind == "executed" and not (result._task.loop or result._task.loop_with):
            self.note(result, "execution")
        with open("tasks.txt", "a") as stream:  # in the directory in which ansible-playbook runs
            stream.write(f"{result._host.get_name()} {kind}\n")

    def v2_runner_on_ok(self, result):
        self.note(result, "executed")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.note(result, "executed")

    def v2_runner_on_skipped(self, result):
        self.note(result, "skipped")

    def v2_runner_item_on_ok(self, result):
        self.note(result, "execution")

    def v2_runner_item_on_failed(self, result):
        self.note(result, "execution")
