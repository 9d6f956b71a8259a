# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ppin_credentials before the attempt gate: all credentials of a client in one task, each with its own verdict."""

import collections
import json

import pytest
from emulated_hsm import PINS, PROXY_PASSWORD, SETUP, WRONG_SETUP

USER = {"name": "svc1", "password": PROXY_PASSWORD}


def partition(name, **options):
    return {"user_name": name, "setup_password": SETUP[name], "pkcs11_password": PINS[name], **options}


def credentials(fleet, *partitions, users=(USER,), **options):
    return fleet.ppin("ppin_credentials", partitions=list(partitions), service_users=list(users), **options)


def outcomes(run, host="host0000"):
    """By name of the credential, what was done: the action, or 'failed'."""
    results = run.results()[host]["results"]
    named = {result.get("user_name") or result["service_user"]: result for result in results}
    return {name: "failed" if result.get("failed") else result["action"] for name, result in named.items()}


def verdicts(fleet):
    return collections.Counter(login["verdict"] for login in fleet.hsm.logins())


@pytest.fixture
def fleet(new_fleet):
    return new_fleet(4, partitions=("P1:0:svc1", "P2:1"))


def test_all_credentials_in_one_task(fleet):
    run = fleet.run(credentials(fleet, partition("P2"), partition("P1")))
    assert not run.failures(), run.output
    assert {host: outcomes(run, host) for host in fleet.hosts} == {
        host: {"svc1": "added", "P2": "added", "P1": "added"} for host in fleet.hosts
    }
    assert [list(outcomes(run, host))[0] for host in fleet.hosts] == ["svc1"] * len(fleet.hosts)
    assert set(verdicts(fleet)) == {"ok"}
    again = fleet.run(credentials(fleet, partition("P2"), partition("P1")))
    assert not any(result["changed"] for result in again.results().values())
    assert set(outcomes(again).values()) == {"none"}


def test_a_wrong_setup_password_costs_one_login_and_stops_nothing_else(fleet):
    run = fleet.run(credentials(fleet, partition("P1"), partition("P2", setup_password=WRONG_SETUP)))
    assert set(run.failures()) == set(fleet.hosts)
    assert {host: outcomes(run, host) for host in fleet.hosts} == {
        host: {"svc1": "added", "P1": "added", "P2": "failed"} for host in fleet.hosts
    }
    assert verdicts(fleet)["ok"] and len([login for login in fleet.hsm.logins() if login["verdict"] != "ok"]) == 1
    told = run.failures()["host0003"]
    assert "P2" in told and "P1'" not in told


def test_a_wrong_service_proxy_password_spends_no_setup_password_behind_it(fleet):
    run = fleet.run(credentials(fleet, partition("P1"), partition("P2"), users=[{**USER, "password": "wrong"}]))
    assert {host: outcomes(run, host) for host in fleet.hosts} == {
        host: {"svc1": "failed", "P1": "failed", "P2": "added"} for host in fleet.hosts
    }
    assert len([login for login in fleet.hsm.logins() if login["verdict"] != "ok"]) == 1
    assert "MISSING" in run.failures()["host0000"]


def test_a_user_and_a_partition_of_one_name_with_one_permit(new_fleet):
    """The permits of a name are shared, so a host does not wait for itself."""
    fleet = new_fleet(3, partitions=("P1:0:P1", "P2:1"))

    user = {"name": "P1", "password": "wrong"}
    run = fleet.run(credentials(fleet, partition("P1"), partition("P2"), users=[user], gate_parallel=1, gate_budget=1))
    assert {host: outcomes(run, host)["P2"] for host in fleet.hosts} == dict.fromkeys(fleet.hosts, "added")


def test_what_is_absent_goes_last(fleet):
    assert not fleet.run(credentials(fleet, partition("P1"), partition("P2"))).failures()
    gone = [{"user_name": "P1", "state": "absent"}, partition("P2")]
    run = fleet.run(credentials(fleet, *gone, users=[{"name": "svc1", "state": "absent"}]))
    assert not run.failures(), run.output
    assert outcomes(run) == {"P2": "none", "P1": "removed", "svc1": "removed"}
    assert list(outcomes(run)) == ["P2", "P1", "svc1"]


def test_check_mode_tells_what_the_run_does(fleet):
    task = credentials(fleet, partition("P1"), partition("P2"))
    check = fleet.run(task, arguments=["--check", "--diff"])
    assert not check.failures(), check.output
    assert fleet.hsm.logins() == []
    assert outcomes(check) == outcomes(fleet.run(task))
    assert "-permanent secret of P1: MISSING" in check.output


