# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the data of a client: every rule, and that no sentence shows a password."""

from __future__ import annotations

import copy
import datetime

import pytest
from ansible.errors import AnsibleError
from ansible.module_utils.common.collections import is_string
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import check_client, render
from hypothesis import given
from hypothesis import strategies as st


def sentences_of(*data, **how):
    return [str(violation) for violation in check_client(*data, **how).violations]


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
QUOTES = "put it in quotes, or use | string."


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
    assert sentences_of(GOOD, service_users=USERS) == []
    assert sentences_of(GOOD) == []


P0 = ["partitions", 0]
P1 = ["partitions", 1]
H0 = ["hsms", 0]
THERE_ARE = "there are 'a.example.com:2310' (hsm0), 'b.example.com:2310' (hsm1)."


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ([*P0, "slot_id"], MISSING, "partitions[0].slot_id ('PART1') is missing."),
        ([*P0, "slot_id"], None, "partitions[0].slot_id ('PART1') is missing."),
        ([*P0, "slot_id"], "two", "partitions[0].slot_id ('PART1') is not an integer."),
        ([*P0, "slot_id"], True, "partitions[0].slot_id ('PART1') is not an integer."),
        ([*P0, "slot_id"], 1.5, "partitions[0].slot_id ('PART1') is not an integer."),
        ([*P0, "slot_id"], {}, "partitions[0].slot_id ('PART1') is not an integer."),
        ([*P0, "slot_id"], [2, "x"], "partitions[0].slot_id[1] ('PART1') is not an integer."),
        ([*P0, "slot_id"], [], "partitions[0].slot_id ('PART1') is an empty list."),
        ([*P0, "slot_id"], [2, 2], "partitions[0].slot_id ('PART1') has the same value twice."),
        ([*P0, "slot_id"], -1, "partitions[0].slot_id ('PART1') is -1, which is not in 0 to 2147483647."),
        (
            [*P0, "slot_id"],
            2**31,
            "partitions[0].slot_id ('PART1') is 2147483648, which is not in 0 to 2147483647.",
        ),
        ([*P0, "slot_id"], 1, "partitions[1].slot_id ('PART2') is 1, the same as that of partitions[0] ('PART1')."),
        (
            [*P0, "slot_id"],
            [5, 1],
            "partitions[1].slot_id ('PART2') is 1, the same as that of partitions[0] ('PART1').",
        ),
        ([*P0, "user_name"], "PART2", "partitions[1].user_name is 'PART2', the same as that of partitions[0]."),
        ([*P0, "user_name"], MISSING, "partitions[0].user_name is missing."),
        ([*P0, "user_name"], "", "partitions[0].user_name is empty."),
        ([*P0, "user_name"], "  ", "partitions[0].user_name is empty."),
        ([*P0, "user_name"], "é" * 128, "partitions[0].user_name is longer than 255 bytes."),
        ([*P0, "user_name"], 7.5, f"partitions[0].user_name is a number; {QUOTES}"),
        ([*P0, "user_name"], True, f"partitions[0].user_name is a boolean; {QUOTES}"),
        ([*P0, "user_name"], datetime.date(2026, 1, 31), f"partitions[0].user_name is a date; {QUOTES}"),
        ([*P0, "user_name"], ["x"], "partitions[0].user_name is not a string."),
        ([*P0, "hsms"], ["hsm0", ""], "partitions[0].hsms[1] ('PART1') is empty."),
        (
            [*P0, "user_name"],
            "A\nB",
            "partitions[0].user_name has a line break or another control character in it.",
        ),
        ([*P0, "user_name"], "A\0B", "partitions[0].user_name has a character in it that libconfig cannot hold."),
        ([*P0, "user_name"], "A\ud800", "partitions[0].user_name has a character in it that libconfig cannot hold."),
        (
            [*P0, "client_id"],
            "\0",
            "partitions[0].client_id ('PART1') has a character in it that libconfig cannot hold.",
        ),
        ([*P0, "client_id"], ["x"], "partitions[0].client_id ('PART1') is not a string."),
        (
            [*P0, "proxy_user"],
            "a\tb",
            "partitions[0].proxy_user ('PART1') has a line break or another control character in it.",
        ),
        ([*P0, "state"], "gone", "partitions[0].state ('PART1') is none of present, updated, absent."),
        ([*P0, "setup_password"], 12345, f"partitions[0].setup_password ('PART1') is a number; {QUOTES}"),
        ([*P0, "setup_password"], "", "partitions[0].setup_password ('PART1') is empty."),
        (
            [*P1, "hsms"],
            ["c.example.com", "hsm1"],
            f"partitions[1].hsms ('PART2') names the HSM 'c.example.com', which is not in hsms; {THERE_ARE}",
        ),
        (
            [*P1, "hsms"],
            ["hsm2"],
            f"partitions[1].hsms ('PART2') names the HSM 'hsm2', which is not in hsms; {THERE_ARE}",
        ),
        ([*P1, "hsms"], [], "partitions[1].hsms ('PART2') is an empty list."),
        ([*P1, "hsms"], "hsm1", "partitions[1].hsms ('PART2') is not a list."),
        ([*H0, "port"], 0, "hsms[0].port ('a.example.com') is 0, which is not in 1 to 65535."),
        ([*H0, "port"], "65536", "hsms[0].port ('a.example.com') is 65536, which is not in 1 to 65535."),
        ([*H0, "port"], "https", "hsms[0].port ('a.example.com') is not an integer."),
        ([*H0, "priority"], 128, "hsms[0].priority ('a.example.com') is 128, which is not in 0 to 127."),
        ([*H0, "priority"], -1, "hsms[0].priority ('a.example.com') is -1, which is not in 0 to 127."),
        (["hsms", 1], "b.example.com", "hsms[1] is not a dictionary."),
        (
            ["hsms", 1, "host"],
            "A.example.com",
            "hsms[1].host ('A.example.com') is the address 'a.example.com:2310', "
            "the same as that of hsms[0] ('a.example.com').",
        ),
        (["hsms", 1, "host"], "b example", "hsms[1].host has white space in it."),
        (["hsms", 1, "host"], MISSING, "hsms[1].host is missing."),
        (["hsms"], [], "hsms is empty."),
        (["hsms"], MISSING, "hsms is empty."),
        (["hsms"], {"hsm0": {}}, "hsms is not a list."),
        (["partitions"], [], "partitions is empty."),
        (["partitions"], None, "partitions is empty."),
        (["partitions", 1], ["PART2"], "partitions[1] is not a dictionary."),
        (["log"], "debug", "log is not a dictionary."),
        (["log", "trace_level"], 8, "log.trace_level is 8, which is not in 0 to 7."),
        (["log", "trace_mask"], "0x08", "log.trace_mask is 8, which is not in 0 to 7."),
        (["log", "trace_pid"], "maybe", "log.trace_pid is not a boolean."),
        (["log", "trace_pid"], [], "log.trace_pid is not a boolean."),
        (["wait_delay"], -5, "wait_delay is -5, which is not in 0 to 2147483647."),
        (["connect_on_init"], 7, "connect_on_init is not a boolean."),
    ],
)
def test_each_rule(path, value, sentence):
    assert sentence in sentences_of(changed(GOOD, path, value), service_users=USERS)


