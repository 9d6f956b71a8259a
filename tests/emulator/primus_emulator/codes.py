# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error codes that the vendor documents, as numbers, their meaning, and the exception that carries one."""

OK = 0
TOKEN_NOT_PRESENT = 0x000000E0
DUPLICATE_ENTRY = 0x80000003
OBJECT_NOT_FOUND = 0x8000000A
WRONG_PKCS11_PASSWORD = 0x8000000B
NOT_LOGGED_IN = 0x8000000C
USER_NOT_FOUND = 0x8000000D
TOO_MANY_CONNECTIONS = 0x80000018
CONNECT_TIMEOUT = 0x8000003B
NOTHING_CONFIGURED = 0x80005001
ALREADY_CONFIGURED = 0x80005002
CONFIG_NOT_FOUND = 0x80005003
SECRETS_NOT_FOUND = 0x80005004
CONFIG_INVALID = 0x80005005
SECRETS_INVALID = 0x80005006
SECRETS_NOT_WRITABLE = 0x80005007
ELEMENT_INVALID = 0x80005009
UPDATE_FAILED = 0x80005010
REMOVE_FAILED = 0x80005011
USER_NOT_CONFIGURED = 0x80005012
CONNECT_FAILED = 0x80005015
LOGIN_REJECTED = 0x80005017
SETUP_PASSWORD_EXPIRED = 0x80005018
PARTITION_DISABLED = 0x80005019

MEANING = {
    TOKEN_NOT_PRESENT: "CKR_TOKEN_NOT_PRESENT: no HSM of any priority reachable for the slot",
    0x80000001: "unexpected data type",
    0x80000002: "buffer too small",
    DUPLICATE_ENTRY: "duplicate entry",
    0x80000004: "no more keys",
    0x80000005: "public key not found",
    0x80000006: "private key not found",
    0x80000008: "invalid block cipher",
    0x80000009: "invalid mechanism",
    OBJECT_NOT_FOUND: "object not found",
    WRONG_PKCS11_PASSWORD: "login failed, wrong PKCS#11 PIN",
    NOT_LOGGED_IN: "user not logged in",
    USER_NOT_FOUND: "user not found",
    0x8000000E: "wrong password for the key",
    0x80000012: "key not found",
    TOO_MANY_CONNECTIONS: "maximum number of connections exceeded",
    0x8000002A: "key import not allowed",
    0x80000037: "password expired",
    CONNECT_TIMEOUT: "connect timeout",
    0x80000058: "EC curve unknown",
    0x8000005F: "session objects disabled by HSM configuration",
    0x80000069: "access to the partition disabled by HSM configuration",
    0x80000084: "DL group unknown",
    0x80000085: "PQC mode unknown",
    NOTHING_CONFIGURED: "no HSM or user configured",
    ALREADY_CONFIGURED: "HSM or user configuration already exists",
    CONFIG_NOT_FOUND: "primus.cfg not found",
    SECRETS_NOT_FOUND: ".secrets.cfg not found",
    CONFIG_INVALID: "primus.cfg invalid",
    SECRETS_INVALID: ".secrets.cfg invalid",
    SECRETS_NOT_WRITABLE: "no write access to .secrets.cfg",
    0x80005008: "failed to add the permanent secret to .secrets.cfg",
    ELEMENT_INVALID: "invalid element in .secrets.cfg",
    UPDATE_FAILED: "failed to update .secrets.cfg",
    REMOVE_FAILED: "failed to remove the permanent secret from .secrets.cfg",
    USER_NOT_CONFIGURED: "user not found in primus.cfg",
    0x80005013: "unsupported secret types",
    0x80005014: "NULL list pointer",
    CONNECT_FAILED: "connection to the HSM failed (network, address not reachable)",
    LOGIN_REJECTED: "login to the HSM failed with the credentials given (setup password)",
    SETUP_PASSWORD_EXPIRED: "setup password expired",
    PARTITION_DISABLED: "access to the partition disabled by HSM configuration",
}

# PKCS#11 names of return values, for output that has no codes. The mapping is the emulator's own.
_PKCS11_NAMES = {
    TOKEN_NOT_PRESENT: "CKR_TOKEN_NOT_PRESENT",
    CONNECT_FAILED: "CKR_TOKEN_NOT_PRESENT",
    CONNECT_TIMEOUT: "CKR_TOKEN_NOT_PRESENT",
    LOGIN_REJECTED: "CKR_PIN_INCORRECT",
    WRONG_PKCS11_PASSWORD: "CKR_PIN_INCORRECT",
    OBJECT_NOT_FOUND: "CKR_USER_PIN_NOT_INITIALIZED",
}


def text(code: int) -> str:
    """Return a code as the vendor writes it, e.g. `0x80005017`."""
    return "0x%08X" % code


def pkcs11_name(code: int) -> str:
    """Return a code as the name of a PKCS#11 return value, e.g. `CKR_PIN_INCORRECT`."""
    return _PKCS11_NAMES.get(code, "CKR_DEVICE_ERROR")


class PpinError(Exception):
    """A failure that ends ppin. code: a documented one, or None."""

    def __init__(self, code, text=""):
        self.code = code
        self.text = text or MEANING.get(code, "failed")
        super().__init__(self.text)
