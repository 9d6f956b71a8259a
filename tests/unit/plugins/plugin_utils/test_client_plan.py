# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is planned for a client: one that is as it should be, and every way in which it is not."""

import copy
import hashlib

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.client_plan import (
    CONFIG_FILES,
    current_paths,
    files_to_inspect,
    plan_client,
    preflight_errors,
    stranded_service_users,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import render
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.variables import read_variables

HOME, ETC = "/usr/local/primus", "/etc/primus"
PROFILE, RSYSLOG, LOGROTATE = "/etc/profile.d/primus.sh", "/etc/rsyslog.d/30-primus.conf", "/etc/logrotate.d/primus"
DEB = "PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb"
SETUP = "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3"

# What is wanted: P1 behind the service user svc1, and P2.

HSMS = [{"host": "h"}]
P1 = {"user_name": "P1", "slot_id": 0, "proxy_user": "svc1", "setup_password": SETUP, "pkcs11_password": "pin"}
P2 = {"user_name": "P2", "slot_id": 1, "setup_password": SETUP, "pkcs11_password": "pin"}
P3 = {"user_name": "P3", "slot_id": 2, "setup_password": SETUP, "pkcs11_password": "pin"}
SVC1, SVC2 = ({"name": name, "password": "secret"} for name in ("svc1", "svc2"))
OPTIONS = {
    "package": DEB,
    "hsms": HSMS,
    "partitions": [P1, P2],
    "service_users": [SVC1],
    "group_members": ["app"],
}
OTHERS = {"hsms": [], "partitions": [], "service_users": None}
"""primus.cfg is left to others."""


def absent(item):
    return {**item, "state": "absent"}


def updated(item):
    return {**item, "state": "updated"}


def without(item, *keys):
    return {key: value for key, value in item.items() if key not in keys}


def behind(partition, user):
    return {**partition, "proxy_user": user}


def want(**options):
    wanted, violations = read_variables({**OPTIONS, **options}, "", lambda name: name)
    assert violations == []
    return {**wanted, "moment": "20260131T120000Z"}


def want_credentials(*partitions, users=None, **options):
    """What the roles for credentials alone ask for."""
    options.update(scope=["credentials"], partitions=list(partitions), service_users=users)
    wanted, violations = read_variables(options, "", lambda name: name)
    assert violations == []
    return wanted


def config(*partitions):
    """The text of a primus.cfg with these partitions, present or not."""
    names = ("user_name", "slot_id", "proxy_user", "state")
    given = [{key: value for key, value in each.items() if key in names} for each in partitions]
    return render({"hsms": HSMS, "partitions": given}, None)


# What the client is like: all of that.

ABSENT = {"exists": False}


def there(mode, content="", **facts):
    facts = {"owner": "root", "uid": 0, "group": "primus", "gid": 990, "acl": [], **facts}
    return {"exists": True, "mode": mode, "checksum": hashlib.sha256(content.encode()).hexdigest(), **facts}


def secret(name, configured=True, proxies=()):
    return {"user_name": name, "configured": configured, "proxy_users": list(proxies)}


def user(name, configured=True):
    return {"name": name, "configured": configured}


def error(cls="config", code=None):
    return {"error": {"class": cls, "code": code, "msg": "It fails", "hint": "Do this."}}


def group(**facts):
    return {"group": {"name": "primus", "exists": True, "gid": 990, "members": ["app", "other"], **facts}}


NO_GROUP = group(exists=False, gid=None, members=[])
IN_ETC = {
    "primus.cfg": there("0640", config(P1, P2)),
    ".secrets.cfg": there("0660"),
    ".secrets.cfg.ledger": there("0600", group="root", gid=0),
}
TEXTS = {file["path"]: file["content"] for file in want()["files"]}
IN_HOME = {
    **{f"{HOME}/etc/{name}": IN_ETC[name] for name in CONFIG_FILES},
    **{f"{ETC}/{name}": ABSENT for name in CONFIG_FILES},
}
TEMPLATES = {**IN_HOME, f"{HOME}/etc/.secrets.cfg.ledger": ABSENT}
LOOK = {
    "installed": True,
    "version": "2.2.4",
    "error": None,
    "home": HOME,
    "config": {"path": f"{ETC}/primus.cfg", "exists": True},
    "secrets": {"path": f"{ETC}/.secrets.cfg", "exists": True},
    "orphans": [],
    "partitions": [secret("P1", proxies=["svc1"]), secret("P2")],
    "service_users": [user("svc1")],
    "pexpect": {"installed": True, "version": "4.9.0", "usable": True},
    "interrupted": False,
    "check_mode": False,
    **group(),
    "files": {
        HOME: there("0755"),
        ETC: there("0750"),
        PROFILE: there("0644", TEXTS[PROFILE]),
        RSYSLOG: ABSENT,
        LOGROTATE: ABSENT,
        **{f"{HOME}/etc/{name}": ABSENT for name in CONFIG_FILES},
        **{f"{ETC}/{name}": IN_ETC[name] for name in CONFIG_FILES},
    },
}
NOT_INSTALLED = {"installed": False, "version": None, "partitions": [], "service_users": [], **error()}
BARE = {
    **NOT_INSTALLED,
    **NO_GROUP,
    "config": {"path": f"{ETC}/primus.cfg", "exists": False},
    "secrets": {"path": f"{ETC}/.secrets.cfg", "exists": False},
    "files": dict.fromkeys(LOOK["files"], ABSENT),
}
CHECK = {"check_mode": True}
NO_SECRETS = {"partitions": [secret("P1", False, ["svc1"]), secret("P2")], "service_users": [user("svc1", False)]}
NO_PEXPECT = {"pexpect": {"installed": False, "version": None, "usable": False}}


def seen(look=(), files=()):
    facts = copy.deepcopy(LOOK)
    facts.update(look)
    facts["files"] = {**facts["files"], **dict(files)}
    return facts


def flat(changes):
    credentials = {f"credentials.{key}": value for key, value in changes["credentials"].items()}
    missing = {f"missing.{key}": value for key, value in credentials.pop("credentials.missing").items()}
    settings = {f"config.{key}": value for key, value in changes["config"].items()}
    return {
        **{k: v for k, v in changes.items() if k not in ("credentials", "config")},
        **credentials,
        **missing,
        **settings,
    }


CONFIGURE = ("new_group", "directory", "move", "templates", "permissions", "members", "files", "config.change")
CREDENTIALS = ("credentials.set", "credentials.fetch", "credentials.remove", "credentials.unset")
OTHERWISE = ("install", "python_packages", "final_config", "pkcs11", "unsimulated", "credentials.unsimulated")
ALWAYS = ("paths", "now", "owner", "group", "config.content", "check_mode", "any", "configure", "credentials.any")
"""What is told of a client that needs nothing, too, or follows from the rest."""


def changed(look=(), files=(), **options):
    """What is to be changed, without what is always told."""
    changes = flat(plan_client(seen(look, files), want(**options)))
    assert changes["configure"] == any(changes[key] for key in CONFIGURE)
    assert changes["credentials.any"] == any(changes[key] for key in CREDENTIALS)
    assert changes["any"] == any(changes[key] for key in CONFIGURE + CREDENTIALS + OTHERWISE)
    return {key: value for key, value in changes.items() if key not in ALWAYS and value}


def test_a_client_that_is_right_needs_nothing():
    changes = plan_client(seen(), want())
    assert changed() == {}
    assert changes["any"] is False
    assert changes["paths"] == {
        "home": HOME,
        "etc": ETC,
        "config": f"{ETC}/primus.cfg",
        "secrets": f"{ETC}/.secrets.cfg",
        "library": f"{HOME}/lib/libprimusP11.so",
    }
    assert changes["now"] == {"config": f"{ETC}/primus.cfg", "secrets": f"{ETC}/.secrets.cfg"}
    assert (changes["owner"], changes["group"]) == ("root", "primus")
    assert changes["config"] == {"change": False, "content": config(P1, P2), "removed": []}


def test_the_look_asks_for_all_that_a_plan_goes_by():
    assert set(files_to_inspect(want(rsyslog=True, logrotate=True, log=LOG))) == set(LOOK["files"])
    assert files_to_inspect(want_credentials(P1)) == []


# The package


@pytest.mark.parametrize(
    ("look", "options", "installed"),
    [
        ({}, {}, False),
        ({"version": "2.2.3"}, {}, True),
        ({"version": "2.2.3"}, {"package": ""}, False),
        ({"version": "2.2.10"}, {}, False),
        ({"version": "2.2.10"}, {"allow_downgrade": True}, True),
        ({"version": "2.2.4"}, {"allow_downgrade": True}, False),
        ({"version": None}, {}, False),
        ({"version": None, **error("timeout")}, {}, False),
        ({"version": None, **error("config", "0x80005003")}, {}, False),
        ({"version": None, **error("config")}, {}, True),
        ({"version": None, **error("unknown")}, {}, True),
        ({"version": "2.2.4-beta"}, {}, True),
        ({"version": "2.2.4-beta"}, {"version": "2.2.4.1"}, True),
        ({"version": "2.2.4"}, {"version": "2.2.4"}, False),
        (NOT_INSTALLED, {"package": ""}, False),
        (NOT_INSTALLED, {}, True),
    ],
)
def test_the_package_is_installed_where_it_is_newer_or_none_works(look, options, installed):
    install = plan_client(seen(look), want(**options))["install"]
    assert bool(install) is installed


def test_what_is_told_of_a_package():
    assert plan_client(seen({"version": "2.2.3"}), want())["install"] == {
        "package": DEB,
        "remote_src": False,
        "url": False,
        "checksum": "",
        "version": "2.2.4",
        "file_name": DEB,
        "allow_downgrade": False,
        "staging": f"{HOME}.new",
        "home": HOME,
        "keep_as": f"{HOME}-2.2.3-20260131T120000Z",
        "group": "primus",
    }
    assert plan_client(seen(NOT_INSTALLED), want())["install"]["keep_as"] == f"{HOME}-old-20260131T120000Z"
    assert plan_client(seen(BARE), want())["install"]["keep_as"] is None


@pytest.mark.parametrize(
    ("look", "options", "packages"),
    [
        (NO_PEXPECT, {}, []),
        (NO_PEXPECT, {"partitions": [updated(P1)]}, ["python3-pexpect"]),
        (NO_PEXPECT, {"service_users": [updated(SVC1)]}, ["python3-pexpect"]),
        (NO_PEXPECT, {"partitions": [updated(P1)], "pexpect_package": "python3.11-pexpect"}, ["python3.11-pexpect"]),
        (NO_PEXPECT, {"partitions": [updated(P1)], "pexpect_package": ""}, []),
        (NO_PEXPECT, {"partitions": [P1, absent(P2)]}, []),
        (NO_PEXPECT, {"partitions": [updated(P1)], "scope": ["provider"]}, []),
        (
            {"pexpect": {"installed": True, "version": "2.3", "usable": False}},
            {"verify": "always"},
            ["python3-pexpect"],
        ),
        ({}, {"partitions": [updated(P1)]}, []),
        ({**NO_PEXPECT, **CHECK}, {"partitions": [P1, P2, P3]}, ["python3-pexpect"]),
    ],
)
def test_pexpect_is_installed_where_a_password_is_to_be_typed(look, options, packages):
    assert plan_client(seen(look), want(**options))["python_packages"] == packages


# Files, their owners and permissions


def etc(name, *facts, **more):
    return {f"{ETC}/{name}": there(*facts, **more)}


BOB, MASKED = ["user:bob:r--"], ["user:bob:---", "group:backup:---"]
TEXT = config(P1, P2)


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        ({ETC: ABSENT}, {}, {"directory": True}),
        ({ETC: there("0755")}, {}, {"directory": True}),
        ({ETC: there("0750", owner="app", uid=7)}, {}, {"directory": True}),
        ({ETC: there("0750", group="app", gid=7)}, {}, {"directory": True}),
        ({ETC: there("0750", acl=BOB)}, {}, {"directory": True}),
        ({ETC: there("0750", acl=["default:user:bob:rwx"])}, {}, {"directory": True}),
        ({ETC: there("0750", acl=MASKED)}, {}, {}),
        # A group of two names is one group.
        ({ETC: there("0750", group="primus2")}, {}, {}),
        (etc("primus.cfg", "0640", "other"), {}, {"config.change": True}),
        ({f"{ETC}/primus.cfg": ABSENT}, {}, {"config.change": True}),
        (etc("primus.cfg", "0644", TEXT), {}, {"permissions": ["primus.cfg"]}),
        (etc("primus.cfg", "0640", TEXT, uid=7, owner="app"), {}, {"permissions": ["primus.cfg"]}),
        (etc("primus.cfg", "0640", TEXT, acl=BOB), {}, {"permissions": ["primus.cfg"]}),
        (etc("primus.cfg", "0644", "other"), {}, {"config.change": True, "permissions": ["primus.cfg"]}),
        (etc("primus.cfg", "0644", "other"), OTHERS, {}),
        (etc(".secrets.cfg", "0644"), {}, {"permissions": [".secrets.cfg"]}),
        (etc(".secrets.cfg", "0644"), OTHERS, {"permissions": [".secrets.cfg"]}),
        (etc(".secrets.cfg", "0660", gid=0, group="root"), {}, {"permissions": [".secrets.cfg"]}),
        (etc(".secrets.cfg", "0660", acl=BOB), {}, {"permissions": [".secrets.cfg"]}),
        (etc(".secrets.cfg", "0660", acl=MASKED), {}, {}),
        (etc(".secrets.cfg.ledger", "0640"), {}, {"permissions": [".secrets.cfg.ledger"]}),
        (etc(".secrets.cfg.ledger", "0600", acl=BOB), {}, {"permissions": [".secrets.cfg.ledger"]}),
        (etc(".secrets.cfg.ledger", "0600", uid=7, owner="app"), {}, {}),
        ({f"{ETC}/.secrets.cfg": ABSENT}, {}, {}),
        ({}, {"owner": "app"}, {"directory": True, "permissions": [".secrets.cfg", "primus.cfg"]}),
    ],
)
def test_what_is_not_right_is_changed_alone(files, options, expected):
    assert changed(files=files, **options) == expected