@pytest.mark.parametrize("path", [["patitions"], [*H0, "prot"], [*P0, "slotid"], ["log", "level"]])
def test_a_key_that_is_not_known(path):
    (sentence,) = sentences_of(changed(GOOD, path, "hunter2"))
    assert " has no setting '%s'; there are " % path[-1] in sentence
    assert "hunter2" not in sentence


@pytest.mark.parametrize("path", [[*H0, "pin"], [*P0, "proxy_password"]])
def test_a_password_in_plaintext(path):
    (sentence,) = sentences_of(changed(GOOD, path, "hunter2"))
    assert ".%s (" % path[-1] in sentence
    assert " is a password in plaintext, which is never written to primus.cfg; give " in sentence
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
    assert sentences_of(CLUSTER, service_users=CLUSTER_USERS) == []


@pytest.mark.parametrize(
    ("path", "value", "sentences"),
    [
        (["hsms", 0, "key"], "hsm", ["hsms[0].key ('c') is not hsm and a number, such as hsm3."]),
        (["hsms", 0, "key"], "hsm03", ["hsms[0].key ('c') is not hsm and a number, such as hsm3."]),
        (["hsms", 0, "key"], "HSM3", ["hsms[0].key ('c') is not hsm and a number, such as hsm3."]),
        (["hsms", 0, "key"], "hsm٣", ["hsms[0].key ('c') is not hsm and a number, such as hsm3."]),
        (["hsms", 0, "key"], 3, ["hsms[0].key ('c') is not hsm and a number, such as hsm3."]),
        (["hsms", 0, "key"], "hsm9", ["hsms[2].key ('hsm3') is 'hsm9', the same as that of hsms[0] ('c')."]),
        ([*Q0, "client_id"], {}, ["partitions[0].client_id ('PART1') is an empty dictionary."]),
        ([*Q0, "client_id"], 7.5, [f"partitions[0].client_id ('PART1') is a number; {QUOTES}"]),
        (
            [*Q1, "client_id"],
            {"c:2310": False},
            [f"partitions[1].client_id['c:2310'] ('PART2') is a boolean; {QUOTES}"],
        ),
        ([*Q1, "client_id"], {"hsm1": {}}, ["partitions[1].client_id['hsm1'] ('PART2') is not a string."]),
        (
            [*Q2, "client_id"],
            {True: "x", "": "y", "hsm1": "z"},
            [
                f"partitions[2].client_id ('PART3') has a name of an HSM that is a boolean; {QUOTES}",
                "partitions[2].client_id ('PART3') has a name of an HSM that is empty.",
            ],
        ),
        (
            [*Q1, "proxy_user"],
            {"hsm1": "", "c:2310": "a\nb"},
            [
                "partitions[1].proxy_user['hsm1'] ('PART2') is empty.",
                "partitions[1].proxy_user['c:2310'] ('PART2') has a line break or another control character in it.",
            ],
        ),
        (
            [*Q2, "client_id"],
            {"hsm0": "x"},
            [f"partitions[2].client_id ('PART3') names the HSM 'hsm0', which is not in hsms; {THERE}"],
        ),
        (
            [*Q2, "client_id"],
            {"c:2412": None},
            [f"partitions[2].client_id ('PART3') names the HSM 'c:2412', which is not in hsms; {THERE}"],
        ),
        (
            [*Q1, "client_id"],
            {"hsm3": "x"},
            ["partitions[1].client_id ('PART2') names the HSM 'hsm3', which the partition is not on."],
        ),
        (
            [*Q1, "hsms"],
            ["c:2411", "hsm9"],
            ["partitions[1].proxy_user ('PART2') names the HSM 'c:2310', which the partition is not on."],
        ),
        (
            [*Q0, "proxy_user"],
            {"c": "svc", "c:2411": None},
            ["partitions[0].proxy_user ('PART1') names hsms[1] twice, as 'c' and 'c:2411'."],
        ),
        (
            [*Q2, "client_id"],
            {"hsm1": "x", "hsm9": "y", "c:2411": "x", "hsm3": "y"},
            [
                "partitions[2].client_id ('PART3') names hsms[1] twice, as 'hsm1' and 'c:2411'.",
                "partitions[2].client_id ('PART3') names hsms[2] twice, as 'hsm9' and 'hsm3'.",
            ],
        ),
    ],
)
def test_each_rule_of_dictionaries_by_hsm(path, value, sentences):
    assert sentences_of(changed(CLUSTER, path, value), service_users=CLUSTER_USERS) == sentences


