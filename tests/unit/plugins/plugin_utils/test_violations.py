# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter primus_cfg_violations: every rule, and that no sentence shows a password."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.hsmops.primus.plugins.filter.primus_cfg_violations import FilterModule
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import render
from hypothesis import given
from hypothesis import strategies as st

primus_cfg_violations = FilterModule().filters()["primus_cfg_violations"]

GOOD = {
    "hsms": [{"host": "a.example.com", "port": "2310"}, {"host": "b.example.com", "port": 2310}],
    "partitions": [
        {"user_name": "PART1", "slot_id": 0, "proxy_user": "svc"},
        {"user_name": "PART2", "slot_id": 1, "hsms": ["a.example.com", "hsm1"]},
    ],
    "log": {"trace_level": 0},
}
USERS = [{"name": "svc", "password": "secret"}]
MISSING = object()


def changed(good, path, value):
    data = copy.deepcopy(good)
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


def test_nothing_is_wrong_with_what_is_right():
    assert primus_cfg_violations(GOOD, service_users=USERS) == []
    assert primus_cfg_violations(GOOD) == []


P0 = ["partitions", 0]
P1 = ["partitions", 1]
H0 = ["hsms", 0]
THERE_ARE = "there are 'a.example.com:2310' (hsm0), 'b.example.com:2310' (hsm1)."


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ([*P0, "slot_id"], MISSING, "partitions[0] 'PART1': slot_id is missing."),
        ([*P0, "slot_id"], None, "partitions[0] 'PART1': slot_id is missing."),
        ([*P0, "slot_id"], "two", "partitions[0] 'PART1': slot_id is not an integer."),
        ([*P0, "slot_id"], True, "partitions[0] 'PART1': slot_id is not an integer."),
        ([*P0, "slot_id"], 1.5, "partitions[0] 'PART1': slot_id is not an integer."),
        ([*P0, "slot_id"], {}, "partitions[0] 'PART1': slot_id is not an integer."),
        ([*P0, "slot_id"], [2, "x"], "partitions[0] 'PART1': slot_id is not an integer."),
        ([*P0, "slot_id"], [], "partitions[0] 'PART1': slot_id is an empty list."),
        ([*P0, "slot_id"], [2, 2], "partitions[0] 'PART1': slot_id has the same value twice."),
        ([*P0, "slot_id"], -1, "partitions[0] 'PART1': slot_id is -1, which is not in 0 to 2147483647."),
        (
            [*P0, "slot_id"],
            2**31,
            "partitions[0] 'PART1': slot_id is 2147483648, which is not in 0 to 2147483647.",
        ),
        ([*P0, "slot_id"], 1, "The slot id 1 is used by partitions[0] 'PART1' and partitions[1] 'PART2'."),
        ([*P0, "slot_id"], [5, 1], "The slot id 1 is used by partitions[0] 'PART1' and partitions[1] 'PART2'."),
        ([*P0, "user_name"], "PART2", "The partition 'PART2' is used by partitions[0] and partitions[1]."),
        ([*P0, "user_name"], MISSING, "partitions[0]: user_name is missing."),
        ([*P0, "user_name"], "", "partitions[0]: user_name is empty."),
        ([*P0, "user_name"], "  ", "partitions[0]: user_name is empty."),
        ([*P0, "user_name"], "é" * 128, "partitions[0]: user_name is longer than 255 bytes."),
        ([*P0, "user_name"], 7, "partitions[0]: user_name is not a string."),
        (
            [*P0, "user_name"],
            "A\nB",
            "partitions[0]: user_name has a line break or another control character in it.",
        ),
        ([*P0, "user_name"], "A\0B", "partitions[0]: user_name has a character in it that libconfig cannot hold."),
        ([*P0, "user_name"], "A\ud800", "partitions[0]: user_name has a character in it that libconfig cannot hold."),
        (
            [*P0, "client_id"],
            "\0",
            "partitions[0] 'PART1': client_id has a character in it that libconfig cannot hold.",
        ),
        ([*P0, "client_id"], ["x"], "partitions[0] 'PART1': client_id is not a string."),
        (
            [*P0, "proxy_user"],
            "a\tb",
            "partitions[0] 'PART1': proxy_user has a line break or another control character in it.",
        ),
        ([*P0, "state"], "gone", "partitions[0] 'PART1': state is none of present, updated, absent."),
        ([*P0, "setup_password"], 12345, "partitions[0] 'PART1': setup_password is not a string."),
        ([*P0, "setup_password"], "", "partitions[0] 'PART1': setup_password is empty."),
        (
            [*P1, "hsms"],
            ["c.example.com", "hsm1"],
            f"partitions[1] 'PART2': there is no HSM 'c.example.com'; {THERE_ARE}",
        ),
        ([*P1, "hsms"], ["hsm2"], f"partitions[1] 'PART2': there is no HSM 'hsm2'; {THERE_ARE}"),
        ([*P1, "hsms"], [], "partitions[1] 'PART2': hsms is an empty list."),
        ([*P1, "hsms"], "hsm1", "partitions[1] 'PART2': hsms is not a list."),
        ([*H0, "port"], 0, "hsms[0] 'a.example.com': port is 0, which is not in 1 to 65535."),
        ([*H0, "port"], "65536", "hsms[0] 'a.example.com': port is 65536, which is not in 1 to 65535."),
        ([*H0, "port"], "https", "hsms[0] 'a.example.com': port is not an integer."),
        ([*H0, "priority"], 128, "hsms[0] 'a.example.com': priority is 128, which is not in 0 to 127."),
        ([*H0, "priority"], -1, "hsms[0] 'a.example.com': priority is -1, which is not in 0 to 127."),
        (["hsms", 1], "b.example.com", "hsms[1] is not a dictionary."),
        (["hsms", 1, "host"], "A.example.com", "The address 'a.example.com:2310' is used by hsms[0] and hsms[1]."),
        (["hsms", 1, "host"], "b example", "hsms[1]: host has white space in it."),
        (["hsms", 1, "host"], MISSING, "hsms[1]: host is missing."),
        (["hsms"], [], "hsms: there is no HSM."),
        (["hsms"], MISSING, "hsms: there is no HSM."),
        (["hsms"], {"hsm0": {}}, "settings: hsms is not a list."),
        (["partitions"], [], "partitions: there is no partition."),
        (["partitions"], None, "partitions: there is no partition."),
        (["partitions", 1], ["PART2"], "partitions[1] is not a dictionary."),
        (["log"], "debug", "settings: log is not a dictionary."),
        (["log", "trace_level"], 8, "log: trace_level is 8, which is not in 0 to 7."),
        (["log", "trace_mask"], "0x08", "log: trace_mask is 8, which is not in 0 to 7."),
        (["log", "trace_pid"], "maybe", "log: trace_pid is not a boolean."),
        (["log", "trace_pid"], [], "log: trace_pid is not a boolean."),
        (["wait_delay"], -5, "settings: wait_delay is -5, which is not in 0 to 2147483647."),
        (["connect_on_init"], 7, "settings: connect_on_init is not a boolean."),
    ],
)
def test_each_rule(path, value, sentence):
    assert sentence in primus_cfg_violations(changed(GOOD, path, value), service_users=USERS)


