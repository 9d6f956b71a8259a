# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error codes: what each means, which class it has, and how they are found in what ppin prints."""

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    CODES,
    HINTS,
    PpinError,
    error_from_code,
    error_from_os_error,
    find_code,
)

# The vendor's list, with this collection's class.
TABLE = [
    ("0x80000001", "unexpected data type", "bug"),
    ("0x80000002", "buffer too small", "bug"),
    ("0x80000003", "duplicate entry", "state"),
    ("0x80000004", "no more keys", "state"),
    ("0x80000005", "public key not found", "state"),
    ("0x80000006", "private key not found", "state"),
    ("0x80000008", "invalid block cipher", "state"),
    ("0x80000009", "invalid mechanism", "state"),
    ("0x8000000A", "object not found", "state"),
    ("0x8000000B", "login failed, wrong PKCS#11 PIN", "rejected"),
    ("0x8000000C", "user not logged in", "state"),
    ("0x8000000D", "user not found", "config"),
    ("0x8000000E", "wrong password for the key", "state"),
    ("0x80000012", "key not found", "state"),
    ("0x80000018", "maximum number of connections exceeded", "transient"),
    ("0x8000002A", "key import not allowed", "refused"),
    ("0x80000037", "password expired", "expired"),
    ("0x8000003B", "connect timeout", "transient"),
    ("0x80000058", "EC curve unknown", "state"),
    ("0x8000005F", "session objects disabled by HSM configuration", "refused"),
    ("0x80000069", "access to the partition disabled by HSM configuration", "refused"),
    ("0x80000084", "DL group unknown", "state"),
    ("0x80000085", "PQC mode unknown", "state"),
    ("0x80005001", "no HSM or user configured", "config"),
    ("0x80005002", "HSM or user configuration already exists", "state"),
    ("0x80005003", "primus.cfg not found", "config"),
    ("0x80005004", ".secrets.cfg not found", "config"),
    ("0x80005005", "primus.cfg invalid", "config"),
    ("0x80005006", ".secrets.cfg invalid", "config"),
    ("0x80005007", "no write access to .secrets.cfg", "permission"),
    ("0x80005008", "failed to add the permanent secret to .secrets.cfg", "state"),
    ("0x80005009", "invalid element in .secrets.cfg", "config"),
    ("0x80005010", "failed to update .secrets.cfg", "state"),
    ("0x80005011", "failed to remove the permanent secret from .secrets.cfg", "state"),
    ("0x80005012", "user not found in primus.cfg", "config"),
    ("0x80005013", "unsupported secret types", "config"),
    ("0x80005014", "NULL list pointer", "bug"),
    ("0x80005015", "connection to the HSM failed (network, address not reachable)", "transient"),
    ("0x80005017", "login to the HSM failed with the credentials given (setup password)", "rejected"),
    ("0x80005018", "setup password expired", "expired"),
    ("0x80005019", "access to the partition disabled by HSM configuration", "refused"),
]

# PKCS #11 v2.40, pkcs11t.h: what a provider can give at a login, by what a caller may do next.
PKCS11 = [
    ("0x00000002", "CKR_HOST_MEMORY", "state"),
    ("0x00000003", "CKR_SLOT_ID_INVALID", "config"),
    ("0x00000005", "CKR_GENERAL_ERROR", "unknown"),
    ("0x00000006", "CKR_FUNCTION_FAILED", "unknown"),
    ("0x00000007", "CKR_ARGUMENTS_BAD", "bug"),
    ("0x00000030", "CKR_DEVICE_ERROR", "unknown"),
    ("0x00000031", "CKR_DEVICE_MEMORY", "unknown"),
    ("0x00000032", "CKR_DEVICE_REMOVED", "unknown"),
    ("0x00000054", "CKR_FUNCTION_NOT_SUPPORTED", "bug"),
    ("0x000000A0", "CKR_PIN_INCORRECT", "rejected"),
    ("0x000000A1", "CKR_PIN_INVALID", "rejected"),
    ("0x000000A2", "CKR_PIN_LEN_RANGE", "rejected"),
    ("0x000000A3", "CKR_PIN_EXPIRED", "expired"),
    ("0x000000A4", "CKR_PIN_LOCKED", "refused"),
    ("0x000000B0", "CKR_SESSION_CLOSED", "unknown"),
    ("0x000000B1", "CKR_SESSION_COUNT", "transient"),
    ("0x000000B3", "CKR_SESSION_HANDLE_INVALID", "unknown"),
    ("0x000000E0", "CKR_TOKEN_NOT_PRESENT", "transient"),
    ("0x000000E1", "CKR_TOKEN_NOT_RECOGNIZED", "state"),
    ("0x00000100", "CKR_USER_ALREADY_LOGGED_IN", "state"),
    ("0x00000101", "CKR_USER_NOT_LOGGED_IN", "state"),
    ("0x00000102", "CKR_USER_PIN_NOT_INITIALIZED", "state"),
    ("0x00000103", "CKR_USER_TYPE_INVALID", "bug"),
    ("0x00000104", "CKR_USER_ANOTHER_ALREADY_LOGGED_IN", "state"),
    ("0x00000190", "CKR_CRYPTOKI_NOT_INITIALIZED", "unknown"),
    ("0x00000191", "CKR_CRYPTOKI_ALREADY_INITIALIZED", "bug"),
    ("0x00000200", "CKR_FUNCTION_REJECTED", "refused"),
]


