# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of provider_package: chooses a package on the control node, unpacks it and copies it to the host."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleFileNotFound
from ansible.plugins.action import ActionBase
from ansible_collections.hsmops.primus.plugins.module_utils._client.package_choice import (
    FACTS,
    PACKAGE_ARGUMENTS,
    Choice,
    PackageError,
    System,
    check_url,
    package_result,
    system_from_facts,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.package_files import choose_package, copy_package

Result = t.Dict[str, t.Any]

# Not of type path: a ~ in it must be expanded on the host.
LOCAL_ARGUMENTS = {**PACKAGE_ARGUMENTS, "dest": {"type": "str", "required": True}}

GATHER_SUBSET = ["!all", "!min", "distribution", "architecture"]


class ActionModule(ActionBase):  # type: ignore[misc]
    TRANSFERS_FILES = True

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> Result:
        super().run(tmp, task_vars)
        self._task_vars = task_vars or {}
        _validation, options = self.validate_argument_spec(argument_spec=LOCAL_ARGUMENTS)
        try:
            facts = options["facts"] or self._host_facts()
            if re.match("https?://", options["src"]):
                return {"changed": False, **check_url(options["src"], system_from_facts(facts))}
            if options["remote_src"]:
                return self._run_module("hsmops.primus.provider_package", {**self._task.args, "facts": facts})
            return self._copy_from_control_node(options, system_from_facts(facts))
        except PackageError as exc:
            return {"failed": True, "changed": False, "msg": f"{exc}. Nothing was changed."}

    def _host_facts(self) -> Result:
        """Return the facts of FACTS, gathered if needed. :raises AnsibleActionFail: when that fails."""
        known = self._task_vars.get("ansible_facts") or {}
        if not all(name in known for name in FACTS):
            gathered = self._run_module("ansible.legacy.setup", {"gather_subset": GATHER_SUBSET})
            if gathered.get("failed") or "ansible_facts" not in gathered:
                raise AnsibleActionFail("The facts of the host cannot be gathered: %s" % gathered.get("msg"))
            known = {name: gathered["ansible_facts"].get(f"ansible_{name}") for name in FACTS}
        return {name: known[name] for name in FACTS}

    def _run_module(self, name: str, arguments: Result) -> Result:
        result: Result = self._execute_module(module_name=name, module_args=arguments, task_vars=self._task_vars)
        return result

    def _copy_from_control_node(self, options: Result, system: System) -> Result:
        """Choose the package on the control node and copy it to the host. :raises PackageError: when there is none."""
        try:
            src = self._find_needle("files", options["src"])
        except AnsibleFileNotFound as exc:
            raise PackageError(f"There is no {options['src']} on the control node") from exc
        choice = choose_package(src, system, options["version"])
        path = os.path.join(options["dest"], choice.package.file_name)
        copied = self._copy_to_host(src, choice, path)
        if copied.get("failed"):
            return copied
        return {"changed": copied["changed"], **package_result(choice, system, path)}

    def _copy_to_host(self, src: str, choice: Choice, path: str) -> Result:
        """Unpack the package in a temporary directory of the control node, and copy it to the host."""
        directory = tempfile.mkdtemp(dir=C.DEFAULT_LOCAL_TMP)
        try:
            package = os.path.join(directory, "package")
            copy_package(src, choice.package.name, package)
            task = self._task.copy()
            task.args = {"src": package, "dest": path, "mode": "0600"}
            copy = self._shared_loader_obj.action_loader.get(
                "ansible.legacy.copy",
                task=task,
                connection=self._connection,
                play_context=self._play_context,
                loader=self._loader,
                templar=self._templar,
                shared_loader_obj=self._shared_loader_obj,
            )
            result: Result = copy.run(task_vars=self._task_vars)
            return result
        finally:
            shutil.rmtree(directory)