@pytest.mark.parametrize("path", [["patitions"], [*H0, "prot"], [*P0, "slotid"], ["log", "level"]])
def test_a_key_that_is_not_known(path):
    (sentence,) = primus_cfg_violations(changed(GOOD, path, "hunter2"))
    assert "there is no setting '%s'; there are " % path[-1] in sentence
    assert "hunter2" not in sentence


@pytest.mark.parametrize("path", [[*H0, "pin"], [*P0, "proxy_password"]])
def test_a_password_in_clear(path):
    (sentence,) = primus_cfg_violations(changed(GOOD, path, "hunter2"))
    assert "%s in clear is never written" % path[-1] in sentence
    assert "hunter2" not in sentence


# Two HSMs of one host, and one of which the host is the key of another.
CLUSTER = {
    "hsms": [
        {"host": "c", "key": "hsm3"},
        {"host": "c", "port": "2411"},
        {"host": "hsm3", "port": 2412, "key": "hsm9"},
    ],
    "partitions": [
        {"user_name": "PART1", "slot_id": 0, "client_id": {"c:2310": "first", "hsm1": "2"}, "proxy_user": {"c": "svc"}},
        {"user_name": "PART2", "slot_id": 1, "hsms": ["c"], "proxy_user": {"hsm1": "svc", "c:2310": None}},
        {"user_name": "PART3", "slot_id": 2, "client_id": None, "proxy_user": {"hsm3": "svc2", "hsm1": "svc"}},
    ],
}
THERE = "there are 'c:2310' (hsm3), 'c:2411' (hsm1), 'hsm3:2412' (hsm9)."
CLUSTER_USERS = [*USERS, {"name": "svc2", "password": "secret"}]
Q0, Q1, Q2 = (["partitions", i] for i in range(3))


