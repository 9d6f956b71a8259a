# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter cloudhsm_credentials: the published files in all their forms, and no secret in any error."""

from __future__ import annotations

import itertools

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hsmops.primus.plugins.filter.cloudhsm_credentials import FilterModule
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import check_client
from hypothesis import example, given
from hypothesis import strategies as st

read = FilterModule().filters()["cloudhsm_credentials"]

SETUP = "bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG"
PROXY = "k3eZ-9 with blanks: and a colon"
PIN = "0072-pin"
TOKEN = "eyJhbGciOiJub25lIn0.e30.made-up"

# The files as CloudHSM names and writes them.
SERVICE = f"""\
Service User Name: svcuser
Service User Password: {PROXY}
HSM User Name: PARTITION1
"""
TECHNICAL = f"""\
HSM User Name: PARTITION1
HSM User Setup Password: {SETUP}
PKCS#11 password : {PIN}
"""
CONSOLE = f"""\
- Details  for Native-API (JCE, PKCS#11, MS CNG)\x20
    HSM User Name: PARTITION1
    HSM User Setup Password: {SETUP}
    Service (Proxy) User Name: svcuser
    Service (Proxy) User Password: {PROXY}
    PKCS#11 password : {PIN}

- Details for Restful-API & Transaction Security Broker:\x20
    JWT-TOKEN for Restful-API & Transaction Security Broker: {TOKEN}
"""
USER = {"name": "svcuser", "password": PROXY}
SERVED = {"user_name": "PARTITION1", "proxy_user": "svcuser"}
PARTITION = {"user_name": "PARTITION1", "setup_password": SETUP, "pkcs11_password": PIN}
ALL = {"service_users": [USER], "partitions": [{**SERVED, **PARTITION}]}
FILES = {
    "acme_eco_service_svcuser_20260131.txt": (SERVICE, {"service_users": [USER], "partitions": [SERVED]}),
    "acme_eco_hsm_partition1_20260131.txt": (TECHNICAL, {"service_users": [], "partitions": [PARTITION]}),
    "acme_sbx_credentials_partition1_20260131.txt": (CONSOLE, ALL),
}
EACH_FILE = pytest.mark.parametrize(("text", "result"), FILES.values(), ids=FILES)


def without(text, word):
    return "".join(line for line in text.splitlines(True) if word not in line)


def labels(change):
    """Changes what stands before the first colon of each line that has a value."""

    def shape(text):
        parts = [line.partition(":") for line in text.splitlines(True)]
        return "".join((change(label) if value.strip() else label) + colon + value for label, colon, value in parts)

    return shape


@EACH_FILE
def test_each_file(text, result):
    assert read(text) == read([text]) == result


SHAPES = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "BOM": lambda text: "\ufeff" + text,
    "BOM and CRLF": lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    "BOM and blanks": lambda text: "\ufeff  " + text,
    "no line break at the end": lambda text: text.rstrip("\n"),
    "empty lines": lambda text: "\n  \n" + text.replace("\n", "\n\t\n"),
    "indented": lambda text: "".join("  " + line for line in text.splitlines(True)),
    "indented with a tab": lambda text: "".join("\t" + line.lstrip(" ") for line in text.splitlines(True)),
    "indented with no-break spaces": lambda text: "".join("\u00a0\u00a0" + line for line in text.splitlines(True)),
    "not indented": lambda text: "".join(line.lstrip(" ") for line in text.splitlines(True)),
    "blanks at the end": lambda text: text.replace("\n", " \t\n"),
    "no-break spaces at the end": lambda text: text.replace("\n", "\u00a0\n"),
    "blanks before the colon": labels(lambda label: label + "  "),
    "no blank before the colon": labels(str.rstrip),
    "blanks in labels": labels(lambda label: label.replace(" ", "   ")),
    "tabs in labels": labels(lambda label: label.replace(" ", "\t")),
    "no-break spaces in labels": labels(lambda label: label.replace(" ", "\u00a0")),
    "tab after the colon": lambda text: text.replace("Name: ", "Name:\t"),
    "nothing after the colon": lambda text: text.replace("Name: ", "Name:"),
    "lower case": labels(str.lower),
    "upper case": labels(str.upper),
    "title case": labels(str.title),
    "swapped case": labels(str.swapcase),
    "backwards": lambda text: "\n".join(reversed(text.splitlines())),
    "sorted": lambda text: "\n".join(sorted(text.splitlines())),
    "the first line last": lambda text: "\n".join(text.splitlines()[1:] + text.splitlines()[:1]),
    "twice": lambda text: text + text,
    "a heading": lambda text: "- Details  for Native-API (JCE, PKCS#11, MS CNG) \n" + text,
    "rules": lambda text: "====\n" + text + "----------\n",
    "with (Proxy)": lambda text: text.replace("Service User", "Service (Proxy) User"),
    "without (Proxy)": lambda text: text.replace("(Proxy) ", ""),
    "with Proxy": lambda text: text.replace("(Proxy)", "proxy"),
    "after a dash": labels(lambda label: "- " + label.strip()),
    "PIN": lambda text: text.replace("PKCS#11 password :", "PKCS#11 PIN:"),
    "PKCS11": lambda text: text.replace("PKCS#11 password", "PKCS11 Password"),
    "PKCS #11": lambda text: text.replace("PKCS#11 password", "User PKCS #11 Password"),
    "HSM User PKCS#11": lambda text: text.replace("PKCS#11 password", "HSM User PKCS#11 Password"),
    "Setup Password": lambda text: text.replace("HSM User Setup", "Setup"),
    "User Setup Password": lambda text: text.replace("HSM User Setup", "User Setup"),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@EACH_FILE