@pytest.mark.parametrize(("code", "meaning", "cls"), [*TABLE, *PKCS11])
def test_code(code, meaning, cls):
    error = error_from_code(code, "Adding the permanent secret of 'P'")
    assert (error.code, error.name, error.cls) == (code, meaning, cls)
    assert error.msg == str(error)
    assert error.msg.startswith("Adding the permanent secret of 'P' failed")
    assert code in error.msg and meaning in error.msg
    assert error.hint
    assert error.result() == {"code": code, "name": meaning, "class": cls, "hint": error.hint}


@pytest.mark.parametrize(
    ("code", "told", "not_told"),
    [
        ("0x80000018", "no free connection", "firewall"),
        ("0x000000A3", "does not say which", "Get a new setup password"),
        ("0x000000A4", "have locked", "switched off"),
    ],
)
def test_hints_that_are_not_those_of_the_class(code, told, not_told):
    hint = PpinError("", code).hint
    assert told in hint and not_told not in hint


def test_no_other_code_is_known():
    assert sorted(CODES) == sorted(code for code, _meaning, _cls in [*TABLE, *PKCS11])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("0xC0000001", "HSM system error"),
        ("0xCFFFFFFF", "HSM system error"),
        ("0x80005016", "not in the vendor's list"),
        ("0x00000099", "not in the vendor's list"),
    ],
)
def test_unlisted_code(code, kind):
    error = error_from_code(code, "Listing")
    assert (error.code, error.cls, error.hint) == (code, "unknown", HINTS["unknown"])
    assert code in error.msg and kind in error.msg


@pytest.mark.parametrize("code", [code for code, _meaning, _cls in [*TABLE, *PKCS11]] + ["0xC0000001", "0x80005016"])
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "Error: {}\n",
        "error={}, giving up",
        "failed ({})",
        "[{}]",
        "<{}>",
        "'{}'",
        '"{}"',
        "rc:{}.",
        "\tcode\t{}\r\n",
        "first line\nlast line {}",
        "Provide setup password for 'P': \r\n{}\r\n",
        "{}: login failed",
        "0x00000000 {}",
        "0x12 {}",
        "connection 0x2000000e: {}",
        "{} 0x80005015",
    ],
)
def test_find_code(code, form):
    assert find_code(form.format(code)) == code


def test_find_coloured_code():
    assert find_code("\x1b[31m0x80005017\x1b[0m") == "0x80005017"


@pytest.mark.parametrize(
    ("spelling", "code"),
    [
        ("0x8000000b", "0x8000000B"),
        ("0X8000000B", "0x8000000B"),
        ("0X8000000b", "0x8000000B"),
        ("0x000000a0", "0x000000A0"),
        ("0xC000000a", "0xC000000A"),
        ("0xc000000a", "0xC000000A"),
    ],
)
def test_find_code_in_either_case(spelling, code):
    assert find_code("error " + spelling) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Configured",
        "0x00000000",
        "0X00000000 0x00000000",
        "0x",
        "0x8000501",
        "0x800050170",
        "0x80005017F",
        "0x8000501G",
        "0x80005017x",
        "00x80005017",
        "a0x80005017",
        "80005017",
        "2147504151",
        "0x 80005017",
        "0x8000 5017",
        "0x80\n005017",
        "0x12 (C_GetAttributeValue: Requested attribute type is not valid)",
        "over TCP connection 0x2000000e (IP 198.51.100.194:31550)",
        "0x10000001 0x7FFFFFFF 0x90005017 0xA0005017 0xB0005017 0xD0000001 0xFFFFFFFF",
        "0x0000000080005017",
        "Client: hsmcons@W10C-TESTCLIENT@192.0.2.76@00:0c:29:73:e6:7b",
        "trace_mask = 0x04",
        "[01] slot-id 0x00000001: user 'P1' permanent secret: MISSING",
        "slot0 (id=0x80005017), user=P1: OK",
        "slot0 (id = 0x00000002), user=P1: failed",
        "d41d8cd98f00b204e9800998ecf8427e",
        "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3",
    ],
)
def test_find_no_code(text):
    assert find_code(text) is None


