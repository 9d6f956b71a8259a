# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attempt gate in front of the modules that log in with the secrets that are there, in real playbook runs."""

import pytest
from emulated_hsm import REJECTED


def connectivity(fleet, **options):
    return fleet.ppin("ppin_connectivity_info", **options)


@pytest.mark.parametrize("options", [{"user_name": "P2", "hsm": "hsm0"}, {"hsm": "hsm0"}], ids=str)
def test_a_stale_secret_costs_two_logins(new_fleet, options):
    fleet = new_fleet(4, partitions=("P2:1",) if "user_name" not in options else ("P1:0", "P2:1"))
    fleet.fetch("P2")
    fleet.hsm("rotate-secret", partition="P2")
    run = fleet.run(connectivity(fleet, **options))
    assert fleet.verdicts("permanent") == {REJECTED: 2}
    finders = {host for host, result in run.results().items() if result["logins"]}
    failures = run.failures()
    assert set(failures) == set(fleet.hosts) - finders
    assert all(run.results()[finder]["ok"] is False for finder in finders)
    for message in failures.values():
        assert "The HSM rejects the permanent secret of 'P2' (found by other clients)" in message
        assert " that found out, the latest at 20" in message and all(finder in message for finder in finders)
    assert set(fleet.run(connectivity(fleet, **options)).failures()) == set(fleet.hosts)
    assert fleet.verdicts("permanent") == {REJECTED: 2}


def test_good_secrets_are_tested_by_all(new_fleet):
    fleet = new_fleet(3)
    fleet.fetch("P1", "P2")
    run = fleet.run(connectivity(fleet))
    assert run.failures() == {}
    assert all(result["ok"] and result["logins"] == 6 for result in run.results().values())
    assert fleet.verdicts("permanent") == {"ok": 18}


def test_what_ppin_secret_found_counts_and_the_other_way_round(new_fleet):
    fleet = new_fleet(3)
    fleet.fetch("P2")
    fleet.hsm("rotate-secret", partition="P2")
    assert set(fleet.run(fleet.secret("P2", verify="always")).failures()) == set(fleet.hosts)
    assert set(fleet.run(connectivity(fleet, user_name="P2")).failures()) == set(fleet.hosts)
    assert fleet.verdicts("permanent") == {REJECTED: 2}
    fresh = fleet.hsm.new_setup_password("P2")
    assert fleet.run(fleet.secret("P2", state="updated", setup_password=fresh, verify="never")).failures() == {}
    assert fleet.run(connectivity(fleet, user_name="P2")).failures() == {}


def test_force_and_no_gate(new_fleet):
    fleet = new_fleet(2)
    fleet.fetch("P2")
    fleet.hsm("rotate-secret", partition="P2")
    for options in ({"gate": False}, {"force": True}):
        run = fleet.run(connectivity(fleet, user_name="P2", hsm="hsm0", **options))
        assert run.failures() == {}
        assert [result["logins"] for result in run.results().values()] == [1, 1]


def test_a_log_passes_the_gate_too(new_fleet):
    fleet = new_fleet(4)
    fleet.fetch("P2")
    fleet.hsm("rotate-secret", partition="P2")
    run = fleet.run(fleet.ppin("ppin_log_info", user_name="P2", hsm="hsm1"))
    assert set(run.failures()) == set(fleet.hosts)
    assert fleet.verdicts("permanent") == {REJECTED: 2}
    assert len(run.lines("found by other clients")) >= 2


def test_a_store_that_is_gone_after_the_login_hides_nothing_of_it(new_fleet):
    fleet = new_fleet(1)
    fleet.fetch("P2")
    options = {"user_name": "P2", "hsm": "hsm0"}
    assert fleet.run(connectivity(fleet, **options)).failures() == {}
    fleet.lose_store_at_test()
    run = fleet.run(connectivity(fleet, **options))
    assert run.failures() == {} and run.results()["host0000"]["logins"] == 1
    assert "What this run found is not known to others" in run.output.replace("\n", " ")


def test_turns_of_two_partitions_in_redis(new_fleet, redis_url):
    fleet = new_fleet(4)
    fleet.store = redis_url
    fleet.fetch("P1", "P2")
    fleet.hsm("rotate-secret", partition="P2")
    run = fleet.run(connectivity(fleet, hsm="hsm0"))
    assert fleet.verdicts("permanent") == {"ok": 2, REJECTED: 2}
    assert len(run.failures()) == 2


def test_async_is_refused(new_fleet):
    fleet = new_fleet(1)
    run = fleet.run(connectivity(fleet, task={"async": 30, "poll": 1}))
    assert "cannot pass the attempt gate" in run.failures()["host0000"]
