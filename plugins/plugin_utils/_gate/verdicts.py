# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What a host's result says of a login. A result is the data of a stranger: here it is checked, and bounded."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import parse_time
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import HINTS, NOT_ACCEPTED, NOT_EVALUATED
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import LAST_MOMENT, MEANING_LIMIT

ACCEPTED, REJECTED, UNCLEAR = "accepted", "rejected", "unclear"

PIN_CODE = "0x8000000B"
"""The code that names the PKCS#11 password as the one that was rejected (the vendor's error list)."""

SETUP_CODE = "0x80005018"
"""The code that names the setup password: it has expired."""

BUSY_CODES = ("0x80000018", "0x000000B1")
"""Codes of an HSM that was reached and took no login, as too many others are connected."""


class Verdict(t.NamedTuple):
    """What a login says of what was tried.

    :ivar value: ACCEPTED, REJECTED, UNCLEAR, or None when nothing was tried.
    :ivar error: as of bounded(); empty when there is none to note.
    :ivar unreachable: whether no HSM was reached.
    """

    value: t.Optional[str]
    error: t.Mapping[str, t.Optional[str]] = {}  # noqa: RUF012 (never changed)
    unreachable: bool = False


NOT_TRIED = Verdict(None)


def judge(result: t.Mapping[str, t.Any]) -> Verdict:
    """What the result of a module says of the credential that it was given.

    A login that is rejected after a fetch counts as a rejection: each further host would spend one more on it.
    """
    logins = logins_of(result)
    if not result.get("failed"):
        if logins is None and "logins" in result:
            return Verdict(UNCLEAR, bounded({"name": "the module's result cannot be understood"}))
        return Verdict(ACCEPTED if logins else None)
    error = bounded(result.get("error") or {"name": "the module ended without a result"})
    if logins == 0:
        return Verdict(None, error, _unreachable(error))
    if error["class"] in NOT_ACCEPTED:
        return Verdict(REJECTED, error)
    if error["class"] in NOT_EVALUATED:
        return Verdict(None, error, _unreachable(error))
    return Verdict(UNCLEAR, error)


def judge_login(result: t.Mapping[str, t.Any]) -> Verdict:
    """What a result, or the part of it that is about one partition, says of the permanent secret that was there."""
    error = bounded(result["error"]) if result.get("error") else {}
    if not logins_of(result):
        return Verdict(None, error, bool(error) and _unreachable(error))
    verified = result.get("verified")
    if not isinstance(verified, bool):
        return Verdict(UNCLEAR, error or bounded({"name": "the verdict on a login is not known"}))
    return Verdict(ACCEPTED) if verified else Verdict(REJECTED, error)


def _unreachable(error: t.Mapping[str, t.Optional[str]]) -> bool:
    return error["class"] == "transient" and error["code"] not in BUSY_CODES


def logins_of(result: t.Mapping[str, t.Any]) -> t.Optional[int]:
    """How many logins a module's result tells of, or None when it does not, or not as a number."""
    logins = result.get("logins")
    return logins if isinstance(logins, int) and not isinstance(logins, bool) and logins >= 0 else None


def bounded(error: t.Any) -> t.Dict[str, t.Optional[str]]:
    """What a record keeps of the `error` in a host's result, which may be anything.

    :returns: `code`, `0x` and 8 hexadecimal digits, or None; `class`, one that is known, else `unknown`;
        `meaning`, printable and of at most MEANING_LIMIT characters, empty when there is none.
    """
    told = error if isinstance(error, t.Mapping) else {"name": error}
    code, cls, meaning = told.get("code"), told.get("class"), told.get("name")
    printable = (
        (char if char.isprintable() else " " for char in meaning[:MEANING_LIMIT]) if isinstance(meaning, str) else ""
    )
    return {
        "code": code if isinstance(code, str) and re.fullmatch("0x[0-9A-Fa-f]{8}", code) else None,
        "class": cls if isinstance(cls, str) and cls in HINTS else "unknown",
        "meaning": "".join(printable),
    }


class Entry(t.NamedTuple):
    """What a client says of the permanent secret that it has.

    :ivar origin: the token of the credential that it was fetched with, or None when that is not known.
    :ivar since: when it was fetched, in seconds since 1970 by the client's clock; 0 when that is not known.
    """

    origin: t.Optional[str] = None
    since: float = 0.0


def entry_of(found: t.Mapping[str, t.Any]) -> Entry:
    """The entry that a host's result tells of with `origin` and `since`, which may be anything."""
    origin, since = found.get("origin"), found.get("since")
    known = isinstance(origin, str) and re.fullmatch("[0-9a-f]{64}", origin)
    return Entry(str(origin) if known else None, float(min(max(parse_time(since) or 0, 0), LAST_MOMENT)))
