# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Where the attempt gate keeps what it knows: a directory of the control node, or Redis for several control nodes.

A record is a dict with the fields of FIELDS under a key, 64 hexadecimal digits. Records whose keys begin with the same
digits can be read without the others. A record never holds a password. A turn is the exclusive right to do something
under a key, held by one process at a time of all control nodes that share the store.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import stat
import threading
import time
import typing as t
from urllib.parse import urlsplit

from ansible import constants
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    PATH_ONLY,
    Directory,
    group_name,
    make_directory,
    open_directory,
    user_name,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError

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


def open_store(where: t.Optional[str]) -> Store:
    """The store that the option C(gate_store) names, or the default. Nothing is created or connected yet.

    :raises GateError: when it can name none.
    """
    if where and where.startswith(("redis://", "rediss://", "unix://")):
        return RedisStore(where)
    if where and "://" in where:
        raise GateError(
            "The attempt gate's store is neither a directory nor a URL that begins with redis://, rediss:// or unix://"
        )
    if where:
        path = os.path.expanduser(where)
        unknown_home = path.startswith("~")
    else:
        # Ansible makes "~" one directory of the current directory when it knows no home directory.
        home = os.path.expanduser(constants.config.get_config_value("ANSIBLE_HOME"))
        path = os.path.join(home, "hsmops-primus-gate")
        unknown_home = any(part.startswith("~") for part in path.split(os.sep))
    if unknown_home:
        raise GateError(
            "The attempt gate's store is in a home directory, and the one of this user is not known: HOME is not set, "
            "or there is no such user. Name a directory without ~ in gate_store, or set ANSIBLE_HOME"
        )
    return DirectoryStore(os.path.abspath(path))


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


# A directory


class _Directory(t.NamedTuple):
    """The store's directory while it is open. ``group``: the id of the group that shares it, or None."""

    handle: int
    group: t.Optional[int]


def _judge_above(directory: Directory) -> None:
    """For each directory above the store's. :raises GateError: when others could take that away, and all it knows."""
    status = directory.status
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (0, os.geteuid()):
        who = f"the user {user_name(status.st_uid)}, to whom it belongs,"
    elif mode & stat.S_ISVTX or not mode & 0o022:
        return
    elif mode & 0o002:
        who = "everybody"
    elif status.st_gid != os.getegid():  # with a umask of 002, what a user makes can be written by their own group
        who = f"the group {group_name(status.st_gid)}"
    else:
        return
    raise GateError(
        f"The directory {directory.path} on the way to the attempt gate's can be written by {who} (mode {mode:04o}), "
        "who could put an empty one in the place of the gate's, so that rejected credentials would be tried again. "
        "Change its owner or mode, or name another directory in gate_store"
    )


