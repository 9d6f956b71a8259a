# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The attempt gate on large fleets of emulated clients: scale.py [--hosts N] [--forks N] [--converged N ...].

Prints what the HSM saw, and wall and CPU time (seconds of all processes of the run). Exits with 1 when a promise does
not hold: one rejected login for a wrong setup password, and the right partition provisioned everywhere.
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
    proxy = fleet.ppin("ppin_proxy", service_user="svc1", password=PROXY_PASSWORD)
    run, wall, cpu = measured(fleet, proxy, forks=forks)
    print(f"proxy: {hosts} hosts, {len(run.failures())} failed; {wall:.1f} s wall, {cpu:.1f} s CPU", flush=True)
    variables = {"setup": {**SETUP, "P2": WRONG_SETUP}, "pins": PINS}
    secret = fleet.secret("P1", task={"loop": ["P2", "P1"], "vars": variables})
    secret["hsmops.primus.ppin_secret"].update(
        user_name="{{ item }}", setup_password="{{ setup[item] }}", pkcs11_password="{{ pins[item] }}", verify="never"
    )
    run, wall, cpu = measured(fleet, secret, forks=forks)
    verdicts = dict(fleet.verdicts("setup"))
    added = [result for result in run.results("P1").values() if result.get("action") == "added"]
    print(
        f"secrets: {len(run.failures('P2'))} failed with the wrong password, {len(added)} provisioned with the right "
        f"one, {len(run.lines('waits for the verdict'))} waited; at the HSM {verdicts}; {wall:.1f} s wall, "
        f"{cpu:.1f} s CPU",
        flush=True,
    )
    return verdicts == {REJECTED: 1, "ok": hosts} and len(run.failures("P2")) == len(added) == hosts


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
    parser.add_argument("--forks", type=int, default=50)
    options = parser.parse_args()
    tests = [(wrong_and_right, options.hosts)] if options.hosts else []
    tests += [(converged, hosts) for hosts in options.converged]
    kept = True
    for test, hosts in tests:
        with tempfile.TemporaryDirectory() as folder, Hsm(Path(folder)) as hsm:
            kept = test(hsm, Path(folder), hosts, options.forks) and kept
    print("all promises kept" if kept else "a promise was not kept")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
