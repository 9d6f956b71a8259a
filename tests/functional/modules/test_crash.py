# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small part of tests/crash/crash.py: an update that dies at each change of a file, and where power is lost."""

import shutil

import pytest
from crashes import ALL, SCENARIOS, Trial, cuts, kill_at_syscall, lasting, record, syscalls

UPDATE = "secret updated"

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@pytest.fixture
def trial(hsm, tmp_path):
    return Trial(hsm, tmp_path / "client")


def test_what_is_worse_is_found(trial):
    """The judge itself: half a file, a file that others can read, one that stays, and a next run that fails."""
    trial.begin(UPDATE)
    start = trial.starts[ALL]
    half = {**start, ".secrets.cfg": (start[".secrets.cfg"][0][:-100], 0o600, start[".secrets.cfg"][2])}
    trial.put({**half, ".secrets.cfg.stays": (b"a secret", 0o644, 0)})
    faults = " | ".join(trial.judge(UPDATE, trial.files()))
    for words in (
        "at rest: .secrets.cfg is broken",
        "at rest: .secrets.cfg.stays has mode 644",
        "the next run fails",
        "after the next run: .secrets.cfg is broken",
        "after the next run: ['.secrets.cfg.stays'] is left",
    ):
        assert words in faults

    trial.begin(UPDATE)
    trial.put(trial.starts["only P2"])
    faults = " | ".join(trial.judge(UPDATE, trial.files()))
    assert "at rest: no credential of ['P1', 'svc1']" in faults
    assert "after the next run: ['P2'] instead of ['P1', 'P2', 'svc1']" in faults


@needs_strace
def test_killed_at_each_change_of_a_file(trial, tmp_path):
    changing = ("mkdirat", "renameat", "fsync", "unlinkat")
    points = [point for point in syscalls(trial, UPDATE, tmp_path / "log") if point[0] in changing]
    assert {name for name, _number in points} == set(changing)
    for point in points:
        left, killed = kill_at_syscall(trial, UPDATE, point, tmp_path / "log")
        assert killed, point
        assert trial.judge(UPDATE, left) == [], point


@needs_strace
def test_power_is_lost(trial, tmp_path):
    """Whatever of the unsynced gets lost, .secrets.cfg is the old file or the new one, and the next run goes on."""
    before = trial.starts[SCENARIOS[UPDATE][0]][".secrets.cfg"]
    done = record(trial, UPDATE, tmp_path / "log")
    after = trial.files()[".secrets.cfg"]
    assert before[0] != after[0]
    assert lasting(trial, UPDATE, done) == {after[0]}
    found = list(cuts(trial, UPDATE, done))
    assert {files[".secrets.cfg"] for _step, _event, _kind, files in found} == {before[0], after[0]}
    for step, event, kind, files in found[:: len(found) // 5]:
        trial.begin(UPDATE)
        left = {name: (content, 0o600, before[2]) for name, content in files.items()}
        trial.put(left)
        assert trial.judge(UPDATE, left) == [], (step, event, kind)
