# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""The attempt gate's store in Redis, for several control nodes."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
import typing as t
from urllib.parse import urlsplit

from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import (
    KEY,
    GateError,
    Record,
    Store,
    Turn,
    decode_record,
    encode_record,
)

PREFIX = "hsmops.primus.gate:"

_RENEW = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('pexpire', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1]) or 0"


class RedisStore(Store):
    """Redis keys with one prefix: the key, the records, and a lease for each turn, which its holder renews.

    If the holder is killed, the lease ends LEASE seconds after its last renewal.
    """

    LEASE = 30
    """Seconds. A holder that cannot reach Redis for this time loses its turn, and its record stays RUNNING."""

    TIMEOUT = 10
    """Seconds to wait for an answer of Redis."""

    BATCH = 500
    """Records that are read at once."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        try:
            import redis
        except ImportError:
            raise GateError(
                "The attempt gate's store is Redis, for which the control node needs the Python package redis"
            ) from None
        self._error: t.Type[Exception] = redis.RedisError
        try:
            self.shown = urlsplit(url).hostname or urlsplit(url).path
            self._server = _Server.of_process(url)
            self._secret_location = f"{PREFIX}key in Redis at {self.shown}"
            self._reset_instructions = f"delete all keys that begin with {PREFIX}"
        except (TypeError, ValueError):
            raise GateError("The attempt gate's store has no valid Redis URL") from None

    def _read_secret(self) -> t.Optional[bytes]:
        with self._connected() as redis:
            secret: t.Optional[bytes] = redis.get(PREFIX + "key")
        return secret

    def _make_secret(self, secret: bytes) -> None:
        with self._connected() as redis:
            redis.set(PREFIX + "key", secret, nx=True)

    def _server_time(self) -> float:
        with self._connected() as redis:
            seconds, microseconds = redis.time()
            return float(seconds) + float(microseconds) / 1e6

    def new_turn(self, key: str, holder: str) -> Turn:
        return _Lease(self, PREFIX + "turn:" + key, holder)

    def read(self, key: str) -> t.Optional[Record]:
        with self._connected() as redis:
            content = redis.get(PREFIX + "record:" + key)
        try:
            return None if content is None else decode_record(content)[0]
        except ValueError:
            raise GateError(
                f"The attempt gate's record {PREFIX}record:{key} in Redis at {self.shown} is damaged. "
                "Delete it and run again."
            ) from None

    def write(self, key: str, record: Record, ttl: t.Optional[float] = None) -> None:
        content = encode_record(record)
        with self._connected() as redis:
            redis.set(PREFIX + "record:" + key, content, px=None if ttl is None else max(1, int(1000 * ttl)))

    def remove(self, key: str) -> None:
        with self._connected() as redis:
            redis.delete(PREFIX + "record:" + key)

    def keys(self, prefix: str = "") -> t.List[str]:
        start = PREFIX + "record:"
        with self._connected() as redis:
            names = set(redis.scan_iter(match=start + prefix + "*", count=1000))  # SCAN may return a key twice
        keys = [name[len(start) :].decode("ascii", "replace") for name in names]
        return sorted(filter(KEY.fullmatch, keys))

    def items(self, prefix: str = "") -> t.List[t.Tuple[str, Record]]:
        keys = self.keys(prefix)
        found = []
        for first in range(0, len(keys), self.BATCH):
            batch = keys[first : first + self.BATCH]
            with self._connected() as redis:
                contents = redis.mget([PREFIX + "record:" + key for key in batch])
            for key, content in zip(batch, contents):
                with contextlib.suppress(ValueError):
                    if content is not None:
                        found.append((key, decode_record(content)[0]))
        return found

    @contextlib.contextmanager
    def _connected(self) -> t.Iterator[t.Any]:
        """Yield the client, after a check that it may use all commands that the gate needs. :raises GateError:"""
        try:
            denied_command = self._server.denied_command()
            if denied_command:
                command, error = denied_command
                raise GateError(
                    f"Redis at {self.shown} does not let the attempt gate use the command {command}: {error}. "
                    "Permit it, or have a server that takes writes and scripts"
                )
            yield self._server.redis
        except (self._error, OSError) as exc:
            raise GateError(f"The attempt gate cannot use Redis at {self.shown}: {exc}") from None


class _Lease(Turn):
    """A turn that is a key with a time to live. Its value is a random token of the holder, and the holder's name."""

    def __init__(self, store: RedisStore, name: str, holder: str) -> None:
        self._store, self.name = store, name
        self.token = f"{secrets.token_hex(16)} {holder}".encode("utf-8", "replace")
        self._was_asked = False
        self._until: t.Optional[float] = None
        self.renew_at = 0.0
        self.deleted = False

    def try_acquire(self) -> t.Optional[str]:
        asked_at, lease = time.monotonic(), int(1000 * self._store.LEASE)
        with self._store._connected() as redis:
            self._was_asked = True
            taken = redis.set(self.name, self.token, nx=True, px=lease)
            there = self.token if taken else redis.get(self.name) or b""
            # It may be the token of this lease, if an answer was lost and the client sent the command again.
            if there != self.token or not (taken or redis.eval(_RENEW, 1, self.name, self.token, lease)):
                return str(there.decode("utf-8", "replace").partition(" ")[2])
        self.set_renewed(asked_at)
        self._store._server.renew(self)
        return None

    def set_renewed(self, moment: float) -> None:
        """Record a renewal. moment: when it was requested, by the monotonic clock."""
        self._until, self.renew_at = moment + self._store.LEASE, moment + self._store.LEASE / 3

    @property
    def lost(self) -> bool:
        """Does not query Redis. A deleted key is noticed only at the next renewal, or at the release."""
        return self.deleted or (self._until is not None and time.monotonic() > self._until)

    def release(self) -> None:
        if not self._was_asked:
            return
        self._store._server.forget(self)
        self.deleted = self.lost
        # Also if it was not acquired, as an answer may have been lost. If this fails, the lease expires.
        with contextlib.suppress(self._store._error, OSError):
            released = self._store._server.redis.eval(_RELEASE, 1, self.name, self.token)
            self.deleted = self.deleted or (self._until is not None and not released)
        self._until = None


