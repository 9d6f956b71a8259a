# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What is to be changed on a client: the difference between what ppin_info saw and what is wanted. No I/O.

The roles only do what a plan says, so that a client that is as it should be costs one look.
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
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.wanted import CREDENTIALS, PROVIDER

Data = t.Mapping[str, t.Any]
Changes = t.Dict[str, t.Any]

LEDGER, SECRETS, CONFIG = ".secrets.cfg.ledger", ".secrets.cfg", "primus.cfg"
NAMES = (LEDGER, SECRETS, CONFIG)
"""In the order in which they are moved: .secrets.cfg is found only together with what belongs to it."""

MODES = {LEDGER: "0600", SECRETS: "0660", CONFIG: "0640"}
DIRECTORY_MODE = "0750"

NOTHING_CONFIGURED = "0x80005001"
"""The code of a ppin that finds no partition in primus.cfg."""


def files_to_look_at(wanted: Data) -> t.List[str]:
    """The option `files` of ppin_info."""
    if PROVIDER not in wanted["scope"]:
        return []
    home, etc = wanted["home"], wanted["etc"]
    own = [f"{folder}/{name}" for folder in (etc, home + "/etc") for name in NAMES]
    return [home, etc, *own, *(file["path"] for file in wanted["files"])]


def paths_now(look: Data, wanted: Data) -> t.Dict[str, str]:
    """Where primus.cfg and .secrets.cfg are now, as options of ppin_info."""
    if PROVIDER not in wanted["scope"]:
        return {"config_path": look["config"]["path"], "secrets_path": look["secrets"]["path"]}
    moved = files_to_move(look, wanted)
    where = {name: f"{wanted['home']}/etc" if name in moved else wanted["etc"] for name in (CONFIG, SECRETS)}
    return {"config_path": f"{where[CONFIG]}/{CONFIG}", "secrets_path": f"{where[SECRETS]}/{SECRETS}"}


def files_to_move(look: Data, wanted: Data) -> t.List[str]:
    """A client that was there before has its configuration in PRIMUS_HOME/etc, a new one has templates there."""
    return _only_in_home(look, wanted) if look["installed"] and not wanted.get("installed_before") else []


def _only_in_home(look: Data, wanted: Data) -> t.List[str]:
    files, home, etc = look["files"], wanted["home"], wanted["etc"]
    return [name for name in NAMES if files[f"{home}/etc/{name}"]["exists"] and not files[f"{etc}/{name}"]["exists"]]


def plan(look: Data, wanted: Data) -> Changes:
    """The plan of a client, as the module client_plan documents it.

    :arg look: what ppin_info saw of the client; of one whose files are to be moved, where they are now.
    :arg wanted: what read_wanted made of the variables.
    """
    changes: Changes = {"check_mode": look["check_mode"], **_nothing(look)}
    if PROVIDER in wanted["scope"]:
        changes.update(_provider(look, wanted))
    credentials = CREDENTIALS in wanted["scope"]
    changes["credentials"] = _credentials(look, wanted) if credentials else dict(_NO_CREDENTIALS)
    if credentials and PROVIDER in wanted["scope"]:
        changes["final_config"] = _final_config(look, wanted, changes)
    names = changes["credentials"]
    if names["set"] + names["fetch"] and _lacks_pexpect(look, wanted):
        changes["python_packages"] = [wanted["pexpect_package"]]
    if look["check_mode"]:
        if PROVIDER in wanted["scope"]:
            changes["unsimulated"] = _unsimulated(look, wanted, changes)
        _leave_out_unsimulated(look, wanted, names)
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


