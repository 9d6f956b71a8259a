# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of fleet_report: writes the report. It runs on the control node only."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.plugins.action import ActionBase
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import make_directory, replace_file
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.report import (
    Data,
    build_report,
    to_html,
    to_json,
    to_lines,
    to_prometheus,
)

FILE_NAME = "primus_report"
LOCK_TIMEOUT = 60
"""Seconds to wait for another run that writes to the same directory."""
FORMATS: t.Dict[str, t.Callable[[Data], str]] = {"html": to_html, "json": to_json, "prom": to_prometheus}

REPORT_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "clients": {"type": "dict", "required": True},
    "logins": {"type": "dict"},
    "dest": {"type": "path", "required": True},
    "formats": {"type": "list", "elements": "str", "choices": list(FORMATS), "default": list(FORMATS)},
    "mode": {"type": "raw", "default": "0600"},
    "max_age_days": {"type": "int"},
    "limit": {"type": "str"},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=REPORT_ARGUMENTS)
        data = build_report(
            options["clients"], options["logins"], max_age_days=options["max_age_days"], limit=options["limit"]
        )
        dest = os.path.abspath(options["dest"])
        paths = {name: os.path.join(dest, "%s.%s" % (FILE_NAME, name)) for name in options["formats"]}
        try:
            modes = {path: _numeric_mode(options["mode"], path) for path in paths.values()}
            if not self._task.check_mode:
                write_files({path: FORMATS[name](data) for name, path in paths.items()}, dest, modes)
        except (OSError, ValueError, PpinError) as exc:
            return {"failed": True, "msg": "The report cannot be written: %s" % exc}
        written = {} if self._task.check_mode else paths
        return {"changed": True, "files": written, "summary": to_lines(data), "counts": data["counts"]}


def write_files(files: t.Mapping[str, str], dest: str, modes: t.Mapping[str, int]) -> None:
    """Write files to the directory dest, each atomically, with a lock against another run that does the same."""
    make_directory(dest)
    with locked(os.path.join(dest, FILE_NAME), LOCK_TIMEOUT):
        for path, text in files.items():
            replace_file(path, text.encode(), mode=modes[path])


def _numeric_mode(value: t.Any, path: str) -> int:
    """Return a mode as a number. In YAML, 0600 without quotes is a number. A symbolic mode changes that of the file.

    :raises ValueError: when it is not a mode.
    """
    if isinstance(value, bool):
        raise ValueError("mode: %r is not the mode of a file" % value)
    if isinstance(value, int):
        mode = value
    elif re.fullmatch("[0-7]+", str(value)):
        mode = int(str(value), 8)
    else:
        mode = AnsibleModule._symbolic_mode_to_octal(_base_status(path), str(value))
    if not 0 <= mode <= 0o777:
        raise ValueError("mode: %r is not the mode of a file" % value)
    return mode


def _base_status(path: str) -> os.stat_result:
    """Return the status that a symbolic mode is applied to: of the existing file, or of a new one with mode 0600.

    A file of another user does not count, as its mode could make the report readable for others.
    """
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) and status.st_uid in (0, os.geteuid()):
            return status
    return os.stat_result((stat.S_IFREG | 0o600, *(0,) * 9))
