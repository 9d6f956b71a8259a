# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other users of this host. Root runs parts of a test as one of them."""

import contextlib
import os
import signal

EVE, ALICE = 54321, 54324
"""Users: one who attacks, and one to whom something belongs."""

OWNER = 54322
"""The user to whom the vendor's installation from .tar.gz gives the provider, such as primus."""

GROUP = 54323


def become(uid, group):
    os.setgroups([])
    os.setgid(group)
    os.setuid(uid)


def as_user(do, uid=EVE, group=GROUP):
    """Do something as a user, by default a member of the group; whether it could be done."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            become(uid, group)
            status = 1 if do() is False else 0
        os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


@contextlib.contextmanager
def somebody(do, uid=EVE, group=GROUP):
    """A process of another user that has called `do` and keeps running for the body of a with statement."""
    done, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(uid, group)
            held = do()  # noqa: F841 # what was opened stays open
            os.write(tell, b"x")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    try:
        assert os.read(done, 1) == b"x", "it could not be done"
        yield pid
    finally:
        os.close(done)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def swap(path, target):
    """Replace a file by a symbolic link."""
    path.rename(path.with_name("aside"))
    path.symlink_to(target)
