# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One emulator for all tests, returned to its initial state before each, and clients of it."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from primus_emulator import client as installer
from primus_emulator.admin import Admin

EMULATOR = Path(__file__).resolve().parents[1]
PARTITION = {"setup_password": "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3", "pkcs11_password": "the PKCS#11 password"}
CONFIG = {
    "partitions": {"HSM_USERNAME": PARTITION, "OTHER": PARTITION},
    "service_users": {"SERVICE_USER": "the proxy password"},
}


def run_emulator(*args, **kwargs):
    """Run the emulator's command line."""
    environment = {**os.environ, "PYTHONPATH": str(EMULATOR)}
    command = [sys.executable, "-m", "primus_emulator", *map(str, args)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **kwargs, check=False)


@pytest.fixture(scope="session")
def cli():
    return run_emulator


@pytest.fixture(scope="session")
def state(tmp_path_factory):
    """The state folder of a running emulator, whose name is longer than a unix socket's may be."""
    folder = tmp_path_factory.mktemp("emulator") / ("long" * 25)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    served = run_emulator("serve", "--state", folder, "--config", folder / "config.json", "--daemon")
    assert served.returncode == 0, served.stderr
    pid = json.loads((folder / "endpoint.json").read_text())["pid"]
    yield folder
    os.kill(pid, signal.SIGTERM)


@pytest.fixture
def admin(state):
    """The admin of the emulator, just reset."""
    admin = Admin(state)
    admin.call("reset")
    return admin


class Client:
    """An installed client."""

    def __init__(self, prefix, state, partitions, switches):
        self.prefix = prefix
        self.secrets = prefix / "etc/.secrets.cfg"
        self.config = prefix / "etc/primus.cfg"
        # A machine that has the provider installed must not disturb.
        installer.install(str(prefix), str(state), partitions, {"system_etc": str(prefix / "none"), **switches})

    def set(self, **switches):
        installer.set_behaviour(str(self.prefix), switches)

    def run(self, *args, **kwargs):
        """Run ppin to its end, with no terminal."""
        command = [str(self.prefix / "bin/ppin"), *args]
        return subprocess.run(command, capture_output=True, timeout=60, start_new_session=True, **kwargs, check=False)

    def spawn(self, *args):
        """Run ppin on a terminal."""
        return pexpect.spawn(str(self.prefix / "bin/ppin"), list(args), timeout=60, encoding="utf-8")

    def converse(self, *args, answers):
        """Run ppin on a terminal, answer its prompts when echo is off; return the screen and the exit status."""
        child = self.spawn(*args)
        screen = ""
        for answer in answers:
            child.expect(" ?: ?")
            screen += child.before + child.after
            assert child.waitnoecho(60)
            child.sendline(answer)
        child.expect(pexpect.EOF)
        screen += child.before
        child.close()
        return screen.replace("\r\n", "\n"), child.exitstatus


@pytest.fixture
def make_client(tmp_path, state, admin):
    """Install a client: make_client("PARTITION", …, switch=value …)."""
    numbers = itertools.count(1)

    def make(*partitions, **switches):
        return Client(tmp_path / f"client{next(numbers)}", state, list(partitions or ["HSM_USERNAME"]), switches)

    return make
