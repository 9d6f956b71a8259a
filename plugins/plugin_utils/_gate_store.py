# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Where the attempt gate keeps what it knows: a folder of the controller, or Redis for several controllers.

A record is a dict of JSON values under a key, 64 hexadecimal digits. It never holds a password. A turn is the exclusive
right to do something under a key, held by one process at a time of all controllers that share the store.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import threading
import time
import typing as t
from urllib.parse import urlsplit

from ansible import constants

Record = t.Dict[str, t.Any]

POLL = 0.2
"""Seconds between two looks at a turn that another host has."""

SECRET_BYTES = 32


class GateError(Exception):
    """The store cannot be used; the message is one for the operator. Raised before a credential is used."""


class Store:
    """What the gate asks of a store. Every method raises GateError when the store cannot do it."""

    def secret(self) -> bytes:
        """The key that keys are derived with, the same for all who share the store. Made at its first use."""
        raise NotImplementedError

    def turn(self, key: str, holder: str, timeout: float, waiting: t.Callable[[str], None]) -> t.ContextManager[None]:
        """Have the turn for the body of a with statement. It ends with the process that has it, however that ends.

        :arg holder: name of the host that asks, for those that wait.
        :arg timeout: seconds to wait for it.
        :arg waiting: called once with the holder's name (empty when it is not known) if there is a wait.
        """
        raise NotImplementedError

    def read(self, key: str) -> t.Optional[Record]:
        """The record, or None. Fails when it is damaged."""
        raise NotImplementedError

    def write(self, key: str, record: Record) -> None:
        """Replace the record, whole or not at all."""
        raise NotImplementedError

    def remove(self, key: str) -> None:
        """Forget the record, if there is one."""
        raise NotImplementedError

    def keys(self) -> t.List[str]:
        """The keys of all records."""
        raise NotImplementedError

    def items(self) -> t.Iterator[t.Tuple[str, Record]]:
        """All records with their keys, without those that are damaged."""
        for key in self.keys():
            try:
                record = self.read(key)
            except GateError:
                continue
            if record is not None:
                yield key, record


def open_store(where: t.Optional[str]) -> Store:
    """The store that the option C(gate_store) names, or the default. Nothing is created or connected yet.

    :raises GateError: when it can name none.
    """
    if not where:
        where = os.path.join(constants.config.get_config_value("ANSIBLE_HOME"), "hsmops-primus-gate")
    if where.startswith(("redis://", "rediss://", "unix://")):
        return RedisStore(where)
    if "://" in where:
        raise GateError(
            "The attempt gate's store is neither a folder nor a URL that begins with redis://, rediss:// or unix://"
        )
    return FolderStore(os.path.abspath(os.path.expanduser(where)))