@pytest.mark.parametrize("number", [0, "0"])
def test_an_owner_or_group_given_as_a_number_costs_nothing_where_it_is_right(number):
    roots = {path: {**file, "group": "root", "gid": 0} for path, file in LOOK["files"].items() if file["exists"]}
    root = group(name="root", gid=0)
    assert changed(owner=number) == {}
    assert changed(root, roots, owner=number, group=number) == {}
    assert plan_client(seen(root, roots), want(group=number))["group"] == "root"
    assert changed(root, group=number) == {"directory": True, "permissions": [".secrets.cfg", "primus.cfg"]}


def test_a_number_that_no_group_has_is_given_to_files():
    files = {path: {**file, "group": "4711", "gid": 4711} for path, file in LOOK["files"].items() if file["exists"]}
    look = group(name="4711", exists=False, gid=None)
    assert changed(look, files, group=4711) == {}
    assert changed(look, group="4711") == {"directory": True, "permissions": [".secrets.cfg", "primus.cfg"]}


@pytest.mark.parametrize(
    ("look", "options", "expected"),
    [
        ({}, {"group_members": ["app", "new"]}, {"members": ["new"]}),
        ({}, {"group_members": []}, {}),
        ({}, {"group_members": None}, {}),
        (NO_GROUP, {}, {"new_group": "primus", "directory": True, "members": ["app"]}),
    ],
)
def test_the_group_and_its_members(look, options, expected):
    found = changed(look, **options)
    found.pop("permissions", None)
    assert found == expected


