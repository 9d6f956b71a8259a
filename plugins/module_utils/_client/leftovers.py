# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Where interrupted runs can leave files, and how these are removed. Also the private directories for temporary files.

`leftovers` finds all of them. No module of this collection may create a temporary file that it does not find.
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
    is_in_use,
    open_directory,
    open_parent,
    require_private,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError

PRIVATE_NAME = "hsmops.primus-%d"
"""Name of the private directory of a user, by the user id. It is in one of the directories of private_roots()."""

JOURNAL_SUFFIX = ".kept"
"""The end of the name of a journal, which exists while a secrets file is written in place: see secrets_file.py."""

PERSISTENT_ROOT = "/var/tmp"  # noqa: S108
"""The root of private directories that survive a reboot."""

_LOCK_SUFFIX = ".lock"  # an empty file that is locked in place of a directory whose file system has no flock

_ANNOUNCEMENT_PREFIX = "file-"  # a symbolic link in the private directory, to a temporary file anywhere

_MAX_ATTEMPTS = 100

# What is added to the name of a file to name another one beside it.
_TEMPORARY_SUFFIX = r"(?:\..*)?" + TEMPORARY.pattern  # a file that is to be renamed
_JOURNAL_PATTERN = re.escape(JOURNAL_SUFFIX)
_PERMANENT_SUFFIX = r"\.ledger|\..+~|.*\.new"  # the ledger, backups, and copies that ppin or a user may have left


def private_roots(uid: int) -> t.List[str]:
    """Return the directories in which the private directory of a user may be; those in memory come first."""
    own = ["/run"] if uid == 0 else ["/run/user/%d" % uid]
    if uid == os.geteuid() != 0 and os.environ.get("XDG_RUNTIME_DIR"):
        own.insert(0, os.environ["XDG_RUNTIME_DIR"])
    return [*own, "/dev/shm", "/tmp", PERSISTENT_ROOT]  # noqa: S108 # only a private directory in them is used


def _open_private(root: str, uid: int) -> Directory:
    """Open the private directory of a user. :raises OSError, PpinError: when there is none, or it is not private."""
    with open_directory(root, require_private if uid == os.geteuid() else None) as parent:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        private = Directory(os.open(PRIVATE_NAME % uid, flags, dir_fd=parent.fd), parent.path_of(PRIVATE_NAME % uid))
    if private.status.st_uid != uid or stat.S_IMODE(private.status.st_mode) & 0o077:
        private.__exit__()
        raise PermissionError(errno.EPERM, "It is not private", private.path)
    return private


def private_directory(root: t.Optional[str] = None) -> Directory:
    """Open the private directory of the user of this run, and create it if needed. :raises PpinError:

    Only root and this user can rename any part of its path.

    :arg root: one of private_roots(); None: the first that works, which is in memory if possible.
    """
    uid = os.geteuid()
    problems = []
    for candidate in [root] if root else private_roots(uid):
        try:
            with open_directory(candidate, require_private) as parent, contextlib.suppress(FileExistsError):
                os.mkdir(PRIVATE_NAME % uid, 0o700, dir_fd=parent.fd)
            return _open_private(candidate, uid)
        except (OSError, PpinError) as exc:
            problems.append("%s: %s" % (candidate, getattr(exc, "strerror", None) or exc))
    raise PpinError(
        "No directory for the working copy of .secrets.cfg is writable by %s alone (%s)"
        % ("root" if uid == 0 else "this user", "; ".join(problems)),
        cls="permission",
        hint="Make one of these directories writable for the user of the run alone, as /run is for root. Nothing was "
        "changed.",
    )


