# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of client_plan: validates the variables, inspects the client with ppin_info, and returns the plan."""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleFileNotFound
from ansible.plugins.action import ActionBase
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.client_plan import (
    current_paths,
    files_to_inspect,
    files_to_move,
    plan_client,
    preflight_errors,
    stranded_service_users,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import Violation
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.variables import (
    OPTION_READERS,
    PROVIDER,
    read_variables,
)

Result = t.Dict[str, t.Any]

NOT_FACTS = ("changed", "failed", "invocation", "warnings", "deprecations")


class ActionModule(ActionBase):  # type: ignore[misc]
    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> Result:
        super().run(tmp, task_vars)
        self._task_vars = task_vars or {}
        self._warnings: t.List[t.Any] = []
        wanted, violations = self._wanted()
        if violations:
            return _violations_result(violations)
        facts = self._inspect(wanted, wanted["ppin"])
        if not facts.get("failed") and PROVIDER in wanted["scope"] and files_to_move(facts, wanted):
            facts = self._inspect(wanted, {**wanted["ppin"], **current_paths(facts, wanted)})
        if facts.get("failed"):
            return facts
        violations = stranded_service_users(facts, wanted)
        if violations:
            return _violations_result(violations)
        changes = plan_client(facts, wanted)
        errors = preflight_errors(facts, wanted, changes)
        if errors:
            return {"failed": True, "changed": False, "msg": "%s No login was spent." % " ".join(errors)}
        warnings = {"warnings": self._warnings} if self._warnings else {}
        return {"changed": False, "plan": changes, "facts": facts, "wanted": wanted, **warnings}

    def _wanted(self) -> t.Tuple[Result, t.List[Violation]]:
        options = dict(self._task.args)
        prefix = str(options.pop("prefix", None) or "")
        given = options.pop("wanted", None)
        unknown = sorted(set(options) - set(OPTION_READERS))
        if unknown:
            raise AnsibleActionFail("client_plan has no option %s" % ", ".join(unknown))
        if given:  # the variables were validated by an earlier task
            return {**given, "moment": _timestamp(), "installed_before": True}, []
        wanted, violations = read_variables(options, prefix, self._find)
        return {**wanted, "moment": _timestamp()}, violations

    def _find(self, name: str) -> t.Optional[str]:
        try:
            return str(self._find_needle("files", name))
        except AnsibleFileNotFound:
            return None

    def _inspect(self, wanted: Result, paths: t.Mapping[str, t.Any]) -> Result:
        """Run ppin_info, without any password. Return its facts, or the result of a failure."""
        group = {"group": wanted["group"]} if "group" in wanted else {}
        result: Result = self._execute_module(
            module_name="hsmops.primus.ppin_info",
            module_args={**paths, **group, "files": files_to_inspect(wanted)},
            task_vars=self._task_vars,
        )
        if result.get("failed") or result.get("unreachable"):
            result.pop("invocation", None)
            return {**result, "failed": True}
        self._warnings += [each for each in result.get("warnings") or [] if each not in self._warnings]
        return {key: value for key, value in result.items() if key not in NOT_FACTS and not key.startswith("_ansible")}


def _timestamp() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def _violations_result(violations: t.Sequence[Violation]) -> Result:
    return {
        "failed": True,
        "changed": False,
        "violations": [violation._asdict() for violation in violations],
        "msg": "%s Nothing was changed. Correct the variables of this host, then run again."
        % " ".join(map(str, violations)),
    }
