# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Base class of the action plugins that use credentials: they pass the attempt gate on the control node, then run the
module on the host. Subclasses are in credential_action.py and login_action.py.
"""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.hsmops.primus.plugins.module_utils._client.control import take_control
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.open_store import open_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import count_logins

Result = t.Dict[str, t.Any]

display = Display()


class GatedAction(ActionBase):  # type: ignore[misc]
    """Base class.

    :cvar module: the module to run.
    :cvar name_options: options that name the partition or service user. The first one that is set counts here, in the
        order in which the module chooses among aliases, where the last one wins.
    """

    _supports_async = True
    module = ""
    name_options: t.Tuple[str, ...] = ("name", "partition", "user_name")

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> Result:
        super().run(tmp, task_vars)
        self._task_vars = task_vars or {}
        self._arguments = dict(self._task.args)
        self._read_options()
        options = gate_options(self._arguments)
        if not options["gate"] or not self._needs_gate():
            return self._run_without_gate()
        if self._task.async_val:
            raise AnsibleActionFail("A task with async cannot pass the attempt gate: set gate to false, or async to 0")
        try:
            return self._run_with_gate(options)
        except GateError as exc:
            used = "No %scredential was used." % ("further " if self._logins else "")
            msg = "%s. %s" % (str(exc).rstrip("."), used)
            return {"changed": False, "failed": True, "msg": msg, "logins": self._logins}

    def _read_options(self) -> None:
        """Read and check the options of the task, before anything else."""

    def _run_without_gate(self) -> Result:
        return self._run_module()

    def _needs_gate(self) -> bool:
        """Whether the module may log in."""
        raise NotImplementedError

    def _run_with_gate(self, options: t.Mapping[str, t.Any]) -> Result:
        """Run the module when the gate permits it. :raises GateError: when the store cannot be used."""
        raise NotImplementedError

    @property
    def _credential_name(self) -> t.Optional[str]:
        named = [self._arguments.get(option) for option in self.name_options]
        return next((str(value) for value in named if value not in (None, "")), None)

    def _open_gate(self, options: t.Mapping[str, t.Any]) -> rules.Gate:
        return rules.Gate(
            open_store(options["gate_store"]),
            rules.GateOptions(options["gate_budget"], options["gate_window"], options["gate_parallel"]),
            str(self._task.delegate_to or self._task_vars.get("inventory_hostname", "a host")),
            lambda text: display.display(text, stderr=True),  # stdout is for callbacks, such as that for JSON
            self._remove_module_files,
        )

    def _remove_module_files(self) -> None:
        """Remove the module's files from the host. They contain passwords, and must not stay there while it waits."""
        if self._connection._shell.tmpdir:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    # The module

    _logins = 0  # number of logins of this task so far
    _control_data: t.Sequence[t.Mapping[str, t.Any]] = ()  # of each outcome of the last run: see control.py

    def _run_module(self, check: t.Optional[bool] = None, **changes: t.Any) -> Result:
        """Run the module on the host.

        :arg check: whether in check mode; None: as the task.
        :arg changes: options that replace those of the task.
        """
        before = self._task.check_mode
        self._task.check_mode = before if check is None else check
        try:
            result: Result = self._execute_module(
                module_name=self.module,
                module_args={**self._arguments, **changes},
                task_vars=self._task_vars,
                wrap_async=self._task.async_val and not self._connection.has_native_async,
            )
        finally:
            self._task.check_mode = before
        outcomes = self._outcomes(result)
        self._control_data = [take_control(outcome) for outcome in outcomes]
        self._logins += sum(count_logins(outcome) or 0 for outcome in outcomes)
        return result

    def _outcomes(self, result: Result) -> t.Sequence[Result]:
        """Return the results of the single credentials in a result of the module."""
        return [result]


def gate_options(arguments: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return the gate's options of a task, validated, with defaults.

    Removes gate_store from the arguments, as it may contain a password that the hosts must not get.
    """
    given = {option: arguments[option] for option in GATE_ARGUMENTS if arguments.get(option) is not None}
    arguments.pop("gate_store", None)
    validated = ArgumentSpecValidator(GATE_ARGUMENTS).validate(given)
    options: t.Dict[str, t.Any] = validated.validated_parameters
    problems = list(validated.error_messages)
    if not problems:
        numbers = ("gate_budget", "gate_parallel", "gate_window")
        problems = ["%s must be at least 1" % key for key in numbers if options[key] < 1]
    if problems:
        raise AnsibleActionFail("; ".join(problems))
    return options