def _nothing(look: Data) -> Changes:
    """The plan that changes nothing, of a client whose files are where ppin finds them."""
    config, secrets = look["config"]["path"], look["secrets"]["path"]
    return {
        "paths": _paths(look["home"], os.path.dirname(config), config, secrets),
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


def _provider(look: Data, wanted: Data) -> Changes:
    files, home, etc, group = look["files"], wanted["home"], wanted["etc"], look["group"]
    now = paths_now(look, wanted)
    content = _content(look, wanted)
    move = files_to_move(look, wanted)
    with_template = [SECRETS] if content else [SECRETS, CONFIG]
    changed = [file for file in wanted["files"] if files[file["path"]].get("checksum") != _checksum(file["content"])]
    # A number that no group has can be given to files all the same.
    create_group = not group["exists"] and not wanted["group"].isdecimal()
    templates = [name for name in with_template if name in _only_in_home(look, wanted) and name not in move]
    return {
        "paths": _paths(home, etc, f"{etc}/{CONFIG}", f"{etc}/{SECRETS}"),
        # What is to be moved, and only check mode leaves where it is.
        "now": {
            "config": now["config_path"] if look["check_mode"] else f"{etc}/{CONFIG}",
            "secrets": now["secrets_path"] if look["check_mode"] else f"{etc}/{SECRETS}",
        },
        "owner": wanted["owner"],
        "group": None if look["check_mode"] and create_group else group["name"],  # what tasks can be given
        "install": _install(look, wanted),
        "new_group": group["name"] if create_group else None,
        # What puts files into the directory creates it, too.
        "directory": not move + templates and _differs(files[etc], DIRECTORY_MODE, look, wanted),
        "move": move,
        "templates": templates,
        "permissions": [name for name in NAMES if _permissions_differ(name, look, wanted, bool(content))],
        "config": {
            "change": bool(content) and files[now["config_path"]].get("checksum") != _checksum(content),
            "content": content,
            "removed": [],
        },
        "members": [name for name in wanted["members"] if name not in group["members"]],
        "files": changed,
        "restart_rsyslog": any(file["path"] == wanted["rsyslog"] for file in changed),
    }


def _install(look: Data, wanted: Data) -> t.Optional[Changes]:
    package, home = wanted["package"], wanted["home"]
    if not package or not _is_replaced(look, package["version"], package["allow_downgrade"]):
        return None
    kept = f"{home}-{look['version'] or 'old'}-{wanted['moment']}" if look["files"][home]["exists"] else None
    # Beside PRIMUS_HOME: only root can write there, and what was unpacked is put in place by a rename.
    return {**package, "staging": f"{home}.new", "home": home, "keep_as": kept, "group": look["group"]["name"]}


def _is_replaced(look: Data, version: str, allow_downgrade: bool) -> bool:
    """Whether another provider is to take the place of the present one, if any."""
    if not look["installed"]:
        return True
    if not look["version"]:
        # It may be busy, or word its version as none before. Only one that does nothing is as good as none.
        error = look["error"] or {}
        return error.get("class") in ("config", "unknown") and error["code"] is None
    present, other = version_key(look["version"]), version_key(version)
    return present < other or (allow_downgrade and present > other)


def _permissions_differ(name: str, look: Data, wanted: Data, managed: bool) -> bool:
    """What is moved has them afterwards. Only root reads the ledger, and primus.cfg may be left to others."""
    file = look["files"][f"{wanted['etc']}/{name}"]
    if not file["exists"] or (name == CONFIG and not managed):
        return False
    if name == LEDGER:
        return bool(file["mode"] != MODES[LEDGER]) or _lets_others_in(file)
    return _differs(file, MODES[name], look, wanted)


def _differs(file: Data, mode: str, look: Data, wanted: Data) -> bool:
    """Whether a file or directory is not there, or has another owner, group or mode, or lets others in by an ACL."""
    if not file["exists"]:
        return True
    owner = wanted["owner"]
    is_owner = file["uid"] == int(owner) if owner.isdecimal() else file["owner"] == owner
    gid = int(wanted["group"]) if wanted["group"].isdecimal() else look["group"]["gid"]
    return not is_owner or file["gid"] != gid or file["mode"] != mode or _lets_others_in(file)


def _lets_others_in(file: Data) -> bool:
    """Whether the ACL gives anything to a user or group that it names."""
    return any(not entry.endswith(":---") for entry in file["acl"])


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


# primus.cfg


def _content(look: Data, wanted: Data, removed: t.Collection[str] = ()) -> str:
    """primus.cfg, or nothing when it is left to others."""
    return render(wanted["settings"], kept_partitions(look, wanted, removed)) if wanted["settings"] else ""


def kept_partitions(look: Data, wanted: Data, removed: t.Collection[str] = ()) -> t.List[str]:
    """The absent partitions that primus.cfg has to name all the same, as ppin could not remove their credentials.

    What the client has decides, not what a run is going to remove: it may be limited by tags, or fail before.

    :arg removed: the partitions and service users whose credentials are gone by then.
    """
    going = [name for name in _going_users(look, wanted) if name not in removed]
    listed = {each["user_name"]: each["configured"] and each["user_name"] not in removed for each in look["partitions"]}
    listed.update((name, False) for name in removed)
    unknown = _is_hidden(look)  # ppin_secret removes the secret of an orphan without primus.cfg
    return [
        partition["user_name"]
        for partition in wanted["partitions"]
        if partition["state"] == "absent"
        and (listed.get(partition["user_name"], unknown) or any(name in going for name in proxy_users(partition)))
    ]


def _is_hidden(look: Data) -> bool:
    """Whether the client may have credentials that no listing shows, as ppin failed and primus.cfg names partitions."""
    if not look["error"] or look["error"]["code"] == NOTHING_CONFIGURED or not look["secrets"]["exists"]:
        return False
    return bool(look["orphans"] is None or look["config"]["exists"])


def _going_users(look: Data, wanted: Data) -> t.List[str]:
    """The absent service users whose password the client has."""
    absent = [user["name"] for user in wanted["service_users"] or [] if user["state"] == "absent"]
    return [user["name"] for user in look["service_users"] if user["configured"] and user["name"] in absent]


def stranded_users(look: Data, wanted: Data) -> t.List[Violation]:
    """The absent service users whose password would stay behind, as primus.cfg would no longer name them."""
    if PROVIDER not in wanted["scope"] or not wanted["partitions"]:
        return []
    named = [name for partition in wanted["partitions"] for name in proxy_users(partition)]
    path = wanted["prefix"] + "service_users"
    places = {user["name"]: Place(f"{path}[{i}]", user["name"]) for i, user in enumerate(wanted["service_users"] or [])}
    return [
        Violation(
            str(places[name]),
            "is absent, and primus.cfg would no longer name it, so that its password would stay behind",
            "list the partition that goes with it as absent, with its proxy_user, or remove the password first: "
            "docs/decommissioning.md tells how",
        )
        for name in _going_users(look, wanted)
        if name not in named
    ]


def _final_config(look: Data, wanted: Data, changes: Data) -> t.Optional[Changes]:
    """primus.cfg once the credentials of what is absent are gone."""
    removed = changes["credentials"]["remove"] + changes["credentials"]["unset"]
    content = _content(look, wanted, removed) if removed else changes["config"]["content"]
    return {"content": content, "removed": removed} if content != changes["config"]["content"] else None


# Credentials


def _credentials(look: Data, wanted: Data) -> Changes:
    partitions, users = wanted["partitions"], wanted["service_users"] or []
    entries = _Entries(look)
    always, interrupted = wanted["verify"] == "always", look["interrupted"]
    # What no listing shows is left to the module, which fails when ppin still does. Check mode cannot ask it.
    hidden = _is_hidden(look) and not look["check_mode"]
    # Only the modules can tell whether a credential is up to date, or accepted by the HSM.
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
        and _is_in_config(user["name"], look, wanted)
        and (interrupted or user["state"] == "updated" or user["name"] not in entries.configured_users)
    ]
    return {
        "set": set_users,
        "fetch": fetch,
        "remove": [
            each["user_name"]
            for each in partitions
            if each["state"] == "absent" and (hidden or entries.has_secret(each["user_name"]))
        ],
        "unset": [user["name"] for user in users if user["state"] == "absent"]
        if hidden
        else _going_users(look, wanted),
        "unsimulated": [],
        "missing": {
            "service_users": [name for name in set_users if entries.user_is_missing(name)],
            "partitions": [name for name in fetch if entries.is_missing(name)],
        },
    }