def test_what_may_differ(text, result, shape):
    assert read(shape(text)) == result


@pytest.mark.parametrize("texts", list(itertools.permutations([SERVICE, TECHNICAL, CONSOLE])))
def test_forms_mix(texts):
    """In a list, one after the other in one text, and both."""
    assert read(list(texts)) == read("".join(texts)) == read([texts[0], "\n".join(texts[1:])]) == ALL
    assert read("\ufeff" + "\r\n\ufeff".join(texts)) == ALL  # each of them with its mark


@pytest.mark.parametrize("order", [[SERVICE, TECHNICAL], [TECHNICAL, SERVICE], [SERVICE, TECHNICAL, SERVICE]])
def test_both_files(order):
    assert read(order) == read("".join(order)) == ALL


def test_nothing_is_given():
    assert read([]) == {"service_users": [], "partitions": []}


@pytest.mark.parametrize(
    "lines",
    [
        f"JWT-TOKEN for Restful-API & Transaction Security Broker: {TOKEN}",
        f"JWT-TOKEN for Restful-API & Transaction Security Broker :\t{TOKEN}",
        f"JWT Token: {TOKEN}",
        f"jwt token:{TOKEN}",
        f"- JWT-Token: {TOKEN}",
        "JWT Token:",
        f"JWT Token:\n{TOKEN}",
        f"JWT Token:\n\n    {TOKEN}\n",
        f"- JWT Token\n{TOKEN}",
        f"JWT Token: {TOKEN[:20]}\n{TOKEN[20:]}",
        f"JWT Token:\n  {TOKEN[:9]}\n  {TOKEN[9:20]}\n  {TOKEN[20:]}",
        f"JWT Token: {TOKEN[:9]}\r\n{TOKEN[9:20]}\r\n{TOKEN[20:]}",
        "- Details for Restful-API & Transaction Security Broker: ",
        "- Details for Native-API: JCE, PKCS#11, MS CNG",
        "-- Other Details:",
        "=====",
        "-----",
        "== Native-API ==",
        "REST API Endpoint: https://rest-api.example.com",
        "Endpoint : https://rest-api.example.com:443/v1",
        "REST-API URL: https://rest-api.example.com",
        "Host: proxy1.example.com",
        "Hostname 2: proxy2.example.com",
        "HSM Host: proxy1.example.com:2310",
        "HSM Port: 2310",
        "API Key: made-up-key",
        "Documentation: https://docs.example.com/cloudhsm",
        "https://docs.example.com/cloudhsm",
        "See https://docs.example.com/cloudhsm",
        "HSM User Setup Password:",
        "Service User Name :",
        "PKCS#11 PIN:\t",
        "PKCS#11 PIN:\n- Details for Restful-API & Transaction Security Broker: ",
        "Change the password at https://portal.example.com/account",
    ],
    ids=ascii,
)
@EACH_FILE
def test_what_is_passed_over(text, result, lines):
    assert read(f"{text}{lines}") == result
    assert read(f"{lines}\n{text}") == result


