# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attempt gate in real playbook runs: what each host says, and what the HSM saw."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from emulated_hsm import PINS, PROXY_PASSWORD, REJECTED, SETUP, WRONG_SETUP, wait_for, wrap_ppin


def finder_of(run, item=None):
    (finder,) = [host for host, result in run.results(item).items() if result["logins"]]
    return finder


@pytest.mark.parametrize("strategy", ["linear", "free", "host_pinned"])
def test_a_wrong_setup_password_costs_one_login(new_fleet, strategy):
    fleet = new_fleet(5)
    run = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP), play={"strategy": strategy})
    assert fleet.verdicts("setup") == {REJECTED: 1}
    failures = run.failures()
    assert set(failures) == set(fleet.hosts)
    finder = finder_of(run)
    for host in set(fleet.hosts) - {finder}:
        assert f"was rejected when {finder} tried at 20" in failures[host]
        assert f"{REJECTED} login to the HSM failed" in failures[host]
        assert f"{host} did not use it" in failures[host]
        assert f"hsmops.primus.attempt_gate -a 'name=P2 state=absent gate_store={fleet.store}'" in failures[host]
        assert run.results()[host]["error"]["class"] == "rejected"
        assert run.results()[host]["changed"] is False
    assert WRONG_SETUP not in run.output


def test_a_right_one_is_used_by_all(new_fleet):
    fleet = new_fleet(5)
    run = fleet.run(fleet.secret("P2"))
    assert run.failures() == {}
    assert {result["action"] for result in run.results().values()} == {"added"}
    assert fleet.verdicts("setup") == {"ok": 5}
    assert run.lines("waits for the verdict")


@pytest.mark.parametrize("strategy", ["linear", "free"])
def test_of_two_partitions_the_right_one_is_provisioned_everywhere(new_fleet, strategy):
    fleet = new_fleet(4)
    task = fleet.secret("P1", task={"loop": ["P2", "P1"]})
    options = task["hsmops.primus.ppin_secret"]
    options.update(user_name="{{ item }}", setup_password="{{ setup[item] }}", pkcs11_password="{{ pins[item] }}")
    variables = {"setup": {**SETUP, "P2": WRONG_SETUP}, "pins": PINS}
    run = fleet.run(task, play={"strategy": strategy, "vars": variables})
    assert set(run.failures("P2")) == set(fleet.hosts)
    assert run.failures("P1") == {}
    assert {result["action"] for result in run.results("P1").values()} == {"added"}
    assert fleet.verdicts("setup") == {REJECTED: 1, "ok": 4}


def test_a_rejected_one_stays_so_until_it_is_cleared(new_fleet):
    fleet = new_fleet(3)
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    run = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP, gate_window=1))
    assert set(run.failures()) == set(fleet.hosts)
    assert fleet.verdicts("setup") == {REJECTED: 1}
    assert fleet.run(fleet.secret("P2")).failures() == {}, "another credential is not concerned"


def test_the_budget_stops_different_wrong_ones(new_fleet):
    fleet = new_fleet(5)
    run = fleet.run(fleet.secret("P2", setup_password="ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-Z{{ inventory_hostname[-4:] }}"))
    assert fleet.verdicts("setup") == {REJECTED: 3}
    failures = run.failures()
    assert set(failures) == set(fleet.hosts)
    stopped = [msg for msg in failures.values() if "Attempt limit reached for 'P2': 3 of 3 failed" in msg]
    assert len(stopped) == 2
    run = fleet.run(fleet.secret("P2", gate_budget=4))
    assert run.failures() == {}


def test_what_was_not_judged_leaves_it_to_the_next_host(new_fleet):
    fleet = new_fleet(3)
    fleet.hsm("busy", count=1)
    run = fleet.run(fleet.secret("P2", retries=0))
    assert len(run.failures()) == 1
    assert "0x80000018" in next(iter(run.failures().values()))
    assert fleet.verdicts("setup")["ok"] == 2


