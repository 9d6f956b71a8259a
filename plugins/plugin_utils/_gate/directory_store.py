# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""The attempt gate's store in a directory of the control node."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    PATH_ONLY,
    Directory,
    group_name,
    make_directory,
    open_directory,
    user_name,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import (
    KEY,
    SECRET_BYTES,
    SIZE_LIMIT,
    TEXT_LIMIT,
    GateError,
    Record,
    Store,
    Turn,
    decode_record,
    encode_record,
)


class _StoreDirectory(t.NamedTuple):
    """The open directory of the store: its descriptor, and the id of the group that shares it, or None."""

    handle: int
    group: t.Optional[int]


def _check_parent_directory(directory: Directory) -> None:
    """Check a parent directory of the store's. :raises GateError: when other users could replace the store."""
    status = directory.status
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (0, os.geteuid()):
        who = f"the user {user_name(status.st_uid)}, to whom it belongs,"
    elif mode & stat.S_ISVTX or not mode & 0o022:
        return
    elif mode & 0o002:
        who = "everybody"
    elif status.st_gid != os.getegid():  # with umask 002, directories of a user are writable by the user's own group
        who = f"the group {group_name(status.st_gid)}"
    else:
        return
    raise GateError(
        f"The directory {directory.path} on the way to the attempt gate's can be written by {who} (mode {mode:04o}), "
        "who could put an empty one in the place of the gate's, so that rejected credentials would be tried again. "
        "Change its owner or mode, or name another directory in gate_store"
    )


