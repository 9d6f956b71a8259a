# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""client_removal: nothing with a secret is left, nothing of anybody else's is removed, whatever ppin does."""

import contextlib
import fcntl
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import (
    PERSISTENT_ROOT,
    PRIVATE_NAME,
    announced,
)
from other_users import GROUP, OWNER, as_user


@pytest.fixture
def host(configured, tmp_path):
    """A client whose configuration is in a directory of its own, and whose ppin does not end."""
    etc = tmp_path / "etc-primus"
    configured.etc.rename(etc)
    configured.etc.mkdir()
    (configured.etc / ".secrets.cfg").write_text('version = "1.0";\n')
    (configured.etc / "primus.cfg").write_text('version = "1.0"; primus : { hsms : { }; };\n')
    configured.ppin.write_text("#!/bin/sh\nsleep 600\n")
    configured.own, configured.templates = etc, configured.etc

    def remove(check=False, **options):
        nothing = dict.fromkeys(("config_path", "secrets_path"))
        options = {"primus_home": configured.home, "etc": etc, **nothing, **options}
        return configured.run("client_removal", check=check, **options)

    configured.remove = remove
    return configured


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_client_has_is_removed_and_what_came_with_the_provider_stays(host):
    secret = (host.own / ".secrets.cfg").read_text()
    for name in (".secrets.cfg.4711.2026-01-31@12:00:00~", ".secrets.cfg.ledger.new", "primus.cfg.1.2026~"):
        (host.own / name).write_text(secret)
        (host.templates / name).write_text(secret)
    (host.templates / ".secrets.cfg.new-0123456789abcdef").write_text(secret)
    kept = host.home.with_name(host.home.name + "-2.1.0-20260131T120000Z")
    (kept / "etc").mkdir(parents=True)
    (kept / "etc/.secrets.cfg").write_text(secret)
    assert host.remove(check=True)["removed"] and host.own.exists() and kept.exists()
    result = host.remove()
    assert result["changed"] and result["left"] == []
    assert not host.own.exists() and not kept.exists()
    assert names(host.templates) == [".secrets.cfg", "primus.cfg"]
    assert not host.remove()["changed"]


def test_an_announcement_of_what_is_gone_is_removed(host, tmp_path):
    gone = tmp_path / "string.new-0123456789abcdef"
    stack = contextlib.ExitStack()
    stack.enter_context(announced(str(gone)))
    private = Path(PERSISTENT_ROOT, PRIVATE_NAME % os.geteuid())
    assert str(gone) in map(os.readlink, private.glob("file-*"))
    host.remove()
    assert str(gone) not in map(os.readlink, private.glob("file-*"))
    stack.close()


def test_filled_templates_are_removed(host):
    (host.own / ".secrets.cfg").rename(host.templates / ".secrets.cfg")
    (host.templates / "primus.cfg").write_text('version = "1.0"; primus : { hsms : { hsm0 : { pin = "1"; }; }; };\n')
    host.remove()
    assert names(host.templates) == []


def test_the_provider_goes_when_asked(host):
    host.remove(provider=True)
    assert not host.home.exists() and not host.own.exists()


@pytest.mark.parametrize("provider", [False, True])
@pytest.mark.parametrize("where", ["own", "templates"])
@pytest.mark.parametrize("kind", ["a directory", "a file"])
def test_what_a_link_points_to_is_never_removed(host, tmp_path, where, kind, provider):
    other = tmp_path / "other"
    if kind == "a directory":
        other.mkdir()
        (other / "precious").write_text("precious")
    else:
        other.write_text("precious")
    link = getattr(host, where) / ".secrets.cfg"
    link.unlink()
    link.symlink_to(other)
    for _time in range(2):  # a second run tells it too
        result = host.remove(provider=provider)
        if where == "templates" and provider:
            break
        assert result["failed"]
        assert f"Left on this host: {other}, to which the symbolic link {link} points" in result["msg"]
    assert (other / "precious").exists() if kind == "a directory" else other.read_text() == "precious"
    secrets = [path for path in host.own.glob(".secrets.cfg*") if not path.is_symlink()] if host.own.exists() else []
    assert secrets == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("name", [".secrets.cfg", ".secrets.cfg.4711.2026~", "primus.cfg.new-0123456789abcdef"])
def test_a_directory_that_the_user_primus_has_moved_there_stays(client, name):
    """It is root's, and only its name is that of a file of a client."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        etc = Path(folder, "primus/etc")
        (etc / "of root").mkdir(parents=True)
        (etc / "of root").chmod(0o700)
        (etc / "of root/file").write_text("content")
        os.chown(etc, OWNER, GROUP)
        assert as_user((lambda: (etc / "of root").rename(etc / name)), OWNER)
        assert not as_user((etc / name / "file").unlink, OWNER)
        nothing = dict.fromkeys(("config_path", "secrets_path"))
        result = client.run("client_removal", primus_home=etc.parent, etc=Path(folder, "own"), **nothing)
        assert (etc / name / "file").read_text() == "content"
        assert result["failed"] and result["left"] == [f"{etc / name}: It is a directory"]


def test_a_link_in_the_place_of_the_directory(host, tmp_path):
    other = tmp_path / "other"
    host.own.rename(other)
    host.own.symlink_to(other)
    result = host.remove()
    assert result["failed"] and f"{other}, to which the symbolic link {host.own} points" in result["msg"]
    assert ".secrets.cfg" in names(other)


def test_another_name_of_a_secret_is_told(host, tmp_path):
    os.link(host.own / ".secrets.cfg", tmp_path / "mine")
    result = host.remove()
    assert result["failed"] and "another name (hard link) of" in result["msg"]
    assert names(host.own) == []
    assert host.remove()["removed"] == [str(host.own)]


@pytest.mark.parametrize("option", ["etc", "primus_home"])
@pytest.mark.parametrize("path", ["/", "/etc", "/usr/local/", "relative"])
def test_a_directory_of_others_is_refused(host, option, path):
    result = host.remove(check=True, **{option: path})
    assert result["failed"] and "which is no directory of the provider's own" in result["msg"]


def test_what_cannot_be_removed_is_told_and_the_rest_goes(host):
    mount = ["mount", "--bind", str(host.ppin), str(host.own / ".secrets.cfg")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        result = host.remove()
        assert result["failed"] and f"{host.own}/.secrets.cfg: Device or resource busy" in result["msg"]
        assert names(host.own) == [".secrets.cfg"]
    finally:
        subprocess.run(["umount", str(host.own / ".secrets.cfg")], check=True)
    assert host.remove()["left"] == [] and not host.own.exists()


def test_a_lock_that_is_never_released_does_not_keep_the_secrets(host):
    """As any member of the group can hold it."""
    handle = os.open(host.own, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        result = host.remove(timeout=1)
    finally:
        os.close(handle)
    assert not host.own.exists() and "It was not waited for any longer" in str(result["warnings"])