PROFILE_D, RSYSLOG_D, LOGROTATE_D = (path.partition("/etc")[2] for path in (PROFILE, RSYSLOG, LOGROTATE))
LOG = {"file": "/var/log/primus.log"}


@pytest.mark.parametrize(
    ("files", "options", "paths", "restart"),
    [
        ({PROFILE: there("0644", "other")}, {}, [PROFILE], False),
        ({PROFILE: ABSENT}, {}, [PROFILE], False),
        ({PROFILE: ABSENT}, {"login_shells": False}, [], False),
        ({}, {"home": HOME + "2"}, None, False),
        ({}, {"rsyslog": True}, [RSYSLOG], True),
        ({}, {"rsyslog": "yes", "logrotate": "true", "log": LOG}, [RSYSLOG, LOGROTATE], True),
        ({}, {"logrotate": True, "log": LOG}, [LOGROTATE], False),
    ],
)
def test_files_around_the_provider(files, options, paths, restart):
    if paths is None:
        assert f"PRIMUS_HOME={HOME}2\n" in want(**options)["files"][0]["content"]
        return
    changes = plan_client(seen(files=files), want(**options))
    assert [(file["path"], file["mode"]) for file in changes["files"]] == [(path, "0644") for path in paths]
    assert changes["restart_rsyslog"] is restart


