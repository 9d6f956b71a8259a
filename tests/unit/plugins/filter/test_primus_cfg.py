# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter primus_cfg, as Ansible calls it."""

from __future__ import annotations

import copy
import re

import libconf
import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hsmops.primus.plugins.filter.primus_cfg import FilterModule as Cfg
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import (
    Slot,
    invalid_name_reason,
    read_slots,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import check_client, quote
from hypothesis import given
from hypothesis import strategies as st

primus_cfg = Cfg().filters()["primus_cfg"]

SETTINGS = {
    "hsms": [
        {"host": "hsm-a.example.com", "priority": 0},
        {"host": "192.0.2.7", "port": 2411, "priority": 1},
    ],
    "partitions": [
        {
            "user_name": "PART1",
            "slot_id": 0,
            "client_id": "web1",
            "setup_password": "setUP-00000-11111-22222-33333",
            "pkcs11_password": "PIN",
        },
        {"user_name": "PART2", "slot_id": [1, 2], "proxy_user": "svc", "hsms": ["192.0.2.7"]},
        {"user_name": "OLD", "slot_id": 3, "state": "absent"},
    ],
    "log": {"file": "/var/log/primus.log", "write_syslog": True, "trace_mask": 4, "trace_level": 3},
    "wait_delay": 100,
    "connect_on_init": False,
}
USERS = [{"name": "svc", "password": "PROXY"}]

TEXT = """\
# Managed by Ansible (hsmops.primus): changes made here are lost.
version = "1.0";

primus : {
  wait_delay = 100;
  connect_on_init = false;
  hsms : {
    hsm0 : {
      host = "hsm-a.example.com";
      port = "2310";
      priority = 0;
      slots : {
        slot0 : {
          client_id = "web1";
          user_name = "PART1";
          id = 0;
        };
      };
    };
    hsm1 : {
      host = "192.0.2.7";
      port = "2411";
      priority = 1;
      slots : {
        slot0 : {
          client_id = "web1";
          user_name = "PART1";
          id = 0;
        };
        slot1 : {
          user_name = "PART2";
          proxy_user = "svc";
          id = 1;
        };
        slot2 : {
          user_name = "PART2";
          proxy_user = "svc";
          id = 2;
        };
      };
    };
  };
  log : {
    file = "/var/log/primus.log";
    write_syslog = true;
    trace_mask = 0x04;
    trace_level = 3;
  };
};
"""


def changed(path, value):
    """SETTINGS with another value at a path; the value may be one that is to be removed."""
    settings = copy.deepcopy(SETTINGS)
    place = settings
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return settings


def test_the_whole_file():
    assert primus_cfg(SETTINGS) == TEXT


def test_the_order_of_the_data_does_not_change_the_file():
    turned = {key: SETTINGS[key] for key in reversed(SETTINGS)}
    turned["partitions"] = [{key: part[key] for key in reversed(part)} for part in SETTINGS["partitions"]]
    turned["log"] = {key: SETTINGS["log"][key] for key in reversed(SETTINGS["log"])}
    assert primus_cfg(turned) == TEXT


def test_numbers_and_booleans_may_come_from_templates_as_strings():
    settings = changed(["partitions", 0, "slot_id"], "0")
    settings["wait_delay"] = "100"
    settings["connect_on_init"] = "no"
    settings["log"]["trace_mask"] = "0x04"
    assert check_client(settings).violations == []
    assert primus_cfg(settings) == TEXT


def test_null_is_as_if_left_out():
    settings = changed(["wait_max_tries"], None)
    settings["partitions"][0]["hsms"] = None
    settings["partitions"][0]["proxy_user"] = None
    assert check_client(settings, USERS).violations == []
    assert primus_cfg(settings) == TEXT


def test_partitions_that_are_absent_stay_listed_on_request():
    assert {slot.user_name for slot in read_slots(primus_cfg(SETTINGS))} == {"PART1", "PART2"}
    slots = read_slots(primus_cfg(SETTINGS, include_absent=True))
    assert [Slot(*slot[:4]) for slot in slots if slot.user_name == "OLD"] == [
        Slot("hsm0", "OLD", 3, None),
        Slot("hsm1", "OLD", 3, None),
    ]


@pytest.mark.parametrize("slot_id", [0, [1, 0], None])
def test_an_absent_partition_never_shares_a_slot_id_with_another(slot_id):
    settings = changed(["partitions", 2, "slot_id"], slot_id)
    assert check_client(settings).violations == []
    slots = read_slots(primus_cfg(settings, include_absent=True))
    assert {slot.slot_id for slot in slots if slot.user_name == "OLD"} == {3}


def test_when_all_partitions_are_absent_the_hsms_stay_without_slots():
    settings = {"hsms": SETTINGS["hsms"], "partitions": [{"user_name": "PART1", "state": "absent"}]}
    assert check_client(settings).violations == []
    hsms = libconf.loads(primus_cfg(settings))["primus"]["hsms"]
    assert [(hsm["host"], dict(hsm["slots"])) for hsm in hsms.values()] == [
        ("hsm-a.example.com", {}),
        ("192.0.2.7", {}),
    ]


def test_a_host_name_is_preferred_to_the_key_of_another_hsm():
    settings = {
        "hsms": [{"host": "hsm1"}, {"host": "hsm2"}, {"host": "hsm3"}],
        "partitions": [
            {"user_name": "A", "slot_id": 0, "hsms": ["hsm1"]},
            {"user_name": "B", "slot_id": 1, "hsms": ["hsm2", "hsm3"]},
            {"user_name": "C", "slot_id": 2, "hsms": ["hsm0"]},
        ],
    }
    slots = read_slots(primus_cfg(settings))
    assert [(slot.user_name, slot.hsm) for slot in slots] == [
        ("A", "hsm0"),
        ("C", "hsm0"),
        ("B", "hsm1"),
        ("B", "hsm2"),
    ]


def test_settings_by_hsm_as_in_the_vendors_example_of_cloudhsm():
    settings = {
        "hsms": [
            {"host": "own.example.org", "key": "hsm3"},
            {"host": "cloud.example.org"},
            {"host": "::1", "port": 99},
        ],
        "partitions": [
            {
                "user_name": "P",
                "slot_id": "5",
                "client_id": {"own.example.org": "web at home", "hsm1": "web away", "::1:99": None},
                "proxy_user": {"cloud.example.org:2310": "svc"},
            },
            {
                "user_name": "Q",
                "slot_id": 6,
                "client_id": "web",
                "hsms": ["hsm1", "::1"],
                "proxy_user": {"hsm2": "svc"},
            },
        ],
    }
    text = primus_cfg(settings)
    hsms = libconf.loads(text)["primus"]["hsms"]
    assert {key: [dict(slot) for slot in hsm["slots"].values()] for key, hsm in hsms.items()} == {
        "hsm3": [{"client_id": "web at home", "user_name": "P", "id": 5}],
        "hsm1": [
            {"client_id": "web away", "user_name": "P", "proxy_user": "svc", "id": 5},
            {"client_id": "web", "user_name": "Q", "id": 6},
        ],
        "hsm2": [
            {"user_name": "P", "id": 5},
            {"client_id": "web", "user_name": "Q", "proxy_user": "svc", "id": 6},
        ],
    }
    assert "key" not in text


def test_no_password_in_the_file():
    text = primus_cfg(SETTINGS, include_absent=True)
    assert not [word for word in ("setUP", "PIN", "PROXY") if word in text]


def test_a_file_is_never_made_of_wrong_data():
    with pytest.raises(AnsibleFilterError, match=r"priority \('?a'?\) is 200.*slot_id \('P'\) is missing"):
        primus_cfg(
            {
                "hsms": [{"host": "a", "priority": 200}],
                "partitions": [{"user_name": "P"}],
            }
        )


# Characters that a file in UTF-8 and libconfig can hold.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40).filter(
    lambda name: not invalid_name_reason(name)
)