def _lacks_pexpect(look: Data, wanted: Data) -> bool:
    """Whether pexpect is to be installed before a credential can be set."""
    return bool(wanted["pexpect_package"]) and not look["pexpect"]["usable"]


class _Entries:
    """What .secrets.cfg has, as the listing and the orphans tell."""

    def __init__(self, look: Data) -> None:
        self.listed = [each["user_name"] for each in look["partitions"]]
        self.listed_users = [each["name"] for each in look["service_users"]]
        self.configured = [each["user_name"] for each in look["partitions"] if each["configured"]]
        self.configured_users = [each["name"] for each in look["service_users"] if each["configured"]]
        self.orphans = look["orphans"]
        # Without a listing, a secret may be there that nobody can see, unless there is no file.
        self.known = not look["error"] or not look["secrets"]["exists"]

    def has_secret(self, partition: str) -> bool:
        return partition in self.configured or partition in (self.orphans or [])

    def is_missing(self, partition: str) -> bool:
        """Whether it is certain that there is no secret."""
        certain = partition in self.listed or (self.known and self.orphans is not None)
        return certain and not self.has_secret(partition)

    def user_is_missing(self, service_user: str) -> bool:
        certain = service_user in self.listed_users or self.known
        return certain and service_user not in self.configured_users


def _is_in_config(service_user: str, look: Data, wanted: Data) -> bool:
    """Whether primus.cfg names a service user then: one who is in front of no partition can have no password.

    A primus.cfg that is made of the variables is known. One that is left to others has who is listed. Partitions of
    which the variables tell no service user tell nothing of who is in it, and ppin will.
    """
    used = [name for each in wanted["partitions"] if each["state"] != "absent" for name in proxy_users(each)]
    if service_user in used:
        return True
    if PROVIDER in wanted["scope"]:
        return False
    return not used or any(user["name"] == service_user for user in look["service_users"])


