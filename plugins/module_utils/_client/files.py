# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Read and replace files safely in directories that other users may write to.

A user who may write to any directory of a path can change which file the path leads to. So a path is opened once,
directory by directory, each relative to the one before. A file, directory or link that another user could have created
is refused. Everything after that works on file descriptors.
"""

import binascii
import contextlib
import errno
import fcntl
import grp
import os
import pwd
import re
import stat
import struct
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError

LINK_LIMIT = 40
"""Symbolic links that are followed in one path, as in Linux."""

DEPTH_LIMIT = 16
"""Levels of subdirectories of a directory that is removed."""

TEMPORARY = re.compile(r"\.new-[0-9a-f]{16}\Z")
"""The end of the name of a temporary file, before it is renamed."""

ACCESS_ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"

_NOT_COPIED = ("security.capability", "security.evm", "security.ima", DEFAULT_ACL)  # these are about the old content

PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY)  # macOS, which a control node may run on, has no O_PATH
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
_XATTRS = hasattr(os, "listxattr")


class UntrustedFile(PpinError):
    """A file, directory or link that another user could have created to redirect this run."""

    def __init__(self, what: str, path: str, uid: int) -> None:
        super().__init__(
            "%s %s belongs to %s, who is neither root nor the user of this run (%s)"
            % (what, path, user_name(uid), user_name(os.geteuid())),
            cls="permission",
            hint="Its owner, or anyone who can write to %s, could redirect this run to other files, so it was not "
            "used. Find out who created it. If it is correct, change its owner to root (chown -h root %s), then run "
            "again." % (os.path.dirname(path) or "/", path),
        )


def os_text(text: str) -> str:
    """Convert a text so that Python passes it to the operating system in UTF-8, also Python 3.6 in the locale C."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def display_text(text: str) -> str:
    """The reverse of os_text: convert a path to a text for a result."""
    return os.fsencode(text).decode("utf-8", "replace") if any("\udc80" <= char <= "\udcff" for char in text) else text


