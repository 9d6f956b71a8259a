# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan, row by row of the table that the design gives it."""

import itertools

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client.credential_plan import (
    ADD,
    FAIL_NOT_LISTED,
    FAIL_PROXY,
    FAIL_SPENT,
    FAIL_UNREACHABLE,
    NONE,
    REMOVE,
    UPDATE,
    Observed,
    plan_credential,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import CONFIGURED, MISSING, NOT_LISTED

ENTRIES = {"Configured": [CONFIGURED], "MISSING": [MISSING], "not in primus.cfg": [NOT_LISTED]}
ENTRIES["any"] = [CONFIGURED, MISSING, NOT_LISTED]
LEDGER = {"the same": [True], "other, or none": [False], "any": [True, False]}
LOGINS = {"not asked": [None], "ok": ["ok"], "rejected": ["rejected"], "not reachable": ["unreachable"]}
LOGINS["ok, or not asked"] = ["ok", None]
LOGINS["any"] = [None, "ok", "rejected", "unreachable"]
PROXIES = {"there": [False], "MISSING": [True], "any": [False, True]}

# Desired state, entry, ledger against the given password, login, proxy's entry: the plan.
TABLE = [
    ("present", "MISSING", "any", "any", "there", ADD),
    ("present", "Configured", "any", "ok, or not asked", "there", NONE),
    ("present", "Configured", "any", "not reachable", "there", FAIL_UNREACHABLE),
    ("present", "Configured", "other, or none", "rejected", "there", UPDATE),
    ("present", "Configured", "the same", "rejected", "there", FAIL_SPENT),
    ("updated", "MISSING", "any", "any", "there", ADD),
    ("updated", "Configured", "the same", "ok, or not asked", "there", NONE),
    ("updated", "Configured", "other, or none", "any", "there", UPDATE),
    ("updated", "Configured", "the same", "rejected", "there", FAIL_SPENT),
    ("updated", "Configured", "the same", "not reachable", "there", FAIL_UNREACHABLE),
    ("absent", "Configured", "any", "any", "any", REMOVE),
    ("absent", "MISSING", "any", "any", "any", NONE),
    ("absent", "not in primus.cfg", "any", "any", "any", NONE),
    ("present", "not in primus.cfg", "any", "any", "any", FAIL_NOT_LISTED),
    ("updated", "not in primus.cfg", "any", "any", "any", FAIL_NOT_LISTED),
    ("present", "MISSING", "any", "any", "MISSING", FAIL_PROXY),
    ("present", "Configured", "any", "any", "MISSING", FAIL_PROXY),
    ("updated", "MISSING", "any", "any", "MISSING", FAIL_PROXY),
    ("updated", "Configured", "any", "any", "MISSING", FAIL_PROXY),
]

# What force: true makes of a row with state updated. Everything else stays as it is above.
FORCED = [
    ("updated", "Configured", "any", "any", "there", UPDATE),
]


def cases(table):
    for state, entry, ledger, login, proxy, expected in table:
        for values in itertools.product(ENTRIES[entry], LEDGER[ledger], LOGINS[login], PROXIES[proxy]):
            yield state, Observed(*values), expected


ALL = list(cases(TABLE))
WITH_FORCE = {(state, seen): expected for state, seen, expected in [*ALL, *cases(FORCED)]}


@pytest.mark.parametrize(("state", "seen", "expected"), ALL)
def test_row(state, seen, expected):
    assert plan_credential(state, False, seen) == expected


@pytest.mark.parametrize(("state", "seen", "expected"), [(*key, value) for key, value in WITH_FORCE.items()])
def test_row_with_force(state, seen, expected):
    assert plan_credential(state, True, seen) == expected


def test_the_table_is_complete_and_without_contradiction():
    asked = [(state, seen) for state, seen, _expected in ALL]
    every = itertools.product(*(group["any"] for group in (ENTRIES, LEDGER, LOGINS, PROXIES)))
    assert len(asked) == len(set(asked))
    assert set(asked) == set(itertools.product(("present", "updated", "absent"), (Observed(*seen) for seen in every)))


@pytest.mark.parametrize("entry", ENTRIES["any"])
@pytest.mark.parametrize("login", LOGINS["any"])
@pytest.mark.parametrize("state", ["present", "updated"])
def test_a_setup_password_is_never_spent_twice(state, login, entry):
    action = plan_credential(state, False, Observed(entry, True, login, False))
    assert action != UPDATE
    assert action != ADD or entry == MISSING
