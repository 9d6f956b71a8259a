# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Orphans: partitions whose permanent secret is in .secrets.cfg and which primus.cfg does not name.

ppin neither lists nor removes such a secret, so it would stay for good.
"""

import contextlib
import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.files import read_file
from ansible_collections.hsmops.primus.plugins.module_utils._client.places import Workplace
from ansible_collections.hsmops.primus.plugins.module_utils._client.primus_cfg import (
    invalid_name_reason,
    read_secret_users,
    read_slots,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.command import Ppin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import Paths

# A removal needs no login, so where the HSM is does not matter.
_CONFIG = """\
version = "1.0";
primus : {
  connect_on_init = false;
  hsms : { hsm0 : { host = "localhost"; port = "2310"; slots : { slot0 : { user_name = "%s"; id = 0; }; }; }; };
};
"""


def orphans(paths: Paths) -> t.Optional[t.List[str]]:
    """Their names, or None when one of the two files is not understood."""
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
def removable(paths: Paths, name: str, timeout: int, warn: t.Callable[[str], None]) -> t.Iterator[Paths]:
    """The paths with which ppin can remove a secret: of an orphan, with a primus.cfg that names its partition.

    It names that partition alone, and is where nobody else can reach it. :raises OSError, PpinError:
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
    with Workplace(paths.secrets) as place:
        content = _CONFIG % re.sub(r'[\\"]', r"\\\g<0>", name)
        yield paths._replace(config=place.write("primus.cfg", content.encode("utf-8")))


def _listed(paths: Paths, timeout: int) -> t.Collection[str]:
    try:
        return Ppin(paths, timeout).listing().partitions
    except PpinError:
        return ()