@pytest.mark.parametrize(
    ("text", "users", "partitions"),
    [
        (without(TECHNICAL, "PKCS"), [], [{"user_name": "PARTITION1", "setup_password": SETUP}]),
        (TECHNICAL.replace(PIN, ""), [], [{"user_name": "PARTITION1", "setup_password": SETUP}]),
        (TECHNICAL.replace(SETUP, "\t"), [], [{"user_name": "PARTITION1", "pkcs11_password": PIN}]),
        (without(TECHNICAL, "assword"), [], [{"user_name": "PARTITION1"}]),
        (without(SERVICE, "Password"), [{"name": "svcuser"}], [SERVED]),
        (SERVICE.replace(PROXY, ""), [{"name": "svcuser"}], [SERVED]),
        (SERVICE.replace("svcuser", "").replace(PROXY, ""), [], [{"user_name": "PARTITION1"}]),
        (without(CONSOLE, "PKCS#11 password"), [USER], [{**SERVED, "setup_password": SETUP}]),
        (without(CONSOLE, "Proxy"), [], [PARTITION]),
        (without(CONSOLE, "Setup"), [USER], [{**SERVED, "pkcs11_password": PIN}]),
    ],
)
def test_what_is_not_given_is_left_out(text, users, partitions):
    assert read(text) == {"service_users": users, "partitions": partitions}


def test_what_is_left_out_comes_from_another_text():
    texts = [without(SERVICE, "Password"), SERVICE, without(TECHNICAL, "PKCS"), TECHNICAL]
    assert read(texts) == read(texts[::-1]) == ALL


def test_a_service_user_without_a_password_is_said_when_it_is_needed():
    credentials = read(without(CONSOLE, "User Password"))
    settings = {"hsms": [{"host": "a"}], "partitions": [{**credentials["partitions"][0], "slot_id": 0}]}
    (sentence,) = map(str, check_client(settings, credentials["service_users"]).violations)
    assert sentence == "service_users[0].password ('svcuser') is missing."


@pytest.mark.parametrize(
    "password",
    [
        "a:b::c: d",
        ": x",
        "'quoted'",
        '"quoted"',
        "- x",
        "# x",
        "two  blanks\tand a tab",
        "no\u00a0break",
        "HSM User Name OTHER",
        "https://example.com/",
        "eyJhbGciOiJub25lIn0",
        "a\u2028b\u2029c\x0bd\x0ce\x1cf\x85g",
        "pässwörd \U0001f511",
        "\\n {{ x }} $y %s {0}",
    ],
    ids=ascii,
)
def test_a_value_is_as_it_is(password):
    result = read([SERVICE.replace(PROXY, password), TECHNICAL.replace(PIN, password)])
    assert result["service_users"][0]["password"] == result["partitions"][0]["pkcs11_password"] == password


def test_several_of_each():
    other = SERVICE.replace("svcuser", "other").replace("PARTITION1", "PARTITION2")
    both = read([SERVICE, other])
    assert [user["name"] for user in both["service_users"]] == ["svcuser", "other"]
    assert [name["user_name"] for name in both["partitions"]] == ["PARTITION1", "PARTITION2"]
    shared = read([SERVICE, SERVICE.replace("PARTITION1", "PARTITION2")])
    assert shared["service_users"] == [USER]
    assert [name["proxy_user"] for name in shared["partitions"]] == ["svcuser"] * 2


# What no message may show, nor any piece of it.
HIDDEN = [SETUP, PROXY, PIN, TOKEN, "hunter2-hunter3"]


def pieces(secret):
    return [secret[i : i + 6] for i in range(max(1, len(secret) - 5))]