def test_the_texts_of_the_files():
    options = {"rsyslog": True, "rsyslog_filter": "local2.*", "rsyslog_file": "/var/log/p.log"}
    texts = {file["path"]: file["content"] for file in want(logrotate=True, log=LOG, **options)["files"]}
    assert all(
        text.startswith("# Managed by Ansible (hsmops.primus): changes made here are lost.\n")
        for text in texts.values()
    )
    assert texts[RSYSLOG].endswith('\nlocal2.* action(type="omfile" file="/var/log/p.log")\n')
    assert '\n"/var/log/primus.log" "/var/log/p.log" {\n    weekly\n' in texts[LOGROTATE]
    assert texts[LOGROTATE].endswith("    notifempty\n}\n")
    assert '\nLD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$PRIMUS_HOME/lib"\n' in texts[PROFILE].replace(
        "        ", ""
    )
    assert texts[PROFILE].endswith("        ;;\nesac\n")


# Moves and templates


def test_a_configuration_under_primus_home_moves_with_all_that_belongs_to_it():
    look = seen(files=IN_HOME)
    changes = plan_client(look, want())
    assert changes["move"] == [".secrets.cfg.ledger", ".secrets.cfg", "primus.cfg"]
    assert changes["now"] == {"config": f"{ETC}/primus.cfg", "secrets": f"{ETC}/.secrets.cfg"}
    checked = plan_client(seen(CHECK, IN_HOME), want())
    assert checked["now"] == {"config": f"{HOME}/etc/primus.cfg", "secrets": f"{HOME}/etc/.secrets.cfg"}
    assert current_paths(look, want()) == {
        "config_path": f"{HOME}/etc/primus.cfg",
        "secrets_path": f"{HOME}/etc/.secrets.cfg",
    }
    assert changes["paths"]["config"] == f"{ETC}/primus.cfg"
    assert (changes["config"]["change"], changes["permissions"], changes["any"]) == (False, [], True)
    assert checked["unsimulated"] == [f"{name} would be moved from {HOME}/etc to {ETC}." for name in changes["move"]]


def test_what_is_in_both_places_is_not_moved():
    files = {**IN_HOME, f"{ETC}/.secrets.cfg": IN_ETC[".secrets.cfg"]}
    changes = plan_client(seen(CHECK, files), want())
    assert changes["move"] == [".secrets.cfg.ledger", "primus.cfg"]
    assert changes["now"] == {"config": f"{HOME}/etc/primus.cfg", "secrets": f"{ETC}/.secrets.cfg"}


@pytest.mark.parametrize(
    ("options", "templates"),
    [
        ({}, [".secrets.cfg"]),
        (OTHERS, [".secrets.cfg", "primus.cfg"]),
    ],
)
def test_a_new_provider_has_templates(options, templates):
    changes = plan_client(seen(NOT_INSTALLED, TEMPLATES), want(package="", **options))
    assert (changes["templates"], changes["move"]) == (templates, [])
    changes = plan_client(seen(files=TEMPLATES), {**want(package="", **options), "installed_before": True})
    assert (changes["templates"], changes["move"]) == (templates, [])


@pytest.mark.parametrize("orphans", [[], None])
def test_what_no_listing_shows_stays_in_primus_cfg_and_is_left_to_the_module(orphans):
    """ppin failed, so an absent partition that primus.cfg names may have a secret."""
    look = {**BROKEN, "orphans": orphans}
    changes = plan_client(seen(look), want(partitions=[P1, absent(P3)], service_users=[SVC1]))
    assert named_in(changes["config"]["content"]) == ["P1", "P3", "svc1"]
    assert changes["credentials"]["remove"] == ["P3"]
    assert named_in(changes["final_config"]["content"]) == ["P1", "svc1"]
    check = plan_client(seen({**look, **CHECK}), want(partitions=[P1, absent(P3)], service_users=[SVC1]))
    assert named_in(check["config"]["content"]) == ["P1", "P3", "svc1"] and check["credentials"]["remove"] == []


def test_a_client_without_secrets_has_none_to_remove():
    look = {**BROKEN, "secrets": {**LOOK["secrets"], "exists": False}}
    assert plan_client(seen(look), want(partitions=[P1, absent(P3)]))["credentials"]["remove"] == []


def test_what_puts_files_into_the_directory_creates_it():
    for mode in ({}, CHECK):  # so that check mode tells what the run does
        look = seen({**NOT_INSTALLED, **mode}, {**TEMPLATES, ETC: ABSENT})
        assert plan_client(look, want(package=""))["directory"] is False
        assert plan_client(seen(mode, {**IN_HOME, ETC: ABSENT}), want())["directory"] is False


def test_a_bare_host_gets_everything():
    changes = plan_client(seen(BARE), want())
    assert bool(changes["install"]) and changes["new_group"] and changes["directory"] and changes["config"]["change"]
    assert (changes["move"], changes["templates"], changes["permissions"]) == ([], [], [])
    assert [file["path"] for file in changes["files"]] == [PROFILE]
    assert changes["credentials"] == {
        "any": True,
        "set": ["svc1"],
        "fetch": ["P1", "P2"],
        "remove": [],
        "unset": [],
        "unsimulated": [],
        "missing": {"service_users": ["svc1"], "partitions": ["P1", "P2"]},
    }
    assert changes["unsimulated"] == []