class _Server:
    """The connections and the renewal thread, which all stores of a process with the same URL share."""

    _of_process: t.ClassVar[t.Dict[t.Tuple[int, str], _Server]] = {}

    @classmethod
    def of_process(cls, url: str) -> _Server:
        key = (os.getpid(), url)  # a forked process needs its own thread and sockets
        return cls._of_process.get(key) or cls._of_process.setdefault(key, cls(url))

    def __init__(self, url: str) -> None:
        import redis

        timeout = RedisStore.TIMEOUT
        self.redis: t.Any = redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
        pool = self.redis.connection_pool
        # Options in the URL override arguments, and these would make the answers strings in place of bytes.
        pool.connection_kwargs.update(decode_responses=False, encoding="utf-8", encoding_errors="strict")
        pool.connection_class(**pool.connection_kwargs)  # does not connect, but fails for an unknown option
        self._error = redis.RedisError
        self._checked = False
        self._leases: t.List[_Lease] = []
        self._changed = threading.Condition()
        self._thread: t.Optional[threading.Thread] = None

    def denied_command(self) -> t.Optional[t.Tuple[str, Exception]]:
        """Return the first command that the store needs and may not use, with the error, or None. Checked once."""
        if self._checked:
            return None
        name, token = f"{PREFIX}check:{secrets.token_hex(8)}", b"token"
        commands = ("SET", "GET", "MGET", "EVAL", "EVAL", "SCAN", "TIME", "DEL")
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.set(name, token, nx=True, px=1000 * RedisStore.TIMEOUT).get(name).mget([name])
        pipeline.eval(_RENEW, 1, name, token, 1000).eval(_RELEASE, 1, name, token)
        pipeline.scan(match=name).time().delete(name)
        for command, answer in zip(commands, pipeline.execute(raise_on_error=False)):
            if isinstance(answer, Exception):
                return command, answer
        self._checked = True
        return None

    def renew(self, lease: _Lease) -> None:
        """Renew the lease from now on."""
        with self._changed:
            self._leases.append(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, daemon=True)
                self._thread.start()
            self._changed.notify()

    def forget(self, lease: _Lease) -> None:
        with self._changed, contextlib.suppress(ValueError):
            self._leases.remove(lease)
            self._changed.notify()

    def _renew(self) -> None:
        """The renewal thread. It ends when there are no leases."""
        while True:
            with self._changed:
                while self._leases:
                    due = min(lease.renew_at for lease in self._leases) - time.monotonic()
                    if due <= 0:
                        break
                    self._changed.wait(due)
                else:
                    self._thread = None
                    return
                leases = list(self._leases)
            self._renew_all(leases)

    def _renew_all(self, leases: t.Sequence[_Lease]) -> None:
        asked_at = time.monotonic()
        pipeline = self.redis.pipeline(transaction=False)
        for lease in leases:
            pipeline.eval(_RENEW, 1, lease.name, lease.token, int(1000 * RedisStore.LEASE))
        try:
            answers = pipeline.execute(raise_on_error=False)
        except (self._error, OSError) as exc:
            answers = [exc] * len(leases)
        for lease, answer in zip(leases, answers):
            if isinstance(answer, Exception):
                lease.renew_at = time.monotonic() + RedisStore.LEASE / 10
            elif answer:
                lease.set_renewed(asked_at)
            else:
                lease.deleted = True
                self.forget(lease)
