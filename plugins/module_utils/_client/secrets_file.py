# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The working copy of .secrets.cfg that ppin writes to. The caller holds the lock of lock.py.

ppin rewrites its file in place, and a failed update removes the entry that it was to replace. Therefore ppin never gets
the file itself. It works on a copy that nobody else can access, and only a correct copy replaces the file, by one
rename. Even after a kill or a power cut, .secrets.cfg is complete: it has either the old or the new content.
"""

import base64
import contextlib
import errno
import json
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    Directory,
    NewFile,
    open_parent,
    read_all,
    user_name,
    write_all,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import (
    JOURNAL_SUFFIX,
    PERSISTENT_ROOT,
    RunDirectory,
    leftovers,
    path_key,
    private_directory,
    remove_leftovers,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import all_locked, is_mount_point
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import FILE_HINT, PpinError

RESERVED_BYTES = 16384
"""Bytes of disk space to reserve for the growth of a secrets file, so that a full disk is found before a login."""


class WorkingCopy:
    """A copy of the secrets file for ppin to write to. A context manager, which removes the copy at its end.

    :arg in_place: put_in_place() writes to the secrets file itself instead of renaming the copy. For a file that is
        mounted, or whose directory is not writable.
    :ivar path: the copy, in a directory that nobody else can access.
    :raises PpinError: on entry, when the secrets file could not be replaced.
    """

    def __init__(self, secrets_path: str, in_place: bool = False) -> None:
        self.secrets_path = secrets_path
        self.in_place = in_place
        self.path = ""
        self._before = b""
        self._stack = contextlib.ExitStack()
        self._directory: Directory
        self._secrets_fd = -1
        self._partly_written = False
        self._new: t.Optional[NewFile] = None
        self._run_directory: RunDirectory

    def __enter__(self) -> "WorkingCopy":
        with contextlib.ExitStack() as stack:
            try:
                self._open(stack)
            except OSError as exc:
                raise self._write_error(exc) from exc
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exc: t.Any) -> None:
        self._stack.close()

    def _open(self, stack: contextlib.ExitStack) -> None:
        self._directory, name = open_parent(self.secrets_path)
        stack.enter_context(self._directory)
        # A user who may not write to the file must not replace it either.
        self._secrets_fd = stack.enter_context(self._directory.open(name, os.O_RDWR))
        self._before = read_all(self._secrets_fd)
        if self.in_place:
            with self._journal(self._before):  # fails now, before a login, if no journal can be written
                pass
        else:
            self._check_replaceable()
            new = NewFile(self._directory, name, self._secrets_fd, reserve=len(self._before) + RESERVED_BYTES)
            self._new = stack.enter_context(new)
        self._run_directory = stack.enter_context(RunDirectory(self.secrets_path))
        self.path = self._run_directory.write(name, self._before)

    def _check_replaceable(self) -> None:
        """:raises PpinError: when the file is mounted or has hard links, so that a rename would not reach all of it."""
        status = os.fstat(self._secrets_fd)
        if is_mount_point(self._directory.path_of(os.path.basename(self.secrets_path))):
            raise PpinError(
                "%s cannot be replaced: this one file is mounted here (bind mount)" % self.secrets_path,
                cls="config",
                hint="Mount its directory, or change the file where it comes from, or set in_place to true, which "
                "writes to it as it is.",
            )
        if status.st_nlink > 1:
            raise PpinError(
                "%s cannot be replaced: it has %d names (hard links)" % (self.secrets_path, status.st_nlink),
                cls="config",
                hint="Find the others (find / -xdev -inum %d), remove those that nobody needs, and find out who made "
                "them: they show what is in it. Or set in_place to true, which writes to all of them." % status.st_ino,
            )

    def _write_error(self, exc: OSError) -> PpinError:
        if exc.errno == errno.EROFS and is_mount_point(self.secrets_path):
            return PpinError(
                "%s cannot be written: this one file is mounted here, read-only" % self.secrets_path,
                "0x80005007",
                hint="Change the file where it comes from, on the host that mounts it into this container.",
            )
        if exc.errno == errno.EACCES and self._secrets_fd != -1 and not self.in_place:
            return PpinError(
                "%s cannot be replaced by %s, who may write to it, but not to its directory"
                % (self.secrets_path, user_name(os.geteuid())),
                "0x80005007",
                hint="Run this as root (become: true), or set in_place to true, which writes to the file as it is.",
            )
        return PpinError(
            "%s cannot be written safely: %s" % (self.secrets_path, exc.strerror), "0x80005007", hint=FILE_HINT
        )

    def put_in_place(self, backup: t.Optional[str] = None) -> None:
        """Replace the secrets file by the copy, durably.

        :arg backup: path of a copy of the old file, in the same directory; None: no backup.
        :raises PpinError: when that fails; the secrets file is then unchanged.
        """
        try:
            content = self._run_directory.directory.read(os.path.basename(self.path))
            self._check_unchanged()
            if backup is not None:
                self._back_up(os.path.basename(backup))
            if self._new is not None:
                self._new.put_in_place(content, self._check_unchanged)
            else:
                with self._journal(content):
                    self._check_unchanged()
                    self._write(content)
        except OSError as exc:
            raise PpinError(
                "%s cannot be replaced by the updated copy: %s" % (self.secrets_path, exc.strerror),
                cls="permission",
                hint=FILE_HINT,
            ) from exc

    def _write(self, content: bytes) -> None:
        """Write to the file itself. If that fails, restore the old content. :raises OSError:"""
        self._partly_written = True
        try:
            write_all(self._secrets_fd, content)
        except OSError:
            write_all(self._secrets_fd, self._before)
            raise
        finally:
            self._partly_written = read_all(self._secrets_fd) not in (content, self._before)

    def _back_up(self, name: str) -> None:
        with NewFile(self._directory, name, self._secrets_fd) as new:
            status = os.fstat(self._secrets_fd)
            new.put_in_place(self._before, lambda: os.utime(new.fd, ns=(status.st_atime_ns, status.st_mtime_ns)))

    def _check_unchanged(self) -> None:
        """Check, just before the file is replaced, that nobody else has changed it. :raises OSError, PpinError:"""
        if self._directory.read(os.path.basename(self.secrets_path)) != self._before:
            raise PpinError(
                "%s was changed by another process during the run, and was not replaced" % self.secrets_path,
                cls="state",
                hint="The other change was kept. Find out who changes this client by hand, then run again.",
            )

    @contextlib.contextmanager
    def _journal(self, content: bytes) -> t.Iterator[None]:
        """Keep old and new content in a journal during a write in place, so that the next run can complete it."""
        contents = {"before": self._before, "after": content}
        encoded = {key: base64.b64encode(value).decode("ascii") for key, value in contents.items()}
        text = json.dumps(encoded).encode("ascii")
        name = os.path.basename(self.secrets_path) + JOURNAL_SUFFIX
        with contextlib.ExitStack() as stack:
            directory = self._directory
            try:
                new = stack.enter_context(NewFile(directory, name))
            except OSError:  # for example, the user may not write to the directory
                directory = stack.enter_context(private_directory(PERSISTENT_ROOT))
                name = path_key(self.secrets_path) + JOURNAL_SUFFIX
                new = stack.enter_context(NewFile(directory, name))
            new.put_in_place(text)
            try:
                yield
            finally:
                if not self._partly_written:
                    os.unlink(name, dir_fd=directory.fd)


def recover_with_lock(module: AnsibleModule, secrets_path: str, config_path: str, timeout: float) -> None:
    """As recover(), for a module that holds no lock. Does nothing in check mode. :raises PpinError:"""
    if module.check_mode or not leftovers(secrets_path, config_path):
        return
    with all_locked([path for path in (secrets_path, config_path) if os.path.isdir(os.path.dirname(path))], timeout):
        recover(module, secrets_path, config_path)


def recover(module: AnsibleModule, secrets_path: str, config_path: str) -> None:
    """Complete what an interrupted run was writing, and remove its leftovers. The caller holds the lock.

    What cannot be removed is a warning.
    """
    for problem in recover_files(secrets_path, config_path):
        module.warn("Files left by an interrupted run cannot be removed: %s." % problem)


def recover_files(secrets_path: str, config_path: str) -> t.List[str]:
    """As recover(). Returns what could not be removed, and why, in place of warnings."""
    problems = []
    try:
        _complete_write(secrets_path)
    except (OSError, PpinError) as exc:
        problems.append("%s: %s" % (secrets_path, getattr(exc, "strerror", None) or exc))
    return problems + remove_leftovers(secrets_path, config_path)


def _complete_write(secrets_path: str) -> None:
    """Complete a secrets file that an interrupted run was writing in place. :raises OSError, PpinError:"""
    directory, name = open_parent(secrets_path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(directory)
        places = [(directory, name + JOURNAL_SUFFIX)]
        with contextlib.suppress(PpinError):
            private = stack.enter_context(private_directory(PERSISTENT_ROOT))
            places.append((private, path_key(secrets_path) + JOURNAL_SUFFIX))
        for place, journal_name in places:
            with contextlib.suppress(FileNotFoundError):
                journal = _read_journal(place, journal_name)
                if journal is not None and name in directory.names():
                    with directory.open(name, os.O_RDWR) as secrets:
                        if _is_partly_written(read_all(secrets), *journal):
                            write_all(secrets, journal[1])
                os.unlink(journal_name, dir_fd=place.fd)


def _read_journal(directory: Directory, name: str) -> t.Optional[t.Tuple[bytes, bytes]]:
    with directory.open(name) as fd:
        if os.fstat(fd).st_uid not in (0, os.geteuid()):
            return None
        try:
            journal = json.loads(read_all(fd).decode("ascii"))
            return base64.b64decode(journal["before"]), base64.b64decode(journal["after"])
        except (ValueError, KeyError, TypeError):
            return None  # the journal is not complete, so the write in place had not begun


def _is_partly_written(now: bytes, before: bytes, after: bytes) -> bool:
    """Whether a file is a mixture of both contents, as after an interrupted write. Anything else is another change."""
    if now in (before, after) or len(now) > max(len(before), len(after)):
        return False
    return all(byte in (0, *before[at : at + 1], *after[at : at + 1]) for at, byte in enumerate(now))
