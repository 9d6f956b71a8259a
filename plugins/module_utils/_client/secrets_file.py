# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The copy of .secrets.cfg that ppin writes to in its place, with the lock of lock.py held.

ppin rewrites its file in place, and a failed update removes the entry that it was to replace. So ppin never gets the
file itself: it works on a copy where nobody else can reach it, and only a copy that is good takes the file's place, by
one rename. However a run ends, also by a kill or a power cut, .secrets.cfg is whole, and as it was before or as it was
to be.
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
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import all_locked, is_mount_point
from ansible_collections.hsmops.primus.plugins.module_utils._client.places import (
    KEPT,
    LASTING,
    Workplace,
    key_of,
    leftovers,
    private_directory,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.places import remove_leftovers as _remove_leftovers
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import FILE_HINT, PpinError

ROOM = 16384
"""Bytes that a secrets file may grow by in one run."""


class WorkingCopy:
    """A copy of the secrets file for ppin to write to: a context, at whose end the copy is gone.

    in_place: write to the secrets file itself, in place of a rename, for one that is mounted, or in a directory that
    cannot be written.
    path: the copy, in a directory that nobody else can reach.
    :raises PpinError: on entry, when the secrets file could not be replaced.
    """

    def __init__(self, secrets_path: str, in_place: bool = False) -> None:
        self.secrets_path = secrets_path
        self.in_place = in_place
        self.path = ""
        self._before = b""
        self._stack = contextlib.ExitStack()
        self._directory: Directory
        self._secrets = -1
        self._torn = False
        self._new: t.Optional[NewFile] = None
        self._place: Workplace

    def __enter__(self) -> "WorkingCopy":
        with contextlib.ExitStack() as stack:
            try:
                self._open(stack)
            except OSError as exc:
                raise self._unwritable(exc) from exc
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exc: t.Any) -> None:
        self._stack.close()

    def _open(self, stack: contextlib.ExitStack) -> None:
        self._directory, name = open_parent(self.secrets_path)
        stack.enter_context(self._directory)
        # Whoever may not write it is not to replace it.
        self._secrets = stack.enter_context(self._directory.open(name, os.O_RDWR))
        self._before = read_all(self._secrets)
        if self.in_place:
            with self._keep(self._before):  # whether that can be done at all
                pass
        else:
            self._check_replaceable()
            new = NewFile(self._directory, name, self._secrets, room=len(self._before) + ROOM)
            self._new = stack.enter_context(new)
        self._place = stack.enter_context(Workplace(self.secrets_path))
        self.path = self._place.write(name, self._before)

    def _check_replaceable(self) -> None:
        """:raises PpinError: when a rename would part it from its other names, or cannot be."""
        status = os.fstat(self._secrets)
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

    def _unwritable(self, exc: OSError) -> PpinError:
        if exc.errno == errno.EROFS and is_mount_point(self.secrets_path):
            return PpinError(
                "%s cannot be written: this one file is mounted here, read-only" % self.secrets_path,
                "0x80005007",
                hint="Change the file where it comes from, on the host that mounts it into this container.",
            )
        if exc.errno == errno.EACCES and self._secrets != -1 and not self.in_place:
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
        """Make the copy the secrets file, for good.

        backup: where to keep the secrets file as it was, in its directory.
        :raises PpinError: when that fails; the secrets file is then as it was.
        """
        try:
            content = self._place.directory.read(os.path.basename(self.path))
            self._check_unchanged()
            if backup is not None:
                self._back_up(os.path.basename(backup))
            if self._new is not None:
                self._new.put_in_place(content, self._check_unchanged)
            else:
                with self._keep(content):
                    self._check_unchanged()
                    self._write(content)
        except OSError as exc:
            raise PpinError(
                "%s cannot be replaced by the updated copy: %s" % (self.secrets_path, exc.strerror),
                cls="permission",
                hint=FILE_HINT,
            ) from exc

    def _write(self, content: bytes) -> None:
        """Write to the file itself, and if that fails what was in it. :raises OSError:"""
        self._torn = True
        try:
            write_all(self._secrets, content)
        except OSError:
            write_all(self._secrets, self._before)
            raise
        finally:
            self._torn = read_all(self._secrets) not in (content, self._before)

    def _back_up(self, name: str) -> None:
        with NewFile(self._directory, name, self._secrets) as new:
            status = os.fstat(self._secrets)
            new.put_in_place(self._before, lambda: os.utime(new.fd, ns=(status.st_atime_ns, status.st_mtime_ns)))

    def _check_unchanged(self) -> None:
        """The last before it is replaced. :raises OSError, PpinError: when somebody else has changed it."""
        if self._directory.read(os.path.basename(self.secrets_path)) != self._before:
            raise PpinError(
                "%s was changed by another process during the run, and was not replaced" % self.secrets_path,
                cls="state",
                hint="The other change was kept. Find out who changes this client by hand, then run again.",
            )

    @contextlib.contextmanager
    def _keep(self, content: bytes) -> t.Iterator[None]:
        """While this lasts, the next run knows what was, and what is to be, in the file."""
        kept = {"before": self._before, "after": content}
        text = json.dumps({key: base64.b64encode(value).decode("ascii") for key, value in kept.items()}).encode("ascii")
        name = os.path.basename(self.secrets_path) + KEPT
        with contextlib.ExitStack() as stack:
            directory = self._directory
            try:
                new = stack.enter_context(NewFile(directory, name))
            except OSError:  # such as a directory that a member of the group may not write to
                directory = stack.enter_context(private_directory(LASTING))
                name = key_of(self.secrets_path) + KEPT
                new = stack.enter_context(NewFile(directory, name))
            new.put_in_place(text)
            try:
                yield
            finally:
                if not self._torn:
                    os.unlink(name, dir_fd=directory.fd)


