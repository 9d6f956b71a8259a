# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of the benchmarks, made of what compare.py has measured: goals, tables and plot."""

import statistics
import typing as t
from pathlib import Path

from plays import LARGE, ONE, OURS, PLAIN, WAYS, WHOLE

FIRST, AGAIN, WRONG = "first provision", "converged", "wrong setup password"


class Goal(t.NamedTuple):
    """What is measured must be limit at most. why: for a goal that is missed, why, and what it would take."""

    what: str
    limit: float
    measured: t.Callable[["Page"], float | None]
    why: str = ""


GOALS = (
    Goal(
        "First provision of a whole client: CPU time, to that of the plain playbook",
        0.9,
        lambda page: page.ratio("ways", "cpu", {"scope": WHOLE, "run": FIRST, "way": OURS}, {"way": PLAIN}),
    ),
    Goal(
        "First provision of a whole client: wall time, to that of the plain playbook",
        0.9,
        lambda page: page.ratio("ways", "wall", {"scope": WHOLE, "run": FIRST, "way": OURS}, {"way": PLAIN}),
        "one host tries new credentials alone while the others wait, which weighs most in a small fleet",
    ),
    Goal(
        "First provision of a whole client: tasks a host, includes counted",
        6,
        lambda page: page.tasks("ways", scope=WHOLE, run=FIRST, way=OURS),
    ),
    Goal("Converged: tasks a host, includes counted", 1, lambda page: page.tasks("sizes", run=OURS)),
    Goal(
        "Converged: CPU time to that of ping, at the size where that is most",
        1.3,
        lambda page: page.most(page.to_ping(size) for size in page.sizes),
        "an inspection starts ppin twice, and the code of the module is compiled on the client each time",
    ),
    Goal(
        "Converged: CPU time of a host in the largest fleet, to that in the smallest",
        1.1,
        lambda page: page.quotient(page.per_host(OURS, page.sizes[-1]), page.per_host(OURS, page.sizes[0])),
    ),
    Goal(
        "20 partitions, first provision: CPU time, to that of a client with 2",
        1.5,
        lambda page: page.ratio("partitions", "cpu", {"scope": LARGE, "run": FIRST}, {"scope": WHOLE}),
    ),
    Goal(
        "20 partitions, converged: CPU time, to that of a client with 2",
        1.1,
        lambda page: page.ratio("partitions", "cpu", {"scope": LARGE, "run": AGAIN}, {"scope": WHOLE}),
    ),
    Goal("First provision: requests of a host for one password", 2, lambda page: page.requests(FIRST)),
    Goal("Converged: requests of a host for one password", 1, lambda page: page.requests(AGAIN)),
)
"""All goals of the benchmarks, but that of module.py."""