@pytest.mark.parametrize("verify", ["changed", "always"], ids=["before its look", "after its look"])
def test_a_host_that_waits_has_nothing_of_the_module_on_its_disk(new_fleet, tmp_path, verify):
    """Without pipelining, the module and its passwords are in a file. One host is accepted, one does not end."""
    fleet = new_fleet(3)
    blocked, go, said = tmp_path / "blocked", tmp_path / "go", tmp_path / "said"
    for host in fleet.hosts:
        block = f"echo {host} > {blocked}; while [ ! -e {go} ]; do sleep 0.1; done"
        script = f'case "$*" in *"-a -e"*) mkdir {tmp_path}/first 2>&- || {{ {block}; }};; esac; exec "$0.real" "$@"'
        wrap_ppin(fleet.folder / host / "bin/ppin", script)
    with said.open("w") as stdout:
        task = fleet.secret("P2", verify=verify, gate_parallel=1)
        process = fleet.start(task, play={"vars": {"ansible_pipelining": False}}, stdout=stdout)

    def another_waits():
        waiting = re.findall(r"^(\S+) waits for the verdict", said.read_text(), re.M)
        return blocked.exists() and set(waiting) - {blocked.read_text().strip(), ""}

    wait_for(lambda: another_waits() or process.poll() is not None)
    wait_for(lambda: len(list(tmp_path.glob("tmp/ansible-tmp-*/AnsiballZ_*"))) == 1)
    go.touch()
    assert process.wait(120) == 0, said.read_text()
    assert fleet.verdicts("setup") == {"ok": 3}, "the one that waited ran the module afterwards"
    assert list(tmp_path.glob("tmp/ansible-tmp-*")) == []


def test_what_may_have_been_judged_counts(new_fleet):
    fleet = new_fleet(5)
    fleet.hsm("disable", partition="P2")
    run = fleet.run(fleet.secret("P2"))
    assert set(run.failures()) == set(fleet.hosts)
    assert fleet.verdicts("setup") == {"0x80005019": 3}
    assert len([msg for msg in run.failures().values() if "made no login to it" in msg]) == 2


def test_a_converged_host_runs_the_module_once(new_fleet):
    fleet = new_fleet(2)
    fleet.run(fleet.secret("P2"))
    calls = fleet.count_ppin()
    run = fleet.run(fleet.secret("P2"))
    assert calls() == [1] * 2
    assert not any(result["changed"] for result in run.results().values())
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    assert calls() == [2] * 2, "also with a credential that nobody has tried"
    assert fleet.verdicts("setup") == {"ok": 2}


def test_a_wrong_service_proxy_password_costs_one_login(new_fleet):
    fleet = new_fleet(4, partitions=("P1:0:svc1",))
    run = fleet.run(fleet.ppin("ppin_proxy", service_user="svc1", password="wrong"))
    assert set(run.failures()) == set(fleet.hosts)
    assert fleet.verdicts("proxy") == {REJECTED: 1}
    assert fleet.run(fleet.ppin("ppin_proxy", service_user="svc1", password=PROXY_PASSWORD)).failures() == {}


def test_without_the_gate_every_host_tries(new_fleet):
    fleet = new_fleet(3)
    run = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP, gate=False))
    assert set(run.failures()) == set(fleet.hosts)
    assert fleet.verdicts("setup") == {REJECTED: 3}
    assert not fleet.store.exists()


def test_check_mode_spends_nothing(new_fleet):
    fleet = new_fleet(3)
    run = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP), arguments=["--check"])
    assert [result["action"] for result in run.results().values()] == ["added"] * 3
    assert fleet.verdicts() == {}


@pytest.mark.parametrize("keywords", [{"delegate_to": "host0000"}, {"throttle": 2}], ids=str)
def test_keywords_of_a_task_and_batches(new_fleet, keywords):
    fleet = new_fleet(4)
    # A batch of which no host is left would end the play.
    rescue = {"name": "The host stays in the play", "ansible.builtin.meta": "noop"}
    block = {"block": [fleet.secret("P2", setup_password=WRONG_SETUP, task=keywords)], "rescue": [rescue]}
    run = fleet.run(block, play={"serial": 2})
    assert set(run.failures()) == set(fleet.hosts)
    assert fleet.verdicts("setup") == {REJECTED: 1}


def test_a_store_on_a_full_disk_fails_before_a_login(new_fleet, full_disk):
    fleet = new_fleet(2)
    run = fleet.run(fleet.secret("P2", gate_store=str(full_disk / "gate")))
    assert set(run.failures()) == set(fleet.hosts)
    for msg in run.failures().values():
        assert "The attempt gate cannot" in msg and "No space left on device. No credential was used." in msg
    assert fleet.verdicts() == {}