def test_check_mode_tells_of_a_bare_host_what_it_cannot_simulate():
    changes = plan_client(seen({**BARE, **CHECK}), want())
    assert changes["unsimulated"] == [
        "The provider 2.2.4 would be installed.",
        ".secrets.cfg would be put in place from the template of the provider.",
        "app would become a member of the group primus.",
    ]
    assert changes["credentials"]["unsimulated"] == [
        "The service proxy password of 'svc1' would be set.",
        "The permanent secret of 'P1' would be fetched.",
        "The permanent secret of 'P2' would be fetched.",
    ]
    assert (changes["credentials"]["set"], changes["credentials"]["fetch"]) == ([], [])
    others = plan_client(seen({**BARE, **CHECK}), want(**OTHERS))
    assert "primus.cfg would be put in place from the template of the provider." in others["unsimulated"]


# Credentials


TWO_USERS = {"partitions": [P1, behind(P2, "svc2")], "service_users": [SVC1, SVC2]}


@pytest.mark.parametrize(
    ("look", "options", "expected"),
    [
        ({}, {}, {}),
        ({}, {"partitions": [updated(P1), P2]}, {"fetch": ["P1"]}),
        ({}, {"state": "updated"}, {"fetch": ["P1", "P2"], "set": ["svc1"]}),
        ({}, {"service_users": [updated(SVC1)]}, {"set": ["svc1"]}),
        ({}, {"verify": "always"}, {"fetch": ["P1", "P2"]}),
        ({}, {"verify": "never"}, {}),
        ({"interrupted": True}, {}, {"set": ["svc1"], "fetch": ["P1", "P2"]}),
        ({}, {"partitions": [P1, P2, P3]}, {"fetch": ["P3"], "missing.partitions": ["P3"]}),
        ({"partitions": [secret("P1"), secret("P2", False)]}, {}, {"fetch": ["P2"], "missing.partitions": ["P2"]}),
        ({"service_users": [user("svc1", False)]}, {}, {"set": ["svc1"], "missing.service_users": ["svc1"]}),
        ({}, TWO_USERS, {"set": ["svc2"], "missing.service_users": ["svc2"]}),
        # A service user that is in front of no partition is not in primus.cfg, so it can have no password.
        ({}, {"service_users": [SVC1, SVC2]}, {}),
        ({}, {"service_users": [SVC1, updated(SVC2)]}, {}),
        ({}, {"partitions": [behind(P1, {"h": "svc1"}), P2]}, {}),
        # What primus.cfg will name is there.
        ({"orphans": ["P3"]}, {"partitions": [P1, P2, P3]}, {}),
        ({"orphans": ["P3"]}, {"partitions": [P1, P2, updated(P3)]}, {"fetch": ["P3"]}),
        # Of these it is not certain that they are missing.
        ({"orphans": None}, {"partitions": [P1, P2, P3]}, {"fetch": ["P3"]}),
        ({"partitions": [], "service_users": [], **error()}, {}, {"set": ["svc1"], "fetch": ["P1", "P2"]}),
        ({}, {"partitions": [P1, absent(P2)]}, {"remove": ["P2"]}),
        ({}, {"partitions": [P1, P2, absent(P3)]}, {}),
        ({"orphans": ["P3"]}, {"partitions": [P1, P2, absent(P3)]}, {"remove": ["P3"]}),
        (
            {},
            {"partitions": [absent(P1), P2], "service_users": [absent(SVC1)]},
            {"remove": ["P1"], "unset": ["svc1"]},
        ),
        ({}, {"partitions": [absent(P1), P2], "service_users": [absent(SVC1)], "scope": ["provider"]}, {}),
        (
            {"service_users": [user("svc1", False)]},
            {"partitions": [absent(P1), P2], "service_users": [absent(SVC1)]},
            {"remove": ["P1"]},
        ),
    ],
)
def test_credentials_that_are_not_as_asked(look, options, expected):
    found = flat(plan_client(seen(look), want(**options)))
    names = {
        key.replace("credentials.", ""): value
        for key, value in found.items()
        if key.startswith(("credentials.", "missing.")) and key != "credentials.any" and value
    }
    assert names == expected


@pytest.mark.parametrize(
    ("look", "options", "set_users", "fetch", "unsimulated"),
    [
        ({}, {}, [], [], []),
        ({}, {"partitions": [updated(P1), P2]}, [], ["P1"], []),
        ({}, {"partitions": [P1, P2, P3]}, [], [], ["The permanent secret of 'P3' would be fetched."]),
        ({"orphans": ["P3"]}, {"partitions": [P1, P2, P3]}, [], [], []),
        (
            {"service_users": [user("svc1", False)]},
            {"partitions": [updated(P1), P2]},
            ["svc1"],
            [],
            ["The permanent secret of 'P1' would be fetched."],
        ),
        ({}, TWO_USERS, [], [], ["The service proxy password of 'svc2' would be set."]),
        (
            {},
            {**TWO_USERS, "partitions": [P1, updated(behind(P2, "svc2"))]},
            [],
            [],
            [
                "The service proxy password of 'svc2' would be set.",
                "The permanent secret of 'P2' would be fetched.",
            ],
        ),
        (
            {"service_users": [user("svc1"), user("svc2", False)]},
            {**TWO_USERS, "partitions": [P1, updated(behind(P2, "svc2"))]},
            ["svc2"],
            [],
            ["The permanent secret of 'P2' would be fetched."],
        ),
    ],
)
def test_check_mode_asks_the_modules_what_they_can_tell(look, options, set_users, fetch, unsimulated):
    changes = plan_client(seen({**look, **CHECK}), want(**options))
    names = changes["credentials"]
    assert (names["set"], names["fetch"], names["unsimulated"]) == (set_users, fetch, unsimulated)