def user_name(uid: int) -> str:
    """Return the name of a user, or the number when it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return the name of a group, or the number when it has no name."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


class Directory:
    """An open directory, and operations on its files by name. No symbolic link is followed.

    A context manager, which closes the directory at its end.

    :ivar path: when it was opened, with symbolic links resolved.
    """

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.status = os.fstat(fd)

    def __enter__(self) -> "Directory":
        return self

    def __exit__(self, *_exc: t.Any) -> None:
        os.close(self.fd)

    @property
    def others_can_write(self) -> bool:
        """Whether a user other than root and that of the run can create files in it. ACLs show in the group's bits."""
        return not _is_trusted(self.status.st_uid) or bool(self.status.st_mode & 0o022)

    @property
    def is_private(self) -> bool:
        """Whether only root and the user of the run can rename or remove their files in it."""
        return _is_trusted(self.status.st_uid) and (
            not self.status.st_mode & 0o022 or bool(self.status.st_mode & stat.S_ISVTX)
        )

    def path_of(self, name: str) -> str:
        return os.path.join(self.path, name)

    def lstat(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def names(self) -> t.List[str]:
        return os.listdir(self.fd)

    def check(self, name: str, status: os.stat_result) -> None:
        """Check that an entry of this directory may be used. :raises UntrustedFile:

        It may if it belongs to root or the user of the run, or if nobody else can create files in this directory. The
        owner of the directory (such as the user primus after the vendor's installation from .tar.gz) may own files and
        directories in it, too, but no symbolic links.

        :arg status: of the entry, by lstat().
        """
        link = stat.S_ISLNK(status.st_mode)
        if _is_trusted(status.st_uid) and not (link and status.st_nlink > 1):  # a hard link to a symbolic link of root
            return
        if not self.others_can_write or (not link and status.st_uid == self.status.st_uid):
            return
        kind = "The link" if link else "The directory" if stat.S_ISDIR(status.st_mode) else "The file"
        raise UntrustedFile(kind, self.path_of(name), status.st_uid)

    def subdirectory(self, name: str, flags: int = os.O_RDONLY) -> "Directory":
        """Open a subdirectory, the directory itself ("."), its parent ("..") or "/". :raises OSError, UntrustedFile:"""
        path = {".": self.path, "..": os.path.dirname(self.path), "/": "/"}.get(name)
        directory = Directory(
            os.open(name, flags | os.O_DIRECTORY | _NO_LINK, dir_fd=self.fd), path or self.path_of(name)
        )
        try:
            if path is None:
                self.check(name, directory.status)
        except UntrustedFile:
            os.close(directory.fd)
            raise
        return directory

    @contextlib.contextmanager
    def open(self, name: str, flags: int = os.O_RDONLY) -> t.Iterator[int]:
        """Open a regular file; yields a descriptor. :raises OSError, UntrustedFile:"""
        try:
            fd = os.open(name, flags | os.O_NONBLOCK | _NO_LINK, dir_fd=self.fd)
        except OSError as exc:
            exc.filename = self.path_of(name)  # for messages
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
                raise OSError(code, os.strerror(code), self.path_of(name))
            self.check(name, status)
            yield fd
        finally:
            os.close(fd)

    def read(self, name: str) -> bytes:
        """Read a regular file. :raises OSError, UntrustedFile:"""
        with self.open(name) as fd:
            return read_all(fd)

    def remove(self, name: str, depth: int = DEPTH_LIMIT, owner: t.Optional[int] = None) -> None:
        """Remove a file, a symbolic link, or a directory with all its content. :raises OSError:

        :arg depth: levels of subdirectories; 0: not a directory. A user who may write to this directory could have
            moved a directory of another user here, which they could not empty themselves.
        :arg owner: the user id that all of it must belong to; None: any.
        """
        status = self.lstat(name)
        if owner is not None and status.st_uid != owner:
            raise OSError(errno.EPERM, "It belongs to %s" % user_name(status.st_uid), self.path_of(name))
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=self.fd)
            return
        if depth == 0:
            raise OSError(errno.EISDIR, "It is a directory that no run makes", self.path_of(name))
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=self.fd)
        with Directory(fd, self.path_of(name)) as directory:
            if directory.status.st_dev != self.status.st_dev:
                raise OSError(errno.EBUSY, "Something is mounted there", directory.path)
            if owner is not None and directory.status.st_uid != owner:  # it was replaced since lstat()
                raise OSError(errno.EPERM, "It belongs to another user", directory.path)
            for inner in directory.names():
                directory.remove(inner, depth - 1, owner)
        os.rmdir(name, dir_fd=self.fd)

    def sync(self) -> None:
        with contextlib.suppress(OSError):  # not every file system can sync a directory
            os.fsync(self.fd)


def require_private(directory: Directory) -> None:
    """For open_directory: require that only root and the user of the run can rename any part of the path."""
    if not directory.is_private:
        raise UntrustedFile("The directory", directory.path, directory.status.st_uid)


def open_directory(
    path: str, check_each: t.Optional[t.Callable[[Directory], None]] = None, flags: int = os.O_RDONLY
) -> Directory:
    """Open a directory, each part of the path relative to the one before. :raises OSError, UntrustedFile:

    :arg check_each: called with each directory of the path, from / to the last one; it may raise an exception.
    :arg flags: PATH_ONLY for a directory that need not be readable, because it is not listed.
    """
    parts = os.path.join(os.getcwd(), path).split("/")[::-1]
    here = Directory(os.open("/", PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC), "/")
    links = 0
    try:
        while True:
            if check_each is not None:
                check_each(here)
            while parts and parts[-1] in ("", "."):
                parts.pop()
            if not parts:
                return here.subdirectory(".", flags)
            name = parts.pop()
            status = here.lstat(name)
            if stat.S_ISLNK(status.st_mode):
                here.check(name, status)
                links += 1
                if links > LINK_LIMIT:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink(name, dir_fd=here.fd)
                parts += target.split("/")[::-1]
                following = here.subdirectory("/" if target.startswith("/") else ".", PATH_ONLY)
            else:
                following = here.subdirectory(name, PATH_ONLY)
            os.close(here.fd)
            here = following
    except OSError as exc:
        exc.filename = here.path_of(exc.filename)
        raise
    finally:
        os.close(here.fd)


