# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""in_place with a .secrets.cfg that is mounted on its own, as in containers. No other process sees the mount."""

import os
import subprocess
import sys

import pytest
from emulated_hsm import COLLECTIONS

MOUNTED = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
READ_ONLY = 'mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" && shift 2 && exec "$@"'


@pytest.fixture
def mounted(configured, tmp_path):
    """A client each of whose modules finds a file of the host in the place of its .secrets.cfg."""
    source = tmp_path / "of-the-host"
    source.write_bytes(configured.secrets.read_bytes())
    source.chmod(0o640)

    def prefix(script):
        return ["unshare", "--mount", "sh", "-c", script, "sh", str(source), str(configured.secrets)]

    try:
        possible = subprocess.run([*prefix(READ_ONLY), "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("nothing can be mounted in a namespace of its own here: it takes root and unshare")
    configured.secrets.write_bytes(b"not mounted\n")
    configured.source, configured.mount = source, prefix
    configured.prefix = prefix(MOUNTED)
    return configured


def test_without_in_place_it_is_said_what_it_is(mounted, hsm):
    result = mounted.secret(state="updated", setup_password=hsm.new_setup_password("P2"))
    assert result["failed"] and "this one file is mounted here (bind mount)" in result["msg"]
    assert "in_place" in result["error"]["hint"] and hsm.logins("setup") == []


def test_the_file_of_the_host_is_written(mounted, hsm):
    before, status = mounted.source.read_bytes(), mounted.source.stat()
    new = hsm.new_setup_password("P2")
    result = mounted.secret(state="updated", setup_password=new, in_place=True, backup=True)
    assert result["action"] == "updated" and result["verified"], result
    now = mounted.source.stat()
    assert mounted.source.read_bytes() != before
    assert (now.st_ino, now.st_mode, now.st_uid) == (status.st_ino, status.st_mode, status.st_uid)
    with open(result["backup_file"], "rb") as backup:
        assert backup.read() == before
    assert mounted.secrets.read_bytes() == b"not mounted\n"
    assert mounted.secret(state="updated", setup_password=new, in_place=True)["action"] == "none"
    assert mounted.info()["leftovers"] == []


def test_a_file_that_is_mounted_read_only(mounted, hsm):
    mounted.prefix = mounted.mount(READ_ONLY)
    result = mounted.secret(state="updated", setup_password=hsm.new_setup_password("P2"), in_place=True)
    assert result["failed"] and "this one file is mounted here, read-only" in result["msg"]
    assert "on the host that mounts it" in result["error"]["hint"] and hsm.logins("setup") == []


@pytest.mark.parametrize("written", [0, 100])
def test_a_write_that_did_not_end_is_ended_by_the_next_run(mounted, written):
    """As when a run is killed: what was kept is there, and the file has its first part only."""
    content = mounted.source.read_bytes()
    script = f"""
import os, sys
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import WorkingCopy
with WorkingCopy(sys.argv[1], in_place=True) as copy, copy._journal(copy._before):
    os.truncate(sys.argv[1], {written})
    os._exit(0)
"""
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    subprocess.run([*mounted.prefix, sys.executable, "-c", script, mounted.secrets], env=environment, check=True)
    assert mounted.source.read_bytes() == content[:written]
    assert mounted.info()["interrupted"]
    result = mounted.proxy(in_place=True)
    assert result["interrupted"] and result["action"] == "none", result
    assert mounted.source.read_bytes() == content
    assert not mounted.info()["interrupted"]
