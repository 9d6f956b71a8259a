# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The YAML of the documentation is that of docs/examples, and what is there does what the documentation says of it."""

import collections
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import examples
import pytest
import yaml
from emulated_hsm import COLLECTION
from examples import CLOUDHSM, EXAMPLES

PAGES = [
    COLLECTION / "README.md",
    *COLLECTION.glob("docs/*.md"),
    *COLLECTION.glob("docs/docsite/*.md"),
    *COLLECTION.glob("playbooks/README.md"),
    *COLLECTION.glob("roles/*/README.md"),
]

CLOUDHSM_TYPED = {("proxy", "svc_example"), ("setup", "PARTITION1"), ("pkcs11", "PARTITION1")}
PROVISION = ("-i", "cloudhsm/inventory.yml", "hsmops.primus.provision")


def blocks(page):
    """The YAML of a page, also that in a list, without the indentation of the list."""
    found = re.findall(r"^( *)```yaml\n(.*?)^\1```$", page.read_text(), re.M | re.S)
    return [re.sub(f"^{indent}", "", block, flags=re.M) for indent, block in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(COLLECTION)))
def test_yaml_of_a_page_is_in_a_file(page):
    """Whole lines of one, so that all that a reader copies was run."""
    files = [path.read_text() for path in EXAMPLES.rglob("*.yml")]
    for block in blocks(page):
        assert any("\n" + block in text for text in files), textwrap.indent(block, "    ")


def test_pages_have_yaml():
    """As many blocks as fences, so that none is overlooked for the way it is written."""
    found = sum(len(blocks(page)) for page in PAGES)
    assert found == len(re.findall(r"```(yaml|yml)", "".join(page.read_text() for page in PAGES))) > 10


