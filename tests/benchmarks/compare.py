# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this collection costs a fleet, against plain playbooks and against ping: compare.py [--hosts N] [--forks N] ...

Two scopes: the permanent secret of one partition, and a whole client behind a service proxy with two partitions. Each
is done by this collection and by a plain playbook that does the same with modules of ansible.builtin (plain_*.yml
beside this file). All clients are emulated and reached over the local connection, so what is compared is the work and
not a network. Measured is the wall time, and the CPU time of ansible-playbook and all that it starts.

Prints each measure as it comes to stderr, and tables in Markdown at the end; judges nothing. With --docs,
docs/benchmarks.md and its plot are written anew.
"""

import argparse
import contextlib
import importlib.metadata
import os
import platform
import re
import sys
import tempfile
import typing as t
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
sys.path[:0] = [str(ROOT / folder) for folder in ("build", "tests/emulator", "tests/support")]

from emulated_hsm import CONFIG, PINS, PROXY_PASSWORD, SETUP, WRONG_SETUP, Hsm  # noqa: E402
from fleet import Fleet, measured  # noqa: E402

WAYS = ("hsmops.primus", "plain playbook")
SCOPES = {"one secret": ("P2:0",), "whole client": ("P1:0:svc1", "P2:1:svc1")}
PING = {"name": "ping", "ansible.builtin.ping": {}}


class Measure(t.NamedTuple):
    """One run of a playbook: hosts by outcome, judged setup passwords that were wrong, seconds of wall and CPU time."""

    failed: int
    changed: int
    rejected: int
    wall: float
    cpu: float


def play_of(fleet: Fleet, scope: str, way: str, wrong: str = "", **options) -> dict:
    """The play that makes hosts what the scope says. wrong: a partition whose setup password is a wrong one."""
    names = [partition.split(":")[0] for partition in SCOPES[scope]]
    whole = scope == "whole client"
    partitions = [
        {
            "user_name": name,
            "slot_id": slot_id,
            "client_id": "the same for all, so that files can be copied",
            "setup_password": WRONG_SETUP if name == wrong else SETUP[name],
            "pkcs11_password": PINS[name],
            **({"proxy_user": "svc1"} if whole else {}),
        }
        for slot_id, name in enumerate(names)
    ]
    endpoint = fleet.hsm.endpoint()
    owner, group = (fleet.folder.owner(), fleet.folder.group())
    if way == "plain playbook":
        tasks = yaml.safe_load((HERE / ("plain_client.yml" if whole else "plain_secret.yml")).read_text())
        variables = {
            "benchmarks": str(HERE),
            "ppin": ["{{ home }}/bin/ppin", "-c", "{{ home }}/etc/primus.cfg", "-s", "{{ home }}/etc/.secrets.cfg"],
            "owner": owner,
            "group": group,
            "hsms": endpoint["proxies"],
            "service_user": "svc1",
            "proxy_password": PROXY_PASSWORD,
            "partitions": partitions,
        }
        return {"tasks": tasks, "vars": variables}
    if not whole:
        return {
            "tasks": [fleet.secret(names[0], setup_password=partitions[0]["setup_password"], verify="never", **options)]
        }
    role = {"name": "hsmops.primus.primus_client", "rolespec_validate": False}
    variables = {
        "primus_client_hsms": endpoint["proxies"],
        "primus_client_service_users": [{"name": "svc1", "password": PROXY_PASSWORD}],
        "primus_client_partitions": partitions,
        "primus_provider_home": "{{ home }}",
        "primus_provider_etc": "{{ home }}/etc",
        "primus_provider_owner": owner,
        "primus_provider_group": group,
        "primus_provider_login_shells": False,
    }
    defaults = {f"hsmops.primus.{module}": options for module in ("ppin_secret", "ppin_proxy")}
    tasks = [{"name": "The client is as asked", "ansible.builtin.import_role": role}]
    return {"tasks": tasks, "vars": variables, "module_defaults": defaults}


def measure(fleet: Fleet, play: dict, forks: int) -> Measure:
    before = rejected(fleet)
    run, wall, cpu = measured(fleet, *play["tasks"], play=play, forks=forks)
    changed = {entry["host"] for entry in run.entries if entry["result"].get("changed")}
    failed = {entry["host"] for entry in run.entries if entry["result"]["failed"]}
    measure = Measure(len(failed), len(changed), rejected(fleet) - before, wall, cpu)
    print(f"{len(fleet.hosts)} hosts, {play['tasks'][0]['name']!r}: {measure}", file=sys.stderr, flush=True)
    return measure


def rejected(fleet: Fleet) -> int:
    return sum(count for verdict, count in fleet.verdicts("setup").items() if verdict != "ok")


@contextlib.contextmanager
def new_fleet(hosts: int, scope: str) -> t.Iterator[Fleet]:
    """A fleet of its own with an HSM of its own, which has the published limits."""
    with tempfile.TemporaryDirectory() as folder, Hsm(Path(folder), {**CONFIG, "limits": {}}) as hsm:
        yield Fleet(hsm, Path(folder), hosts, SCOPES[scope])


def compare(scope: str, hosts: int, forks: int) -> dict[str, dict[str, Measure]]:
    """Provision, a converged run and a run with a wrong setup password, by run and way."""
    runs: dict[str, dict[str, Measure]] = {"provision": {}, "converged": {}, "wrong password": {}}
    for way in WAYS:
        with new_fleet(hosts, scope) as fleet:
            for name in ("provision", "converged"):
                runs[name][way] = measure(fleet, play_of(fleet, scope, way), forks)
        with new_fleet(hosts, scope) as fleet:
            runs["wrong password"][way] = measure(fleet, play_of(fleet, scope, way, wrong="P2"), forks)
    return runs


def waiting(scope: str, hosts: int, forks: int) -> dict[str, Measure]:
    """The first provision with the attempt gate and without it."""
    runs = {}
    for name, gate in (("with the gate", True), ("without", False)):
        with new_fleet(hosts, scope) as fleet:
            runs[name] = measure(fleet, play_of(fleet, scope, WAYS[0], gate=gate), forks)
    return runs


def curve(sizes: list[int], forks: int) -> dict[int, dict[str, Measure]]:
    """Runs on fleets where nothing is to be done, and ping, by the number of hosts and what was run."""
    runs = {}
    for size in sizes:
        with new_fleet(size, "whole client") as fleet:
            play = play_of(fleet, "whole client", WAYS[0])
            fleet.run(*play["tasks"], play=play, arguments=["--limit", fleet.hosts[0]])
            fleet.copy_first("primus.cfg", ".secrets.cfg", ".secrets.cfg.ledger")
            for host in fleet.hosts:
                (fleet.folder / host / "etc").chmod(0o750)
            plays = {"ping": {"tasks": [PING]}, "one secret": {"tasks": [fleet.secret("P2")]}, "whole client": play}
            runs[size] = {name: measure(fleet, tasks, forks) for name, tasks in plays.items()}
            if any(run.changed or run.failed for run in runs[size].values()):
                sys.exit(f"Something was left to do for the fleet of {size} hosts: {runs[size]}")
    return runs


def table(titles: t.Sequence[str], rows: t.Iterable[t.Sequence[object]]) -> str:
    """A table in Markdown; floats with two digits."""
    cells = [list(titles), ["---"] * 2 + ["---:"] * (len(titles) - 2)]
    cells += [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def tables(compared: dict, waited: dict, curves: dict, hosts: int) -> t.Iterator[tuple[str, str]]:
    """The results as pairs of a heading and a table."""
    for scope, runs in compared.items():
        rows = []
        for name, ways in runs.items():
            for way, run in ways.items():
                other = ways[WAYS[1]]
                ratios = (run.wall / other.wall, run.cpu / other.cpu) if way == WAYS[0] else ("", "")
                rows.append((name, way, run.changed, run.failed, run.rejected, run.wall, run.cpu, *ratios))
        titles = ("run", "way", "changed", "failed", "rejected logins", "wall s", "CPU s", "wall ratio", "CPU ratio")
        yield f"{scope.capitalize()}, {hosts} hosts", table(titles, rows)
    gated, free = waited["with the gate"], waited["without"]
    rows = [(f"first provision of {hosts} hosts", name, run.wall, run.cpu) for name, run in waited.items()]
    rows.append(("", "ratio", gated.wall / free.wall, gated.cpu / free.cpu))
    yield "What the gate's wait costs when the password is right", table(("run", "", "wall s", "CPU s"), rows)
    rows = []
    for size, runs in curves.items():
        for name, run in runs.items():
            rows.append((size, name, run.wall, run.cpu, 1000 * run.cpu / size, run.cpu / runs["ping"].cpu))
    titles = ("hosts", "run", "wall s", "CPU s", "CPU ms a host", "CPU ratio to ping")
    yield "Nothing to do, at several sizes", table(titles, rows)


def plot(path: Path, compared: dict, curves: dict) -> None:
    """Wall time and rejected logins of the two ways, and CPU time a host over the size of the fleet."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "", "font.size": 9, "axes.spines.top": False})
    matplotlib.rcParams["axes.spines.right"] = False
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    runs = compared["whole client"]
    for axes, title, value, form in (
        (left, "Whole client: wall time, s", "wall", "%.0f"),
        (middle, "Whole client: rejected logins at the HSM", "rejected", "%d"),
    ):
        for shift, way, colour, hatch in ((-0.2, WAYS[0], "#1f5fa8", ""), (0.2, WAYS[1], "#c9c9c9", "//")):
            places = [place + shift for place in range(len(runs))]
            heights = [getattr(run[way], value) for run in runs.values()]
            bars = axes.bar(places, heights, 0.38, label=way, color=colour, hatch=hatch, edgecolor="#333333", lw=0.5)
            axes.bar_label(bars, fmt=form, padding=2)
        axes.set_xticks(range(len(runs)), list(runs))
        axes.set_title(title, fontsize=10)
    left.legend(frameon=False)
    for name, style in (("ping", "s:"), ("one secret", "^--"), ("whole client", "o-")):
        costs = [1000 * curves[size][name].cpu / size for size in curves]
        right.plot(list(curves), costs, style, label=name, color="#333333" if name == "ping" else "#1f5fa8")
    right.set_xscale("log")
    right.set_xticks(list(curves), [str(size) for size in curves])
    right.set_ylim(bottom=0)
    right.set_xlabel("hosts")
    right.set_title("Nothing to do: CPU time a host, ms", fontsize=10)
    right.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def machine(forks: int) -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} CPUs; Python {platform.python_version()}, "
        f"ansible-core {importlib.metadata.version('ansible-core')}; {forks} forks, local connection, pipelining."
    )


