# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PIN passes the attempt gate, in real playbook runs on a token that all hosts share."""

import pytest
from softhsm import LIBRARY, PIN, WRONG_PIN, make_token

pytest.importorskip("pkcs11")


@pytest.fixture
def look(new_fleet, tmp_path, monkeypatch):
    """Run the module on a fleet: a function from its options to the run. fleet.store is its gate."""
    make_token(tmp_path, monkeypatch)
    fleet = new_fleet(3)

    def run(arguments=(), forks=10, **options):
        defaults = {"library": str(LIBRARY), "token_label": "P1", "gate": True, "gate_store": str(fleet.store)}
        task = {"name": "the task", "hsmops.primus.pkcs11_token_info": {**defaults, **options}}
        return fleet.run(task, arguments=arguments, forks=forks)

    return run


def test_a_wrong_pin_costs_one_login(look):
    run = look(pin=WRONG_PIN, user_name="PARTITION1")
    assert sum(result.get("logins", 0) for result in run.results().values()) == 1
    assert len(run.failures()) == 3
    assert len(run.lines("The PKCS#11 password of 'PARTITION1' was rejected when ")) >= 2
    assert WRONG_PIN not in run.output
    again = look(pin=WRONG_PIN, partition="PARTITION1", force=True)
    assert sum(result.get("logins", 0) for result in again.results().values()) == 0


def test_a_right_one_is_used_by_all(look):
    # One after the other: SoftHSM gives CKR_GENERAL_ERROR now and then where processes log in to its files at once.
    run = look(pin=PIN, forks=1)
    assert run.failures() == {}
    assert {result["logins"] for result in run.results().values()} == {1}


def test_a_slot_id_of_zero_is_a_name(look):
    run = look(pin=PIN, token_label=None, slot_id=0)
    assert len(run.failures()) == 3
    assert all("tokens match, exactly one must" in message for message in run.failures().values())


def test_without_a_pin_nobody_waits(look):
    run = look(token_label=None)
    assert run.failures() == {} and not run.lines("waits for")
    assert look(pin=WRONG_PIN, arguments=["--check"]).failures() == {}