class Page:
    """Reads the results. What has not been measured is None, and has no table."""

    def __init__(self, results: dict[str, t.Any]) -> None:
        self._results = results
        self.sizes = sorted({row["hosts"] for row in self._rows("sizes")}) or [0]

    def _rows(self, part: str, **what: t.Any) -> list[dict]:
        rows = self._results.get(part, [])
        return [row for row in rows if all(row.get(key) == value for key, value in what.items())]

    def mean(self, part: str, value: str, **what: t.Any) -> float | None:
        """The mean over the rounds."""
        values = [row[value] for row in self._rows(part, **what)]
        return statistics.fmean(values) if values else None

    def ratio(self, part: str, value: str, what: dict, other: dict) -> float | None:
        """Of a mean to that of another run, of which only the differences are given."""
        return self.quotient(self.mean(part, value, **what), self.mean(part, value, **{**what, **other}))

    @staticmethod
    def quotient(value: float | None, other: float | None) -> float | None:
        return None if value is None or not other else value / other

    @staticmethod
    def most(values: t.Iterable[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    def tasks(self, part: str, **what: t.Any) -> int | None:
        return self.most(row["executed"] + row["included"] for row in self._rows(part, **what))

    def to_ping(self, size: int) -> float | None:
        return self.ratio("sizes", "cpu", {"hosts": size, "run": OURS}, {"run": "ping"})

    def per_host(self, run: str, size: int) -> float | None:
        """CPU time, milliseconds."""
        cpu = self.mean("sizes", "cpu", run=run, hosts=size)
        return None if cpu is None else 1000 * cpu / size

    def requests(self, run: str) -> int | None:
        """The most requests for one password, on any ansible-core."""
        return self.most(max(row["runs"][run].values()) for row in self._rows("lookups") if "runs" in row)

    # What is shown

    def goals(self) -> str:
        rows = []
        for goal in GOALS:
            measured = goal.measured(self)
            verdict = "not measured" if measured is None else "met" if measured <= goal.limit else "**missed**"
            if verdict == "**missed**" and goal.why:
                verdict += f": {goal.why}"
            rows.append((goal.what, verdict, f"at most {goal.limit:g}", measured))
        return table(("goal", "", "", "measured"), rows)

    def tables(self) -> t.Iterator[tuple[str, str]]:
        """Pairs of a heading and a table."""
        for scope in (ONE, WHOLE):
            rows = [self._way(scope, run, way) for run in (FIRST, AGAIN, WRONG) for way in WAYS]
            titles = ("run", "way", "wall s", "CPU s", "wall ratio", "CPU ratio", *_TASKS, *_HOSTS)
            yield f"{scope.capitalize()}, {self._hosts('ways')} hosts", table(titles, rows)
        yield (
            "Nothing to do, at several sizes",
            table(
                ("hosts", "run", "wall s", "CPU s", "CPU ms a host", "to ping", "to the plain playbook", *_TASKS),
                [
                    (
                        size,
                        run,
                        self.mean("sizes", "wall", **what),
                        self.mean("sizes", "cpu", **what),
                        self.per_host(run, size),
                        self.ratio("sizes", "cpu", what, {"run": "ping"}),
                        self.ratio("sizes", "cpu", what, {"run": PLAIN}),
                        *self._tasks("sizes", what),
                    )
                    for size in self.sizes
                    for run in ("ping", ONE, *WAYS)
                    for what in [{"hosts": size, "run": run}]
                ],
            ),
        )
        rows = []
        for run in (FIRST, AGAIN):
            for scope in (WHOLE, LARGE):
                what = {"run": run, "scope": scope}
                seconds = [self.mean("partitions", value, **what) for value in ("wall", "cpu")]
                ratios = [self.ratio("partitions", value, what, {"scope": WHOLE}) for value in ("wall", "cpu")]
                count = 2 if scope == WHOLE else 20
                rows.append((run, f"{count} partitions", *seconds, *ratios, *self._tasks("partitions", what)))
        titles = ("run", "client", "wall s", "CPU s", "wall ratio", "CPU ratio", *_TASKS)
        yield f"20 partitions against 2, {self._hosts('partitions')} hosts", table(titles, rows)
        rows = []
        for gate in ("with the gate", "without"):
            what = {"gate": gate}
            seconds = [self.mean("gate", value, **what) for value in ("wall", "cpu")]
            rows.append(
                (
                    FIRST,
                    gate,
                    *seconds,
                    *(self.ratio("gate", value, what, {"gate": "without"}) for value in ("wall", "cpu")),
                )
            )
        titles = ("run", "", "wall s", "CPU s", "wall ratio", "CPU ratio")
        yield (
            f"What the attempt gate costs when the password is right, one secret, {self._hosts('gate')} hosts",
            table(titles, rows),
        )
        yield "Requests of one host for a password that is a look-up", self._lookups()
        titles = ("run", "module", "sent", "bytes", "files", "import ms", "CPU ms")
        rows = [
            (row["run"], f"`{row['module']}`", row["sent"], row["bytes"], row["files"], row["wall"], row["cpu"])
            for row in self._rows("payload")
        ]
        rows += [(run, "all of these", *self._sent(run)) for run in (FIRST, AGAIN)]
        yield "Module code that one client is sent", table(titles, rows)

    def _hosts(self, part: str) -> int:
        return next((row["hosts"] for row in self._rows(part)), 0)

    def _way(self, scope: str, run: str, way: str) -> tuple:
        what = {"scope": scope, "run": run, "way": way}
        seconds = [self.mean("ways", value, **what) for value in ("wall", "cpu")]
        ratios = [self.ratio("ways", value, what, {"way": PLAIN}) if way == OURS else None for value in ("wall", "cpu")]
        hosts = [self._each("ways", value, what) for value in ("changed", "failed", "rejected")]
        return (run, way, *seconds, *ratios, *self._tasks("ways", what), *hosts)

    def _tasks(self, part: str, what: dict) -> list[str]:
        return [self._each(part, value, what) for value in ("executed", "included", "skipped", "executions")]

    def _each(self, part: str, value: str, what: dict) -> str:
        """The values of the rounds, once where they are all the same."""
        return ", ".join(str(value) for value in dict.fromkeys(row[value] for row in self._rows(part, **what)))

    def _sent(self, run: str) -> tuple:
        """All that a run sends: how many modules, their bytes and files, and milliseconds to import them all."""
        rows = self._rows("payload", run=run)
        values = ("bytes", "files", "wall", "cpu")
        return (sum(row["sent"] for row in rows), *(sum(row["sent"] * row[value] for row in rows) for value in values))

    def _lookups(self) -> str:
        found = self._rows("lookups")
        names = sorted({name for row in found for asked in row.get("runs", {}).values() for name in asked})
        rows = []
        for row in found:
            if "problem" in row:
                rows.append((row["core"], f"not measured: {row['problem']}"))
            for run, asked in row.get("runs", {}).items():
                rows.append((row["core"], run, *(asked.get(name, 0) for name in names)))
        return table(("ansible-core", "run", *names), rows)

    def text(self) -> str:
        shown = [("Goals", self.goals()), *self.tables()]
        return "\n\n".join(f"## {heading}\n\n{rows}" for heading, rows in shown)

    def document(self) -> str:
        ppin = _PPIN[self._results["ppin"]]
        return _DOCUMENT.format(machine=self._results["machine"], ppin=ppin, tables=self.text())

    def plot(self, path: Path) -> None:
        """Wall time and rejected logins of the two ways, and CPU time a host over the size of the fleet."""
        import matplotlib

        matplotlib.use("svg")
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "", "font.size": 9})
        matplotlib.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
        from matplotlib import pyplot

        figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
        runs = (FIRST, AGAIN, WRONG)
        for axes, title, value in (
            (left, "Whole client: wall time, s", "wall"),
            (middle, "Whole client: rejected logins at the HSM", "rejected"),
        ):
            for shift, way, colour, hatch in ((-0.2, OURS, "#1f5fa8", ""), (0.2, PLAIN, "#c9c9c9", "//")):
                places = [place + shift for place in range(len(runs))]
                heights = [self.mean("ways", value, scope=WHOLE, run=run, way=way) or 0 for run in runs]
                bars = axes.bar(
                    places, heights, 0.38, label=way, color=colour, hatch=hatch, edgecolor="#333333", lw=0.5
                )
                axes.bar_label(bars, fmt="%.0f", padding=2)
            axes.set_xticks(range(len(runs)), [run.replace(" setup", "") for run in runs])
            axes.set_title(title, fontsize=10)
        left.legend(frameon=False)
        for run, label, style, colour in (
            ("ping", "ping", "s:", "#333333"),
            (ONE, ONE, "^--", "#1f5fa8"),
            (OURS, WHOLE, "o-", "#1f5fa8"),
            (PLAIN, f"{WHOLE}, plain playbook", "x-", "#8a8a8a"),
        ):
            right.plot(
                self.sizes, [self.per_host(run, size) or 0 for size in self.sizes], style, label=label, color=colour
            )
        right.set_xscale("log")
        right.set_xticks(self.sizes, [str(size) for size in self.sizes])
        right.minorticks_off()
        right.set_ylim(bottom=0)
        right.set_xlabel("hosts")
        right.set_title("Nothing to do: CPU time a host, ms", fontsize=10)
        right.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


