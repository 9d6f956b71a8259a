# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Until when a setup password may be valid, and on which assumption."""

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import check_lifespan, validity
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError

FIRST = "2026-02-27T23:30:00Z"


@pytest.mark.parametrize(
    ("lifespan", "behind_proxy", "until", "assumption"),
    [
        (None, False, "2026-03-02T23:30:00Z", "72 hours from the first use (default of an HSM on premises)"),
        (None, True, "2026-03-06T23:30:00Z", "7 days from the first use (CloudHSM); Economy Certified counts from"),
        (24, False, "2026-02-28T23:30:00Z", "24 hours from the first use (setup_password_lifespan)"),
        (24, True, "2026-02-28T23:30:00Z", "24 hours from the first use (setup_password_lifespan)"),
        (8760, True, "2027-02-27T23:30:00Z", "8760 hours from the first use (setup_password_lifespan)"),
        (0, False, FIRST, "one-time: it served one client (setup_password_lifespan)"),
    ],
)
def test_validity(lifespan, behind_proxy, until, assumption):
    result = validity(FIRST, lifespan, behind_proxy)
    assert (result["first_used"], result["valid_until"]) == (FIRST, until)
    assert result["assumption"].startswith(assumption)


@pytest.mark.parametrize("first_used", [None, "", "yesterday", "2026-02-30T00:00:00Z", FIRST + "\n;"])
def test_what_is_no_time_is_not_known(first_used):
    assert validity(first_used, None) is None


@pytest.mark.parametrize("lifespan", [-1, 87601, 10**12])
def test_a_lifespan_that_none_can_have(lifespan):
    with pytest.raises(PpinError, match="is not in 0 to 87600 hours"):
        check_lifespan(lifespan)


@pytest.mark.parametrize("lifespan", [None, 0, 1, 87600])
def test_a_lifespan_that_one_can_have(lifespan):
    check_lifespan(lifespan)
