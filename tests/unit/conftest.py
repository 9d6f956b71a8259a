# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An emulated HSM for the whole session, clients of it, and modules run as Ansible runs them: as processes."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.module_utils.common.parameters import PASS_VARS
from ansible_collections.hsmops.primus.plugins.module_utils import _plan
from primus_emulator.admin import Admin

COLLECTION = Path(_plan.__file__).parents[2]
COLLECTIONS = COLLECTION.parents[2]
EMULATOR = COLLECTION / "tests/emulator"

SETUP = {"P1": "AAAAA-BBBBB-CCCCC-DDDDD-EEE01", "P2": "AAAAA-BBBBB-CCCCC-DDDDD-EEE02"}
PINS = {"P1": "pin-of-partition-1", "P2": "pin-of-partition-2"}
PROXY_PASSWORD = "password-of-svc1"
WRONG_SETUP = "ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ"
SECRETS = [*SETUP.values(), *PINS.values(), PROXY_PASSWORD, WRONG_SETUP]

CONFIG = {
    "partitions": {name: {"setup_password": SETUP[name], "pkcs11_password": PINS[name]} for name in SETUP},
    "service_users": {"svc1": PROXY_PASSWORD},
}


def emulator(*args, **kwargs):
    """Run a command of the emulator to its end; what it prints."""
    environment = dict(os.environ, PYTHONPATH=str(EMULATOR))
    command = [sys.executable, "-m", "primus_emulator", *map(str, args)]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, timeout=30, **kwargs).stdout


class Hsm:
    """The emulated cluster: two nodes, a proxy before each."""

    def __init__(self, state: Path):
        self.state = state
        self.admin = Admin(str(state))

    def __call__(self, command, **args):
        return self.admin.call(command, **args)

    def logins(self, *kinds):
        """The credentials that were judged so far, as dicts; not the proxy passwords that ppin itself kept."""
        logins = [login for login in self("report") if login["source"] != "file" or login["kind"] == "permanent"]
        return [login for login in logins if not kinds or login["kind"] in kinds]

    def trials(self, partition):
        """Wrong trials that count towards the lock-out of a partition."""
        return self("report-summary")["partitions"][partition]["trials"]

    def new_setup_password(self, partition):
        """Another setup password; the present ones stay valid."""
        return self("new-setup-password", partition=partition, keep=True)


class Client:
    """A client of the HSM, with P1 behind the service proxy and P2 not."""

    def __init__(self, hsm: Hsm, home: Path, **behaviour):
        self.hsm, self.home = hsm, home
        partitions = ["--partition", "P1:0:svc1", "--partition", "P2:1"]
        switches = [word for key, value in behaviour.items() for word in ("--behaviour", f"{key}={value}")]
        emulator("client", home, "--state", hsm.state, *partitions, *switches)
        self.secrets = home / "etc/.secrets.cfg"
        self.config = home / "etc/primus.cfg"
        self.ppin = home / "bin/ppin"
        self.prefix, self.python_path = [], []  # what a module is run with, before it and in PYTHONPATH

    def set(self, **behaviour):
        switches = [word for key, value in behaviour.items() for word in ("--set", f"{key}={value}")]
        emulator("client", self.home, *switches)

    def before_test(self, *command):
        """Have something happen to the HSM before ppin tests a login: a shell script takes the place of ppin."""
        real = self.ppin.with_name("ppin.real")
        self.ppin.rename(real)
        admin = [sys.executable, "-m", "primus_emulator", "admin", "--state", str(self.hsm.state), *command]
        self.ppin.write_text(
            f'#!/bin/sh\ncase "$*" in *--test*) PYTHONPATH={EMULATOR} {shlex.join(admin)} >/dev/null;; esac\n'
            f'exec {real} "$@"\n'
        )
        self.ppin.chmod(0o755)

    def start(self, module, check=False, **options):
        """Start a module as Ansible does. The options go through stdin, as with pipelining."""
        paths = {"primus_home": self.home, "config_path": self.config, "secrets_path": self.secrets}
        arguments = {key: str(value) for key, value in paths.items() if key not in options}
        options = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
        arguments.update({key: value for key, value in options.items() if value is not None})
        arguments.update(_ansible_check_mode=check, _ansible_diff=True, _ansible_no_log=False)
        if "inject_invocation" in PASS_VARS:  # from ansible-core 2.21 on, and off there by default
            arguments["_ansible_inject_invocation"] = True
        process = subprocess.Popen(
            [*self.prefix, sys.executable, str(COLLECTION / f"plugins/modules/{module}.py")],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(COLLECTIONS), *self.python_path])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, module, check=False, **options):
        """Run a module to its end; its result. No secret may be in what it prints, on either stream."""
        process = self.start(module, check, **options)
        out, err = process.communicate(timeout=90)
        text = (out + err).decode()
        arguments = json.loads(out).pop("invocation", None) if out.strip() else None
        for secret in [
            *SECRETS,
            *(options.get(key) or "" for key in ("setup_password", "pkcs11_password", "password")),
        ]:
            assert not secret or secret not in text
        assert out.strip(), err.decode()
        assert err == b"", err.decode()
        assert arguments is not None
        result = json.loads(out)
        assert result.get("failed", False) == (process.returncode != 0)
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
            for path in (self.home / "etc").iterdir()
        }


@pytest.fixture(scope="session")
def running_hsm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hsm")
    config = folder / "config.json"
    config.write_text(json.dumps(CONFIG))
    process = subprocess.Popen(
        [sys.executable, "-m", "primus_emulator", "serve", "--state", str(folder / "state"), "--config", str(config)],
        env=dict(os.environ, PYTHONPATH=str(EMULATOR)),
        stdout=subprocess.PIPE,
    )
    while not (folder / "state/endpoint.json").exists():
        assert process.poll() is None
    yield Hsm(folder / "state")
    process.terminate()
    process.wait(10)


@pytest.fixture
def hsm(running_hsm):
    running_hsm("reset")
    return running_hsm


@pytest.fixture
def new_client(hsm, tmp_path):
    """Make a client; the argument is its name, the keywords are switches of ppin."""
    return lambda name="client", **behaviour: Client(hsm, tmp_path / name, **behaviour)


@pytest.fixture
def client(new_client):
    return new_client()


@pytest.fixture
def configured(client):
    """A client that has its service proxy password and both permanent secrets."""
    assert client.proxy()["action"] == "added"
    for partition in SETUP:
        assert client.secret(partition, verify="never")["action"] == "added"
    return client


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a small file system that has inodes but not one free block."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """A Redis of its own behind a socket, as a URL."""
    pytest.importorskip("redis")
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", "0", "--unixsocket", str(folder / "socket"), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)
    while not (folder / "socket").exists():
        assert process.poll() is None
        time.sleep(0.05)
    yield f"unix://{folder}/socket"
    process.terminate()
    process.wait(10)


@pytest.fixture
def redis_url(redis_server):
    """The address of an empty Redis."""
    import redis

    redis.Redis.from_url(redis_server).flushall()
    return redis_server
