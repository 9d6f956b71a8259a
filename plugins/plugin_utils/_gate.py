# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""The attempt gate: a credential that nobody has tried yet is tried by one host, and all others go by its verdict.

The rules are here, the store is _gate_store.py, the order of things is _credential_action.py and _login_action.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import shlex
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._errors import HINTS, NOT_ACCEPTED, NOT_JUDGED
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_store import (
    LIST_LIMIT,
    MEANING_LIMIT,
    POLL,
    TEXT_LIMIT,
    GateError,
    Record,
    Store,
    Turn,
)

SECRET, PROXY, PIN, PERMANENT = "secret", "proxy", "pin", "permanent"
"""The kinds of records: setup password with PKCS#11 password, service proxy password, PKCS#11 password, permanent
secrets."""

LABELS = {
    SECRET: "setup password and PKCS#11 password",
    PROXY: "service proxy password",
    PIN: "PKCS#11 password",
    PERMANENT: "permanent secret",
}

RUNNING, ACCEPTED, REJECTED, UNCLEAR = "running", "accepted", "rejected", "unclear"
"""The verdicts. A record that is still RUNNING when another host has the turn is of a host that died: UNCLEAR."""

TURN_TIMEOUT = 3600
"""Seconds that a host waits for its turn. Others go first only while nothing is known, and each takes some seconds."""

UPDATE_TIMEOUT = 60
"""Seconds that a host waits to note a verdict. Others need a moment for that."""

FIRST_PERMITS = 2
"""How many hosts may use a credential at once that was accepted before. Each acceptance in the same run doubles it."""

STALE_SLACK = 60
"""Seconds before a finding: a secret fetched within them is tried all the same, as the way to a client takes time."""


PREFIX_DIGITS = 16
"""Digits of a record's key that depend on the name only, so that the records of a name can be read without others."""

KEPT_WINDOWS = 24
"""Windows after which a record that no longer counts is forgotten."""

KEPT_FIRST_USE = 30 * 24 * 3600
"""Seconds for which the first use of a setup password is remembered at least; it is seldom valid for so long."""


class Options(t.NamedTuple):
    """The options of the doc fragment C(ppin.gate)."""

    budget: int
    window: int
    parallel: int


class Permanent(t.NamedTuple):
    """What the gate knows of the permanent secrets of a partition.

    :ivar known: whether a login has told lately how the HSM takes them.
    :ivar stale: the record of those that it no longer accepts, or None.
    """

    known: bool
    stale: t.Optional[Record]


class Refused(Exception):
    """The gate does not let this host try. ``code`` and ``meaning`` are those of the host that found out."""

    def __init__(self, msg: str, hint: str, record: Record) -> None:
        super().__init__(msg)
        self.msg, self.hint = msg, hint
        self.code: t.Optional[str] = record.get("code")
        self.meaning: str = record.get("meaning") or msg
        self.cls: str = record.get("class") or "unknown"

    def failure(self) -> t.Dict[str, t.Any]:
        """The result of a host that is refused, to be completed by the keys of its module."""
        error = {"code": self.code, "name": self.meaning, "class": self.cls, "hint": self.hint}
        return {"failed": True, "changed": False, "msg": "%s. %s" % (self.msg, self.hint), "error": error}


