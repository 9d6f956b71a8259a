# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the documentation, followed by a reader who has the emulator in the place of clients and HSM."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from emulated_hsm import COLLECTION, COLLECTIONS, LIMITS, Hsm
from primus_emulator.client import install

EXAMPLES = COLLECTION / "docs/examples"


def load(example):
    return yaml.safe_load((EXAMPLES / example).read_text())


CLOUDHSM = load("cloudhsm/group_vars/primus_clients/vault.yml")
ON_PREMISES = load("on_premises/group_vars/primus_clients/vault.yml")
PASSWORDS = [*CLOUDHSM.values(), *ON_PREMISES.values()]


def _partition(name, vault):
    return {kind: vault[f"vault_{name.lower()}_{kind}"] for kind in ("setup_password", "pkcs11_password")}


CONFIG = {
    "partitions": {
        "PARTITION1": _partition("PARTITION1", CLOUDHSM),
        "PAYMENTS": _partition("PAYMENTS", ON_PREMISES),
        "ARCHIVE": _partition("ARCHIVE", ON_PREMISES),
    },
    "service_users": {"svc_example": CLOUDHSM["vault_svc_example_password"]},
    "limits": LIMITS,
}


def example_hsm(folder: Path) -> Hsm:
    """An emulated HSM that knows the passwords of the examples."""
    return Hsm(folder, CONFIG)


class Reader:
    """A copy of the examples, and a directory for each host of an example, where its provider is installed."""

    def __init__(self, folder: Path, hsm: Hsm):
        self.folder, self.hsm = folder, hsm
        self.examples = Path(shutil.copytree(EXAMPLES, folder / "examples"))
        (folder / "hsm").symlink_to(hsm.state)
        (folder / "ansible.cfg").touch()
        self.hosts: list[str] = []

    def install(self, *partitions, hosts=("app1.example.com", "app2.example.com")):
        """Install ppin for these hosts; partitions: what primus.cfg has, as for the emulator's --partition."""
        self.hosts = list(hosts)
        for host in hosts:
            install(str(self.folder / host), str(self.hsm.state), list(partitions))

    @property
    def environment(self):
        # Where ppin and its files are by default. The client of the last host, for examples that do not name any place.
        home = self.folder / self.hosts[-1]
        return {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),  # not what is set on this machine
            "ANSIBLE_COLLECTIONS_PATH": f"{self.folder}/collections:{COLLECTIONS}",
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_REMOTE_TMP": str(self.folder / "tmp"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "PRIMUS_HOME": str(home),
            "SECUROSYS_PKCS11_CONF": str(home / "etc/primus.cfg"),
            "SECUROSYS_SECRETS_CONF": str(home / "etc/.secrets.cfg"),
        }

    def playbook(self, *words, succeeds=True):
        """Run ansible-playbook in the copy, verbosely; what it prints. No password may be in that."""
        command = [Path(sys.executable).with_name("ansible-playbook"), "-vvv"]
        emulated = ["--extra-vars=@emulator/client.yml", f"--extra-vars=emulated={self.folder}"]
        done = subprocess.run(
            [*command, *emulated, *words],
            check=False,
            cwd=self.examples,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert (done.returncode == 0) == succeeds, done.stdout
        assert not [password for password in PASSWORDS if password in done.stdout]
        return done.stdout

    def typed(self):
        """What was typed to ppin so far and accepted: kinds of passwords and of whom, each once."""
        logins = self.hsm.logins("proxy", "setup", "pkcs11")
        assert {login["verdict"] for login in logins} <= {"ok"}
        assert {login["source"] for login in logins} <= {"terminal"}
        return {(login["kind"], login.get("partition") or login["service_user"]) for login in logins}
