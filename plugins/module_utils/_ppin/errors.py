# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The error codes that ppin prints: the meaning of each, its class, and what to do next.

Sources: the error list of the vendor's PKCS#11 provider documentation, and PKCS #11 v2.40, section 5.1 (return values).
The classes are this collection's own.
"""

import os
import re
import typing as t

HINTS = {
    "bug": "This is an internal error of the provider: send the whole message to the vendor's support.",
    "config": "Correct the client's configuration, then run again.",
    "dialogue": "Run the same ppin command by hand to see what it asks for. No password was typed at an unknown "
    "prompt.",
    "expired": "Get a new setup password, then run again with it. On premises, the HSM's security officer creates it "
    "(hsm_sec_new_setup_pass, or hsm_user_new_setup_pass for a partition with a configuration of its own). For "
    "CloudHSM, open a ticket with the vendor's support.",
    "permission": "Run the task as root (become: true), or as a user who may read and write .secrets.cfg, with "
    "in_place if they may not write to its directory. Anyone who can write to the directory can replace every file in "
    "it.",
    "refused": "Access to this partition is disabled at the HSM: ask the HSM's security officer or the CloudHSM "
    "support to enable it, then run again.",
    "rejected": "Check the credential before the next run: every wrong one counts towards the lock-out "
    "of this partition for all its clients.",
    "state": "Inspect the client with hsmops.primus.ppin_info, then run again.",
    "timeout": "Run ppin by hand to see whether it hangs; raise timeout if the HSM is only slow. It is not known "
    "whether the HSM evaluated the credential: check the credential before the next run.",
    "transient": "The HSM evaluated no credential and counted no attempt. Check the address, the port, the firewall "
    "and that the HSM is running, then run again.",
    "unknown": "Read the output of ppin. If a password was used, it is not known whether the HSM evaluated it: check "
    "the password before the next run.",
}
"""What to do next, by class. Only errors of the class `transient` may be retried automatically."""

FILE_HINT = "Fix the file permissions or free disk space, then run again."
"""What to do next when the operating system reports that a file cannot be read or written."""

NOT_EVALUATED = ("transient", "config", "permission", "state")
"""Classes of errors that mean that the HSM has not evaluated a credential."""

NOT_ACCEPTED = ("rejected", "expired")
"""Classes of errors that mean that the HSM has evaluated a credential and has not accepted it."""

CODES = {
    "0x80000001": ("unexpected data type", "bug"),
    "0x80000002": ("buffer too small", "bug"),
    "0x80000003": ("duplicate entry", "state"),
    "0x80000004": ("no more keys", "state"),
    "0x80000005": ("public key not found", "state"),
    "0x80000006": ("private key not found", "state"),
    "0x80000008": ("invalid block cipher", "state"),
    "0x80000009": ("invalid mechanism", "state"),
    "0x8000000A": ("object not found", "state"),
    "0x8000000B": ("login failed, wrong PKCS#11 PIN", "rejected"),
    "0x8000000C": ("user not logged in", "state"),
    "0x8000000D": ("user not found", "config"),
    "0x8000000E": ("wrong password for the key", "state"),
    "0x80000012": ("key not found", "state"),
    "0x80000018": ("maximum number of connections exceeded", "transient"),
    "0x8000002A": ("key import not allowed", "refused"),
    "0x80000037": ("password expired", "expired"),
    "0x8000003B": ("connect timeout", "transient"),
    "0x80000058": ("EC curve unknown", "state"),
    "0x8000005F": ("session objects disabled by HSM configuration", "refused"),
    "0x80000069": ("access to the partition disabled by HSM configuration", "refused"),
    "0x80000084": ("DL group unknown", "state"),
    "0x80000085": ("PQC mode unknown", "state"),
    "0x80005001": ("no HSM or user configured", "config"),
    "0x80005002": ("HSM or user configuration already exists", "state"),
    "0x80005003": ("primus.cfg not found", "config"),
    "0x80005004": (".secrets.cfg not found", "config"),
    "0x80005005": ("primus.cfg invalid", "config"),
    "0x80005006": (".secrets.cfg invalid", "config"),
    "0x80005007": ("no write access to .secrets.cfg", "permission"),
    "0x80005008": ("failed to add the permanent secret to .secrets.cfg", "state"),
    "0x80005009": ("invalid element in .secrets.cfg", "config"),
    "0x80005010": ("failed to update .secrets.cfg", "state"),
    "0x80005011": ("failed to remove the permanent secret from .secrets.cfg", "state"),
    "0x80005012": ("user not found in primus.cfg", "config"),
    "0x80005013": ("unsupported secret types", "config"),
    "0x80005014": ("NULL list pointer", "bug"),
    "0x80005015": ("connection to the HSM failed (network, address not reachable)", "transient"),
    "0x80005017": ("login to the HSM failed with the credentials given (setup password)", "rejected"),
    "0x80005018": ("setup password expired", "expired"),
    "0x80005019": ("access to the partition disabled by HSM configuration", "refused"),
    # PKCS #11 return values that a provider can return before or at a login. The comments give the reason of the class.
    "0x00000002": ("CKR_HOST_MEMORY", "state"),  # the client has no memory left, so nothing was sent
    "0x00000003": ("CKR_SLOT_ID_INVALID", "config"),  # there is no such slot to log in to
    "0x00000005": ("CKR_GENERAL_ERROR", "unknown"),  # does not say whether the credential was evaluated
    "0x00000006": ("CKR_FUNCTION_FAILED", "unknown"),  # as CKR_GENERAL_ERROR
    "0x00000007": ("CKR_ARGUMENTS_BAD", "bug"),  # ppin has called its library with wrong arguments
    "0x00000030": ("CKR_DEVICE_ERROR", "unknown"),  # an error of the HSM, before or after the evaluation
    "0x00000031": ("CKR_DEVICE_MEMORY", "unknown"),  # the HSM lacks memory, before or after the evaluation
    "0x00000032": ("CKR_DEVICE_REMOVED", "unknown"),  # removed during the call: the verdict may be lost
    "0x00000054": ("CKR_FUNCTION_NOT_SUPPORTED", "bug"),
    "0x000000A0": ("CKR_PIN_INCORRECT", "rejected"),
    "0x000000A1": ("CKR_PIN_INVALID", "rejected"),  # has characters that a PIN cannot have: can never be accepted
    "0x000000A2": ("CKR_PIN_LEN_RANGE", "rejected"),  # is too long or too short: can never be accepted
    "0x000000A3": ("CKR_PIN_EXPIRED", "expired"),
    "0x000000A4": ("CKR_PIN_LOCKED", "refused"),
    "0x000000B0": ("CKR_SESSION_CLOSED", "unknown"),  # closed during the call: the verdict may be lost
    "0x000000B1": ("CKR_SESSION_COUNT", "transient"),  # too many sessions are open, so there was no login
    "0x000000B3": ("CKR_SESSION_HANDLE_INVALID", "unknown"),  # as CKR_SESSION_CLOSED
    "0x000000E0": ("CKR_TOKEN_NOT_PRESENT", "transient"),  # no HSM of any priority was reachable for the slot
    "0x000000E1": ("CKR_TOKEN_NOT_RECOGNIZED", "state"),  # what answered is not an HSM that the provider knows
    "0x00000100": ("CKR_USER_ALREADY_LOGGED_IN", "state"),
    "0x00000101": ("CKR_USER_NOT_LOGGED_IN", "state"),
    "0x00000102": ("CKR_USER_PIN_NOT_INITIALIZED", "state"),  # the partition has no PIN to compare with
    "0x00000103": ("CKR_USER_TYPE_INVALID", "bug"),
    "0x00000104": ("CKR_USER_ANOTHER_ALREADY_LOGGED_IN", "state"),
    "0x00000190": ("CKR_CRYPTOKI_NOT_INITIALIZED", "unknown"),  # loading the library may itself have logged in
    "0x00000191": ("CKR_CRYPTOKI_ALREADY_INITIALIZED", "bug"),
    "0x00000200": ("CKR_FUNCTION_REJECTED", "refused"),
}
"""Code, as printed by ppin with upper-case digits: (meaning, class)."""

NO_ANSWER, CONNECTION_FAILED = "0x8000003B", "0x80005015"
"""The codes of a missing answer. If a credential was sent before, the HSM may have evaluated it: it is not sent again.