def test_a_stale_secret_among_others(fleet):
    task = credentials(fleet, partition("P1"), partition("P2"), verify="always")
    assert not fleet.run(task).failures()
    fleet.hsm("rotate-secret", partition="P2")
    before = len(fleet.hsm.logins())
    run = fleet.run(task)
    rejected = [login for login in fleet.hsm.logins()[before:] if login["verdict"] != "ok"]
    assert len(rejected) <= 2
    assert {outcomes(run, host)["P1"] for host in fleet.hosts} == {"none"}
    assert set(run.failures()) == set(fleet.hosts)
    assert "ask for a new one" in run.output or "setup password given is the one that made" in run.output


@pytest.mark.parametrize("pin", ["1", "added", "P1", "P2"])
def test_a_pin_that_masks_a_part_of_the_result(new_fleet, pin):
    fleet = new_fleet(3, partitions=("P1:0", "P2:1"))
    run = fleet.run(credentials(fleet, partition("P1", pkcs11_password=pin), partition("P2"), users=[]))
    assert [login["verdict"] for login in fleet.hsm.logins()].count("ok") >= 3
    assert len([login for login in fleet.hsm.logins() if login["verdict"] != "ok"]) == 1
    for host in fleet.hosts:
        named = [result["user_name"] for result in run.results()[host]["results"]]
        assert named == ["P1", "P2"]


@pytest.mark.parametrize(
    ("partitions", "users", "told"),
    [
        ([{"user_name": "P1", "setup_password": 12345}], [], "x_partitions[0].setup_password"),
        ([partition("P1", setup_password="short")], [], "x_partitions[0].setup_password"),
        ([partition("P1"), partition("P1")], [], "x_partitions[1]"),
        ([], [{"name": "svc1", "password": True}], "x_service_users[0].password"),
        ([], [{"password": "p"}], "x_service_users[0].name"),
    ],
)
def test_bad_input_stops_all_before_anything_is_touched(fleet, partitions, users, told):
    run = fleet.run(credentials(fleet, partition("P2"), *partitions, users=users, prefix="x_"))
    failures = run.failures()
    assert set(failures) == set(fleet.hosts)
    assert "x_" in told and told.partition("[")[0] in failures["host0000"]
    assert fleet.hsm.logins() == []
    assert json.dumps(run.results()["host0000"].get("violations") or [{}]) != "[{}]"


def test_without_the_gate(fleet):
    run = fleet.run(credentials(fleet, partition("P1"), partition("P2"), gate=False))
    assert not run.failures(), run.output
    assert outcomes(run) == {"svc1": "added", "P1": "added", "P2": "added"}


def test_only_what_a_plan_names(fleet):
    plan = {"set": ["svc1"], "fetch": [], "remove": [], "unset": [], "missing": {"service_users": ["svc1"]}}
    run = fleet.run(credentials(fleet, partition("P1"), partition("P2"), plan=plan))
    assert outcomes(run) == {"svc1": "added"}
    nothing = fleet.run(credentials(fleet, partition("P1"), plan={"set": [], "fetch": []}))
    assert outcomes(nothing) == {} and not nothing.results()["host0000"]["changed"]


def test_a_ppin_that_hangs_ends_the_run_for_all_credentials(new_fleet):
    fleet = new_fleet(1, partitions=("P1:0", "P2:1"))
    from emulated_hsm import wrap_ppin

    wrap_ppin(fleet.folder / "host0000/bin/ppin", 'case "$*" in *-a*) sleep 60;; *) exec "$0.real" "$@";; esac')
    run = fleet.run(credentials(fleet, partition("P1"), partition("P2"), users=[], timeout=2, retries=0))
    results = run.results()["host0000"]["results"]
    assert [result["error"]["class"] for result in results] == ["timeout", "state"]
    assert "was not tried" in results[1]["msg"]


@pytest.mark.parametrize("option", [{"backup": "perhaps"}, {"retries": "many"}, {"verify": "sometimes"}, {"spare": 1}])
def test_options_that_the_module_would_refuse_cost_no_budget(fleet, option):
    plan = {"fetch": ["P2"], "missing": {"partitions": ["P2"]}}
    run = fleet.run(credentials(fleet, partition("P2"), plan=plan, **option))
    assert next(iter(option)) in run.failures()["host0000"]
    assert not fleet.store.exists() or not list(fleet.store.glob("*.json"))
    assert fleet.hsm.logins() == []
