# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""The rules of the attempt gate: which host may try which credential.

They ensure that a wrong credential costs a fleet one login, not one per host. store.py stores the records, verdicts.py
derives verdicts from results, credential_action.py and login_action.py call the gate before and after a module runs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import json
import os
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import (
    LIST_LIMIT,
    POLL_INTERVAL,
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
    PresentSecret,
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
"""For each kind, the kinds whose wrong attempts the HSM or the service proxy counts together with it."""

RUNNING = "running"
"""The verdict while a host tries. If another host gets the turn, the run was interrupted, and it counts as UNCLEAR."""

UNREACHABLE = "unreachable"
"""Kind and verdict of the record that hosts have not reached the HSM. It is not about a credential."""

FIRST = "first"
"""Kind and verdict of the record that the first host of a run did not use a credential. Only that run uses it."""

EARLY_WAIT = 30
"""Seconds that a host waits for another host of its run to use the same credential, before it observes its client."""

WITNESSES = 2
"""Number of hosts that must be rejected before other hosts rely on it, if the cause may be on the hosts themselves."""

TURN_TIMEOUT = 3600
"""Seconds that a host waits for its turn. Hosts try one after the other only while there is no verdict."""

UPDATE_TIMEOUT = 60
"""Seconds that a host waits for others that record a verdict, which takes a moment."""

FIRST_PERMITS = 2
"""Number of hosts that may at once use a credential that was accepted before. Each acceptance in a run doubles it."""

UNREACHABLE_RETENTION = 15
"""Seconds for which hosts rely on the record that the HSM was not reached. It is for waiting hosts of the same run."""

PREFIX_DIGITS = 16
"""Leading digits of a record's key that depend only on the name, so that only the records of a name are read."""

RETENTION_WINDOWS = 24
"""Number of windows (gate_window) after which a record expires."""

RETENTION_FIRST_USE = 30 * 24 * 3600
"""Seconds for which the first use of a setup password is kept. Few setup passwords are valid for longer."""


class GateOptions(t.NamedTuple):
    """The options of the doc fragment `ppin.gate`."""

    budget: int
    window: int
    parallel: int


class Subject(t.NamedTuple):
    """What a login tries, as the gate identifies it. It has one record in the store.

    :ivar kind: SECRET, PROXY, PIN or PERMANENT.
    :ivar name: of the partition or service user.
    :ivar key: of the record.
    :ivar parts: other passwords that the same login tries.
    :ivar since: when a permanent secret was fetched, in seconds since 1970.
    :ivar with_proxy: whether it is a setup password combined with a service proxy password.
    :ivar only_this_host: whether it is known to this host only, so that a verdict does not affect other hosts.
    """

    kind: str
    name: str
    key: str
    parts: t.Tuple["Subject", ...] = ()
    since: float = 0.0
    only_this_host: bool = False
    with_proxy: bool = False

    @property
    def label(self) -> str:
        return LABELS[self.kind] + (" (or the service proxy password with it)" if self.with_proxy else "")

    @property
    def all_parts(self) -> t.Tuple["Subject", ...]:
        return (self, *self.parts)


def order(subject: Subject) -> t.Tuple[bool, str, int]:
    """Return the sort key by which every host takes permits and turns, so that hosts cannot wait in a ring."""
    return (subject.kind != PROXY, subject.name, (PROXY, SECRET, PERMANENT, PIN).index(subject.kind))


class AttemptRefused(Exception):
    """The gate does not permit this host to try.

    :arg record: the record that is the reason. `code`, `meaning` and `cls` are those of the host that wrote it.
    """

    def __init__(self, msg: str, hint: str, record: Record) -> None:
        super().__init__(msg)
        self.msg, self.hint = msg, hint
        self.code: t.Optional[str] = record.get("code")
        self.meaning: str = record.get("meaning") or msg
        self.cls: str = record.get("class") or "unknown"

    def failure(self) -> t.Dict[str, t.Any]:
        """Return the result of the refused host, without the keys of its module."""
        error = {"code": self.code, "name": self.meaning, "class": self.cls, "hint": self.hint}
        return {"failed": True, "changed": False, "msg": "%s. %s" % (self.msg, self.hint), "error": error}


class StaleSecret(Exception):
    """The HSM is known to reject the permanent secrets of this origin, so there is no need for a login."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record


class Gate:
    """The attempt gate, for one host.

    :arg host: name of the host.
    :arg display: shows one line to the user.
    :arg before_wait: called before this host waits for another.
    """

    def __init__(
        self,
        store: Store,
        options: GateOptions,
        host: str,
        display: t.Callable[[str], None],
        before_wait: t.Callable[[], None] = lambda: None,
    ) -> None:
        self.store, self.options, self.host = store, options, host
        self.display, self.before_wait = display, before_wait
        self._secret = store.secret()

    # Subjects

    def password_subject(self, kind: str, name: str, password: str) -> Subject:
        """Return the subject of a password for a partition or service user."""
        return Subject(kind, name, self._key(name, kind, password))

    def combined_subject(self, setup: Subject, proxy: Subject) -> Subject:
        """Combine two subjects into one, for a login whose rejection can be about either password."""
        key = self._key(setup.name, "together", setup.key, proxy.key)
        return Subject(setup.kind, setup.name, key, (setup._replace(parts=()), *setup.parts, proxy), with_proxy=True)

    def secret_subject(self, name: str, entry: PresentSecret) -> Subject:
        """Return the subject of the permanent secret that this client has for a partition.

        Secrets that were fetched with the same setup password are one subject. One of unknown origin is a subject of
        this host only.
        """
        if entry.origin is None:
            return Subject(PERMANENT, name, self._key(name, PERMANENT, "of", self.host), only_this_host=True)
        since = min(entry.since, self.store.now())
        return Subject(PERMANENT, name, self._key(name, PERMANENT, "from", entry.origin), since=since)

    def origin(self, name: str, setup_password: str) -> str:
        """Return the token of a setup password. Clients store it with the secret: same token, same origin."""
        return self._derive("origin", name, setup_password)

    def _key(self, name: str, *parts: str) -> str:
        return self._prefix(name) + self._derive("record", name, *parts)[PREFIX_DIGITS:]

    def _prefix(self, name: str) -> str:
        return self._derive("name", name)[:PREFIX_DIGITS]

    def _derive(self, *parts: str) -> str:
        return hmac.new(self._secret, json.dumps(parts).encode("ascii"), hashlib.sha256).hexdigest()

    # Permissions

    @contextlib.contextmanager
    def permission(self, subject: Subject, vouched: bool = True) -> t.Iterator[bool]:
        """Wait until this host may try, and hold the permission for the body of a with statement.

        A credential that was not accepted recently is tried by one host at a time, and for one name only as often as
        the budget permits. One that was accepted recently may have changed since, so it has a limited number of
        permits. The body must end with a call of record_verdict().

        :arg vouched: whether a rejection can only be about this credential, because there is no service proxy, or it is
            known to accept its password.
        :returns: whether another host has just not reached the HSM, so that retries are pointless.
        :raises AttemptRefused: when it was rejected, the budget is used up, or the HSM is not reached.
        :raises StaleSecret: in place of AttemptRefused, when a permanent secret was rejected.
        """
        with contextlib.ExitStack() as held:
            self._acquire_permission(held, subject, vouched)
            yield bool(self._unreachable_record(subject))

    @contextlib.contextmanager
    def early_permission(self, subjects: t.Sequence[Subject]) -> t.Iterator[bool]:
        """Get permits without an observation of the client, for credentials that another host of this run has used.

        The first host of the run observes whether its client needs the credentials at all. The others wait for it, and
        if it has used them, for permits, at most EARLY_WAIT seconds. This saves them one run of the module.

        :returns: whether this host has a permit for each; if not, it has none and must observe its client.
        """
        with contextlib.ExitStack() as held:
            yield self._early(held, sorted(subjects, key=order))

    def _early(self, held: contextlib.ExitStack, subjects: t.Sequence[Subject]) -> bool:
        deadline = time.monotonic() + EARLY_WAIT
        # Wait for the first hosts before taking any permit, because they need permits, too.
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
        """Wait until another host of the run has used it. False when this host must observe its client.

        That is the case when it is the first host, or when the first one did not use it.

        :arg held: gets the turn of the first host, which it holds until it has observed and tried.
        """
        first = self.store.new_turn(self._derive("first", subject.key), self.host)
        held.callback(first.release)
        while time.monotonic() < deadline:
            if self._used_in_run(subject):
                return self._all_accepted(subject)  # if another part is not accepted, there is no permit to wait for
            if self._not_needed(subject):
                return False
            if first.try_acquire() is None:
                if not (self._used_in_run(subject) or self._not_needed(subject)):
                    held.callback(self._record_first, subject)
                    return False
                first.release()
                continue
            time.sleep(POLL_INTERVAL)
        return False

    def _early_permit(self, subject: Subject, deadline: float) -> t.Optional[Turn]:
        reported = False
        while time.monotonic() < deadline:
            try:
                permit = self._take_permit(subject, vouched=True)
            except AttemptRefused:  # this host may need no change: the observation will show it
                return None
            if permit is not None:
                return permit or None
            if not reported:
                self._report_wait(subject, "")
                reported = True
            time.sleep(POLL_INTERVAL)
        return None

    def _used_in_run(self, subject: Subject) -> bool:
        record = self._record(subject)
        return record.get("verdict") == ACCEPTED and record.get("run") == _run_id()

    def _not_needed(self, subject: Subject) -> bool:
        """Whether the first host of this run did not use it."""
        return (self.store.read(self._key(subject.name, FIRST, subject.key)) or {}).get("run") == _run_id()

    def _record_first(self, subject: Subject) -> None:
        try:
            if not self._used_in_run(subject):
                record: Record = {"kind": FIRST, "verdict": FIRST, "run": _run_id(), "time": self.store.now()}
                record.update(name=subject.name[:TEXT_LIMIT], host=self.host[:TEXT_LIMIT])
                self.store.write(self._key(subject.name, FIRST, subject.key), record, self.options.window)
        except GateError:
            pass  # then another host becomes the first

    def _acquire_permission(self, held: contextlib.ExitStack, subject: Subject, vouched: bool) -> None:
        while True:
            if self._all_accepted(subject):
                permit = self._wait_for(subject, lambda: self._take_permit(subject, vouched))
                if permit is not None:
                    held.callback(permit.release)
                    return
                continue
            with contextlib.ExitStack() as turns:
                unknown = [part for part in subject.all_parts if not self.accepted(part)]
                for part in sorted(unknown, key=order):
                    turns.enter_context(self._turn(part))
                if all(self.accepted(part) for part in unknown):
                    continue
                slot = self._wait_for(subject, functools.partial(self._take_slot, subject, unknown, vouched))
                turns.callback(slot.release)
                held.push(turns.pop_all())
                return

    def accepted(self, subject: Subject) -> bool:
        """Whether it was accepted within the window."""
        record = self._record(subject)
        return record.get("verdict") == ACCEPTED and self._is_recent(record["time"])

    def _all_accepted(self, subject: Subject) -> bool:
        """Whether all its passwords were accepted within the window."""
        return all(self.accepted(part) for part in subject.all_parts)

    def stale_record(self, subject: Subject) -> t.Optional[Record]:
        """Return the record of a permanent secret's origin if the HSM is known to reject it, otherwise None.

        A setup password can be used for days, and may fetch another secret later. So the record counts only for secrets
        that were fetched before the rejected ones, or within one window after them.
        """
        record = self._record(subject)
        if record.get("verdict") != REJECTED or not self._is_recent(record["time"]) or subject.only_this_host:
            return None
        return record if subject.since <= (record.get("since") or 0) + self.options.window else None

    def check_permission(self, subject: Subject, vouched: bool = True) -> None:
        """Raise what permission() would raise, without a turn and without writing anything. :raises AttemptRefused:"""
        self._check_records(subject, vouched)
        if not self._all_accepted(subject):
            self._check_budget(subject)

    @contextlib.contextmanager
    def _turn(self, subject: Subject) -> t.Iterator[None]:
        """Hold the exclusive right to try this."""
        turn = None
        waits = functools.partial(self._report_wait, subject)
        try:
            with self.store.turn(self._derive("turn", subject.key), self.host, TURN_TIMEOUT, waits) as turn:
                yield
        finally:
            if turn is not None and turn.lost:
                self.display(
                    "%s lost its turn for the %s of '%s' before it was done: the gate's store could not be reached, or "
                    "the lock was removed. Another host may have tried it at the same time. See the entries with the "
                    "module hsmops.primus.attempt_gate_info." % (self.host, subject.label, subject.name)
                )

    def _take_slot(self, subject: Subject, unknown: t.Sequence[Subject], vouched: bool) -> t.Optional[Turn]:
        """Take one of the logins that the budget of a name has left, or None when other hosts hold all of them.

        :arg unknown: the parts of which this host holds the turn. The first one is recorded as RUNNING.
        """
        with self._update(subject.name), contextlib.ExitStack() as unless_kept:
            self._count_interrupted(subject, unknown)
            self._check_records(subject, vouched)
            left = self._check_budget(subject)
            slots = []
            for number in range(min(self.options.budget, self.options.parallel)):
                slots.append(self.store.new_turn(self._derive("slot", subject.name, str(number)), self.host))
                unless_kept.callback(slots[-1].release)
            free = [slot for slot in slots if slot.try_acquire() is None]
            if not free or len(slots) - len(free) >= left:
                return None
            self._record_running(unknown[0])
            for slot in free[1:]:
                slot.release()
            unless_kept.pop_all()
            return free[0]

    def _take_permit(self, subject: Subject, vouched: bool) -> t.Union[Turn, None, "t.Literal[False]"]:
        """Take a permit. None when other hosts hold all of them, False when it no longer counts as accepted."""
        self._check_records(subject, vouched)
        for number in range(self._permits(self._record(subject))):
            permit = self.store.new_turn(self._derive("permit", subject.name, str(number)), self.host)
            with contextlib.ExitStack() as unless_taken:
                unless_taken.callback(permit.release)
                if permit.try_acquire() is None:
                    self._check_records(subject, vouched)  # the last holder of this permit may have been rejected
                    if not self._all_accepted(subject):
                        return False
                    unless_taken.pop_all()
                    return permit
        return None if self._all_accepted(subject) else False

    def _wait_for(self, subject: Subject, take: t.Callable[[], t.Any]) -> t.Any:
        """Call `take` until it returns something other than None. Return that, with None in place of False."""
        deadline = time.monotonic() + TURN_TIMEOUT
        taken = take()
        if taken is None:
            self._report_wait(subject, "")
        while taken is None:
            if time.monotonic() > deadline:
                raise GateError("Waited for more than %d seconds for others with the same credential" % TURN_TIMEOUT)
            time.sleep(POLL_INTERVAL)
            taken = take()
        return taken or None

    def _permits(self, record: Record) -> int:
        permits = record.get("permits") if record.get("run") == _run_id() else None
        return max(1, min(permits or FIRST_PERMITS, self.options.parallel))

    def _report_wait(self, subject: Subject, holder: str) -> None:
        self.display(
            "%s waits for the verdict on the %s of '%s', which %s is trying."
            % (self.host, subject.label, subject.name, holder or "another host")
        )
        self.before_wait()

    # Refusals

    def _check_records(self, subject: Subject, vouched: bool) -> None:
        """:raises AttemptRefused: when a password was rejected, or the HSM is not reached. :raises StaleSecret:"""
        for part in subject.all_parts:
            record = self._record(part)
            if part.kind == PERMANENT:
                stale = self.stale_record(part)
                if stale:
                    raise StaleSecret(stale)
            if part.kind == PERMANENT or record.get("verdict") != REJECTED:
                continue
            if vouched and not record.get("sure", True):
                continue  # the rejections may have been about passwords of service proxies
            were = " and ".join(record["witnesses"]) if not record.get("sure", True) else record["host"]
            raise AttemptRefused(
                "The %s of '%s' was rejected when %s tried at %s: %s. %s did not use it"
                % (part.label, part.name, were, utc_time(record["time"]), _reason(record), self.host),
                "Give the right one, or clear the entry if it is right after all: %s"
                % self.store.clear_command(name=part.name),
                record,
            )
        down = self._unreachable_record(subject)
        if len(down.get("witnesses", [])) >= WITNESSES and self.host not in down["witnesses"]:
            raise AttemptRefused(
                "The HSM of '%s' was not reached by %s at %s: %s. %s did not contact it"
                % (subject.name, " and ".join(down["witnesses"]), utc_time(down["time"]), _reason(down), self.host),
                "No login was made. Check that the HSM runs and can be reached, then run again.",
                down,
            )

    def _check_budget(self, subject: Subject) -> int:
        """Return how many more logins may fail or be unclear. :raises AttemptRefused: when none may.

        Setup passwords and permanent secrets share one budget, because the HSM counts them together.
        """
        least = budget = min(self.options.budget, LIST_LIMIT)
        for part in subject.all_parts:
            kinds = ACCOUNTS[part.kind]
            records = [record for _key, record in self.store.items(self._prefix(part.name)) if record["kind"] in kinds]
            wrong = [record for record in records for _moment in self._recent(record)]
            least = min(least, budget - len(wrong))
            if len(wrong) < budget:
                continue
            last = max(wrong, key=lambda record: record["time"])
            raise AttemptRefused(
                "Attempt limit reached for '%s': %d of %d failed or unclear logins within %d seconds, the latest of "
                "%s at %s: %s. %s made no login to it"
                % (
                    part.name,
                    len(wrong),
                    budget,
                    self.options.window,
                    last["host"],
                    utc_time(last["time"]),
                    _reason(last),
                    self.host,
                ),
                "Make sure that the %s is right, then clear the entries, or wait: %s"
                % (part.label, self.store.clear_command(name=part.name)),
                last,
            )
        return least

    def _unreachable_record(self, subject: Subject) -> Record:
        """Return the record that hosts of this run have recently not reached the HSM, or {}."""
        record = self.store.read(self._key(subject.name, UNREACHABLE)) or {}
        counts = record.get("run") == _run_id() and self._age(record["time"]) < UNREACHABLE_RETENTION
        return record if counts else {}

    # Verdicts

    def _record_running(self, subject: Subject) -> None:
        """Record that this host, which holds the turn, is about to try.

        This shows that the store can be written, and if the run is interrupted, other hosts know of the attempt.
        """
        running = {"verdict": RUNNING, "host": self.host, "time": self.store.now()}
        self._write(subject, {**self._record(subject), **running})

    def _count_interrupted(self, subject: Subject, unknown: t.Sequence[Subject]) -> None:
        """Count the attempts of interrupted runs as unclear: records that are RUNNING while nobody holds the turn.

        :arg unknown: the parts of which this host holds the turn.
        """
        mine = [part.key for part in unknown]
        for name in {part.name for part in subject.all_parts}:
            for key, record in self.store.items(self._prefix(name)):
                if record["verdict"] != RUNNING:
                    continue
                turn = self.store.new_turn(self._derive("turn", key), self.host)
                try:
                    if key in mine or turn.try_acquire() is None:
                        interrupted = {**record, **_verdict_of_witnesses(record), "code": None}
                        interrupted.update(
                            meaning="the run was interrupted",
                            wrong=[*self._recent(record), record["time"]],
                        )
                        self._write(Subject(record["kind"], record["name"], key), interrupted)
                finally:
                    turn.release()

    def record_verdict(self, subject: Subject, verdict: Verdict, vouched: bool = True) -> None:
        """Record the verdict on what was tried. Call it while the permission is held."""
        rejected_part = subject
        if verdict.error.get("code") == PIN_CODE:
            rejected_part = next((part for part in subject.all_parts if part.kind == PIN), subject)
        sure = vouched or verdict.error.get("code") == SETUP_CODE
        with self._update(subject.name):
            if verdict.value == ACCEPTED:
                for part in subject.all_parts:
                    self._accept(part)
            elif verdict.value in (REJECTED, UNCLEAR):
                if verdict.value == UNCLEAR:
                    self._record_wrong(rejected_part, verdict.error, {})
                elif rejected_part.kind == PERMANENT:
                    self._reject_permanent(rejected_part, verdict)
                else:
                    self._reject(rejected_part, verdict, sure or rejected_part is not subject)
            for part in subject.all_parts:
                self._withdraw(part)
            self._record_reachability(subject, verdict)

    def _accept(self, subject: Subject) -> None:
        record = self._record(subject)
        if subject.only_this_host:
            self.store.remove(subject.key)
            return
        if record.get("verdict") == REJECTED and subject.kind != PERMANENT and record.get("sure", True):
            return  # another host was rejected at the same time
        if record.get("witnesses") and subject.since > (record.get("since") or 0) + self.options.window:
            self._withdraw(subject)  # the accepted secret is newer than the rejected ones, whose record is kept
            return
        now = self.store.now()
        accepted_before = record.get("verdict") == ACCEPTED
        new: Record = {
            "verdict": ACCEPTED,
            "time": now,
            "run": _run_id(),
            "permits": min(self._permits(record) * 2 if accepted_before else FIRST_PERMITS, LIST_LIMIT),
        }
        if subject.kind == SECRET:  # its validity starts with the first use
            new["first_used"] = record.get("first_used") or now
        self._write(subject, {**new, "host": self.host})

    def _reject(self, subject: Subject, verdict: Verdict, sure: bool) -> None:
        record = self._record(subject)
        if record.get("verdict") == REJECTED and record.get("sure", True):
            self._write(subject, {**record, "wrong": [*self._recent(record), self.store.now()]})
            return  # several hosts were rejected at once; messages name the first one
        witnesses = self._with_host(record if self._recent(record) else {})
        final = sure or len(witnesses) >= WITNESSES
        changes = {"verdict": REJECTED if final else UNCLEAR, "witnesses": witnesses, "sure": sure}
        self._record_wrong(subject, verdict.error, changes)

    def _reject_permanent(self, subject: Subject, verdict: Verdict) -> None:
        """Record a rejected permanent secret. One client may be broken, so other hosts rely on two witnesses only."""
        record = self._record(subject)
        if not self._recent(record):
            record = {**record, "witnesses": [], "since": None}
        witnesses = self._with_host(record)
        final = len(witnesses) >= WITNESSES or subject.only_this_host
        since = max(subject.since, record.get("since") or 0)
        changes = {"verdict": REJECTED if final else UNCLEAR, "witnesses": witnesses, "since": since}
        self._record_wrong(subject, verdict.error, changes)

    def _with_host(self, record: Record) -> t.List[str]:
        witnesses = [host for host in record.get("witnesses", []) if host != self.host]
        return [*witnesses, self.host[:TEXT_LIMIT]][-WITNESS_LIMIT:]

    def _record_wrong(self, subject: Subject, error: t.Mapping[str, t.Any], changes: t.Mapping[str, t.Any]) -> None:
        """Record a login that was rejected or unclear."""
        record, now = self._record(subject), self.store.now()
        if record.get("verdict") == REJECTED and "verdict" not in changes:  # another host was rejected at the same time
            self._write(subject, {**record, "wrong": [*self._recent(record), now]})
            return
        verdict = {"verdict": UNCLEAR, "host": self.host, "time": now, **error, **changes}
        self._write(subject, {**record, **verdict, "wrong": [*self._recent(record), now]})

    def _withdraw(self, subject: Subject) -> None:
        """Undo _record_running(), when nothing was tried, or the verdict is about another part."""
        record = self._record(subject)
        if record.get("verdict") != RUNNING or record["host"] != self.host[:TEXT_LIMIT]:
            return
        if self._recent(record):
            self._write(subject, {**record, **_verdict_of_witnesses(record)})
        elif record.get("first_used"):
            self._write(subject, {**record, "verdict": ACCEPTED, "time": record["first_used"]})
        else:
            self.store.remove(subject.key)

    def _record_reachability(self, subject: Subject, verdict: Verdict) -> None:
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
                "witnesses": self._with_host(self._unreachable_record(subject)),
                "run": _run_id(),
                **verdict.error,
            },
            UNREACHABLE_RETENTION,
        )

    # Store

    def _record(self, subject: Subject) -> Record:
        return self.store.read(subject.key) or {}

    def _write(self, subject: Subject, record: Record) -> None:
        """Write a record. That of a rejected password stays until it is cleared; others expire."""
        whole: Record = {
            **record,
            "kind": subject.kind,
            "name": subject.name[:TEXT_LIMIT],
            "host": record["host"][:TEXT_LIMIT],
            "wrong": record.get("wrong", [])[-LIST_LIMIT:],
        }
        ttl: t.Optional[float] = RETENTION_WINDOWS * self.options.window
        if whole["verdict"] == REJECTED and subject.kind != PERMANENT:
            ttl = None
        elif whole.get("first_used"):
            ttl = max(RETENTION_WINDOWS * self.options.window, RETENTION_FIRST_USE)
        self.store.write(subject.key, whole, ttl)

    def _update(self, name: str) -> t.ContextManager[t.Any]:
        """Return the turn for changing the records of a name."""
        key = self._derive("update", name)
        return self.store.turn(key, self.host, UPDATE_TIMEOUT, lambda holder: self.before_wait())

    def _age(self, moment: float) -> float:
        """Return the seconds since a time; 0 for a time in the future."""
        return max(0.0, self.store.now() - moment)

    def _is_recent(self, moment: float) -> bool:
        return self._age(moment) < self.options.window

    def _recent(self, record: Record) -> t.List[float]:
        return [moment for moment in record.get("wrong", []) if self._is_recent(moment)]


@contextlib.contextmanager
def warn_on_gate_error(display: t.Callable[[str], None]) -> t.Iterator[None]:
    """Turn an error of the store into a warning. After a login, it must not hide the result of the login."""
    try:
        yield
    except GateError as exc:
        display("%s. What this run found is not known to others." % str(exc).rstrip("."))


def _verdict_of_witnesses(record: Record) -> Record:
    """Return the verdict of a record, by the number of its witnesses."""
    return {"verdict": REJECTED if len(record.get("witnesses", [])) >= WITNESSES else UNCLEAR}


def witnesses_sentence(record: Record) -> str:
    """Return a sentence that names the hosts whose logins were rejected."""
    return "It was %s that found out, the latest at %s." % (" and ".join(record["witnesses"]), utc_time(record["time"]))


def utc_time(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _run_id() -> str:
    """Return an id of the run that this process is a worker of: host, parent process and its start time."""
    parent = os.getppid()
    try:
        with open("/proc/%d/stat" % parent, encoding="utf-8", errors="replace") as stream:
            started = stream.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = ""
    return "%s:%d:%s" % (os.uname().nodename[:200], parent, started)


def _reason(record: Record) -> str:
    return " ".join(filter(None, [record.get("code"), record.get("meaning")])) or "no reason is known"
