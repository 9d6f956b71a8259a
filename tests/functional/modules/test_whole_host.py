# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small part of tests/crash/crash.py: each module is killed, and its secrets are looked for on the whole host."""

import shutil
from pathlib import Path

import pytest
from whole_host import CASES, PLACES, Host


@pytest.fixture
def host(running_hsm, tmp_path):
    def make_hsm(config):
        running_hsm.reset(config)
        return running_hsm

    return Host(make_hsm, tmp_path)


def test_what_is_astray_is_found(host):
    host.begin("ppin_secret")
    assert host.astray() == set()
    place = Path(PLACES[-2], f"of-{host.proxy}")
    place.mkdir()
    try:
        (place / "string").write_bytes(sorted(host.forms)[0])
        assert host.astray() == {str(place / "string")}
        assert "not on the list" in host.judge("ppin_secret", 0)[0]
        assert "after client_removal" in host.judge("ppin_secret", "removal")[1]
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_a_killed_module_leaves_nothing_that_another_run_does_not_remove(host):
    for number, case in enumerate(CASES):
        point = host.most_at_stake(case)[number % 2]
        after = number // 2 % 4 if number % 2 else "removal"
        assert host.kill(case, point), (case, point)
        assert host.judge(case, after) == [], (case, point, after)
