# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run molecule scenarios: run.py [SCENARIO ...], without names all of them.

As many run at once as the machine has processors: each has hosts, network and emulator of its own. The full output is
in build/molecule/SCENARIO.log.

Exits with 1 when a scenario failed or none was run, with 2 when a name is unknown.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SCENARIOS = Path(__file__).resolve().parent
ROOT = SCENARIOS.parents[1]
OUTPUT = ROOT / "build/molecule"
TAIL_LINES = 60


def run(scenario: str) -> bool:
    """Run one scenario and print the verdict; True when all of its steps succeeded."""
    log = OUTPUT / f"{scenario}.log"
    command = [Path(sys.executable).with_name("molecule"), "test", "--no-command-borders", "--scenario-name", scenario]
    # Hosts of different scenarios have the same names: where facts are cached, each scenario has its own.
    own = {"ANSIBLE_CACHE_PLUGIN_PREFIX": scenario}
    environment = {**os.environ, **own, "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"}
    start = time.monotonic()
    with log.open("wb") as stream:
        status = subprocess.call(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
    report = [f"{'failed' if status else 'passed'}  {scenario}  {time.monotonic() - start:.1f} s"]
    if status:
        lines = log.read_text(errors="replace").splitlines()
        # What follows a failed step is only the destruction of the hosts.
        end = next((i + 1 for i, line in enumerate(lines) if re.search("Executed: Failed", line)), len(lines))
        report += [*(f"    {line}" for line in lines[max(0, end - TAIL_LINES) : end]), f"    (all of it: {log})"]
    print(*report, sep="\n", flush=True)
    return status == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", metavar="SCENARIO", nargs="*")
    names = parser.parse_args().scenarios
    known = sorted(path.parent.name for path in SCENARIOS.glob("*/molecule.yml"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are: {', '.join(known)}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = list(pool.map(run, names or known))
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
