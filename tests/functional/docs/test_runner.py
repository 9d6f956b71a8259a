# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs by ansible-runner, as a user has them, and as AWX has, with its credential types. What stays has no password."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jinja2.meta
import jinja2.sandbox
import pytest
import yaml
from examples import CLOUDHSM, EXAMPLES, PASSWORDS

BIN = Path(sys.executable).parent
TYPES = sorted((EXAMPLES / "awx/credential_types").glob("*.yml"))
TYPED = {("proxy", "svc_example"), ("setup", "PARTITION1"), ("pkcs11", "PARTITION1")}
# What AWX can be told of a field, and of a credential type.
FIELD = {"id", "label", "type", "secret", "multiline", "help_text"}
TYPE = {"name", "description", "kind", "inputs", "injectors"}


class Unsafe(str):
    """A value that Ansible must not take for a template. AWX marks what its users typed so."""


class Dumper(yaml.SafeDumper):
    pass


Dumper.add_representer(Unsafe, lambda dumper, value: dumper.represent_scalar("!unsafe", str(value)))
sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment()


def injected(credential_type, inputs):
    """The file of extra variables that AWX makes of a credential."""
    extra_vars = {
        name: Unsafe(sandbox.from_string(template).render(**inputs))
        for name, template in credential_type["injectors"]["extra_vars"].items()
    }
    return yaml.dump(extra_vars, Dumper=Dumper)


class Runner:
    """A private data directory of ansible-runner."""

    def __init__(self, reader):
        self.reader, self.folder = reader, reader.folder / "runner"
        for name in ("env", "inventory", "project"):
            (self.folder / name).mkdir(parents=True)
        emulated = yaml.safe_load((reader.examples / "emulator/client.yml").read_text())
        del emulated["primus_gate_store"]  # these variables come last, and AWX brings a store of its own
        self.write("env/extravars", yaml.safe_dump({**emulated, "emulated": str(reader.folder)}))
        keys = [key for key in reader.environment if key.startswith("ANSIBLE_")]
        self.write("env/envvars", yaml.safe_dump({key: reader.environment[key] for key in keys}))
        shutil.copy(reader.examples / "cloudhsm/inventory.yml", self.folder / "inventory")

    def write(self, name, text):
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def run(self, playbook, passwords=PASSWORDS):
        """Run it; how many tasks changed something, by host."""
        environment = {**self.reader.environment, "PATH": f"{BIN}:/usr/bin:/bin"}
        command = [BIN / "ansible-runner", "run", self.folder, "-p", playbook, "--ident", "it"]
        done = subprocess.run(
            command, check=False, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout
        artifacts = self.folder / "artifacts/it"
        texts = [done.stdout, *(path.read_text() for path in artifacts.rglob("*") if path.is_file())]
        forms = {form for password in passwords for form in (password, json.dumps(password)[1:-1])}
        assert not [form for form in forms if any(form in text for text in texts)]
        events = [json.loads(path.read_text()) for path in artifacts.glob("job_events/*.json")]
        (stats,) = [event["event_data"] for event in events if event["event"] == "playbook_on_stats"]
        shutil.rmtree(artifacts)
        return stats["changed"]


def test_runner(reader):
    """The passwords are in a vault beside the inventory, whose password a script tells."""
    reader.install()
    runner = Runner(reader)
    shutil.copytree(reader.examples / "cloudhsm/group_vars", runner.folder / "inventory/group_vars")
    runner.write("env/vault", '#!/bin/sh\necho "the-vault\'s-password"\n')
    (runner.folder / "env/vault").chmod(0o700)
    vault = ["--vault-password-file", str(runner.folder / "env/vault")]
    vault_file = runner.folder / "inventory/group_vars/primus_clients/vault.yml"
    subprocess.run([BIN / "ansible-vault", "encrypt", *vault, vault_file], check=True)
    runner.write("env/cmdline", " ".join(vault))
    passwords = [*PASSWORDS, "the-vault's-password"]
    assert set(runner.run("hsmops.primus.provision", passwords)) == set(reader.hosts)
    assert runner.run("hsmops.primus.provision", passwords) == {}
    assert reader.typed() == TYPED


@pytest.mark.parametrize("path", TYPES, ids=lambda path: path.stem)
def test_credential_type(path):
    """It says what AWX accepts; each secret it asks for reaches a variable, and nothing else is in an injector."""
    credential_type = yaml.safe_load(path.read_text())
    assert credential_type.keys() == TYPE
    assert credential_type["kind"] == "cloud"
    fields = credential_type["inputs"]["fields"]
    names = {field["id"] for field in fields}
    assert all(field.keys() <= FIELD and field["type"] == "string" and field["secret"] for field in fields)
    assert set(credential_type["inputs"]["required"]) == names
    assert credential_type["injectors"].keys() == {"extra_vars"}
    templates = credential_type["injectors"]["extra_vars"].values()
    assert set().union(*(jinja2.meta.find_undeclared_variables(sandbox.parse(text)) for text in templates)) == names


def test_awx(reader, redis_url):
    """A job of AWX: a project, and credentials, whose passwords look like YAML and like templates."""
    nasty = {"svc_example": "a: #b '{{ c }}' \"d\" %e \\", "PARTITION1": "{{ lookup('pipe', 'touch touched') }}: 007"}
    reader.install()
    reader.hsm("set-proxy-password", user="svc_example", value=nasty["svc_example"])
    reader.hsm("set-pkcs11-password", partition="PARTITION1", value=nasty["PARTITION1"])
    inputs = {
        "setup_passwords": f"\nOTHER: 007\r\nPARTITION1: {CLOUDHSM['vault_partition1_setup_password']}\r\n",
        "pkcs11_passwords": f"PARTITION1: {nasty['PARTITION1']}\n",
        "service_users": f"svc_example: {nasty['svc_example']}",
        "gate_store": redis_url,
    }
    project = shutil.copytree(reader.examples / "awx", reader.folder / "project")
    described = "group_vars/primus_clients/primus.yml"
    shutil.copy(reader.examples / "cloudhsm" / described, project / described)
    runner = Runner(reader)
    runner.write("project/provision.yml", (project / "provision.yml").read_text())
    # AWX reads the inventory of a project with ansible-inventory, and gives jobs a script that tells what was read.
    command = [BIN / "ansible-inventory", "-i", project / "inventory.yml", "--list", "--export"]
    inventory = subprocess.run(command, env=reader.environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    (runner.folder / "inventory/inventory.yml").unlink()
    runner.write("inventory/hosts", f"#!/bin/sh\ncat <<'END'\n{inventory}\nEND\n")
    (runner.folder / "inventory/hosts").chmod(0o700)
    words = []
    for path in TYPES:
        runner.write(f"env/{path.stem}", injected(yaml.safe_load(path.read_text()), inputs))
        words.append(f"-e @{runner.folder}/env/{path.stem}")
    runner.write("env/cmdline", " ".join(words))
    passwords = [*PASSWORDS, *nasty.values()]
    assert set(runner.run("provision.yml", passwords)) == set(reader.hosts)
    assert runner.run("provision.yml", passwords) == {}
    assert reader.typed() == TYPED
    assert not list(reader.folder.rglob("touched"))
    import redis

    assert len(list(redis.Redis.from_url(redis_url).scan_iter("*record:*"))) == 3, "of each password"