@pytest.mark.parametrize("names", [{"user_name": "P2", "name": "P1"}, {"partition": "P1", "user_name": "P2"}], ids=str)
def test_the_name_that_counts_is_that_which_the_module_goes_by(new_fleet, names):
    """Where an option and an alias of it are both given: module_defaults may have one, and a task the other."""
    fleet = new_fleet(1, partitions=("P1:0", "P2:1"))
    task = fleet.ppin("ppin_secret", setup_password=SETUP["P1"], pkcs11_password=PINS["P1"])
    task["hsmops.primus.ppin_secret"].update(names)
    run = fleet.run(task)
    (result,) = run.results().values()
    assert (result["action"], result["user_name"]) == ("added", "P1")
    assert {json.loads(path.read_text())["name"] for path in fleet.store.glob("*.json")} == {"P1"}


def test_a_store_that_is_gone_after_a_login_hides_nothing_of_it(new_fleet):
    """A host finds its secret rejected, cannot note it, and would then need the turn to fetch a new one."""
    fleet = new_fleet(1)
    fleet.fetch("P2")
    fleet.hsm("rotate-secret", partition="P2")
    fleet.lose_store_at_test()
    none = {"setup_password": None, "pkcs11_password": None}
    run = fleet.run(fleet.secret("P2", verify="always", **none))
    (result,) = run.results().values()
    assert result["verified"] is False and result["logins"] == 1 and "needs setup_password" in result["msg"]
    assert "What this run found is not known to others" in run.output.replace("\n", " ")

    fleet.store.unlink()
    fresh = fleet.hsm.new_setup_password("P2")
    run = fleet.run(fleet.secret("P2", verify="always", setup_password=fresh))
    (result,) = run.results().values()
    assert "The attempt gate cannot" in result["msg"] and "No further credential was used." in result["msg"]
    assert result["failed"] and result["logins"] == 1
    assert fleet.verdicts("permanent") == {REJECTED: 2}


def test_the_store_may_be_redis(new_fleet, redis_url):
    fleet = new_fleet(3)
    run = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP, gate_store=redis_url))
    assert set(run.failures()) == set(fleet.hosts)
    assert fleet.verdicts("setup") == {REJECTED: 1}
    assert redis_url not in run.output
    assert fleet.run(fleet.secret("P2", gate_store=redis_url)).failures() == {}
    assert not fleet.store.exists()


@pytest.mark.parametrize("kind", ["folder", "redis"])
def test_two_controllers_that_share_a_store_spend_one_login(new_fleet, kind, request):
    fleet = new_fleet(6)
    store = request.getfixturevalue("redis_url") if kind == "redis" else str(fleet.store)
    task = fleet.secret("P2", setup_password=WRONG_SETUP, gate_store=store)
    slices = [",".join(fleet.hosts[:3]), ",".join(fleet.hosts[3:])]
    runs = [fleet.start(task, arguments=["--limit", hosts]) for hosts in slices]
    for run in runs:
        assert run.communicate()[0].count("failed=1") == 3
    assert fleet.verdicts("setup") == {REJECTED: 1}


def test_accepted_secrets_are_verified_once_each(new_fleet):
    fleet = new_fleet(3)
    fleet.fetch("P2")
    run = fleet.run(fleet.secret("P2", verify="always"))
    assert [result["verified"] for result in run.results().values()] == [True] * 3
    assert fleet.verdicts("permanent") == {"ok": 3}


def test_a_worker_killed_while_it_tries_leaves_the_turn(new_fleet):
    fleet = new_fleet(3)
    fleet.hsm("hang", state="on")
    process = fleet.start(fleet.secret("P2"))

    def trying():
        return any('"running"' in path.read_text() for path in fleet.store.glob("*.json")) and holders(fleet.store)

    os.kill(wait_for(trying, process)[0], signal.SIGKILL)
    process.kill()
    # Now the module of the host whose worker was killed may end its fetch. With ansible-core 2.16 the other workers
    # live on, too, and each would wait for an HSM that hangs.
    fleet.hsm("hang", state="off")
    process.communicate()
    run = fleet.run(fleet.secret("P2"))
    assert run.failures() == {}
    assert all(entry["configured"] for result in run.results().values() for entry in result["entries"])


def holders(store):
    """The processes that have a lock in the folder."""
    inodes = {path.stat().st_ino for path in store.glob("*.lock")}
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line]
    return [int(fields[4]) for fields in locks if int(fields[5].rpartition(":")[2]) in inodes]


def test_a_task_with_async_runs_without_the_gate_only(new_fleet):
    fleet = new_fleet(1)
    later = {"async": 60, "poll": 1}
    assert "cannot pass the attempt gate" in str(fleet.run(fleet.secret("P2", task=later)).failures())
    assert fleet.run(fleet.secret("P2", task=later, gate=False)).failures() == {}
