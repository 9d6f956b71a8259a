# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""This collection against a plain playbook, in one run: gate.py [--hosts N] [--forks N].

Each provisions a fleet of emulated clients, runs again on it, and runs on a fresh one with a wrong setup password.
Prints a table: seconds of wall and CPU time of all processes, and rejected logins at the HSM.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("build", "tests/emulator", "tests/support")]

from fleet import PINS, SETUP, Fleet, Hsm, measured  # noqa: E402

WRONG = "ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ"
PLAIN = yaml.safe_load((ROOT / "tests/benchmarks/plain.yml").read_text())


def ours(fleet, setup_password):
    return [fleet.secret("P2", setup_password=setup_password, verify="never")], {}


def plain(fleet, setup_password):
    variables = {"partition": "P2", "setup_password": setup_password, "pkcs11_password": PINS["P2"]}
    return PLAIN, {"vars": variables}


def runs(way, hosts, forks):
    """The three runs of one way: name, failed hosts, changed hosts, rejected logins, wall and CPU time."""
    for fleets in ((("provision", SETUP["P2"]), ("converged", SETUP["P2"])), (("wrong password", WRONG),)):
        with tempfile.TemporaryDirectory() as folder, Hsm(Path(folder)) as hsm:
            fleet = Fleet(hsm, Path(folder), hosts)
            for name, setup_password in fleets:
                tasks, play = way(fleet, setup_password)
                run, wall, cpu = measured(fleet, *tasks, play=play, forks=forks)
                changed = [result for result in run.results().values() if result.get("changed")]
                rejected = sum(n for verdict, n in fleet.verdicts("setup").items() if verdict != "ok")
                yield name, len(run.failures()), len(changed), rejected, wall, cpu


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--forks", type=int, default=10)
    options = parser.parse_args()
    print(f"{'run':15} {'way':6} {'failed':>6} {'changed':>7} {'rejected':>8} {'wall s':>7} {'CPU s':>7}", flush=True)
    for way in (ours, plain):
        for name, failed, changed, rejected, wall, cpu in runs(way, options.hosts, options.forks):
            print(f"{name:15} {way.__name__:6} {failed:6} {changed:7} {rejected:8} {wall:7.1f} {cpu:7.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
