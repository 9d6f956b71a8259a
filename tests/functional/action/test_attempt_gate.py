# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules attempt_gate_info and attempt_gate, after runs that left something in the store."""

import pytest
from emulated_hsm import REJECTED, WRONG_SETUP


def info_task(**options):
    return {"name": "Read the entries", "hsmops.primus.attempt_gate_info": options}


def clear_task(**options):
    return {"name": "Clear entries", "hsmops.primus.attempt_gate": {"state": "absent", **options}}


def run_on_one(fleet, task, *arguments, **how):
    return fleet.run(task, arguments=["--limit", "host0000", *arguments], **how)


def outcome(run):
    result = run.results()["host0000"]
    assert not result.get("failed"), result
    return result["changed"], {(entry["name"], entry["verdict"]) for entry in result["entries"]}


def info(fleet, **options):
    changed, entries = outcome(run_on_one(fleet, info_task(**options)))
    assert not changed
    return entries


def clear(fleet, *arguments, **options):
    return outcome(run_on_one(fleet, clear_task(**options), *arguments))


def test_shows_and_clears(new_fleet):
    fleet = new_fleet(3)
    assert info(fleet) == set()
    fleet.run(fleet.secret("P1"))
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    both = {("P1", "accepted"), ("P2", "rejected")}
    assert info(fleet) == both
    assert info(fleet, name="P1") == {("P1", "accepted")}
    assert info(fleet, name="P1", kind="proxy") == set()
    assert clear(fleet, name="P2", kind="proxy") == (False, set())
    assert clear(fleet, "--check", name="P2") == (True, {("P2", "rejected")})
    assert info(fleet) == both
    assert clear(fleet, name="P2", all=False) == (True, {("P2", "rejected")})
    assert info(fleet) == {("P1", "accepted")}
    assert clear(fleet, name="P2") == (False, set())
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    assert fleet.verdicts("setup") == {"ok": 3, REJECTED: 2}
    assert clear(fleet, kind="secret") == (True, both)


def test_clears_nothing_that_was_not_chosen(new_fleet):
    wrong = [
        ({}, "neither name, kind nor all=true is set"),
        ({"all": False}, "neither name, kind nor all=true is set"),
        ({"name": None}, "neither name, kind nor all=true is set"),
        ({"name": "{{ nothing | default(omit) }}"}, "neither name, kind nor all=true is set"),
        ({"name": ""}, "name is empty"),
        ({"name": "", "all": True}, "name is empty"),
        ({"name": "P2", "all": True}, "all=true selects every entry and name only some"),
        ({"name": "P2", "kind": "secret", "all": True}, "all=true selects every entry and name and kind only some"),
        ({"all": True, "state": "{{ omit }}"}, "missing required arguments: state"),
        ({"all": True, "state": "present"}, "value of state must be one of: absent, got: present"),
    ]
    fleet = new_fleet(1)
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    tasks = [{**clear_task(**options), "ignore_errors": True} for options, _message in wrong]
    results = [entry["result"] for entry in fleet.run(*tasks).entries]
    assert len(results) == len(wrong) and all(result["failed"] for result in results)
    for result, (options, message) in zip(results, wrong, strict=True):
        assert message in result["msg"], options
    assert info(fleet) == {("P2", "rejected")}


def test_shows_the_difference(new_fleet):
    fleet = new_fleet(1)
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    run = run_on_one(fleet, clear_task(name="P2"), "--diff", "--check")
    assert run.lines("--- before: entries of the attempt gate") and run.lines('-            "name": "P2",')
    diff = run.results()["host0000"]["diff"]
    assert diff["before"]["entries"] == run.results()["host0000"]["entries"] and diff["after"]["entries"] == []
    assert "diff" not in run_on_one(fleet, clear_task(name="P1"), "--diff").results()["host0000"]


def test_the_action_group_of_the_same_name_is_another_thing(new_fleet):
    """It sets the options of the modules that pass the gate, and is no set of defaults for the module."""
    fleet = new_fleet(1)
    group = {"group/hsmops.primus.attempt_gate": {"gate_store": str(fleet.folder / "other"), "gate_budget": 5}}
    run_on_one(fleet, fleet.secret("P2", setup_password=WRONG_SETUP), play={"module_defaults": group})
    assert info(fleet) == set()
    module = {"hsmops.primus.attempt_gate": {"gate_store": str(fleet.folder / "other")}}
    run = run_on_one(fleet, clear_task(all=True), play={"module_defaults": {**group, **module}})
    assert outcome(run) == (True, {("P2", "rejected")})


def test_a_store_whose_key_is_lost_is_cleared_deliberately(new_fleet):
    fleet = new_fleet(2)
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    damaged = fleet.store / f"{'0' * 64}.json"
    damaged.write_text("damaged")
    (fleet.store / "key").unlink()
    failures = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP)).failures()
    assert len(failures) == 2
    for message in failures.values():
        assert "is missing, but the records" in message and "No credential was used." in message
        assert f"attempt_gate -a 'all=true state=absent gate_store={fleet.store}'" in message
    assert fleet.verdicts("setup") == {REJECTED: 1}
    assert clear(fleet, kind="secret") == (True, {("P2", "rejected")})
    assert damaged.exists()
    checked = run_on_one(fleet, clear_task(all=True), "--check").results()["host0000"]
    assert (checked["changed"], checked["damaged"]) == (True, 1) and damaged.exists()
    assert clear(fleet, all=True) == (True, set())
    assert clear(fleet, all=True) == (False, set())
    assert fleet.run(fleet.secret("P2")).failures() == {}


def test_until_when_a_setup_password_may_be_valid(new_fleet):
    """The entry keeps the first use, whoever uses the password after that."""
    fleet = new_fleet(2)
    fleet.run(fleet.secret("P2"))

    def validity(**options):
        results = fleet.run(info_task(kind="secret", **options)).results().values()
        result, *others = results
        assert all(other == result for other in others)
        assert not result.get("failed"), result
        return [entry["setup_password_validity"] for entry in result["entries"]]

    (first,) = validity()
    assert first["assumption"] == "72 hours from the first use (default of an HSM on premises)"
    assert first["valid_until"] > first["first_used"]
    fleet.run(fleet.secret("P2", state="updated", force=True))
    assert validity() == [first]
    (one_time,) = validity(setup_password_lifespan=0)
    assert one_time["valid_until"] == first["first_used"]
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP, state="updated"))
    assert validity() == [first, None]
    run = fleet.run(info_task(setup_password_lifespan=-1))
    assert "not in 0 to 87600 hours" in str(run.failures())


@pytest.mark.parametrize("strategy", ["linear", "free", "host_pinned"])
def test_under_each_strategy(new_fleet, strategy):
    """The command that a refusal names must work for everybody."""
    fleet = new_fleet(3)
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP), play={"strategy": strategy})
    run = fleet.run(clear_task(name="P2"), play={"strategy": strategy})
    assert run.failures() == {} and len(run.results()) == 3
    assert info(fleet) == set()