class DirectoryStore(Store):
    """One file per record, C(KEY.json), replaced by rename; C(KEY.lock) with a flock for each turn; C(key).

    Everything is opened relative to the directory, after a check of its owner and mode, and no link is followed.
    Whoever has a turn removes its lock file in the end, and whoever locks one makes sure that it is still the one at
    its path. C(key) is locked, too: shared by who writes a record, exclusively by who removes one that has expired.
    """

    SWEPT = 20
    """Records of other names that are read with those of one name, to remove those of them that have expired."""

    LEFT = 3600
    """Seconds after which a new file without its final name was left by a process that was killed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path
        self._secret_at = self._at("key")
        self._start_again = f"remove the directory {path}"

    def _read_secret(self) -> t.Optional[bytes]:
        with self._doing("use"):
            above, name = os.path.split(self.path)
            make_directory(above, _judge_above)
            with open_directory(above, _judge_above, PATH_ONLY) as parent, contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent.fd)
            with self._opened() as directory:
                try:
                    text = self._content(directory, "key")
                except FileNotFoundError:
                    return None
        whole = re.fullmatch(b"[0-9a-f]{%d}" % (2 * SECRET_BYTES), text)
        return bytes.fromhex(text.decode("ascii")) if whole else b""

    def _make_secret(self, secret: bytes) -> None:
        with self._doing("use"), self._opened() as directory:
            self._link_new(directory, "key", secret.hex().encode("ascii"))

    def _ask_time(self) -> float:
        # On NFS both are the server's. This needs no room, so it works on a full disk, too.
        with self._doing("use"), self._opened() as directory:
            os.utime(directory.handle)
            return os.fstat(directory.handle).st_mtime

    def new_turn(self, key: str, holder: str) -> Turn:
        return _FileTurn(self, key + ".lock", holder)

    def is_new(self) -> bool:
        return not os.path.isdir(self.path) or super().is_new()

    def read(self, key: str) -> t.Optional[Record]:
        with self._doing("read"):
            try:
                with self._opened() as directory:
                    return self._record(directory, key)
            except FileNotFoundError:
                return None

    def write(self, key: str, record: Record, ttl: t.Optional[float] = None) -> None:
        content = encode(record, None if ttl is None else self.now() + ttl)
        with self._doing("write"), self._opened() as directory:
            temporary = self._new(directory, content)
            try:
                with self._key_locked(directory, fcntl.LOCK_SH):
                    os.rename(temporary, key + ".json", src_dir_fd=directory.handle, dst_dir_fd=directory.handle)
            except BaseException:
                self._unlink(directory, temporary)
                raise

    def remove(self, key: str) -> None:
        with self._doing("write"), contextlib.suppress(FileNotFoundError), self._opened() as directory:
            os.unlink(key + ".json", dir_fd=directory.handle)

    def keys(self, prefix: str = "") -> t.List[str]:
        with self._doing("read"):
            try:
                with self._opened() as directory:
                    keys = self._keys(os.listdir(directory.handle))
            except FileNotFoundError:
                return []
        return [key for key in keys if key.startswith(prefix)]

    def items(self, prefix: str = "") -> t.List[t.Tuple[str, Record]]:
        found = []
        with self._doing("read"), contextlib.suppress(FileNotFoundError), self._opened() as directory:
            names = os.listdir(directory.handle)
            keys = self._keys(names)
            if keys:
                self.now()  # where this cannot be had, all records that expire would look damaged
            for key in keys:
                if key.startswith(prefix):
                    with contextlib.suppress(FileNotFoundError, GateError):
                        record = self._record(directory, key)
                        if record is not None:
                            found.append((key, record))
            others = [key for key in keys if not key.startswith(prefix)]
            self._sweep(directory, others, [name for name in names if name.startswith(".new.")])
        return found

    def _sweep(self, directory: _Directory, keys: t.Sequence[str], unfinished: t.Sequence[str]) -> None:
        """Remove what has expired of some of these records, and new files that killed processes have left."""
        for key in secrets.SystemRandom().sample(keys, min(self.SWEPT, len(keys))):
            with contextlib.suppress(OSError, GateError):
                self._record(directory, key)
        for name in unfinished:
            with contextlib.suppress(OSError, GateError):
                status = os.stat(name, dir_fd=directory.handle, follow_symlinks=False)
                if self.now() - status.st_mtime > self.LEFT:
                    os.unlink(name, dir_fd=directory.handle)

    def _at(self, name: str) -> str:
        return os.path.join(self.path, name)

    # What is below is called within _doing().

    @contextlib.contextmanager
    def _doing(self, what: str) -> t.Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise GateError(f"The attempt gate cannot {what} its directory {self.path}: {exc.strerror or exc}") from exc
        except PpinError as exc:
            raise GateError(f"The attempt gate cannot {what} its directory {self.path}: {exc.msg}. {exc.hint}") from exc

    @contextlib.contextmanager
    def _opened(self) -> t.Iterator[_Directory]:
        if os.path.islink(self.path):
            raise GateError(
                f"The attempt gate's directory {self.path} is a symbolic link. Name the directory itself in gate_store"
            )
        above, name = os.path.split(self.path)
        with open_directory(above, _judge_above, PATH_ONLY) as parent:
            handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent.fd)
        try:
            yield _Directory(handle, self._group(os.fstat(handle)))
        finally:
            os.close(handle)

    def _group(self, status: os.stat_result) -> t.Optional[int]:
        """The group that shares the directory, or None. :raises GateError: when others could change its files."""
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid not in (0, os.geteuid()):
            raise GateError(
                f"The attempt gate's directory {self.path} belongs to the user with the id {status.st_uid}, and not to "
                "root or to the user of this run. Change its owner, or name another directory in gate_store"
            )
        if not mode & 0o022:
            return None
        if mode == 0o2770:
            return status.st_gid
        who = "everybody" if mode & 0o002 else "its group"
        raise GateError(
            f"The attempt gate's directory {self.path} can be written by {who} (mode {mode:04o}). Make its mode 0700, "
            "or, for a group of operators who share it, give it that group and the mode 2770"
        )

    def _open(self, directory: _Directory, name: str, flags: int) -> int:
        """Open a file of the store. :raises GateError: when it is a link or somebody else's."""
        try:
            # A FIFO would block.
            handle = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory.handle)
        except OSError as exc:
            if exc.errno not in (errno.ELOOP, errno.EMLINK):
                raise
            raise GateError(
                f"{self._at(name)} is a symbolic link, which the attempt gate never makes. Find out who made it, then "
                "remove it"
            ) from None
        try:
            status = os.fstat(handle)
            shared = directory.group is not None and status.st_gid == directory.group
            if not stat.S_ISREG(status.st_mode) or not (shared or status.st_uid in (0, os.geteuid())):
                raise GateError(
                    f"{self._at(name)} is not a file of the attempt gate: it is no regular file, or belongs to another "
                    "user. Find out who made it, then remove it"
                )
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _content(self, directory: _Directory, name: str) -> bytes:
        with os.fdopen(self._open(directory, name, os.O_RDONLY), "rb") as stream:
            return stream.read(SIZE_LIMIT + 1)

    def _new(self, directory: _Directory, content: bytes) -> str:
        """Write a file under a name that nobody else has; the name."""
        name = f".new.{secrets.token_hex(8)}"
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory.handle)
        try:
            with os.fdopen(handle, "wb") as stream:
                if directory.group is not None:
                    os.fchown(handle, -1, directory.group)
                    os.fchmod(handle, 0o660)
                if content:
                    stream.write(content)
                    stream.flush()
                    os.fsync(handle)
        except BaseException:
            self._unlink(directory, name)
            raise
        return name

    def _link_new(self, directory: _Directory, name: str, content: bytes) -> None:
        """Make a file with its content, owner and mode at once, unless it is there: somebody else may have made it."""
        temporary = self._new(directory, content)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, name, src_dir_fd=directory.handle, dst_dir_fd=directory.handle)
        finally:
            self._unlink(directory, temporary)

    def _unlink(self, directory: _Directory, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory.handle)

    @staticmethod
    def _keys(names: t.Iterable[str]) -> t.List[str]:
        return sorted(filter(KEY.fullmatch, (name[: -len(".json")] for name in names if name.endswith(".json"))))

    def _record(self, directory: _Directory, key: str) -> t.Optional[Record]:
        """:raises FileNotFoundError: when there is none."""
        record, expires = self._parsed(directory, key)
        if expires is None or expires > self.now():
            return record
        with contextlib.suppress(OSError, GateError), self._key_locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
            # With the lock, as it may have been replaced.
            expires = self._parsed(directory, key)[1]
            if expires is not None and expires <= self.now():
                os.unlink(key + ".json", dir_fd=directory.handle)
        return None

    def _parsed(self, directory: _Directory, key: str) -> t.Tuple[Record, t.Optional[float]]:
        content = self._content(directory, key + ".json")
        try:
            return parse(content)
        except ValueError:
            path = self._at(key + ".json")
            raise GateError(f"The attempt gate's record {path} is damaged. Remove the file and run again.") from None

    @contextlib.contextmanager
    def _key_locked(self, directory: _Directory, how: int) -> t.Iterator[None]:
        try:
            handle = self._open(directory, "key", os.O_RDWR)  # for writing, as an exclusive flock on NFS asks for it
        except FileNotFoundError:
            raise self._lost_secret() from None
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)


