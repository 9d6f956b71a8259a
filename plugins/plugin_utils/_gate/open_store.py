# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Choose the store of the attempt gate: a directory of the control node, or Redis for several control nodes."""

from __future__ import annotations

import os
import typing as t

from ansible import constants
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.directory_store import DirectoryStore
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.redis_store import RedisStore
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError, Store


def open_store(where: t.Optional[str]) -> Store:
    """Return the store that the option `gate_store` names, or the default one. It is neither created nor connected.

    :raises GateError: when the option is invalid.
    """
    if where and where.startswith(("redis://", "rediss://", "unix://")):
        return RedisStore(where)
    if where and "://" in where:
        raise GateError(
            "The attempt gate's store is neither a directory nor a URL that begins with redis://, rediss:// or unix://"
        )
    if where:
        path = os.path.expanduser(where)
        unknown_home = path.startswith("~")
    else:
        # If there is no home directory, Ansible treats "~" as a directory in the current directory.
        home = os.path.expanduser(constants.config.get_config_value("ANSIBLE_HOME"))
        path = os.path.join(home, "hsmops-primus-gate")
        unknown_home = any(part.startswith("~") for part in path.split(os.sep))
    if unknown_home:
        raise GateError(
            "The attempt gate's store is in a home directory, and the one of this user is not known: HOME is not set, "
            "or there is no such user. Name a directory without ~ in gate_store, or set ANSIBLE_HOME"
        )
    return DirectoryStore(os.path.abspath(path))