def _proxies_before(partition: Data, look: Data, wanted: Data) -> t.List[str]:
    """The service users in front of a partition, once primus.cfg is as wanted."""
    if wanted["settings"]:
        return proxy_users(partition)
    seen = [each["proxy_users"] for each in look["partitions"] if each["user_name"] == partition["user_name"]]
    return seen[0] if seen else []


# Check mode


def _unsimulated(look: Data, wanted: Data, changes: Data) -> t.List[str]:
    """What check mode can only say of the provider, as it takes something that is not there yet."""
    home, etc, files = wanted["home"], wanted["etc"], look["files"]
    said = [f"{name} would be moved from {home}/etc to {etc}." for name in changes["move"]]
    templates = list(changes["templates"])
    if changes["install"]:
        said.append(f"The provider {changes['install']['version']} would be installed.")
        if not look["installed"]:
            with_template = [SECRETS] if changes["config"]["content"] else [SECRETS, CONFIG]
            templates = [name for name in with_template if name in templates or not files[f"{etc}/{name}"]["exists"]]
    said += [f"{name} would be put in place from the template of the provider." for name in templates]
    if not look["group"]["exists"]:
        said += [f"{name} would become a member of the group {wanted['group']}." for name in changes["members"]]
    return said


def _untried(look: Data, wanted: Data, names: Data) -> t.Tuple[t.List[str], t.List[str]]:
    """Service users and partitions that the client cannot be asked about, as primus.cfg, a service proxy password or
    pexpect would only be there later."""
    entries = _Entries(look)
    managed = bool(wanted["settings"])
    later = names["missing"] if _lacks_pexpect(look, wanted) else {"service_users": [], "partitions": []}
    set_later = [name for name in _changing(wanted, names) if name not in entries.configured_users]
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
        before = _proxies_before(by_name[name], look, wanted)
        waits = any(user in set_later or (managed and user not in entries.configured_users) for user in before)
        if waits or name in later["partitions"] or (managed and name not in entries.listed):
            partitions.append(name)
    return users, partitions


