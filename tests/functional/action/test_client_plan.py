# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module client_plan in real runs: what it reads, how often, and what it does not tell."""

import json

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from emulated_hsm import PINS, PROXY_PASSWORD, SETUP

HSMS = [{"host": "localhost", "port": 2310}]
PARTITIONS = [
    {
        "user_name": name,
        "slot_id": number,
        "setup_password": SETUP[name],
        "pkcs11_password": PINS[name],
        **({"proxy_user": "svc1"} if name == "P1" else {}),
    }
    for number, name in enumerate(("P1", "P2"))
]
SERVICE_USERS = [{"name": "svc1", "password": PROXY_PASSWORD}]
SECRETS = [*SETUP.values(), *PINS.values(), PROXY_PASSWORD]


@pytest.fixture
def fleet(new_fleet):
    return new_fleet(1, partitions=("P1:0:svc1", "P2:1"))


def plan_task(name="Plan", task=None, **options):
    return {
        "name": name,
        "hsmops.primus.client_plan": {
            "prefix": "primus_client_",
            "hsms": HSMS,
            "partitions": PARTITIONS,
            "service_users": SERVICE_USERS,
            "home": "{{ home }}",
            "etc": "{{ home }}/new",
            "owner": 0,
            "group": 0,
            "login_shells": False,
            **options,
        },
        "register": "client",
        **(task or {}),
    }


def package_result(run):
    (entry,) = run.entries
    return entry["result"]


def test_a_client_whose_files_are_to_be_moved_is_looked_at_where_they_are(fleet):
    fleet.fetch("P2")
    etc, logins = fleet.folder / "host0000/etc", fleet.hsm.logins()
    for arguments in ([], ["--check"]):
        before = sorted(path.name for path in etc.iterdir())
        result = package_result(fleet.run(plan_task(), arguments=arguments))
        assert not result["failed"] and not result["changed"], result
        assert result["plan"]["move"] == [".secrets.cfg.ledger", ".secrets.cfg", "primus.cfg"]
        now = etc if arguments else fleet.folder / "host0000/new"
        assert result["plan"]["now"]["secrets"] == str(now / ".secrets.cfg")
        assert {each["user_name"]: each["configured"] for each in result["facts"]["partitions"]} == {
            "P1": False,
            "P2": True,
        }
        assert result["plan"]["check_mode"] is bool(arguments)
        assert result["plan"]["credentials"]["set"] == ["svc1"]
        assert sorted(path.name for path in etc.iterdir()) == before
    assert fleet.hsm.logins() == logins


def test_no_password_is_in_what_is_told(fleet):
    run = fleet.run(
        plan_task(), plan_task("Plan wrongly", partitions=[{**PARTITIONS[0], "slot_id": -1}]), arguments=["-vvvv"]
    )
    result = run.entries[0]["result"]
    assert "invocation" not in result and result["wanted"]["partitions"][0]["pkcs11_password"] is True
    assert run.entries[1]["result"]["violations"]
    assert not [secret for secret in SECRETS if secret in run.output or secret in json.dumps(run.entries)]


def test_what_is_wrong_is_told_before_the_client_is_contacted(fleet):
    partitions = [{**PARTITIONS[0], "pkcs11_password": 1234, "slot_id": "x"}, {**PARTITIONS[1], "user_name": True}]
    calls = fleet.count_ppin()
    run = fleet.run(plan_task(partitions=partitions, allow_downgrade="maybe", version=2.2))
    result = package_result(run)
    assert result["failed"]
    assert sorted(violation["where"] for violation in result["violations"]) == [
        "primus_client_allow_downgrade",
        "primus_client_partitions[0].pkcs11_password ('P1')",
        "primus_client_partitions[0].slot_id ('P1')",
        "primus_client_partitions[1].user_name",
        "primus_client_version",
    ]
    sentence = "primus_client_partitions[0].pkcs11_password ('P1') is a number; put it in quotes, or use | string."
    assert sentence in result["msg"] and " Nothing was changed. " in result["msg"]
    with pytest.raises(FileNotFoundError):
        calls()


def test_what_is_wanted_serves_a_second_look(fleet):
    again = {
        "name": "Plan again",
        "hsmops.primus.client_plan": {"wanted": "{{ client.wanted }}"},
        "vars": {"home": "/nowhere"},
    }
    first, second = (entry["result"] for entry in fleet.run(plan_task(), again).entries)
    for each in (first, second):
        each["wanted"].pop("moment")
    assert second["wanted"] == {**first["wanted"], "installed_before": True}
    assert second["plan"]["config"] == {**first["plan"]["config"], "change": True}
    assert (first["plan"]["move"], first["plan"]["templates"]) == ([".secrets.cfg", "primus.cfg"], [])
    assert (second["plan"]["move"], second["plan"]["templates"]) == ([], [".secrets.cfg"])


