# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module gate, after runs that left something in the store."""

from emulated_hsm import REJECTED, WRONG_SETUP


def entries(fleet, **options):
    task = {"name": "gate", "hsmops.primus.gate": options}
    (result,) = fleet.run(task).results().values()
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
