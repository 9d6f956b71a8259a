# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The attempt gate on large fleets of emulated clients: scale.py [--hosts N] [--right N] [--converged N ...].

Prints what the HSM saw, and wall and CPU time (seconds of all processes of the run). Exits with 1 when a promise does
not hold: one rejected login for a wrong setup password and the right partition provisioned everywhere, two at most for
a password that was changed since the last run, two for a stale secret. The ratio of a right password with and without
the gate is printed and decides nothing.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("build", "tests/emulator", "tests/support")]

from emulated_hsm import PINS, PROXY_PASSWORD, REJECTED, SETUP, WRONG_SETUP, Hsm  # noqa: E402
from fleet import Fleet, measured  # noqa: E402


def wrong_and_right(hsm, folder, hosts, forks):
    """Two partitions behind a proxy, the first one's setup password wrong. True when the promises hold."""
    fleet = Fleet(hsm, folder, hosts, partitions=("P1:0:svc1", "P2:1:svc1"))
    setup = {**SETUP, "P2": WRONG_SETUP}
    task = fleet.ppin(
        "ppin_credentials",
        service_users=[{"name": "svc1", "password": PROXY_PASSWORD}],
        partitions=[
            {"user_name": name, "setup_password": setup[name], "pkcs11_password": PINS[name]} for name in setup
        ],
        verify="never",
    )
    run, wall, cpu = measured(fleet, task, forks=forks)
    verdicts = dict(fleet.verdicts("setup"))
    done = {host: {each.get("user_name"): each for each in result["results"]} for host, result in run.results().items()}
    added = [host for host, results in done.items() if results["P1"]["action"] == "added"]
    failed = [host for host, results in done.items() if results["P2"].get("failed")]
    print(
        f"credentials: {len(failed)} failed with the wrong password, {len(added)} provisioned with the right one, "
        f"{len(run.lines('waits for the verdict'))} waited; at the HSM {verdicts}; {wall:.1f} s wall, {cpu:.1f} s CPU",
        flush=True,
    )
    return verdicts == {REJECTED: 1, "ok": hosts} and len(failed) == len(added) == hosts


def stale_and_changed(hsm, folder, hosts, forks):
    """Secrets that the HSM no longer accepts, and a setup password that was changed since the last run."""
    fleet = Fleet(hsm, folder, hosts, partitions=("P1:0", "P2:1"))
    fleet.fetch("P1", "P2")
    fleet.hsm("rotate-secret", partition="P2")
    before = len(fleet.hsm.logins())
    run, wall, _cpu = measured(fleet, fleet.ppin("ppin_connectivity_info"), forks=forks)
    stale = rejected(fleet, before)
    print(f"stale secret: {hosts} hosts, {stale} rejected logins; {wall:.1f} s wall", flush=True)
    fleet.hsm("new-setup-password", partition="P1")
    before = len(fleet.hsm.logins())
    task = fleet.secret("P1", state="updated", force=True, verify="never")
    run, wall, _cpu = measured(fleet, task, forks=forks)
    changed = rejected(fleet, before)
    print(f"changed setup password: {hosts} hosts, {changed} rejected logins; {wall:.1f} s wall", flush=True)
    return stale == 2 and 1 <= changed <= 2 and len(run.failures()) == hosts


def rejected(fleet, before):
    return sum(login["verdict"] == REJECTED for login in fleet.hsm.logins()[before:])


def with_and_without(hsm, folder, hosts, forks):
    """A right password that nobody has tried, on all hosts at once: wall time with the gate, and without it."""
    ratios = []
    for number in range(3):
        seconds = {}
        for gate in (True, False):
            (folder / f"{number}{gate}").mkdir()
            fleet = Fleet(hsm, folder / f"{number}{gate}", hosts)
            run, seconds[gate], _cpu = measured(fleet, fleet.secret("P2", gate=gate), forks=forks)
            if run.failures():
                return False
        ratios.append(seconds[True] / seconds[False])
        print(f"right password: {hosts} hosts, {seconds[True]:.1f} s with the gate, {seconds[False]:.1f} s without")
    print(f"right password: median ratio {sorted(ratios)[1]:.2f}", flush=True)
    return True


def converged(hsm, folder, hosts, forks):
    """Hosts that need nothing, against ping."""
    fleet = Fleet(hsm, folder, hosts)
    fleet.fetch("P2")
    _run, ping_wall, ping_cpu = measured(fleet, {"name": "ping", "ansible.builtin.ping": {}}, forks=forks)
    run, wall, cpu = measured(fleet, fleet.secret("P2"), forks=forks)
    unchanged = [result for result in run.results().values() if not result["changed"] and not result["failed"]]
    print(
        f"converged: {len(unchanged)} of {hosts} hosts unchanged; {wall:.1f} s wall, {cpu:.1f} s CPU "
        f"({1000 * cpu / hosts:.0f} ms a host); ping {ping_wall:.1f} s wall, {ping_cpu:.1f} s CPU; "
        f"CPU ratio {cpu / ping_cpu:.2f}",
        flush=True,
    )
    return len(unchanged) == hosts and fleet.verdicts("setup") == {"ok": 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=200, help="hosts with two partitions; 0 for none")
    parser.add_argument("--converged", type=int, nargs="*", default=[1000], metavar="HOSTS")
    parser.add_argument("--right", type=int, default=50, help="hosts with a right password; 0 for none")
    parser.add_argument("--forks", type=int, default=50)
    options = parser.parse_args()
    tests = [(wrong_and_right, options.hosts), (stale_and_changed, options.hosts)] if options.hosts else []
    tests += [(with_and_without, options.right)] if options.right else []
    tests += [(converged, hosts) for hosts in options.converged]
    kept = True
    for test, hosts in tests:
        with tempfile.TemporaryDirectory() as folder, Hsm(Path(folder)) as hsm:
            kept = test(hsm, Path(folder), hosts, options.forks) and kept
    print("all promises kept" if kept else "a promise was not kept")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