CONNECTION_FAILED counts as "never connected", unless a login test shows that there was a connection.
"""

DUPLICATE_CODES = ("0x80000003", "0x80005002")

_CODE_HINTS = {
    "0x000000A3": "A password or PIN has expired, and the code does not say which. Have it set again: on premises by "
    "the HSM's security officer, for CloudHSM by the vendor's support (ticket).",
    "0x000000A4": "Too many wrong attempts have locked this credential of the partition for all its clients, for a "
    "time that is set at the HSM. Find the client that uses a wrong one. Then wait, or ask the HSM's security officer "
    "or the CloudHSM support to unlock it, and run again.",
    "0x000000E0": "The provider reached no HSM of any priority for this slot, so no credential was evaluated. Check "
    "the address, the port, the firewall and that the HSM is running, then run again. CloudHSM may accept only "
    "registered source addresses.",
    "0x00000190": "The provider's library could not be initialized, which with connect_on_init may include a login. "
    "Read the provider's log, and check that the HSM accepts the permanent secret before the next run.",
    "0x80000018": "The HSM has no free connection, so no credential was evaluated. Run again later, or on fewer hosts "
    "at once.",
    "0x8000000B": "The PKCS#11 password (PIN) was rejected, not the setup password. Check pkcs11_password before the "
    "next run: too many wrong ones lock the privileged access of this partition for all its clients.",
    "0x80005003": "Create primus.cfg, or set config_path to its path.",
    "0x80005004": "Create .secrets.cfg from the provider's template, or set secrets_path to its path.",
    "0x80005005": "Correct the libconfig syntax of primus.cfg, check it with ppin -l, then run again.",
    "0x80005006": "Restore .secrets.cfg from a backup, or replace it with the provider's template and set all "
    "credentials of this client again.",
}

_CODE = re.compile(r"(?<![0-9A-Fa-fxX])0[xX]([08Cc][0-9A-Fa-f]{7})(?![0-9A-Za-z])")
_SLOT_ID = re.compile(r"(?:slot-\s*id|\(\s*id)\s*=?\s*0x[0-9A-F]+", re.I)  # has the form of a code, and is none
_RETURN_NAME = re.compile(r"\bCKR_[A-Z0-9_]+", re.I)
_BY_NAME = {name: code for code, (name, _cls) in CODES.items() if name.startswith("CKR_")}
_RETURN_VALUE = re.compile(r"(?<![0-9A-Za-z])0[xX]0*([1-9A-Fa-f][0-9A-Fa-f]{0,7})(?![0-9A-Za-z])")


class PpinError(Exception):
    """A failure that is reported to the user.

    :arg msg: what happened, in one sentence without a full stop.
    :arg code: the vendor's code, `0x8nnnnnnn`, or None when there is none.
    :arg cls: a key of HINTS; taken from CODES for a known code, `unknown` by default.
    :arg hint: what to do next; taken from the code or the class by default.
    :ivar output: what ppin had printed before it was terminated; empty if it was not.
    """

    output = ""

    def __init__(
        self, msg: str, code: t.Optional[str] = None, cls: t.Optional[str] = None, hint: t.Optional[str] = None
    ) -> None:
        # With Python 3.6 in the locale C, paths contain surrogates.
        msg = msg.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        super().__init__(msg)
        self.msg = msg
        self.code = code
        name, code_cls = CODES.get(code or "", ("", "unknown"))
        self.name = name or msg
        self.cls = cls or code_cls
        self.hint = hint or _CODE_HINTS.get(code or "") or HINTS[self.cls]

    @property
    def is_rejection(self) -> bool:
        """Whether the HSM has evaluated a credential and has not accepted it."""
        return self.cls in NOT_ACCEPTED

    @property
    def may_be_evaluated(self) -> bool:
        """Whether the HSM has evaluated a credential, or may have."""
        return self.cls not in NOT_EVALUATED

    def result(self) -> t.Dict[str, t.Optional[str]]:
        """Return the `error` of a module's result: code (or None), name, class and hint, all strings."""
        return {"code": self.code, "name": self.name, "class": self.cls, "hint": self.hint}

    def failure(self, state: str = "") -> t.Dict[str, t.Any]:
        """Return arguments of `fail_json`: `msg` says what happened, the state (a sentence) and what to do next."""
        sentences = (self.msg.rstrip(".") + ".", state, self.hint)
        return {"msg": " ".join(filter(None, sentences)), "error": self.result()}


