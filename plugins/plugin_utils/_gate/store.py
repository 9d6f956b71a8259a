# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What the stores of the attempt gate have in common: records, turns, and the key that records are derived with.

A record is a dict with the fields of FIELDS under a key, 64 hexadecimal digits. Records whose keys begin with the same
digits can be read without the others. A record never holds a password. A turn is the exclusive right to do something
under a key, held by one process at a time of all control nodes that share the store.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
import typing as t

Record = t.Dict[str, t.Any]

POLL = 0.2
"""Seconds between two attempts to get a turn that another host has."""

CLOCK_KEPT = 60
"""Seconds for which a process relies on the difference between its clock and that of the store."""

SECRET_BYTES = 32

KEY = re.compile("[0-9a-f]{64}")

CLEAR_ALL = (
    "ansible localhost -m hsmops.primus.attempt_gate -a 'all=true state=absent', "
    "with the gate_store that this task has, if any"
)


class GateError(Exception):
    """The store cannot be used; the message is one for the operator. Raised before a credential is used."""


# Records

TEXT_LIMIT = 1000
"""Characters of the name or host in a record."""

MEANING_LIMIT = 200

LIST_LIMIT = 1000
"""Times that a record can list."""

WITNESS_LIMIT = 10
"""Hosts that a record can list."""

SIZE_LIMIT = 65536
"""Bytes of a record as JSON. No record within the other limits is longer."""

LAST_MOMENT = 253402300799
"""The end of the year 9999, in seconds since 1970: what is later has no date."""


def _is_text(limit: int) -> t.Callable[[t.Any], bool]:
    return lambda value: isinstance(value, str) and len(value) <= limit


