# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What differs between a client as ppin_info saw it and as the roles are told to make it. Pure functions.

They decide on the controller, so that a client that is as it should be costs one look.
"""

from __future__ import annotations

import hashlib
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.packages import version_key
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import (
    proxy_users,
    render,
)

Data = t.Mapping[str, t.Any]
Changes = t.Dict[str, t.Any]

NAMES = (".secrets.cfg.ledger", ".secrets.cfg", "primus.cfg")
"""In the order in which they are moved: .secrets.cfg is found only together with what belongs to it."""

VERIFY = ("changed", "always", "never")


def provider_changes(look: Data, wanted: Data) -> Changes:
    """What the role primus_provider has to change; the filter of this name documents both arguments and the result."""
    content = ""
    if wanted["settings"]:
        kept = kept_partitions(look, wanted["settings"]["partitions"] or [], wanted["service_users"], wanted["removed"])
        content = render(wanted["settings"], kept)
    files, home, etc, group = look["files"], wanted["home"], wanted["etc"], look["group"]
    whose = (wanted["owner"], wanted["group"])
    install = bool(wanted["package"]) and _replaced(look, wanted["version"], wanted["allow_downgrade"])
    # A client that was there before has its configuration in PRIMUS_HOME/etc, a new one templates.
    only_in_home = [
        name
        for name in NAMES
        if files["%s/etc/%s" % (home, name)]["exists"] and not files["%s/%s" % (etc, name)]["exists"]
    ]
    move = only_in_home if look["installed"] else []
    where = {name: "%s/%s" % (home + "/etc" if name in move else etc, name) for name in NAMES}
    with_template = [".secrets.cfg"] + ([] if content else ["primus.cfg"])
    templates = [name for name in with_template if name in only_in_home]

    config = False
    if content:
        present = files[where["primus.cfg"]]
        checksum = hashlib.sha256(content.encode("utf-8")).hexdigest()
        # Moved, it has the owner and mode that it should have.
        right = "primus.cfg" in move or _rights(present) == (*whose, "0640")
        config = present.get("checksum") != checksum or not right
    secrets = files[etc + "/.secrets.cfg"]
    members = [name for name in wanted["members"] if name not in group["members"]]
    around = [
        path
        for path, text in wanted["around"]
        if files[path].get("checksum") != hashlib.sha256(text.encode("utf-8")).hexdigest()
    ]
    changes: Changes = {
        "install": install,
        "folder": not group["exists"] or _rights(files[etc]) != (*whose, "0750"),
        "move": move,
        "where": where,
        "templates": templates,
        "config": config,
        "content": content,
        "secrets": secrets["exists"] and _rights(secrets) != (*whose, "0660"),
        "members": members,
        "around": around,
    }
    changes["configure"] = any(changes[key] for key in ("config", "secrets", "templates", "members", "around"))
    changes["any"] = any(changes[key] for key in ("install", "folder", "move", "configure"))

    from_package = []
    if install and not look["installed"]:
        from_package = [name for name in with_template if not files["%s/%s" % (etc, name)]["exists"]]
    changes["untried"] = ["%s would be moved from %s/etc to %s" % (name, home, etc) for name in move]
    if install:
        changes["untried"].append("The provider %s would be installed" % wanted["version"])
    changes["untried"] += [
        "%s would be put in place from the template of the provider" % name
        for name in templates + [name for name in from_package if name not in templates]
        if name not in move
    ]
    if not group["exists"]:
        changes["untried"] += ["%s would become a member of the group %s" % (name, whose[1]) for name in members]
    return changes


def _replaced(look: Data, version: str, allow_downgrade: bool) -> bool:
    """Whether another provider is to take the place of the present one, if any."""
    if not look["installed"]:
        return True
    if not look["version"]:
        # It may be busy, or word its version as none before. Only one that does nothing is as good as none.
        error = look["error"] or {}
        return error.get("class") in ("config", "unknown") and error["code"] is None
    present, other = version_key(look["version"]), version_key(version)
    return present < other or (allow_downgrade and present > other)


def kept_partitions(
    look: Data,
    partitions: t.Sequence[Data],
    service_users: t.Optional[t.Sequence[Data]],
    removed: t.Collection[str] = (),
) -> t.List[str]:
    """The absent partitions that primus.cfg has to name all the same, as ppin could not remove their credentials.

    What the client has decides, not what a run is going to remove: it may be limited by tags, or fail before.

    :arg removed: partitions and service users whose credentials check mode has only said that it would remove.
    :raises ValueError: when the password of a service user that is absent would stay behind.
    """
    going = [user["name"] for user in service_users or [] if _state(user) == "absent"]
    going = [user["name"] for user in look["service_users"] if user["configured"] and user["name"] in going]
    named = [name for partition in partitions for name in proxy_users(partition)]
    stranded = [name for name in going if name not in named]
    if stranded and partitions:
        raise ValueError(
            "service_users: '%s' is absent, and primus.cfg would no longer name it, so that its password would stay "
            "behind. List the partition that goes with it as absent, with its proxy_user, or remove the password "
            "first: docs/decommissioning.md tells how" % "', '".join(stranded)
        )
    going = [name for name in going if name not in removed]
    listed = {each["user_name"]: each["configured"] and each["user_name"] not in removed for each in look["partitions"]}
    # ppin_secret removes the secret of an orphan without primus.cfg. Without a listing nothing is known.
    unknown = bool(look["error"]) and look["orphans"] is None
    return [
        partition["user_name"]
        for partition in partitions
        if _state(partition) == "absent"
        and (listed.get(partition["user_name"], unknown) or any(name in going for name in proxy_users(partition)))
    ]


def _rights(file: Data) -> t.Tuple[t.Any, t.Any, t.Any]:
    return (file.get("owner"), file.get("group"), file.get("mode"))


def client_changes(
    look: Data, partitions: t.Sequence[Data], service_users: t.Sequence[Data], verify: str = "changed"
) -> Changes:
    """What the role primus_client has to change; the filter of this name documents the arguments and the result.

    :raises ValueError: when verify is a word that the modules would refuse, which a client in order never asks.
    """
    if verify not in VERIFY:
        raise ValueError("verify is none of %s" % ", ".join(VERIFY))
    interrupted = look["interrupted"]
    listed = [partition["user_name"] for partition in look["partitions"]]
    configured = [partition["user_name"] for partition in look["partitions"] if partition["configured"]]
    listed_users = [user["name"] for user in look["service_users"]]
    configured_users = [user["name"] for user in look["service_users"] if user["configured"]]

    # Only the modules can tell whether a credential is up to date, or accepted by the HSM.
    wanted = [partition for partition in partitions if _state(partition) != "absent"]
    fetch = [
        partition
        for partition in wanted
        if verify == "always"
        or interrupted
        or _state(partition) == "updated"
        or partition["user_name"] not in configured
    ]
    # A service user that stands before no partition is not in primus.cfg, so it can have no password.
    used = [name for partition in wanted for name in proxy_users(partition)]
    set_users = [
        user["name"]
        for user in service_users
        if _state(user) != "absent"
        and user["name"] in used
        and (interrupted or _state(user) == "updated" or user["name"] not in configured_users)
    ]
    changes: Changes = {
        "set": set_users,
        "fetch": [partition["user_name"] for partition in fetch],
        "remove": [
            partition["user_name"]
            for partition in partitions
            if _state(partition) == "absent" and partition["user_name"] in configured + (look.get("orphans") or [])
        ],
        "unset": [
            user["name"] for user in service_users if _state(user) == "absent" and user["name"] in configured_users
        ],
    }
    changes["any"] = any(changes.values())
    # What check mode cannot ask the client, as primus.cfg or a service proxy password would only be there later.
    changes["untried_users"] = [name for name in set_users if name not in listed_users]
    changes["untried_partitions"] = [
        partition["user_name"]
        for partition in fetch
        if partition["user_name"] not in listed or not set(proxy_users(partition)) <= set(configured_users)
    ]
    return changes


def _state(item: Data) -> str:
    return item.get("state") or "present"
