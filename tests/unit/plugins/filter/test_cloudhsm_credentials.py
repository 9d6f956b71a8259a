# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter cloudhsm_credentials: the documented lines, and no password in any error."""

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hsmops.primus.plugins.filter.cloudhsm_credentials import FilterModule
from hypothesis import given
from hypothesis import strategies as st

read = FilterModule().filters()["cloudhsm_credentials"]

SETUP = "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3"
SERVICE = """\
Service User Name: eqabxrfnqqos
Service User Password: a#pass:word of svc
HSM User Name: PARTITION1
"""
TECHNICAL = f"""\
HSM User Name: PARTITION1
User Setup Password: {SETUP}
User PKCS#11 Password: the-pin
"""
USERS = [{"name": "eqabxrfnqqos", "password": "a#pass:word of svc"}]
PARTITIONS = [
    {
        "user_name": "PARTITION1",
        "proxy_user": "eqabxrfnqqos",
        "setup_password": SETUP,
        "pkcs11_password": "the-pin",
    }
]


@pytest.mark.parametrize("order", [[SERVICE, TECHNICAL], [TECHNICAL, SERVICE], [SERVICE, TECHNICAL, SERVICE]])
def test_both_files(order):
    assert read(order) == {"service_users": USERS, "partitions": PARTITIONS}


def test_one_file():
    user_and_partition = [{"user_name": "PARTITION1", "proxy_user": "eqabxrfnqqos"}]
    assert read(SERVICE) == {"service_users": USERS, "partitions": user_and_partition}
    without_proxy = {key: value for key, value in PARTITIONS[0].items() if key != "proxy_user"}
    assert read([TECHNICAL]) == {"service_users": [], "partitions": [without_proxy]}
    assert read([]) == {"service_users": [], "partitions": []}
    assert read(SERVICE + "".join(TECHNICAL.splitlines(True)[1:])) == read([SERVICE, TECHNICAL])


@pytest.mark.parametrize(
    "shape",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: "\n  \n" + text.replace("\n", "\n\n").rstrip("\n"),
        lambda text: text.replace(": ", "   :\t"),
        lambda text: "".join("  " + line for line in text.splitlines(True)),
        lambda text: text.replace("User Setup", "Setup").replace("User PKCS#11 Password", "PKCS11 PIN"),
        lambda text: text.replace("User Setup", "HSM User Setup").replace("User PKCS#11", "HSM User PKCS #11"),
        lambda text: text.replace("Service User Password", "service  user  password"),
    ],
)
def test_what_may_differ(shape):
    assert read([shape(SERVICE), shape(TECHNICAL)]) == {"service_users": USERS, "partitions": PARTITIONS}


def test_several_of_each():
    other = SERVICE.replace("eqabxrfnqqos", "other").replace("PARTITION1", "PARTITION2")
    both = read([SERVICE, other])
    assert [user["name"] for user in both["service_users"]] == ["eqabxrfnqqos", "other"]
    assert [name["user_name"] for name in both["partitions"]] == ["PARTITION1", "PARTITION2"]
    shared = read([SERVICE, SERVICE.replace("PARTITION1", "PARTITION2")])
    assert shared["service_users"] == USERS
    assert [name["proxy_user"] for name in shared["partitions"]] == ["eqabxrfnqqos"] * 2


def without(text, word):
    return "".join(line for line in text.splitlines(True) if word not in line)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("hunter2", "Credentials 1 of 1: line 1 is not understood; a line is one of Service User Name, "),
        ([SERVICE, TECHNICAL + "Note: hunter2\n"], "Credentials 2 of 2: line 4 is not understood"),
        (SERVICE + "Service User Password hunter2\n", "line 4 is not understood"),
        (SERVICE.replace("eqabxrfnqqos", ""), "line 1 is not understood"),
        (SERVICE + "Service User Password: hunter2\n", "line 4 is the second Service User Password"),
        (without(SERVICE, "Password"), "there is no Service User Password"),
        (without(SERVICE, "HSM"), "there is no HSM User Name"),
        (without(TECHNICAL, "PKCS"), "there is no PKCS#11 Password"),
        (without(without(TECHNICAL, "PKCS"), "Setup"), "there is no password of a service user or a partition"),
        ("", "there is no HSM User Name"),
        ([SERVICE, SERVICE.replace("a#pass", "hunter2")], "another password of the service user 'eqabxrfnqqos'"),
        ([TECHNICAL, TECHNICAL.replace("the-pin", "hunter2")], "another pkcs11_password of the partition 'PARTITION1'"),
        ([SERVICE, SERVICE.replace("eqabxrfnqqos", "other")], "another proxy_user of the partition 'PARTITION1'"),
        (None, "Credentials 1 of 1 are not the text of a file"),
        ([SERVICE, {"hunter2": SERVICE}], "Credentials 2 of 2 are not the text of a file"),
        ("$ANSIBLE_VAULT;1.1;AES256\n3163", "line 1 is not understood"),
    ],
)
def test_errors_tell_where_and_not_what(content, told):
    with pytest.raises(AnsibleFilterError) as caught:
        read(content)
    message = str(caught.value)
    assert told in message
    assert not any(secret in message for secret in ("hunter2", SETUP, "the-pin", "pass:word"))


@given(st.lists(st.one_of(st.text(), st.sampled_from([*SERVICE.splitlines(), *TECHNICAL.splitlines(), "\n", ":"]))))
def test_any_text_is_read_or_refused(lines):
    try:
        result = read("\n".join(lines))
    except AnsibleFilterError as exc:
        assert SETUP not in str(exc) and "the-pin" not in str(exc)
    else:
        assert result["partitions"] or result["service_users"]