def test_each_file_is_used():
    """By one of these tests: by its name, that of its folder, or with the inventory that it belongs to."""
    tests = "".join(path.read_text() for path in [*Path(__file__).parent.glob("*.py"), Path(examples.__file__)])
    for path in (path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*") if path.is_file()):
        names = [f'"{path}"', f"@{path}", f'/{path}"', f'"{path.parent}"', f'"{path.parent}/{{', f"@{path.parent}/{{"]
        if len(path.parts) > 2:
            names += [f'"{path.parts[0]}/inventory.yml"', f'"{path.parts[0]}"', f'/{path.parent}"']
        assert any(name in tests for name in names), path


def names():
    """What roles and playbooks call their variables and tags, and the filters."""
    for path in [*COLLECTION.glob("roles/**/*.yml"), *COLLECTION.glob("playbooks/*.yml")]:
        yield from re.findall(r"(?<!_)primus_\w+", path.read_text())
    yield from (path.stem for path in COLLECTION.glob("plugins/filter/*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(COLLECTION)))
def test_names_on_a_page(page):
    """What a page calls a variable, a tag, a module, a playbook or a target of make is one."""
    text = page.read_text()
    places = "client|provider|secret|service_proxy|rotate|report|qualify"
    called = set(re.findall(rf"(?<![\w/.])primus_(?:{places})_\w+", text))
    assert called <= set(names())
    modules = re.findall(r"-m hsmops\.primus\.(\w+)", text)
    assert not [name for name in modules if not (COLLECTION / f"plugins/modules/{name}.py").exists()]
    playbooks = re.findall(r"ansible-playbook hsmops\.primus\.(\w+)", text)
    assert not [name for name in playbooks if not (COLLECTION / f"playbooks/{name}.yml").exists()]
    targets = re.findall(r"`make ([a-z-]+)", text)
    makefile = (COLLECTION / "Makefile").read_text()
    assert not [name for name in targets if not re.search(f"^{name}:", makefile, re.M)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(COLLECTION)))
def test_commands_can_read_the_vault(page):
    """Ansible reads it with the inventory, also for what needs no password."""
    if page.name == "testing.md":
        return  # its inventory is that of the examples, which is not encrypted
    lines = re.findall(r"ansible(?:-playbook hsmops\.| primus_clients | app\d\.)[^`\n]*", page.read_text())
    assert [line for line in lines if "--ask-vault-pass" not in line] == []


def run_twice(reader, *words):
    """Everybody is provisioned, by terminal, and a second run changes nothing."""
    assert re.search(r"changed=[1-9]", reader.playbook(*words))
    again = reader.playbook(*words)
    assert re.findall(r"changed=(\d+)", again) == ["0"] * len(reader.hosts)


def test_cloudhsm(reader):
    reader.install()
    check = reader.playbook(*PROVISION, "--check", "--diff")
    assert "'PARTITION1' would be fetched" in check
    assert reader.hsm.logins() == []
    run_twice(reader, *PROVISION)
    assert reader.typed() == CLOUDHSM_TYPED


def test_on_premises(reader):
    reader.install()
    run_twice(reader, "-i", "on_premises/inventory.yml", "-e", "behind=nodes", "hsmops.primus.provision")
    names = ("PAYMENTS", "ARCHIVE")
    assert reader.typed() == {(kind, name) for name in names for kind in ("setup", "pkcs11")}


def test_one_time_setup_passwords(reader):
    """Each serves one client, and an HSM that takes none twice accepts each of them once."""
    vault = examples.load("one_time/group_vars/primus_clients/vault.yml")
    partition = {
        "setup_password": list(vault["vault_payments_setup_passwords"].values()),
        "pkcs11_password": vault["vault_payments_pkcs11_password"],
    }
    reader.hsm.reset({"partitions": {"PAYMENTS": partition}, "limits": {"lifespan_setup_pwd": 0}})
    reader.install()
    run_twice(reader, "-i", "one_time/inventory.yml", "-e", "behind=nodes", "hsmops.primus.provision")
    assert reader.typed() == {("setup", "PAYMENTS"), ("pkcs11", "PAYMENTS")}
    assert len(reader.hsm.logins("setup")) == 2


def test_own_hsms_and_cloudhsm(reader):
    """The emulator has two nodes and two proxies before them: one of the first, both of the second."""
    reader.install(hosts=["app1.example.com"])
    endpoint = json.loads((reader.folder / "hsm/endpoint.json").read_text())
    keys = [hsm["key"] for hsm in examples.load("mixed/inventory.yml")["primus_clients"]["vars"]["primus_client_hsms"]]
    addresses = zip([endpoint["nodes"][0], *endpoint["proxies"]], keys, strict=True)
    hsms = reader.folder / "hsms.yml"
    hsms.write_text(yaml.safe_dump({"primus_client_hsms": [{**address, "key": key} for address, key in addresses]}))
    words = ("-e", "@cloudhsm/group_vars/primus_clients/vault.yml", "-e", f"@{hsms}", "hsmops.primus.provision")
    run_twice(reader, "-i", "mixed/inventory.yml", *words)
    assert reader.typed() == CLOUDHSM_TYPED
    text = (reader.folder / "app1.example.com/etc/primus.cfg").read_text()
    assert re.findall(r"hsm\d(?= :)", text) == keys
    assert text.count("proxy_user") == 2 and text.count("client_id") == len(set(re.findall("client_id.*", text))) == 3


@pytest.mark.parametrize("inventory", ["credential_files/inventory.yml", "credential_files/cloud_console.yml"])
def test_credential_files(reader, inventory):
    reader.install(hosts=["app1.example.com"])
    run_twice(reader, "-i", inventory, "hsmops.primus.provision")
    assert reader.typed() == CLOUDHSM_TYPED


# What a reader has to have besides the collection, for tests of nothing but our side: how the variables fit together.
STAND_IN = """
from ansible.plugins.lookup import LookupBase

class LookupModule(LookupBase):
    def run(self, terms, variables=None, **options):
        assert (terms, options) == (%r, %r), (terms, options)
        with open(__file__ + ".calls", "a") as file:
            print(variables["inventory_hostname"], file=file)
        return [%r]
"""
FOUND = {
    "service_proxy": CLOUDHSM["vault_svc_example_password"],
    "setup": CLOUDHSM["vault_partition1_setup_password"],
    "pkcs11": CLOUDHSM["vault_partition1_pkcs11_password"],
}


def stand_in(reader, lookup):
    """Put one in the place of a look-up of another collection. It returns what is documented of the real one.

    :returns: a function that tells how often it was called for each host since the last time.
    """
    if lookup == "hashi_vault":
        plugin, expected = "vault_kv2_get", (["primus/partition1"], {"engine_mount_point": "secret"}, {"secret": FOUND})
    else:
        file = str(reader.examples / "cloudhsm/partition1.sops.yml")
        plugin, expected = "sops", ([file], {}, yaml.safe_dump(FOUND))
    folder = reader.folder / f"collections/ansible_collections/community/{lookup}/plugins/lookup"
    folder.mkdir(parents=True)
    path = folder / f"{plugin}.py"
    path.write_text(STAND_IN % expected)
    (reader.examples / "cloudhsm/group_vars/primus_clients/vault.yml").unlink()

    def calls():
        log = path.with_name(path.name + ".calls")
        counted = collections.Counter(log.read_text().split())
        log.unlink()
        return counted

    return calls


@pytest.mark.parametrize("lookup", ["hashi_vault", "sops"])
def test_lookups(reader, lookup):
    stand_in(reader, lookup)
    reader.install()
    run_twice(reader, *PROVISION, "-e", f"@lookups/{lookup}.yml")
    assert reader.typed() == CLOUDHSM_TYPED


def test_how_often_a_password_is_looked_up(reader):
    """As docs/secrets.md has it, of three passwords: by the plan, by the credentials, and by Ansible's validation."""
    calls = stand_in(reader, "hashi_vault")
    reader.install()
    words = ("-i", "cloudhsm/inventory.yml", "-e", "@lookups/hashi_vault.yml")
    reader.playbook(*words, "hsmops.primus.provision")
    assert calls() == dict.fromkeys(reader.hosts, 2 * 3)
    reader.playbook(*words, "hsmops.primus.provision")
    assert calls() == dict.fromkeys(reader.hosts, 3)
    reader.playbook(*words, "hsmops.primus.rotate", "--check")
    assert calls() == dict.fromkeys(reader.hosts, 2 * 3)
    reader.playbook(*words, "cloudhsm/primus_client.yml")
    assert calls() == dict.fromkeys(reader.hosts, 2 * 3)


@pytest.mark.parametrize("role", ["primus_client", "primus_provider"])
def test_roles(reader, role):
    """The package is not installed here: the molecule scenarios do that on hosts of their own."""
    reader.install()
    run_twice(reader, "-i", "cloudhsm/inventory.yml", f"cloudhsm/{role}.yml")
    assert reader.typed() == (CLOUDHSM_TYPED if role == "primus_client" else set())


def test_roles_of_credentials(reader):
    """On one host, as these plays go by the places that ppin has by default."""
    reader.install("PARTITION1:0:svc_example")
    limit = ("-i", "cloudhsm/inventory.yml", "--limit", reader.hosts.pop(0))
    reader.hosts = [limit[-1]]
    run_twice(reader, *limit, "cloudhsm/primus_service_proxy.yml")
    run_twice(reader, *limit, "cloudhsm/primus_secret.yml")
    assert reader.typed() == CLOUDHSM_TYPED


def test_elsewhere(reader):
    reader.install("PARTITION1:0:svc_example")
    run_twice(reader, "-i", "cloudhsm/inventory.yml", "cloudhsm/elsewhere.yml")
    assert reader.typed() == CLOUDHSM_TYPED


def test_gate_of_an_own_play(reader, redis_url):
    redis = pytest.importorskip("redis")
    reader.install("PARTITION1:0:svc_example", hosts=["app1.example.com"])
    words = ["-i", "cloudhsm/inventory.yml", "--limit", "app1.example.com", "gate/own_play.yml"]
    run_twice(reader, *words, "-e", f"primus_gate_store={redis_url}")
    assert reader.typed() == CLOUDHSM_TYPED
    assert len(list(redis.Redis.from_url(redis_url).scan_iter("*record:*"))) == 3, "of each password"
    # The address of the example is asked when no other is given.
    reader.install("PARTITION1:0:svc_example", hosts=["app1.example.com"])
    example = ("-e", "@gate/group_vars.yml", "-e", "vault_gate_password=secret")
    assert "redis.example.com" in reader.playbook(*words, *example, succeeds=False)


def test_report(reader):
    reader.install()
    dest = reader.folder / "metrics"
    words = ("-i", "cloudhsm/inventory.yml", "hsmops.primus.report", "-e", "@report/metrics.yml")
    reader.playbook(*words, "-e", f"primus_report_dest={dest}")
    (file,) = dest.iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == ("primus_report.prom", 0o644)


def test_pull(reader):
    """What ansible-pull starts on a host: it runs ansible-playbook, limited to that host, on the local connection."""
    reader.install()
    reader.hosts = ["app1.example.com"]
    run_twice(reader, "-i", "cloudhsm/inventory.yml", "--limit", "app1.example.com", "pull/local.yml")
    assert reader.typed() == CLOUDHSM_TYPED


def test_rotation_runbook(reader):
    """Step by step, with the setup password put into the vault of the example."""
    reader.install()
    reader.playbook(*PROVISION)
    vault = reader.examples / "cloudhsm/group_vars/primus_clients/vault.yml"
    new = reader.hsm("new-setup-password", partition="PARTITION1")
    vault.write_text(vault.read_text().replace(CLOUDHSM["vault_partition1_setup_password"], new))
    rotate = ("-i", "cloudhsm/inventory.yml", "hsmops.primus.rotate")
    spent = len(reader.hsm.logins("setup"))
    assert re.findall(r"changed=(\d)", reader.playbook(*rotate, "--check")) == ["1", "1"]
    assert len(reader.hsm.logins("setup")) == spent
    assert re.findall(r"changed=(\d)", reader.playbook(*rotate)) == ["1", "1"]
    assert len(reader.hsm.logins("setup")) == spent + 2
    # Again: no host spends the password twice, each logs in.
    logins = len(reader.hsm.logins("permanent"))
    assert re.findall(r"changed=(\d)", reader.playbook(*rotate)) == ["0", "0"]
    assert len(reader.hsm.logins("setup")) == spent + 2
    assert len(reader.hsm.logins("permanent")) == logins + 2


def test_rotation_of_setup_passwords_of_another_form(reader):
    """The check can be switched off for the playbook itself, and for all that goes by the role's variable."""
    reader.install("PARTITION1:0:svc_example", hosts=["app1.example.com"])
    vault = reader.examples / "cloudhsm/group_vars/primus_clients/vault.yml"
    vault.write_text(vault.read_text().replace(CLOUDHSM["vault_partition1_setup_password"], "another-form"))
    rotate = ("-i", "cloudhsm/inventory.yml", "--limit", "app1.example.com", "hsmops.primus.rotate", "--check")
    assert "does not have the form of a setup password" in reader.playbook(*rotate, succeeds=False)
    for role in ("client", "rotate"):
        off = f"primus_{role}_setup_password_format_check=false"
        assert "failed=0" in reader.playbook(*rotate, "-e", off)


@pytest.mark.parametrize("proxy_user", ["svc_example", {"hsm1": "svc_example", "hsm0": "svc_example"}])
def test_rotation_leaves_a_service_user_alone_that_stands_before_no_partition(reader, proxy_user):
    reader.install(hosts=["app1.example.com"])
    file = reader.folder / "more.yml"
    users = [{"name": name, "password": "{{ vault_svc_example_password }}"} for name in ("other", "svc_example")]
    passwords = {kind: "{{ vault_partition1_%s }}" % kind for kind in ("setup_password", "pkcs11_password")}
    partition = {"user_name": "PARTITION1", "slot_id": 0, "proxy_user": proxy_user, **passwords}
    file.write_text(yaml.safe_dump({"primus_client_service_users": users, "primus_client_partitions": [partition]}))
    words = ("-i", "cloudhsm/inventory.yml", "--limit", "app1.example.com", "-e", f"@{file}")
    reader.playbook(*words, "hsmops.primus.provision")
    reader.playbook(*words, "hsmops.primus.rotate")
    assert reader.typed() == CLOUDHSM_TYPED


def test_rotation_is_refused_before_anything_is_changed(reader):
    """Also before the new service proxy password is set."""
    reader.install("PARTITION1:0:svc_example", hosts=["app1.example.com"])
    vault = reader.examples / "cloudhsm/group_vars/primus_clients/vault.yml"
    vault.write_text(vault.read_text().replace(CLOUDHSM["vault_partition1_setup_password"], "another-form"))
    rotate = ("-i", "cloudhsm/inventory.yml", "--limit", "app1.example.com", "hsmops.primus.rotate")
    assert re.findall(r"changed=(\d)", reader.playbook(*rotate, succeeds=False)) == ["0"]
    assert reader.hsm.logins() == []


def service_user_absent(reader, partitions):
    """Variables of a fleet that has had a service user; the options that hand them to a run."""
    file = reader.folder / "absent.yml"
    users = [{"name": "svc_example", "state": "absent"}]
    variables = {"primus_client_service_users": users, "primus_client_partitions": partitions, "behind": "nodes"}
    file.write_text(yaml.safe_dump(variables))
    return ("-e", f"@{file}")


def test_a_service_user_goes_with_its_last_partition(reader):
    reader.install(hosts=["app1.example.com"])
    words = (*PROVISION, "--limit", "app1.example.com")
    reader.playbook(*words)
    absent = [{"user_name": "PARTITION1", "state": "absent", "proxy_user": "svc_example"}]
    reader.playbook(*words, *service_user_absent(reader, absent))
    assert "name" not in (reader.folder / "app1.example.com/etc/.secrets.cfg").read_text()


def test_a_service_user_goes_before_a_partition_that_stays(reader):
    """As ppin removes only what primus.cfg names: when it no longer does, the password would stay."""
    reader.install(hosts=["app1.example.com"])
    words = (*PROVISION, "--limit", "app1.example.com")
    reader.playbook(*words)
    secrets = reader.folder / "app1.example.com/etc/.secrets.cfg"
    command = [Path(sys.executable).with_name("ansible"), "app1.example.com", "-i", "cloudhsm/inventory.yml"]
    emulated = ["-e", "@emulator/client.yml", "-e", f"emulated={reader.folder}"]
    ad_hoc = ["-m", "hsmops.primus.ppin_proxy", "-a", "service_user=svc_example state=absent"]
    subprocess.run([*command, *emulated, *ad_hoc], cwd=reader.examples, env=reader.environment, check=True)
    reader.playbook(*words, *service_user_absent(reader, [{"user_name": "PARTITION1", "slot_id": 0}]))
    assert re.findall('name = "(.+)"', secrets.read_text()) == ["PARTITION1"]
