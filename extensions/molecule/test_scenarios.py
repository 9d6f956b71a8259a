# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each molecule scenario; the output is in build/molecule/SCENARIO.log. They need root: see README.md."""

import os
import sys
from pathlib import Path

import pytest
from isolated import ROOT, run_logged

SCENARIOS = sorted(path.parent.name for path in Path(__file__).parent.glob("*/molecule.yml"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario):
    command = [Path(sys.executable).with_name("molecule"), "test", "--no-command-borders", "--scenario-name", scenario]
    # Hosts of different scenarios have the same names: where facts are cached, each scenario has its own.
    own = {"ANSIBLE_CACHE_PLUGIN_PREFIX": scenario, "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"}
    run_logged(command, ROOT / f"build/molecule/{scenario}.log", cwd=ROOT, env={**os.environ, **own})
