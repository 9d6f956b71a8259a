# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an acceptance permits, and what is not clear, in real playbook runs: rejected logins at the HSM."""

import json

import pytest
from emulated_hsm import REJECTED, SETUP, WRONG_SETUP, wrap_ppin


@pytest.mark.parametrize("before", [1, 4])
def test_a_password_that_was_changed_since_the_last_run_costs_two_logins(new_fleet, before):
    """However many hosts had it accepted, and however many forks there are."""
    fleet = new_fleet(6)
    hosts = ",".join(fleet.hosts[:before])
    assert fleet.run(fleet.secret("P2"), arguments=["--limit", hosts]).failures() == {}
    fleet.hsm("new-setup-password", partition="P2")
    run = fleet.run(fleet.secret("P2", state="updated", force=True), forks=6)
    assert set(run.failures()) == set(fleet.hosts)
    assert 1 <= fleet.verdicts("setup")[REJECTED] <= 2
    assert fleet.verdicts("setup")["ok"] == before


def test_a_right_one_reaches_all(new_fleet):
    fleet = new_fleet(8)
    run = fleet.run(fleet.secret("P2", gate_parallel=3), forks=8)
    assert run.failures() == {} and fleet.verdicts("setup") == {"ok": 8}


def test_check_mode_goes_by_what_is_known_and_writes_nothing(new_fleet):
    fleet = new_fleet(2)
    run = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP), arguments=["--check"])
    assert run.failures() == {} and not fleet.store.exists()
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    before = {path.name: path.read_bytes() for path in fleet.store.iterdir()}
    run = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP), arguments=["--check"])
    assert set(run.failures()) == set(fleet.hosts)
    assert all("rejected when" in message for message in run.failures().values())
    assert {path.name: path.read_bytes() for path in fleet.store.iterdir()} == before
    assert fleet.run(fleet.secret("P2"), arguments=["--check"]).failures() == {}
    assert fleet.verdicts("setup") == {REJECTED: 1}


def test_stale_secrets_whose_verdicts_are_lost_stay_within_the_budget(new_fleet):
    """Six hosts would lock the partition, whose limit is five; the modules share one account."""
    fleet = new_fleet(6, partitions=("P2:1",))
    fleet.fetch("P2")
    fleet.hsm("rotate-secret", partition="P2")
    for host in fleet.hosts:
        lose = '"$0.real" "$@" | sed "s/P2: FAILED.*/P2: FAILED (0x8000003B)/"'
        wrap_ppin(fleet.folder / host / "bin/ppin", f'case "$*" in *--test*) {lose};; *) exec "$0.real" "$@";; esac')
    run = fleet.run(fleet.secret("P2", verify="always"))
    assert set(run.failures()) == set(fleet.hosts)
    run = fleet.run(fleet.ppin("ppin_connectivity_info"))
    refused = [message for message in run.failures().values() if "Attempt limit reached for 'P2'" in message]
    assert len(refused) == 6
    assert fleet.hsm.trials("P2") == 3
    run = fleet.run(fleet.secret("P2", state="updated", setup_password=WRONG_SETUP))
    assert set(run.failures()) == set(fleet.hosts) and fleet.hsm.trials("P2") == 3


def test_the_store_tells_of_permits(new_fleet):
    fleet = new_fleet(5)
    fleet.run(fleet.secret("P2"))
    records = [json.loads(path.read_text()) for path in fleet.store.glob("*.json")]
    assert {record["kind"]: record["verdict"] for record in records} == {"secret": "accepted", "pin": "accepted"}
    assert SETUP["P2"] not in str(records)


def test_a_host_that_needs_nothing_never_waits(new_fleet):
    """Neither for a turn nor for a permit, and it costs one run of the module, also right after an acceptance."""
    fleet = new_fleet(6)
    fleet.run(fleet.secret("P2"))
    calls = fleet.count_ppin()
    run = fleet.run(fleet.secret("P2", gate_parallel=1))
    assert run.failures() == {} and not any(result["changed"] for result in run.results().values())
    assert calls() == [1] * 6 and not run.lines("waits for the verdict")