class _FileTurn(Turn):
    """A flock on a file of the store's directory. The kernel ends it with the process."""

    def __init__(self, store: DirectoryStore, name: str, holder: str) -> None:
        self._store, self._name, self._holder = store, name, holder
        self._handle: t.Optional[int] = None
        self._lost = False

    def take(self) -> t.Optional[str]:
        store = self._store
        with store._doing("lock"), store._opened() as directory:
            while self._handle is None:
                handle = self._open(directory)
                try:
                    if not self._lock(handle):
                        return os.pread(handle, 4 * TEXT_LIMIT, 0).decode("utf-8", "replace")
                    if self._is_at_path(directory, handle):  # else the one before has removed it
                        self._handle = handle
                finally:
                    if self._handle is None:
                        os.close(handle)
        with contextlib.suppress(OSError):  # only what others are told; a full disk is found by write()
            # A second name is that of another file, which a member of the group has linked here.
            if os.fstat(self._handle).st_nlink == 1:
                os.ftruncate(self._handle, 0)
                os.pwrite(self._handle, self._holder.encode("utf-8", "replace"), 0)
        return None

    def _open(self, directory: _Directory) -> int:
        while True:
            with contextlib.suppress(FileNotFoundError):
                return self._store._open(directory, self._name, os.O_RDWR)
            self._store._link_new(directory, self._name, b"")

    @staticmethod
    def _lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False

    def _is_at_path(self, directory: _Directory, handle: int) -> bool:
        try:
            there = os.stat(self._name, dir_fd=directory.handle, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(handle))

    @property
    def lost(self) -> bool:
        if self._handle is not None and not self._lost:
            try:
                with self._store._opened() as directory:
                    self._lost = not self._is_at_path(directory, self._handle)
            except (OSError, GateError):
                self._lost = True
        return self._lost

    def release(self) -> None:
        if self._handle is None:
            return
        try:
            if not self.lost:
                with contextlib.suppress(OSError, GateError), self._store._opened() as directory:
                    os.unlink(self._name, dir_fd=directory.handle)
        finally:
            os.close(self._handle)
            self._handle = None