@pytest.mark.parametrize(
    ("look", "options", "logins"),
    [
        ({}, {}, []),
        ({}, {"pkcs11_check": True}, [("P1", 0), ("P2", 1)]),
        (CHECK, {"pkcs11_check": True}, []),
        ({}, {"pkcs11_check": True, "scope": ["provider"]}, []),
        ({}, {"pkcs11_check": "yes", "partitions": [{**P1, "slot_id": ["7", 8]}, absent(P2)]}, [("P1", 7)]),
        ({}, {"pkcs11_check": True, "partitions": [P1, without(P2, "pkcs11_password")]}, [("P1", 0)]),
    ],
)
def test_logins_of_an_application(look, options, logins):
    changes = plan_client(seen(look), want(**options))
    assert [(login["user_name"], login["slot_id"]) for login in changes["pkcs11"]] == logins
    assert not logins or changes["any"]


# primus.cfg while credentials are removed


def named_in(content):
    return [name for name in ("P1", "P2", "P3", "svc1", "svc2", "svc3") if f'"{name}"' in content]


TWO = {
    "partitions": [secret("P1"), secret("P2", False)],
    "service_users": [user("svc1"), user("svc2", False)],
}
BROKEN = {**TWO, "partitions": [], **error("timeout")}
Q2 = behind(P2, "svc2")


@pytest.mark.parametrize(
    ("look", "partitions", "users", "before", "after"),
    [
        (TWO, [P1, Q2], None, ["P1", "P2", "svc1", "svc2"], None),
        (TWO, [absent(P1), Q2], None, ["P1", "P2", "svc1", "svc2"], ["P2", "svc2"]),
        (TWO, [P1, absent(Q2)], None, ["P1", "svc1"], None),
        (TWO, [P1, absent(P3)], None, ["P1", "svc1"], None),
        ({**TWO, "orphans": ["P3"]}, [P1, absent(P3)], None, ["P1", "svc1"], None),
        ({**TWO, "orphans": None}, [P1, absent(P3)], None, ["P1", "svc1"], None),
        (TWO, [P1, absent(behind(P3, "svc1"))], [SVC1], ["P1", "svc1"], None),
        (
            TWO,
            [Q2, absent(behind(P3, "svc1"))],
            [absent(SVC1), SVC2],
            ["P2", "P3", "svc1", "svc2"],
            ["P2", "svc2"],
        ),
        (TWO, [P1, absent(behind(P3, "svc2"))], [SVC1, absent(SVC2)], ["P1", "svc1"], None),
        (
            {},
            [absent(P1), P2],
            [absent(SVC1)],
            ["P1", "P2", "svc1"],
            ["P2"],
        ),
    ],
)
@pytest.mark.parametrize("mode", [{}, CHECK])
def test_a_partition_stays_in_primus_cfg_until_its_credentials_are_gone(look, partitions, users, before, after, mode):
    changes = plan_client(seen({**look, **mode}), want(partitions=partitions, service_users=users))
    assert named_in(changes["config"]["content"]) == before
    final = changes["final_config"]
    assert (final and named_in(final["content"])) == after
    if final:
        assert final["removed"] == changes["credentials"]["remove"] + changes["credentials"]["unset"]
    alone = plan_client(seen({**look, **mode}), want(partitions=partitions, service_users=users, scope=["provider"]))
    assert alone["config"]["content"] == changes["config"]["content"] and alone["final_config"] is None


@pytest.mark.parametrize(
    "partition", [behind(P1, "svc2"), behind(P1, {"hsm0": "svc2"}), absent(without(P1, "proxy_user"))]
)
def test_a_service_proxy_password_that_would_stay_behind_is_refused(partition):
    wanted = want(partitions=[partition], service_users=[absent(SVC1), SVC2])
    (violation,) = stranded_service_users(seen(), wanted)
    assert violation.where == "service_users[0] ('svc1')"
    assert violation.what.startswith("is absent, and primus.cfg would no longer name it")
    assert stranded_service_users(seen({"service_users": [user("svc1", False)]}), wanted) == []
    assert stranded_service_users(seen(), want_credentials(partition, users=[absent(SVC1)])) == []


def test_a_service_user_that_goes_with_its_partition_is_not_stranded():
    assert stranded_service_users(seen(), want(partitions=[absent(P1), P2], service_users=[absent(SVC1)])) == []


# Credentials alone


