# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module fleet_report. It works on the controller, once for all hosts of the play."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.hsmops.primus.plugins.module_utils._errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._files import replace_file
from ansible_collections.hsmops.primus.plugins.module_utils._secrets_file import locked
from ansible_collections.hsmops.primus.plugins.plugin_utils._report import (
    Data,
    build,
    to_html,
    to_json,
    to_lines,
    to_prometheus,
)

FILE_NAME = "primus_report"
LOCK_TIMEOUT = 60
"""Seconds to wait for another run that writes to the same folder."""
FORMATS: t.Dict[str, t.Callable[[Data], str]] = {"html": to_html, "json": to_json, "prom": to_prometheus}

ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
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
        _validation, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        data = build(
            options["clients"], options["logins"], max_age_days=options["max_age_days"], limit=options["limit"]
        )
        dest = os.path.abspath(options["dest"])
        paths = {name: os.path.join(dest, "%s.%s" % (FILE_NAME, name)) for name in options["formats"]}
        try:
            mode = _mode(options["mode"])
            if not self._task.check_mode:
                write({path: FORMATS[name](data) for name, path in paths.items()}, dest, mode)
        except (OSError, ValueError, PpinError) as exc:
            return {"failed": True, "msg": "The report cannot be written: %s" % exc}
        return {"changed": True, "files": paths, "summary": to_lines(data), "counts": data["counts"]}


def write(files: t.Mapping[str, str], dest: str, mode: int) -> None:
    """Put texts at paths in the folder dest, each whole or not at all, also when another run does the same."""
    os.makedirs(dest, mode=0o700, exist_ok=True)
    with locked(os.path.join(dest, FILE_NAME), LOCK_TIMEOUT):
        for path, text in files.items():
            replace_file(path, text.encode(), mode=mode)


def _mode(value: t.Any) -> int:
    """A mode as in YAML, where 0600 without quotes is a number already."""
    mode = value if isinstance(value, int) and not isinstance(value, bool) else int(str(value), 8)
    if not 0 <= mode <= 0o777:
        raise ValueError("%r is not the mode of a file" % value)
    return mode
