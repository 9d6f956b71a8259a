# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Base classes of the attempt gate's stores, and the format of their records.

A record is a dictionary with the fields of FIELDS, stored under a key of 64 hexadecimal digits. Keys are HMACs, made
with the key of the store. Records whose keys begin with the same digits can be read without the others. A record never
has a password. A turn is an exclusive lock on a key: one process of all control nodes that share the store holds it.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shlex
import time
import typing as t

Record = t.Dict[str, t.Any]

POLL_INTERVAL = 0.2
"""Seconds between two attempts to get a turn that another host holds."""

CLOCK_MAX_AGE = 60
"""Seconds for which a process uses the measured difference between its clock and that of the store."""

SECRET_BYTES = 32

KEY = re.compile("[0-9a-f]{64}")


class GateError(Exception):
    """The store cannot be used. The message is for the user."""


# Records

TEXT_LIMIT = 1000
"""Characters of the name or host in a record."""

MEANING_LIMIT = 200

LIST_LIMIT = 1000
"""Number of times in a list of a record."""

WITNESS_LIMIT = 10
"""Number of hosts in a list of a record."""

SIZE_LIMIT = 65536
"""Bytes of a record as JSON. No record within the other limits is longer."""

LAST_TIME = 253402300799
"""The end of the year 9999, in seconds since 1970. Python cannot format a later date."""


def _is_text(limit: int) -> t.Callable[[t.Any], bool]:
    return lambda value: isinstance(value, str) and len(value) <= limit


