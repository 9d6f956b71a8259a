# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock and the working copy, on real files, with real processes that die."""

import errno
import fcntl
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client import leftovers as _leftovers
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import replace_file
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import LockFile, leftovers
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import WorkingCopy, recover_files
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import FILE_HINT, PpinError
from emulated_hsm import COLLECTIONS, both

CONTENTS = {
    "text": b'version = "1.0";\nprimus : { users : { user0 : { name = "P1"; }; }; };\n',
    "empty": b"",
    "CRLF": b"a\r\nb\rc\n",
    "all bytes": bytes(range(256)) * 300,
}
OWNERS = [(os.geteuid(), os.getegid())] + ([(1234, 5678)] if os.geteuid() == 0 else [])


def facts(path):
    """Content, mode, owner and group of a file."""
    status = os.stat(path)
    return Path(path).read_bytes(), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


@pytest.fixture
def secrets(tmp_path):
    path = tmp_path / "etc" / ".secrets.cfg"
    path.parent.mkdir()
    path.write_bytes(CONTENTS["text"])
    return path


@pytest.fixture
def working(secrets):
    return WorkingCopy(str(secrets))


def names(secrets):
    return sorted(os.listdir(secrets.parent))


# The working copy


def truncate(path):
    path.write_bytes(path.read_bytes()[:10])


def overwrite(path):
    path.write_bytes(b"something else")
    path.chmod(0o666)


def replace(path):
    path.unlink()
    path.write_bytes(b"something else")


DAMAGES = [lambda path: path.write_bytes(b""), truncate, overwrite, replace, Path.unlink, lambda path: None]


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o400])
@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_copy_is_where_only_the_user_of_the_run_can_reach_it(secrets, working, content, mode, owner, umask):
    if os.geteuid() != 0 and mode == 0o400:
        pytest.skip("only root writes a file of mode 0400")
    secrets.write_bytes(content)
    secrets.chmod(mode)
    os.chown(secrets, *owner)
    old = os.umask(umask)
    try:
        with working as copy:
            assert facts(copy.path) == (content, 0o600, os.geteuid(), os.getegid())
            assert facts(secrets) == (content, mode, *owner)
            for folder in Path(copy.path).parents[:2]:
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            for folder in Path(copy.path).parents:
                status = folder.stat()
                assert status.st_uid in (0, os.geteuid()) and (
                    not status.st_mode & 0o022 or status.st_mode & stat.S_ISVTX
                )
            assert leftovers(*both(secrets)) == [], "it is in use"
    finally:
        os.umask(old)
    assert names(secrets) == [".secrets.cfg"]
    assert not Path(copy.path).parent.exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_happens_to_the_copy_is_of_no_concern_to_the_file(secrets, working, damage):
    before = facts(secrets)
    with working as copy:
        damage(Path(copy.path))
        (Path(copy.path).parent / "what ppin puts beside its file").write_bytes(b"a secret")
    assert facts(secrets) == before
    assert names(secrets) == [".secrets.cfg"]


@pytest.mark.parametrize("write", [overwrite, replace])
@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_put_in_place(secrets, working, mode, owner, write):
    secrets.chmod(mode)
    os.chown(secrets, *owner)
    os.utime(secrets, (0, 0))
    with working as copy:
        write(Path(copy.path))
        copy.put_in_place()
    assert facts(secrets) == (b"something else", mode, *owner)
    assert secrets.stat().st_mtime > 0
    assert names(secrets) == [".secrets.cfg"]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO])