def test_of_an_hsm_only_what_is_good_is_named():
    hsms = [{"host": "a", "port": 0}, {"host": "b", "key": "x"}]
    found = sentences_of({"hsms": hsms, "partitions": [{"user_name": "P", "slot_id": 0, "hsms": ["c"]}]})
    assert "partitions[0].hsms ('P') names the HSM 'c', which is not in hsms; there are 'a' (hsm0), 'b:2310'." in found


def test_a_key_that_another_hsm_has_by_its_place():
    settings = changed(GOOD, [*H0, "key"], "hsm1")
    settings["partitions"][1]["hsms"] = ["a.example.com"]
    assert sentences_of(settings) == [
        "hsms[1].key ('b.example.com') is 'hsm1', the same as that of hsms[0] ('a.example.com')."
    ]


@pytest.mark.parametrize(
    ("users", "sentence"),
    [
        (USERS, "partitions[2].proxy_user ('PART3') names the service user 'svc2', who is not in service_users."),
        ([*USERS, {"name": "svc2"}], "service_users[1].password ('svc2') is missing."),
        (
            [*USERS, {"name": "svc2", "password": "x", "state": "absent"}],
            "partitions[2].proxy_user ('PART3') names the service user 'svc2', who is absent in service_users.",
        ),
    ],
)
def test_each_service_user_of_a_dictionary_counts(users, sentence):
    assert sentences_of(CLUSTER, service_users=users) == [sentence]


