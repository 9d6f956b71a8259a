# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The package for a host, from the vendor's .zip, from a directory or given alone; on the control node or a client.

An archive is not trusted: nothing of it is used but the bytes of one member, written to a name that the caller chooses.
"""

import contextlib
import filecmp
import os
import stat
import typing as t
import zipfile
import zlib

from ansible_collections.hsmops.primus.plugins.module_utils._client.packages import (
    Choice,
    PackageError,
    System,
    check,
    form_of,
    parse,
    pick,
)

MAX_SIZE = 512 * 1024 * 1024
"""Bytes of an unpacked package; those of the vendor have some ten million."""

MAX_DEPTH = 3
"""How many levels of subdirectories of a directory count. Of an archive, all do."""

_CHUNK = 1024 * 1024


def names_in(path: str) -> t.List[str]:
    """The names of the packages in a directory or an archive, in the vendor's form. :raises PackageError:"""
    if os.path.isdir(path):
        return sorted({os.path.basename(file) for file in _files(path)})
    with _opened(path) as archive:
        return sorted({_base(member.filename) for member in archive.infolist() if _is_package(member)})


def choose(path: str, system: System, version: str = "") -> Choice:
    """The package for a host out of a directory, out of an archive, or the one that path is. :raises PackageError:"""
    where = os.path.basename(os.path.normpath(path))
    if os.path.isdir(path) or form_of(path) == "zip":
        return pick(names_in(path), system, where, version)
    if not form_of(path):
        raise PackageError("%s is no directory and does not end in .deb, .rpm, .tar.gz or .zip" % path)
    if not os.path.isfile(path):
        raise PackageError("There is no file %s" % path)
    return check(where, system)


def copy_package(path: str, name: str, target: str) -> None:
    """Write the package of this name in a directory or an archive, or path itself, to a new file of mode 0600.

    :raises PackageError: when it cannot be had whole; there may be a part of it then.
    """
    if not os.path.isdir(path) and form_of(path) == "zip":
        with _opened(path) as archive, archive.open(_member(archive, path, name)) as source:
            _write(source, path, name, target)
        return
    with _understood(path), open(_file(path, name) if os.path.isdir(path) else path, "rb") as file:
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


def _files(path: str) -> t.Iterator[str]:
    """The paths of the packages in a directory."""

    def fail(exc: OSError) -> None:
        raise exc

    with _understood(path):
        for folder, folders, names in os.walk(path, onerror=fail):
            if folder != path and os.path.relpath(folder, path).count(os.sep) >= MAX_DEPTH - 1:
                del folders[:]
            folders.sort()
            files = (os.path.join(folder, name) for name in sorted(names) if parse(name))
            yield from filter(os.path.isfile, files)


def _file(path: str, name: str) -> str:
    files = [file for file in _files(path) if os.path.basename(file) == name]
    if not files:
        raise PackageError("%s is no longer in %s" % (name, path))
    if not all(filecmp.cmp(files[0], file, shallow=False) for file in files[1:]):
        raise _ambiguous(path, name)
    return files[0]


def _ambiguous(path: str, name: str) -> PackageError:
    return PackageError("%s has several files named %s, and they differ" % (path, name))


@contextlib.contextmanager
def _understood(path: str) -> t.Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise PackageError("%s cannot be read: %s" % (exc.filename or path, exc.strerror or exc)) from exc


# Archives


@contextlib.contextmanager
def _opened(path: str) -> t.Iterator[zipfile.ZipFile]:
    """An archive. What is wrong with it, also later on, is a PackageError."""
    try:
        with _understood(path), zipfile.ZipFile(path) as archive:
            yield archive
    except (NotImplementedError, RuntimeError) as exc:  # a method that zipfile, or this Python, does not have
        raise PackageError("%s cannot be unpacked here: %s. Unpack it first" % (path, exc)) from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, IndexError, OverflowError) as exc:
        raise PackageError("%s is damaged, or no .zip: %s" % (path, exc)) from exc


def _base(member: str) -> str:
    """The name without its folders, which archives from Windows may separate in their own way."""
    return member.replace("\\", "/").rpartition("/")[2]


def _is_package(member: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 when it was packed on Windows
    return kind in (0, stat.S_IFREG) and parse(_base(member.filename)) is not None


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