def test_what_is_in_place_counts_as_such_where_its_folder_cannot_be_synced(secrets, working, monkeypatch, error):
    """Or the module would say that nothing was changed."""
    sync = os.fsync

    def sync_files(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(error, os.strerror(error))
        sync(handle)

    monkeypatch.setattr(os, "fsync", sync_files)
    with working as copy:
        overwrite(Path(copy.path))
        copy.put_in_place(str(secrets) + ".backup")
    assert secrets.read_bytes() == b"something else"
    assert Path(f"{secrets}.backup").read_bytes() == CONTENTS["text"]


@pytest.mark.parametrize("owner", OWNERS)
def test_put_in_place_with_a_backup(secrets, working, owner):
    secrets.chmod(0o640)
    os.chown(secrets, *owner)
    os.utime(secrets, (1, 1))
    before = facts(secrets)
    with working as copy:
        overwrite(Path(copy.path))
        copy.put_in_place(str(secrets) + ".backup")
    assert facts(secrets) == (b"something else", *before[1:])
    assert facts(str(secrets) + ".backup") == before
    assert os.stat(str(secrets) + ".backup").st_mtime == 1
    assert names(secrets) == [".secrets.cfg", ".secrets.cfg.backup"]


def test_a_copy_that_is_gone_is_not_put_in_place(secrets, working):
    before = facts(secrets)
    with pytest.raises(PpinError) as caught, working as copy:
        os.unlink(copy.path)
        copy.put_in_place()
    assert (caught.value.cls, caught.value.code) == ("permission", None)
    assert facts(secrets) == before
    assert names(secrets) == [".secrets.cfg"]


def test_what_somebody_else_wrote_meanwhile_is_not_lost(secrets, working):
    with pytest.raises(PpinError) as caught, working as copy:
        overwrite(Path(copy.path))
        secrets.write_bytes(b"by hand")
        copy.put_in_place(str(secrets) + ".backup")
    assert caught.value.cls == "state" and "another process" in caught.value.msg
    assert secrets.read_bytes() == b"by hand"
    assert names(secrets) == [".secrets.cfg"]


def test_a_path_without_a_folder(secrets, monkeypatch):
    monkeypatch.chdir(secrets.parent)
    with WorkingCopy(".secrets.cfg") as copy:
        overwrite(Path(copy.path))
        copy.put_in_place()
    assert secrets.read_bytes() == b"something else"
    assert names(secrets) == [".secrets.cfg"]


def test_what_a_dead_run_left_is_known_and_removed_and_nothing_else(secrets, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").write_bytes(b"kept")
    with WorkingCopy(str(secrets)) as copy:
        private = Path(copy.path).parent
        shutil.copytree(private, str(private) + "0")
        shutil.copytree(private, str(private) + "0/deeper")
    Path(str(private) + "0/link").symlink_to(other)
    Path(f"{secrets}.new-fedcba9876543210").symlink_to(other)
    Path(f"{secrets}.kept").write_bytes(b"{")
    for name in ("", ".ledger", ".4711.2026-01-31@12:00:00~"):
        Path(f"{secrets}{name}.new-0123456789abcdef").write_bytes(b"half a fi")
    lasting = [".secrets.cfg", ".secrets.cfg.4711.2026-01-31@12:00:00~", ".secrets.cfg.ledger", ".secrets.cfg.new"]
    for name in lasting[1:]:
        (secrets.parent / name).write_bytes(b"kept")
    assert len(leftovers(*both(secrets))) == 6
    assert recover_files(*both(secrets)) == []
    assert not Path(str(private) + "0").exists()
    assert names(secrets) == lasting
    assert (other / "kept").exists()
    assert leftovers(*both(secrets)) == []


def test_leftovers_where_the_path_has_wildcards_in_it(tmp_path):
    folder = tmp_path / "[a]*"
    folder.mkdir()
    (tmp_path / "[a]b").mkdir()
    (tmp_path / "[a]b/.secrets.cfg.kept").touch()
    (folder / ".secrets.cfg.kept").touch()
    assert leftovers(*both(folder / ".secrets.cfg")) == [str(folder / ".secrets.cfg.kept")]


def test_nothing_to_copy(secrets, working):
    secrets.unlink()
    with pytest.raises(PpinError) as caught:
        working.__enter__()
    assert caught.value.cls == "permission"
    assert str(secrets) in caught.value.msg
    assert names(secrets) == []


def test_a_file_that_may_not_be_written():
    with tempfile.TemporaryDirectory() as folder:
        secrets = Path(folder, ".secrets.cfg")
        secrets.write_bytes(CONTENTS["text"])
        secrets.chmod(0o400)
        user = os.geteuid()
        if user == 0:  # root may write everywhere, so be somebody else meanwhile
            for path in (folder, secrets):
                os.chown(path, 65534, -1)
            os.seteuid(65534)
        try:
            with pytest.raises(PpinError) as caught, WorkingCopy(str(secrets)):
                pass
            assert facts(secrets)[:2] == (CONTENTS["text"], 0o400)
            assert names(secrets) == [".secrets.cfg"]
            secrets.chmod(0o600)
            with WorkingCopy(str(secrets)):  # so it was the mode that forbade it
                pass
        finally:
            os.seteuid(user)
        assert (caught.value.code, caught.value.cls) == ("0x80005007", "permission")
        assert caught.value.hint == FILE_HINT, "a full disk comes here, too"


def test_a_folder_in_its_place(secrets, working):
    secrets.unlink()
    secrets.mkdir()
    with pytest.raises(PpinError) as caught:
        working.__enter__()
    assert caught.value.cls == "permission"


# replace_file


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("old", [None, b"old", b"x" * 100000])
def test_replace_file(tmp_path, content, old):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
        path.chmod(0o666)
    replace_file(str(path), content)
    assert facts(path) == (content, 0o600, os.geteuid(), os.getegid())
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_replace_file_with_a_mode(tmp_path, mode):
    path = tmp_path / "file"
    replace_file(str(path), b"x", mode=mode)
    replace_file(str(path), b"y", mode=mode)
    assert facts(path)[:2] == (b"y", mode)


@pytest.mark.parametrize("owner", OWNERS)
def test_replace_file_like_another(tmp_path, owner):
    other = tmp_path / "other"
    other.write_bytes(b"other")
    other.chmod(0o640)
    os.chown(other, *owner)
    replace_file(str(tmp_path / "file"), b"new", attributes_from=str(other))
    assert facts(tmp_path / "file") == (b"new", 0o640, *owner)


def test_replace_file_like_itself(secrets):
    secrets.chmod(0o660)
    before = facts(secrets)
    replace_file(str(secrets), b"new", attributes_from=str(secrets))
    assert facts(secrets) == (b"new", *before[1:])


def test_whoever_has_the_old_file_open_keeps_it(secrets):
    with secrets.open("rb") as reader:
        replace_file(str(secrets), b"new")
        assert reader.read() == CONTENTS["text"]


def test_replace_file_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replace_file("file", b"new")
    assert Path("file").read_bytes() == b"new"


def test_what_a_killed_run_left_is_replaced_and_not_followed(secrets, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    for leave in (Path.write_bytes, lambda path, _content: path.symlink_to(target)):
        leave(Path(str(secrets) + ".new-0123456789abcdef"), b"half a fi")
        replace_file(str(secrets), b"new")
        assert secrets.read_bytes() == b"new"
        assert names(secrets) == [".secrets.cfg"]
    assert target.read_bytes() == b"untouched"


@pytest.mark.parametrize("attributes_from", ["nothing", None])
def test_a_failure_leaves_the_old_file(secrets, attributes_from):
    with pytest.raises(OSError):
        replace_file(
            str(secrets if attributes_from else secrets.parent / "no" / "file"), b"new", attributes_from=attributes_from
        )
    assert secrets.read_bytes() == CONTENTS["text"]
    assert names(secrets) == [".secrets.cfg"]


@pytest.fixture(params=["file system", "size of a file"])
def full(request, secrets):
    """The folder of the secrets file takes some 16 KB, which it has in use."""
    if request.param == "file system":
        content = secrets.read_bytes()
        mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(secrets.parent)]
        if (
            os.geteuid() != 0
            or not shutil.which("mount")
            or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode
        ):
            pytest.skip("a file system can be mounted by root only")
        request.addfinalizer(lambda: subprocess.run(["umount", str(secrets.parent)], check=True))
        secrets.write_bytes(content + b"#" * 10000)
    else:
        secrets.write_bytes(secrets.read_bytes() + b"#" * 10000)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    secrets.chmod(0o640)


@pytest.mark.usefixtures("full")
def test_replace_file_on_a_full_disk(secrets):
    before = facts(secrets)
    with pytest.raises(OSError):
        replace_file(str(secrets), b"n" * 60000, attributes_from=str(secrets))
    assert facts(secrets) == before
    assert names(secrets) == [".secrets.cfg"]


@pytest.mark.usefixtures("full")
def test_a_working_copy_on_a_full_disk(secrets, working):
    before = facts(secrets)
    with pytest.raises(PpinError) as caught:
        working.__enter__()
    assert caught.value.cls == "permission"
    assert facts(secrets) == before
    assert names(secrets) == [".secrets.cfg"]


# Lock

IMPORT = "import subprocess, sys\nfrom %s import locked\n" % locked.__module__

# Holds the lock for ever, with a child of its own that has inherited all that can be inherited.
HOLD = """
with locked(sys.argv[1], 0):
    subprocess.run(["cat"], close_fds=False)
"""

# Says that it begins, then what is in a file once it has the lock.
WAIT = """
print("waiting", flush=True)
with locked(sys.argv[1], 60), open(sys.argv[2]) as file:
    print(file.read(), flush=True)
"""


@pytest.fixture
def start():
    """Start a script with locked; its stdin and stdout are pipes."""
    processes = []

    def start(script, *args):
        process = subprocess.Popen(
            [sys.executable, "-c", IMPORT + script, *map(str, args)],
            env=dict(os.environ, PYTHONPATH=str(COLLECTIONS)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def echo(process, word):
    process.stdin.write(word + "\n")
    return process.stdout.readline().strip()


def test_the_lock_excludes_another_process_until_that_is_killed(secrets, start):
    holder = start(HOLD, secrets)
    assert echo(holder, "held") == "held"
    with pytest.raises(PpinError) as caught, locked(str(secrets), 0):
        pytest.fail("two have the lock")
    assert caught.value.cls == "timeout"
    assert str(secrets) in caught.value.msg
    holder.kill()
    holder.wait()
    assert echo(holder, "the child lives on") == "the child lives on"
    with locked(str(secrets), 60):
        assert names(secrets) == [".secrets.cfg"]


def test_the_lock_is_waited_for(secrets, tmp_path, start):
    result = tmp_path / "result"
    result.write_text("not yet")
    with locked(str(secrets), 0):
        waiting = start(WAIT, secrets, result)
        assert waiting.stdout.readline() == "waiting\n"
        result.write_text("done")
    assert waiting.stdout.readline() == "done\n"
    assert waiting.wait(60) == 0


def test_the_lock_is_let_go_of_after_a_failure(secrets):
    for _again in range(2):
        with pytest.raises(KeyError), locked(str(secrets), 0):
            raise KeyError
    with locked(str(secrets), 0):
        assert names(secrets) == [".secrets.cfg"]


def test_the_lock_excludes_within_a_process_too(secrets):
    with locked(str(secrets), 0), pytest.raises(PpinError) as caught, locked(str(secrets), 0):
        pytest.fail("two have the lock")
    assert caught.value.cls == "timeout"


def test_each_folder_has_its_own_lock(secrets, tmp_path):
    with locked(str(secrets), 0), locked(str(tmp_path / ".secrets.cfg"), 0):
        assert names(secrets) == [".secrets.cfg"]


def test_the_lock_outlives_a_file_that_is_replaced(secrets, working, start):
    with locked(str(secrets), 0):
        with working as copy:
            copy.put_in_place()
        other = start(
            "try:\n    locked(sys.argv[1], 0).__enter__()\nexcept Exception as exc:\n    print(exc.cls)\n", secrets
        )
        assert other.communicate()[0] == "timeout\n"


def test_the_lock_does_not_need_the_file(secrets):
    secrets.unlink()
    with locked(str(secrets), 0):
        assert names(secrets) == []


@pytest.mark.parametrize("error", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_directory_without_such_a_lock(secrets, tmp_path, monkeypatch, error):
    """Such as on NFS: a file in the private directory is locked, and nobody else is kept out."""
    places, lock = tmp_path / "places", fcntl.flock
    places.mkdir(0o700)

    def flock(handle, how):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(error, os.strerror(error))
        lock(handle, how)

    monkeypatch.setattr(_leftovers, "private_roots", lambda _uid: [str(places)])
    monkeypatch.setattr(fcntl, "flock", flock)
    for _time in range(2):
        with locked(str(secrets), 0):
            assert names(secrets) == [".secrets.cfg"]
            assert {stat.S_IMODE(path.stat().st_mode) for path in places.glob("*/*.lock")} == {0o600}
            assert leftovers(*both(secrets)) == []
            with pytest.raises(PpinError) as caught, locked(str(secrets), 0):
                pytest.fail("two have the lock")
            assert caught.value.cls == "timeout"
            with locked(str(tmp_path / ".secrets.cfg"), 0):  # another client of this host
                pass
    assert list(places.iterdir()) == []
    pid = os.fork()
    if pid == 0:
        held = locked(str(secrets), 0)
        held.__enter__()
        os._exit(0)  # as a killed run
    os.waitpid(pid, 0)
    (left,) = places.glob("*/*.lock")
    assert leftovers(*both(secrets)) == [str(left)]
    with locked(str(secrets), 0):
        assert leftovers(*both(secrets)) == [], "it has one use more"
    left.parent.mkdir(0o700)
    left.touch()
    with locked(str(tmp_path / ".secrets.cfg"), 0):
        assert recover_files(*both(secrets)) == []
        assert not left.exists()
    assert list(places.iterdir()) == []


def test_a_lock_file_that_its_holder_removes_is_taken_once(secrets, tmp_path, monkeypatch):
    """Its name is free as soon as it is removed, and its lock only after that."""
    monkeypatch.setattr(_leftovers, "private_roots", lambda _uid: [str(tmp_path)])
    first, second, third = (LockFile("/somewhere") for _each in range(3))
    assert first.try_acquire() and not second.try_acquire()
    unlink = os.unlink

    def remove(name, dir_fd):
        unlink(name, dir_fd=dir_fd)
        assert third.try_acquire()

    monkeypatch.setattr(os, "unlink", remove)
    first.release()
    monkeypatch.undo()
    monkeypatch.setattr(_leftovers, "private_roots", lambda _uid: [str(tmp_path)])
    assert not second.try_acquire()
    third.release()
    assert second.try_acquire()
    second.release()
    assert not list(tmp_path.glob("hsmops*"))


def test_no_folder_to_lock(tmp_path):
    with pytest.raises(PpinError) as caught, locked(str(tmp_path / "no" / ".secrets.cfg"), 0):
        pytest.fail("there is nothing to lock")
    assert (caught.value.code, caught.value.cls) == ("0x80005004", "config")
    assert str(tmp_path / "no") in caught.value.msg
