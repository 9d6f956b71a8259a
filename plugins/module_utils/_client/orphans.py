# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Orphans: permanent secrets in .secrets.cfg of partitions that primus.cfg does not name.

ppin neither lists nor removes such a secret.
"""

import contextlib
import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import (
    invalid_name_reason,
    read_secret_users,
    read_slots,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import read_file
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import RunDirectory
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.command import Ppin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import Paths

# A removal needs no login, so the address of the HSM does not matter.
_CONFIG = """\
version = "1.0";
primus : {
  connect_on_init = false;
  hsms : { hsm0 : { host = "localhost"; port = "2310"; slots : { slot0 : { user_name = "%s"; id = 0; }; }; }; };
};
"""


def orphans(paths: Paths) -> t.Optional[t.List[str]]:
    """Return the names of their partitions, or None when one of the two files cannot be parsed."""
    try:
        users = read_secret_users(_text(paths.secrets))
        config = _text(paths.config)
        named = {slot.user_name for slot in read_slots(config, paths.config)} if config else set()
    except (OSError, ValueError, PpinError):
        return None
    return [name for name in dict.fromkeys(users) if name not in named]


def _text(path: str) -> str:
    try:
        return read_file(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def paths_for_removal(paths: Paths, name: str, timeout: int, warn: t.Callable[[str], None]) -> t.Iterator[Paths]:
    """Yield the paths with which ppin can remove the secret of a partition. :raises OSError, PpinError:

    For an orphan, they have a temporary primus.cfg that names only this partition, in a directory that nobody else can
    access.
    """
    found = orphans(paths)
    if found is None and name not in _listed(paths, timeout):
        warn(
            "It is not known whether .secrets.cfg has a permanent secret of '%s', as primus.cfg or .secrets.cfg is not "
            "understood. ppin does not list one." % name
        )
    if name not in (found or []) or invalid_name_reason(name):
        yield paths
        return
    with RunDirectory(paths.secrets) as run_directory:
        content = _CONFIG % re.sub(r'[\\"]', r"\\\g<0>", name)
        yield paths._replace(config=run_directory.write("primus.cfg", content.encode("utf-8")))


def _listed(paths: Paths, timeout: int) -> t.Collection[str]:
    try:
        return Ppin(paths, timeout).listing().partitions
    except PpinError:
        return ()
