# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of the benchmarks tells of each goal whether it is met."""

import pytest
from page import AGAIN, FIRST, GOALS, Page
from plays import LARGE, OURS, PLAIN, WHOLE

TASKS = {"executed": 4, "included": 2, "skipped": 3, "executions": 5, "changed": 0, "failed": 0, "rejected": 0}


def row(cpu: float, **what) -> dict:
    return {**TASKS, "hosts": 10, "wall": cpu / 2, "cpu": cpu, **what}


def asked(core: str, first: int, again: int) -> dict:
    return {"core": core, "runs": {FIRST: {"PIN": first}, AGAIN: {"PIN": again}}}


RESULTS = {
    "machine": "A machine.",
    "ppin": "native",
    # Two rounds, whose means are compared.
    "ways": [
        row(cpu, scope=WHOLE, run=FIRST, way=way)
        for way, seconds in ((OURS, (8, 10)), (PLAIN, (9, 11)))
        for cpu in seconds
    ],
    "sizes": [
        row(cpu, run=run, hosts=hosts, executed=1, included=0)
        for run, hosts, cpu in (("ping", 10, 3), (OURS, 10, 4), ("ping", 100, 30), (OURS, 100, 36), (PLAIN, 100, 90))
    ],
    "partitions": [
        row(cpu, scope=scope, run=run)
        for scope, run, cpu in ((WHOLE, FIRST, 9), (LARGE, FIRST, 18), (WHOLE, AGAIN, 4), (LARGE, AGAIN, 4.2))
    ],
    "lookups": [asked("2.16.1", 3, 1), asked("2.21.1", 2, 1), {"core": "2.22", "problem": "there is none"}],
}
MEASURED = [0.9, 0.9, 6, 1, 4 / 3, 0.9, 2, 1.05, 3, 1]
MET = [True, True, True, True, False, True, False, True, False, True]


def test_goals_are_measured_and_judged():
    page = Page(RESULTS)
    assert [goal.measured(page) for goal in GOALS] == pytest.approx(MEASURED)
    lines = page.goals().splitlines()[2:]
    assert [line.split(" | ")[1].partition(":")[0] for line in lines] == ["met" if met else "**missed**" for met in MET]


def test_page_says_what_was_not_measured():
    page = Page({"machine": "A machine.", "ppin": "native"})
    assert page.goals().count("not measured") == len(GOALS)
    assert "| 2.22 | not measured: there is none |" in Page(RESULTS).document()


def test_plot_is_made_of_what_there_is(tmp_path):
    pytest.importorskip("matplotlib")
    Page(RESULTS).plot(tmp_path / "plot.svg")
    assert "plain playbook" in (tmp_path / "plot.svg").read_text()
