# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages in archives and directories: found, taken out whole, or refused, whatever the archive is made of."""

import os
import stat
import struct
import zipfile

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client import package_files as _package_files
from ansible_collections.hsmops.primus.plugins.module_utils._client.package_choice import PackageError, System
from ansible_collections.hsmops.primus.plugins.module_utils._client.package_files import (
    choose_package,
    copy_package,
    package_names,
)
from hypothesis import given, settings
from hypothesis import strategies as st

DEB = "PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb"
RPM = "PrimusAPI_PKCS11-X-2.2.4-rhel8-x86_64.rpm"
DEBIAN = System("Debian", "Debian", "12.5", "x86_64")
CONTENT = b"what is in the package " * 1000


def archive(path, members, compression=zipfile.ZIP_DEFLATED):
    """A zip of pairs of a name or ZipInfo and content."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for member, content in members:
            file.writestr(member, content)
    return str(path)


def symlink(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def take(path, tmp_path, name=DEB):
    target = tmp_path / "taken"
    copy_package(str(path), name, str(target))
    return target


@pytest.mark.parametrize(
    "member",
    [
        DEB,
        f"PrimusAPI_PKCS11-v2.2.4/Linux/x86/{DEB}",
        f"Linux\\{DEB}",
        f"../../../{DEB}",
        f"/etc/cron.d/{DEB}",
        f"./{DEB}",
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
def test_a_package_in_an_archive(member, compression, tmp_path):
    """Wherever it is in it, it is written to where it is wanted, and nothing else is written."""
    members = [("dir/", b""), ("dir/a.pdf", b"x"), ("dir/PrimusAPI_PKCS11-X-2.2.4-win64.msi", b"x"), (member, CONTENT)]
    folder = tmp_path / "deep/deeper/deepest"
    folder.mkdir(parents=True)
    path = archive(folder / "vendor.zip", members, compression)
    assert package_names(path) == [DEB]
    assert choose_package(path, DEBIAN).package.name == DEB
    target = take(path, folder)
    assert target.read_bytes() == CONTENT
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == [target, folder / "vendor.zip"]


@pytest.mark.parametrize("depth", range(5))
def test_a_package_in_a_directory(depth, tmp_path):
    folder = tmp_path.joinpath("packages", *"abcd"[:depth])
    folder.mkdir(parents=True)
    (folder / DEB).write_bytes(CONTENT)
    (folder / f"{RPM}.sig").touch()
    (folder / RPM).mkdir()
    packages = str(tmp_path / "packages")
    if depth <= _package_files.MAX_DEPTH:
        assert package_names(packages) == [DEB]
        assert choose_package(packages + "/", DEBIAN).package.name == DEB
        assert take(packages, tmp_path).read_bytes() == CONTENT
    else:
        assert package_names(packages) == []


def test_a_package_alone(tmp_path):
    (tmp_path / "my.deb").write_bytes(CONTENT)
    assert choose_package(str(tmp_path / "my.deb"), DEBIAN).package.name == "my.deb"
    assert take(tmp_path / "my.deb", tmp_path, "my.deb").read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "my.deb").write_bytes(CONTENT)
    (tmp_path / "other").write_text("other")
    (tmp_path / "taken").symlink_to("other")
    with pytest.raises(PackageError, match="File exists"):
        take(tmp_path / "my.deb", tmp_path, "my.deb")
    assert (tmp_path / "other").read_text() == "other"


@pytest.mark.parametrize(("second", "is_taken"), [(CONTENT, True), (CONTENT[:-1] + b"X", False)])
def test_two_of_one_name(second, is_taken, tmp_path):
    """Only when they differ, and only when they are wanted, are they an error."""
    path = archive(tmp_path / "vendor.zip", [(f"a/{DEB}", CONTENT), (f"b/{DEB}", second), (RPM, b"rpm")])
    for name in "ab":
        (tmp_path / "packages" / name).mkdir(parents=True)
        (tmp_path / "packages" / name / DEB).write_bytes(CONTENT if name == "a" else second)
    for source in (path, str(tmp_path / "packages")):
        assert DEB in package_names(source)
        if is_taken:
            target = take(source, tmp_path)
            assert target.read_bytes() == CONTENT
            target.unlink()
        else:
            with pytest.raises(PackageError, match=f"several files named {DEB}, and they differ"):
                take(source, tmp_path)
    assert take(path, tmp_path, RPM).read_bytes() == b"rpm"


def test_a_symlink_in_an_archive_is_no_package(tmp_path):
    path = archive(tmp_path / "vendor.zip", [(symlink(DEB), b"/etc/shadow"), (RPM, b"x")])
    assert package_names(path) == [RPM]
    with pytest.raises(PackageError, match="has packages for rhel8"):
        choose_package(path, DEBIAN)
    with pytest.raises(PackageError, match="is no longer in"):
        take(path, tmp_path)


def change(path, *patches):
    """Overwrite bytes behind the first place of a signature: (signature, offset, bytes)."""
    with open(path, "r+b") as file:
        content = bytearray(file.read())
        for signature, offset, replacement in patches:
            start = content.index(signature) + offset
            content[start : start + len(replacement)] = replacement
        file.seek(0)
        file.write(content)
    return path


LOCAL, CENTRAL = b"PK\3\4", b"PK\1\2"


def test_an_encrypted_archive(tmp_path):
    path = archive(tmp_path / "vendor.zip", [(DEB, CONTENT)])
    change(path, (LOCAL, 6, b"\1"), (CENTRAL, 8, b"\1"))
    assert choose_package(path, DEBIAN).package.name == DEB
    with pytest.raises(PackageError, match=f"{DEB} in .*vendor.zip is encrypted: unpack it first"):
        take(path, tmp_path)


def test_a_compression_that_is_not_known(tmp_path):
    path = archive(tmp_path / "vendor.zip", [(DEB, CONTENT)])
    change(path, (LOCAL, 8, b"\x63"), (CENTRAL, 10, b"\x63"))
    with pytest.raises(PackageError, match="cannot be unpacked here: .*Unpack it first"):
        take(path, tmp_path)


def test_an_archive_that_declares_too_much(tmp_path, monkeypatch):
    path = archive(tmp_path / "vendor.zip", [(DEB, CONTENT), (RPM, b"x")])
    monkeypatch.setattr(_package_files, "MAX_SIZE", len(CONTENT) - 1)
    with pytest.raises(PackageError, match=f"{DEB} in .* is larger than 0 MiB"):
        take(path, tmp_path)
    assert not (tmp_path / "taken").exists()
    assert take(path, tmp_path, RPM).read_bytes() == b"x"


def test_a_bomb_that_declares_little(tmp_path):
    """No more is written than is declared, and that is found to be wrong."""
    path = archive(tmp_path / "vendor.zip", [(DEB, bytes(50_000_000))])
    change(path, (LOCAL, 22, struct.pack("<I", 1000)), (CENTRAL, 24, struct.pack("<I", 1000)))
    with pytest.raises(PackageError, match="is damaged"):
        take(path, tmp_path)
    assert (tmp_path / "taken").stat().st_size <= 1000


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    (tmp_path / "my.deb").write_bytes(CONTENT)
    monkeypatch.setattr(_package_files, "MAX_SIZE", 1000)
    monkeypatch.setattr(_package_files, "_CHUNK", 100)
    with pytest.raises(PackageError, match="is larger than"):
        take(tmp_path / "my.deb", tmp_path, "my.deb")
    assert (tmp_path / "taken").stat().st_size <= 1000


@pytest.mark.parametrize("size", [0, 10, 1000, -1, -30])
def test_a_truncated_archive(size, tmp_path):
    path = archive(tmp_path / "vendor.zip", [(DEB, os.urandom(5000))])
    with open(path, "r+b") as file:
        file.truncate(size if size >= 0 else os.path.getsize(path) + size)
    with pytest.raises(PackageError, match=r"vendor\.zip is damaged, or no \.zip"):
        choose_package(path, DEBIAN)


def test_damaged_content(tmp_path):
    path = archive(tmp_path / "vendor.zip", [(DEB, CONTENT)], zipfile.ZIP_STORED)
    change(path, (b"what is", 0, b"WHAT"))
    with pytest.raises(PackageError, match="is damaged.*CRC"):
        take(path, tmp_path)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_damage_is_an_error_or_does_no_harm(tmp_path_factory, damage):
    folder = tmp_path_factory.mktemp("damaged")
    path = archive(folder / "vendor.zip", [(f"a/{DEB}", CONTENT), (RPM, b"x"), (symlink("b"), b"c")])
    content = bytearray((folder / "vendor.zip").read_bytes())
    for place, byte in damage:
        content[place % len(content)] = byte
    (folder / "vendor.zip").write_bytes(content)
    try:
        name = choose_package(path, DEBIAN).package.name
        target = take(path, folder, name)
    except PackageError:
        return
    assert (name, target.read_bytes()) == (DEB, CONTENT)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none.zip", "none.zip cannot be read: No such file"),
        ("none.deb", "There is no file .*none.deb"),
        ("none", "is no directory and does not end in"),
        ("text.txt", "is no directory and does not end in"),
        ("packages", "packages has no package of the provider"),
        ("text.zip", r"text.zip is damaged, or no \.zip"),
        ("locked.deb", "locked.deb is no|There is no file"),
    ],
)
def test_what_is_no_source(name, told, tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "text.zip").write_text("text")
    os.mkfifo(tmp_path / "locked.deb")
    with pytest.raises(PackageError, match=told):
        choose_package(str(tmp_path / name), DEBIAN)