_TASKS = ("executed", "included", "skipped", "executions")
_HOSTS = ("changed", "failed", "rejected logins")


def table(titles: t.Sequence[str], rows: t.Iterable[t.Sequence[object]]) -> str:
    """A table in Markdown; floats with two digits, or none where they are large."""
    cells = [list(titles), ["---"] * 2 + ["---:"] * (len(titles) - 2)]
    cells += [[_cell(cell) for cell in row] + [""] * (len(titles) - len(row)) for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if value < 100 else f"{value:.0f}"
    return "" if value is None else str(value)


_PPIN = {
    "native": "`ppin` is a small native program with the dialogue of the vendor's, but without an HSM\n"
    "(`tests/benchmarks/native_ppin`). It rejects only the wrong setup password of these runs.",
    "emulator": "`ppin` is the emulator's, a Python program, so each start of it costs more CPU time than that of a\n"
    "native one does. The emulated HSM locks a partition after 100 rejected logins within 300 seconds, which is the\n"
    "vendor's published default.",
}

_DOCUMENT = """<!--
SPDX-FileCopyrightText: The hsmops.primus authors
SPDX-License-Identifier: GPL-3.0-or-later

Written by tests/benchmarks/compare.py --docs
-->

# Benchmarks

![Wall time, rejected logins and CPU time a host; the tables below have the figures](images/benchmarks.svg)

{machine}

Measured with `make bench BENCH=--docs`. The connection is local; a real network adds the same time to both ways.
{ppin}

- "Plain playbook" does the same with modules of ansible.builtin: it is in `tests/benchmarks/`. Ratios compare this
  collection to it, and to ping: below 1, the collection needs less. The ways ran alternately, and seconds are means of
  the rounds.
- A "whole client" is behind a service proxy and has two partitions on two nodes. Its provider is installed already.
- Tasks are those of the host with the most tasks. "Executions" are tasks or, if a task loops, its items.
- "Rejected logins" count towards the lock-out; the security officer sets the limit.

{tables}
"""
