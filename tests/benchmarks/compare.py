# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this collection costs a fleet, against plain playbooks and against ping: compare.py [--hosts N] [--forks N] ...

Two scopes: the permanent secret of one partition, and a whole client behind a service proxy with two partitions. Each
is done by this collection and by a plain playbook that does the same with modules of ansible.builtin (plain_*.yml
beside this file). All clients are reached over the local connection, so what is compared is the work and not a network.
Their ppin is a native program that accepts what it is told (native_ppin/ppin.c), or, with --ppin emulator, the
emulator's with an emulated HSM. Measured is the wall time, and the CPU time of ansible-playbook and all that it starts.
What is compared takes turns, --rounds times, so that whatever else the machine does meets all alike.

Prints each measure as it comes to stderr, and goals and tables in Markdown at the end. All that was measured is in
build/bench/results.json; --parts measures some of it anew, and takes the rest from there. With --docs,
docs/benchmarks.md and its plot are written anew. A goal that is missed changes no exit status.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import typing as t
from pathlib import Path

import lookups
import page
import payload
from plays import (
    BUILD,
    LARGE,
    ONE,
    OURS,
    PING,
    ROOT,
    WAYS,
    WHOLE,
    Fleet,
    choose_ppin,
    measure,
    new_fleet,
    play_of,
    provision_first,
)

RESULTS = BUILD / "results.json"


class Bench:
    """Measures the parts, each into a list of rows: dictionaries that tell what was run, and its Measure."""

    def __init__(self, options: argparse.Namespace, ppin: Path | None) -> None:
        self.options = options
        self.ppin = ppin

    def fleet(self, hosts: int, scope: str) -> t.ContextManager[Fleet]:
        return new_fleet(hosts, scope, self.ppin)

    def row(self, fleet: Fleet, play: dict, run: str, **what: t.Any) -> dict:
        expected = {"changes": run in (page.FIRST, page.WRONG), "fails": run == page.WRONG}
        done = measure(fleet, play, self.options.forks, **expected)
        what["run"] = run
        print(f"{len(fleet.hosts)} hosts, {', '.join(map(str, what.values()))}: {done}", file=sys.stderr, flush=True)
        return {**what, "hosts": len(fleet.hosts), **done._asdict()}

    def rounds(self, things: t.Sequence[t.Any]) -> t.Iterator[t.Any]:
        """Each of these things in each round: in one order, then in the other."""
        for number in range(self.options.rounds):
            yield from things if number % 2 == 0 else reversed(things)

    def ways(self) -> list[dict]:
        """Both ways: the first provision, a converged run, and a first provision with a wrong setup password."""
        rows = []
        for scope, way in self.rounds([(scope, way) for scope in (ONE, WHOLE) for way in WAYS]):
            with self.fleet(self.options.hosts, scope) as fleet:
                for run in (page.FIRST, page.AGAIN):
                    rows.append(self.row(fleet, play_of(fleet, scope, way), scope=scope, run=run, way=way))
            with self.fleet(self.options.hosts, scope) as fleet:
                play = play_of(fleet, scope, way, wrong="P2")
                rows.append(self.row(fleet, play, scope=scope, run=page.WRONG, way=way))
        return rows

    def gate(self) -> list[dict]:
        """The first provision with the attempt gate and without it."""
        rows = []
        for gate in self.rounds([True, False]):
            with self.fleet(self.options.hosts, ONE) as fleet:
                play = play_of(fleet, ONE, OURS, gate=gate)
                rows.append(self.row(fleet, play, run=page.FIRST, gate="with the gate" if gate else "without"))
        return rows

    def sizes(self) -> list[dict]:
        """Nothing to do on fleets of several sizes: ping, and both ways."""
        rows = []
        for size in self.options.sizes:
            with contextlib.ExitStack() as stack:
                fleets = {}
                for way in WAYS:
                    fleets[way] = stack.enter_context(self.fleet(size, WHOLE))
                    provision_first(fleets[way], WHOLE, way)
                ours = fleets[OURS]
                runs = [("ping", ours, PING), (ONE, ours, {"tasks": [ours.secret("P2")]})]
                runs += [(way, fleet, play_of(fleet, WHOLE, way)) for way, fleet in fleets.items()]
                for name, fleet, play in self.rounds(runs):
                    rows.append(self.row(fleet, play, run=name))
        return rows

    def partitions(self) -> list[dict]:
        """A client with 20 partitions against one with 2: the first provision and a converged run."""
        rows = []
        for scope in self.rounds([WHOLE, LARGE]):
            with self.fleet(max(1, self.options.hosts // 2), scope) as fleet:
                for run in (page.FIRST, page.AGAIN):
                    rows.append(self.row(fleet, play_of(fleet, scope, OURS), scope=scope, run=run))
        return rows

    def lookups(self) -> list[dict]:
        """The requests for each password of one host, on this ansible-core and on others."""
        rows = [{"core": importlib.metadata.version("ansible-core"), "runs": lookups.count(self.ppin)}]
        for core in self.options.core:
            try:
                rows.append(lookups.count_on(core, self.options.ppin))
            except OSError as exc:
                rows.append({"core": core, "problem": str(exc)})
            print(rows[-1], file=sys.stderr, flush=True)
        return rows

    def payload(self) -> list[dict]:
        """The module code that a client is sent."""
        return [found._asdict() for found in payload.collect(20, self.ppin)]


PARTS = ("lookups", "payload", "ways", "gate", "partitions", "sizes")


def machine(forks: int) -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} CPUs; Python {platform.python_version()}, "
        f"ansible-core {importlib.metadata.version('ansible-core')}; {forks} forks, local connection, pipelining."
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100], metavar="HOSTS")
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ppin", choices=["native", "emulator"], default="native")
    parser.add_argument(
        "--core", nargs="*", default=["2.16", "2.21"], metavar="VERSION", help="count look-ups on these too"
    )
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="measure these only; none: only show")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and its plot")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() and set(options.parts) < set(PARTS) else {}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an ordinary installation keeps what it has compiled
    bench = Bench(options, choose_ppin(options.ppin))
    for part in PARTS:
        if part in options.parts:
            results[part] = getattr(bench, part)()
            results["machine"], results["ppin"] = machine(options.forks), options.ppin
            RESULTS.write_text(json.dumps(results, indent=1))
    shown = page.Page(results)
    print(f"\n{shown.text()}")
    folder = ROOT / ("docs" if options.docs else "build/bench")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.md").write_text(shown.document())
    shown.plot(folder / "images/benchmarks.svg")
    print(f"\nWritten: {folder / 'benchmarks.md'} and its plot.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