def test_an_hsm_that_no_partition_is_on():
    settings = changed(GOOD, ["partitions"], [{"user_name": "PART1", "slot_id": 0, "hsms": ["hsm1"]}])
    assert sentences_of(settings) == ["hsms[0] ('a.example.com') is an HSM that no partition is on."]


NAMES = "partitions[0].proxy_user ('PART1') names the service user 'svc', who"


@pytest.mark.parametrize(
    ("users", "sentences"),
    [
        ([], [f"{NAMES} is not in service_users."]),
        ([{"name": "other", "password": "x"}], [f"{NAMES} is not in service_users."]),
        ([{"name": "svc"}], ["service_users[0].password ('svc') is missing."]),
        ([{"name": "svc", "password": None}], ["service_users[0].password ('svc') is missing."]),
        ([{"name": "svc", "password": "x", "state": "absent"}], [f"{NAMES} is absent in service_users."]),
        ([{"name": "svc", "password": ""}], ["service_users[0].password ('svc') is empty."]),
        ([*USERS, *USERS], ["service_users[1].name is 'svc', the same as that of service_users[0]."]),
        ([*USERS, {"password": "x"}], ["service_users[1].name is missing."]),
        ("svc", ["service_users is not a list."]),
    ],
)
def test_service_users(users, sentences):
    assert sentences_of(GOOD, service_users=users) == sentences


FORM = (
    "partitions[0].setup_password ('PART1') does not have the form of a setup password (five groups of five letters "
    "(A-Z, a-z) and digits, joined by dashes); if your HSM generates others, set setup_password_format_check to false."
)


@pytest.mark.parametrize(
    "setup_password",
    ["FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3", "bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG", "abcde-fghij-klmno-pqrst-uvwxy"],
)
def test_a_setup_password(setup_password):
    assert sentences_of(changed(GOOD, [*P0, "setup_password"], setup_password)) == []


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
    assert sentences_of(settings) == sentences_of(settings, service_users=USERS) == [FORM]
    assert sentences_of(settings, setup_password_format_check=False) == []
    assert sentences_of(changed(settings, [*P0, "state"], "absent")) == []
    assert sentences_of(changed(settings, [*P0, "state"], "updated")) == [FORM]


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
        (1234, f"is a number; {QUOTES[:-1]}"),
        (12.5, f"is a number; {QUOTES[:-1]}"),
        (True, f"is a boolean; {QUOTES[:-1]}"),
    ],
    ids=lambda value: ascii(value)[:20],
)
@pytest.mark.parametrize("format_check", [True, False])
def test_a_password_that_a_terminal_would_not_deliver(password, problem, format_check):
    """Whatever it is for, it is said once, and what is absent does not need it."""
    users = [{"name": "svc", "password": password}]
    settings = changed(GOOD, [*P0, "setup_password"], password)
    settings["partitions"][1]["pkcs11_password"] = password
    assert sentences_of(settings, service_users=users, setup_password_format_check=format_check) == [
        f"partitions[0].setup_password ('PART1') {problem}.",
        f"partitions[1].pkcs11_password ('PART2') {problem}.",
        f"service_users[0].password ('svc') {problem}.",
    ]
    for entry in [*settings["partitions"], *users]:
        entry["state"] = "absent"
    sentences = sentences_of(settings, service_users=users)
    assert (sentences == []) == isinstance(password, str)


