#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: client_removal
short_description: Remove the files of a Primus HSM client from a host
version_added: 1.0.0
description:
  - Removes C(/etc/primus), every copy of C(.secrets.cfg) that this collection or C(ppin) may have left, the ledger, and
    what the roles have created elsewhere in C(/etc). It is intended for the playbook C(hsmops.primus.decommission).
  - Does not run C(ppin), so it works if C(ppin) is broken. It does not log in to any HSM.
  - Removes all that it can, and fails if anything is left that can be used to log in, reporting what and why.
  - What a symbolic link points to is never removed, and no link is followed on the way to a directory. A link to such a
    file stays, so that the next run finds it too.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.managed_node
options:
  primus_home:
    description: The directory of the provider. Its templates stay, unless O(provider=true).
    type: path
    default: /usr/local/primus
  etc:
    description: The directory of the configuration, which is removed with all its content.
    type: path
    default: /etc/primus
  provider:
    description: Also remove the provider, with everything in O(primus_home).
    type: bool
    default: false
  timeout:
    description: Seconds to wait for another run.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    details: Reports what it would remove, and warns of what would be left.
  diff_mode:
    support: none
    details: The files have secrets in them.
"""

EXAMPLES = r"""
- name: Remove the HSM client and the provider from this host
  hsmops.primus.client_removal:
    provider: true
"""

RETURN = r"""
removed:
  description: What was removed.
  returned: always
  type: list
  elements: path
  sample: [/etc/primus]
left:
  description: What was not removed, and why.
  returned: always
  type: list
  elements: str
error:
  description: Why the module failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
"""

import contextlib
import errno
import os
import re
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import MANAGED_COMMENT
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    DEPTH_LIMIT,
    Directory,
    open_directory,
    open_parent,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import (
    belongs_to_file,
    leftovers,
    remove_leftovers,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import all_locked
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import ETC, PRIMUS_HOME

FILE_NAMES = (".secrets.cfg", "primus.cfg")

_CLIENT_SETTINGS = re.compile(rb"\b(?:name|pin|proxy_password)\s*[=:]")
"""Settings that a file of a client has and the provider's template has not."""

SYSTEM_FILES = ("/etc/profile.d/primus.sh", "/etc/rsyslog.d/30-primus.conf", "/etc/logrotate.d/primus")

_OLD_PROVIDER = re.compile(r"-.+-[0-9]{8}T[0-9]{6}Z|\.new")
"""Suffix of the directory of a provider that an upgrade has replaced, or was unpacking."""