class FolderStore(Store):
    """One file per record, C(KEY.json), replaced by rename; C(KEY.lock) with a flock for each turn; C(key).

    Lock files stay: one that is removed while another process opens it would be locked twice.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def secret(self) -> bytes:
        path = os.path.join(self.folder, "key")
        with self._doing("use"):
            self._make_folder()
            if not os.path.exists(path):
                temporary = self._write_new(secrets.token_hex(SECRET_BYTES))
                try:
                    # Of several processes that get here, one makes the link; all then read what it linked.
                    with contextlib.suppress(FileExistsError):
                        os.link(temporary, path)
                finally:
                    os.unlink(temporary)
            with open(path, encoding="ascii", errors="replace") as stream:
                text = stream.read()
        if not re.fullmatch("[0-9a-f]{%d}" % (2 * SECRET_BYTES), text):
            raise GateError(
                "The key of the attempt gate, %s, is damaged. Remove the folder %s; what the gate knows is lost then."
                % (path, self.folder)
            )
        return bytes.fromhex(text)

    @contextlib.contextmanager
    def turn(self, key: str, holder: str, timeout: float, waiting: t.Callable[[str], None]) -> t.Iterator[None]:
        with self._doing("lock"):
            # For writing, as an exclusive flock on NFS asks for it.
            handle = os.open(os.path.join(self.folder, key + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with self._doing("lock"):
                wait(
                    lambda: self._lock(handle),
                    lambda: os.pread(handle, 1024, 0).decode("utf-8", "replace"),
                    timeout,
                    waiting,
                )
            with contextlib.suppress(OSError):  # only what others are told; a full disk is found by write()
                os.ftruncate(handle, 0)
                os.pwrite(handle, holder.encode("utf-8", "replace"), 0)
            yield
        finally:
            os.close(handle)

    @staticmethod
    def _lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False

    def read(self, key: str) -> t.Optional[Record]:
        path = self._path(key)
        with self._doing("read"):
            try:
                with open(path, "rb") as stream:
                    return parse(stream.read())
            except FileNotFoundError:
                return None
            except ValueError:
                raise GateError(
                    "The attempt gate's record %s is damaged. Remove the file and run again." % path
                ) from None

    def write(self, key: str, record: Record) -> None:
        with self._doing("write"):
            temporary = self._write_new(json.dumps(record, sort_keys=True) + "\n")
            os.rename(temporary, self._path(key))

    def remove(self, key: str) -> None:
        with self._doing("write"), contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(key))

    def keys(self) -> t.List[str]:
        with self._doing("read"):
            names = sorted(os.listdir(self.folder)) if os.path.isdir(self.folder) else []
        return [name[: -len(".json")] for name in names if name.endswith(".json")]

    def _path(self, key: str) -> str:
        return os.path.join(self.folder, key + ".json")

    def _make_folder(self) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if os.stat(self.folder).st_mode & 0o022:
            raise GateError(
                "The folder of the attempt gate, %s, can be written by others: make its mode 0700." % self.folder
            )

    def _write_new(self, text: str) -> str:
        """Write a file under a name that nobody else has; the name."""
        path = os.path.join(self.folder, ".new.%s" % secrets.token_hex(8))
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as new:
                new.write(text)
                new.flush()
                os.fsync(new.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        return path

    @contextlib.contextmanager
    def _doing(self, what: str) -> t.Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise GateError(
                "The attempt gate cannot %s its folder %s: %s" % (what, self.folder, exc.strerror or exc)
            ) from exc


class RedisStore(Store):
    """Redis keys under one prefix: the key, records, and for each turn a lease, which its holder renews.

    The lease ends LEASE seconds after a holder that was killed renewed it last.
    """

    PREFIX = "hsmops.primus.gate:"

    LEASE = 30
    """Seconds. A holder that cannot reach Redis for so long loses its turn; its record then still says RUNNING."""

    TIMEOUT = 10
    """Seconds that Redis may take for an answer."""

    _RENEW = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('pexpire', KEYS[1], ARGV[2]) or 0"
    _RELEASE = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1]) or 0"

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ImportError:
            raise GateError(
                "The attempt gate's store is Redis, for which the controller needs the Python package redis."
            ) from None
        self._error: t.Type[Exception] = redis.RedisError
        try:
            self.shown = urlsplit(url).hostname or urlsplit(url).path
            self._redis: t.Any = redis.Redis.from_url(
                url, socket_timeout=self.TIMEOUT, socket_connect_timeout=self.TIMEOUT
            )
        except ValueError:
            raise GateError("The attempt gate's store has no valid Redis URL") from None

    def secret(self) -> bytes:
        with self._doing():
            self._redis.set(self.PREFIX + "key", secrets.token_bytes(SECRET_BYTES), nx=True)
            return bytes(self._redis.get(self.PREFIX + "key"))

    @contextlib.contextmanager
    def turn(self, key: str, holder: str, timeout: float, waiting: t.Callable[[str], None]) -> t.Iterator[None]:
        lease = self.PREFIX + "turn:" + key
        token = ("%s %s" % (secrets.token_hex(16), holder)).encode("utf-8", "replace")
        with self._doing():
            wait(
                lambda: bool(self._redis.set(lease, token, nx=True, px=1000 * self.LEASE)),
                lambda: (self._redis.get(lease) or b"").decode("utf-8", "replace").partition(" ")[2],
                timeout,
                waiting,
            )
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(lease, token, ended), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            with contextlib.suppress(self._error):  # the lease ends by itself
                self._redis.eval(self._RELEASE, 1, lease, token)

    def _renew(self, lease: str, token: bytes, ended: threading.Event) -> None:
        while not ended.wait(self.LEASE / 3):
            with contextlib.suppress(self._error):
                self._redis.eval(self._RENEW, 1, lease, token, 1000 * self.LEASE)

    def read(self, key: str) -> t.Optional[Record]:
        with self._doing():
            content = self._redis.get(self.PREFIX + "record:" + key)
        try:
            return None if content is None else parse(content)
        except ValueError:
            raise GateError(
                "The attempt gate's record %srecord:%s in Redis at %s is damaged. Delete it and run again."
                % (self.PREFIX, key, self.shown)
            ) from None

    def write(self, key: str, record: Record) -> None:
        with self._doing():
            self._redis.set(self.PREFIX + "record:" + key, json.dumps(record, sort_keys=True))

    def remove(self, key: str) -> None:
        with self._doing():
            self._redis.delete(self.PREFIX + "record:" + key)

    def keys(self) -> t.List[str]:
        prefix = self.PREFIX + "record:"
        with self._doing():
            names = sorted(name.decode("ascii") for name in self._redis.scan_iter(match=prefix + "*"))
        return [name[len(prefix) :] for name in names]

    @contextlib.contextmanager
    def _doing(self) -> t.Iterator[None]:
        try:
            yield
        except self._error as exc:
            raise GateError("The attempt gate cannot use Redis at %s: %s" % (self.shown, exc)) from None


def parse(content: bytes) -> Record:
    """A record from its JSON. :raises ValueError: when it is damaged."""
    record = json.loads(content.decode("utf-8"))
    if not isinstance(record, dict) or not {"verdict", "time", "host", "kind", "name"} <= set(record):
        raise ValueError("not a record")
    if not isinstance(record["time"], (int, float)):
        raise ValueError("not a record")
    return record


def wait(
    take: t.Callable[[], bool], holder: t.Callable[[], str], timeout: float, waiting: t.Callable[[str], None]
) -> None:
    """Ask for a turn until it is had.

    :arg take: takes the turn; whether that worked.
    :arg holder: the name of the host that has the turn, empty when it is not known.
    :arg timeout: as for Store.turn, and so is waiting.
    :raises GateError: when it takes longer.
    """
    deadline = time.monotonic() + timeout
    told = False
    while not take():
        name = holder()
        if not told:
            waiting(name)
            told = True
        if time.monotonic() > deadline:
            raise GateError(
                "Waited for more than %d seconds for %s, which tries a credential of the same name. Run again later."
                % (timeout, name or "another host")
            )
        time.sleep(POLL)
