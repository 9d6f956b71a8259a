# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another user of the client tries to lead root elsewhere. Each attack is made in a process of that user."""

import contextlib
import os
import signal
import stat
import struct
import tempfile
from pathlib import Path

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client import leftovers as _leftovers
from ansible_collections.hsmops.primus.plugins.module_utils._client import secrets_file as _secrets_file
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    ACCESS_ACL,
    DEFAULT_ACL,
    NewFile,
    UntrustedFile,
    acl_entries,
    check_file,
    open_directory,
    read_file,
    real_path,
    replace_file,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.ledger import Ledger
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import announced, leftovers
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import (
    WorkingCopy,
    recover_files,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from emulated_hsm import both, wait_for
from other_users import ALICE, EVE, GROUP, OWNER, as_user, somebody, swap

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

HELD = []  # contexts that a process leaves without ending them
SECRET = b"what only root may read"


@pytest.fixture
def place():
    """A directory that everybody can reach."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 # that is the point
        yield Path(folder)


@pytest.fixture(autouse=True)
def places(place, monkeypatch):
    """Where the private directories are, which other tests do not see."""
    folder = place / "places"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(_leftovers, "private_roots", lambda _uid: [str(folder)])
    monkeypatch.setattr(_leftovers, "PERSISTENT_ROOT", str(folder))
    return folder


@pytest.fixture
def shared(place):
    """The directory of a secrets file that members of the group may write to; beside it a file for root only."""
    etc = place / "etc"
    etc.mkdir()
    secrets = etc / ".secrets.cfg"
    secrets.write_bytes(b"before")
    for path, mode in ((etc, 0o770), (secrets, 0o660)):
        os.chown(path, 0, GROUP)
        path.chmod(mode)
    (place / "root-only").write_bytes(SECRET)
    (place / "root-only").chmod(0o600)
    return secrets


def put(path, content=b"of eve"):
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def untouched(shared):
    target = shared.parent.parent / "root-only"
    status = target.stat()
    return target.read_bytes() == SECRET and (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, 0, 0o600)


def replace(secrets, meanwhile=lambda copy: None):
    with WorkingCopy(str(secrets)) as copy:
        meanwhile(copy)
        Path(copy.path).write_bytes(b"made by ppin")
        copy.put_in_place()


def test_the_working_copy_cannot_be_reached(shared):
    def attack(copy):
        path = Path(copy.path)
        for folder in (path, path.parent, path.parents[1]):
            assert not as_user(lambda folder=folder: swap(folder, shared.parent.parent / "root-only"))
        assert not as_user(path.read_bytes)

    replace(shared, attack)
    assert shared.read_bytes() == b"made by ppin" and untouched(shared)


def test_a_link_in_the_place_of_the_secrets_file_during_the_run(shared):
    target = shared.parent.parent / "root-only"
    with pytest.raises(PpinError):
        replace(shared, lambda _copy: as_user(lambda: swap(shared, target)))
    assert untouched(shared)


def test_a_link_in_the_place_of_the_new_file(shared):
    """What is renamed may be what another user has put there, but the run does not say that all is well."""
    target = shared.parent.parent / "root-only"

    def attack(_copy):
        (new,) = shared.parent.glob(".secrets.cfg.new-*")
        assert as_user(lambda: swap(new, target))

    with pytest.raises(PpinError) as caught:
        replace(shared, attack)
    assert "replaced by another process" in caught.value.msg
    assert untouched(shared)


def test_the_directory_is_swapped_during_the_run(place, shared):
    """By the owner of the one above."""
    above = place / "above"
    above.mkdir()
    os.chown(above, OWNER, GROUP)
    shared.parent.rename(above / "etc")
    secrets, elsewhere = above / "etc/.secrets.cfg", place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".secrets.cfg").write_bytes(SECRET)
    replace(secrets, lambda _copy: as_user(lambda: swap(above / "etc", elsewhere), OWNER))
    assert (elsewhere / ".secrets.cfg").read_bytes() == SECRET and os.listdir(elsewhere) == [".secrets.cfg"]
    assert (above / "aside/.secrets.cfg").read_bytes() == b"made by ppin"
    for use in (replace, check_file, lambda path: locked(str(path), 0).__enter__()):
        with pytest.raises(UntrustedFile, match="The link .*above/etc belongs to 54322"):
            use(secrets)


@pytest.mark.parametrize("use", [replace, read_file, check_file])
def test_a_file_that_a_member_of_the_group_has_put_there(shared, use):
    assert as_user(lambda: put(shared))
    with pytest.raises(UntrustedFile, match="belongs to 54321, who is neither root nor the user of this run") as caught:
        use(str(shared))
    assert f"chown -h root {shared}" in caught.value.hint
    assert shared.read_bytes() == b"of eve"


def test_a_link_that_a_member_of_the_group_has_put_there(shared):
    assert as_user(lambda: swap(shared, shared.parent.parent / "root-only"))
    for use in (check_file, real_path):
        with pytest.raises(UntrustedFile, match="The link"):
            use(str(shared))
    with pytest.raises((PpinError, OSError)):
        read_file(str(shared))
    with pytest.raises(PpinError):
        replace(shared)
    assert untouched(shared)


def test_a_ledger_that_a_member_of_the_group_has_put_there(shared):
    assert as_user(lambda: put(Path(f"{shared}.ledger"), b'{"version": 2, "partitions": {}, "service_users": {}}'))
    assert "is not used" in Ledger(str(shared)).problem


def test_links_of_root_are_followed(shared, place):
    link = place / "link"
    link.symlink_to(shared.parent, target_is_directory=True)
    assert real_path(str(link / ".secrets.cfg")) == str(shared)
    replace(link / ".secrets.cfg")
    assert shared.read_bytes() == b"made by ppin"


def test_what_the_vendor_gives_to_the_user_primus_works(shared):
    for path in (shared.parent, shared):
        os.chown(path, OWNER, GROUP)
    replace(shared)
    status = shared.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (OWNER, GROUP, 0o660)
    assert as_user(lambda: swap(shared, shared.parent.parent / "root-only"), OWNER)
    with pytest.raises(UntrustedFile):
        check_file(str(shared))


def test_a_fifo_holds_up_nothing(shared):
    assert as_user(lambda: (shared.unlink(), os.mkfifo(shared)))
    for use in (read_file, replace):
        with pytest.raises((PpinError, OSError)):
            use(str(shared))


def test_what_looks_like_a_leftover_leads_nowhere(shared, place):
    def attack():
        Path(f"{shared}.new-fedcba9876543210").symlink_to(place)
        Path(f"{shared}.new-0123456789abcdef").symlink_to(place / "root-only")

    assert as_user(attack)
    assert recover_files(*both(shared)) == []
    assert os.listdir(shared.parent) == [".secrets.cfg"] and untouched(shared)


@pytest.mark.parametrize("name", ["secrets", "primus.cfg", "private"])
def test_a_directory_that_is_moved_to_where_leftovers_are_stays(shared, places, name):
    """Of somebody else's, which whoever moves it could not empty."""
    inner = shared.parent / "of alice/inner"
    inner.mkdir(parents=True)
    (inner / "file").write_bytes(SECRET)
    for path, mode in ((inner.parent, 0o770), (inner, 0o700), (inner / "file", 0o600)):
        os.chown(path, ALICE, GROUP)
        path.chmod(mode)
    beside = {"secrets": shared, "primus.cfg": shared.with_name("primus.cfg")}
    private = places / (_leftovers.PRIVATE_NAME % EVE)
    moved = private / f"{_leftovers.path_key(str(shared))}-0123456789abcdef" / "moved"
    if name in beside:
        moved = Path(f"{beside[name]}.new-0123456789abcdef")

    def attack():
        if name == "private":
            private.mkdir(0o700)
            moved.parent.mkdir(0o700)
        inner.parent.rename(moved)

    assert as_user(attack)
    assert not as_user((moved / "inner/file").unlink)
    problems = recover_files(*both(shared))
    assert (moved / "inner/file").read_bytes() == SECRET
    if name == "private":
        assert problems == [f"{moved.parent}: It belongs to {ALICE}"]
    else:
        assert problems == leftovers(*both(shared)) == []
        replace_file(str(beside[name]), b"new")
        assert (moved / "inner/file").read_bytes() == SECRET


def test_private_directories_that_somebody_else_has_made(shared, place, places, monkeypatch):
    """In /run, of which root takes the place first, nobody else can make one."""
    assert not as_user(lambda: Path("/run", _leftovers.PRIVATE_NAME % 0).mkdir())
    assert not as_user(lambda: Path("/run", _leftovers.PRIVATE_NAME % EVE).mkdir())
    second = place / "second"
    second.mkdir()
    second.chmod(0o1777)
    mine = [folder / (_leftovers.PRIVATE_NAME % 0) for folder in (places, second)]
    monkeypatch.setattr(_leftovers, "private_roots", lambda _uid: [str(places), str(second)])
    assert as_user(lambda: mine[0].mkdir(0o700))
    with WorkingCopy(str(shared)) as copy:
        assert Path(copy.path).is_relative_to(mine[1]) and not as_user(Path(copy.path).read_bytes)
        with announced(str(place / "string.new-0123456789abcdef")):
            assert len(list(mine[1].glob("file-*"))) == 1
    assert as_user(lambda: mine[1].symlink_to(mine[0]))
    with pytest.raises(PpinError, match="No directory for the working copy of .secrets.cfg is writable by root alone"):
        replace(shared)
    assert shared.read_bytes() == b"before" and list(mine[0].iterdir()) == []
    assert recover_files(*both(shared)) == []


def test_an_announcement_removes_nothing_of_others(shared, place):
    name = place / "root-only.new-0123456789abcdef"
    name.write_bytes(SECRET)
    mine = shared.parent / "mine.new-0123456789abcdef"

    def announce():
        os.environ.pop("XDG_RUNTIME_DIR", None)
        put(mine)
        for path in (mine, name, place / "root-only"):
            HELD.append(announced(str(path)))
            HELD[-1].__enter__()

    assert as_user(announce)
    assert str(mine) in leftovers(*both(shared))
    recover_files(*both(shared))
    assert name.read_bytes() == SECRET and untouched(shared)
    assert not mine.exists()


# What a killed run leaves


def test_a_run_that_is_killed_while_it_replaces_a_file_anywhere(place, shared):
    dest = place / "string"
    pid = os.fork()
    if pid == 0:
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(open_directory(str(place)))
            new = stack.enter_context(NewFile(directory, dest.name))
            stack.enter_context(announced(directory.path_of(new.temporary)))
            os.write(new.fd, SECRET)
            while True:
                signal.pause()
    temporary = wait_for(lambda: [path for path in place.glob("string.new-*") if path.read_bytes() == SECRET])[0]
    assert leftovers(*both(shared)) == [], "it is at work"
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert leftovers(*both(shared)) == [str(temporary)]
    assert recover_files(*both(shared)) == []
    assert not temporary.exists() and leftovers(*both(shared)) == []


# ACLs


def acl(*entries):
    """An ACL as the kernel has it: (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
OPEN = acl((1, 6, NOBODY), (2, 6, EVE), (4, 4, NOBODY), (0x10, 6, NOBODY), (0x20, 0, NOBODY))


def give(path, name, value):
    try:
        os.setxattr(path, name, value)
    except OSError:
        pytest.skip("this file system has no ACLs")


def test_a_default_acl_opens_nothing_that_is_made(shared):
    shared.chmod(0o640)
    give(shared.parent, DEFAULT_ACL, OPEN)
    with WorkingCopy(str(shared)) as copy:
        Path(copy.path).write_bytes(b"made by ppin")
        copy.put_in_place(str(shared) + ".backup")
    replace_file(f"{shared}.ledger", b"{}")
    for path, mode in ((shared, 0o640), (f"{shared}.backup", 0o640), (f"{shared}.ledger", 0o600)):
        assert ACCESS_ACL not in os.listxattr(path) and stat.S_IMODE(os.stat(path).st_mode) == mode
    os.chown(shared.parent, 0, 0)
    shared.parent.chmod(0o755)
    assert not as_user(lambda: Path(f"{shared}.ledger").read_bytes())
    assert acl_entries(str(shared.parent)) == [f"default:user:{EVE}:rw-"]


def test_an_acl_that_the_file_has_stays(shared):
    give(shared, ACCESS_ACL, OPEN)
    before = os.getxattr(shared, ACCESS_ACL), shared.stat().st_mode
    replace(shared)
    assert (os.getxattr(shared, ACCESS_ACL), shared.stat().st_mode) == before
    assert acl_entries(str(shared)) == [f"user:{EVE}:rw-"]


# A member of the group


def test_a_member_of_the_group_is_told_what_the_cause_is(shared):
    shared.parent.chmod(0o750)
    result = shared.parent.parent / "result"
    result.touch()
    result.chmod(0o666)

    def work(in_place=False):
        os.environ.pop("XDG_RUNTIME_DIR", None)
        try:
            with WorkingCopy(str(shared), in_place) as copy:
                Path(copy.path).write_bytes(b"made by eve")
                copy.put_in_place()
        except PpinError as exc:
            result.write_text(exc.msg + " " + exc.hint)

    assert as_user(work)
    assert "who may write to it, but not to its directory" in result.read_text() and "in_place" in result.read_text()
    shared.parent.chmod(0o770)
    assert as_user(work)
    assert "it belongs to root, which a file that they make cannot" in result.read_text()
    shared.parent.chmod(0o750)
    assert as_user(lambda: work(in_place=True))
    assert shared.read_bytes() == b"made by eve" and shared.stat().st_uid == 0


def test_who_holds_the_lock_is_named(shared):
    def hold():
        held = locked(str(shared), 0)
        held.__enter__()
        return held

    with somebody(hold) as pid, pytest.raises(PpinError) as caught, locked(str(shared), 0):
        pytest.fail("two have the lock")
    assert f"held by process {pid} (" in caught.value.hint and f"of {EVE}" in caught.value.hint


# In place


@pytest.mark.parametrize(
    "content", [b"before", b"after, longer", b"after, ", b"\0\0\0\0\0\0", b"", b"aftere", b"a hand"]
)
def test_a_write_in_place_that_did_not_end_is_ended(place, content):
    secrets = place / ".secrets.cfg"
    secrets.write_bytes(b"before")
    with WorkingCopy(str(secrets), in_place=True) as copy, copy._journal(b"after, longer"):
        kept = Path(f"{secrets}.kept").read_bytes()
    Path(f"{secrets}.kept").write_bytes(kept)
    secrets.write_bytes(content)
    assert leftovers(*both(secrets)) == [f"{secrets}.kept"]
    assert recover_files(*both(secrets)) == []
    expected = content if content in (b"before", b"after, longer", b"a hand") else b"after, longer"
    assert secrets.read_bytes() == expected
    assert sorted(os.listdir(place)) == [".secrets.cfg", "places"]


def test_in_place_keeps_the_file_and_its_names(place, monkeypatch):
    secrets, other = place / ".secrets.cfg", place / "other"
    secrets.write_bytes(b"before")
    os.link(secrets, other)
    with pytest.raises(PpinError, match="it has 2 names"):
        replace(secrets)
    monkeypatch.setattr(_secrets_file, "is_mount_point", lambda path: True)
    with pytest.raises(PpinError, match="this one file is mounted here"):
        replace(secrets)
    with WorkingCopy(str(secrets), in_place=True) as copy:
        Path(copy.path).write_bytes(b"after")
        copy.put_in_place(f"{secrets}.backup")
    assert other.read_bytes() == secrets.read_bytes() == b"after"
    assert sorted(os.listdir(place)) == [".secrets.cfg", ".secrets.cfg.backup", "other", "places"]