class Removal:
    """The removal, with its results `removed` and `left`."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.home: str = module.params["primus_home"]
        self.etc: str = module.params["etc"]
        self.removed: t.List[str] = []
        self.left: t.List[str] = []

    def run(self) -> None:
        """:raises OSError, PpinError: when nothing was removed."""
        for option in ("primus_home", "etc"):
            path = os.path.normpath(self.module.params[option])
            if not os.path.isabs(path) or path.count("/") < 2 or path in ("/usr/local", "/usr/share", "/var/lib"):
                raise PpinError("%s is %s, which is no directory of the provider's own" % (option, path), cls="config")
        home_etc = os.path.join(self.home, "etc")
        places = list(dict.fromkeys([self.etc, home_etc]))
        with contextlib.ExitStack() as locks:
            if not self.module.check_mode:
                secrets = [os.path.join(place, FILE_NAMES[0]) for place in places if os.path.isdir(place)]
                try:
                    locks.enter_context(all_locked(secrets, self.module.params["timeout"]))
                except PpinError as exc:
                    if exc.cls != "timeout":
                        raise
                    # Any member of the group can hold the lock forever, and must not be able to prevent the removal.
                    self.module.warn("%s. It was not waited for any longer. Run again to make sure." % exc.msg)
            for place in places:
                self.remove_leftover_files(place)
            self.remove_contents(self.etc)
            if not self.left:
                self.remove_path(self.etc)
            # depth=0: the user primus may have moved a directory of root there, under one of these names.
            self.remove_contents(home_etc, is_client_file, depth=0)
            for path in SYSTEM_FILES:
                self.remove_path(path, is_managed)
            self.remove_old_providers()

    def remove_leftover_files(self, directory_path: str) -> None:
        """Remove what interrupted runs have left, for this directory's secrets file, anywhere on this host."""
        # Leftovers are found by the path of the secrets file, which may have been resolved or not.
        for secrets in dict.fromkeys(
            [os.path.realpath(os.path.join(directory_path, FILE_NAMES[0])), os.path.join(directory_path, FILE_NAMES[0])]
        ):
            paths = secrets, os.path.join(directory_path, FILE_NAMES[1])
            found = leftovers(*paths)
            if not self.module.check_mode:  # also announcements of files that no longer exist
                self.left += remove_leftovers(*paths, remove_journals=True)
            self.removed += [path for path in found if self.module.check_mode or not os.path.lexists(path)]

    def remove_contents(
        self,
        directory_path: str,
        is_unwanted: t.Callable[[Directory, str], bool] = lambda _directory, _name: True,
        depth: int = DEPTH_LIMIT,
    ) -> None:
        """Remove the unwanted content of a directory, except links to other files. depth: as for Directory.remove."""
        if self.points_elsewhere(directory_path):
            return
        try:
            with open_directory(directory_path) as directory:
                for name in sorted(directory.names()):
                    path = directory.path_of(name)
                    if not (name.startswith(FILE_NAMES) and self.points_elsewhere(path)) and is_unwanted(
                        directory, name
                    ):
                        self.remove(directory, name, depth)
        except FileNotFoundError:
            pass
        except (OSError, PpinError) as exc:
            self.add_left(directory_path, exc)

    def points_elsewhere(self, path: str) -> bool:
        """Whether it is a symbolic link to an existing file that this module does not remove. Adds that to `left`."""
        if not os.path.islink(path):
            return False
        target = os.path.realpath(path)
        if os.path.lexists(target) and not (target + "/").startswith(self.etc + "/"):
            self.left.append("%s, to which the symbolic link %s points" % (target, path))
            return True
        return False

    def remove_path(
        self, path: str, is_unwanted: t.Callable[[Directory, str], bool] = lambda _directory, _name: True
    ) -> None:
        """As remove(), for a path."""
        try:
            directory, name = open_parent(path)
            with directory:
                if is_unwanted(directory, name):
                    self.remove(directory, name)
        except FileNotFoundError:
            pass
        except (OSError, PpinError) as exc:
            self.add_left(path, exc)

    def remove(self, directory: Directory, name: str, depth: int = DEPTH_LIMIT) -> None:
        """Remove a file, a symbolic link, or a directory with its content, if it exists."""
        path = directory.path_of(name)
        try:
            status = directory.lstat(name)
            if stat.S_ISDIR(status.st_mode) and depth == 0:
                raise OSError(errno.EISDIR, "It is a directory", path)
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and name.startswith(FILE_NAMES):
                self.left.append(
                    "another name (hard link) of %s, which find / -xdev -inum %d shows" % (path, status.st_ino)
                )
            if not self.module.check_mode:
                directory.remove(name, depth)
            self.removed.append(path)
        except FileNotFoundError:
            pass
        except (OSError, PpinError) as exc:
            self.add_left(path, exc)

    def remove_old_providers(self) -> None:
        """Remove the providers that upgrades have replaced, and the present one with `provider: true`."""
        parent, name = os.path.split(os.path.normpath(self.home))
        with contextlib.suppress(FileNotFoundError), open_directory(parent) as directory:
            for other in sorted(directory.names()):
                if other.startswith(name) and _OLD_PROVIDER.fullmatch(other[len(name) :]):
                    self.remove(directory, other)
        if self.module.params["provider"] and not self.points_elsewhere(self.home):
            self.remove_path(self.home)

    def add_left(self, path: str, exc: Exception) -> None:
        place = getattr(exc, "filename", None) or ""
        self.left.append("%s: %s" % (place if os.path.isabs(place) else path, getattr(exc, "strerror", None) or exc))


def is_client_file(directory: Directory, name: str) -> bool:
    """Whether a file in the directory of the provider's templates belongs to a client, and is not a template."""
    if name not in FILE_NAMES:
        return any(belongs_to_file(file_name, name) for file_name in FILE_NAMES)
    try:
        return bool(_CLIENT_SETTINGS.search(directory.read(name)))
    except (OSError, PpinError):
        return True  # a template can be read, so this is not one; its removal reports what it is


def is_managed(directory: Directory, name: str) -> bool:
    try:
        return directory.read(name).startswith(MANAGED_COMMENT.encode("ascii"))
    except (OSError, PpinError):
        return False


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "primus_home": {"type": "path", "default": PRIMUS_HOME},
            "etc": {"type": "path", "default": ETC},
            "provider": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    removal = Removal(module)
    try:
        removal.run()
    except PpinError as exc:
        module.fail_json(removed=removal.removed, left=removal.left, **exc.failure())
    result = {"changed": bool(removal.removed), "removed": removal.removed, "left": removal.left}
    problem = "Left on this host: %s." % "; ".join(removal.left)
    if removal.left and not module.check_mode:
        error = PpinError(
            problem,
            cls="permission",
            hint="The rest was removed. Remove this by hand, then run again: it may contain credentials.",
        )
        module.fail_json(**dict(result, **error.failure()))
    if removal.left:
        module.warn(problem)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
