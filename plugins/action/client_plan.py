# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module client_plan: validates the variables, looks at the client, and returns what is to be changed."""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleFileNotFound
from ansible.plugins.action import ActionBase
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.plan import (
    files_to_look_at,
    files_to_move,
    paths_now,
    plan,
    problems,
    stranded_users,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import Violation
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.wanted import OPTIONS, PROVIDER, read_wanted

Result = t.Dict[str, t.Any]

NOT_OF_THE_LOOK = ("changed", "failed", "invocation", "warnings", "deprecations")


class ActionModule(ActionBase):  # type: ignore[misc]
    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> Result:
        super().run(tmp, task_vars)
        self._task_vars = task_vars or {}
        self._warnings: t.List[t.Any] = []
        wanted, violations = self._wanted()
        if violations:
            return _refused(violations)
        look = self._look(wanted, wanted["ppin"])
        if not look.get("failed") and PROVIDER in wanted["scope"] and files_to_move(look, wanted):
            look = self._look(wanted, {**wanted["ppin"], **paths_now(look, wanted)})
        if look.get("failed"):
            return look
        violations = stranded_users(look, wanted)
        if violations:
            return _refused(violations)
        changes = plan(look, wanted)
        found = problems(look, wanted, changes)
        if found:
            return {"failed": True, "changed": False, "msg": "%s No login was spent." % " ".join(found)}
        warnings = {"warnings": self._warnings} if self._warnings else {}
        return {"changed": False, "plan": changes, "look": look, "wanted": wanted, **warnings}

    def _wanted(self) -> t.Tuple[Result, t.List[Violation]]:
        options = dict(self._task.args)
        prefix = str(options.pop("prefix", None) or "")
        given = options.pop("wanted", None)
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise AnsibleActionFail("client_plan has no option %s" % ", ".join(unknown))
        if given:  # the variables were read before, and are not evaluated again
            return {**given, "moment": _moment(), "installed_before": True}, []
        wanted, violations = read_wanted(options, prefix, self._find)
        return {**wanted, "moment": _moment()}, violations

    def _find(self, name: str) -> t.Optional[str]:
        try:
            return str(self._find_needle("files", name))
        except AnsibleFileNotFound:
            return None

    def _look(self, wanted: Result, paths: t.Mapping[str, t.Any]) -> Result:
        """What ppin_info tells, or a result of a task that failed. It is given no password."""
        group = {"group": wanted["group"]} if "group" in wanted else {}
        result: Result = self._execute_module(
            module_name="hsmops.primus.ppin_info",
            module_args={**paths, **group, "files": files_to_look_at(wanted)},
            task_vars=self._task_vars,
        )
        if result.get("failed") or result.get("unreachable"):
            result.pop("invocation", None)
            return {**result, "failed": True}
        self._warnings += [each for each in result.get("warnings") or [] if each not in self._warnings]
        return {
            key: value for key, value in result.items() if key not in NOT_OF_THE_LOOK and not key.startswith("_ansible")
        }


def _moment() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def _refused(violations: t.Sequence[Violation]) -> Result:
    return {
        "failed": True,
        "changed": False,
        "violations": [violation._asdict() for violation in violations],
        "msg": "%s Nothing was changed. Correct the variables of this host, then run again."
        % " ".join(map(str, violations)),
    }