class Gate:
    """What the gate knows of one name, and of one credential for it.

    :arg host: name of the host that asks.
    :arg kind: C(SECRET), C(PROXY) or C(PIN).
    :arg name: the partition, or the service user.
    :arg passwords: those given, all of them or none.
    :arg tell: shows one line to the operator.
    """

    def __init__(
        self,
        store: Store,
        options: Options,
        host: str,
        kind: str,
        name: str,
        passwords: t.Sequence[str],
        tell: t.Callable[[str], None],
    ) -> None:
        self.store, self.options, self.host = store, options, host
        self.kind, self.name, self.tell = kind, name, tell
        secret = store.secret()
        self.prefix = _derive(secret, "name", name)[:PREFIX_DIGITS]
        self.key = self.prefix + _derive(secret, kind, name, *passwords)[PREFIX_DIGITS:]
        self.permanent_key = self.prefix + _derive(secret, PERMANENT, name)[PREFIX_DIGITS:]
        self.turn_key = _derive(secret, "turn", kind, name)
        self.update_key = _derive(secret, "update", kind, name)
        self.permit_keys = [_derive(secret, "permit", kind, name, str(number)) for number in range(options.parallel)]

    # Turns: one for all credentials of a name, so that several wrong ones are not tried at once, either.

    @contextlib.contextmanager
    def turn(self) -> t.Iterator[Turn]:
        turn = None
        try:
            with self.store.turn(self.turn_key, self.host, TURN_TIMEOUT, self._waiting) as turn:
                yield turn
        finally:
            if turn is not None and turn.lost:
                self.tell(
                    "%s lost its turn for the %s of '%s' before it was done: the gate's store could not be "
                    "reached, or the lock was removed. Another host may have tried a credential at the same time. See "
                    "the entries with the module hsmops.primus.attempt_gate_info."
                    % (self.host, LABELS[self.kind], self.name)
                )

    def _waiting(self, holder: str) -> None:
        self.tell(
            "%s waits for the verdict on the %s of '%s', which %s is trying."
            % (self.host, LABELS[self.kind], self.name, holder or "another host")
        )

    # Permits: for a credential that was accepted before, as that is no promise that it still is.

    @contextlib.contextmanager
    def permit(self) -> t.Iterator[None]:
        """One of the permits for the credential. :raises Refused: when it has been rejected meanwhile."""
        deadline = time.monotonic() + TURN_TIMEOUT
        turn, told = None, False
        while turn is None:
            record = self._not_rejected()
            for key in self.permit_keys[: self._permits(record)]:
                attempt = self.store.new_turn(key, self.host)
                if attempt.take() is None:
                    turn = attempt
                    break
                attempt.release()
            if turn is None and not told:
                self._waiting("")
                told = True
            if turn is None and time.monotonic() > deadline:
                raise GateError("Waited for more than %d seconds for others with the same credential" % TURN_TIMEOUT)
            if turn is None:
                time.sleep(POLL)
        try:
            self._not_rejected()  # which it may have been by the one who had this permit before
            yield
        finally:
            turn.release()

    def _permits(self, record: Record) -> int:
        permits = record.get("permits") if record.get("run") == _run() else None
        return max(1, min(permits or FIRST_PERMITS, self.options.parallel))

    # The credential given

    def accepted(self) -> bool:
        """Whether all hosts may use the credential at once."""
        record = self.store.read(self.key)
        return record is not None and record["verdict"] == ACCEPTED and self._fresh(record["time"])

    def begin(self) -> None:
        """Note that this host is about to try, having the turn. :raises Refused:

        That the store can be written is known before anything is tried; and if this process dies, that it tried.
        """
        record = self._not_rejected()
        unclear = self._recent(record)
        if record.get("verdict") == RUNNING:
            unclear = unclear + [record["time"]] if self._fresh(record["time"]) else unclear
            self._keep(
                self.key, dict(record, verdict=UNCLEAR, unclear=unclear, meaning="the run was ended before it told")
            )
        self.check_budget()
        self._write(self.key, self.kind, RUNNING, {}, unclear)

    def _not_rejected(self) -> Record:
        """What is known of the credential. :raises Refused: when it was rejected."""
        record = self.store.read(self.key) or {}
        if record.get("verdict") == REJECTED:
            raise Refused(
                "The %s of '%s' %s rejected when %s: %s. %s did not contact the HSM"
                % (LABELS[self.kind], self.name, self._were, _when(record), _found(record), self.host),
                "Give the right one, or clear the entry if it is right after all: %s" % self._how_to_clear(),
                record,
            )
        return record

    def foresee(self) -> None:
        """What begin() would say, without a turn and without writing anything. :raises Refused:"""
        if self._not_rejected().get("verdict") != ACCEPTED:
            self.check_budget()

    def end(self, result: t.Mapping[str, t.Any]) -> None:
        """Note the verdict that the module's result tells, having the turn or a permit."""
        with self.store.turn(self.update_key, self.host, UPDATE_TIMEOUT, lambda holder: None):
            record = self.store.read(self.key) or {}
            verdict, error = judge(result)
            unclear = self._recent(record)
            if record.get("verdict") == REJECTED:
                return  # several hosts found out at once: the first is the one to name
            if verdict is None and record.get("verdict") == ACCEPTED:
                return
            permits = None
            if verdict == ACCEPTED:
                unclear = []  # they were of this credential, which is right
                accepted_before = record.get("verdict") == ACCEPTED
                permits = self._permits(record) * 2 if accepted_before else FIRST_PERMITS
            elif verdict == UNCLEAR:
                unclear.append(self.store.now())
            elif verdict is None and not unclear:
                self.store.remove(self.key)
                return
            self._write(self.key, self.kind, verdict or UNCLEAR, error, unclear, permits=permits)

    def check_budget(self) -> None:
        """:raises Refused: when enough logins with this name went wrong, or may have.

        Setup passwords and permanent secrets have one account, as the HSM counts them together.
        """
        wrong = []
        budget = min(self.options.budget, LIST_LIMIT)
        kinds = (SECRET, PERMANENT) if self.kind == SECRET else (self.kind,)
        for _key, record in self.store.items(self.prefix):
            if record["kind"] in kinds:
                wrong += [record] * len(self._recent(record))
                if record["verdict"] == REJECTED and self._fresh(record["time"]):
                    wrong.append(record)
        if len(wrong) < budget:
            return
        last = max(wrong, key=lambda record: record["time"])
        raise Refused(
            "%d of %d logins of '%s' that may go wrong within %d seconds were spent, the last when %s: %s. "
            "%s did not contact the HSM"
            % (len(wrong), budget, self.name, self.options.window, _when(last), _found(last), self.host),
            "Make sure that the %s is right, then clear the entries, or wait: %s"
            % (LABELS[self.kind], self._how_to_clear()),
            last,
        )

    # The permanent secrets that the clients have

    def permanent(self) -> Permanent:
        record = self.store.read(self.permanent_key)
        if record is None or not self._fresh(record["time"]):
            return Permanent(False, None)
        if record["verdict"] not in (ACCEPTED, REJECTED):
            return Permanent(False, None)
        return Permanent(True, record if record["verdict"] == REJECTED else None)

    def learnt_permanent(self, result: t.Mapping[str, t.Any]) -> t.Optional[str]:
        """The verdict of a login with a secret that was there before, if it is news, else None."""
        if not logins_of(result):
            return None
        verified = result.get("verified")
        if not isinstance(verified, bool):
            return UNCLEAR
        return ACCEPTED if verified and not self.permanent().known else None if verified else REJECTED

    def note_permanent(
        self, result: t.Mapping[str, t.Any], started: float, known_stale: t.Optional[Record] = None
    ) -> None:
        """Note, having the turn, what learnt_permanent() tells.

        :arg started: time before the login, by the store's clock.
        :arg known_stale: the finding that was known then.
        """
        verdict = self.learnt_permanent(result)
        if verdict == REJECTED:
            if self.permanent().stale not in (None, known_stale):
                return  # several hosts found out at once: the first is the one to name
            unclear = self._recent(self.store.read(self.permanent_key) or {})
            self._write(self.permanent_key, PERMANENT, REJECTED, bounded(result.get("error")), unclear, started)
        elif verdict == UNCLEAR:
            # It counts towards the budget, and whether the secrets are good is not known.
            unclear = [*self._recent(self.store.read(self.permanent_key) or {}), started]
            error = bounded(result.get("error") or {"name": "the verdict on a login is not known"})
            self._write(self.permanent_key, PERMANENT, UNCLEAR, error, unclear, started)
        elif verdict == ACCEPTED:
            self._write(self.permanent_key, PERMANENT, ACCEPTED, {}, [], started)

    def stale_age(self, record: Record) -> int:
        """Seconds, for the module's option C(known_stale_age)."""
        return int(self._age(record["time"])) + STALE_SLACK

    # Helpers

    @property
    def _were(self) -> str:
        return "were" if self.kind == SECRET else "was"

    def _how_to_clear(self) -> str:
        args = "name=%s state=absent" % self.name
        if shlex.quote(self.name) != self.name:
            args = json.dumps({"name": self.name, "state": "absent"})
        command = "ansible localhost -m hsmops.primus.attempt_gate -a %s" % shlex.quote(args)
        return command + ", with the gate_store that this task has, if any"

    def _age(self, moment: float) -> float:
        """Seconds since then; what is in the future is of now."""
        return max(0.0, self.store.now() - moment)

    def _fresh(self, moment: float) -> bool:
        return self._age(moment) < self.options.window

    def _recent(self, record: Record) -> t.List[float]:
        return [moment for moment in record.get("unclear", []) if self._fresh(moment)]

    def _write(
        self,
        key: str,
        kind: str,
        verdict: str,
        error: t.Mapping[str, t.Any],
        unclear: t.List[float],
        moment: t.Optional[float] = None,
        permits: t.Optional[int] = None,
    ) -> None:
        # When the password was first accepted, as its validity begins then.
        first_used = (self.store.read(key) or {}).get("first_used") if kind == SECRET else None
        if kind == SECRET and verdict == ACCEPTED:
            first_used = first_used or self.store.now()
        record: Record = {
            "first_used": first_used,
            "verdict": verdict,
            "kind": kind,
            "name": self.name[:TEXT_LIMIT],
            "host": self.host[:TEXT_LIMIT],
            "time": moment or self.store.now(),
            "code": error.get("code"),
            "meaning": error.get("meaning"),
            "class": error.get("class"),
            "unclear": unclear[-LIST_LIMIT:],
            "run": _run() if permits else None,
            "permits": permits and min(permits, LIST_LIMIT),
        }
        self._keep(key, record)

    def _keep(self, key: str, record: Record) -> None:
        """Write a record, for as long as it can matter: that of a rejected credential until it is cleared."""
        ttl: t.Optional[float] = KEPT_WINDOWS * self.options.window
        if record["verdict"] == REJECTED and record["kind"] != PERMANENT:
            ttl = None
        elif record.get("first_used"):
            ttl = max(KEPT_WINDOWS * self.options.window, KEPT_FIRST_USE)
        self.store.write(key, record, ttl)


