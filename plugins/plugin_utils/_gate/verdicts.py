# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Derive the verdict on a login from a host's result. The result is not trusted: it is checked, and limited in size."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import parse_time
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import HINTS, NOT_ACCEPTED, NOT_EVALUATED
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import LAST_TIME, MEANING_LIMIT

ACCEPTED, REJECTED, UNCLEAR = "accepted", "rejected", "unclear"

PIN_CODE = "0x8000000B"
"""The code that says that the PKCS#11 password was rejected (the vendor's error list)."""

SETUP_CODE = "0x80005018"
"""The code that says that the setup password has expired."""

BUSY_CODES = ("0x80000018", "0x000000B1")
"""Codes of an HSM that was reached and refused the login, because too many clients are connected."""


class Verdict(t.NamedTuple):
    """The verdict on what was tried.

    :ivar value: ACCEPTED, REJECTED, UNCLEAR, or None when nothing was tried.
    :ivar error: as of bounded(); empty when there is none to note.
    :ivar unreachable: whether no HSM was reached.
    """

    value: t.Optional[str]
    error: t.Mapping[str, t.Optional[str]] = {}  # noqa: RUF012 (never changed)
    unreachable: bool = False


NOT_TRIED = Verdict(None)


def verdict_on_credential(result: t.Mapping[str, t.Any]) -> Verdict:
    """Return the verdict on the passwords that a module was given.

    If the login after a fetch is rejected, the passwords count as rejected: the same would happen on the next host.
    """
    logins = count_logins(result)
    if not result.get("failed"):
        if logins is None and "logins" in result:
            return Verdict(UNCLEAR, sanitized_error({"name": "the module's result cannot be understood"}))
        return Verdict(ACCEPTED if logins else None)
    error = sanitized_error(result.get("error") or {"name": "the module ended without a result"})
    if logins == 0:
        return Verdict(None, error, _unreachable(error))
    if error["class"] in NOT_ACCEPTED:
        return Verdict(REJECTED, error)
    if error["class"] in NOT_EVALUATED:
        return Verdict(None, error, _unreachable(error))
    return Verdict(UNCLEAR, error)


def verdict_on_secret(result: t.Mapping[str, t.Any]) -> Verdict:
    """Return the verdict on the present permanent secret. result: of a module, or its part about one partition."""
    error = sanitized_error(result["error"]) if result.get("error") else {}
    if not count_logins(result):
        return Verdict(None, error, bool(error) and _unreachable(error))
    verified = result.get("verified")
    if not isinstance(verified, bool):
        return Verdict(UNCLEAR, error or sanitized_error({"name": "the verdict on a login is not known"}))
    return Verdict(ACCEPTED) if verified else Verdict(REJECTED, error)


def _unreachable(error: t.Mapping[str, t.Optional[str]]) -> bool:
    return error["class"] == "transient" and error["code"] not in BUSY_CODES


def count_logins(result: t.Mapping[str, t.Any]) -> t.Optional[int]:
    """Return the number of logins in a module's result, or None when it is missing or not a number."""
    logins = result.get("logins")
    return logins if isinstance(logins, int) and not isinstance(logins, bool) and logins >= 0 else None


def sanitized_error(error: t.Any) -> t.Dict[str, t.Optional[str]]:
    """Return the `error` of a host's result for a record. The error is not trusted: it may have any form.

    :returns: `code`: `0x` and 8 hexadecimal digits, or None; `class`: a known one, otherwise `unknown`; `meaning`:
        printable, at most MEANING_LIMIT characters, may be empty.
    """
    given = error if isinstance(error, t.Mapping) else {"name": error}
    code, cls, meaning = given.get("code"), given.get("class"), given.get("name")
    printable = (
        (char if char.isprintable() else " " for char in meaning[:MEANING_LIMIT]) if isinstance(meaning, str) else ""
    )
    return {
        "code": code if isinstance(code, str) and re.fullmatch("0x[0-9A-Fa-f]{8}", code) else None,
        "class": cls if isinstance(cls, str) and cls in HINTS else "unknown",
        "meaning": "".join(printable),
    }


class PresentSecret(t.NamedTuple):
    """The permanent secret that a client reports to have.

    :ivar origin: the gate's token of the setup password that it was fetched with, or None when that is not known.
    :ivar since: when it was fetched, in seconds since 1970 by the client's clock; 0 when that is not known.
    """

    origin: t.Optional[str] = None
    since: float = 0.0


def present_secret(found: t.Mapping[str, t.Any]) -> PresentSecret:
    """Read `origin` and `since` of a host's result, which may have any form."""
    origin, since = found.get("origin"), found.get("since")
    known = isinstance(origin, str) and re.fullmatch("[0-9a-f]{64}", origin)
    return PresentSecret(str(origin) if known else None, float(min(max(parse_time(since) or 0, 0), LAST_TIME)))