def test_nothing_is_wrong_with_dictionaries_by_hsm():
    assert primus_cfg_violations(CLUSTER, service_users=CLUSTER_USERS) == []


@pytest.mark.parametrize(
    ("path", "value", "sentences"),
    [
        (["hsms", 0, "key"], "hsm", ["hsms[0] 'c': key is not hsm and a number, such as hsm3."]),
        (["hsms", 0, "key"], "hsm03", ["hsms[0] 'c': key is not hsm and a number, such as hsm3."]),
        (["hsms", 0, "key"], "HSM3", ["hsms[0] 'c': key is not hsm and a number, such as hsm3."]),
        (["hsms", 0, "key"], "hsm٣", ["hsms[0] 'c': key is not hsm and a number, such as hsm3."]),
        (["hsms", 0, "key"], 3, ["hsms[0] 'c': key is not a string."]),
        (["hsms", 0, "key"], "hsm9", ["The key 'hsm9' is used by hsms[0] and hsms[2]."]),
        ([*Q0, "client_id"], {}, ["partitions[0] 'PART1': client_id is an empty dictionary."]),
        ([*Q0, "client_id"], 7, ["partitions[0] 'PART1': client_id is not a string."]),
        ([*Q1, "client_id"], {"c:2310": 7}, ["partitions[1] 'PART2': client_id of 'c:2310' is not a string."]),
        ([*Q1, "client_id"], {"hsm1": {}}, ["partitions[1] 'PART2': client_id of 'hsm1' is not a string."]),
        (
            [*Q2, "client_id"],
            {7: "x", "": "y", "hsm1": "z"},
            [
                "partitions[2] 'PART3': client_id has a name of an HSM that is not a string.",
                "partitions[2] 'PART3': client_id has a name of an HSM that is empty.",
            ],
        ),
        (
            [*Q1, "proxy_user"],
            {"hsm1": "", "c:2310": "a\nb"},
            [
                "partitions[1] 'PART2': proxy_user of 'hsm1' is empty.",
                "partitions[1] 'PART2': proxy_user of 'c:2310' has a line break or another control character in it.",
            ],
        ),
        ([*Q2, "client_id"], {"hsm0": "x"}, [f"partitions[2] 'PART3': client_id: there is no HSM 'hsm0'; {THERE}"]),
        (
            [*Q2, "client_id"],
            {"c:2412": None},
            [f"partitions[2] 'PART3': client_id: there is no HSM 'c:2412'; {THERE}"],
        ),
        (
            [*Q1, "client_id"],
            {"hsm3": "x"},
            ["partitions[1] 'PART2': client_id: the partition is not on the HSM 'hsm3'."],
        ),
        (
            [*Q1, "hsms"],
            ["c:2411", "hsm9"],
            ["partitions[1] 'PART2': proxy_user: the partition is not on the HSM 'c:2310'."],
        ),
        (
            [*Q0, "proxy_user"],
            {"c": "svc", "c:2411": None},
            ["partitions[0] 'PART1': proxy_user: 'c' and 'c:2411' are the same HSM, hsms[1]."],
        ),
        (
            [*Q2, "client_id"],
            {"hsm1": "x", "hsm9": "y", "c:2411": "x", "hsm3": "y"},
            [
                "partitions[2] 'PART3': client_id: 'hsm1' and 'c:2411' are the same HSM, hsms[1].",
                "partitions[2] 'PART3': client_id: 'hsm9' and 'hsm3' are the same HSM, hsms[2].",
            ],
        ),
    ],
)
def test_each_rule_of_dictionaries_by_hsm(path, value, sentences):
    assert primus_cfg_violations(changed(CLUSTER, path, value), service_users=CLUSTER_USERS) == sentences


def test_of_an_hsm_only_what_is_good_is_named():
    hsms = [{"host": "a", "port": 0}, {"host": "b", "key": "x"}]
    found = primus_cfg_violations({"hsms": hsms, "partitions": [{"user_name": "P", "slot_id": 0, "hsms": ["c"]}]})
    assert "partitions[0] 'P': there is no HSM 'c'; there are 'a' (hsm0), 'b:2310'." in found