def judge(result: t.Mapping[str, t.Any]) -> t.Tuple[t.Optional[str], t.Mapping[str, t.Any]]:
    """What a module's result says of the credential given: a verdict, or None when it was not tried, and the error.

    A login that is rejected after a fetch counts as a rejection: each further host would spend one more on it.

    :returns: the error as of bounded(); empty when there is none to note.
    """
    logins = logins_of(result)
    if not result.get("failed"):
        if logins is None and "logins" in result:
            return UNCLEAR, bounded({"name": "the module's result cannot be understood"})
        return (ACCEPTED if logins else None), {}
    if logins == 0:
        return None, {}
    error = bounded(result.get("error") or {"name": "the module ended without a result"})
    if error["class"] in NOT_ACCEPTED:
        return REJECTED, error
    return (None if error["class"] in NOT_JUDGED else UNCLEAR), error


def logins_of(result: t.Mapping[str, t.Any]) -> t.Optional[int]:
    """How many logins a module's result tells of, or None when it does not, or not as a number."""
    logins = result.get("logins")
    return logins if isinstance(logins, int) and not isinstance(logins, bool) and logins >= 0 else None


def bounded(error: t.Any) -> t.Dict[str, t.Optional[str]]:
    """What a record keeps of the C(error) in a host's result, which may be anything.

    :returns: ``code``, ``0x`` and 8 hexadecimal digits, or None; ``class``, one that is known, else C(unknown);
        ``meaning``, printable and of at most MEANING_LIMIT characters, empty when there is none.
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


@contextlib.contextmanager
def reported(tell: t.Callable[[str], None]) -> t.Iterator[None]:
    """For what is written after a login: a store that fails then must not hide the login's result."""
    try:
        yield
    except GateError as exc:
        tell("%s. What this run found is not known to others." % str(exc).rstrip("."))


def when(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _run() -> str:
    """The run that this process is a worker of: its parent is the one that was started."""
    parent = os.getppid()
    try:
        with open("/proc/%d/stat" % parent, encoding="utf-8", errors="replace") as stream:
            started = stream.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = ""
    return "%s:%d:%s" % (os.uname().nodename[:200], parent, started)


def _when(record: Record) -> str:
    return "%s tried at %s" % (record["host"], when(record["time"]))


def _found(record: Record) -> str:
    return " ".join(filter(None, [record.get("code"), record.get("meaning")])) or "no reason is known"


def _derive(secret: bytes, *parts: str) -> str:
    content = json.dumps(parts).encode("ascii")
    return hmac.new(secret, content, hashlib.sha256).hexdigest()
