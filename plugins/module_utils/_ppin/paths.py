# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Find ppin and its files on a client, and check the options that name them, as well as names and passwords."""

import os
import stat
import typing as t
import unicodedata

from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import invalid_name_reason
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import group_name, os_text, user_name
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.passwords import (
    SETUP_FORM,
    has_setup_password_form,
    invalid_password_reason,
)

PRIMUS_HOME = "/usr/local/primus"
ETC = "/etc/primus"

PPIN_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "executable": {"type": "path"},
    "primus_home": {"type": "path"},
    "config_path": {"type": "path"},
    "secrets_path": {"type": "path"},
    "timeout": {"type": "int", "default": 60},
}
"""The options of the doc fragment `ppin`."""

PARTITION_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "user_name": {"type": "str", "required": True, "aliases": ["partition", "name"]},
}
"""The option of the doc fragment `ppin.partition`."""

SETUP_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "setup_password": {"type": "str", "no_log": True},
    "pkcs11_password": {"type": "str", "no_log": True},
    "setup_password_format_check": {"type": "bool", "default": True, "no_log": False},
}
"""The options of the doc fragment `ppin.setup`."""


class Paths(t.NamedTuple):
    """The paths of ppin and its files.

    :ivar executable: None when there is no ppin.
    :ivar home: the directory of the provider (PRIMUS_HOME).
    :ivar secrets: with all symbolic links resolved.
    :ivar secrets_as_given: the path before symbolic links were resolved; empty when it has none.
    """

    executable: t.Optional[str]
    home: str
    config: str
    secrets: str
    secrets_as_given: str = ""


def find_paths(params: t.Mapping[str, t.Any], find_in_path: t.Callable[[str], t.Optional[str]]) -> Paths:
    """Find the files in the same order as ppin: option, environment variable, /etc/primus, PRIMUS_HOME/etc.

    :arg params: the module's parameters, those of PPIN_ARGUMENTS among them.
    :arg find_in_path: searches PATH for an executable: `AnsibleModule.get_bin_path`.
    :raises PpinError: when the option `executable` names no file, or a path contains an invalid character.
    """
    for option in ("executable", "primus_home", "config_path", "secrets_path"):
        if any(char == "\0" or unicodedata.category(char) == "Cs" for char in params[option] or ""):
            raise PpinError("%s has a NUL or a character in it that is no UTF-8" % option, cls="config")
    params = {
        option: os_text(params[option]) if params[option] else None for option in PPIN_ARGUMENTS if option != "timeout"
    }
    home = params["primus_home"] or os.environ.get("PRIMUS_HOME") or PRIMUS_HOME

    def find(option: str, variable: str, name: str) -> str:
        named = params[option] or os.environ.get(variable)
        if named:
            return str(named)
        places = [os.path.join(ETC, name), os.path.join(home, "etc", name)]
        return next((path for path in places if os.path.exists(path)), places[0])

    executable = params["executable"] or None
    if executable is None:
        executable = os.path.join(home, "bin", "ppin")
        if not os.path.exists(executable):
            executable = find_in_path("ppin")
    elif not os.path.exists(executable):
        raise PpinError("There is no %s" % executable, cls="config", hint=INSTALL_HINT)
    secrets = find("secrets_path", "SECUROSYS_SECRETS_CONF", ".secrets.cfg")
    return Paths(
        executable,
        home,
        find("config_path", "SECUROSYS_PKCS11_CONF", "primus.cfg"),
        os.path.realpath(secrets),
        "" if os.path.realpath(secrets) == secrets else secrets,
    )


def changeable_by(paths: Paths) -> t.Optional[str]:
    """Return who can change ppin or its library, other than root and the user of this run, in words, or None.

    Checks each directory of their paths, too. Permissions by ACL show in the bits of the group. A directory with the
    sticky bit protects its files.
    """
    programs = [paths.executable] if paths.executable else []
    for path in programs + [os.path.join(paths.home, "lib", "libprimusP11.so")]:
        checked_path = os.path.realpath(path)
        while os.path.exists(checked_path):
            status = os.stat(checked_path)
            if status.st_uid not in (0, os.geteuid()):
                return "%s belongs to the user %s" % (checked_path, user_name(status.st_uid))
            if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
                others = "every user" if status.st_mode & 0o002 else "the group %s" % group_name(status.st_gid)
                return "%s can be written by %s" % (checked_path, others)
            if checked_path == os.path.dirname(checked_path):
                break
            checked_path = os.path.dirname(checked_path)
    return None


INSTALL_HINT = "Install the Primus PKCS#11 provider, or set executable or primus_home."


def check_name(option: str, name: str) -> None:
    """Check the name of a partition or service user. :raises PpinError:"""
    reason = invalid_name_reason(name)
    if reason:
        raise PpinError("%s %s" % (option, reason), cls="config", hint="Use a name that is in primus.cfg.")


def check_password(option: str, secret: t.Optional[str]) -> None:
    """Check that a terminal would deliver a password unchanged. :raises PpinError:"""
    reason = None if secret is None else invalid_password_reason(secret)
    if reason:
        raise PpinError(
            "%s %s" % (option, reason),
            cls="config",
            hint="A terminal would not deliver it as it is. Check where it comes from: a line break at the end often "
            "comes from a file, and | trim removes it.",
        )


def check_timeout(timeout: int) -> None:
    """:raises PpinError: when it is less than a second."""
    if timeout < 1:
        raise PpinError("timeout must be at least 1", cls="config", hint="Set timeout to at least 1.")


def check_setup_password(setup_password: t.Optional[str]) -> None:
    """Check that a setup password has the documented form, before it costs an attempt. :raises PpinError:"""
    if setup_password is not None and not has_setup_password_form(setup_password):
        raise PpinError(
            "setup_password does not have the form of a setup password",
            cls="config",
            hint="Such a password has 29 characters: %s. No attempt was spent. If your HSM generates others, set "
            "setup_password_format_check to false." % SETUP_FORM,
        )