@pytest.mark.parametrize("password", [" at the ends ", "p\u2028q", "x" * 1024, "pässwörd", "'\"$`\\{{ }}"])
def test_a_password_that_a_terminal_delivers(password):
    settings = changed(GOOD, [*P1, "pkcs11_password"], password)
    assert sentences_of(settings, service_users=[{"name": "svc", "password": password}]) == []


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
    (sentence,) = sentences_of(settings)
    assert sentence == FORM.replace("[0]", "[1]").replace("PART1", "PART2")
    assert [value.decrypted for value in (used, wrong, pin, unused)] == [1, 1, 1, 0]
    render(settings)
    assert [value.decrypted for value in (used, wrong, pin, unused)] == [1, 1, 1, 0]


def test_a_vaulted_string_that_cannot_be_decrypted():
    class Undecryptable(str):
        def __str__(self):
            raise AnsibleError("Decryption failed")

    vaulted = Undecryptable("$ANSIBLE_VAULT;1.1;AES256")
    settings = changed(GOOD, [*P1, "client_id"], vaulted)
    settings["partitions"][0]["pkcs11_password"] = vaulted
    what = "cannot be decrypted; give the password of its vault."
    assert sentences_of(settings) == [
        f"partitions[1].client_id ('PART2') {what}",
        f"partitions[0].pkcs11_password ('PART1') {what}",
    ]


class OldVaulted:
    """As AnsibleVaultEncryptedUnicode, until ansible-core 2.18: no str, and no string but for its text."""

    __ENCRYPTED__ = True

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


def encrypted(data, kind):
    if isinstance(data, dict):
        return {key: encrypted(value, kind) for key, value in data.items()}
    if isinstance(data, list):
        return [encrypted(value, kind) for value in data]
    return kind(str(data))


OLD = pytest.mark.skipif(not is_string(OldVaulted("")), reason="they are decrypted by templates of this ansible-core")


@pytest.mark.parametrize("kind", [Vaulted, pytest.param(OldVaulted, marks=OLD)])
def test_each_value_may_be_a_vaulted_string(kind):
    settings = {**CLUSTER, "connect_on_init": True, "wait_delay": 7, "log": {"trace_mask": "0x05", "trace_pid": False}}
    settings = changed(settings, [*Q1, "state"], "absent")
    vaulted = encrypted(changed(settings, [*Q1, "proxy_user"], "svc"), kind)
    vaulted["partitions"][2].pop("client_id")
    checked = check_client(vaulted, encrypted([{**user, "state": "updated"} for user in CLUSTER_USERS], kind))
    assert checked.violations == []
    assert render(vaulted) == render(checked.settings) == render(settings)
    assert [user["state"] for user in checked.service_users] == ["updated", "updated"]


@pytest.mark.parametrize(
    ("path", "value", "normal"),
    [
        ([*P0, "user_name"], 12345678, "12345678"),
        ([*P0, "slot_id"], "7", [7]),
        ([*P0, "slot_id"], "0x10", [16]),
        ([*P0, "slot_id"], ["7", 8], [7, 8]),
        ([*P0, "client_id"], 4711, "4711"),
        ([*P1, "hsms"], ["hsm0", "b.example.com"], ["hsm0", "b.example.com"]),
        ([*P0, "state"], None, "present"),
        ([*H0, "port"], "2411", "2411"),
        ([*H0, "port"], 2411, "2411"),
        ([*H0, "priority"], "3", 3),
        (["log", "trace_pid"], "yes", True),
        (["log", "trace_level"], "3", 3),
    ],
)
def test_values_as_users_write_them(path, value, normal):
    checked = check_client(changed(GOOD, path, value), USERS)
    assert checked.violations == []
    place = checked.settings
    for key in path:
        place = place[key]
    assert place == normal
    assert check_client(checked.settings).settings == checked.settings


