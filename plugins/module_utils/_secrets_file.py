# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The lock, the snapshot and the restore around everything that writes .secrets.cfg.

ppin rewrites the file in place, and a failed update removes the entry that it was to replace. So a copy is made first,
and whatever goes wrong, that copy takes the file's place again. All files here are made beside the secrets file, so
that a rename puts them in place at once and none is ever readable by more than the secrets file is.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._errors import PpinError

LOCK_POLL = 0.1
"""Seconds between two looks at a lock that another run holds."""


def replace_file(path: str, content: bytes, like: t.Optional[str] = None, mode: int = 0o600) -> None:
    """Put content at path, whole or not at all, also when power is lost. With that mode, or all attributes of C(like).

    :raises OSError: when it cannot be written; the old file is then as it was.
    """
    temporary = path + ".new"  # one name, as whoever writes holds the lock: what a killed run left is replaced
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(content)
            new.flush()
            os.fchmod(new.fileno(), mode)
            if like is not None:
                owner = os.stat(like)
                os.fchown(new.fileno(), owner.st_uid, owner.st_gid)
                shutil.copystat(like, temporary)  # mode, times, ACL, SELinux label
            os.fsync(new.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder_of(path)


def sync_folder_of(path: str) -> None:
    """Make what was renamed or removed beside path last, also when power is lost."""
    handle = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(secrets_path: str, timeout: float) -> t.Iterator[None]:
    """Hold the only right to work on a secrets file.

    The folder is what is locked (flock): that leaves no lock file behind, works on a read-only file system, does not
    depend on the secrets file being there, and the kernel lets go of it however the run ends.

    :arg timeout: seconds to wait for another run.
    """
    folder = os.path.dirname(secrets_path) or "."
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


class Snapshot:
    """The copy that a run can go back to: C(.secrets.cfg.snapshot), with the owner and mode of the original."""

    def __init__(self, secrets_path: str) -> None:
        self.secrets_path = secrets_path
        self.path = secrets_path + ".snapshot"

    def exists(self) -> bool:
        """Whether there is one: at the start of a run it means that an earlier one died."""
        return os.path.lexists(self.path)

    def take(self) -> None:
        """Copy the secrets file. :raises PpinError: when that or writing the secrets file itself is not possible."""
        try:
            with open(self.secrets_path, "r+b") as secrets:
                replace_file(self.path, secrets.read(), like=self.secrets_path)
        except OSError as exc:
            raise PpinError(
                "%s cannot be written safely: %s" % (self.secrets_path, exc.strerror), "0x80005007", "permission"
            ) from exc

    def restore(self) -> None:
        """Put the copy back in place of the secrets file, which it then is. :raises PpinError: when that fails."""
        try:
            os.rename(self.path, self.secrets_path)
            sync_folder_of(self.path)
        except OSError as exc:
            raise PpinError(
                "%s could not be put back: %s" % (self.secrets_path, exc.strerror),
                cls="permission",
                hint="The good copy is %s. The next run puts it back." % self.path,
            ) from exc

    def drop(self, keep_as: t.Optional[str] = None) -> None:
        """The secrets file is good: make it last, then remove the copy, or keep it under another name as a backup."""
        with open(self.secrets_path, "rb") as secrets:
            os.fsync(secrets.fileno())
        if keep_as is None:
            os.unlink(self.path)
        else:
            os.rename(self.path, keep_as)
        sync_folder_of(self.path)