def path_key(secrets_path: str) -> str:
    return hashlib.sha256(secrets_path.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class LockFile:
    """A lock file in the private directory, for a directory whose file system has no flock. It excludes only this user.

    :ivar status: of the file; None before try_acquire().
    """

    status: t.Optional[os.stat_result] = None

    def __init__(self, path: str) -> None:
        self._name = path_key(path) + _LOCK_SUFFIX
        self._fd = -1

    def try_acquire(self) -> bool:
        """Try to get the lock. Return whether it is held now. :raises OSError, PpinError:"""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        # Another run may remove the private directory while it is empty.
        with contextlib.suppress(FileNotFoundError), private_directory() as private:
            fd = os.open(self._name, flags, 0o600, dir_fd=private.fd)
            self.status = os.fstat(fd)
            if _try_lock(private, self._name, fd):
                self._fd = fd
                return True
            os.close(fd)
        return False

    def release(self) -> None:
        with contextlib.suppress(OSError, PpinError), private_directory() as private:
            os.unlink(self._name, dir_fd=private.fd)
            _remove_if_empty(os.path.dirname(private.path))
        os.close(self._fd)


def _try_lock(directory: Directory, name: str, fd: int) -> bool:
    """Try to lock a file that its last holder may have removed meanwhile. :raises OSError:"""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    try:
        return os.path.samestat(directory.lstat(name), os.fstat(fd))
    except FileNotFoundError:
        return False


class RunDirectory:
    """A private directory for one run. A context manager, which removes it with its content at its end.

    Its name has a key of the secrets file, for which the next run searches, and a random part: a ppin that is still
    running after its run was killed cannot write to the files of another run.
    """

    directory: Directory

    def __init__(self, secrets_path: str) -> None:
        self.secrets_path = secrets_path
        self._name = ""

    def __enter__(self) -> "RunDirectory":
        for _try in range(_MAX_ATTEMPTS):
            name = "%s-%s" % (path_key(self.secrets_path), binascii.hexlify(os.urandom(8)).decode("ascii"))
            # Until this directory is locked, another run may remove it as a leftover, or remove the empty private
            # directory.
            with contextlib.suppress(FileNotFoundError), private_directory() as private:
                os.mkdir(name, 0o700, dir_fd=private.fd)
                directory = private.subdirectory(name)
                with contextlib.suppress(OSError):
                    fcntl.flock(directory.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    private.lstat(name)
                except FileNotFoundError:
                    directory.__exit__()
                    raise
                self._name, self.directory = name, directory
                return self
        raise PpinError("No working directory can be created: another process keeps removing it", cls="permission")

    def __exit__(self, *_exc: t.Any) -> None:
        root = os.path.dirname(os.path.dirname(self.directory.path))
        with contextlib.suppress(OSError, PpinError), _open_private(root, os.geteuid()) as private:
            private.remove(self._name)
        self.directory.__exit__()
        _remove_if_empty(root)

    def path_of(self, name: str) -> str:
        return self.directory.path_of(name)

    def write(self, name: str, content: bytes) -> str:
        """Create a file with mode 0600. Return its path. :raises OSError:"""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=self.directory.fd), "wb") as file:
            file.write(content)
        return self.path_of(name)


@contextlib.contextmanager
def announced(path: str) -> t.Iterator[None]:
    """Announce a temporary file with a secret, so that the next run of any module finds it if this run is interrupted.

    For files that can be anywhere. Temporary files beside the secrets file are found without an announcement.
    """
    name = _ANNOUNCEMENT_PREFIX + binascii.hexlify(os.urandom(8)).decode("ascii")
    with contextlib.ExitStack() as stack:
        # What was fetched must be written, even if it cannot be announced.
        with contextlib.suppress(OSError, PpinError):
            try:
                private = private_directory(PERSISTENT_ROOT)
            except PpinError:
                private = private_directory()
            stack.enter_context(private)
            stack.callback(_remove_if_empty, os.path.dirname(private.path))
            os.symlink(path, name, dir_fd=private.fd)
            stack.callback(_remove_quietly, private, name)
            private.sync()  # the temporary file may survive a power cut, so the announcement must, too
        yield


def _remove_quietly(directory: Directory, name: str) -> None:
    with contextlib.suppress(OSError):
        directory.remove(name)


def _remove_if_empty(root: str) -> None:
    with contextlib.suppress(OSError, PpinError), open_directory(root) as parent:
        os.rmdir(PRIVATE_NAME % os.geteuid(), dir_fd=parent.fd)


# Leftovers


def leftovers(secrets_path: str, config_path: str) -> t.List[str]:
    """Return the paths of what interrupted runs have left on this host. Root sees that of every user.

    They are beside the two files, in the private directories, or announced there.
    """
    found = []
    for directory, name, _private in _leftovers(secrets_path, config_path):
        path = _announced(directory, name)
        if path is None and not name.startswith(_ANNOUNCEMENT_PREFIX):
            found.append(directory.path_of(name))
        elif path is not None and os.path.lexists(path):
            found.append(path)
    return found


