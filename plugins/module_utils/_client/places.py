# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""All places in which a run that is killed can leave something, and what removes it there.

`leftovers` is the one list. What is not on it must not be made by a module of this collection.
"""

import binascii
import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import re
import stat
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    TEMPORARY,
    Directory,
    is_alive,
    open_directory,
    open_parent,
    private_only,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError

NAME = "hsmops.primus-%d"
"""The private directory of a user, by its id, in one of the places of `places`."""

KEPT = ".kept"
"""The end of the name of what is kept while a secrets file is written in place; it serves the next run."""

LASTING = "/var/tmp"  # noqa: S108
"""Where a private directory outlives a reboot."""

_LOCK = ".lock"  # the end of the name of what is locked in place of a directory that cannot be; it is empty

_ANNOUNCED = "file-"  # a link in the private directory, to a file elsewhere that is to be renamed or removed

_TRIES = 100

# What follows the name of a file in that of another beside it.
_PASSING = r"(?:\..*)?" + TEMPORARY.pattern  # what is on its way to its place
_OF_SECRETS = re.escape(KEPT)
_LASTING = r"\.ledger|\..+~|.*\.new"  # the ledger, backups, and what ppin or a person may have left


def places(uid: int) -> t.List[str]:
    """Directories in which the private directory of a user may be, the best first: in memory, if possible."""
    own = ["/run"] if uid == 0 else ["/run/user/%d" % uid]
    if uid == os.geteuid() != 0 and os.environ.get("XDG_RUNTIME_DIR"):
        own.insert(0, os.environ["XDG_RUNTIME_DIR"])
    return [*own, "/dev/shm", "/tmp", LASTING]  # noqa: S108 # only what is private in them is used


def _enter(place: str, uid: int) -> Directory:
    """The private directory of a user in a place. :raises OSError, PpinError: when there is none that is private."""
    with open_directory(place, private_only if uid == os.geteuid() else None) as parent:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        private = Directory(os.open(NAME % uid, flags, dir_fd=parent.fd), parent.path_of(NAME % uid))
    if private.status.st_uid != uid or stat.S_IMODE(private.status.st_mode) & 0o077:
        private.__exit__()
        raise PermissionError(errno.EPERM, "It is not private", private.path)
    return private


def private_directory(place: t.Optional[str] = None) -> Directory:
    """A directory whose path only root and the user of this run can change. :raises PpinError: when there is no place.

    Without place it is in a file system in memory where there is one.
    """
    uid = os.geteuid()
    problems = []
    for candidate in [place] if place else places(uid):
        try:
            with open_directory(candidate, private_only) as parent, contextlib.suppress(FileExistsError):
                os.mkdir(NAME % uid, 0o700, dir_fd=parent.fd)
            return _enter(candidate, uid)
        except (OSError, PpinError) as exc:
            problems.append("%s: %s" % (candidate, getattr(exc, "strerror", None) or exc))
    raise PpinError(
        "No directory for the working copy of .secrets.cfg is writable by %s alone (%s)"
        % ("root" if uid == 0 else "this user", "; ".join(problems)),
        cls="permission",
        hint="Make one of these directories writable for the user of the run alone, as /run is for root. Nothing was "
        "changed.",
    )


def key_of(secrets_path: str) -> str:
    return hashlib.sha256(secrets_path.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class LockFile:
    """What is locked in place of a directory that cannot be, for one holder of this user at a time.

    status: of the file that take has found locked.
    """

    status: t.Optional[os.stat_result] = None

    def __init__(self, path: str) -> None:
        self._name = key_of(path) + _LOCK
        self._fd = -1

    def take(self) -> bool:
        """Whether the lock is had now. :raises OSError, PpinError:"""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        # Another run may remove the private directory while it is empty.
        with contextlib.suppress(FileNotFoundError), private_directory() as private:
            fd = os.open(self._name, flags, 0o600, dir_fd=private.fd)
            self.status = os.fstat(fd)
            if _lock(private, self._name, fd):
                self._fd = fd
                return True
            os.close(fd)
        return False

    def release(self) -> None:
        with contextlib.suppress(OSError, PpinError), private_directory() as private:
            os.unlink(self._name, dir_fd=private.fd)
            _remove_if_empty(os.path.dirname(private.path))
        os.close(self._fd)


def _lock(directory: Directory, name: str, fd: int) -> bool:
    """Lock a file that whoever has it locked removes, so that it may be gone from its place. :raises OSError:"""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    try:
        return os.path.samestat(directory.look(name), os.fstat(fd))
    except FileNotFoundError:
        return False


class Workplace:
    """A directory for one run, which nobody else can reach: a context, at whose end it is gone with all that is in it.

    Its name tells the next run for which secrets file it was, and no two runs have the same: a ppin that outlives a
    killed run writes to nothing that matters.
    """

    directory: Directory

    def __init__(self, secrets_path: str) -> None:
        self.secrets_path = secrets_path
        self._name = ""

    def __enter__(self) -> "Workplace":
        for _try in range(_TRIES):
            name = "%s-%s" % (key_of(self.secrets_path), binascii.hexlify(os.urandom(8)).decode("ascii"))
            # Another run may remove the private directory while it is empty, or take this one for a leftover before it
            # is locked.
            with contextlib.suppress(FileNotFoundError), private_directory() as private:
                os.mkdir(name, 0o700, dir_fd=private.fd)
                directory = private.enter(name)
                with contextlib.suppress(OSError):
                    fcntl.flock(directory.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    private.look(name)
                except FileNotFoundError:
                    directory.__exit__()
                    raise
                self._name, self.directory = name, directory
                return self
        raise PpinError("No working directory can be created: another process keeps removing it", cls="permission")

    def __exit__(self, *_exc: t.Any) -> None:
        place = os.path.dirname(os.path.dirname(self.directory.path))
        with contextlib.suppress(OSError, PpinError), _enter(place, os.geteuid()) as private:
            private.remove(self._name)
        self.directory.__exit__()
        _remove_if_empty(place)

    def path_of(self, name: str) -> str:
        return self.directory.path_of(name)

    def write(self, name: str, content: bytes) -> str:
        """Make a file that only the user of this run may read; its path. :raises OSError:"""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=self.directory.fd), "wb") as file:
            file.write(content)
        return self.path_of(name)


@contextlib.contextmanager
def announced(path: str) -> t.Iterator[None]:
    """While this lasts, the next run of any module knows of a file with a secret that is not yet in its place.

    For files that can be anywhere. Those beside the secrets file are found there.
    """
    name = _ANNOUNCED + binascii.hexlify(os.urandom(8)).decode("ascii")
    with contextlib.ExitStack() as stack:
        # What was fetched must be written, also where it cannot be announced.
        with contextlib.suppress(OSError, PpinError):
            try:
                private = private_directory(LASTING)
            except PpinError:
                private = private_directory()
            stack.enter_context(private)
            stack.callback(_remove_if_empty, os.path.dirname(private.path))
            os.symlink(path, name, dir_fd=private.fd)
            stack.callback(_remove_quietly, private, name)
            private.sync()  # the file outlives a power cut, too
        yield


def _remove_quietly(directory: Directory, name: str) -> None:
    with contextlib.suppress(OSError):
        directory.remove(name)


def _remove_if_empty(place: str) -> None:
    with contextlib.suppress(OSError, PpinError), open_directory(place) as parent:
        os.rmdir(NAME % os.geteuid(), dir_fd=parent.fd)


# What is left


def leftovers(secrets_path: str, config_path: str) -> t.List[str]:
    """What runs that died have left on this host, by path: beside the two files, in the private directories, and what
    is announced there. Root sees that of every user."""
    found = []
    for directory, name, _private in _leftovers(secrets_path, config_path):
        path = _announced(directory, name)
        if path is None and not name.startswith(_ANNOUNCED):
            found.append(directory.path_of(name))
        elif path is not None and os.path.lexists(path):
            found.append(path)
    return found


def remove_leftovers(secrets_path: str, config_path: str, kept: bool = False) -> t.List[str]:
    """For whoever holds the lock of the secrets file. Returns what could not be removed, and why.

    kept: also what the next run would need to end a write in place.
    """
    problems = []
    for directory, name, private in _leftovers(secrets_path, config_path):
        if name.endswith(KEPT) and not kept:
            continue  # see _secrets_file._recover
        try:
            path = _announced(directory, name)
            if path is not None:
                _remove_announced(path, directory.status.st_uid)
            if not private:
                directory.remove(name, depth=0)
            elif name.endswith(_LOCK):
                _remove_lock(directory, name)
            else:
                directory.remove(name, owner=directory.status.st_uid)
        except FileNotFoundError:
            pass
        except (OSError, PpinError) as exc:
            problems.append("%s: %s" % (directory.path_of(name), getattr(exc, "strerror", None) or exc))
    for place in places(os.geteuid()):
        _remove_if_empty(place)
    return problems


def _remove_lock(directory: Directory, name: str) -> None:
    """Unless another run has taken it by now. :raises OSError:"""
    with directory.open(name, os.O_RDWR) as fd:
        if _lock(directory, name, fd):
            os.unlink(name, dir_fd=directory.fd)


def is_made_of(file_name: str, name: str) -> bool:
    """Whether a name is that of something that a module makes beside a file of a client, for good or for a moment."""
    return _is_beside(file_name, name, "|".join((_PASSING, _OF_SECRETS, _LASTING)))


def _is_beside(file_name: str, name: str, endings: str) -> bool:
    return name.startswith(file_name) and bool(re.fullmatch(endings, name[len(file_name) :], re.DOTALL))


def _leftovers(secrets_path: str, config_path: str) -> t.Iterator[t.Tuple[Directory, str, bool]]:
    """Each with the directory that it is in, which is open meanwhile, and whether that is a private one.

    Beside the two files all are files: a directory there is somebody's, whatever its name.
    """
    for path, endings in ((secrets_path, _PASSING + "|" + _OF_SECRETS), (config_path, _PASSING)):
        with contextlib.suppress(OSError, PpinError), open_parent(path)[0] as directory:
            for other in directory.names():
                beside = _is_beside(os.path.basename(path), other, endings)
                if beside and not is_alive(directory, other) and not stat.S_ISDIR(directory.look(other).st_mode):
                    yield directory, other, False
    for place, uid in _private_directories():
        with contextlib.suppress(OSError, PpinError), _enter(place, uid) as directory:
            for other in directory.names():
                mine = other.startswith((key_of(secrets_path), _ANNOUNCED)) or other.endswith(_LOCK)
                if mine and not is_alive(directory, other) and not _is_announced_alive(directory, other):
                    yield directory, other, True


def _private_directories() -> t.Iterator[t.Tuple[str, int]]:
    """Where the private directories of users may be: those of this user, and for root those of all."""
    own = os.geteuid()
    for place in places(own):
        yield place, own
    if own == 0:
        for place in ["/run/user/*", *places(own)]:
            for path in glob.glob(os.path.join(place, NAME.replace("%d", "[0-9]*"))):
                number = path.rpartition("-")[2]
                if number.isdecimal() and int(number) != own:
                    yield os.path.dirname(path), int(number)


def _announced(directory: Directory, name: str) -> t.Optional[str]:
    """The temporary file that an announcement names, or None when it is something else.

    What another user announces must be theirs, whatever the announcement says.
    """
    if not name.startswith(_ANNOUNCED):
        return None
    try:
        path = os.readlink(name, dir_fd=directory.fd)
        owner = directory.status.st_uid
        mine = owner == os.geteuid() or os.lstat(path).st_uid == owner
    except OSError:
        return None
    return path if mine and TEMPORARY.search(path) else None


def _is_announced_alive(directory: Directory, name: str) -> bool:
    path = _announced(directory, name)
    if path is None:
        return False
    try:
        parent, temporary = open_parent(path)
    except (OSError, PpinError):
        return False
    with parent:
        return is_alive(parent, temporary)


def _remove_announced(path: str, uid: int) -> None:
    """:raises OSError, PpinError:"""
    parent, name = open_parent(path)
    with parent, contextlib.suppress(FileNotFoundError):
        if uid == os.geteuid() or parent.look(name).st_uid == uid:
            os.unlink(name, dir_fd=parent.fd)