# Redis

PREFIX = "hsmops.primus.gate:"

_RENEW = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('pexpire', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1]) or 0"


class RedisStore(Store):
    """Redis keys under one prefix: the key, records, and for each turn a lease, which its holder renews.

    The lease ends LEASE seconds after a holder that was killed renewed it last.
    """

    LEASE = 30
    """Seconds. A holder that cannot reach Redis for so long loses its turn; its record then still says RUNNING."""

    TIMEOUT = 10
    """Seconds that Redis may take for an answer."""

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
            self._secret_at = f"{PREFIX}key in Redis at {self.shown}"
            self._start_again = f"delete all keys that begin with {PREFIX}"
        except (TypeError, ValueError):
            raise GateError("The attempt gate's store has no valid Redis URL") from None

    def _read_secret(self) -> t.Optional[bytes]:
        with self._connected() as redis:
            secret: t.Optional[bytes] = redis.get(PREFIX + "key")
        return secret

    def _make_secret(self, secret: bytes) -> None:
        with self._connected() as redis:
            redis.set(PREFIX + "key", secret, nx=True)

    def _ask_time(self) -> float:
        with self._connected() as redis:
            seconds, microseconds = redis.time()
            return float(seconds) + float(microseconds) / 1e6

    def new_turn(self, key: str, holder: str) -> Turn:
        return _Lease(self, PREFIX + "turn:" + key, holder)

    def read(self, key: str) -> t.Optional[Record]:
        with self._connected() as redis:
            content = redis.get(PREFIX + "record:" + key)
        try:
            return None if content is None else parse(content)[0]
        except ValueError:
            raise GateError(
                f"The attempt gate's record {PREFIX}record:{key} in Redis at {self.shown} is damaged. "
                "Delete it and run again."
            ) from None

    def write(self, key: str, record: Record, ttl: t.Optional[float] = None) -> None:
        content = encode(record)
        with self._connected() as redis:
            redis.set(PREFIX + "record:" + key, content, px=None if ttl is None else max(1, int(1000 * ttl)))

    def remove(self, key: str) -> None:
        with self._connected() as redis:
            redis.delete(PREFIX + "record:" + key)

    def keys(self, prefix: str = "") -> t.List[str]:
        start = PREFIX + "record:"
        with self._connected() as redis:
            names = set(redis.scan_iter(match=start + prefix + "*", count=1000))  # SCAN may tell one twice
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
                        found.append((key, parse(content)[0]))
        return found

    @contextlib.contextmanager
    def _connected(self) -> t.Iterator[t.Any]:
        """The client of Redis, once it is known that it may do what the gate needs."""
        try:
            denied = self._server.denied()
            if denied:
                raise GateError(
                    f"Redis at {self.shown} does not let the attempt gate use the command {denied[0]}: {denied[1]}. "
                    "Permit it, or have a server that takes writes and scripts"
                )
            yield self._server.redis
        except (self._error, OSError) as exc:
            raise GateError(f"The attempt gate cannot use Redis at {self.shown}: {exc}") from None