def remove_leftovers(secrets_path: str, config_path: str, remove_journals: bool = False) -> t.List[str]:
    """Remove what leftovers() finds. The caller holds the lock. Return what could not be removed, and why.

    :arg remove_journals: also remove the journals of writes in place. Otherwise secrets_file.recover_files() does it.
    """
    problems = []
    for directory, name, private in _leftovers(secrets_path, config_path):
        if name.endswith(JOURNAL_SUFFIX) and not remove_journals:
            continue
        try:
            path = _announced(directory, name)
            if path is not None:
                _remove_announced(path, directory.status.st_uid)
            if not private:
                directory.remove(name, depth=0)
            elif name.endswith(_LOCK_SUFFIX):
                _remove_lock(directory, name)
            else:
                directory.remove(name, owner=directory.status.st_uid)
        except FileNotFoundError:
            pass
        except (OSError, PpinError) as exc:
            problems.append("%s: %s" % (directory.path_of(name), getattr(exc, "strerror", None) or exc))
    for root in private_roots(os.geteuid()):
        _remove_if_empty(root)
    return problems


def _remove_lock(directory: Directory, name: str) -> None:
    """Remove a lock file, unless another run has locked it meanwhile. :raises OSError:"""
    with directory.open(name, os.O_RDWR) as fd:
        if _try_lock(directory, name, fd):
            os.unlink(name, dir_fd=directory.fd)


def belongs_to_file(file_name: str, name: str) -> bool:
    """Whether a name is that of a file that modules create beside file_name: temporary, journal, ledger or backup."""
    return _is_derived_name(file_name, name, "|".join((_TEMPORARY_SUFFIX, _JOURNAL_PATTERN, _PERMANENT_SUFFIX)))


def _is_derived_name(file_name: str, name: str, endings: str) -> bool:
    return name.startswith(file_name) and bool(re.fullmatch(endings, name[len(file_name) :], re.DOTALL))


def _leftovers(secrets_path: str, config_path: str) -> t.Iterator[t.Tuple[Directory, str, bool]]:
    """Yield each leftover: its open directory, its name, and whether that is a private directory.

    Beside the two files, only files count: modules create no directories there.
    """
    for path, endings in ((secrets_path, _TEMPORARY_SUFFIX + "|" + _JOURNAL_PATTERN), (config_path, _TEMPORARY_SUFFIX)):
        with contextlib.suppress(OSError, PpinError), open_parent(path)[0] as directory:
            for other in directory.names():
                beside = _is_derived_name(os.path.basename(path), other, endings)
                if beside and not is_in_use(directory, other) and not stat.S_ISDIR(directory.lstat(other).st_mode):
                    yield directory, other, False
    for root, uid in _private_directories():
        with contextlib.suppress(OSError, PpinError), _open_private(root, uid) as directory:
            for other in directory.names():
                is_relevant = other.startswith((path_key(secrets_path), _ANNOUNCEMENT_PREFIX)) or other.endswith(
                    _LOCK_SUFFIX
                )
                if is_relevant and not is_in_use(directory, other) and not _is_announced_in_use(directory, other):
                    yield directory, other, True


def _private_directories() -> t.Iterator[t.Tuple[str, int]]:
    """Yield the root and the user id of possible private directories: of this user, and for root of all users."""
    own = os.geteuid()
    for root in private_roots(own):
        yield root, own
    if own == 0:
        for root in ["/run/user/*", *private_roots(own)]:
            for path in glob.glob(os.path.join(root, PRIVATE_NAME.replace("%d", "[0-9]*"))):
                number = path.rpartition("-")[2]
                if number.isdecimal() and int(number) != own:
                    yield os.path.dirname(path), int(number)


def _announced(directory: Directory, name: str) -> t.Optional[str]:
    """Return the temporary file that an announcement points to, or None when it is not a valid announcement.

    A file that another user announces must belong to that user.
    """
    if not name.startswith(_ANNOUNCEMENT_PREFIX):
        return None
    try:
        path = os.readlink(name, dir_fd=directory.fd)
        owner = directory.status.st_uid
        is_relevant = owner == os.geteuid() or os.lstat(path).st_uid == owner
    except OSError:
        return None
    return path if is_relevant and TEMPORARY.search(path) else None


def _is_announced_in_use(directory: Directory, name: str) -> bool:
    path = _announced(directory, name)
    if path is None:
        return False
    try:
        parent, temporary = open_parent(path)
    except (OSError, PpinError):
        return False
    with parent:
        return is_in_use(parent, temporary)


def _remove_announced(path: str, uid: int) -> None:
    """Remove an announced file, if it still belongs to the user who announced it. :raises OSError, PpinError:"""
    parent, name = open_parent(path)
    with parent, contextlib.suppress(FileNotFoundError):
        if uid == os.geteuid() or parent.lstat(name).st_uid == uid:
            os.unlink(name, dir_fd=parent.fd)