def find_code(text: str) -> t.Optional[str]:
    """Return the error code in the output of ppin, in the spelling of CODES, or None. 0x00000000 means no error.

    PKCS#11 return values are also found by their names. Of several codes, the one of the highest _certainty_rank is
    returned: if one HSM cannot be reached and the next one rejects the credential, the caller must not retry.
    """
    text = _SLOT_ID.sub("", text)
    found = [(match.start(), "0x" + match.group(1).upper()) for match in _CODE.finditer(text)]
    names = [(match.start(), match.group().upper()) for match in _RETURN_NAME.finditer(text)]
    found += [(place, _BY_NAME[name]) for place, name in names if name in _BY_NAME]
    codes = [code for _place, code in sorted(found) if code != "0x00000000"]
    return min(codes, key=_certainty_rank, default=None)


def _certainty_rank(code: str) -> int:
    """Rank codes, the most important first: a verdict of the HSM, other errors, unknown results, no evaluation."""
    cls = CODES.get(code, ("", "unknown"))[1]
    return 0 if cls in NOT_ACCEPTED + ("refused",) else {"unknown": 2, "transient": 3}.get(cls, 1)


def find_return_value(text: str) -> t.Optional[str]:
    """Return the code of one login in the output of ppin: as find_code, or a PKCS#11 return value with few digits."""
    code = find_code(text)
    if code is None:
        digits = _RETURN_VALUE.search(text)
        code = "0x%08X" % int(digits.group(1), 16) if digits else None
    return code