def _is_time(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LAST_TIME


def _or_none(is_valid: t.Callable[[t.Any], bool]) -> t.Callable[[t.Any], bool]:
    return lambda value: value is None or is_valid(value)


REQUIRED_FIELDS: t.Dict[str, t.Callable[[t.Any], bool]] = {
    "verdict": _is_text(40),
    "kind": _is_text(40),
    "name": _is_text(TEXT_LIMIT),
    "host": _is_text(TEXT_LIMIT),
    "time": _is_time,
}
"""The fields that every record has. Times are seconds since 1970 by the clock of the store."""

FIELDS: t.Dict[str, t.Callable[[t.Any], bool]] = {
    **REQUIRED_FIELDS,
    "code": _or_none(_is_text(10)),
    "meaning": _or_none(_is_text(MEANING_LIMIT)),
    "class": _or_none(_is_text(40)),
    "first_used": _or_none(_is_time),
    "run": _or_none(_is_text(TEXT_LIMIT)),
    "permits": _or_none(lambda value: isinstance(value, int) and value is not True and 0 < value <= LIST_LIMIT),
    "wrong": lambda value: isinstance(value, list) and len(value) <= LIST_LIMIT and all(map(_is_time, value)),
    "witnesses": lambda value: (
        isinstance(value, list) and len(value) <= WITNESS_LIMIT and all(map(_is_text(TEXT_LIMIT), value))
    ),
    "sure": lambda value: isinstance(value, bool),
    "since": _or_none(_is_time),
}
"""All fields of records. A record with any other field is damaged."""


def validate_record(record: t.Any) -> None:
    """:raises ValueError: when this is not a valid record. The message names the field, not its content."""
    if not isinstance(record, dict) or not set(REQUIRED_FIELDS) <= set(record) <= set(FIELDS):
        raise ValueError("not the fields of a record")
    for field, value in record.items():
        if not FIELDS[field](value):
            raise ValueError(f"the field {field} of a record has a wrong type or is too long")


def encode_record(record: Record, expires: t.Optional[float] = None) -> bytes:
    """Return a record as it is stored. expires: a time. :raises ValueError: when decode_record() would refuse it."""
    validate_record(record)
    content = record if expires is None else {**record, "expires": expires}
    return (json.dumps(content, sort_keys=True) + "\n").encode("ascii")


def decode_record(content: bytes) -> t.Tuple[Record, t.Optional[float]]:
    """Return a stored record, and when it expires. :raises ValueError: when it is damaged."""
    if len(content) > SIZE_LIMIT:
        raise ValueError("too long for a record")
    try:
        record = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("not a record") from None
    expires = record.pop("expires", None) if isinstance(record, dict) else None
    validate_record(record)
    if expires is not None and not _is_time(expires):
        raise ValueError("not a time")
    return record, expires


# Base classes


class Turn:
    """An exclusive lock on a key, held or still to be acquired."""

    @property
    def lost(self) -> bool:
        """Whether another process may have got the turn before this one has released it. Also valid after release()."""
        raise NotImplementedError

    def try_acquire(self) -> t.Optional[str]:
        """Try to get the turn. Return None on success, otherwise the host that holds it ("" when it is not known)."""
        raise NotImplementedError

    def release(self) -> None:
        """Release the turn, whether it is held or not. Raises no exception: it ends with the process in any case."""
        raise NotImplementedError


class Store:
    """The operations that the gate needs. Every method raises GateError when the store cannot be used."""

    _clocks: t.ClassVar[t.Dict[str, t.Tuple[float, float]]] = {}

    def __init__(self, where: str) -> None:
        self._where = where

    def secret(self) -> bytes:
        """Return the key of the store, with which record keys are derived. It is created at the first use.

        :raises GateError: when it is missing and there are records: with a new key none of them would be found.
        """
        secret = self._read_secret()
        if secret is None:
            known = bool(self.keys())
            if not known:
                self._make_secret(secrets.token_bytes(SECRET_BYTES))
            secret = self._read_secret()  # another process may have created it meanwhile, before its first record
            if secret is None and known:
                raise self._lost_secret_error()
        if secret is None or len(secret) != SECRET_BYTES:
            state = "gone again" if secret is None else "damaged"
            raise GateError(
                f"The key of the attempt gate, {self._secret_location}, is {state}. "
                f"Restore it from a backup, or {self._reset_instructions}. All entries of the gate are lost with it"
            )
        return secret

    def clear_command(self, **which: str) -> str:
        """Return the command that removes entries of this store. which: the options that select them."""
        address = {} if self.option is None else {"gate_store": self.option}
        args = {**which, "state": "absent", **address}
        text = " ".join(f"{key}={value}" for key, value in args.items())
        if any(shlex.quote(value) != value for value in args.values()):
            text = json.dumps(args)
        command = "ansible localhost -m hsmops.primus.attempt_gate -a " + shlex.quote(text)
        return command if self.option else command + ", with the gate_store of this task"

    option: t.Optional[str] = None
    """The option `gate_store` for messages; None where it may have a password in it."""

    _secret_location = ""
    """Where the key is stored, for messages."""

    _reset_instructions = ""
    """How to get a new key, for messages."""

    def _lost_secret_error(self) -> GateError:
        return GateError(
            f"The key of the attempt gate, {self._secret_location}, is missing, but the records that were made with it "
            "are there. With a new key none of them would be found, and rejected credentials would be tried again. "
            f"Restore the key from a backup, or clear all entries deliberately: {self.clear_command(all='true')}"
        )

    def _read_secret(self) -> t.Optional[bytes]:
        """Return the key, None when there is none, or b"" when it is damaged."""
        raise NotImplementedError

    def _make_secret(self, secret: bytes) -> None:
        """Store the key, unless another process has stored one meanwhile."""
        raise NotImplementedError

    def now(self) -> float:
        """Return the seconds since 1970 by the store's clock, which is the same for all control nodes."""
        measured, difference = self._clocks.get(self._where, (float("-inf"), 0.0))
        if time.monotonic() - measured > CLOCK_MAX_AGE:
            moment = self._server_time()
            measured = time.monotonic()
            difference = moment - measured
            self._clocks[self._where] = measured, difference
        return time.monotonic() + difference

    def _server_time(self) -> float:
        raise NotImplementedError

    @contextlib.contextmanager
    def turn(self, key: str, holder: str, timeout: float, waiting: t.Callable[[str], None]) -> t.Iterator[Turn]:
        """Hold the turn for the body of a with statement. It ends with the process that holds it.

        :arg holder: name of this host, for the messages of other hosts.
        :arg timeout: seconds to wait.
        :arg waiting: called once before a wait, with the name of the holder ("" when it is not known).
        """
        turn = self.new_turn(key, holder)
        try:
            wait_for_turn(turn, timeout, waiting)
            yield turn
        finally:
            turn.release()

    def new_turn(self, key: str, holder: str) -> Turn:
        """Return a turn that is not acquired yet. The caller releases it, also after a failed try_acquire()."""
        raise NotImplementedError

    def is_new(self) -> bool:
        """Whether the store has never been used. Creates nothing."""
        return self._read_secret() is None

    def read(self, key: str) -> t.Optional[Record]:
        """Return the record, or None when there is none or it has expired. :raises GateError: when it is damaged."""
        raise NotImplementedError

    def write(self, key: str, record: Record, ttl: t.Optional[float] = None) -> None:
        """Replace the record atomically.

        :arg ttl: seconds after which it expires; None: never.
        :raises ValueError: when read() would refuse it.
        """
        raise NotImplementedError

    def remove(self, key: str) -> None:
        """Remove the record, if there is one."""
        raise NotImplementedError

    def keys(self, prefix: str = "") -> t.List[str]:
        """Return the keys that begin with these digits, also those of damaged or expired records."""
        raise NotImplementedError

    def items(self, prefix: str = "") -> t.List[t.Tuple[str, Record]]:
        """Return the keys that begin with these digits, with their records, without damaged and expired ones."""
        raise NotImplementedError


def wait_for_turn(turn: Turn, timeout: float, waiting: t.Callable[[str], None]) -> None:
    """Wait until the turn is acquired. timeout, waiting: as for Store.turn. :raises GateError: after the timeout."""
    deadline = time.monotonic() + timeout
    reported = False
    while True:
        holder = turn.try_acquire()
        if holder is None:
            return
        if not reported:
            waiting(holder)
            reported = True
        if time.monotonic() > deadline:
            raise GateError(
                "Waited for more than %d seconds for %s, which tries a credential of the same name. Run again later."
                % (timeout, holder or "another host")
            )
        time.sleep(POLL_INTERVAL)