def refused(content):
    with pytest.raises(AnsibleFilterError) as caught:
        read(content)
    message = str(caught.value)
    assert not [piece for secret in HIDDEN for piece in pieces(secret) if piece in message]
    return message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("hunter2-hunter3", "Credentials 1 of 1: line 1 is not understood"),
        ([SERVICE, TECHNICAL + "Note: hunter2-hunter3\n"], "Credentials 2 of 2: line 4 is not understood"),
        (SERVICE + "Service User Password hunter2-hunter3\n", "line 4 is not understood"),
        (SERVICE.replace("Service User Pass", "Service User Pass Pass"), "line 2 is not understood"),
        (SERVICE.replace("\n", "\r\n") + "\r\n# hunter2-hunter3", "line 5 is not understood"),
        (SERVICE.replace("\n", "\r") + "hunter2-hunter3:", "line 4 is not understood"),
        # Values that follow their labels, or are broken into lines
        (TECHNICAL.replace(f"Password: {SETUP}", f"Password:\n{SETUP}"), "line 3 is not understood"),
        (TECHNICAL.replace("-d53Cq", "\n-d53Cq"), "line 3 is not understood"),
        (TECHNICAL.replace(PIN, "\n- hunter2-hunter3"), "line 4 is not understood"),
        (TECHNICAL.replace(PIN, "\n\n  == hunter2-hunter3:"), "line 5 is not understood"),
        (TECHNICAL.replace(PIN, "\neyJhunter2-hunter3"), "line 4 is not understood"),
        # Labels that say that a password follows
        (TECHNICAL + "- Details of the password: hunter2-hunter3", "line 4 is not understood"),
        (TECHNICAL + "Password for port: hunter2-hunter3", "line 4 is not understood"),
        (TECHNICAL + "Setup Pass Host : hunter2-hunter3", "line 4 is not understood"),
        (TECHNICAL + "PIN: https://hunter2-hunter3", "line 4 is not understood"),
        # Lost line breaks
        (TECHNICAL.replace("\n", " "), "the HSM User Name in line 1 has another label in it"),
        (TECHNICAL.replace("\n", "\\n"), "the HSM User Name in line 1 has another label in it"),
        (TECHNICAL.replace("\n", "\u2028"), "the HSM User Name in line 1 has another label in it"),
        (SERVICE.replace("\n", "\t"), "the Service User Name in line 1 has another label in it"),
        (TECHNICAL.replace(f"{SETUP}\n", f"{SETUP} "), "the HSM User Setup Password in line 2 has another label in it"),
        (f"HSM User Name: X JWT-TOKEN for Restful-API: {TOKEN}", "the HSM User Name in line 1 has another label in it"),
        # Headings have no value.
        (TECHNICAL + "- HSM Setup Passwort: hunter2-hunter3", "line 4 is not understood"),
        (TECHNICAL + "-hunter2-hunter3", "line 4 is not understood"),
        # A token ends with its last line.
        (f"{CONSOLE}\nhunter2-hunter3", "line 11 is not understood"),
        ("JWT Token:\nhunter2-hunter3", "line 2 is not understood"),
        ("Support: hunter2-hunter3", "line 1 is not understood"),
        ("$ANSIBLE_VAULT;1.1;AES256\n3163", "line 1 is not understood"),
        # Two of a kind
        (SERVICE + "Service User Password: hunter2-hunter3\n", "line 4 has another Service User Password than line 2"),
        (CONSOLE + TECHNICAL.replace("1\n", "2\n"), "line 10 has another HSM User Name than line 2"),
        (SERVICE + "\n" + SERVICE.replace("svcuser", "other"), "line 5 has another Service User Name than line 1"),
        (TECHNICAL + "PKCS#11 PIN: hunter2-hunter3", "line 4 has another PKCS#11 password than line 3"),
        (TECHNICAL + f"Setup Password: {SETUP.lower()}", "line 4 has another HSM User Setup Password than line 2"),
        # Whose it is
        (without(SERVICE, "HSM"), "there is no HSM User Name"),
        (TECHNICAL.replace("PARTITION1", ""), "there is no HSM User Name"),
        (
            without(SERVICE, "Service User Name"),
            "there is no Service User Name for the Service User Password in line 1",
        ),
        (CONSOLE.replace("svcuser", ""), "there is no Service User Name for the Service User Password in line 5"),
        # Nothing of ours
        ("", "there is no HSM User Name"),
        ([TECHNICAL, " \n\t\r\n"], "Credentials 2 of 2: there is no HSM User Name"),
        (f"- Details for Restful-API:\n  JWT Token: {TOKEN}", "there is no HSM User Name"),
        # Texts that do not agree
        ([SERVICE, SERVICE.replace("k3eZ", "hunter2-hunter3")], "another password of the service user 'svcuser'"),
        (
            [TECHNICAL, TECHNICAL.replace(PIN, "hunter2-hunter3")],
            "another pkcs11_password of the partition 'PARTITION1'",
        ),
        ([TECHNICAL, CONSOLE.replace("bHocQ", "BHOCQ")], "Credentials 2 of 2: another setup_password of the partition"),
        ([SERVICE, SERVICE.replace("svcuser", "other")], "another proxy_user of the partition 'PARTITION1'"),
        # No texts
        (None, "Credentials 1 of 1 are not the text of a file"),
        ([SERVICE, {"hunter2-hunter3": SERVICE}], "Credentials 2 of 2 are not the text of a file"),
        ([SERVICE, [TECHNICAL]], "Credentials 2 of 2 are not the text of a file"),
        (b"hunter2-hunter3", "Credentials 1 of 1 are not the text of a file"),
    ],
)
def test_errors_say_where_and_not_what(content, said):
    assert said in refused(content)