def make_directory(path: str, check_each: t.Optional[t.Callable[[Directory], None]] = None) -> None:
    """Create a directory with mode 0700, and its parents if they are missing. :raises OSError, UntrustedFile:

    :arg path: absolute.
    :arg check_each: as for open_directory.
    """
    try:
        open_directory(path, check_each, PATH_ONLY).__exit__()
    except FileNotFoundError:
        above, name = os.path.split(path.rstrip("/"))
        make_directory(above, check_each)
        with open_directory(above, check_each, PATH_ONLY) as directory, contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=directory.fd)


def open_parent(path: str) -> t.Tuple[Directory, str]:
    """Open the directory of a file. Return it and the name of the file. :raises OSError, UntrustedFile:"""
    return open_directory(os.path.dirname(path) or "."), os.path.basename(path)


def real_path(path: str) -> str:
    """Resolve all symbolic links of a path, which need not exist. :raises OSError, UntrustedFile:"""
    for _link in range(LINK_LIMIT):
        directory, name = open_parent(path)
        with directory:
            try:
                status = directory.lstat(name)
            except FileNotFoundError:
                return directory.path_of(name)
            if not stat.S_ISLNK(status.st_mode):
                return directory.path_of(name)
            directory.check(name, status)
            path = directory.path_of(os.readlink(name, dir_fd=directory.fd))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def check_file(path: str) -> None:
    """Check that a file may be used, if it exists. :raises OSError, UntrustedFile:"""
    directory, name = open_parent(real_path(path))
    with directory, contextlib.suppress(FileNotFoundError):
        directory.check(name, directory.lstat(name))


def read_file(path: str) -> bytes:
    """Read a regular file. :raises OSError, UntrustedFile:"""
    directory, name = open_parent(path)
    with directory:
        return directory.read(name)


def read_all(fd: int) -> bytes:
    """Read a file from its beginning."""
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb") as file:
        return file.read()


def write_all(fd: int, content: bytes) -> None:
    """Replace the content of an open file and sync it, in as few calls as possible."""
    os.lseek(fd, 0, os.SEEK_SET)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    if os.fstat(fd).st_size > len(content):
        os.ftruncate(fd, len(content))
    os.fsync(fd)


# A new file


