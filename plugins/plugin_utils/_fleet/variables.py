# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Validate the variables of a client, and convert them to the form that client_plan.py uses, without passwords.

Every variable accepts what users write: numbers as text, names of digits, vaulted strings, null for the default. All
invalid values are reported at once, as violations.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import MANAGED_COMMENT
from ansible_collections.hsmops.primus.plugins.module_utils._client.credential_plan import VERIFY_CHOICES
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.package_variables import describe_package
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import (
    INT_MAX,
    Checked,
    InvalidValue,
    Place,
    Reader,
    Violation,
    Violations,
    check_client,
    read_choice,
    read_flag,
    read_integer,
    read_name,
    read_several,
    read_state,
    read_table,
    read_text,
)

Data = t.Dict[str, t.Any]
Find = t.Callable[[str], t.Optional[str]]

PROVIDER, CREDENTIALS = "provider", "credentials"

PROFILE = """\
{managed}
PRIMUS_HOME={home}
export PRIMUS_HOME
case ":$PATH:" in
    *":$PRIMUS_HOME/bin:"*) ;;
    *)
        PATH="$PATH:$PRIMUS_HOME/bin"
        LD_LIBRARY_PATH="${{LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}}$PRIMUS_HOME/lib"
        export PATH LD_LIBRARY_PATH
        ;;
esac
"""
RSYSLOG = """\
{managed}
{filter} action(type="omfile" file="{file}")
"""
# copytruncate: the provider is a library in running programs, which do not reopen their log.
LOGROTATE = """\
{managed}
"{logs}" {{
    weekly
    rotate 4
    compress
    delaycompress
    copytruncate
    missingok
    notifempty
}}
"""


def _unchecked(value: t.Any) -> t.Any:
    return value


def _absolute_path(value: t.Any) -> str:
    path = read_text(value)
    if not re.fullmatch(r"/[A-Za-z0-9._+/-]*[A-Za-z0-9._+-]", path, re.A):
        raise InvalidValue("is not an absolute path of letters, digits and ._+-/ without a / at its end")
    return path


def _user_or_group(value: t.Any) -> str:
    """Read the name or number of a user or group."""
    name = read_name(value)
    if name.startswith("-"):
        raise InvalidValue("is neither a name nor a number of a user or group")
    return name


def _single_line(value: t.Any) -> str:
    text = read_text(value)
    if "\n" in text or "\r" in text:
        raise InvalidValue("has a line break in it")
    return text


OPTION_READERS: t.Dict[str, t.Tuple[Reader, t.Any]] = {
    "scope": (read_several(read_choice(PROVIDER, CREDENTIALS)), [PROVIDER, CREDENTIALS]),
    "state": (read_state, "present"),
    "rotate": (read_flag, False),
    "package": (_single_line, ""),
    "package_remote_src": (read_flag, False),
    "package_checksum": (_single_line, ""),
    "version": (_single_line, ""),
    "allow_downgrade": (read_flag, False),
    "hsms": (_unchecked, []),
    "partitions": (_unchecked, []),
    "service_users": (_unchecked, None),
    "changing_service_users": (read_several(read_name, empty=True), []),
    "log": (_unchecked, {}),
    "wait_delay": (_unchecked, None),
    "wait_max_tries": (_unchecked, None),
    "connect_on_init": (_unchecked, None),
    "setup_password_format_check": (read_flag, True),
    "verify": (read_choice(*VERIFY_CHOICES), "changed"),
    "pkcs11_check": (read_flag, False),
    "group_members": (read_several(read_name, empty=True), []),
    "login_shells": (read_flag, True),
    "rsyslog": (read_flag, False),
    "rsyslog_filter": (_single_line, "local1.*"),
    "rsyslog_file": (_single_line, "/var/log/primus_syslog.log"),
    "logrotate": (read_flag, False),
    "home": (_absolute_path, None),
    "etc": (_absolute_path, None),
    "owner": (_user_or_group, "root"),
    "group": (_user_or_group, "primus"),
    "pexpect_package": (_single_line, "python3-pexpect"),
    "system_etc": (_absolute_path, "/etc"),
    "primus_home": (_single_line, None),
    "config_path": (_single_line, None),
    "secrets_path": (_single_line, None),
    "executable": (_single_line, None),
    "timeout": (read_integer(1, INT_MAX), 60),
}
"""The options of client_plan: reader, and default, which null stands for. `_unchecked` ones are checked later."""

PRIMUS_CFG_OPTIONS = ("hsms", "partitions", "log", "wait_delay", "wait_max_tries", "connect_on_init")


def read_variables(options: t.Mapping[str, t.Any], prefix: str, find: Find) -> t.Tuple[Data, t.List[Violation]]:
    """Return what the variables ask for (`wanted`), and the violations. It is usable only if there are none.

    :arg options: the options of OPTION_READERS that are given.
    :arg prefix: the prefix of the variable names, for violations.
    :arg find: returns the path of a file or directory of the control node, or None.
    """
    violations: Violations = []
    given = {key: value for key, value in options.items() if value is not None}
    readers = {key: read for key, (read, _default) in OPTION_READERS.items()}
    read = {key: default for key, (_read, default) in OPTION_READERS.items()}
    read.update(read_table(violations, Place(prefix, root=True), given, readers))
    provider = PROVIDER in read["scope"]
    checked = _check_credentials(read, prefix, provider)
    violations += checked.violations
    wanted: Data = {
        "scope": read["scope"],
        "settings": checked.settings if provider else {},
        "partitions": checked.partitions,
        "service_users": checked.service_users,
        "changing_users": read["changing_service_users"],
        "verify": read["verify"],
        "pkcs11_check": read["pkcs11_check"],
        "pexpect_package": read["pexpect_package"],
        "ppin": {key: read[key] for key in ("primus_home", "config_path", "secrets_path", "executable", "timeout")},
        "prefix": prefix,
    }
    if provider:
        wanted.update(_read_provider(violations, read, prefix, find))
    elif read["home"] or read["etc"]:
        _set_ppin_paths(wanted["ppin"], read["home"], read["etc"])
    return wanted, violations