def test_a_key_that_another_hsm_has_by_its_place():
    settings = changed(GOOD, [*H0, "key"], "hsm1")
    settings["partitions"][1]["hsms"] = ["a.example.com"]
    assert primus_cfg_violations(settings) == ["The key 'hsm1' is used by hsms[0] and hsms[1]."]


@pytest.mark.parametrize(
    ("users", "state"),
    [
        (USERS, "is not in service_users."),
        ([*USERS, {"name": "svc2"}], "has no password in service_users."),
        ([*USERS, {"name": "svc2", "password": "x", "state": "absent"}], "is absent in service_users."),
    ],
)
def test_each_service_user_of_a_dictionary_counts(users, state):
    sentence = f"The service user 'svc2', who stands before the partition 'PART3', {state}"
    assert primus_cfg_violations(CLUSTER, service_users=users) == [sentence]


def test_an_hsm_that_no_partition_is_on():
    settings = changed(GOOD, ["partitions"], [{"user_name": "PART1", "slot_id": 0, "hsms": ["hsm1"]}])
    assert primus_cfg_violations(settings) == ["hsms[0]: no partition is on it."]


BEFORE = "The service user 'svc', who stands before the partition 'PART1',"


@pytest.mark.parametrize(
    ("users", "sentences"),
    [
        ([], [f"{BEFORE} is not in service_users."]),
        ([{"name": "other", "password": "x"}], [f"{BEFORE} is not in service_users."]),
        ([{"name": "svc"}], [f"{BEFORE} has no password in service_users."]),
        ([{"name": "svc", "password": None}], [f"{BEFORE} has no password in service_users."]),
        ([{"name": "svc", "password": "x", "state": "absent"}], [f"{BEFORE} is absent in service_users."]),
        ([{"name": "svc", "password": ""}], ["service_users[0] 'svc': password is empty."]),
        ([*USERS, *USERS], ["The service user 'svc' is used by service_users[0] and service_users[1]."]),
        ([*USERS, {"password": "x"}], ["service_users[1]: name is missing."]),
        ("svc", ["service_users is not a list."]),
    ],
)
def test_service_users(users, sentences):
    assert primus_cfg_violations(GOOD, service_users=users) == sentences


FORM = (
    "partitions[0] 'PART1': setup_password does not have the form of a setup password (five groups of five letters "
    "(A-Z, a-z) and digits, joined by dashes). If your device makes others, set setup_password_format_check to false."
)


@pytest.mark.parametrize(
    "setup_password",
    ["FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3", "bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG", "abcde-fghij-klmno-pqrst-uvwxy"],
)
def test_a_setup_password(setup_password):
    assert primus_cfg_violations(changed(GOOD, [*P0, "setup_password"], setup_password)) == []


@pytest.mark.parametrize(
    "setup_password",
    [
        "hunter2",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn",
        "bHocQ-bdLVz-d53Cq-xP2qq-7ZdnGG",
        " bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG",
        "bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG ",
        "bHocQbdLVzd53CqxP2qq7ZdnG",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn\u0661",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn\u00e9",
        "***",
    ],
    ids=ascii,
)
def test_what_does_not_have_the_form_of_a_setup_password(setup_password):
    settings = changed(GOOD, [*P0, "setup_password"], setup_password)
    assert primus_cfg_violations(settings) == primus_cfg_violations(settings, service_users=USERS) == [FORM]
    assert primus_cfg_violations(settings, setup_password_format_check=False) == []
    assert primus_cfg_violations(changed(settings, [*P0, "state"], "absent")) == []
    assert primus_cfg_violations(changed(settings, [*P0, "state"], "updated")) == [FORM]


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("", "is empty"),
        ("hunter2\n", "has a line break or another control character in it"),
        ("hunter2\r\n", "has a line break or another control character in it"),
        ("hun\tter2", "has a line break or another control character in it"),
        ("hun\0ter2", "has a line break or another control character in it"),
        ("hunter2\x85", "has a line break or another control character in it"),
        ("hunter2\ud800", "has a line break or another control character in it"),
        ("hunter2" * 147, "is longer than 1024 bytes"),
        ("é" * 513, "is longer than 1024 bytes"),
        (["hunter2"], "is not a string"),
        (1234, "is not a string"),
        (True, "is not a string"),
    ],
    ids=lambda value: ascii(value)[:20],
)
@pytest.mark.parametrize("format_check", [True, False])
def test_a_password_that_a_terminal_would_not_deliver(password, problem, format_check):
    """Whatever it is for, it is said once, and what is absent does not need it."""
    users = [{"name": "svc", "password": password}]
    settings = changed(GOOD, [*P0, "setup_password"], password)
    settings["partitions"][1]["pkcs11_password"] = password
    assert primus_cfg_violations(settings, service_users=users, setup_password_format_check=format_check) == [
        f"partitions[0] 'PART1': setup_password {problem}.",
        f"partitions[1] 'PART2': pkcs11_password {problem}.",
        f"service_users[0] 'svc': password {problem}.",
    ]
    for entry in [*settings["partitions"], *users]:
        entry["state"] = "absent"
    sentences = primus_cfg_violations(settings, service_users=users)
    assert (sentences == []) == (problem != "is not a string")