def _changing(wanted: Data, names: Data) -> t.List[str]:
    """The service users whose password this task, or one before it, would set."""
    return [*names["set"], *wanted["changing_users"]]


def _is_only_verified(partition: Data, entries: _Entries) -> bool:
    return bool(partition["state"] == "present" and entries.has_secret(partition["user_name"]))


def _leave_out_unsimulated(look: Data, wanted: Data, names: Changes) -> None:
    """Say of credentials what the module cannot be asked for."""
    users, partitions = _untried(look, wanted, names)
    names["unsimulated"] = [f"The service proxy password of '{name}' would be set." for name in users]
    names["unsimulated"] += [f"The permanent secret of '{name}' would be fetched." for name in partitions]
    # A login with the password that is there does not tell what one with the new password will.
    changing, entries = _changing(wanted, names), _Entries(look)
    partitions += [
        each["user_name"]
        for each in wanted["partitions"]
        if _is_only_verified(each, entries) and any(user in changing for user in _proxies_before(each, look, wanted))
    ]
    names["set"] = [name for name in names["set"] if name not in users]
    names["fetch"] = [name for name in names["fetch"] if name not in partitions]


# What would fail later


def problems(look: Data, wanted: Data, changes: Data) -> t.List[str]:
    """What is known to fail, in sentences, so that no login is spent.

    Where the provider is to be changed, too, that may be mended before the credentials' turn.
    """
    if CREDENTIALS not in wanted["scope"]:
        return []
    entries, to_set = _Entries(look), _credentials(look, wanted)["set"]
    if look["check_mode"]:
        to_set = [*to_set, *wanted["changing_users"]]
    wanted_partitions = [each for each in wanted["partitions"] if each["state"] != "absent"]
    untried = _untried(look, wanted, _credentials(look, wanted))[1] if look["check_mode"] else []
    judged = [each for each in wanted_partitions if each["user_name"] not in untried]
    mended = bool(changes["install"]) or changes["configure"]
    absent = [each for each in [*wanted["partitions"], *(wanted["service_users"] or [])] if each["state"] == "absent"]
    if look["error"] and not mended and (judged or (absent and _is_hidden(look))):
        return ["%s. %s" % (look["error"]["msg"], look["error"]["hint"] or "")]
    found = []
    if not wanted["settings"] and not look["error"]:
        there = ", ".join(entries.listed) or "none"
        found += [
            "'%s' is not in primus.cfg, which has %s." % (each["user_name"], there)
            for each in judged
            if each["user_name"] not in entries.listed
        ]
    found += [
        "The service proxy password of '%s', the service user of '%s', is MISSING: set it first, as one of the service "
        "users." % (user, each["user_name"])
        for each in judged
        for user in _proxies_before(each, look, wanted)
        if entries.user_is_missing(user) and user not in to_set
    ]
    for each in wanted_partitions:
        lacking = [key for key in ("setup_password", "pkcs11_password") if not each[key]]
        name = each["user_name"]
        if lacking and entries.is_missing(name) and (wanted["settings"] or name in entries.listed):
            found.append(
                "The permanent secret of '%s' is MISSING, and what is needed to fetch it is not given: %s."
                % (name, " and ".join(lacking))
            )
    return found
