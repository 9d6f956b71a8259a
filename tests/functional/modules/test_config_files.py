# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""config_files: the configuration of a client is moved, whatever somebody has put where it was."""

import os
import stat
import struct

import pytest

NAMES = [".secrets.cfg.ledger", ".secrets.cfg", "primus.cfg"]


@pytest.fixture
def place(client, tmp_path):
    """Run the module on a client whose configuration is still in the directory of the provider."""
    (tmp_path / "etc").mkdir()
    client.ledger.write_text("ledger")

    def run(state="moved", names=None, check=False, **options):
        places = {"src": client.etc, "dest": tmp_path / "etc", **options}
        nothing = dict.fromkeys(("primus_home", "config_path", "secrets_path"))
        return client.run("config_files", state=state, names=names or NAMES, check=check, **nothing, **places)

    run.client, run.dest = client, tmp_path / "etc"
    return run


def modes(folder):
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()}


def test_a_configuration_is_moved_once(place):
    secrets = place.client.secrets.read_text()
    assert place(check=True)["changed"] and not modes(place.dest)
    assert place()["changed"]
    assert modes(place.dest) == {".secrets.cfg.ledger": "0o600", ".secrets.cfg": "0o660", "primus.cfg": "0o640"}
    assert (place.dest / ".secrets.cfg").read_text() == secrets
    assert not set(NAMES) & set(modes(place.client.etc))
    assert not place()["changed"]


def test_a_template_stays_where_it_is(place):
    assert place("copied", [".secrets.cfg"])["changed"]
    assert place.client.secrets.read_text() == (place.dest / ".secrets.cfg").read_text()


def test_permissions_are_corrected(place):
    place()
    (place.dest / ".secrets.cfg").chmod(0o644)
    for check, changed in ((True, True), (False, True), (False, False)):
        assert place("present", [".secrets.cfg"], check)["changed"] is changed
    assert modes(place.dest)[".secrets.cfg"] == "0o660"


def test_a_file_in_both_places_is_not_replaced(place):
    (place.dest / "primus.cfg").write_text("other")
    result = place(names=["primus.cfg"])
    assert result["failed"] and "exists in two places" in result["msg"]
    assert (place.dest / "primus.cfg").read_text() == "other" and place.client.config.exists()


def test_a_move_that_was_killed_before_it_removed_the_original_is_ended(place):
    copy = place.dest / ".secrets.cfg"
    copy.write_bytes(place.client.secrets.read_bytes())
    copy.chmod(0o600)
    assert place(names=[".secrets.cfg"])["changed"]
    assert not place.client.secrets.exists() and modes(place.dest) == {".secrets.cfg": "0o660"}


def test_what_a_run_that_died_has_left_is_removed(place):
    left = [
        folder / f"{name}.new-0123456789abcdef" for folder in (place.dest, place.client.etc) for name in (*NAMES, "x")
    ]
    for path in left:
        path.write_text("left")
    place(names=["primus.cfg"])
    assert [path for path in left if path.exists()] == [left[3], left[7]]


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("state", ["moved", "copied", "present"])
def test_what_may_be_the_file_of_another_is_refused(place, tmp_path, link, state):
    other = tmp_path / "shadow"
    other.write_text("root only")
    other.chmod(0o600)
    folder = place.dest if state == "present" else place.client.etc
    (folder / "primus.cfg").unlink(missing_ok=True)
    link(other, folder / "primus.cfg")
    result = place(state, ["primus.cfg"])
    problem = "is a symbolic link" if link is os.symlink else "has other names (hard links)"
    assert result["failed"] and f"{folder}/primus.cfg {problem}, so it was not used" in result["msg"]
    assert other.read_text() == "root only" and stat.S_IMODE(other.stat().st_mode) == 0o600
    assert state == "present" or not modes(place.dest)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")
def test_a_directory_that_another_user_has_replaced_by_a_link(place, tmp_path):
    other = tmp_path / "other"
    place.client.etc.rename(other)
    os.symlink(other, place.client.etc)
    for path in (place.client.home, place.client.etc):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    result = place()
    assert result["failed"] and "belongs to" in result["msg"]
    assert not modes(place.dest) and (other / "primus.cfg").exists()


def set_acl(path, kind="access"):
    """Let the user 12345 in, as `setfacl -m u:12345:rwx` does."""
    nobody = 2**32 - 1
    entries = [(0x01, 7, nobody), (0x02, 7, 12345), (0x04, 5, nobody), (0x10, 7, nobody), (0x20, 0, nobody)]
    try:
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        os.setxattr(path, f"system.posix_acl_{kind}", acl)
    except OSError as exc:
        pytest.skip(f"the file system has no access control lists: {exc}")


def test_an_access_control_list_is_removed(place):
    place()
    secrets = place.dest / ".secrets.cfg"
    set_acl(secrets)
    for check, changed in ((True, True), (False, True), (False, False)):
        assert place("present", [".secrets.cfg"], check)["changed"] is changed
    assert place.client.info(files=[str(secrets)])["files"][str(secrets)]["acl"] == []
    assert modes(place.dest)[".secrets.cfg"] == "0o660"


def test_the_directory_is_created_and_corrected(place, tmp_path):
    directory = tmp_path / "more/etc"

    def run(check=False):
        return place("directory", check=check, src=None, dest=directory, group=os.getgid(), owner=str(os.getuid()))

    assert run(check=True)["changed"] and not directory.exists()
    assert run()["changed"] and stat.S_IMODE(directory.stat().st_mode) == 0o750
    assert not run()["changed"]
    directory.chmod(0o755)
    for check, changed in ((True, True), (False, True), (False, False)):
        assert run(check)["changed"] is changed
    assert stat.S_IMODE(directory.stat().st_mode) == 0o750


def test_access_control_lists_of_the_directory_are_removed(place):
    for kind in ("access", "default"):
        set_acl(place.dest, kind)
        facts = place.client.info(files=[str(place.dest)])["files"][str(place.dest)]
        assert len(facts["acl"]) == 1
        assert place("directory", src=None)["changed"] and not place("directory", src=None)["changed"]


def test_a_directory_that_is_a_file(place):
    (place.dest / "file").write_text("")
    result = place("directory", src=None, dest=place.dest / "file")
    assert result["failed"] and "File exists" in result["msg"]
