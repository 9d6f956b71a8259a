# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the attempt gate tells a module, and what the module makes of it: the entry as it stands decides."""

import subprocess

import pytest
from emulated_hsm import PINS

ORIGIN = "0123456789abcdef" * 4


def by_hand(client, *words):
    subprocess.run([client.ppin, "-c", client.config, "-s", client.secrets, *words], check=True, capture_output=True)


def fetch(client, **options):
    """Fetch P2 anew, of this origin."""
    result = client.secret(state="updated", force=True, gate_findings={"origins": {"P2": ORIGIN}}, **options)
    assert result["action"] == "updated"
    return client


def test_the_origin_is_kept_with_the_entry(configured):
    assert configured.info()["partitions"][0]["origin"] is None
    assert fetch(configured).info()["partitions"][0]["origin"] == ORIGIN
    by_hand(configured, "-r", "-e", "P2")
    configured.secret(gate=False)
    assert configured.info()["partitions"][0]["origin"] is None


def test_a_stale_origin_counts_as_rejected_without_a_login(configured, hsm):
    fetch(configured)
    before = len(hsm.logins())
    result = configured.secret(verify="always", gate_findings={"stale": [ORIGIN]})
    assert (result["failed"], result["verified"], result["logins"]) == (True, False, 0)
    assert "of the same origin found, and the setup password given is the one" in result["msg"]
    assert len(hsm.logins()) == before


def test_with_another_setup_password_it_is_replaced(configured, hsm):
    fetch(configured)
    new = hsm.new_setup_password("P2")
    result = configured.secret(verify="always", gate_findings={"stale": [ORIGIN]}, setup_password=new)
    assert (result["action"], result["verified"]) == ("updated", True)


@pytest.mark.parametrize("stale", [[], ["f" * 64]])
def test_another_origin_is_no_concern(configured, stale):
    result = fetch(configured).secret(verify="always", gate_findings={"stale": stale})
    assert (result["changed"], result["verified"], result["logins"]) == (False, True, 1)


def test_without_always_it_is_of_no_concern(configured):
    result = fetch(configured).secret(gate_findings={"stale": [ORIGIN]})
    assert (result.get("failed", False), result["changed"]) == (False, False)


def test_what_the_look_found_is_not_tried_again(configured, hsm):
    hsm("rotate-secret", partition="P2")
    new = hsm.new_setup_password("P2")
    look = configured.secret(verify="always", setup_password=new, check=True, gate_findings={"record": True})
    assert (look["changed"], look["verified"], look["logins"]) == (True, False, 1)
    before = len(hsm.logins("permanent"))
    result = configured.secret(verify="always", setup_password=new, gate_findings={"checked": ["P2"]})
    assert (result["action"], result["verified"]) == ("updated", True)
    assert len(hsm.logins("permanent")) == before + 1, "that of the new secret"


def test_an_entry_that_was_replaced_after_the_look_is_tried(configured, hsm):
    hsm("rotate-secret", partition="P2")
    assert configured.secret(verify="always", check=True, gate_findings={"record": True})["verified"] is False
    by_hand(configured, "-r", "-e", "P2")
    by_hand(configured, "-a", "-e", "P2", hsm.new_setup_password("P2"), PINS["P2"])
    result = configured.secret(verify="always", gate_findings={"checked": ["P2"]})
    assert (result["changed"], result["verified"], result["logins"]) == (False, True, 1)


@pytest.mark.parametrize("check", [True, False])
def test_a_run_that_died_before_is_told(configured, check):
    assert configured.secret()["interrupted"] is False
    left = configured.secrets.with_name(".secrets.cfg.new-0123456789abcdef")
    left.touch()
    assert configured.secret(check=check)["interrupted"] is True
    assert left.exists() == check