DOCUMENT = """<!--
SPDX-FileCopyrightText: The hsmops.primus authors
SPDX-License-Identifier: GPL-3.0-or-later

Written by tests/benchmarks/compare.py --docs
-->

# Benchmarks

![Wall time, rejected logins and CPU time a host; the tables below have the figures](images/benchmarks.svg)

{machine}

Made by `make bench BENCH=--docs`. The clients are emulated and the connection is local, so a real network adds its own
to both ways; `ppin` is the emulator's, a Python program, so each start of it costs more CPU than that of a binary does.
"Plain playbook" does the same with modules of ansible.builtin: it stands in `tests/benchmarks/`. The ratios are those
of this collection to it: below 1 is less. A whole client is one behind a service proxy with two partitions, whose
provider is installed; "rejected logins" are those that count towards the lock-out. The emulated HSM has the defaults of
the vendor's published reference configuration, 100 of them within 300 seconds; at a real one the security officer sets
how many there may be.

{tables}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000], metavar="HOSTS")
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and its plot")
    options = parser.parse_args()
    print(machine(options.forks), flush=True)
    compared = {scope: compare(scope, options.hosts, options.forks) for scope in SCOPES}
    waited = waiting("one secret", options.hosts, options.forks)
    curves = curve(options.sizes, options.forks)
    shown = "\n\n".join(f"## {heading}\n\n{rows}" for heading, rows in tables(compared, waited, curves, options.hosts))
    print(f"\n{shown}")
    folder = ROOT / ("docs" if options.docs else "build/bench")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.md").write_text(DOCUMENT.format(machine=machine(options.forks), tables=shown))
    plot(folder / "images/benchmarks.svg", compared, curves)
    print(f"\nWritten: {folder / 'benchmarks.md'} and its plot.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
