# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Remembers which password made each credential of a client, as a fingerprint, so that it is not spent twice.

ppin cannot tell it, and without it C(state=updated) would spend the setup password at every run.
"""

import base64
import calendar
import hashlib
import hmac
import json
import os
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._secrets_file import replace_file
from ansible_collections.hsmops.primus.plugins.module_utils._validity import TIME_FORMAT

ITERATIONS = 100000
"""PBKDF2 rounds. A setup password has 129 bits, so they matter for service proxy passwords only; the file is root's."""

VERSION = 1


class Ledger:
    """The JSON file C(.secrets.cfg.ledger) beside the secrets file, mode 0600.

    ``{"version": 1, "partitions": {NAME: {salt, iterations, hash, since}}, "service_users": {the same}}``; salt and
    hash in base64, since in UTC as ``YYYY-MM-DDTHH:MM:SSZ``; first_used the same, where the password was used before
    since. Beside them ``"rejected": {NAME: time}``, when a login
    with the permanent secret of a partition was rejected. A lost or damaged file counts as empty: see problem.
    """

    def __init__(self, secrets_path: str) -> None:
        self.path = secrets_path + ".ledger"
        self.problem: t.Optional[str] = None
        self._data = self._read()

    def _read(self) -> t.Dict[str, t.Any]:
        empty: t.Dict[str, t.Any] = {"version": VERSION, "partitions": {}, "service_users": {}, "rejected": {}}
        try:
            with open(self.path, "rb") as ledger:
                data = json.loads(ledger.read().decode("utf-8"))
            data.setdefault("rejected", {})
            _check(data)
            return data  # type: ignore[no-any-return]
        except OSError as exc:
            if os.path.lexists(self.path):
                self.problem = "The ledger %s cannot be read (%s)" % (self.path, exc.strerror)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            self.problem = "The ledger %s is damaged (%s)" % (self.path, exc)
        return empty

    def same(self, kind: str, name: str, password: str) -> bool:
        """Whether this password made the present credential. kind: C(partitions) or C(service_users)."""
        entry = self._data[kind].get(name)
        if entry is None:
            return False
        salt = base64.b64decode(entry["salt"])
        try:
            given = _hash(password, salt, entry["iterations"])
        except ValueError:  # FIPS mode refuses short passwords, so that no entry can be of one
            return False
        return hmac.compare_digest(given, base64.b64decode(entry["hash"]))

    def since(self, kind: str, name: str) -> t.Optional[str]:
        """When the present credential was set by this collection, or None when it does not know."""
        entry = self._data[kind].get(name)
        return entry["since"] if entry else None

    def first_used(self, kind: str, name: str) -> t.Optional[str]:
        """When this client first used the password that made the present credential, or None when it is not known."""
        entry = self._data[kind].get(name)
        return entry.get("first_used", entry["since"]) if entry else None

    def set_before(self, kind: str, name: str, seconds: float) -> bool:
        """Whether the present credential was set earlier than so many seconds ago; also if that is not known."""
        try:
            since = calendar.timegm(time.strptime(self.since(kind, name) or "", TIME_FORMAT))
        except ValueError:
            return True
        return time.time() - since > seconds

    def rejected(self, partition: str) -> t.Optional[str]:
        """When a login with the present permanent secret was rejected, or None when that is not known."""
        when: t.Optional[str] = self._data["rejected"].get(partition)
        return when

    def note_logins(self, verdicts: t.Mapping[str, bool]) -> None:
        """Note of partitions whether a login was accepted. :raises OSError: when the file cannot be written."""
        before = dict(self._data["rejected"])
        for partition, accepted in verdicts.items():
            if accepted:
                self._data["rejected"].pop(partition, None)
            else:
                self._data["rejected"].setdefault(partition, _now())
        if self._data["rejected"] != before:
            self._write()

    def remember(self, kind: str, name: str, password: str) -> None:
        """Note that this password made the credential.

        :raises OSError, ValueError: when the file cannot be written, or the fingerprint not be computed (FIPS mode).
        """
        first_used = self.first_used(kind, name) if self.same(kind, name, password) else None
        salt = os.urandom(16)
        self._data[kind][name] = {
            "salt": base64.b64encode(salt).decode("ascii"),
            "iterations": ITERATIONS,
            "hash": base64.b64encode(_hash(password, salt, ITERATIONS)).decode("ascii"),
            "since": _now(),
        }
        if first_used:
            self._data[kind][name]["first_used"] = first_used
        if kind == "partitions":
            self._data["rejected"].pop(name, None)
        self._write()

    def forget(self, kind: str, name: str) -> None:
        """Drop what is known of a removed credential. :raises OSError: when the file cannot be written."""
        known = [self._data[kind].pop(name, None)]
        if kind == "partitions":
            known.append(self._data["rejected"].pop(name, None))
        if any(known):
            self._write()

    def _write(self) -> None:
        if self.problem and os.path.lexists(self.path):
            # It may be of a newer version of this collection: set aside, under a name that decommission knows.
            os.rename(self.path, "%s.%d.%s~" % (self.path, os.getpid(), time.strftime("%Y-%m-%d@%H:%M:%S")))
        self.problem = None
        replace_file(self.path, (json.dumps(self._data, indent=2, sort_keys=True) + "\n").encode("utf-8"))


def _check(data: t.Mapping[str, t.Any]) -> None:
    """:raises ValueError, KeyError, TypeError, AttributeError: when the file does not have the form of a ledger."""
    if data["version"] != VERSION:
        raise ValueError("version %r is not known" % data["version"])
    for entry in list(data["partitions"].values()) + list(data["service_users"].values()):
        for key in ("salt", "hash"):
            base64.b64decode(entry[key])
        iterations = entry["iterations"]
        if not isinstance(iterations, int) or not 0 < iterations <= 100 * ITERATIONS:
            raise ValueError("an entry is damaged")
        if not isinstance(entry["since"], str) or not isinstance(entry.get("first_used", ""), str):
            raise ValueError("an entry is damaged")
    if not all(isinstance(when, str) for when in data["rejected"].values()):
        raise ValueError("an entry is damaged")


def _now() -> str:
    return time.strftime(TIME_FORMAT, time.gmtime())


def _hash(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode("utf-8"), salt, iterations)