class DirectoryStore(Store):
    """Files of the store: `KEY.json` per record, replaced by rename; `KEY.lock` per turn, with a flock; `key`.

    All files are opened relative to the directory, after a check of its owner and mode, and symbolic links are not
    followed. The holder of a turn removes its lock file at the end, so a process that locks a file checks that it is
    still the one at its path. `key` is locked, too: shared while a record is written, exclusively while an expired one
    is removed.
    """

    SWEEP_COUNT = 20
    """Number of records of other names that items() checks in each call, to remove expired ones."""

    TEMPORARY_MAX_AGE = 3600
    """Seconds after which a temporary file counts as left by a killed process."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = self.option = path
        self._secret_location = self._path_of("key")
        self._reset_instructions = f"remove the directory {path}"

    def _read_secret(self) -> t.Optional[bytes]:
        with self._gate_errors("use"):
            above, name = os.path.split(self.path)
            make_directory(above, _check_parent_directory)
            with open_directory(above, _check_parent_directory, PATH_ONLY) as parent, contextlib.suppress(
                FileExistsError
            ):
                os.mkdir(name, 0o700, dir_fd=parent.fd)
            with self._open_directory() as directory:
                try:
                    text = self._read_file(directory, "key")
                except FileNotFoundError:
                    return None
        whole = re.fullmatch(b"[0-9a-f]{%d}" % (2 * SECRET_BYTES), text)
        return bytes.fromhex(text.decode("ascii")) if whole else b""

    def _make_secret(self, secret: bytes) -> None:
        with self._gate_errors("use"), self._open_directory() as directory:
            self._create(directory, "key", secret.hex().encode("ascii"))

    def _server_time(self) -> float:
        # On NFS this is the server's clock. It needs no disk space, so it works on a full disk, too.
        with self._gate_errors("use"), self._open_directory() as directory:
            os.utime(directory.handle)
            return os.fstat(directory.handle).st_mtime

    def new_turn(self, key: str, holder: str) -> Turn:
        return _FileTurn(self, key + ".lock", holder)

    def is_new(self) -> bool:
        return not os.path.isdir(self.path) or super().is_new()

    def read(self, key: str) -> t.Optional[Record]:
        with self._gate_errors("read"):
            try:
                with self._open_directory() as directory:
                    return self._record(directory, key)
            except FileNotFoundError:
                return None

    def write(self, key: str, record: Record, ttl: t.Optional[float] = None) -> None:
        content = encode_record(record, None if ttl is None else self.now() + ttl)
        with self._gate_errors("write"), self._open_directory() as directory:
            temporary = self._write_temporary(directory, content)
            try:
                with self._key_locked(directory, fcntl.LOCK_SH):
                    os.rename(temporary, key + ".json", src_dir_fd=directory.handle, dst_dir_fd=directory.handle)
            except BaseException:
                self._unlink(directory, temporary)
                raise

    def remove(self, key: str) -> None:
        with self._gate_errors("write"), contextlib.suppress(FileNotFoundError), self._open_directory() as directory:
            os.unlink(key + ".json", dir_fd=directory.handle)

    def keys(self, prefix: str = "") -> t.List[str]:
        with self._gate_errors("read"):
            try:
                with self._open_directory() as directory:
                    keys = self._keys(os.listdir(directory.handle))
            except FileNotFoundError:
                return []
        return [key for key in keys if key.startswith(prefix)]

    def items(self, prefix: str = "") -> t.List[t.Tuple[str, Record]]:
        found = []
        with self._gate_errors("read"), contextlib.suppress(FileNotFoundError), self._open_directory() as directory:
            names = os.listdir(directory.handle)
            keys = self._keys(names)
            if keys:
                self.now()  # fails here if the clock cannot be read; in the loop, the error would be suppressed
            for key in keys:
                if key.startswith(prefix):
                    with contextlib.suppress(FileNotFoundError, GateError):
                        record = self._record(directory, key)
                        if record is not None:
                            found.append((key, record))
            others = [key for key in keys if not key.startswith(prefix)]
            self._sweep(directory, others, [name for name in names if name.startswith(".new.")])
        return found

    def _sweep(self, directory: _StoreDirectory, keys: t.Sequence[str], unfinished: t.Sequence[str]) -> None:
        """Remove some expired records, and temporary files that killed processes have left."""
        for key in secrets.SystemRandom().sample(keys, min(self.SWEEP_COUNT, len(keys))):
            with contextlib.suppress(OSError, GateError):
                self._record(directory, key)
        for name in unfinished:
            with contextlib.suppress(OSError, GateError):
                status = os.stat(name, dir_fd=directory.handle, follow_symlinks=False)
                if self.now() - status.st_mtime > self.TEMPORARY_MAX_AGE:
                    os.unlink(name, dir_fd=directory.handle)

    def _path_of(self, name: str) -> str:
        return os.path.join(self.path, name)

    # What is below is called within _doing().

    @contextlib.contextmanager
    def _gate_errors(self, what: str) -> t.Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise GateError(f"The attempt gate cannot {what} its directory {self.path}: {exc.strerror or exc}") from exc
        except PpinError as exc:
            raise GateError(f"The attempt gate cannot {what} its directory {self.path}: {exc.msg}. {exc.hint}") from exc

    @contextlib.contextmanager
    def _open_directory(self) -> t.Iterator[_StoreDirectory]:
        if os.path.islink(self.path):
            raise GateError(
                f"The attempt gate's directory {self.path} is a symbolic link. Name the directory itself in gate_store"
            )
        above, name = os.path.split(self.path)
        with open_directory(above, _check_parent_directory, PATH_ONLY) as parent:
            handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent.fd)
        try:
            yield _StoreDirectory(handle, self._group(os.fstat(handle)))
        finally:
            os.close(handle)

    def _group(self, status: os.stat_result) -> t.Optional[int]:
        """Return the group that shares the directory, or None. :raises GateError: when others can change its files."""
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

    def _open(self, directory: _StoreDirectory, name: str, flags: int) -> int:
        """Open a file of the store. :raises GateError: when it is a symbolic link, or belongs to another user."""
        try:
            # O_NONBLOCK, because opening a FIFO would block.
            handle = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory.handle)
        except OSError as exc:
            if exc.errno not in (errno.ELOOP, errno.EMLINK):
                raise
            raise GateError(
                f"{self._path_of(name)} is a symbolic link, which the attempt gate never makes. Find out who made it, "
                "then remove it"
            ) from None
        try:
            status = os.fstat(handle)
            shared = directory.group is not None and status.st_gid == directory.group
            if not stat.S_ISREG(status.st_mode) or not (shared or status.st_uid in (0, os.geteuid())):
                raise GateError(
                    f"{self._path_of(name)} is not a file of the attempt gate: it is no regular file, or belongs to "
                    "another user. Find out who made it, then remove it"
                )
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _read_file(self, directory: _StoreDirectory, name: str) -> bytes:
        with os.fdopen(self._open(directory, name, os.O_RDONLY), "rb") as stream:
            return stream.read(SIZE_LIMIT + 1)

    def _write_temporary(self, directory: _StoreDirectory, content: bytes) -> str:
        """Write a temporary file. Return its name."""
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

    def _create(self, directory: _StoreDirectory, name: str, content: bytes) -> None:
        """Create a file atomically, with content, owner and mode, unless another process has created it meanwhile."""
        temporary = self._write_temporary(directory, content)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, name, src_dir_fd=directory.handle, dst_dir_fd=directory.handle)
        finally:
            self._unlink(directory, temporary)

    def _unlink(self, directory: _StoreDirectory, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory.handle)

    @staticmethod
    def _keys(names: t.Iterable[str]) -> t.List[str]:
        return sorted(filter(KEY.fullmatch, (name[: -len(".json")] for name in names if name.endswith(".json"))))

    def _record(self, directory: _StoreDirectory, key: str) -> t.Optional[Record]:
        """Read a record; None when it has expired. :raises FileNotFoundError: when there is none."""
        record, expires = self._decoded(directory, key)
        if expires is None or expires > self.now():
            return record
        with contextlib.suppress(OSError, GateError), self._key_locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
            # Read it again with the lock, as another process may have replaced it.
            expires = self._decoded(directory, key)[1]
            if expires is not None and expires <= self.now():
                os.unlink(key + ".json", dir_fd=directory.handle)
        return None

    def _decoded(self, directory: _StoreDirectory, key: str) -> t.Tuple[Record, t.Optional[float]]:
        content = self._read_file(directory, key + ".json")
        try:
            return decode_record(content)
        except ValueError:
            path = self._path_of(key + ".json")
            raise GateError(f"The attempt gate's record {path} is damaged. Remove the file and run again.") from None

    @contextlib.contextmanager
    def _key_locked(self, directory: _StoreDirectory, how: int) -> t.Iterator[None]:
        try:
            handle = self._open(directory, "key", os.O_RDWR)  # NFS requires write access for an exclusive flock
        except FileNotFoundError:
            raise self._lost_secret_error() from None
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)


class _FileTurn(Turn):
    """A turn that is a flock on a file of the store. The kernel releases it when the process ends."""

    def __init__(self, store: DirectoryStore, name: str, holder: str) -> None:
        self._store, self._name, self._holder = store, name, holder
        self._handle: t.Optional[int] = None
        self._lost = False

    def try_acquire(self) -> t.Optional[str]:
        store = self._store
        with store._gate_errors("lock"), store._open_directory() as directory:
            while self._handle is None:
                handle = self._open(directory)
                try:
                    if not self._lock(handle):
                        return os.pread(handle, 4 * TEXT_LIMIT, 0).decode("utf-8", "replace")
                    if self._is_at_path(directory, handle):  # otherwise the last holder has removed it
                        self._handle = handle
                finally:
                    if self._handle is None:
                        os.close(handle)
        with contextlib.suppress(OSError):  # the name of the holder is only for messages
            # With a hard link, it may be another file that a member of the group has linked here.
            if os.fstat(self._handle).st_nlink == 1:
                os.ftruncate(self._handle, 0)
                os.pwrite(self._handle, self._holder.encode("utf-8", "replace"), 0)
        return None

    def _open(self, directory: _StoreDirectory) -> int:
        while True:
            with contextlib.suppress(FileNotFoundError):
                return self._store._open(directory, self._name, os.O_RDWR)
            self._store._create(directory, self._name, b"")

    @staticmethod
    def _lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False

    def _is_at_path(self, directory: _StoreDirectory, handle: int) -> bool:
        try:
            there = os.stat(self._name, dir_fd=directory.handle, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(handle))

    @property
    def lost(self) -> bool:
        if self._handle is not None and not self._lost:
            try:
                with self._store._open_directory() as directory:
                    self._lost = not self._is_at_path(directory, self._handle)
            except (OSError, GateError):
                self._lost = True
        return self._lost

    def release(self) -> None:
        if self._handle is None:
            return
        try:
            if not self.lost:
                with contextlib.suppress(OSError, GateError), self._store._open_directory() as directory:
                    os.unlink(self._name, dir_fd=directory.handle)
        finally:
            os.close(self._handle)
            self._handle = None
