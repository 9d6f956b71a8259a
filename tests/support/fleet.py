# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets: many clients of the emulated HSM, and real playbook runs on them over the local connection."""

import collections
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from ansible_collections.hsmops.primus.plugins.module_utils import _plan
from primus_emulator.admin import Admin
from primus_emulator.client import install

COLLECTIONS = Path(_plan.__file__).parents[5]
EMULATOR = Path(_plan.__file__).parents[2] / "tests/emulator"
SETUP = {"P1": "AAAAA-BBBBB-CCCCC-DDDDD-EEE01", "P2": "AAAAA-BBBBB-CCCCC-DDDDD-EEE02"}
PINS = {"P1": "pin-of-partition-1", "P2": "pin-of-partition-2"}

CALLBACK = """
import json
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_NAME = "results"

    def note(self, result, failed=False):
        with open("results.jsonl", "a") as stream:
            outcome = {**result._result, "failed": failed}
            entry = {"host": result._host.get_name(), "task": result._task.get_name(), "result": outcome}
            stream.write(json.dumps(entry, default=str) + "\\n")

    def v2_runner_on_ok(self, result):
        self.note(result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.note(result, True)

    def v2_runner_item_on_ok(self, result):
        self.note(result)

    def v2_runner_item_on_failed(self, result):
        self.note(result, True)
"""


class Run:
    """What a playbook run did: its output, and the result of each task of each host, in the order they came."""

    def __init__(self, output, entries, status):
        self.output, self.entries, self.status = output, entries, status

    def results(self, item=None):
        """The results, as a dict from host to result; item: of this item of a loop."""
        results = [(entry["host"], entry["result"]) for entry in self.entries]
        return {host: result for host, result in results if item is None or result.get("item") == item}

    def failures(self, item=None):
        """The messages of the hosts that failed, empty where no_log hides them."""
        return {host: result.get("msg", "") for host, result in self.results(item).items() if result["failed"]}

    def lines(self, text):
        return [line for line in self.output.splitlines() if text in line]


class Fleet:
    """Clients of their own, each with P1 behind the service proxy and P2 not, or as partitions says."""

    def __init__(self, hsm, folder: Path, count: int, partitions=("P1:0", "P2:1")):
        self.hsm, self.folder = hsm, folder
        self.hosts = [f"host{number:04}" for number in range(count)]
        for host in self.hosts:
            install(str(folder / host), str(hsm.state), list(partitions), {})
        self.inventory = folder / "inventory.json"
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "home": str(folder) + "/{{ inventory_hostname }}",
        }
        self.inventory.write_text(json.dumps({"all": {"hosts": {host: {} for host in self.hosts}, "vars": variables}}))
        (folder / "callbacks").mkdir()
        (folder / "callbacks/results.py").write_text(CALLBACK)
        self.home = folder / "ansible"
        self.store = self.home / "hsmops-primus-gate"

    def ppin(self, module, name="the task", task=None, **options):
        """A task that runs a module with each client's own paths. task: other keywords of it."""
        paths = {
            "primus_home": "{{ home }}",
            "config_path": "{{ home }}/etc/primus.cfg",
            "secrets_path": "{{ home }}/etc/.secrets.cfg",
        }
        return {"name": name, f"hsmops.primus.{module}": {**paths, **options}, **(task or {})}

    def secret(self, partition, name="the task", task=None, **options):
        passwords = {"setup_password": SETUP[partition], "pkcs11_password": PINS[partition]}
        return self.ppin("ppin_secret", name, task, **{"user_name": partition, **passwords, **options})

    def start(self, *tasks, forks=10, play=None, arguments=()):
        """Start ansible-playbook on a play of these tasks. play: other keywords of it."""
        book = self.folder / "play.json"
        book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": list(tasks), **(play or {})}]))
        (self.folder / "results.jsonl").unlink(missing_ok=True)
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_HOME": str(self.home),
            "ANSIBLE_CALLBACK_PLUGINS": str(self.folder / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "results",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_REMOTE_TMP": str(self.folder / "tmp"),
        }
        command = [Path(sys.executable).with_name("ansible-playbook"), "-i", self.inventory, "-f", str(forks), book]
        return subprocess.Popen(
            [*command, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *tasks, **how):
        process = self.start(*tasks, **how)
        output = process.communicate()[0]
        results = self.folder / "results.jsonl"
        entries = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
        return Run(output, entries, process.returncode)

    def copy_first(self, *names):
        """Give every client these files of the first one's configuration, which work on each."""
        first, *others = self.hosts
        for host in others:
            for name in names:
                shutil.copy2(self.folder / first / "etc" / name, self.folder / host / "etc" / name)

    def count_ppin(self):
        """Have each client count how often it runs ppin: what is called then is a number per host."""
        for host in self.hosts:
            ppin = self.folder / host / "bin/ppin"
            ppin.rename(ppin.with_name("ppin.real"))
            ppin.write_text(f'#!/bin/sh\necho "$*" >> {self.folder}/{host}/calls\nexec "$0.real" "$@"\n')
            ppin.chmod(0o755)
        return lambda: [len((self.folder / host / "calls").read_text().splitlines()) for host in self.hosts]

    def verdicts(self, *kinds):
        """How often each verdict was given at the HSM, of the kinds of logins named."""
        return collections.Counter(login["verdict"] for login in self.hsm.logins(*kinds))


CONFIG = {
    "partitions": {name: {"setup_password": SETUP[name], "pkcs11_password": PINS[name]} for name in SETUP},
    "service_users": {"svc1": "password-of-svc1"},
}


class Hsm:
    """An emulated HSM of its own; config: what it knows, in place of CONFIG."""

    def __init__(self, folder: Path, config=None):
        self.state = folder / "state"
        file = folder / "config.json"
        file.write_text(json.dumps(config or CONFIG))
        command = [
            sys.executable,
            "-m",
            "primus_emulator",
            "serve",
            "--daemon",
            "--state",
            self.state,
            "--config",
            file,
        ]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": str(EMULATOR)}, check=True)
        self.admin = Admin(str(self.state))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        os.kill(self.endpoint()["pid"], signal.SIGTERM)

    def endpoint(self):
        """Process id and addresses, as the emulator's README describes them."""
        return json.loads((self.state / "endpoint.json").read_text())

    def __call__(self, command, **args):
        return self.admin.call(command, **args)

    def logins(self, *kinds):
        logins = [login for login in self("report") if login["source"] != "file" or login["kind"] == "permanent"]
        return [login for login in logins if not kinds or login["kind"] in kinds]


def measured(fleet, *tasks, **how):
    """Run tasks: the run, seconds of wall and of CPU time."""
    wall, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run = fleet.run(*tasks, **how)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return run, time.monotonic() - wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