# Whatever may stand in a line.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")
VALUES = st.text(CHARACTERS).map(str.strip).filter(bool)
FORMS = {
    "name": ["Service User Name", "Service (Proxy) User Name"],
    "password": ["Service User Password", "Service (Proxy) User Password"],
    "user_name": ["HSM User Name"],
    "setup_password": ["HSM User Setup Password", "Setup Password"],
    "pkcs11_password": ["PKCS#11 password ", "PKCS#11 PIN"],
}
BLANKS = st.text(" \t\u00a0", max_size=3)
PASSED_OVER = ["", "- Details  for Native-API (JCE, PKCS#11, MS CNG) ", "====", f"JWT Token: {TOKEN}", "Port: 2310"]


@st.composite
def label_lines(draw, values):
    """Lines for these values by key, in any order, with any case and white space, and with lines of other kinds."""
    lines = []
    for key, value in values.items():
        label = draw(st.sampled_from([str, str.lower, str.upper]))(draw(st.sampled_from(FORMS[key])))
        label = label.replace(" ", draw(BLANKS.filter(bool)))
        lines.append(draw(BLANKS) + label + draw(BLANKS) + ":" + draw(BLANKS) + value + draw(BLANKS))
    return draw(st.permutations(lines + draw(st.lists(st.sampled_from(PASSED_OVER), max_size=3))))


ALL_VALUES = st.fixed_dictionaries(
    {"user_name": VALUES, "name": VALUES},
    optional=dict.fromkeys(["password", "setup_password", "pkcs11_password"], VALUES),
)


@given(st.data(), ALL_VALUES, st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_values_read_back_exactly(data, values, line_break):
    result = read(line_break.join(data.draw(label_lines(values))))
    user = {key: values[key] for key in ("name", "password") if key in values}
    partition = {key: values[key] for key in ("user_name", "setup_password", "pkcs11_password") if key in values}
    assert result == {"service_users": [user], "partitions": [{**partition, "proxy_user": values["name"]}]}


# Long enough to have a piece that no message has by itself.
SECRETS = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=8)
FOREIGN = st.sampled_from(
    ["{} ", "Note: {}", "Service User Passwort: {}", "{}:", "HSM User Setup Password {}", "- Pin: {}"]
)
ANY_MESSAGE = "".join(refused(content) for content in ["x", TECHNICAL + SERVICE.replace("1\n", "2\n"), ""])


@given(st.data(), SECRETS.map("x y {}".format), FOREIGN, st.fixed_dictionaries(dict.fromkeys(FORMS, SECRETS)))
def test_a_foreign_line_is_refused_with_its_number(data, foreign, form, values):
    lines = data.draw(label_lines(values))
    place = data.draw(st.integers(0, len(lines)))
    text = "\n".join([*lines[:place], form.format(foreign), *lines[place:]])
    with pytest.raises(AnsibleFilterError) as caught:
        read([SERVICE, text])
    message = str(caught.value)
    assert f"Credentials 2 of 2: line {place + 1} is not understood" in message
    secret = [piece for value in [foreign, *values.values()] for piece in pieces(value)]
    assert not [piece for piece in secret if piece in message and piece not in ANY_MESSAGE]


@given(st.data(), st.sampled_from(sorted(FORMS)), SECRETS, st.fixed_dictionaries(dict.fromkeys(FORMS, SECRETS)))
def test_another_value_is_refused_with_its_line(data, key, other, values):
    lines = data.draw(label_lines(values))
    if other == values[key]:
        return
    with pytest.raises(AnsibleFilterError) as caught:
        read("\n".join([*lines, f"{FORMS[key][0]}: {other}"]))
    message = str(caught.value)
    assert f"Credentials 1 of 1: line {len(lines) + 1} has another {FORMS[key][0].strip()} than line " in message
    secret = [piece for value in [other, *values.values()] for piece in pieces(value)]
    assert not [piece for piece in secret if piece in message and piece not in ANY_MESSAGE]


@given(st.lists(st.one_of(st.text(), st.sampled_from([*CONSOLE.splitlines(), *SERVICE.splitlines(), "\n", ":", "-"]))))
@example([CONSOLE])
def test_any_text_is_read_or_refused(lines):
    try:
        result = read("\n".join(lines))
    except AnsibleFilterError as exc:
        assert not [piece for secret in HIDDEN for piece in pieces(secret) if piece in str(exc)]
    else:
        assert result["partitions"]