@pytest.mark.parametrize("password", [" at the ends ", "p\u2028q", "x" * 1024, "pässwörd", "'\"$`\\{{ }}"])
def test_a_password_that_a_terminal_delivers(password):
    settings = changed(GOOD, [*P1, "pkcs11_password"], password)
    assert primus_cfg_violations(settings, service_users=[{"name": "svc", "password": password}]) == []


class Vaulted(str):
    """A string that is decrypted by each str(), as vaulted ones are until ansible-core 2.18."""

    decrypted = 0

    def __new__(cls, text):
        vaulted = super().__new__(cls, "$ANSIBLE_VAULT;1.1;AES256")
        vaulted.text = text
        return vaulted

    def __str__(self):
        self.decrypted += 1
        return self.text


def test_a_vaulted_password_is_decrypted_once_and_only_where_it_is_needed():
    used, wrong, pin, unused = (Vaulted(text) for text in (SECRET, "hunter2", "0072-pin", "hunter2\n"))
    partitions = [
        {"user_name": "PART1", "slot_id": 0, "setup_password": used, "pkcs11_password": pin},
        {"user_name": "PART2", "slot_id": 1, "setup_password": wrong},
        {"user_name": "PART3", "slot_id": 2, "setup_password": unused, "pkcs11_password": unused, "state": "absent"},
    ]
    settings = {"hsms": GOOD["hsms"], "partitions": partitions}
    (sentence,) = primus_cfg_violations(settings)
    assert sentence == FORM.replace("partitions[0] 'PART1'", "partitions[1] 'PART2'")
    assert [value.decrypted for value in (used, wrong, pin, unused)] == [1, 1, 1, 0]
    render(settings)
    assert [value.decrypted for value in (used, wrong, pin, unused)] == [1, 1, 1, 0]


def test_a_password_may_be_missing_where_that_is_allowed():
    assert primus_cfg_violations(GOOD, service_users=[{"name": "svc"}], require_passwords=False) == []


def test_a_partition_that_is_absent_needs_no_service_user():
    assert primus_cfg_violations(changed(GOOD, [*P0, "state"], "absent"), service_users=[]) == []


def test_all_violations_at_once():
    settings = {
        "hsms": [{"host": "a", "port": 0, "priority": 200}],
        "partitions": [{"user_name": "", "slot_id": "x"}, {"user_name": "P", "slot_id": -1, "hsms": ["b"]}],
        "log": {"trace_level": 9},
    }
    assert len(primus_cfg_violations(settings)) == 7


# What may stand anywhere in the data, with the secret in it.
SECRET = "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "host", "port"]), inner),
    max_leaves=6,
)
SECRET_PLACES = ["setup_password", "pkcs11_password", "slot_id", "client_id", "state", "proxy_password", "typo"]


@given(st.dictionaries(st.sampled_from(SECRET_PLACES), ANYTHING), ANYTHING, ANYTHING)
def test_no_sentence_shows_a_password_whatever_the_data(partition, log, users):
    settings = {"hsms": [{"host": "a", "pin": SECRET}], "partitions": [{"user_name": "P", **partition}], "log": log}
    sentences = primus_cfg_violations(settings, service_users=users)
    assert sentences
    assert SECRET not in "".join(sentences)


@given(ANYTHING, ANYTHING)
def test_settings_of_any_type_get_sentences_not_errors(settings, users):
    assert primus_cfg_violations(settings, service_users=users)