def test_an_option_that_there_is_not(fleet):
    result = package_result(fleet.run(plan_task(partition=[])))
    assert result["failed"] and "client_plan has no option partition" in result["msg"]


def test_credentials_alone_and_what_would_fail(fleet):
    task = fleet.ppin("client_plan", scope=["credentials"], partitions=PARTITIONS[:1], prefix="primus_secret_")
    result = package_result(fleet.run(task))
    assert result["failed"] and result["msg"].endswith("No login was spent.")
    assert "The service proxy password of 'svc1', the service user of 'P1', is MISSING" in result["msg"]
    task = fleet.ppin("client_plan", scope=["credentials"], partitions=PARTITIONS, service_users=SERVICE_USERS)
    plan = package_result(fleet.run(task))["plan"]
    assert plan["credentials"]["set"] == ["svc1"] and plan["credentials"]["fetch"] == ["P1", "P2"]
    assert plan["credentials"]["missing"] == {"service_users": ["svc1"], "partitions": ["P1", "P2"]}
    assert plan["configure"] is False
    assert fleet.verdicts() == {}


LOOKUP = """
import os
from ansible.plugins.lookup import LookupBase

class LookupModule(LookupBase):
    def run(self, terms, variables=None, **options):
        with open(os.environ["COUNTED"], "a") as file:
            file.write(terms[0] + "\\n")
        return [terms[1]]
"""


def test_each_variable_is_looked_up_once(fleet, monkeypatch):
    (fleet.folder / "lookup_plugins").mkdir()
    (fleet.folder / "lookup_plugins/counted.py").write_text(LOOKUP)
    counted = fleet.folder / "counted"
    monkeypatch.setenv("COUNTED", str(counted))

    def looked_up(name, value):
        return "{{ lookup('counted', '%s', '%s') }}" % (name, value)

    variables = {
        "passwords": {"pin": looked_up("pin", PINS["P1"])},
        "partitions": [
            {
                **PARTITIONS[0],
                "setup_password": looked_up("setup", SETUP["P1"]),
                "pkcs11_password": "{{ passwords.pin }}",
            }
        ],
        "service_users": [{"name": "svc1", "password": looked_up("proxy", PROXY_PASSWORD)}],
    }
    task = plan_task(partitions="{{ partitions }}", service_users="{{ service_users }}")
    result = package_result(fleet.run(task, play={"vars": variables}))
    assert not result["failed"] and len(result["plan"]["move"]) > 0, result
    assert sorted(counted.read_text().split()) == ["pin", "proxy", "setup"]


def test_vaulted_strings_anywhere(fleet):
    password = fleet.folder / "vault"
    password.write_text("of the vault")
    vault = VaultLib([(None, VaultSecret(b"of the vault"))])

    def vaulted(text):
        return {"__ansible_vault": vault.encrypt(text).decode()}

    variables = {
        "partitions": [
            {
                **PARTITIONS[0],
                "user_name": vaulted("P1"),
                "slot_id": vaulted("0"),
                "proxy_user": vaulted("svc1"),
                "state": vaulted("updated"),
                "pkcs11_password": vaulted(PINS["P1"]),
            }
        ],
        "hsms": [{"host": vaulted("localhost"), "port": vaulted("2310")}],
        "log": {"trace_pid": vaulted("true")},
        "users": [{"name": vaulted("svc1"), "password": vaulted(PROXY_PASSWORD)}],
    }
    (fleet.folder / "vars.json").write_text(json.dumps(variables))
    task = plan_task(
        partitions="{{ partitions }}",
        service_users="{{ users }}",
        hsms="{{ hsms }}",
        log="{{ log }}",
        owner="{{ owner }}",
        task=None,
    )
    how = {"arguments": ["--vault-password-file", str(password), "-vvvv"]}
    run = fleet.run(task, play={"vars_files": ["vars.json"], "vars": {"owner": 0}}, **how)
    result = package_result(run)
    assert not result["failed"], result
    assert result["plan"]["credentials"]["fetch"] == ["P1"]
    assert "trace_pid = true;" in result["plan"]["config"]["content"]
    assert not [secret for secret in SECRETS if secret in run.output or secret in json.dumps(run.entries)]
