# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook hsmops.primus.qualify on a client of the emulator, and the attempt gate in front of the module."""

import json
import stat

import pytest
from emulated_hsm import CONFIG, LIMITS, PINS, PROXY_PASSWORD, REJECTED, SETUP, WRONG_SETUP
from find_secrets import all_forms
from fleet import ansible_playbook

VARIABLES = {
    "primus_hosts": "host0000",
    "primus_become": False,
    "primus_client_home": "{{ home }}",
    "primus_client_etc": "{{ home }}/etc",
    "primus_qualify_partition": "P1",
    "primus_qualify_service_user": "svc1",
    "primus_client_partitions": [
        {"user_name": name, "setup_password": SETUP[name], "pkcs11_password": PINS[name]} for name in SETUP
    ],
    "primus_client_service_users": [{"name": "svc1", "password": PROXY_PASSWORD}],
}


@pytest.fixture
def fleet(new_fleet):
    return new_fleet(1, partitions=("P1:0:svc1", "P2:1"))


def run_playbook(fleet, *words, **variables):
    """The output and exit status of the playbook."""
    environment = {"ANSIBLE_HOME": str(fleet.home), "ANSIBLE_NOCOLOR": "1"}
    extra = json.dumps({**VARIABLES, **variables})
    process = ansible_playbook(
        fleet.folder, environment, "-i", fleet.inventory, "hsmops.primus.qualify", "-e", extra, *words
    )
    return process.communicate()[0], process.returncode


def test_the_playbook_as_a_new_user_runs_it(fleet):
    output, status = run_playbook(fleet)
    assert status and "Nothing was tried. Run again with primus_qualify_accept=true" in output
    assert "service proxy password of 'svc1': ppin -p" in output
    assert fleet.hsm.logins() == [] and not (fleet.folder / "primus_qualification").exists()

    own = fleet.folder / "host0000/etc/.secrets.cfg"
    before = own.read_bytes()
    output, status = run_playbook(fleet, primus_qualify_accept=True)
    assert status == 0, output
    assert own.read_bytes() == before
    files = {path.name: path for path in (fleet.folder / "primus_qualification").iterdir()}
    assert set(files) == {"primus_qualification.json", "primus_qualification.html"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    profile = json.loads(files["primus_qualification.json"].read_text())
    assert profile["format"] == 1 and profile["provider"] == "2.2.4" and profile["stopped"] is None
    assert {name for name, found in profile["findings"].items() if found["verdict"] == "differs"} == set()
    page = files["primus_qualification.html"].read_text()
    assert "Qualification of ppin 2.2.4" in page and "Nothing of what was tried." in page
    forms = all_forms([*SETUP.values(), *PINS.values(), PROXY_PASSWORD, "svc1", "host0000", "127.0.0.1", str(own)])
    for path in files.values():
        assert [form for form in forms if len(form) > 3 and form in path.read_bytes()] == []


def test_check_mode_makes_no_login(fleet):
    output, status = run_playbook(fleet, "--check")
    assert status == 0 and "'P1': ppin -a" in output, output
    assert fleet.hsm.logins() == [] and not (fleet.folder / "primus_qualification").exists()


def qualify(fleet, **options):
    given = {"user_name": "P2", "setup_password": SETUP["P2"], "pkcs11_password": PINS["P2"], "accept": True}
    return fleet.ppin("ppin_qualify", **{**given, **options})


def test_the_gate_knows_of_a_rejection(fleet):
    page = fleet.folder / "found/primus_qualification.html"
    first = fleet.run(qualify(fleet, setup_password=WRONG_SETUP, dest=str(page.parent)))
    assert "failed: 0x80005017" in first.failures()["host0000"]
    assert first.failures()["host0000"].endswith(f"What was found is in {page}.") and page.is_file()
    again = fleet.run(qualify(fleet, setup_password=WRONG_SETUP))
    assert "was rejected when host0000 tried" in again.failures()["host0000"]
    assert fleet.verdicts("setup") == {REJECTED: 1}


def test_the_gate_knows_of_a_setup_password_that_the_run_has_spent(fleet):
    fleet.hsm.reset({**CONFIG, "limits": {**LIMITS, "lifespan_setup_pwd": 0}})
    result = fleet.run(qualify(fleet)).results()["host0000"]
    assert result["profile"]["findings"]["setup_twice"]["seen"] == "0x80005018"
    evaluated = fleet.verdicts("setup")
    again = fleet.run(qualify(fleet)).failures()
    assert "host0000" in again and fleet.verdicts("setup") == evaluated


def test_the_gate_counts_a_wrong_attempt(fleet):
    result = fleet.run(qualify(fleet, wrong_attempt=True, gate_budget=1)).results()["host0000"]
    assert not result["failed"] and result["wrong_attempts"] == 1
    assert result["profile"]["findings"]["failed_update"]["seen"] == "removed"
    run = fleet.run(qualify(fleet, wrong_attempt=True, gate_budget=1))
    assert "No wrong attempt is made" in run.output and run.results()["host0000"]["wrong_attempts"] == 0
    assert fleet.verdicts("setup")[REJECTED] == 1


def test_the_gate_counts_a_secret_that_the_update_ended(fleet):
    fleet.hsm.reset({**CONFIG, "limits": {**LIMITS, "fetch_renews_secret": True}})
    result = fleet.run(qualify(fleet)).results()["host0000"]
    assert not result["failed"] and result["wrong_attempts"] == 1
    refused = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP, gate_budget=1)).failures()
    assert "Attempt limit reached for 'P2': 1 of 1" in refused["host0000"]


def test_a_host_that_lies_about_its_wrong_attempts(fleet):
    """It may use up the budget, as it could with wrong attempts, but the run ends."""
    ppin_qualify = {"changed": False, "logins": 0, "wrong_attempts": 10**12, "planned": []}
    fake = fleet.folder / "python"
    fake.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{json.dumps(ppin_qualify)}'\n")
    fake.chmod(0o755)
    run = fleet.run(qualify(fleet, task={"vars": {"ansible_python_interpreter": str(fake)}}))
    assert run.results()["host0000"]["wrong_attempts"] == 10**12
    refused = fleet.run(fleet.secret("P2")).failures()["host0000"]
    assert "Attempt limit reached for 'P2'" in refused
