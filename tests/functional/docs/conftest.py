# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of the documentation."""

import examples
import pytest


@pytest.fixture(scope="session")
def example_hsm(tmp_path_factory):
    with examples.example_hsm(tmp_path_factory.mktemp("hsm")) as hsm:
        yield hsm


@pytest.fixture
def reader(example_hsm, tmp_path):
    example_hsm.reset(examples.CONFIG)
    return examples.Reader(tmp_path, example_hsm)
