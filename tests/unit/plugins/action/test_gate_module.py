# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module gate, after runs that left something in the store."""

import pytest
from emulated_hsm import REJECTED, WRONG_SETUP


def entries(fleet, **options):
    task = {"name": "gate", "hsmops.primus.gate": options}
    result = fleet.run(task, arguments=["--limit", "host0000"]).results()["host0000"]
    return result["changed"], {(entry["name"], entry["verdict"]) for entry in result["entries"]}


def test_shows_and_clears(new_fleet):
    fleet = new_fleet(3)
    assert entries(fleet) == (False, set())
    fleet.run(fleet.secret("P1"))
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    assert entries(fleet) == (False, {("P1", "accepted"), ("P2", "rejected")})
    assert entries(fleet, name="P1", kind="proxy") == (False, set())
    assert entries(fleet, name="P2", clear=True) == (True, {("P2", "rejected")})
    assert entries(fleet) == (False, {("P1", "accepted")})
    assert entries(fleet, name="P2", clear=True) == (False, set())
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    assert fleet.verdicts("setup") == {"ok": 3, REJECTED: 2}


def test_a_store_whose_key_is_lost_is_cleared_deliberately(new_fleet):
    fleet = new_fleet(2)
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    (fleet.store / f"{'0' * 64}.json").write_text("damaged")
    (fleet.store / "key").unlink()
    failures = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP)).failures()
    assert len(failures) == 2
    for message in failures.values():
        assert "is missing, but the records" in message and "No credential was used." in message
    assert fleet.verdicts("setup") == {REJECTED: 1}
    assert entries(fleet, clear=True) == (True, {("P2", "rejected")})
    assert entries(fleet, clear=True) == (False, set())
    assert fleet.run(fleet.secret("P2")).failures() == {}


def test_until_when_a_setup_password_may_be_valid(new_fleet):
    """The entry keeps the first use, whoever uses the password after that."""
    fleet = new_fleet(2)
    fleet.run(fleet.secret("P2"))

    def validity(**options):
        results = fleet.run({"name": "gate", "hsmops.primus.gate": options}).results().values()
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
    run = fleet.run({"name": "gate", "hsmops.primus.gate": {"setup_password_lifespan": -1}})
    assert "not in 0 to 87600 hours" in str(run.failures())


@pytest.mark.parametrize("strategy", ["linear", "free", "host_pinned"])
def test_under_each_strategy(new_fleet, strategy):
    """The command that a refusal names must work for everybody."""
    fleet = new_fleet(3)
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP), play={"strategy": strategy})
    run = fleet.run({"name": "gate", "hsmops.primus.gate": {"name": "P2", "clear": True}}, play={"strategy": strategy})
    assert run.failures() == {} and len(run.results()) == 3
    assert entries(fleet) == (False, set())
