# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Find out, without importing it, whether the Python that runs a module has a pexpect that dialogue.py can use."""

import importlib.util
import re
import typing as t

PEXPECT_VERSION = 4
"""Oldest major version that works: 4.0 has the argument `encoding`. EL8 has 4.3, Debian 9 has 4.2, CentOS 7 has 2.3."""

SIZE_LIMIT = 65536
"""Bytes of pexpect's source that are searched for its version."""


def is_new_enough(version: str) -> bool:
    major = re.match(r"\d+", version)
    return major is not None and int(major.group()) >= PEXPECT_VERSION


def pexpect_facts() -> t.Dict[str, t.Any]:
    """Return the `pexpect` of the result of ppin_info."""
    try:
        spec = importlib.util.find_spec("pexpect")
    except (ImportError, ValueError):
        spec = None
    version = _version(spec.origin) if spec is not None and spec.origin else None
    return {"installed": spec is not None, "version": version, "usable": is_new_enough(version or "")}


def _version(path: str) -> t.Optional[str]:
    """Read the version from the source of the package, as distributions put metadata in different places."""
    try:
        with open(path, "rb") as file:
            text = file.read(SIZE_LIMIT).decode("utf-8", "replace")
    except OSError:
        return None
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"\s]{1,40})['\"]", text, re.M)
    return match.group(1) if match else None
