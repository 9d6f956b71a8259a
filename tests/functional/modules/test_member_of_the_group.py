# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs of a user who may write to .secrets.cfg as a member of its group, and owns nothing."""

import os
import shutil
import stat
import subprocess
import tempfile

import pytest
from emulated_hsm import PINS, SETUP, working_copies, wrap_ppin

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

MEMBER, GROUP = 54321, 54323


@pytest.fixture
def client(usual_umask, new_client, credentials):
    """A client whose modules are run by the member. Its directory may be written by root alone."""
    # The interpreter and the HSM's certificate may be where only root can read. Writing is what is tried here.
    caps = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
    prefix = ["setpriv", f"--reuid={MEMBER}", f"--regid={GROUP}", "--clear-groups", *caps]
    if not shutil.which("setpriv") or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("setpriv, of util-linux, is not installed, or cannot be another user with a capability here")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 # as on the way to any client
        client = new_client(f"{folder}/client")
        client.secrets.write_text(credentials[0])
        for path, mode in ((client.etc, 0o750), (client.secrets, 0o660)):
            os.chown(path, 0, GROUP)
            path.chmod(mode)
        client.prefix = prefix
        yield client


def facts(path):
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def test_the_cause_is_named_before_a_password_is_spent(client, hsm):
    result = client.secret(state="updated")
    assert result["failed"] and "who may write to it, but not to its directory" in result["msg"]
    assert "in_place" in result["error"]["hint"]
    assert hsm.logins("setup") == []


def test_in_place_works(client, hsm):
    new = hsm.new_setup_password("P2")
    before = client.secrets.read_bytes()
    result = client.secret(state="updated", setup_password=new, in_place=True)
    assert result["action"] == "updated" and result["verified"], result
    assert client.secrets.read_bytes() != before
    assert facts(client.secrets) == (0, GROUP, 0o660)
    assert sorted(path.name for path in client.etc.iterdir()) == [".secrets.cfg", "emulator.json", "primus.cfg"]
    assert client.info()["leftovers"] == []


def test_a_file_of_the_member_can_be_replaced(client):
    os.chown(client.secrets, MEMBER, GROUP)
    client.etc.chmod(0o770)
    result = client.secret(state="updated")
    assert result["action"] == "updated" and not result.get("warnings"), result
    assert facts(client.secrets) == (MEMBER, GROUP, 0o660)
    assert facts(client.ledger) == (MEMBER, GROUP, 0o600)
    assert working_copies(client.secrets) == []
    assert client.secret(state="updated", setup_password=SETUP["P2"])["action"] == "none"


def test_a_ppin_can_be_qualified(client):
    before = client.state()
    given = {"user_name": "P2", "setup_password": SETUP["P2"], "pkcs11_password": PINS["P2"], "accept": True}
    result = client.run("ppin_qualify", **given)
    findings = result["profile"]["findings"]
    assert not {name for name, found in findings.items() if found["verdict"] == "differs"}
    assert findings["read_only_file"]["seen"] == "0x80005007"
    assert client.state() == before and working_copies(client.secrets) == []


def test_what_a_ppin_writes_to_the_file_itself_is_undone(client):
    before = client.state()
    wrap_ppin(client.ppin, f'case "$5" in -r) echo other > "{client.secrets}";; esac\nexec "$0.real" "$@"')
    result = client.run("ppin_qualify", user_name="P2")
    assert result["failed"] and result["profile"]["findings"]["own_file"]["seen"] == "changed"
    assert client.state() == before
