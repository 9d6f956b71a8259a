# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The lock around everything that works on .secrets.cfg, and the copy that ppin writes to in its place.

ppin rewrites its file in place, and a failed update removes the entry that it was to replace. So ppin never gets the
file itself: it works on a copy, and only a copy that is good takes the file's place, by one rename. However a run ends,
also by a kill or a power cut, .secrets.cfg is whole, and as it was before or as it was to be.
"""

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import tempfile
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._errors import FILE_HINT, PpinError

LOCK_POLL = 0.1
"""Seconds between two looks at a lock that another run holds."""


def replace_file(path: str, content: bytes, like: t.Optional[str] = None, mode: int = 0o600) -> None:
    """Put content at path, whole or not at all, also when power is lost. With that mode, or owner and mode of C(like).

    :raises OSError: when it cannot be written; the old file is then as it was.
    """
    temporary = path + ".new"  # one name, as whoever writes holds the lock: what a killed run left is replaced
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(content)
        os.chmod(temporary, mode)
        if like is not None:
            _copy_attributes(like, temporary)
            os.utime(temporary)
        _move(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _copy_attributes(source: str, path: str) -> None:
    """Owner, mode, times, ACL and SELinux label."""
    owner = os.stat(source)
    os.chown(path, owner.st_uid, owner.st_gid)
    shutil.copystat(source, path)


def _move(path: str, place: str) -> None:
    """Rename a file for good: what is at place is the old file or the new one, also when power is lost."""
    _sync(path)
    os.rename(path, place)
    with contextlib.suppress(OSError):  # not every file system can sync a folder; and the file is in place
        _sync(_folder_of(place))


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_mount_point(path: str) -> bool:
    with contextlib.suppress(FileNotFoundError), open("/proc/self/mountinfo", "rb") as mounts:
        return os.fsencode(path).replace(b" ", b"\\040") in (line.split()[4] for line in mounts)
    return False


def _folder_of(path: str) -> str:
    return os.path.dirname(path) or "."


@contextlib.contextmanager
def locked(secrets_path: str, timeout: float) -> t.Iterator[None]:
    """Hold the only right to work on a secrets file.

    The folder is what is locked (flock): that leaves no lock file behind, works on a read-only file system, does not
    depend on the secrets file being there, and the kernel lets go of it however the run ends.

    :arg timeout: seconds to wait for another run.
    """
    folder = _folder_of(secrets_path)
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as exc:
        raise PpinError("The folder %s cannot be opened: %s" % (folder, exc.strerror), "0x80005004") from exc
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as exc:
                if exc.errno not in (errno.EAGAIN, errno.EACCES):
                    problem = "The folder %s cannot be locked: %s" % (folder, exc.strerror)
                    raise PpinError(problem, cls="permission") from exc
            if time.monotonic() > deadline:
                raise PpinError(
                    "Another run has been working on %s for more than %d seconds" % (secrets_path, timeout),
                    cls="timeout",
                    hint="No credential was used. Wait for the other run to end, then run again.",
                ) from None
            time.sleep(LOCK_POLL)
        yield
    finally:
        os.close(handle)


_WORKING = ".working-"


def leftovers(secrets_path: str) -> t.List[str]:
    """What a run that died has left beside the secrets file, as long as no other run works there."""
    beside = glob.escape(secrets_path)
    return glob.glob(beside + _WORKING + "*") + glob.glob(beside + ".ledger.new")


def remove_leftovers(secrets_path: str) -> None:
    """For whoever holds the lock. :raises OSError: when that fails."""
    for path in leftovers(secrets_path):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


class WorkingCopy:
    """A copy of the secrets file for ppin to write to: a context, at whose end the copy is gone.

    It is in a folder of its own (C(.secrets.cfg.working-…), mode 0700, of another name each time), so that a ppin that
    outlives a killed run writes to nothing that matters, and what ppin itself puts beside its file goes too.

    :ivar path: the copy.
    :raises PpinError: on entry, when the secrets file could not be replaced.
    """

    def __init__(self, secrets_path: str) -> None:
        self.secrets_path = secrets_path
        self.path = ""
        self._before = b""

    def __enter__(self) -> "WorkingCopy":
        name = os.path.basename(self.secrets_path)
        try:
            with open(self.secrets_path, "r+b") as secrets:  # "+": whoever may not write it is not to replace it
                if os.fstat(secrets.fileno()).st_nlink > 1 or _is_mount_point(self.secrets_path):
                    raise PpinError(
                        "%s cannot be replaced: it has other names (hard links), or is mounted here"
                        % self.secrets_path,
                        cls="config",
                        hint="Make it a file of its own, or give the path of the original with secrets_path.",
                    )
                self._before = secrets.read()
            self.path = os.path.join(tempfile.mkdtemp("", name + _WORKING, _folder_of(self.secrets_path)), name)
            self._copy(self.path)
        except OSError as exc:
            self.__exit__()
            raise PpinError(
                "%s cannot be written safely: %s" % (self.secrets_path, exc.strerror),
                "0x80005007",
                hint=FILE_HINT,
            ) from exc
        return self

    def __exit__(self, *_exc: t.Any) -> None:
        if self.path:
            shutil.rmtree(os.path.dirname(self.path), ignore_errors=True)

    def _copy(self, path: str) -> None:
        shutil.copyfile(self.secrets_path, path)
        _copy_attributes(self.secrets_path, path)

    def put_in_place(self, backup: t.Optional[str] = None) -> None:
        """Make the copy the secrets file, for good.

        :arg backup: where to keep the secrets file as it was.
        :raises PpinError: when that fails; the secrets file is then as it was.
        """
        try:
            with open(self.secrets_path, "rb") as secrets:
                if secrets.read() != self._before:
                    raise PpinError(
                        "%s was changed by somebody else, and is not replaced by what ppin has made"
                        % self.secrets_path,
                        cls="state",
                        hint="What they changed is there. Look who works on this client by hand, then run again.",
                    )
            if backup is not None:
                self._copy(self.path + "~")
                _move(self.path + "~", backup)
            _copy_attributes(self.secrets_path, self.path)  # whatever ppin made of it
            os.utime(self.path)
            _move(self.path, self.secrets_path)
        except OSError as exc:
            raise PpinError(
                "%s cannot be replaced by what ppin has made of it: %s" % (self.secrets_path, exc.strerror),
                cls="permission",
                hint=FILE_HINT,
            ) from exc