def clean_up(module: AnsibleModule, secrets_path: str, config_path: str, timeout: float) -> None:
    """Remove what a run that died has left, for a module that holds no lock. Not in check mode. :raises PpinError:"""
    if module.check_mode or not leftovers(secrets_path, config_path):
        return
    with all_locked([path for path in (secrets_path, config_path) if os.path.isdir(os.path.dirname(path))], timeout):
        warn_of(module, remove_leftovers(secrets_path, config_path))


def warn_of(module: AnsibleModule, problems: t.Iterable[str]) -> None:
    for problem in problems:
        module.warn("Files left by an interrupted run cannot be removed: %s." % problem)


def remove_leftovers(secrets_path: str, config_path: str) -> t.List[str]:
    """Remove what a run that died has left, for whoever holds the lock. Returns what could not be removed, and why.

    A secrets file that it was writing in place is made whole.
    """
    problems = []
    try:
        _recover(secrets_path)
    except (OSError, PpinError) as exc:
        problems.append("%s: %s" % (secrets_path, getattr(exc, "strerror", None) or exc))
    return problems + _remove_leftovers(secrets_path, config_path)


def _recover(secrets_path: str) -> None:
    """Finish what a run that died was writing in place. :raises OSError, PpinError:"""
    directory, name = open_parent(secrets_path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(directory)
        places = [(directory, name + KEPT)]
        with contextlib.suppress(PpinError):
            places.append((stack.enter_context(private_directory(LASTING)), key_of(secrets_path) + KEPT))
        for place, kept_name in places:
            with contextlib.suppress(FileNotFoundError):
                kept = _read_kept(place, kept_name)
                if kept is not None and name in directory.names():
                    with directory.open(name, os.O_RDWR) as secrets:
                        if _is_torn(read_all(secrets), *kept):
                            write_all(secrets, kept[1])
                os.unlink(kept_name, dir_fd=place.fd)


def _read_kept(directory: Directory, name: str) -> t.Optional[t.Tuple[bytes, bytes]]:
    with directory.open(name) as fd:
        if os.fstat(fd).st_uid not in (0, os.geteuid()):
            return None
        try:
            kept = json.loads(read_all(fd).decode("ascii"))
            return base64.b64decode(kept["before"]), base64.b64decode(kept["after"])
        except (ValueError, KeyError, TypeError):
            return None  # it was not whole yet, so nothing was written in place


def _is_torn(now: bytes, before: bytes, after: bytes) -> bool:
    """Whether a file is a mixture of the two, as a write leaves it that did not end. Other changes are somebody's."""
    if now in (before, after) or len(now) > max(len(before), len(after)):
        return False
    return all(byte in (0, *before[at : at + 1], *after[at : at + 1]) for at, byte in enumerate(now))