@given(TEXTS)
def test_any_string_survives_its_quoting(text):
    assert libconf.loads("a = %s;" % quote(text)) == {"a": text}


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ('say "x"', r'"say \"x\""'),
        ("C:\\new", r'"C:\\new"'),
        ("a\nb\x1f\x7f", r'"a\x0Ab\x1F\x7F"'),
        ("Zürich €", '"Zürich €"'),
    ],
)
def test_quoting(text, quoted):
    assert quote(text) == quoted


HOSTS = NAMES.filter(lambda name: not re.search(r"\s", name))


@st.composite
def settings_of_any_kind(draw):
    """Settings that are right, and the slots expected of them, with client_id for each."""
    number = draw(st.integers(1, 4))
    hosts = draw(st.lists(HOSTS, min_size=number, max_size=number, unique_by=str.lower))
    hosts = [draw(st.sampled_from(hosts)) for _host in hosts]  # some of them several times, with other ports
    ports = draw(st.lists(st.integers(1, 65535), min_size=number, max_size=number, unique=True))
    keys = draw(st.lists(st.integers(number, 999), min_size=number, max_size=number, unique=True))
    hsms = []
    for i in range(number):
        priority = draw(st.fixed_dictionaries({}, optional={"priority": st.integers(0, 127)}))
        key = draw(st.sampled_from([{}, {"key": None}, {"key": "hsm%d" % keys[i]}]))
        hsms.append({"host": hosts[i], "port": ports[i], **key, **priority})
    called = [hsm.get("key") or "hsm%d" % i for i, hsm in enumerate(hsms)]

    def names_of(place):
        """What means this HSM and no other."""
        hsm = hsms[place]
        names = [called[place], "%s:%d" % (hsm["host"], hsm["port"])]
        return [name for name in names if name not in hosts] + [hsm["host"]] * (hosts.count(hsm["host"]) == 1)

    def by_hsm(values, on):
        """A setting as it may be given, and its value by place."""
        if draw(st.booleans()):
            value = draw(st.none() | values)
            return value, dict.fromkeys(on, value)
        by_place = {place: draw(st.none() | values) for place in on if draw(st.booleans()) and names_of(place)}
        given = {draw(st.sampled_from(names_of(place))): value for place, value in by_place.items()}
        return given or None, by_place

    partitions, slots = [], [[] for _hsm in hsms]
    user_names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    slot_ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=8, max_size=8, unique=True))
    for user_name in user_names:
        own = [slot_ids.pop() for _id in range(draw(st.integers(1, 2)))]
        places = [place for place in range(number) if names_of(place) and draw(st.booleans())]
        on = places if partitions and places else list(range(number))  # one at least is on every HSM
        client_id, client_ids = by_hsm(TEXTS, on)
        proxy_user, proxy_users = by_hsm(NAMES, on)
        partition = {"user_name": user_name, "slot_id": own, "client_id": client_id, "proxy_user": proxy_user}
        if len(on) < number:
            partition["hsms"] = [draw(st.sampled_from(names_of(place))) for place in on]
        partitions.append(partition)
        for place in on:
            for slot_id in own:
                slot = Slot(called[place], user_name, slot_id, proxy_users.get(place))
                slots[place].append((slot, client_ids.get(place)))
    flags = {"write_log_file", "write_syslog", "trace_pid"}
    log = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "file": TEXTS,
                "trace_level": st.integers(0, 7),
                "trace_mask": st.integers(0, 7),
                **dict.fromkeys(flags, st.booleans()),
            },
        )
    )
    settings = {"hsms": hsms, "partitions": partitions, "log": log, "wait_delay": draw(st.integers(0, 2**31 - 1))}
    return settings, [slot for slots_there in slots for slot in slots_there]


@given(settings_of_any_kind())
def test_what_is_written_is_read_again(made):
    settings, slots = made
    assert check_client(settings).violations == []
    text = primus_cfg(settings)
    read = libconf.loads(text)
    assert read["version"] == "1.0"
    primus = read["primus"]
    assert primus["wait_delay"] == settings["wait_delay"]
    assert dict(primus.get("log", {})) == settings["log"]
    for hsm, written in zip(primus["hsms"].values(), settings["hsms"], strict=True):
        assert (hsm["host"], hsm["port"], hsm.get("priority")) == (
            written["host"],
            str(written["port"]),
            written.get("priority"),
        )
    assert [Slot(*slot[:4]) for slot in read_slots(text)] == [slot for slot, _client_id in slots]
    client_ids = [slot.get("client_id") for hsm in primus["hsms"].values() for slot in hsm["slots"].values()]
    assert client_ids == [client_id for _slot, client_id in slots]