def _is_moment(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LAST_MOMENT


def _or_none(is_valid: t.Callable[[t.Any], bool]) -> t.Callable[[t.Any], bool]:
    return lambda value: value is None or is_valid(value)


REQUIRED: t.Dict[str, t.Callable[[t.Any], bool]] = {
    "verdict": _is_text(40),
    "kind": _is_text(40),
    "name": _is_text(TEXT_LIMIT),
    "host": _is_text(TEXT_LIMIT),
    "time": _is_moment,
}
"""What each record has. Times are seconds since 1970 by the clock of the store."""

FIELDS: t.Dict[str, t.Callable[[t.Any], bool]] = {
    **REQUIRED,
    "code": _or_none(_is_text(10)),
    "meaning": _or_none(_is_text(MEANING_LIMIT)),
    "class": _or_none(_is_text(40)),
    "first_used": _or_none(_is_moment),
    "run": _or_none(_is_text(TEXT_LIMIT)),
    "permits": _or_none(lambda value: isinstance(value, int) and value is not True and 0 < value <= LIST_LIMIT),
    "wrong": lambda value: isinstance(value, list) and len(value) <= LIST_LIMIT and all(map(_is_moment, value)),
    "witnesses": lambda value: (
        isinstance(value, list) and len(value) <= WITNESS_LIMIT and all(map(_is_text(TEXT_LIMIT), value))
    ),
    "sure": lambda value: isinstance(value, bool),
    "since": _or_none(_is_moment),
}
"""All that a record can have. A record with anything else is damaged."""


def check(record: t.Any) -> None:
    """:raises ValueError: when this is not a record. The message names the field, not its content."""
    if not isinstance(record, dict) or not set(REQUIRED) <= set(record) <= set(FIELDS):
        raise ValueError("not the fields of a record")
    for field, value in record.items():
        if not FIELDS[field](value):
            raise ValueError(f"the field {field} of a record has a wrong type or is too long")


def encode(record: Record, expires: t.Optional[float] = None) -> bytes:
    """A record as it is stored, with the time at which it expires. :raises ValueError: when parse() would refuse it."""
    check(record)
    content = record if expires is None else {**record, "expires": expires}
    return (json.dumps(content, sort_keys=True) + "\n").encode("ascii")


def parse(content: bytes) -> t.Tuple[Record, t.Optional[float]]:
    """What encode() was given. :raises ValueError: when it is damaged."""
    if len(content) > SIZE_LIMIT:
        raise ValueError("too long for a record")
    try:
        record = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("not a record") from None
    expires = record.pop("expires", None) if isinstance(record, dict) else None
    check(record)
    if expires is not None and not _is_moment(expires):
        raise ValueError("not a time")
    return record, expires


# What both kinds of stores have


class Turn:
    """A turn, or the attempt to get it."""

    @property
    def lost(self) -> bool:
        """Whether another process may have had the turn before this one was done with it; also after the turn."""
        raise NotImplementedError

    def take(self) -> t.Optional[str]:
        """Try to get the turn: None, or the name of the host that has it, empty when it is not known."""
        raise NotImplementedError

    def release(self) -> None:
        """Give it back, whether it was had or not. Raises nothing: the turn ends with the process in any case."""
        raise NotImplementedError


class Store:
    """What the gate asks of a store. Every method raises GateError when the store cannot do it."""

    _clocks: t.ClassVar[t.Dict[str, t.Tuple[float, float]]] = {}

    def __init__(self, where: str) -> None:
        self._where = where

    def secret(self) -> bytes:
        """The key that keys are derived with, the same for all who share the store. Made at its first use.

        :raises GateError: when it is lost: there are records, which nobody would find with a new one.
        """
        secret = self._read_secret()
        if secret is None:
            known = bool(self.keys())
            if not known:
                self._make_secret(secrets.token_bytes(SECRET_BYTES))
            secret = self._read_secret()  # who makes one does so before a record: there may be one now
            if secret is None and known:
                raise self._lost_secret()
        if secret is None or len(secret) != SECRET_BYTES:
            state = "gone again" if secret is None else "damaged"
            raise GateError(
                f"The key of the attempt gate, {self._secret_at}, is {state}. "
                f"Restore it from a backup, or {self._start_again}; what the gate knows is lost then"
            )
        return secret

    _secret_at = ""
    """What holds the key, for messages."""

    _start_again = ""
    """What to do to have a new key."""

    def _lost_secret(self) -> GateError:
        return GateError(
            f"The key of the attempt gate, {self._secret_at}, is missing, but the records that were made with it are "
            "there. With a new key none of them would be found, and rejected credentials would be tried again. Restore "
            f"the key from a backup, or clear all entries deliberately: {CLEAR_ALL}"
        )

    def _read_secret(self) -> t.Optional[bytes]:
        """The secret, or None when there is none; empty when it is damaged."""
        raise NotImplementedError

    def _make_secret(self, secret: bytes) -> None:
        """Keep it, unless there is one now."""
        raise NotImplementedError

    def now(self) -> float:
        """Seconds since 1970 by the store's clock, which is the same for all who share it."""
        measured, difference = self._clocks.get(self._where, (float("-inf"), 0.0))
        if time.monotonic() - measured > CLOCK_KEPT:
            moment = self._ask_time()
            measured = time.monotonic()
            difference = moment - measured
            self._clocks[self._where] = measured, difference
        return time.monotonic() + difference

    def _ask_time(self) -> float:
        raise NotImplementedError

    @contextlib.contextmanager
    def turn(self, key: str, holder: str, timeout: float, waiting: t.Callable[[str], None]) -> t.Iterator[Turn]:
        """Have the turn for the body of a with statement. It ends with the process that has it, however that ends.

        :arg holder: name of the host that asks, for those that wait.
        :arg timeout: seconds to wait for it.
        :arg waiting: called once with the holder's name (empty when it is not known) if there is a wait.
        """
        turn = self.new_turn(key, holder)
        try:
            wait(turn, timeout, waiting)
            yield turn
        finally:
            turn.release()

    def new_turn(self, key: str, holder: str) -> Turn:
        """A turn that is still to be taken, and released by whoever tries to."""
        raise NotImplementedError

    def is_new(self) -> bool:
        """Whether nobody has used the store yet. Makes nothing."""
        return self._read_secret() is None

    def read(self, key: str) -> t.Optional[Record]:
        """The record, or None when there is none or it has expired. Fails when it is damaged."""
        raise NotImplementedError

    def write(self, key: str, record: Record, ttl: t.Optional[float] = None) -> None:
        """Replace the record, whole or not at all.

        :arg ttl: seconds after which it is forgotten; None: it stays until it is removed.
        :raises ValueError: when read() would refuse it.
        """
        raise NotImplementedError

    def remove(self, key: str) -> None:
        """Forget the record, if there is one."""
        raise NotImplementedError

    def keys(self, prefix: str = "") -> t.List[str]:
        """The keys that begin with these digits, also those of records that are damaged or have expired."""
        raise NotImplementedError

    def items(self, prefix: str = "") -> t.List[t.Tuple[str, Record]]:
        """The records whose keys begin with these digits, with their keys, without those that are damaged."""
        raise NotImplementedError


def wait(turn: Turn, timeout: float, waiting: t.Callable[[str], None]) -> None:
    """Ask for a turn until it is had; timeout and waiting as for Store.turn.

    :raises GateError: when it takes longer.
    """
    deadline = time.monotonic() + timeout
    told = False
    while True:
        holder = turn.take()
        if holder is None:
            return
        if not told:
            waiting(holder)
            told = True
        if time.monotonic() > deadline:
            raise GateError(
                "Waited for more than %d seconds for %s, which tries a credential of the same name. Run again later."
                % (timeout, holder or "another host")
            )
        time.sleep(POLL)
