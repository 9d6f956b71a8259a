# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets: many clients of the emulated HSM, and real playbook runs on them over the local connection."""

import collections
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from emulated_hsm import COLLECTIONS, PINS, SETUP, wrap_ppin
from primus_emulator.client import install

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


def ansible_playbook(folder: Path, environment, *words, **how):
    """Start ansible-playbook in a folder, where its temporary files are, too. What it says is in one pipe."""
    (folder / "ansible.cfg").touch()  # Ansible looks no further: what is set on this machine is nothing to a test
    places = {f"ANSIBLE_{place}": str(folder / "tmp") for place in ("LOCAL_TEMP", "REMOTE_TMP")}
    return subprocess.Popen(
        [Path(sys.executable).with_name("ansible-playbook"), *words],
        cwd=folder,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            **places,
            **environment,
        },
        text=True,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **how},
    )


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
            # By default in ~, which Ansible writes to where HOME is, and reads where the account's home directory is.
            "ansible_async_dir": str(folder / "async"),
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

    def start(self, *tasks, forks=10, play=None, arguments=(), **how):
        """Start ansible-playbook on a play of these tasks. play: other keywords of it; how: those of Popen."""
        book = self.folder / "play.json"
        book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": list(tasks), **(play or {})}]))
        (self.folder / "results.jsonl").unlink(missing_ok=True)
        environment = {
            "ANSIBLE_HOME": str(self.home),
            "ANSIBLE_CALLBACK_PLUGINS": str(self.folder / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "results",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_PIPELINING": "1",
        }
        return ansible_playbook(
            self.folder, environment, "-i", self.inventory, "-f", str(forks), book, *arguments, **how
        )

    def run(self, *tasks, **how):
        process = self.start(*tasks, **how)
        output = process.communicate()[0]
        results = self.folder / "results.jsonl"
        entries = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
        return Run(output, entries, process.returncode)

    def fetch(self, *partitions):
        """Give every client these permanent secrets: the first one fetches them, for all."""
        for partition in partitions:
            run = self.run(self.secret(partition, verify="never"), arguments=["--limit", self.hosts[0]])
            assert run.status == 0, run.output
        self.copy_first(".secrets.cfg", ".secrets.cfg.ledger")

    def copy_first(self, *names):
        """Give every client these files of the first one's configuration, which work on each."""
        first, *others = self.hosts
        for host in others:
            for name in names:
                shutil.copy2(self.folder / first / "etc" / name, self.folder / host / "etc" / name)

    def count_ppin(self):
        """Have each client count how often it runs ppin: what is called then is a number per host."""
        for host in self.hosts:
            calls = self.folder / host / "calls"
            wrap_ppin(self.folder / host / "bin/ppin", f'echo "$*" >> {calls}\nexec "$0.real" "$@"')
        return lambda: [len((self.folder / host / "calls").read_text().splitlines()) for host in self.hosts]

    def lose_store_at_test(self):
        """Have the gate's store be gone once a ppin has tested a login."""
        lose = f'"$0.real" "$@"; case "$*" in *--test*) rm -r "{self.store}"; touch "{self.store}";; esac'
        for host in self.hosts:
            wrap_ppin(self.folder / host / "bin/ppin", lose)

    def verdicts(self, *kinds):
        """How often each verdict was given at the HSM, of the kinds of logins named."""
        return collections.Counter(login["verdict"] for login in self.hsm.logins(*kinds))


def measured(fleet, *tasks, **how):
    """Run tasks: the run, seconds of wall and of CPU time."""
    wall, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run = fleet.run(*tasks, **how)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return run, time.monotonic() - wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
