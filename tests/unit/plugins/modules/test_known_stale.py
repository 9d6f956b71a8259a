# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another client found counts for the secret here, if that is older."""

import json

import pytest


@pytest.fixture
def fetched(configured):
    """Date the fetch of P2 back, in the ledger."""

    def make(since):
        ledger = json.loads(configured.ledger.read_text())
        ledger["partitions"]["P2"]["since"] = since
        configured.ledger.write_text(json.dumps(ledger))
        return configured

    return make


def test_a_newer_secret_is_tried(configured):
    result = configured.secret(verify="always", known_stale_age=60)
    assert (result["changed"], result["verified"], result["logins"]) == (False, True, 1)


@pytest.mark.parametrize("since", ["2020-01-31T12:00:00Z", "not a time"])
def test_an_older_one_counts_as_rejected_without_a_login(fetched, hsm, since):
    client = fetched(since)
    before = len(hsm.logins())
    result = client.secret(verify="always", known_stale_age=60)
    assert (result["failed"], result["verified"], result["logins"]) == (True, False, 0)
    assert "as the login of another client found, and the setup password given is the one" in result["msg"]
    assert len(hsm.logins()) == before


def test_an_older_one_is_replaced_with_another_setup_password(fetched, hsm):
    client = fetched("2020-01-31T12:00:00Z")
    result = client.secret(verify="always", known_stale_age=60, setup_password=hsm.new_setup_password("P2"))
    assert (result["action"], result["verified"]) == ("updated", True)
    assert {login["verdict"] for login in hsm.logins("setup", "permanent")} == {"ok"}


def test_without_always_it_is_of_no_concern(fetched):
    result = fetched("2020-01-31T12:00:00Z").secret(known_stale_age=60)
    assert (result.get("failed", False), result["changed"]) == (False, False)


@pytest.mark.parametrize("check", [True, False])
def test_a_run_that_died_before_is_told(configured, check):
    assert configured.secret()["interrupted"] is False
    left = configured.secrets.with_name(".secrets.cfg.working-0")
    left.mkdir()
    assert configured.secret(check=check)["interrupted"] is True
    assert left.exists() == check
