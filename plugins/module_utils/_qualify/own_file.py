# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""A file of the client that a ppin must leave alone: it is compared after each command, and put back."""

import contextlib
import os
import stat
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    NewFile,
    open_parent,
    read_all,
    write_all,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError


class OwnFile:
    """The file as it was when the stack was entered. :raises OSError, PpinError: when it cannot be read.

    :ivar content: what was in it.
    """

    def __init__(self, path: str, stack: contextlib.ExitStack) -> None:
        self.path = path
        self._directory, self._name = open_parent(path)
        stack.enter_context(self._directory)
        self._fd = stack.enter_context(self._directory.open(self._name))  # it stays, where another takes its place
        self._status = os.fstat(self._fd)
        self.content = read_all(self._fd)

    def is_as_it_was(self) -> bool:
        try:
            content, status = self._directory.read(self._name), self._directory.lstat(self._name)
        except OSError:
            return False
        return content == self.content and self._attributes(status) == self._attributes(self._status)

    @staticmethod
    def _attributes(status: os.stat_result) -> t.Tuple[int, ...]:
        return status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid

    def put_back(self) -> None:
        """Make it as it was. :raises PpinError: when that fails."""
        try:
            self._put_back()
        except OSError as exc:
            raise PpinError(
                "%s was changed by this ppin, and cannot be put back: %s" % (self.path, exc.strerror),
                cls="permission",
                hint="Restore it from a backup. Do not use this ppin with this collection.",
            ) from exc

    def _put_back(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._directory.lstat(self._name).st_ino == self._status.st_ino:
                with self._directory.open(self._name, os.O_RDWR) as fd:
                    self._restore_attributes(fd)
                    write_all(fd, self.content)
                return
        with NewFile(self._directory, self._name, self._fd) as new:
            self._restore_attributes(new.fd)
            new.put_in_place(self.content)

    def _restore_attributes(self, fd: int) -> None:
        now = os.fstat(fd)
        if (now.st_uid, now.st_gid) != (self._status.st_uid, self._status.st_gid):
            os.fchown(fd, self._status.st_uid, self._status.st_gid)
        if now.st_mode != self._status.st_mode:
            os.fchmod(fd, stat.S_IMODE(self._status.st_mode))
