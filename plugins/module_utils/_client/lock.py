# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The lock that a run holds while it works on .secrets.cfg."""

import contextlib
import errno
import fcntl
import os
import re
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.files import open_parent, user_name
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import LockFile
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError

LOCK_POLL_INTERVAL = 0.1
"""Seconds between two attempts to get a lock that another run holds."""


def is_mount_point(path: str) -> bool:
    """Whether something is mounted at a path, which may be a file. Symbolic links in the path must be resolved."""
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as mounts:
        escaped = [line.split()[4] for line in mounts]
        places = [re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal.group(1), 8)]), place) for place in escaped]
        return path.encode("utf-8", "surrogateescape") in places
    return False


@contextlib.contextmanager
def locked(secrets_path: str, timeout: float) -> t.Iterator[None]:
    """Hold the exclusive lock of a secrets file.

    The lock is a flock on the directory. It needs no lock file, works on a read-only file system and without a secrets
    file, and the kernel releases it however the run ends. Some network file systems have no such lock. There, a lock
    file in the private directory of this user is used, which excludes only other runs of this user on this host. The
    holder removes it, and the next run removes one that was left.

    :arg timeout: seconds to wait for another run.
    :raises PpinError: after the timeout, or when the directory cannot be opened or locked.
    """
    path = os.path.dirname(secrets_path) or "."
    try:
        directory = open_parent(secrets_path)[0]
    except OSError as exc:
        raise PpinError("The directory %s cannot be opened: %s" % (path, exc.strerror), "0x80005004") from exc
    file: t.Optional[LockFile] = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(directory)
        deadline = time.monotonic() + timeout
        while True:
            try:
                if file is None:
                    fcntl.flock(directory.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if file.try_acquire():
                    stack.callback(file.release)
                    break
            except OSError as exc:
                if file is not None:
                    msg = "The directory %s cannot be locked: %s" % (path, exc.strerror)
                    raise PpinError(msg, cls="permission") from exc
                if exc.errno not in (errno.EAGAIN, errno.EACCES):
                    file = LockFile(directory.path)
                    continue
            if time.monotonic() > deadline:
                raise PpinError(
                    "Another run has been working on %s for more than %d seconds" % (secrets_path, timeout),
                    cls="timeout",
                    hint="No credential was used. Wait for the other run to end, then run again.%s"
                    % _describe_holder(directory.status if file is None else file.status),
                ) from None
            time.sleep(LOCK_POLL_INTERVAL)
        yield


@contextlib.contextmanager
def all_locked(paths: t.Iterable[str], timeout: float) -> t.Iterator[None]:
    """Hold the lock of each file's directory, as locked() does.

    The directories are sorted, and locked once each, so that two runs cannot wait for each other.
    """
    directories = {}
    for path in paths:
        try:
            with open_parent(path)[0] as directory:
                directories[directory.path] = path
        except OSError:
            directories[os.path.dirname(path)] = path  # locked() reports the error
    with contextlib.ExitStack() as stack:
        for _directory, path in sorted(directories.items()):
            stack.enter_context(locked(path, timeout))
        yield


def _describe_holder(status: t.Optional[os.stat_result]) -> str:
    """Return who holds the lock on a file, as a sentence for a hint; empty when the kernel does not report it."""
    if status is None:
        return ""
    with contextlib.suppress(OSError, ValueError), open("/proc/locks") as locks:
        place = "%02x:%02x:%d" % (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)
        for words in map(str.split, locks):
            if words[1] == "FLOCK" and words[5] == place:
                owner = user_name(os.stat("/proc/%s" % words[4]).st_uid)
                with open("/proc/%s/comm" % words[4]) as comm:
                    name = "".join(char if char.isprintable() else "?" for char in comm.read().strip())
                return (
                    " The lock is held by process %s (%s) of %s. If that is no run of this collection, end it: every "
                    "user who may read the directory can lock it." % (words[4], name, owner)
                )
    return ""