def test_what_is_checked_has_no_password_in_it():
    settings = changed(GOOD, [*P0, "setup_password"], SECRET)
    checked = check_client(settings, [{"name": "svc", "password": SECRET}, {"name": "gone", "state": "absent"}])
    assert SECRET not in str(checked)
    assert [(each["setup_password"], each["pkcs11_password"]) for each in checked.partitions] == [
        (True, False),
        (False, False),
    ]
    assert not any(key.endswith("password") for each in checked.settings["partitions"] for key in each)
    assert [user["password"] for user in checked.service_users] == [True, False]


def test_each_violation_has_the_full_name_of_its_variable():
    settings = {
        "hsms": [{"host": "a", "port": 0}, {"host": "b"}],
        "partitions": [
            {"user_name": "P1", "slot_id": 0, "pkcs11_password": 1234, "proxy_user": "svc"},
            {"slot_id": 0, "hsms": ["c"], "typo": 1},
        ],
        "log": {"trace_level": 9},
        "wait_delay": "x",
    }
    found = check_client(settings, [{"name": "svc", "password": True}, {"name": "svc"}], "primus_client_").violations
    assert all(violation.where.startswith("primus_client_") for violation in found)
    assert {violation.where for violation in found} == {
        "primus_client_wait_delay",
        "primus_client_hsms[0].port ('a')",
        "primus_client_partitions[0].pkcs11_password ('P1')",
        "primus_client_partitions[1]",
        "primus_client_partitions[1].user_name",
        "primus_client_partitions[1].hsms",
        "primus_client_partitions[1].slot_id",
        "primus_client_log.trace_level",
        "primus_client_service_users[0].password ('svc')",
        "primus_client_service_users[1].name",
        "primus_client_service_users[1].password ('svc')",
    }
    pin = next(violation for violation in found if "pkcs11" in violation.where)
    assert (pin.what, pin.fix) == ("is a number", "put it in quotes, or use | string")


@pytest.mark.parametrize(
    ("partition", "sentences"),
    [
        ({"user_name": "P"}, []),
        ({"user_name": "P", "hsms": ["c"], "proxy_user": "svc", "client_id": {"c": "x"}}, []),
        ({"user_name": "P", "slot_id": "x"}, ["partitions[0].slot_id ('P') is not an integer."]),
        ({}, ["partitions[0].user_name is missing."]),
        ({"user_name": "P", "pkcs11_password": ""}, ["partitions[0].pkcs11_password ('P') is empty."]),
    ],
)
def test_where_primus_cfg_is_left_to_others_only_names_and_passwords_count(partition, sentences):
    assert sentences_of({"partitions": [partition]}, renders_config=False) == sentences
    assert sentences_of({"partitions": [partition]}, [{"name": "other"}], renders_config=False) == sentences
    assert sentences_of({"partitions": []}, [{}], renders_config=False) == ["service_users[0].name is missing."]


def test_a_password_may_be_missing_where_that_is_allowed():
    assert sentences_of(GOOD, service_users=[{"name": "svc"}], require_passwords=False) == []


def test_a_partition_that_is_absent_needs_no_service_user():
    assert sentences_of(changed(GOOD, [*P0, "state"], "absent"), service_users=[]) == []


def test_all_violations_at_once():
    settings = {
        "hsms": [{"host": "a", "port": 0, "priority": 200}],
        "partitions": [{"user_name": "", "slot_id": "x"}, {"user_name": "P", "slot_id": -1, "hsms": ["b"]}],
        "log": {"trace_level": 9},
    }
    assert len(sentences_of(settings)) == 7


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
    sentences = sentences_of(settings, service_users=users)
    assert sentences
    assert SECRET not in "".join(sentences)


@given(ANYTHING, ANYTHING)
def test_settings_of_any_type_get_sentences_not_errors(settings, users):
    assert sentences_of(settings, service_users=users)
