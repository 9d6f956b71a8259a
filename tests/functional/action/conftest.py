# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets for the tests of the action plugins."""

import pytest
from fleet import Fleet


@pytest.fixture
def new_fleet(hsm, tmp_path):
    """Make a fleet; the argument is how many clients it has."""
    return lambda count, **how: Fleet(hsm, tmp_path, count, **how)
