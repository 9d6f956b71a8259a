# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""The attempt gate: who may log in with what, so that a wrong credential costs a fleet one login and not one per host.

The rules are here, the store is store.py, what a result says verdicts.py, the order of things
credential_action.py and login_action.py.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import json
import os
import shlex
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import (
    LIST_LIMIT,
    POLL,
    TEXT_LIMIT,
    WITNESS_LIMIT,
    GateError,
    Record,
    Store,
    Turn,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import (
    ACCEPTED,
    PIN_CODE,
    REJECTED,
    SETUP_CODE,
    UNCLEAR,
    Entry,
    Verdict,
)

SECRET, PROXY, PIN, PERMANENT = "secret", "proxy", "pin", "permanent"
"""The kinds of records: setup password, service proxy password, PKCS#11 password, permanent secrets."""

LABELS = {
    SECRET: "setup password",
    PROXY: "service proxy password",
    PIN: "PKCS#11 password",
    PERMANENT: "permanent secret",
}

ACCOUNTS = {SECRET: (SECRET, PERMANENT), PERMANENT: (SECRET, PERMANENT), PIN: (PIN,), PROXY: (PROXY,)}
"""The kinds of logins that the HSM or the proxy counts together, by kind."""

RUNNING = "running"
"""A record that still says so when another host has the turn is of a host that died: UNCLEAR."""

UNREACHABLE = "unreachable"
"""Kind and verdict of the record that says that hosts do not reach the HSM. It is of no credential."""

FIRST = "first"
"""Kind and verdict of the record that says that a host of a run went first. It is of no interest to anybody else."""

EARLY = 30
"""Seconds that a host waits for others of its run that use the same credential, before it looks whether it needs it."""

WITNESSES = 2
"""Different hosts that must have been rejected before a finding that may be their own is taken for one of all."""

TURN_TIMEOUT = 3600
"""Seconds that a host waits for its turn. Others go first only while nothing is known, and each takes some seconds."""

UPDATE_TIMEOUT = 60
"""Seconds that a host waits to note a verdict. Others need a moment for that."""

FIRST_PERMITS = 2
"""How many hosts may use a credential at once that was accepted before. Each acceptance in the same run doubles it."""

UNREACHABLE_KEPT = 15
"""Seconds for which others go by it that the HSM was not reached. It is for those that wait, not for the next run."""

PREFIX_DIGITS = 16
"""Digits of a record's key that depend on the name only, so that the records of a name can be read without others."""

KEPT_WINDOWS = 24
"""Windows after which a record that no longer counts is forgotten."""

KEPT_FIRST_USE = 30 * 24 * 3600
"""Seconds for which the first use of a setup password is remembered at least; it is seldom valid for so long."""


class Options(t.NamedTuple):
    """The options of the doc fragment `ppin.gate`."""

    budget: int
    window: int
    parallel: int


class Subject(t.NamedTuple):
    """What a login tries. There is one record of it.

    :ivar kind: SECRET, PROXY, PIN or PERMANENT.
    :ivar name: the partition, or the service user.
    :ivar key: of the record.
    :ivar parts: other passwords that the login tries, too.
    :ivar since: when a permanent secret was fetched.
    :ivar with_proxy: whether it is a setup password and a service proxy password as one.
    :ivar alone: whether no other client can have the same, as far as is known, so that it concerns no other.
    """

    kind: str
    name: str
    key: str
    parts: t.Tuple["Subject", ...] = ()
    since: float = 0.0
    alone: bool = False
    with_proxy: bool = False

    @property
    def label(self) -> str:
        return LABELS[self.kind] + (" (or the service proxy password with it)" if self.with_proxy else "")

    @property
    def all(self) -> t.Tuple["Subject", ...]:
        return (self, *self.parts)


def order(subject: Subject) -> t.Tuple[bool, str, int]:
    """The order in which every host takes permits and turns, so that none waits for another in a ring."""
    return (subject.kind != PROXY, subject.name, (PROXY, SECRET, PERMANENT, PIN).index(subject.kind))


class Refused(Exception):
    """The gate does not let this host try. `code` and `meaning` are those of the host that found out."""

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


class Stale(Exception):
    """It is known by now that the HSM rejects the permanent secrets of this origin: there is nothing to try."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record


class Gate:
    """The gate, as one host sees it.

    :arg host: name of the host that asks.
    :arg tell: shows one line to the operator.
    :arg before_wait: called before this host waits for another.
    """

    def __init__(
        self,
        store: Store,
        options: Options,
        host: str,
        tell: t.Callable[[str], None],
        before_wait: t.Callable[[], None] = lambda: None,
    ) -> None:
        self.store, self.options, self.host = store, options, host
        self.tell, self.before_wait = tell, before_wait
        self._secret = store.secret()

    # What can be tried

    def credential(self, kind: str, name: str, password: str) -> Subject:
        """A password for a partition or service user."""
        return Subject(kind, name, self._key(name, kind, password))

    def together(self, setup: Subject, proxy: Subject) -> Subject:
        """Both passwords as one, for a login whose rejection can be of either."""
        key = self._key(setup.name, "together", setup.key, proxy.key)
        return Subject(setup.kind, setup.name, key, (setup._replace(parts=()), *setup.parts, proxy), with_proxy=True)

    def permanent(self, name: str, entry: Entry) -> Subject:
        """The permanent secret that this client has of a partition.

        A secret of unknown origin is this client's own affair. Otherwise all secrets that were fetched with the same
        credential are one.
        """
        if entry.origin is None:
            return Subject(PERMANENT, name, self._key(name, PERMANENT, "of", self.host), alone=True)
        since = min(entry.since, self.store.now())
        return Subject(PERMANENT, name, self._key(name, PERMANENT, "from", entry.origin), since=since)

    def origin(self, name: str, setup_password: str) -> str:
        """The token of a credential that a client keeps with what it fetches: tells which secrets are alike."""
        return self._derive("origin", name, setup_password)

    def _key(self, name: str, *parts: str) -> str:
        return self._prefix(name) + self._derive("record", name, *parts)[PREFIX_DIGITS:]

    def _prefix(self, name: str) -> str:
        return self._derive("name", name)[:PREFIX_DIGITS]

    def _derive(self, *parts: str) -> str:
        return hmac.new(self._secret, json.dumps(parts).encode("ascii"), hashlib.sha256).hexdigest()

    # Permission to try

    @contextlib.contextmanager
    def permission(self, subject: Subject, vouched: bool = True) -> t.Iterator[bool]:
        """Wait until this host may try, and have the permission for the body of a with statement.

        What nobody has had accepted lately, one host tries at a time, and no more of a name than the budget allows. As
        "accepted" is no promise that it still is, what was accepted has permits. The body ends with a call of end().

        :arg vouched: whether a rejection can only be of this credential, as the service proxy is known to accept its
            own, or there is none.
        :returns: whether another host has just not reached the HSM, so that one try is enough.
        :raises Refused: when it was rejected, the budget is used up, or the HSM is not reached.
        :raises Stale: instead of Refused, when a permanent secret was rejected.
        """
        with contextlib.ExitStack() as held:
            self._obtain(held, subject, vouched)
            yield bool(self._unreached(subject))

    @contextlib.contextmanager
    def early_permission(self, subjects: t.Sequence[Subject]) -> t.Iterator[bool]:
        """Let a host use what others of this run have accepted without a look of its own, which costs as much again.

        One host of the run goes first, and looks whether it needs the credentials at all. The others wait for that, and
        then for permits if they were used, EARLY seconds at most.

        :returns: whether this host has a permit for each; if not, it has none and is to look.
        """
        with contextlib.ExitStack() as held:
            yield self._early(held, sorted(subjects, key=order))

    def _early(self, held: contextlib.ExitStack, subjects: t.Sequence[Subject]) -> bool:
        deadline = time.monotonic() + EARLY
        # All that is waited for without a permit comes first: whoever goes first needs permits, too.
        if not all(self._accepted_early(held, subject, deadline) for subject in subjects):
            return False
        with contextlib.ExitStack() as permits:
            for subject in subjects:
                permit = self._early_permit(subject, deadline)
                if permit is None:
                    return False
                permits.callback(permit.release)
            held.push(permits.pop_all())
        return True

    def _accepted_early(self, held: contextlib.ExitStack, subject: Subject, deadline: float) -> bool:
        """Wait until others have used it. False when this host is to look, as the first of its run or as they did not.

        :arg held: gets the turn of the first host, which it has until it has looked and tried.
        """
        first = self.store.new_turn(self._derive("first", subject.key), self.host)
        held.callback(first.release)
        while time.monotonic() < deadline:
            if self._used_in_run(subject):
                return self._all_accepted(subject)  # or what is tried with it is not: there is no permit to wait for
            if self._not_needed(subject):
                return False
            if first.take() is None:
                if not (self._used_in_run(subject) or self._not_needed(subject)):
                    held.callback(self._note_first, subject)
                    return False
                first.release()
                continue
            time.sleep(POLL)
        return False

    def _early_permit(self, subject: Subject, deadline: float) -> t.Optional[Turn]:
        told = False
        while time.monotonic() < deadline:
            try:
                permit = self._take_permit(subject, vouched=True)
            except Refused:  # which is nothing to a host that needs nothing
                return None
            if permit is not None:
                return permit or None
            if not told:
                self._waits(subject, "")
                told = True
            time.sleep(POLL)
        return None

    def _used_in_run(self, subject: Subject) -> bool:
        record = self._record(subject)
        return record.get("verdict") == ACCEPTED and record.get("run") == _run()

    def _not_needed(self, subject: Subject) -> bool:
        """Whether the first host of this run did not need it, or could not use it."""
        return (self.store.read(self._key(subject.name, FIRST, subject.key)) or {}).get("run") == _run()

    def _note_first(self, subject: Subject) -> None:
        try:
            if not self._used_in_run(subject):
                record: Record = {"kind": FIRST, "verdict": FIRST, "run": _run(), "time": self.store.now()}
                record.update(name=subject.name[:TEXT_LIMIT], host=self.host[:TEXT_LIMIT])
                self.store.write(self._key(subject.name, FIRST, subject.key), record, self.options.window)
        except GateError:
            pass  # then another host goes first

    def _obtain(self, held: contextlib.ExitStack, subject: Subject, vouched: bool) -> None:
        while True:
            if self._all_accepted(subject):
                permit = self._wait_for(subject, lambda: self._take_permit(subject, vouched))
                if permit is not None:
                    held.callback(permit.release)
                    return
                continue
            with contextlib.ExitStack() as turns:
                unknown = [part for part in subject.all if not self.accepted(part)]
                for part in sorted(unknown, key=order):
                    turns.enter_context(self._turn(part))
                if all(self.accepted(part) for part in unknown):
                    continue
                slot = self._wait_for(subject, functools.partial(self._take_slot, subject, unknown, vouched))
                turns.callback(slot.release)
                held.push(turns.pop_all())
                return

    def accepted(self, subject: Subject) -> bool:
        """Whether it was accepted lately."""
        record = self._record(subject)
        return record.get("verdict") == ACCEPTED and self._fresh(record["time"])

    def _all_accepted(self, subject: Subject) -> bool:
        """Whether nothing of it is new: an accepted setup password says nothing of the password tried with it."""
        return all(self.accepted(part) for part in subject.all)

    def stale(self, subject: Subject) -> t.Optional[Record]:
        """The record of permanent secrets of the same origin if the HSM is known to reject them, else None.

        A setup password can be used for days, and what it fetches later may be another secret. So this concerns what
        was fetched before those that were rejected, or within a window after them, as by the same run.
        """
        record = self._record(subject)
        if record.get("verdict") != REJECTED or not self._fresh(record["time"]) or subject.alone:
            return None
        return record if subject.since <= (record.get("since") or 0) + self.options.window else None

    def foresee(self, subject: Subject, vouched: bool = True) -> None:
        """What permission() would say, without a turn and without writing anything. :raises Refused:"""
        self._check(subject, vouched)
        if not self._all_accepted(subject):
            self._check_budget(subject)

    @contextlib.contextmanager
    def _turn(self, subject: Subject) -> t.Iterator[None]:
        """The exclusive right to try this."""
        turn = None
        waits = functools.partial(self._waits, subject)
        try:
            with self.store.turn(self._derive("turn", subject.key), self.host, TURN_TIMEOUT, waits) as turn:
                yield
        finally:
            if turn is not None and turn.lost:
                self.tell(
                    "%s lost its turn for the %s of '%s' before it was done: the gate's store could not be reached, or "
                    "the lock was removed. Another host may have tried it at the same time. See the entries with the "
                    "module hsmops.primus.attempt_gate_info." % (self.host, subject.label, subject.name)
                )

    def _take_slot(self, subject: Subject, unknown: t.Sequence[Subject], vouched: bool) -> t.Optional[Turn]:
        """One of the logins of a name that may go wrong: with those that did, never more than the budget.

        :arg unknown: the parts of which this host has the turn. That the first of them is tried is noted.
        """
        with self._update(subject.name), contextlib.ExitStack() as unless_kept:
            self._settle(subject, unknown)
            self._check(subject, vouched)
            left = self._check_budget(subject)
            slots = []
            for number in range(min(self.options.budget, self.options.parallel)):
                slots.append(self.store.new_turn(self._derive("slot", subject.name, str(number)), self.host))
                unless_kept.callback(slots[-1].release)
            free = [slot for slot in slots if slot.take() is None]
            if not free or len(slots) - len(free) >= left:
                return None
            self._begin(unknown[0])
            for slot in free[1:]:
                slot.release()
            unless_kept.pop_all()
            return free[0]

    def _take_permit(self, subject: Subject, vouched: bool) -> t.Union[Turn, None, "t.Literal[False]"]:
        """One of the permits of what was accepted, or False when it no longer counts as accepted."""
        self._check(subject, vouched)
        for number in range(self._permits(self._record(subject))):
            permit = self.store.new_turn(self._derive("permit", subject.name, str(number)), self.host)
            with contextlib.ExitStack() as unless_taken:
                unless_taken.callback(permit.release)
                if permit.take() is None:
                    self._check(subject, vouched)  # it may have been rejected by who had this permit before
                    if not self._all_accepted(subject):
                        return False
                    unless_taken.pop_all()
                    return permit
        return None if self._all_accepted(subject) else False

    def _wait_for(self, subject: Subject, take: t.Callable[[], t.Any]) -> t.Any:
        """Ask until there is an answer other than None. :returns: that, and None for False."""
        deadline = time.monotonic() + TURN_TIMEOUT
        taken = take()
        if taken is None:
            self._waits(subject, "")
        while taken is None:
            if time.monotonic() > deadline:
                raise GateError("Waited for more than %d seconds for others with the same credential" % TURN_TIMEOUT)
            time.sleep(POLL)
            taken = take()
        return taken or None

    def _permits(self, record: Record) -> int:
        permits = record.get("permits") if record.get("run") == _run() else None
        return max(1, min(permits or FIRST_PERMITS, self.options.parallel))

    def _waits(self, subject: Subject, holder: str) -> None:
        self.tell(
            "%s waits for the verdict on the %s of '%s', which %s is trying."
            % (self.host, subject.label, subject.name, holder or "another host")
        )
        self.before_wait()

    # Reasons not to try

    def _check(self, subject: Subject, vouched: bool) -> None:
        """:raises Refused: when a password was rejected, or the HSM is not reached."""
        for part in subject.all:
            record = self._record(part)
            if part.kind == PERMANENT:
                stale = self.stale(part)
                if stale:
                    raise Stale(stale)
            if part.kind == PERMANENT or record.get("verdict") != REJECTED:
                continue
            if vouched and not record.get("sure", True):
                continue  # the service proxies of those that were rejected may have been at fault
            were = " and ".join(record["witnesses"]) if not record.get("sure", True) else record["host"]
            raise Refused(
                "The %s of '%s' was rejected when %s tried at %s: %s. %s did not contact the HSM"
                % (part.label, part.name, were, when(record["time"]), _found(record), self.host),
                "Give the right one, or clear the entry if it is right after all: %s" % _how_to_clear(part.name),
                record,
            )
        down = self._unreached(subject)
        if len(down.get("witnesses", [])) >= WITNESSES and self.host not in down["witnesses"]:
            raise Refused(
                "The HSM of '%s' was not reached by %s at %s: %s. %s did not contact it"
                % (subject.name, " and ".join(down["witnesses"]), when(down["time"]), _found(down), self.host),
                "No login was made. Check that the HSM runs and can be reached, then run again.",
                down,
            )

    def _check_budget(self, subject: Subject) -> int:
        """How many more logins may go wrong. :raises Refused: when none.

        Setup passwords and permanent secrets have one account, as the HSM counts them together.
        """
        least = budget = min(self.options.budget, LIST_LIMIT)
        for part in subject.all:
            kinds = ACCOUNTS[part.kind]
            records = [record for _key, record in self.store.items(self._prefix(part.name)) if record["kind"] in kinds]
            wrong = [record for record in records for _moment in self._recent(record)]
            least = min(least, budget - len(wrong))
            if len(wrong) < budget:
                continue
            last = max(wrong, key=lambda record: record["time"])
            raise Refused(
                "Attempt limit reached for '%s': %d of %d failed or unclear logins within %d seconds, the latest of "
                "%s at %s: %s. %s did not contact the HSM"
                % (
                    part.name,
                    len(wrong),
                    budget,
                    self.options.window,
                    last["host"],
                    when(last["time"]),
                    _found(last),
                    self.host,
                ),
                "Make sure that the %s is right, then clear the entries, or wait: %s"
                % (part.label, _how_to_clear(part.name)),
                last,
            )
        return least

    def _unreached(self, subject: Subject) -> Record:
        """What hosts of this run have found within the last seconds; empty when nothing."""
        record = self.store.read(self._key(subject.name, UNREACHABLE)) or {}
        counts = record.get("run") == _run() and self._age(record["time"]) < UNREACHABLE_KEPT
        return record if counts else {}

    # Verdicts

    def _begin(self, subject: Subject) -> None:
        """Note that this host is about to try, having the turn.

        That the store can be written is known before anything is tried; and if this process dies, that it tried.
        """
        running = {"verdict": RUNNING, "host": self.host, "time": self.store.now()}
        self._write(subject, {**self._record(subject), **running})

    def _settle(self, subject: Subject, unknown: t.Sequence[Subject]) -> None:
        """Count what hosts were trying that died: those that did not tell, but have the turn no longer.

        :arg unknown: what this host has the turn of.
        """
        mine = [part.key for part in unknown]
        for name in {part.name for part in subject.all}:
            for key, record in self.store.items(self._prefix(name)):
                if record["verdict"] != RUNNING:
                    continue
                turn = self.store.new_turn(self._derive("turn", key), self.host)
                try:
                    if key in mine or turn.take() is None:
                        died = {**record, **_of_witnesses(record), "code": None}
                        died.update(
                            meaning="the run was ended before it told", wrong=[*self._recent(record), record["time"]]
                        )
                        self._write(Subject(record["kind"], record["name"], key), died)
                finally:
                    turn.release()

    def end(self, subject: Subject, verdict: Verdict, vouched: bool = True) -> None:
        """Note the verdict on what was tried with permission()."""
        guilty = subject
        if verdict.error.get("code") == PIN_CODE:
            guilty = next((part for part in subject.all if part.kind == PIN), subject)
        sure = vouched or verdict.error.get("code") == SETUP_CODE
        with self._update(subject.name):
            if verdict.value == ACCEPTED:
                for part in subject.all:
                    self._accept(part)
            elif verdict.value in (REJECTED, UNCLEAR):
                if verdict.value == UNCLEAR:
                    self._count(guilty, verdict.error, {})
                elif guilty.kind == PERMANENT:
                    self._reject_permanent(guilty, verdict)
                else:
                    self._reject(guilty, verdict, sure or guilty is not subject)
            for part in subject.all:
                self._drop(part)
            self._note_reached(subject, verdict)

    def _accept(self, subject: Subject) -> None:
        record = self._record(subject)
        if subject.alone:
            self.store.remove(subject.key)
            return
        if record.get("verdict") == REJECTED and subject.kind != PERMANENT and record.get("sure", True):
            return  # by another host at the same time
        if record.get("witnesses") and subject.since > (record.get("since") or 0) + self.options.window:
            self._drop(subject)  # what is good is newer than what was rejected
            return
        now = self.store.now()
        accepted_before = record.get("verdict") == ACCEPTED
        new: Record = {
            "verdict": ACCEPTED,
            "time": now,
            "run": _run(),
            "permits": min(self._permits(record) * 2 if accepted_before else FIRST_PERMITS, LIST_LIMIT),
        }
        if subject.kind == SECRET:  # its validity begins then
            new["first_used"] = record.get("first_used") or now
        self._write(subject, {**new, "host": self.host})

    def _reject(self, subject: Subject, verdict: Verdict, sure: bool) -> None:
        record = self._record(subject)
        if record.get("verdict") == REJECTED and record.get("sure", True):
            self._write(subject, {**record, "wrong": [*self._recent(record), self.store.now()]})
            return  # several hosts found out at once: the first is the one to name
        witnesses = self._with_host(record if self._recent(record) else {})
        final = sure or len(witnesses) >= WITNESSES
        changes = {"verdict": REJECTED if final else UNCLEAR, "witnesses": witnesses, "sure": sure}
        self._count(subject, verdict.error, changes)

    def _reject_permanent(self, subject: Subject, verdict: Verdict) -> None:
        """One client's word may be its own broken state: two are needed before others go by it."""
        record = self._record(subject)
        if not self._recent(record):
            record = {**record, "witnesses": [], "since": None}
        witnesses = self._with_host(record)
        final = len(witnesses) >= WITNESSES or subject.alone
        since = max(subject.since, record.get("since") or 0)
        changes = {"verdict": REJECTED if final else UNCLEAR, "witnesses": witnesses, "since": since}
        self._count(subject, verdict.error, changes)

    def _with_host(self, record: Record) -> t.List[str]:
        witnesses = [host for host in record.get("witnesses", []) if host != self.host]
        return [*witnesses, self.host[:TEXT_LIMIT]][-WITNESS_LIMIT:]

    def _count(self, subject: Subject, error: t.Mapping[str, t.Any], changes: t.Mapping[str, t.Any]) -> None:
        """Note a login that went wrong, or may have."""
        record, now = self._record(subject), self.store.now()
        if record.get("verdict") == REJECTED and "verdict" not in changes:  # by another host at the same time
            self._write(subject, {**record, "wrong": [*self._recent(record), now]})
            return
        said = {"verdict": UNCLEAR, "host": self.host, "time": now, **error, **changes}
        self._write(subject, {**record, **said, "wrong": [*self._recent(record), now]})

    def _drop(self, subject: Subject) -> None:
        """Take back that this host is trying, as it did not, or another part was judged."""
        record = self._record(subject)
        if record.get("verdict") != RUNNING or record["host"] != self.host[:TEXT_LIMIT]:
            return
        if self._recent(record):
            self._write(subject, {**record, **_of_witnesses(record)})
        elif record.get("first_used"):
            self._write(subject, {**record, "verdict": ACCEPTED, "time": record["first_used"]})
        else:
            self.store.remove(subject.key)

    def _note_reached(self, subject: Subject, verdict: Verdict) -> None:
        key = self._key(subject.name, UNREACHABLE)
        if not verdict.unreachable:
            if verdict.value is not None and self.store.read(key):
                self.store.remove(key)
            return
        self.store.write(
            key,
            {
                "verdict": UNREACHABLE,
                "kind": UNREACHABLE,
                "name": subject.name[:TEXT_LIMIT],
                "host": self.host[:TEXT_LIMIT],
                "time": self.store.now(),
                "witnesses": self._with_host(self._unreached(subject)),
                "run": _run(),
                **verdict.error,
            },
            UNREACHABLE_KEPT,
        )

    # The store

    def _record(self, subject: Subject) -> Record:
        return self.store.read(subject.key) or {}

    def _write(self, subject: Subject, record: Record) -> None:
        """Write a record, for as long as it can matter: that of a rejected password until it is cleared."""
        whole: Record = {
            **record,
            "kind": subject.kind,
            "name": subject.name[:TEXT_LIMIT],
            "host": record["host"][:TEXT_LIMIT],
            "wrong": record.get("wrong", [])[-LIST_LIMIT:],
        }
        ttl: t.Optional[float] = KEPT_WINDOWS * self.options.window
        if whole["verdict"] == REJECTED and subject.kind != PERMANENT:
            ttl = None
        elif whole.get("first_used"):
            ttl = max(KEPT_WINDOWS * self.options.window, KEPT_FIRST_USE)
        self.store.write(subject.key, whole, ttl)

    def _update(self, name: str) -> t.ContextManager[t.Any]:
        """The exclusive right to change records of a name."""
        key = self._derive("update", name)
        return self.store.turn(key, self.host, UPDATE_TIMEOUT, lambda holder: self.before_wait())

    def _age(self, moment: float) -> float:
        """Seconds since then; what is in the future is of now."""
        return max(0.0, self.store.now() - moment)

    def _fresh(self, moment: float) -> bool:
        return self._age(moment) < self.options.window

    def _recent(self, record: Record) -> t.List[float]:
        return [moment for moment in record.get("wrong", []) if self._fresh(moment)]


@contextlib.contextmanager
def reported(tell: t.Callable[[str], None]) -> t.Iterator[None]:
    """For what is written after a login: a store that fails then must not hide the login's result."""
    try:
        yield
    except GateError as exc:
        tell("%s. What this run found is not known to others." % str(exc).rstrip("."))


def _of_witnesses(record: Record) -> Record:
    """The verdict on what is not accepted, as far as other hosts have found out."""
    return {"verdict": REJECTED if len(record.get("witnesses", [])) >= WITNESSES else UNCLEAR}


def found_by(record: Record) -> str:
    """A sentence that names the hosts that found out."""
    return "It was %s that found out, the latest at %s." % (" and ".join(record["witnesses"]), when(record["time"]))


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


def _found(record: Record) -> str:
    return " ".join(filter(None, [record.get("code"), record.get("meaning")])) or "no reason is known"


def _how_to_clear(name: str) -> str:
    args = "name=%s state=absent" % name
    if shlex.quote(name) != name:
        args = json.dumps({"name": name, "state": "absent"})
    command = "ansible localhost -m hsmops.primus.attempt_gate -a %s" % shlex.quote(args)
    return command + ", with the gate_store that this task has, if any"
