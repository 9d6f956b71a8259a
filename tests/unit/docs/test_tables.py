# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of the documentation that are made of the code."""

import error_tables


def test_error_tables():
    """To mend them: PYTHONPATH=build python tests/support/error_tables.py"""
    text = error_tables.PAGE.read_text()
    assert error_tables.filled(text) == text


def test_stale_tables_are_found():
    text = error_tables.PAGE.read_text().replace("setup password expired", "something else")
    assert "setup password expired" in error_tables.filled(text)
    assert "something else" not in error_tables.filled(text)