class NewFile:
    """A temporary file that replaces another by a rename. A context manager, which removes it if it was not renamed.

    On entry it gets its attributes and its disk space, before it has any content. What cannot work fails then.

    :arg attributes_from: a descriptor of a file whose owner, group, permissions, ACL and label it gets. None: it gets
        `mode`, and no ACL, not even the default ACL of the directory.
    :arg reserve: bytes of disk space to reserve.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        attributes_from: t.Optional[int] = None,
        mode: int = 0o600,
        reserve: int = 0,
    ) -> None:
        self.directory = directory
        self.name = name
        self.attributes_from = attributes_from
        self.mode = mode
        self.reserve = reserve
        self.temporary = name + ".new-" + binascii.hexlify(os.urandom(8)).decode("ascii")
        self.fd = -1

    def __enter__(self) -> "NewFile":
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK
        self.fd = os.open(self.temporary, flags, 0o600, dir_fd=self.directory.fd)
        try:
            with contextlib.suppress(OSError):  # for is_in_use(), which other runs call
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.attributes_from is None:
                _remove_acl(self.fd)
                os.fchmod(self.fd, self.mode)
            else:
                copy_attributes(self.attributes_from, self.fd, self.directory.path_of(self.name))
            if self.reserve:
                write_all(self.fd, bytes(self.reserve))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: t.Any) -> None:
        if self.temporary:
            with contextlib.suppress(OSError):
                os.unlink(self.temporary, dir_fd=self.directory.fd)
        os.close(self.fd)

    def put_in_place(self, content: bytes, check: t.Optional[t.Callable[[], None]] = None) -> None:
        """Write the content and rename the file, durably. :raises OSError, PpinError:

        :arg check: called just before the rename; it may raise an exception.
        """
        write_all(self.fd, content)
        if check is not None:
            check()
        os.rename(self.temporary, self.name, src_dir_fd=self.directory.fd, dst_dir_fd=self.directory.fd)
        self.temporary = ""
        self.directory.sync()
        new, there = os.fstat(self.fd), self.directory.lstat(self.name)
        if (new.st_dev, new.st_ino) != (there.st_dev, there.st_ino):
            raise PpinError(
                "%s was replaced by another process at the same time" % self.directory.path_of(self.name),
                cls="state",
                hint="The other file was kept. Find out who can write to its directory, then run again.",
            )


def replace_file(path: str, content: bytes, attributes_from: t.Optional[str] = None, mode: int = 0o600) -> None:
    """Write a file atomically and durably. A symbolic link at the path is replaced.

    :arg attributes_from: a file in the same directory whose owner, group, permissions, ACL and label it gets. None: it
        gets `mode`, and no ACL.
    :raises OSError, PpinError: when it cannot be written; the old file is then unchanged.
    """
    directory, name = open_parent(path)
    with directory:
        remove_temporary_files(directory, name)
        if attributes_from is None:
            with NewFile(directory, name, mode=mode) as new:
                new.put_in_place(content)
        else:
            with directory.open(os.path.basename(attributes_from)) as source, NewFile(directory, name, source) as new:
                new.put_in_place(content)


def remove_temporary_files(directory: Directory, name: str) -> None:
    """Remove the temporary files that interrupted runs have left when they were replacing a file."""
    for other in directory.names():
        if other.startswith(name) and TEMPORARY.match(other[len(name) :]) and not is_in_use(directory, other):
            with contextlib.suppress(OSError):
                directory.remove(other, depth=0)


def is_in_use(directory: Directory, name: str) -> bool:
    """Whether the run that created a file or directory still runs: it holds a lock on it until it ends."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _NO_LINK, dir_fd=directory.fd)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: NFS refuses an exclusive lock on a file open to read
    except OSError as exc:
        return exc.errno == errno.EAGAIN
    finally:
        os.close(fd)
    return False


# Attributes


def copy_attributes(source: int, target: int, path: str) -> None:
    """Give an open file the owner, group, ACL, label and permissions of another one.

    :arg path: the path of the file, for messages.
    :raises OSError, PpinError: when one of them cannot be set.
    """
    wanted, present = os.fstat(source), os.fstat(target)
    uid = -1 if wanted.st_uid == present.st_uid else wanted.st_uid
    gid = -1 if wanted.st_gid == present.st_gid else wanted.st_gid
    if (uid, gid) != (-1, -1):
        try:
            os.fchown(target, uid, gid)
        except PermissionError:
            what = "belongs to %s" % user_name(uid) if uid != -1 else "is of the group %s" % group_name(gid)
            raise PpinError(
                "%s cannot be replaced by %s: it %s, which a file that they make cannot"
                % (path, user_name(os.geteuid()), what),
                cls="permission",
                hint="Run this as root (become: true) or as the owner of the file, with its group; or, where the "
                "module has it, set in_place to true, which writes to the file as it is.",
            ) from None
    if _XATTRS:
        _copy_xattrs(source, target)
    os.fchmod(target, stat.S_IMODE(wanted.st_mode))  # after the ACL, because it sets the mask of the ACL


def _copy_xattrs(source: int, target: int) -> None:
    try:
        wanted = {name: os.getxattr(source, name) for name in os.listxattr(source) if name not in _NOT_COPIED}
    except OSError as exc:
        if exc.errno in (errno.ENOTSUP, errno.ENOSYS):
            return
        raise
    if ACCESS_ACL not in wanted:
        _remove_acl(target)
    present = os.listxattr(target)
    for name, value in wanted.items():
        if name not in present or os.getxattr(target, name) != value:
            os.setxattr(target, name, value)


def _remove_acl(fd: int) -> None:
    """Remove the ACL that a new file gets from the default ACL of its directory."""
    if _XATTRS:
        try:
            os.removexattr(fd, ACCESS_ACL)
        except OSError as exc:
            if exc.errno not in (errno.ENODATA, errno.ENOTSUP, errno.ENOSYS):
                raise