def _check_credentials(read: t.Mapping[str, t.Any], prefix: str, provider: bool) -> Checked:
    """Check partitions, service users and, if primus.cfg is rendered, its settings."""
    users = apply_default_state(read["service_users"], read["state"], read["rotate"])
    settings = {key: read[key] for key in (PRIMUS_CFG_OPTIONS if provider else ["partitions"])}
    settings["partitions"] = apply_default_state(settings["partitions"], read["state"], read["rotate"])
    managed = read["hsms"] or read["partitions"]
    if provider and not managed and users is None:  # primus.cfg is not managed
        return Checked({}, [], None, [])
    return check_client(
        settings, users, prefix, provider, setup_password_format_check=read["setup_password_format_check"]
    )


def apply_default_state(entries: t.Any, state: str, rotate: bool = False) -> t.Any:
    """Set the state of entries that have none. Values that are not lists of dictionaries are checked later.

    :arg rotate: set the state of all entries to updated, and leave out those that are absent.
    """
    if not isinstance(entries, (list, tuple)):
        return entries
    with_own = [
        {**entry, "state": state} if isinstance(entry, t.Mapping) and entry.get("state") is None else entry
        for entry in entries
    ]
    if not rotate:
        return with_own
    left = [entry for entry in with_own if not (isinstance(entry, t.Mapping) and entry["state"] == "absent")]
    in_use = ("present", "updated")
    return [
        {**entry, "state": "updated"} if isinstance(entry, t.Mapping) and entry["state"] in in_use else entry
        for entry in left
    ]


def _set_ppin_paths(ppin: Data, home: t.Optional[str], etc: t.Optional[str]) -> None:
    if home:
        ppin["primus_home"] = home
    if etc:
        ppin.update(config_path=etc + "/primus.cfg", secrets_path=etc + "/.secrets.cfg")


def _read_provider(violations: Violations, read: t.Mapping[str, t.Any], prefix: str, find: Find) -> Data:
    home, etc = read["home"] or "/usr/local/primus", read["etc"] or "/etc/primus"
    package = describe_package(
        read["package"], find, read["package_remote_src"], read["version"], read["package_checksum"], prefix
    )
    violations += package.violations
    if read["package"] and (etc + "/").startswith(home + "/"):
        violations.append(Violation(prefix + "etc", "is in %shome, where a package replaces the secrets" % prefix))
    rsyslog = read["system_etc"] + "/rsyslog.d/30-primus.conf" if read["rsyslog"] else ""
    ppin = {"executable": read["executable"], "timeout": read["timeout"]}
    _set_ppin_paths(ppin, home, etc)
    return {
        "package": {
            "package": read["package"],
            "remote_src": read["package_remote_src"],
            "url": package.url,
            "checksum": read["package_checksum"],
            "version": package.version,
            "file_name": package.file_name,
            "allow_downgrade": read["allow_downgrade"],
        }
        if read["package"]
        else None,
        "home": home,
        "etc": etc,
        "owner": read["owner"],
        "group": read["group"],
        "members": read["group_members"],
        "files": _system_files(violations, read, prefix, home, rsyslog),
        "rsyslog": rsyslog,
        "ppin": ppin,
    }


def _system_files(
    violations: Violations, read: t.Mapping[str, t.Any], prefix: str, home: str, rsyslog: str
) -> t.List[Data]:
    """Return the files for login shells, rsyslog and logrotate, with their content."""
    log = read["log"] if isinstance(read["log"], t.Mapping) else {}
    log = read_table([], Place("log"), log, {"file": read_text, "write_log_file": read_flag})
    logs = ([log["file"]] if log.get("file") else []) + ([read["rsyslog_file"]] if rsyslog else [])
    texts = {}
    if read["login_shells"]:
        texts["profile.d/primus.sh"] = PROFILE.format(managed=MANAGED_COMMENT, home=home)
    if rsyslog:
        texts["rsyslog.d/30-primus.conf"] = RSYSLOG.format(
            managed=MANAGED_COMMENT, filter=read["rsyslog_filter"], file=read["rsyslog_file"]
        )
    if read["logrotate"]:
        where = prefix + "logrotate"
        if not logs:
            violations.append(Violation(where, "has no log to rotate, as %slog has no file" % prefix))
        if (read["hsms"] or read["partitions"]) and not log.get("file") and log.get("write_log_file", True):
            what = "cannot rotate /tmp/primus.log safely, which the provider writes without a file in %slog" % prefix
            fix = "set file to a path that its users may write, or write_log_file to false (provider 2.2.2 and later)"
            violations.append(Violation(where, what, fix))
        texts["logrotate.d/primus"] = LOGROTATE.format(managed=MANAGED_COMMENT, logs='" "'.join(logs))
    return [
        {"path": "%s/%s" % (read["system_etc"], name), "content": text, "mode": "0644"} for name, text in texts.items()
    ]
