# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Where ppin and its files are on a client, and the options that say so. Who else may change what is run."""

import os
import stat
import typing as t
import unicodedata

from ansible_collections.hsmops.primus.plugins.module_utils._client.files import group_name, native, user_name
from ansible_collections.hsmops.primus.plugins.module_utils._client.primus_cfg import name_problem
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.passwords import (
    SETUP_FORM,
    has_setup_password_form,
    password_problem,
)

PRIMUS_HOME = "/usr/local/primus"
ETC = "/etc/primus"

ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "executable": {"type": "path"},
    "primus_home": {"type": "path"},
    "config_path": {"type": "path"},
    "secrets_path": {"type": "path"},
    "timeout": {"type": "int", "default": 60},
}
"""The options of the doc fragment C(ppin)."""

PARTITION_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "user_name": {"type": "str", "required": True, "aliases": ["partition", "name"]},
}
"""The option of the doc fragment C(ppin.partition)."""

SETUP_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "setup_password": {"type": "str", "no_log": True},
    "pkcs11_password": {"type": "str", "no_log": True},
    "setup_password_format_check": {"type": "bool", "default": True, "no_log": False},
}
"""The options of the doc fragment C(ppin.setup)."""


class Paths(t.NamedTuple):
    """Where things are on this client.

    executable: None when there is no ppin.
    secrets: never a symbolic link.
    secrets_by: the path by which secrets was found, where links on it lead there; or empty.
    """

    executable: t.Optional[str]
    home: str
    config: str
    secrets: str
    secrets_by: str = ""


def find_paths(params: t.Mapping[str, t.Any], find_in_path: t.Callable[[str], t.Optional[str]]) -> Paths:
    """Look where ppin looks: the option, the environment variable, /etc/primus, then PRIMUS_HOME/etc.

    :arg params: the module's parameters, with those of ARGUMENTS.
    :arg find_in_path: C(AnsibleModule.get_bin_path).
    :raises PpinError: when the executable that was named is not there, or a path can be none.
    """
    for option in ("executable", "primus_home", "config_path", "secrets_path"):
        if any(char == "\0" or unicodedata.category(char) == "Cs" for char in params[option] or ""):
            raise PpinError("%s has a NUL or a character in it that is no UTF-8" % option, cls="config")
    params = {option: native(params[option]) if params[option] else None for option in ARGUMENTS if option != "timeout"}
    home = params["primus_home"] or os.environ.get("PRIMUS_HOME") or PRIMUS_HOME

    def find(option: str, variable: str, name: str) -> str:
        named = params[option] or os.environ.get(variable)
        if named:
            return str(named)
        places = [os.path.join(ETC, name), os.path.join(home, "etc", name)]
        return next((place for place in places if os.path.exists(place)), places[0])

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


def changeable(paths: Paths) -> t.Optional[str]:
    """Who else than root and this user may change what they run, ppin and its library, or None.

    What an ACL allows shows in the permissions of the group. A directory with the sticky bit protects what is in it.
    """
    programs = [paths.executable] if paths.executable else []
    for path in programs + [os.path.join(paths.home, "lib", "libprimusP11.so")]:
        place = os.path.realpath(path)
        while os.path.exists(place):
            status = os.stat(place)
            if status.st_uid not in (0, os.geteuid()):
                return "%s belongs to the user %s" % (place, user_name(status.st_uid))
            if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
                others = "every user" if status.st_mode & 0o002 else "the group %s" % group_name(status.st_gid)
                return "%s can be written by %s" % (place, others)
            if place == os.path.dirname(place):
                break
            place = os.path.dirname(place)
    return None


INSTALL_HINT = "Install the Primus PKCS#11 provider, or set executable or primus_home."


def check_name(option: str, name: str) -> None:
    """Refuse what can be no name of a partition or service user. :raises PpinError:"""
    problem = name_problem(name)
    if problem:
        raise PpinError("%s %s" % (option, problem), cls="config", hint="Use a name that is in primus.cfg.")


def check_secret(option: str, secret: t.Optional[str]) -> None:
    """Refuse what a terminal would not deliver as it is. :raises PpinError:"""
    problem = None if secret is None else password_problem(secret)
    if problem:
        raise PpinError(
            "%s %s" % (option, problem),
            cls="config",
            hint="A terminal would not deliver it as it is. Check where it comes from: a line break at the end often "
            "comes from a file, and | trim removes it.",
        )


def check_timeout(timeout: int) -> None:
    """:raises PpinError: when nothing could be done in time."""
    if timeout < 1:
        raise PpinError("timeout must be at least 1", cls="config", hint="Set timeout to at least 1.")


def check_setup_password(setup_password: t.Optional[str]) -> None:
    """Refuse what cannot be a setup password before it costs an attempt. :raises PpinError:"""
    if setup_password is not None and not has_setup_password_form(setup_password):
        raise PpinError(
            "setup_password does not have the form of a setup password",
            cls="config",
            hint="Such a password has 29 characters: %s. No attempt was spent. If your HSM generates others, set "
            "setup_password_format_check to false." % SETUP_FORM,
        )