def set_permissions(
    module: AnsibleModule,
    path: str,
    owner: t.Optional[str],
    group: t.Optional[str],
    mode: t.Any,
    exact: bool = False,
) -> bool:
    """Set owner, group and mode of a file or directory. Return whether that changes anything.

    In check mode nothing is changed. :raises OSError, PpinError:

    :arg owner: name or number; None: unchanged, as with group and mode.
    :arg exact: also remove its ACL, and the default ACL of a directory.
    """
    directory, name = open_parent(path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(directory)
        if exact and stat.S_ISDIR(directory.lstat(name).st_mode):
            fd = stack.enter_context(directory.subdirectory(name)).fd
        else:
            fd = stack.enter_context(directory.open(name))
        present = os.fstat(fd)
        has_acl = exact and bool(_acls(fd))
        uid = _look_up_id("owner", owner, lambda user: pwd.getpwnam(user).pw_uid)
        gid = _look_up_id("group", group, lambda user: grp.getgrnam(user).gr_gid)
        uid = -1 if uid == present.st_uid else uid
        gid = -1 if gid == present.st_gid else gid
        bits = stat.S_IMODE(present.st_mode)
        wanted = bits if mode is None else _mode_bits(module, present, mode)
        if not module.check_mode:
            if (uid, gid) != (-1, -1):
                os.fchown(fd, uid, gid)
            for acl in _acls(fd) if exact else []:
                os.removexattr(fd, acl)
            if stat.S_IMODE(os.fstat(fd).st_mode) != wanted:
                os.fchmod(fd, wanted)
        return has_acl or (uid, gid, bits) != (-1, -1, wanted)


def _acls(fd: int) -> t.List[str]:
    try:
        return [name for name in os.listxattr(fd) if name in (ACCESS_ACL, DEFAULT_ACL)] if _XATTRS else []
    except OSError:  # the file system has none
        return []


def _look_up_id(option: str, value: t.Optional[str], look_up: t.Callable[[str], int]) -> int:
    if value is None:
        return -1
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return look_up(value)
    except KeyError:
        raise PpinError("There is no %s '%s'" % (option, value), cls="config", hint="Correct %s." % option) from None


def _mode_bits(module: AnsibleModule, status: os.stat_result, mode: t.Any) -> int:
    try:
        return mode if isinstance(mode, int) else int(str(mode), 8)
    except ValueError:
        pass
    try:
        return int(module._symbolic_mode_to_octal(status, mode))
    except Exception as exc:
        raise PpinError("%s is no mode: %s" % (mode, exc), cls="config", hint="Correct mode.") from exc


# Facts


_ACL_TAGS = {0x02: "user", 0x08: "group"}


def acl_entries(path: str) -> t.List[str]:
    """Return the ACL entries that name a user or a group, as `user:NAME:rw-`, limited to the mask of the ACL.

    Those of the default ACL of a directory begin with `default:`.
    """
    found = []
    for name, prefix in ((ACCESS_ACL, ""), (DEFAULT_ACL, "default:")):
        try:
            acl = os.getxattr(path, name) if _XATTRS else b""
        except OSError:
            continue
        entries = list(struct.iter_unpack("<HHI", acl[4 : 4 + (max(len(acl), 4) - 4) // 8 * 8]))
        mask = next((bits for tag, bits, _number in entries if tag == 0x10), 7)
        for tag, bits, number in entries:
            if tag in _ACL_TAGS:
                who = user_name(number) if tag == 0x02 else group_name(number)
                letters = "".join(char if bits & mask & bit else "-" for char, bit in zip("rwx", (4, 2, 1)))
                found.append("%s%s:%s:%s" % (prefix, _ACL_TAGS[tag], who, letters))
    return found


def link_facts(path: str) -> t.Dict[str, t.Any]:
    """Return the target of a symbolic link, and why the modules refuse to use the file; None if they do not."""
    facts: t.Dict[str, t.Any] = {"link": None, "refused": None}
    try:
        facts["link"] = os.readlink(path) if os.path.islink(path) else None
        check_file(path)
    except PpinError as exc:
        facts["refused"] = exc.msg
    except OSError:
        pass  # the module reports it in another part of its result
    return facts