class _Lease(Turn):
    """A key with a time to live, which holds a random token of its holder."""

    def __init__(self, store: RedisStore, name: str, holder: str) -> None:
        self._store, self.name = store, name
        self.token = f"{secrets.token_hex(16)} {holder}".encode("utf-8", "replace")
        self._asked = False
        self._until: t.Optional[float] = None
        self.renew_at = 0.0
        self.gone = False

    def take(self) -> t.Optional[str]:
        asked, lease = time.monotonic(), int(1000 * self._store.LEASE)
        with self._store._connected() as redis:
            self._asked = True
            taken = redis.set(self.name, self.token, nx=True, px=lease)
            there = self.token if taken else redis.get(self.name) or b""
            # It is this one's own when an answer was lost and the client asked again.
            if there != self.token or not (taken or redis.eval(_RENEW, 1, self.name, self.token, lease)):
                return str(there.decode("utf-8", "replace").partition(" ")[2])
        self.renewed(asked)
        self._store._server.renew(self)
        return None

    def renewed(self, moment: float) -> None:
        """Note that it was renewed, having asked for it then (by the monotonic clock)."""
        self._until, self.renew_at = moment + self._store.LEASE, moment + self._store.LEASE / 3

    @property
    def lost(self) -> bool:
        """Asks nobody. That the key was deleted is known once the lease was to be renewed, or given back."""
        return self.gone or (self._until is not None and time.monotonic() > self._until)

    def release(self) -> None:
        if not self._asked:
            return
        self._store._server.forget(self)
        self.gone = self.lost
        # Also where it was not had: an answer may have been lost. Where this fails, the lease ends by itself.
        with contextlib.suppress(self._store._error, OSError):
            released = self._store._server.redis.eval(_RELEASE, 1, self.name, self.token)
            self.gone = self.gone or (self._until is not None and not released)
        self._until = None


class _Server:
    """What all stores of a process that have the same URL share: the connections, and one thread for the leases."""

    _of_process: t.ClassVar[t.Dict[t.Tuple[int, str], _Server]] = {}

    @classmethod
    def of_process(cls, url: str) -> _Server:
        key = (os.getpid(), url)  # a fork has neither the thread nor sockets of its own
        return cls._of_process.get(key) or cls._of_process.setdefault(key, cls(url))

    def __init__(self, url: str) -> None:
        import redis

        timeout = RedisStore.TIMEOUT
        self.redis: t.Any = redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
        pool = self.redis.connection_pool
        # Options of the URL count for more than arguments, and with these the answers would not be bytes.
        pool.connection_kwargs.update(decode_responses=False, encoding="utf-8", encoding_errors="strict")
        pool.connection_class(**pool.connection_kwargs)  # connects nothing; fails when an option is unknown
        self._error = redis.RedisError
        self._checked = False
        self._leases: t.List[_Lease] = []
        self._changed = threading.Condition()
        self._thread: t.Optional[threading.Thread] = None

    def denied(self) -> t.Optional[t.Tuple[str, Exception]]:
        """The first command that the store needs and may not use, with the reason; asked once."""
        if self._checked:
            return None
        name, token = f"{PREFIX}check:{secrets.token_hex(8)}", b"token"
        commands = ("SET", "GET", "MGET", "EVAL", "EVAL", "SCAN", "TIME", "DEL")
        asking = self.redis.pipeline(transaction=False)
        asking.set(name, token, nx=True, px=1000 * RedisStore.TIMEOUT).get(name).mget([name])
        asking.eval(_RENEW, 1, name, token, 1000).eval(_RELEASE, 1, name, token)
        asking.scan(match=name).time().delete(name)
        for command, answer in zip(commands, asking.execute(raise_on_error=False)):
            if isinstance(answer, Exception):
                return command, answer
        self._checked = True
        return None

    def renew(self, lease: _Lease) -> None:
        """Renew it from now on."""
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
        """Runs while there are leases."""
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
        asked = time.monotonic()
        asking = self.redis.pipeline(transaction=False)
        for lease in leases:
            asking.eval(_RENEW, 1, lease.name, lease.token, int(1000 * RedisStore.LEASE))
        try:
            answers = asking.execute(raise_on_error=False)
        except (self._error, OSError) as exc:
            answers = [exc] * len(leases)
        for lease, answer in zip(leases, answers):
            if isinstance(answer, Exception):
                lease.renew_at = time.monotonic() + RedisStore.LEASE / 10
            elif answer:
                lease.renewed(asked)
            else:
                lease.gone = True
                self.forget(lease)
