# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles decide to change: a client that is as it should be, and every way in which it is not."""

import copy
import hashlib

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.changes import (
    NAMES,
    client_changes,
    provider_changes,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import render

HOME, ETC, PROFILE = "/usr/local/primus", "/etc/primus", "/etc/profile.d/primus.sh"
SETTINGS = {"hsms": [{"host": "h"}], "partitions": [{"user_name": "P2", "slot_id": 1}]}
CONTENT = render(SETTINGS)
TEXT = "PRIMUS_HOME=/usr/local/primus\n"
WANTED = {
    "package": "PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb",
    "version": "2.2.4",
    "allow_downgrade": False,
    "home": HOME,
    "etc": ETC,
    "owner": "root",
    "group": "primus",
    "settings": SETTINGS,
    "service_users": None,
    "removed": [],
    "members": ["app"],
    "around": [[PROFILE, TEXT]],
}
ABSENT = {"exists": False}


def there(mode, content=""):
    checksum = hashlib.sha256(content.encode()).hexdigest()
    return {"exists": True, "owner": "root", "group": "primus", "mode": mode, "checksum": checksum}


IN_ETC = {"primus.cfg": there("0640", CONTENT), ".secrets.cfg": there("0660"), ".secrets.cfg.ledger": there("0600")}
LOOK = {
    "installed": True,
    "version": "2.2.4",
    "error": None,
    "orphans": [],
    "partitions": [],
    "service_users": [],
    "group": {"name": "primus", "exists": True, "members": ["app", "other"]},
    "files": {
        HOME: there("0755"),
        ETC: there("0750"),
        PROFILE: there("0644", TEXT),
        **{f"{HOME}/etc/{name}": ABSENT for name in NAMES},
        **{f"{ETC}/{name}": IN_ETC.get(name, ABSENT) for name in NAMES},
    },
}
NOTHING = {"install": False, "folder": False, "move": [], "templates": [], "config": False, "secrets": False}
NOTHING.update(members=[], around=[], configure=False, any=False, untried=[])


def changes_of(look=(), files=(), wanted=()):
    seen = copy.deepcopy(LOOK)
    seen.update(look)
    seen["files"].update(files)
    return provider_changes(seen, {**WANTED, **dict(wanted)})


def difference(changes):
    """What is not as on a client that is right, but for what follows from it."""
    return {key: value for key, value in changes.items() if key in NOTHING and value != NOTHING[key]}


def test_a_client_that_is_right_needs_nothing():
    assert difference(changes_of()) == {}


INSTALL = {"install": True, "any": True, "untried": ["The provider 2.2.4 would be installed"]}
INSTALL_2241 = {**INSTALL, "untried": ["The provider 2.2.4.1 would be installed"]}
CONFIGURE = {"configure": True, "any": True}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"look": {"version": "2.2.3"}}, INSTALL),
        ({"look": {"version": "2.2.10"}}, {}),
        ({"look": {"version": "2.2.10"}, "wanted": {"allow_downgrade": True}}, INSTALL),
        ({"look": {"version": None}}, {}),
        ({"look": {"version": None, "error": {"class": "timeout", "code": None}}}, {}),
        ({"look": {"version": None, "error": {"class": "config", "code": "0x80005003"}}}, {}),
        ({"look": {"version": None, "error": {"class": "config", "code": None}}}, INSTALL),
        ({"look": {"version": None, "error": {"class": "unknown", "code": None}}}, INSTALL),
        ({"look": {"version": "2.2.4-beta"}}, INSTALL),
        ({"look": {"version": "2.2.4-beta"}, "wanted": {"version": "2.2.4.1"}}, INSTALL_2241),
        ({"look": {"installed": False}, "wanted": {"package": ""}}, {}),
        ({"files": {ETC: there("0755")}}, {"folder": True, "any": True}),
        ({"files": {ETC: {**there("0750"), "owner": "app"}}}, {"folder": True, "any": True}),
        ({"files": {f"{ETC}/primus.cfg": there("0640", "other")}}, {**CONFIGURE, "config": True}),
        ({"files": {f"{ETC}/primus.cfg": there("0644", CONTENT)}}, {**CONFIGURE, "config": True}),
        ({"files": {f"{ETC}/primus.cfg": ABSENT}}, {**CONFIGURE, "config": True}),
        ({"files": {f"{ETC}/primus.cfg": there("0644", "other")}, "wanted": {"settings": {}}}, {}),
        ({"files": {f"{ETC}/.secrets.cfg": there("0644")}}, {**CONFIGURE, "secrets": True}),
        ({"files": {f"{ETC}/.secrets.cfg": ABSENT}}, {}),
        ({"wanted": {"members": ["app", "new"]}}, {**CONFIGURE, "members": ["new"]}),
        ({"files": {PROFILE: there("0644", "other")}}, {**CONFIGURE, "around": [PROFILE]}),
        ({"files": {PROFILE: ABSENT}}, {**CONFIGURE, "around": [PROFILE]}),
    ],
)
def test_what_is_not_right_is_changed_alone(case, expected):
    assert difference(changes_of(**case)) == expected