def error_from_code(code: str, operation: str) -> PpinError:
    """Return the error for a code that ppin printed. operation: such as "Adding the permanent secret of 'P'"."""
    if code in CODES:
        return PpinError("%s failed: %s %s" % (operation, code, CODES[code][0]), code)
    kind = "an HSM system error" if code.startswith("0xC") else "an error code that is not in the vendor's list"
    return PpinError("%s failed: %s, %s" % (operation, code, kind), code)


def error_from_crash(exc: BaseException) -> PpinError:
    """Return the error for an unexpected exception: its type and the line, and no data, which may be a password."""
    frame, place = exc.__traceback__, ""
    while frame is not None:
        place = "%s:%d" % (os.path.basename(frame.tb_frame.f_code.co_filename), frame.tb_lineno)
        frame = frame.tb_next
    return PpinError(
        "Unexpected error: %s at %s" % (type(exc).__name__, place),
        hint="This is a bug in hsmops.primus: report it with the versions of the collection and of Python, and this "
        "message.",
    )


def error_from_os_error(exc: OSError, operation: str = "") -> PpinError:
    """The error for a file that cannot be read or written (doing "primus.cfg cannot be put in place")."""
    message = [operation, exc.filename, exc.strerror or str(exc)]  # a full disk is found without a file's name
    return PpinError(
        ": ".join(str(part) for part in message if part),
        cls="permission",
        hint=FILE_HINT,
    )