@pytest.mark.parametrize(
    ("look", "partitions", "users", "expected"),
    [
        ({}, [P1, P2], None, {}),
        ({}, [], [SVC1], {}),
        ({}, [], [updated(SVC1)], {"set": ["svc1"]}),
        ({"service_users": [user("svc1", False)]}, [], [SVC1], {"set": ["svc1"]}),
        ({}, [], [SVC2], {"set": ["svc2"]}),
        ({}, [without(P1, "slot_id")], [SVC1, SVC2], {}),
        ({}, [P2], [SVC2], {"set": ["svc2"]}),
        ({"service_users": [user("svc2", False)]}, [P1], [SVC2], {"set": ["svc2"]}),
        ({}, [updated(P1)], None, {"fetch": ["P1"]}),
        ({}, [{"user_name": "P1", "state": "absent"}], None, {"remove": ["P1"]}),
        ({"orphans": ["P3"]}, [{"user_name": "P3", "state": "absent"}], None, {"remove": ["P3"]}),
        ({}, [], [absent(SVC1), absent(SVC2)], {"unset": ["svc1"]}),
    ],
)
def test_credentials_alone(look, partitions, users, expected):
    changes = plan_client(seen(look), want_credentials(*partitions, users=users))
    names = {key: value for key, value in changes["credentials"].items() if key not in ("any", "missing") and value}
    assert names == expected
    assert changes["any"] is bool(expected)
    assert (changes["configure"], changes["install"], changes["config"]["content"]) == (False, None, "")


def test_where_things_are_that_credentials_alone_go_by():
    look = {
        "home": "/opt/p",
        "config": {"path": "/opt/p/etc/primus.cfg"},
        "secrets": {"path": "/srv/s", "exists": True},
    }
    changes = plan_client(seen(look), want_credentials(P1))
    assert changes["now"] == {"config": "/opt/p/etc/primus.cfg", "secrets": "/srv/s"}
    assert changes["paths"] == {
        "home": "/opt/p",
        "etc": "/opt/p/etc",
        "config": "/opt/p/etc/primus.cfg",
        "secrets": "/srv/s",
        "library": "/opt/p/lib/libprimusP11.so",
    }


@pytest.mark.parametrize(
    ("look", "partition", "verify", "fetch", "unsimulated"),
    [
        ({}, P1, "always", ["P2"], []),
        ({}, P1, "changed", [], []),
        ({}, updated(P1), "always", ["P1", "P2"], []),
        (NO_SECRETS, P1, "changed", [], ["The permanent secret of 'P1' would be fetched."]),
        (
            {"partitions": [secret("P1", False, ["svc1"]), secret("P2")]},
            P1,
            "changed",
            ["P1"],
            [],
        ),
    ],
)
def test_check_mode_does_not_log_in_where_the_service_proxy_password_would_change(
    look, partition, verify, fetch, unsimulated
):
    announced = want_credentials(partition, P2, verify=verify, changing_service_users=["svc1"])
    together = want(partitions=[partition, P2], verify=verify, service_users=[updated(SVC1)])
    for wanted in (announced, together):
        seen_now = seen({**look, **CHECK})
        changes = plan_client(seen_now, wanted)
        assert preflight_errors(seen_now, wanted, changes) == []
        assert changes["credentials"]["fetch"] == fetch
        assert [each for each in changes["credentials"]["unsimulated"] if "permanent" in each] == unsimulated
    assert preflight_errors(seen(look), announced, plan_client(seen(look), announced)) == (
        [NO_PROXY] if look == NO_SECRETS else []
    )


# What is known to fail


BARE_P2 = without(P2, "setup_password", "pkcs11_password")
LACKS = "The permanent secret of '{}' is MISSING, and what is needed to fetch it is not given: {}."
NO_PROXY = (
    "The service proxy password of 'svc1', the service user of 'P1', is MISSING: set it first, as one of the service "
    "users."
)


@pytest.mark.parametrize(
    ("look", "partitions", "users", "expected"),
    [
        ({}, [P1, P2], None, []),
        ({}, [BARE_P2], None, []),
        (error(), [P1], None, ["It fails. Do this."]),
        (error(), [absent(P1)], None, ["It fails. Do this."]),
        ({**error(), "secrets": {**LOOK["secrets"], "exists": False}}, [absent(P1)], None, []),
        ({**error(), **CHECK}, [P1], None, ["It fails. Do this."]),
        ({}, [P3], None, ["'P3' is not in primus.cfg, which has P1, P2."]),
        ({"orphans": ["P3"]}, [P3], None, ["'P3' is not in primus.cfg, which has P1, P2."]),
        ({"partitions": []}, [P3], None, ["'P3' is not in primus.cfg, which has none."]),
        ({}, [absent(P3)], None, []),
        ({"service_users": [user("svc1", False)]}, [P1], None, [NO_PROXY]),
        ({"service_users": [user("svc1", False)]}, [P1], [SVC1], []),
        ({"service_users": [user("svc1", False)]}, [P2], None, []),
        ({"service_users": [user("svc1", False)], **CHECK}, [P1], [SVC1], []),
        ({"service_users": [user("svc1", False)], **CHECK}, [P1], None, [NO_PROXY]),
        (
            {"partitions": [secret("P2", False)]},
            [BARE_P2],
            None,
            [LACKS.format("P2", "setup_password and pkcs11_password")],
        ),
        (
            {"partitions": [secret("P2", False)]},
            [{**BARE_P2, "pkcs11_password": "pin"}],
            None,
            [LACKS.format("P2", "setup_password")],
        ),
        ({"partitions": [secret("P2", False)]}, [absent(BARE_P2)], None, []),
    ],
)
def test_what_credentials_alone_cannot_do(look, partitions, users, expected):
    wanted = want_credentials(*partitions, users=users)
    assert preflight_errors(seen(look), wanted, plan_client(seen(look), wanted)) == expected