def test_a_configuration_under_primus_home_moves_with_all_that_belongs_to_it():
    files = {f"{HOME}/etc/{name}": IN_ETC.get(name, ABSENT) for name in NAMES}
    files.update({f"{ETC}/{name}": ABSENT for name in NAMES})
    changes = changes_of(files=files)
    assert changes["move"] == [".secrets.cfg.ledger", ".secrets.cfg", "primus.cfg"]
    assert changes["where"]["primus.cfg"] == f"{HOME}/etc/primus.cfg"
    assert changes["config"] is False
    assert changes["any"] is True
    assert changes["untried"][1] == f".secrets.cfg would be moved from {HOME}/etc to {ETC}"


def test_a_bare_host_gets_everything():
    look = {"installed": False, "version": None, "group": {"name": "primus", "exists": False, "members": []}}
    changes = changes_of(look, files=dict.fromkeys(LOOK["files"], ABSENT), wanted={"settings": {}})
    assert (changes["install"], changes["folder"], changes["config"], changes["move"]) == (True, True, False, [])
    assert changes["untried"] == [
        "The provider 2.2.4 would be installed",
        ".secrets.cfg would be put in place from the template of the provider",
        "primus.cfg would be put in place from the template of the provider",
        "app would become a member of the group primus",
    ]


def test_a_new_provider_has_templates():
    files = {f"{HOME}/etc/.secrets.cfg": there("0660"), f"{HOME}/etc/primus.cfg": there("0640")}
    files.update({f"{ETC}/{name}": ABSENT for name in NAMES})
    changes = changes_of({"installed": False}, files, {"package": "", "settings": {}})
    assert (changes["templates"], changes["move"]) == ([".secrets.cfg", "primus.cfg"], [])
    assert changes_of({"installed": False}, files, {"package": ""})["templates"] == [".secrets.cfg"]


CLIENT = {
    "interrupted": False,
    "partitions": [{"user_name": "P1", "configured": True}, {"user_name": "P2", "configured": False}],
    "service_users": [{"name": "svc1", "configured": True}, {"name": "svc2", "configured": False}],
}
P1 = {"user_name": "P1", "proxy_user": "svc1"}
P2 = {"user_name": "P2", "proxy_user": "svc2"}
P3 = {"user_name": "P3"}
SVC1, SVC2, SVC3 = ({"name": name} for name in ("svc1", "svc2", "svc3"))
ALL_USERS = [SVC1, SVC2, SVC3]


def absent(item):
    return {**item, "state": "absent"}


def updated(item):
    return {**item, "state": "updated"}


