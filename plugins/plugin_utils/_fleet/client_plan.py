# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Plan the changes of a client: the difference between the result of ppin_info and the variables. No I/O.

The tasks of the roles only apply a plan, so that a client without changes costs one inspection.
"""

from __future__ import annotations

import hashlib
import os
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.package_choice import version_key
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import (
    Place,
    Violation,
    proxy_users,
    render,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.variables import CREDENTIALS, PROVIDER

Data = t.Mapping[str, t.Any]
Changes = t.Dict[str, t.Any]

LEDGER, SECRETS, CONFIG = ".secrets.cfg.ledger", ".secrets.cfg", "primus.cfg"
CONFIG_FILES = (LEDGER, SECRETS, CONFIG)
"""In the order in which they are moved, so that .secrets.cfg is never in its new directory without its ledger."""

MODES = {LEDGER: "0600", SECRETS: "0660", CONFIG: "0640"}
DIRECTORY_MODE = "0750"

NOTHING_CONFIGURED = "0x80005001"
"""The code that ppin prints when primus.cfg has no partition."""


def files_to_inspect(wanted: Data) -> t.List[str]:
    """Return the option `files` of ppin_info."""
    if PROVIDER not in wanted["scope"]:
        return []
    home, etc = wanted["home"], wanted["etc"]
    own = [f"{directory}/{name}" for directory in (etc, home + "/etc") for name in CONFIG_FILES]
    return [home, etc, *own, *(file["path"] for file in wanted["files"])]


def current_paths(facts: Data, wanted: Data) -> t.Dict[str, str]:
    """Return where primus.cfg and .secrets.cfg are before files are moved, as options of ppin_info."""
    if PROVIDER not in wanted["scope"]:
        return {"config_path": facts["config"]["path"], "secrets_path": facts["secrets"]["path"]}
    moved = files_to_move(facts, wanted)
    where = {name: f"{wanted['home']}/etc" if name in moved else wanted["etc"] for name in (CONFIG, SECRETS)}
    return {"config_path": f"{where[CONFIG]}/{CONFIG}", "secrets_path": f"{where[SECRETS]}/{SECRETS}"}


def files_to_move(facts: Data, wanted: Data) -> t.List[str]:
    """Return the files to move from PRIMUS_HOME/etc. Those of a new client are templates, which are copied instead."""
    return _only_in_home(facts, wanted) if facts["installed"] and not wanted.get("installed_before") else []


def _only_in_home(facts: Data, wanted: Data) -> t.List[str]:
    files, home, etc = facts["files"], wanted["home"], wanted["etc"]
    return [
        name for name in CONFIG_FILES if files[f"{home}/etc/{name}"]["exists"] and not files[f"{etc}/{name}"]["exists"]
    ]


def plan_client(facts: Data, wanted: Data) -> Changes:
    """Return the plan of a client, as the module client_plan documents it.

    :arg facts: the result of ppin_info. If files are to be moved, it must have been run with their present paths.
    :arg wanted: the result of read_variables.
    """
    changes: Changes = {"check_mode": facts["check_mode"], **_empty_plan(facts)}
    if PROVIDER in wanted["scope"]:
        changes.update(_provider(facts, wanted))
    credentials = CREDENTIALS in wanted["scope"]
    changes["credentials"] = _credentials(facts, wanted) if credentials else dict(_NO_CREDENTIALS)
    if credentials and PROVIDER in wanted["scope"]:
        changes["final_config"] = _final_config(facts, wanted, changes)
    names = changes["credentials"]
    if names["set"] + names["fetch"] and _lacks_pexpect(facts, wanted):
        changes["python_packages"] = [wanted["pexpect_package"]]
    if facts["check_mode"]:
        if PROVIDER in wanted["scope"]:
            changes["unsimulated"] = _unsimulated(facts, wanted, changes)
        _remove_unsimulated(facts, wanted, names)
    elif credentials and wanted["pkcs11_check"]:
        changes["pkcs11"] = [
            {"user_name": each["user_name"], "slot_id": each["slot_id"][0], "index": i}
            for i, each in enumerate(wanted["partitions"])
            if each["state"] != "absent" and each["pkcs11_password"] and each.get("slot_id")
        ]
    changes["configure"] = changes["config"]["change"] or any(changes[key] for key in _CONFIGURE)
    names["any"] = any(names[key] for key in ("set", "fetch", "remove", "unset"))
    changes["any"] = names["any"] or bool(names["unsimulated"]) or any(changes[key] for key in _ANY)
    return changes


_CONFIGURE = ("new_group", "directory", "move", "templates", "permissions", "members", "files")
_ANY = ("install", "python_packages", "configure", "final_config", "pkcs11", "unsimulated")
_NO_CREDENTIALS = {
    **{key: [] for key in ("set", "fetch", "remove", "unset", "unsimulated")},
    "missing": {"service_users": [], "partitions": []},
}


def _empty_plan(facts: Data) -> Changes:
    """Return a plan without changes, for the paths at which ppin finds its files."""
    config, secrets = facts["config"]["path"], facts["secrets"]["path"]
    return {
        "paths": _paths(facts["home"], os.path.dirname(config), config, secrets),
        "now": {"config": config, "secrets": secrets},
        "owner": None,
        "group": None,
        "install": None,
        "python_packages": [],
        "new_group": None,
        "directory": False,
        "move": [],
        "templates": [],
        "permissions": [],
        "config": {"change": False, "content": "", "removed": []},
        "final_config": None,
        "members": [],
        "files": [],
        "restart_rsyslog": False,
        "pkcs11": [],
        "unsimulated": [],
    }


def _paths(home: str, etc: str, config: str, secrets: str) -> t.Dict[str, str]:
    return {"home": home, "etc": etc, "config": config, "secrets": secrets, "library": f"{home}/lib/libprimusP11.so"}


# The provider


def _provider(facts: Data, wanted: Data) -> Changes:
    files, home, etc, group = facts["files"], wanted["home"], wanted["etc"], facts["group"]
    now = current_paths(facts, wanted)
    content = _render_config(facts, wanted)
    move = files_to_move(facts, wanted)
    with_template = [SECRETS] if content else [SECRETS, CONFIG]
    changed = [file for file in wanted["files"] if files[file["path"]].get("checksum") != _checksum(file["content"])]
    # A group that is given by its number need not exist.
    create_group = not group["exists"] and not wanted["group"].isdecimal()
    templates = [name for name in with_template if name in _only_in_home(facts, wanted) and name not in move]
    return {
        "paths": _paths(home, etc, f"{etc}/{CONFIG}", f"{etc}/{SECRETS}"),
        # Check mode does not move the files.
        "now": {
            "config": now["config_path"] if facts["check_mode"] else f"{etc}/{CONFIG}",
            "secrets": now["secrets_path"] if facts["check_mode"] else f"{etc}/{SECRETS}",
        },
        "owner": wanted["owner"],
        "group": None
        if facts["check_mode"] and create_group
        else group["name"],  # in check mode, tasks cannot use a group that does not exist yet
        "install": _install(facts, wanted),
        "new_group": group["name"] if create_group else None,
        # The tasks that move or copy files create the directory, too.
        "directory": not move + templates and _lacks_permissions(files[etc], DIRECTORY_MODE, facts, wanted),
        "move": move,
        "templates": templates,
        "permissions": [name for name in CONFIG_FILES if _file_lacks_permissions(name, facts, wanted, bool(content))],
        "config": {
            "change": bool(content) and files[now["config_path"]].get("checksum") != _checksum(content),
            "content": content,
            "removed": [],
        },
        "members": [name for name in wanted["members"] if name not in group["members"]],
        "files": changed,
        "restart_rsyslog": any(file["path"] == wanted["rsyslog"] for file in changed),
    }


def _install(facts: Data, wanted: Data) -> t.Optional[Changes]:
    package, home = wanted["package"], wanted["home"]
    if not package or not _must_install(facts, package["version"], package["allow_downgrade"]):
        return None
    kept = f"{home}-{facts['version'] or 'old'}-{wanted['moment']}" if facts["files"][home]["exists"] else None
    # The staging directory is beside PRIMUS_HOME: only root can write there, and a rename replaces the provider.
    return {**package, "staging": f"{home}.new", "home": home, "keep_as": kept, "group": facts["group"]["name"]}


def _must_install(facts: Data, version: str, allow_downgrade: bool) -> bool:
    """Whether to install a provider, or to replace the present one."""
    if not facts["installed"]:
        return True
    if not facts["version"]:
        # A ppin that reports no version may be busy, or print it in another form. Replace it only if it does not work.
        error = facts["error"] or {}
        return error.get("class") in ("config", "unknown") and error["code"] is None
    present, other = version_key(facts["version"]), version_key(version)
    return present < other or (allow_downgrade and present > other)


def _file_lacks_permissions(name: str, facts: Data, wanted: Data, managed: bool) -> bool:
    """Whether a file is to get its owner, group and permissions. Moved files get them when they are moved.

    :arg managed: whether primus.cfg is rendered from the variables. Otherwise it is not changed.
    """
    file = facts["files"][f"{wanted['etc']}/{name}"]
    if not file["exists"] or (name == CONFIG and not managed):
        return False
    if name == LEDGER:
        return bool(file["mode"] != MODES[LEDGER]) or _acl_grants_access(file)
    return _lacks_permissions(file, MODES[name], facts, wanted)


def _lacks_permissions(file: Data, mode: str, facts: Data, wanted: Data) -> bool:
    """Whether a file or directory is missing, has another owner, group or mode, or has an ACL that grants access."""
    if not file["exists"]:
        return True
    owner = wanted["owner"]
    is_owner = file["uid"] == int(owner) if owner.isdecimal() else file["owner"] == owner
    gid = int(wanted["group"]) if wanted["group"].isdecimal() else facts["group"]["gid"]
    return not is_owner or file["gid"] != gid or file["mode"] != mode or _acl_grants_access(file)


def _acl_grants_access(file: Data) -> bool:
    """Whether the ACL grants anything to a named user or group."""
    return any(not entry.endswith(":---") for entry in file["acl"])


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


# primus.cfg


def _render_config(facts: Data, wanted: Data, removed: t.Collection[str] = ()) -> str:
    """Return the content of primus.cfg, or "" when it is not managed."""
    return render(wanted["settings"], kept_partitions(facts, wanted, removed)) if wanted["settings"] else ""


def kept_partitions(facts: Data, wanted: Data, removed: t.Collection[str] = ()) -> t.List[str]:
    """Return the absent partitions that primus.cfg must still name, so that ppin can remove their credentials.

    This depends on what the client has, not on what this run will remove: it may be limited by tags, or fail before.

    :arg removed: the partitions and service users whose credentials are already removed.
    """
    to_remove = [name for name in _service_users_to_remove(facts, wanted) if name not in removed]
    listed = {
        each["user_name"]: each["configured"] and each["user_name"] not in removed for each in facts["partitions"]
    }
    listed.update((name, False) for name in removed)
    unknown = _has_hidden_credentials(facts)  # ppin_secret removes the secret of an orphan without primus.cfg
    return [
        partition["user_name"]
        for partition in wanted["partitions"]
        if partition["state"] == "absent"
        and (listed.get(partition["user_name"], unknown) or any(name in to_remove for name in proxy_users(partition)))
    ]


def _has_hidden_credentials(facts: Data) -> bool:
    """Whether the client may have credentials that ppin does not list, because it fails."""
    if not facts["error"] or facts["error"]["code"] == NOTHING_CONFIGURED or not facts["secrets"]["exists"]:
        return False
    return bool(facts["orphans"] is None or facts["config"]["exists"])


def _service_users_to_remove(facts: Data, wanted: Data) -> t.List[str]:
    """Return the absent service users whose password the client has."""
    absent = [user["name"] for user in wanted["service_users"] or [] if user["state"] == "absent"]
    return [user["name"] for user in facts["service_users"] if user["configured"] and user["name"] in absent]


def stranded_service_users(facts: Data, wanted: Data) -> t.List[Violation]:
    """Return violations for absent service users whose password ppin could not remove.

    primus.cfg would no longer name them, so their password would stay in .secrets.cfg.
    """
    if PROVIDER not in wanted["scope"] or not wanted["partitions"]:
        return []
    named = [name for partition in wanted["partitions"] for name in proxy_users(partition)]
    path = wanted["prefix"] + "service_users"
    places = {user["name"]: Place(f"{path}[{i}]", user["name"]) for i, user in enumerate(wanted["service_users"] or [])}
    return [
        Violation(
            str(places[name]),
            "is absent, and primus.cfg would no longer name it, so that its password would stay behind",
            "list its partition with state absent and proxy_user, or remove the password first: "
            "see docs/decommissioning.md of the collection",
        )
        for name in _service_users_to_remove(facts, wanted)
        if name not in named
    ]


def _final_config(facts: Data, wanted: Data, changes: Data) -> t.Optional[Changes]:
    """Return primus.cfg after the removal of absent credentials, or None when that does not change it."""
    removed = changes["credentials"]["remove"] + changes["credentials"]["unset"]
    content = _render_config(facts, wanted, removed) if removed else changes["config"]["content"]
    return {"content": content, "removed": removed} if content != changes["config"]["content"] else None


# Credentials


def _credentials(facts: Data, wanted: Data) -> Changes:
    partitions, users = wanted["partitions"], wanted["service_users"] or []
    entries = _Entries(facts)
    always, interrupted = wanted["verify"] == "always", facts["interrupted"]
    # If ppin fails, the module is run to remove what it may not list; it fails if ppin still fails. Not in check mode.
    has_hidden_credentials = _has_hidden_credentials(facts) and not facts["check_mode"]
    # Only the module can find out whether a credential is up to date, or accepted by the HSM.
    fetch = [
        each["user_name"]
        for each in partitions
        if each["state"] != "absent"
        and (always or interrupted or each["state"] == "updated" or not entries.has_secret(each["user_name"]))
    ]
    set_users = [
        user["name"]
        for user in users
        if user["state"] != "absent"
        and _is_in_config(user["name"], facts, wanted)
        and (interrupted or user["state"] == "updated" or user["name"] not in entries.configured_users)
    ]
    return {
        "set": set_users,
        "fetch": fetch,
        "remove": [
            each["user_name"]
            for each in partitions
            if each["state"] == "absent" and (has_hidden_credentials or entries.has_secret(each["user_name"]))
        ],
        "unset": [user["name"] for user in users if user["state"] == "absent"]
        if has_hidden_credentials
        else _service_users_to_remove(facts, wanted),
        "unsimulated": [],
        "missing": {
            "service_users": [name for name in set_users if entries.user_is_missing(name)],
            "partitions": [name for name in fetch if entries.is_missing(name)],
        },
    }


def _lacks_pexpect(facts: Data, wanted: Data) -> bool:
    """Whether pexpect is to be installed before a credential can be set."""
    return bool(wanted["pexpect_package"]) and not facts["pexpect"]["usable"]


class _Entries:
    """The credentials in .secrets.cfg, according to the listing and the orphans in the result of ppin_info."""

    def __init__(self, facts: Data) -> None:
        self.listed = [each["user_name"] for each in facts["partitions"]]
        self.listed_users = [each["name"] for each in facts["service_users"]]
        self.configured = [each["user_name"] for each in facts["partitions"] if each["configured"]]
        self.configured_users = [each["name"] for each in facts["service_users"] if each["configured"]]
        self.orphans = facts["orphans"]
        # Without a listing, there may be a secret that is not known, unless there is no file.
        self.known = not facts["error"] or not facts["secrets"]["exists"]

    def has_secret(self, partition: str) -> bool:
        return partition in self.configured or partition in (self.orphans or [])

    def is_missing(self, partition: str) -> bool:
        """Whether it is certain that there is no secret."""
        certain = partition in self.listed or (self.known and self.orphans is not None)
        return certain and not self.has_secret(partition)

    def user_is_missing(self, service_user: str) -> bool:
        certain = service_user in self.listed_users or self.known
        return certain and service_user not in self.configured_users


def _is_in_config(service_user: str, facts: Data, wanted: Data) -> bool:
    """Whether primus.cfg will name a service user. Without that, ppin cannot set a password.

    A primus.cfg that is rendered from the variables names the service users of their partitions. Another one names
    those that ppin lists. If the variables name no service user of any partition, ppin will report it.
    """
    used = [name for each in wanted["partitions"] if each["state"] != "absent" for name in proxy_users(each)]
    if service_user in used:
        return True
    if PROVIDER in wanted["scope"]:
        return False
    return not used or any(user["name"] == service_user for user in facts["service_users"])


def _service_users_in_front_of(partition: Data, facts: Data, wanted: Data) -> t.List[str]:
    """Return the service users in front of a partition, after primus.cfg is written."""
    if wanted["settings"]:
        return proxy_users(partition)
    seen = [each["proxy_users"] for each in facts["partitions"] if each["user_name"] == partition["user_name"]]
    return seen[0] if seen else []


# Check mode


def _unsimulated(facts: Data, wanted: Data, changes: Data) -> t.List[str]:
    """Return, as sentences, the changes to the provider that no module can simulate in check mode."""
    home, etc, files = wanted["home"], wanted["etc"], facts["files"]
    sentences = [f"{name} would be moved from {home}/etc to {etc}." for name in changes["move"]]
    templates = list(changes["templates"])
    if changes["install"]:
        sentences.append(f"The provider {changes['install']['version']} would be installed.")
        if not facts["installed"]:
            with_template = [SECRETS] if changes["config"]["content"] else [SECRETS, CONFIG]
            templates = [name for name in with_template if name in templates or not files[f"{etc}/{name}"]["exists"]]
    sentences += [f"{name} would be put in place from the template of the provider." for name in templates]
    if not facts["group"]["exists"]:
        sentences += [f"{name} would become a member of the group {wanted['group']}." for name in changes["members"]]
    return sentences


def _not_simulated(facts: Data, wanted: Data, names: Data) -> t.Tuple[t.List[str], t.List[str]]:
    """Return the service users and partitions whose change check mode cannot simulate.

    Their primus.cfg, service proxy password or pexpect would be set by an earlier task.
    """
    entries = _Entries(facts)
    managed = bool(wanted["settings"])
    later = names["missing"] if _lacks_pexpect(facts, wanted) else {"service_users": [], "partitions": []}
    set_later = [name for name in _service_users_to_set(wanted, names) if name not in entries.configured_users]
    users = [
        name
        for name in names["set"]
        if name in later["service_users"] or (managed and name not in entries.listed_users)
    ]
    by_name = {each["user_name"]: each for each in wanted["partitions"]}
    partitions = []
    for name in names["fetch"]:
        if _is_only_verified(by_name[name], entries):
            continue
        before = _service_users_in_front_of(by_name[name], facts, wanted)
        waits = any(user in set_later or (managed and user not in entries.configured_users) for user in before)
        if waits or name in later["partitions"] or (managed and name not in entries.listed):
            partitions.append(name)
    return users, partitions


def _service_users_to_set(wanted: Data, names: Data) -> t.List[str]:
    """Return the service users whose password this task, or an earlier one, would set."""
    return [*names["set"], *wanted["changing_users"]]


def _is_only_verified(partition: Data, entries: _Entries) -> bool:
    return bool(partition["state"] == "present" and entries.has_secret(partition["user_name"]))


def _remove_unsimulated(facts: Data, wanted: Data, names: Changes) -> None:
    """Move the credentials that check mode cannot simulate from the plan to sentences in `unsimulated`."""
    users, partitions = _not_simulated(facts, wanted, names)
    names["unsimulated"] = [f"The service proxy password of '{name}' would be set." for name in users]
    names["unsimulated"] += [f"The permanent secret of '{name}' would be fetched." for name in partitions]
    # A login through a service proxy whose password is about to change would not be conclusive.
    changing, entries = _service_users_to_set(wanted, names), _Entries(facts)
    partitions += [
        each["user_name"]
        for each in wanted["partitions"]
        if _is_only_verified(each, entries)
        and any(user in changing for user in _service_users_in_front_of(each, facts, wanted))
    ]
    names["set"] = [name for name in names["set"] if name not in users]
    names["fetch"] = [name for name in names["fetch"] if name not in partitions]


# Preflight checks


def preflight_errors(facts: Data, wanted: Data, changes: Data) -> t.List[str]:
    """Return, as sentences, why the credentials cannot be changed, so that no login is spent.

    If the provider is to be changed, too, this may repair the client first, so an error of ppin does not count.
    """
    if CREDENTIALS not in wanted["scope"]:
        return []
    entries, to_set = _Entries(facts), _credentials(facts, wanted)["set"]
    if facts["check_mode"]:
        to_set = [*to_set, *wanted["changing_users"]]
    wanted_partitions = [each for each in wanted["partitions"] if each["state"] != "absent"]
    not_simulated = _not_simulated(facts, wanted, _credentials(facts, wanted))[1] if facts["check_mode"] else []
    checked = [each for each in wanted_partitions if each["user_name"] not in not_simulated]
    is_repaired_first = bool(changes["install"]) or changes["configure"]
    absent = [each for each in [*wanted["partitions"], *(wanted["service_users"] or [])] if each["state"] == "absent"]
    if facts["error"] and not is_repaired_first and (checked or (absent and _has_hidden_credentials(facts))):
        return ["%s. %s" % (facts["error"]["msg"], facts["error"]["hint"] or "")]
    errors = []
    if not wanted["settings"] and not facts["error"]:
        there = ", ".join(entries.listed) or "none"
        errors += [
            "'%s' is not in primus.cfg, which has %s." % (each["user_name"], there)
            for each in checked
            if each["user_name"] not in entries.listed
        ]
    errors += [
        "The service proxy password of '%s', the service user of '%s', is MISSING: set it first, as one of the service "
        "users." % (user, each["user_name"])
        for each in checked
        for user in _service_users_in_front_of(each, facts, wanted)
        if entries.user_is_missing(user) and user not in to_set
    ]
    for each in wanted_partitions:
        lacking = [key for key in ("setup_password", "pkcs11_password") if not each[key]]
        name = each["user_name"]
        if lacking and entries.is_missing(name) and (wanted["settings"] or name in entries.listed):
            errors.append(
                "The permanent secret of '%s' is MISSING, and what is needed to fetch it is not given: %s."
                % (name, " and ".join(lacking))
            )
    return errors