@pytest.mark.parametrize(
    ("look", "files", "options", "expected"),
    [
        ({}, {}, {}, []),
        (BARE, {}, {}, []),
        ({**BARE, **CHECK}, {}, {}, []),
        (error("permission"), {}, {}, ["It fails. Do this."]),
        (error("permission"), {}, {"scope": ["provider"]}, []),
        (error("permission"), etc("primus.cfg", "0640", "other"), {}, []),
        (error("permission"), {}, OTHERS, []),
        ({}, {}, {"partitions": [P1, P2, P3]}, []),
        (
            {},
            {},
            {"partitions": [P1, P2, without(P3, "setup_password")]},
            [LACKS.format("P3", "setup_password")],
        ),
        ({"orphans": ["P3"]}, {}, {"partitions": [P1, P2, without(P3, "setup_password")]}, []),
        ({"orphans": None}, {}, {"partitions": [P1, P2, without(P3, "setup_password")]}, []),
        (
            BARE,
            {},
            {"partitions": [P1, BARE_P2]},
            [LACKS.format("P2", "setup_password and pkcs11_password")],
        ),
        # A client whose provider is gone may have its secret.
        (NOT_INSTALLED, {}, {"partitions": [P1, BARE_P2]}, []),
        ({"service_users": [user("svc1", False)]}, {}, {"service_users": None}, [NO_PROXY]),
    ],
)
def test_what_is_known_to_fail_before_the_provider_is_touched(look, files, options, expected):
    wanted = want(**options)
    assert preflight_errors(seen(look, files), wanted, plan_client(seen(look, files), wanted)) == expected


# Variables


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"allow_downgrade": "maybe"}, "primus_client_allow_downgrade is not a boolean."),
        ({"verify": "alway"}, "primus_client_verify is none of changed, always, never."),
        ({"version": 2.2}, "primus_client_version is a number; put it in quotes, or use | string."),
        ({"owner": True}, "primus_client_owner is a boolean; put it in quotes, or use | string."),
        ({"owner": 0.5}, "primus_client_owner is a number; put it in quotes, or use | string."),
        ({"group": -1}, "primus_client_group is neither a name nor a number of a user or group."),
        ({"group": ""}, "primus_client_group is empty."),
        ({"timeout": 0}, "primus_client_timeout is 0, which is not in 1 to 2147483647."),
        (
            {"home": "usr/local"},
            "primus_client_home is not an absolute path of letters, digits and ._+-/ without a / at its end.",
        ),
        (
            {"etc": "/etc/primus/"},
            "primus_client_etc is not an absolute path of letters, digits and ._+-/ without a / at its end.",
        ),
        ({"etc": HOME + "/etc"}, "primus_client_etc is in primus_client_home, where a package replaces the secrets."),
        ({"group_members": "app"}, "primus_client_group_members is not a list."),
        ({"group_members": ["a", None]}, "primus_client_group_members[1] is not a string."),
        ({"package": ["x"]}, "primus_client_package is not a string."),
        ({"rsyslog_filter": "a\nb"}, "primus_client_rsyslog_filter has a line break in it."),
        ({"hsms": "h"}, "primus_client_hsms is not a list."),
        ({"log": []}, "primus_client_log is not a dictionary."),
        ({"service_users": "svc1"}, "primus_client_service_users is not a list."),
        ({"wait_delay": "long"}, "primus_client_wait_delay is not an integer."),
        (
            {"logrotate": True},
            "primus_client_logrotate has no log to rotate, as primus_client_log has no file.",
        ),
        (
            {"logrotate": True, "rsyslog": True},
            "primus_client_logrotate cannot rotate /tmp/primus.log safely, which the provider writes without a file in "
            "primus_client_log; set file to a path that its users may write, or write_log_file to false (provider "
            "2.2.2 and later).",
        ),
        ({"scope": ["everything"]}, "primus_client_scope[0] is none of provider, credentials."),
        ({"state": "gone"}, "primus_client_state is none of present, updated, absent."),
        (
            {"partitions": [{**P1, "pkcs11_password": 1234}]},
            "primus_client_partitions[0].pkcs11_password ('P1') is a number; put it in quotes, or use | string.",
        ),
    ],
)
def test_what_is_wrong_with_the_variables(options, sentence):
    _wanted, violations = read_variables({**OPTIONS, **options}, "primus_client_", lambda name: name)
    assert sentence in [str(violation) for violation in violations]


def test_all_that_is_wrong_is_in_one_list():
    options = {
        "version": 2.2,
        "home": "x",
        "partitions": [{"user_name": "P"}],
        "log": {"typo": 1},
        "package": "none.deb",
    }
    _wanted, violations = read_variables({**OPTIONS, **options}, "", lambda name: None)
    assert {violation.where.partition(" ")[0] for violation in violations} == {
        "version",
        "home",
        "partitions[0].slot_id",
        "log",
        "package",
    }


@pytest.mark.parametrize("options", [{"logrotate": True, "log": LOG}, {"logrotate": True, "rsyslog": True, **OTHERS}])
def test_logs_that_can_be_rotated(options):
    assert LOGROTATE in [file["path"] for file in want(**options)["files"]]


def test_null_means_the_default():
    nothing = dict.fromkeys(OPTIONS)
    assert want(**nothing, owner=None, timeout=None, log=None) == want(
        package="", hsms=[], partitions=[], service_users=None, group_members=[]
    )


def test_what_is_wanted_has_no_password_in_it():
    wanted = want()
    assert SETUP not in str(wanted) and "'pin'" not in str(wanted) and "'secret'" not in str(wanted)
    assert [each["setup_password"] for each in wanted["partitions"]] == [True, True]
    assert want_credentials(updated(P1), users=[SVC1], home="/opt/p", etc="/etc/p")["ppin"] == {
        "primus_home": "/opt/p",
        "config_path": "/etc/p/primus.cfg",
        "secrets_path": "/etc/p/.secrets.cfg",
        "executable": None,
        "timeout": 60,
    }
