# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulated HSM of the tests: its configuration, its control, and helpers for its clients."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from ansible_collections.hsmops.primus.plugins.module_utils._client import leftovers as _leftovers
from primus_emulator.admin import Admin

COLLECTION = Path(_leftovers.__file__).parents[3]
COLLECTIONS = COLLECTION.parents[2]
EMULATOR = COLLECTION / "tests/emulator"

SETUP = {"P1": "AAAAA-BBBBB-CCCCC-DDDDD-EEE01", "P2": "aAaAa-bbBBB-ccccc-DDDdd-EeE02"}
PINS = {"P1": "pin-of-partition-1", "P2": "pin-of-partition-2"}
PROXY_PASSWORD = "password-of-svc1"
WRONG_SETUP = "ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ"
LIMITS = {"login_attempt_threshold": 5, "login_lockout_time": 1800, "attempt_reset_time": 1800}
"""Few attempts, which count for long, so that a test notices too many. The defaults are 100, 300 and 300."""
CONFIG = {
    "partitions": {name: {"setup_password": SETUP[name], "pkcs11_password": PINS[name]} for name in SETUP},
    "service_users": {"svc1": PROXY_PASSWORD},
    "limits": LIMITS,
}

REJECTED = "0x80005017"
"""The verdict on a wrong setup password, permanent secret or service proxy password."""


class Hsm:
    """A cluster of two nodes with a proxy in front of each, for a with statement. config: in place of CONFIG."""

    def __init__(self, folder: Path, config=None):
        self.state = folder / "state"
        file = folder / "config.json"
        file.write_text(json.dumps(config or CONFIG))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "primus_emulator", "serve", "--state", self.state, "--config", file],
            env={**os.environ, "PYTHONPATH": str(EMULATOR)},
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout.readline() == b"ready\n", "the emulated HSM did not start"
        self.admin = Admin(str(self.state))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.terminate()
        self.process.communicate()

    def __call__(self, command, **args):
        return self.admin.call(command, **args)

    def reset(self, config):
        """Return to the initial state of this config, as for Hsm."""
        file = self.state.with_name("reset.json")
        file.write_text(json.dumps(config))
        self("reset", config=file)

    def endpoint(self):
        """Process id and addresses, as the emulator's README describes them."""
        return json.loads((self.state / "endpoint.json").read_text())

    def logins(self, *kinds):
        """The credentials that were evaluated so far, as dicts; not the proxy passwords that ppin itself kept."""
        logins = [login for login in self("report") if login["source"] != "file" or login["kind"] == "permanent"]
        return [login for login in logins if not kinds or login["kind"] in kinds]

    def trials(self, partition):
        """Wrong attempts that count towards the lock-out of a partition."""
        return self("report-summary")["partitions"][partition]["trials"]

    def new_setup_password(self, partition):
        """Another setup password; the present ones stay valid."""
        return self("new-setup-password", partition=partition, keep=True)


def wrap_ppin(ppin: Path, script: str):
    """Replace a client's ppin by a shell script, which can run the real one as "$0.real"."""
    ppin.rename(ppin.with_name("ppin.real"))
    ppin.write_text(f"#!/bin/sh\n{script}\n")
    ppin.chmod(0o755)


def both(secrets: Path):
    """The paths of a client's two files, of which the first is given."""
    return str(secrets), str(secrets.with_name("primus.cfg"))


def working_copies(secrets: Path):
    """The copies of a secrets file that ppin works on, or that interrupted runs have left."""
    own = [Path(place, _leftovers.PRIVATE_NAME % os.geteuid()) for place in _leftovers.private_roots(os.geteuid())]
    key = _leftovers.path_key(os.path.realpath(secrets))
    return [copy for private in own for copy in private.glob(f"{key}-*/.secrets.cfg")]


def wait_for(condition, process=None):
    """Wait until a condition holds, at most two minutes, and while the process runs. Return its value."""
    deadline = time.monotonic() + 120
    while not (result := condition()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return result


def fill(folder: Path):
    """Write a file, filler, into a directory until its file system has not one free block."""
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
