# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An emulated HSM for the whole session, clients of it, and modules run as Ansible runs them: as processes."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.module_utils.common.parameters import PASS_VARS
from emulated_hsm import (
    COLLECTION,
    COLLECTIONS,
    CONFIG,
    EMULATOR,
    PINS,
    PROXY_PASSWORD,
    SETUP,
    WRONG_SETUP,
    Hsm,
    fill,
    wrap_ppin,
)
from fixtures import redis_server, redis_url  # noqa: F401  # pylint: disable=unused-import
from module_server import ModuleServer
from primus_emulator.client import install, set_behaviour

os.environ["PYTHONPATH"] = str(COLLECTION / "tests/support/code_cache")  # of playbook runs

SECRETS = [*SETUP.values(), *PINS.values(), PROXY_PASSWORD, WRONG_SETUP]


def script(module):
    return COLLECTION / f"plugins/modules/{module}.py"


def environment(*python_path):
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(COLLECTIONS), *python_path])}


class Client:
    """A client of the HSM, with P1 behind the service proxy and P2 not."""

    def __init__(self, hsm: Hsm, server: ModuleServer, home: Path, **behaviour):
        self.hsm, self.server, self.home = hsm, server, home
        install(str(home), str(hsm.state), ["P1:0:svc1", "P2:1"], behaviour)
        self.etc = home / "etc"
        self.secrets = self.etc / ".secrets.cfg"
        self.ledger = self.etc / ".secrets.cfg.ledger"
        self.config = self.etc / "primus.cfg"
        self.ppin = home / "bin/ppin"
        self.prefix, self.python_path = [], []  # what a module is run with, before it and in PYTHONPATH

    def set(self, **behaviour):
        set_behaviour(str(self.home), behaviour)

    def before_test(self, *command):
        """Have something happen to the HSM before ppin tests a login."""
        admin = [sys.executable, "-m", "primus_emulator", "admin", "--state", str(self.hsm.state), *command]
        first = f'case "$*" in *--test*) PYTHONPATH={EMULATOR} {shlex.join(admin)} >/dev/null;; esac'
        wrap_ppin(self.ppin, f'{first}\nexec "$0.real" "$@"')

    def arguments(self, check=False, **options):
        """What a module of this client reads from stdin, as with pipelining."""
        paths = {"primus_home": self.home, "config_path": self.config, "secrets_path": self.secrets}
        internal = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_no_log": False}
        if "inject_invocation" in PASS_VARS:  # from ansible-core 2.21 on, and off there by default
            internal["_ansible_inject_invocation"] = True
        arguments = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in {**internal, **paths, **options}.items()
            if value is not None
        }
        return json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()

    def start(self, module, check=False, **options):
        """Start a module as Ansible does."""
        process = subprocess.Popen(
            [*self.prefix, sys.executable, str(script(module))],
            env=environment(*self.python_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdin.write(self.arguments(check, **options))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, module, check=False, **options):
        """Run a module to its end; its result. No secret may be in what it prints, on either stream."""
        if self.prefix or self.python_path:
            process = self.start(module, check, **options)
            out, err = process.communicate(timeout=300)
            status = process.returncode
        else:
            status, out, err = self.server.run(script(module), self.arguments(check, **options), environment())
        text = (out + err).decode()
        arguments = json.loads(out).pop("invocation", None) if out.strip() else None
        given = (options.get(key) for key in ("setup_password", "pkcs11_password", "password"))
        assert not [secret for secret in [*SECRETS, *given] if secret and secret in text]
        assert out.strip(), err.decode()
        assert err == b"", err.decode()
        assert arguments is not None
        result = json.loads(out)
        assert result.get("failed", False) == (status != 0)
        return result

    def secret(self, partition="P2", **options):
        """Run ppin_secret, by default with the right passwords."""
        options.setdefault("setup_password", SETUP[partition])
        options.setdefault("pkcs11_password", PINS[partition])
        options.setdefault("user_name", partition)
        return self.run("ppin_secret", **options)

    def proxy(self, **options):
        options.setdefault("password", PROXY_PASSWORD)
        return self.run("ppin_proxy", service_user="svc1", **options)

    def info(self, **options):
        return self.run("ppin_info", **options)

    def state(self):
        """What is on the disk: by name, the content, mode, owner and group of each file in etc."""
        return {
            path.name: (path.read_bytes(), path.stat().st_mode, path.stat().st_uid, path.stat().st_gid)
            for path in self.etc.iterdir()
        }


@pytest.fixture(scope="session")
def running_hsm(tmp_path_factory):
    with Hsm(tmp_path_factory.mktemp("hsm")) as hsm:
        yield hsm


@pytest.fixture(scope="session")
def module_server():
    with ModuleServer(environment()) as server:
        yield server


@pytest.fixture
def hsm(running_hsm):
    running_hsm.reset(CONFIG)  # a test may have given it another
    return running_hsm


@pytest.fixture
def new_client(hsm, module_server, tmp_path):
    """Make a client; the argument is its name, the keywords are switches of ppin."""
    return lambda name="client", **behaviour: Client(hsm, module_server, tmp_path / name, **behaviour)


@pytest.fixture
def client(new_client):
    return new_client()


@pytest.fixture(scope="session")
def credentials(running_hsm, module_server, tmp_path_factory):
    """Secrets file and ledger of a client that has all credentials. They stay valid when the HSM is reset."""
    running_hsm("reset")
    client = Client(running_hsm, module_server, tmp_path_factory.mktemp("configured") / "client")
    assert client.proxy()["action"] == "added"
    for partition in SETUP:
        assert client.secret(partition, verify="never")["action"] == "added"
    return client.secrets.read_text(), client.ledger.read_text()


@pytest.fixture
def configured(credentials, client):
    """A client that has its service proxy password and both permanent secrets, as of now; no login was judged yet."""
    secrets, ledger = credentials
    client.secrets.write_text(secrets)
    client.ledger.touch(0o600)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    client.ledger.write_text(re.sub(r'"since": "[^"]*"', f'"since": "{now}"', ledger))
    return client


@pytest.fixture
def usual_umask():
    """New files can be read by all, unless the module sees to it that they cannot."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a small file system that has inodes but not one free block."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        fill(folder)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
