# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Find and copy the package for a host: from the vendor's .zip, from a directory, or a single file.

Runs on the control node or on the client. An archive is not trusted: only the bytes of one member are used, and they
are written to a file that the caller names.
"""

import contextlib
import filecmp
import os
import stat
import typing as t
import zipfile
import zlib

from ansible_collections.hsmops.primus.plugins.module_utils._client.package_choice import (
    Choice,
    PackageError,
    System,
    check_package,
    form_of,
    parse_name,
    pick_package,
)

MAX_SIZE = 512 * 1024 * 1024
"""Bytes of an unpacked package. The vendor's have some ten million."""

MAX_DEPTH = 3
"""Levels of subdirectories of a directory that are searched. In an archive, all are."""

_CHUNK = 1024 * 1024


def package_names(path: str) -> t.List[str]:
    """Return the names of the vendor's packages in a directory or an archive. :raises PackageError:"""
    if os.path.isdir(path):
        return sorted({os.path.basename(file) for file in _package_paths(path)})
    with _open_archive(path) as archive:
        return sorted({_base(member.filename) for member in archive.infolist() if _is_package(member)})


def choose_package(path: str, system: System, version: str = "") -> Choice:
    """Choose the package for a host from a directory or an archive, or check a single package. :raises PackageError:"""
    where = os.path.basename(os.path.normpath(path))
    if os.path.isdir(path) or form_of(path) == "zip":
        return pick_package(package_names(path), system, where, version)
    if not form_of(path):
        raise PackageError("%s is no directory and does not end in .deb, .rpm, .tar.gz or .zip" % path)
    if not os.path.isfile(path):
        raise PackageError("There is no file %s" % path)
    return check_package(where, system)


def copy_package(path: str, name: str, target: str) -> None:
    """Copy a package to a new file with mode 0600.

    :arg path: a directory or an archive that has the package `name`, or the package itself.
    :raises PackageError: when it cannot be read completely; `target` may have a part of it then.
    """
    if not os.path.isdir(path) and form_of(path) == "zip":
        with _open_archive(path) as archive, archive.open(_member(archive, path, name)) as source:
            _write(source, path, name, target)
        return
    with _package_errors(path), open(_package_path(path, name) if os.path.isdir(path) else path, "rb") as file:
        _write(file, path, name, target)


def _write(source: t.IO[bytes], path: str, name: str, target: str) -> None:
    size = 0
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for chunk in iter(lambda: source.read(_CHUNK), b""):
            size += len(chunk)
            if size > MAX_SIZE:
                raise _too_large(path, name)
            file.write(chunk)


def _too_large(path: str, name: str) -> PackageError:
    return PackageError("%s in %s is larger than %d MiB" % (name, path, MAX_SIZE // (1024 * 1024)))


# Directories


def _package_paths(path: str) -> t.Iterator[str]:
    """Yield the paths of the packages in a directory."""

    def fail(exc: OSError) -> None:
        raise exc

    with _package_errors(path):
        for directory, subdirectories, names in os.walk(path, onerror=fail):
            if directory != path and os.path.relpath(directory, path).count(os.sep) >= MAX_DEPTH - 1:
                del subdirectories[:]
            subdirectories.sort()
            files = (os.path.join(directory, name) for name in sorted(names) if parse_name(name))
            yield from filter(os.path.isfile, files)


def _package_path(path: str, name: str) -> str:
    files = [file for file in _package_paths(path) if os.path.basename(file) == name]
    if not files:
        raise PackageError("%s is no longer in %s" % (name, path))
    if not all(filecmp.cmp(files[0], file, shallow=False) for file in files[1:]):
        raise _ambiguous(path, name)
    return files[0]


def _ambiguous(path: str, name: str) -> PackageError:
    return PackageError("%s has several files named %s, and they differ" % (path, name))


@contextlib.contextmanager
def _package_errors(path: str) -> t.Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise PackageError("%s cannot be read: %s" % (exc.filename or path, exc.strerror or exc)) from exc


# Archives


@contextlib.contextmanager
def _open_archive(path: str) -> t.Iterator[zipfile.ZipFile]:
    """Open an archive. Errors of it in the body of the with statement become a PackageError, too."""
    try:
        with _package_errors(path), zipfile.ZipFile(path) as archive:
            yield archive
    except (NotImplementedError, RuntimeError) as exc:  # a method that zipfile, or this Python, does not have
        raise PackageError("%s cannot be unpacked here: %s. Unpack it first" % (path, exc)) from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, IndexError, OverflowError) as exc:
        raise PackageError("%s is damaged, or no .zip: %s" % (path, exc)) from exc


def _base(member: str) -> str:
    """Return the file name of a member. Archives from Windows may have backslashes."""
    return member.replace("\\", "/").rpartition("/")[2]


def _is_package(member: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 when it was packed on Windows
    return kind in (0, stat.S_IFREG) and parse_name(_base(member.filename)) is not None


def _member(archive: zipfile.ZipFile, path: str, name: str) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if _is_package(member) and _base(member.filename) == name]
    if not members:
        raise PackageError("%s is no longer in %s" % (name, path))
    if len({(member.file_size, member.CRC) for member in members}) > 1:
        raise _ambiguous(path, name)
    if members[0].flag_bits & 0x1:
        raise PackageError("%s in %s is encrypted: unpack it first, and give the directory" % (name, path))
    if members[0].file_size > MAX_SIZE:
        raise _too_large(path, name)
    return members[0]