def test_the_first_code_is_found():
    assert find_code("0x00000000\n0x80005017\n0x80005018") == "0x80005017"


@pytest.mark.parametrize(("code", "name", "cls"), PKCS11)
@pytest.mark.parametrize("form", ["{}", "Error: {}", "login failed ({})", "rv={},", "\t{}\r\n", "0x80005015 {}: again"])
def test_find_a_return_value_by_its_name(code, name, cls, form):
    expected = "0x80005015" if cls == "transient" and "0x80005015" in form else code
    assert find_code(form.format(name)) == expected
    assert find_code(form.format(name.lower())) == expected


@pytest.mark.parametrize("text", ["CKR_OK", "CKR_PIN", "CKR_PIN_INCORRECTLY", "XCKR_PIN_INCORRECT", "PIN_INCORRECT"])
def test_no_other_name_is_found(text):
    assert find_code(text) is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0x80005010 failed to update, 0x80005017", "0x80005017"),
        ("CKR_GENERAL_ERROR 0x8000000B", "0x8000000B"),
        ("0x8000000A CKR_FUNCTION_FAILED", "0x8000000A"),
        ("CKR_TOKEN_NOT_PRESENT CKR_DEVICE_REMOVED", "0x00000032"),
        ("0x80005012 0x8000000A", "0x80005012"),
        ("slot0 (id=0x00000001), user=P1: 0x80005017", "0x80005017"),
        ("[01] Slot-ID 0x00000005: user 'P1' permanent secret: MISSING\n0x80005018", "0x80005018"),
        ("error id 0x80005018", "0x80005018"),
        ("CKR_TOKEN_NOT_PRESENT, 0xC0000001", "0xC0000001"),
    ],
)
def test_of_several_codes_the_one_that_says_most(text, code):
    assert find_code(text) == code


@pytest.mark.parametrize("code", ["0x80005017", "0x8000000B", "0x80001234"])
def test_a_verdict_is_found_behind_an_hsm_that_cannot_be_reached(code):
    assert find_code("hsm0: 0x80005015\nhsm1: 0x8000003b\nhsm2: %s" % code) == code
    assert find_code("hsm0: 0x80005015\nhsm1: 0x8000003b") == "0x80005015"


def test_error_without_a_code():
    error = PpinError("It did not work")
    assert error.result() == {
        "code": None,
        "name": "It did not work",
        "class": "unknown",
        "hint": HINTS["unknown"],
    }


@pytest.mark.parametrize("cls", sorted(HINTS))
def test_error_with_a_class(cls):
    error = PpinError("It did not work", cls=cls)
    assert (error.cls, error.hint) == (cls, HINTS[cls])


def test_what_is_given_wins_over_the_table():
    error = PpinError("It did not work", "0x80005017", cls="timeout", hint="Wait.")
    assert error.result() == {
        "code": "0x80005017",
        "name": "login to the HSM failed with the credentials given (setup password)",
        "class": "timeout",
        "hint": "Wait.",
    }


def test_a_wrong_pin_and_a_wrong_setup_password_have_different_hints():
    pin, setup = (error_from_code(code, "Adding").hint for code in ("0x8000000B", "0x80005017"))
    assert pin != setup
    assert "pkcs11_password" in pin


@pytest.mark.parametrize(
    ("exc", "doing", "msg"),
    [
        (PermissionError(13, "Permission denied", "/etc/primus"), "", "/etc/primus: Permission denied"),
        (OSError(28, "No space left on device"), "The log", "The log: No space left on device"),
        (OSError("it is gone"), "", "it is gone"),
    ],
)
def test_an_error_of_a_file(exc, doing, msg):
    error = error_from_os_error(exc, doing)
    assert (error.msg, error.cls) == (msg, "permission")
    assert error.failure("Nothing was changed.")["msg"] == f"{msg}. Nothing was changed. {error.hint}"
