# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another user of a client can do while root's module and its ppin are at work, and afterwards: nothing."""

import ctypes
import json
import os
import signal
import tempfile
from pathlib import Path

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import PRIVATE_NAME
from emulated_hsm import PINS, SETUP, wait_for, working_copies, wrap_ppin
from find_secrets import all_forms
from other_users import EVE, as_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

OUTSIDE = 54399  # no group of the client's
FORMS = all_forms((SETUP["P2"], PINS["P2"]))
PTRACE_ATTACH = 16


@pytest.fixture
def client(new_client, credentials):
    """Everybody can get to its directory, and read what is in it if it lets them."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        client = new_client(f"{folder}/client")
        client.secrets.write_text(credentials[0])
        client.secrets.chmod(0o600)
        for path in (Path(folder), client.home, client.etc):
            path.chmod(0o755)
        yield client


def as_eve(do):
    return as_user(do, EVE, OUTSIDE)


def attach(pid):
    return ctypes.CDLL(None).ptrace(PTRACE_ATTACH, pid, None, None) == 0


def attacks_on_file(path):
    return [
        path.read_bytes,
        lambda: os.close(os.open(path, os.O_WRONLY)),
        path.unlink,
        lambda: path.rename(path.with_name("taken")),
        lambda: path.chmod(0o666),
    ]


def attacks_on_process(pid):
    process = Path("/proc", str(pid))
    return [
        (process / "environ").read_bytes,
        lambda: os.listdir(process / "fd"),
        lambda: os.close(os.open(process / "mem", os.O_RDONLY)),
        lambda: os.kill(pid, signal.SIGKILL),
        lambda: attach(pid),
    ]


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_run_of_root(client):
    blocked, go = client.home / "blocked", client.home / "go"
    block = f"touch {blocked}; while [ ! -e {go} ]; do sleep 0.1; done"
    wrap_ppin(client.ppin, f'case "$*" in *"-u -e"*|*"-a -e"*) {block};; esac\nexec "$0.real" "$@"')
    options = {"user_name": "P2", "setup_password": SETUP["P2"], "pkcs11_password": PINS["P2"]}
    process = client.start("ppin_secret", state="updated", force=True, backup=True, **options)
    try:
        wait_for(blocked.exists, process)
        (ppin,) = children(process.pid)
        (copy,) = working_copies(client.secrets)
        terminal = os.readlink(f"/proc/{ppin}/fd/0")
        assert terminal.startswith("/dev/pts/")
        files = [copy, client.secrets, *client.etc.glob(".secrets.cfg.new-*")]
        assert len(files) == 3
        attacks = [lambda: os.listdir(Path("/run", PRIVATE_NAME % 0)), lambda: os.close(os.open(terminal, os.O_RDONLY))]
        attacks += [lambda: os.close(os.open(terminal, os.O_WRONLY)), (client.etc / "planted").touch]
        attacks += [attack for file in files for attack in attacks_on_file(file)]
        attacks += [attack for pid in (process.pid, ppin) for attack in attacks_on_process(pid)]
        for number, attack in enumerate(attacks):
            assert not as_eve(attack), number
        for pid in (process.pid, ppin):
            words = Path(f"/proc/{pid}/cmdline")
            assert as_eve(words.read_bytes), "this everybody can read"
            assert not [form for form in FORMS if form in words.read_bytes()]
    finally:
        go.touch()
        out, _err = process.communicate(timeout=120)
    assert json.loads(out)["action"] == "updated"
    made = [path for path in client.etc.iterdir() if path.name.startswith(".secrets.cfg")]
    assert len(made) == 3, "the file, its ledger and its backup"
    for file in made:
        for attack in attacks_on_file(file):
            assert not as_eve(attack), file