@pytest.mark.parametrize(
    ("look", "partitions", "users", "verify", "expected"),
    [
        ({}, [P1], [SVC1], "changed", {}),
        ({}, [], [SVC2], "changed", {}),
        ({}, [P1, P2], ALL_USERS, "changed", {"set": ["svc2"], "fetch": ["P2"], "untried_partitions": ["P2"]}),
        ({}, [P3], [], "changed", {"fetch": ["P3"], "untried_partitions": ["P3"]}),
        ({}, [updated(P1)], [SVC1], "changed", {"fetch": ["P1"]}),
        ({}, [P1], [updated(SVC1)], "changed", {"set": ["svc1"]}),
        ({}, [P1], [SVC1], "always", {"fetch": ["P1"]}),
        ({"interrupted": True}, [P1], [SVC1], "changed", {"set": ["svc1"], "fetch": ["P1"]}),
        ({}, [absent(P1), absent(P2)], [absent(SVC1), absent(SVC2)], "never", {"remove": ["P1"], "unset": ["svc1"]}),
        ({}, [], [absent(SVC1)], "changed", {"unset": ["svc1"]}),
        ({}, [{**P1, "proxy_user": {"hsm1": "svc1", "hsm2": None}}], [SVC1], "changed", {}),
        (
            {},
            [updated({**P1, "proxy_user": {"hsm1": "svc1", "hsm2": "svc2"}})],
            ALL_USERS,
            "changed",
            {"set": ["svc2"], "fetch": ["P1"], "untried_partitions": ["P1"]},
        ),
        (
            {},
            [absent({**P1, "proxy_user": {"hsm1": "svc2", "hsm2": "svc1"}})],
            [absent(SVC1)],
            "never",
            {"remove": ["P1"], "unset": ["svc1"]},
        ),
        (
            {},
            [{**P3, "proxy_user": "svc3"}],
            ALL_USERS,
            "changed",
            {"set": ["svc3"], "fetch": ["P3"], "untried_users": ["svc3"], "untried_partitions": ["P3"]},
        ),
    ],
)
def test_credentials_that_are_not_as_asked(look, partitions, users, verify, expected):
    changes = client_changes({**CLIENT, **look}, partitions, users, verify)
    assert changes.pop("any") is bool(expected)
    assert {key: value for key, value in changes.items() if value} == expected


def test_verify_is_refused_where_nothing_is_to_be_changed_too():
    with pytest.raises(ValueError, match=r"^verify is none of changed, always, never$"):
        client_changes(CLIENT, [P1], [SVC1], "alway")


def test_the_secret_of_an_orphan_is_removed():
    changes = client_changes({**CLIENT, "orphans": ["P3"]}, [absent(P3), absent({"user_name": "P4"})], [])
    assert changes["remove"] == ["P3"]


def named_in(look, partitions, users=None):
    """The partitions and service users in the primus.cfg that the role would put in place."""
    settings = {"hsms": [{"host": "h"}], "partitions": [{"slot_id": i, **each} for i, each in enumerate(partitions)]}
    content = changes_of({**CLIENT, **look}, wanted={"settings": settings, "service_users": users})["content"]
    return [name for name in ("P1", "P2", "P3", "svc1", "svc2", "svc3") if f'"{name}"' in content]


BROKEN = {"partitions": [], "error": {"class": "timeout", "code": None}}


@pytest.mark.parametrize(
    ("look", "partitions", "users", "expected"),
    [
        ({}, [P1, P2], None, ["P1", "P2", "svc1", "svc2"]),
        ({}, [absent(P1), P2], None, ["P1", "P2", "svc1", "svc2"]),
        ({}, [P1, absent(P2)], None, ["P1", "svc1"]),
        ({}, [P1, absent(P3)], None, ["P1", "svc1"]),
        ({"orphans": ["P3"]}, [P1, absent(P3)], None, ["P1", "svc1"]),
        ({"orphans": None}, [P1, absent(P3)], None, ["P1", "svc1"]),
        ({**BROKEN, "orphans": []}, [P1, absent(P3)], None, ["P1", "svc1"]),
        ({**BROKEN, "orphans": None}, [P1, absent(P3)], None, ["P1", "P3", "svc1"]),
        ({}, [P1, absent({"user_name": "P3", "proxy_user": "svc1"})], [SVC1], ["P1", "svc1"]),
        ({}, [P2, absent({"user_name": "P3", "proxy_user": "svc1"})], [absent(SVC1)], ["P2", "P3", "svc1", "svc2"]),
        ({}, [P1, absent({"user_name": "P3", "proxy_user": "svc2"})], [absent(SVC2)], ["P1", "svc1"]),
    ],
)
def test_a_partition_stays_in_primus_cfg_until_its_credentials_are_gone(look, partitions, users, expected):
    assert named_in(look, partitions, users) == expected


@pytest.mark.parametrize(
    "partition", [{**P1, "proxy_user": "svc2"}, {**P1, "proxy_user": {"hsm0": "svc2"}}, absent({"user_name": "P1"})]
)
def test_a_service_proxy_password_that_would_stay_behind_is_refused(partition):
    with pytest.raises(ValueError, match=r"^service_users: 'svc1' is absent, and primus\.cfg would no longer name it"):
        named_in({}, [partition], [absent(SVC1), SVC2])
