# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that are killed everywhere: crash.py [--only KIND …] [--seed N] [--random N].

Kills the module at every system call that matters, ppin at every write and step, and module, ppin, Ansible's worker and
the ssh session at random times; and cuts the power after every step, with all that was not synced lost, in part or
whole. After each, the next ordinary run must put everything right, and in between the client must work as it did.
Prints what was tried and what was worse than before, by kind; exits with 1 when anything was. Needs strace; the kind
"session" also sshd. It takes about half an hour.
"""

import argparse
import collections
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("build", "tests/emulator", "tests/support")]

import crashes  # noqa: E402
from crashes import SCENARIOS, Playbook, Trial  # noqa: E402
from fleet import Hsm  # noqa: E402

KINDS = ("module", "ppin", "power", "module-random", "ppin-random", "worker", "tree", "session")
# Of every 500 random points.
SHARES = {"module-random": 250, "ppin-random": 130, "worker": 40, "tree": 40, "session": 40}


class Count:
    def __init__(self):
        self.points, self.faults = collections.Counter(), collections.defaultdict(list)
        self.missed = collections.Counter()

    def add(self, kind, scenario, where, faults, hit=True):
        self.points[kind, scenario] += 1
        self.missed[kind] += not hit
        for fault in faults:
            self.faults[kind, scenario].append(f"{where}: {fault}")
            print(f"WORSE {kind}, {scenario}, {where}: {fault}", flush=True)

    def table(self):
        print(f"\n{'kind':14} {'scenario':24} {'points':>6} {'worse':>6}")
        for (kind, scenario), points in self.points.items():
            worse = len({text.split(": ", 1)[0] for text in self.faults[kind, scenario]})
            print(f"{kind:14} {scenario:24} {points:6} {worse:6}")
        total = sum(self.points.values())
        worse = sum(len({text.split(": ", 1)[0] for text in found}) for found in self.faults.values())
        print(f"{'all':39} {total:6} {worse:6}")
        for kind, number in self.missed.items():
            if number:
                print(f"{kind}: {number} points came after the end of the run, or found nothing to kill")
        return worse


def systematic(trial, folder, count, only, scenarios):
    log = folder / "strace"
    for scenario in scenarios:
        if "module" in only:
            for point in crashes.syscalls(trial, scenario, log):
                left, killed = crashes.kill_at_syscall(trial, scenario, point, log)
                where = f"{point[0]} number {point[1]}"
                count.add("module", scenario, where, trial.judge(scenario, left), killed)
        if "ppin" in only:
            steps = [{"kill_at": place} for place in ("before-prompt", "after-prompt", "after-login")]
            steps += [{"kill_at_write": number} for number in range(1, crashes.writes(trial, scenario) + 1)]
            for behaviour in steps:
                left = crashes.kill_ppin(trial, scenario, behaviour)
                count.add("ppin", scenario, str(behaviour), trial.judge(scenario, left))
        if "power" in only:
            owner = trial.starts[SCENARIOS[scenario][0]][".secrets.cfg"]
            for step, event, kind, files in list(crashes.cuts(trial, scenario, log)):
                trial.begin(scenario)
                left = {name: (content, 0o600, owner[2]) for name, content in files.items()}
                trial.put(left)
                count.add("power", scenario, f"step {step} {event}, {kind}", trial.judge(scenario, left))


def at_random(trial, folder, count, only, scenarios, generator, number):
    lasts = {}
    for scenario in scenarios:
        trial.begin(scenario)
        started = time.monotonic()
        trial.start_scenario(scenario).communicate()
        lasts[scenario] = time.monotonic() - started
    playbook = Playbook(trial, folder / "playbook")

    def points(kind):
        for place in range(number * SHARES[kind] // 500):
            scenario = scenarios[place % len(scenarios)]
            yield scenario, generator.uniform(0, lasts[scenario]), place

    for kind, kill in (("module-random", crashes.kill_module_at), ("ppin-random", crashes.kill_ppin_at)):
        for scenario, seconds, _place in points(kind) if kind in only else ():
            left, hit = kill(trial, scenario, seconds)
            count.add(kind, scenario, f"after {seconds:.3f} s", trial.judge(scenario, left), hit)
    for kind, victims in (("worker", crashes.the_worker), ("tree", crashes.all_but_ppin)):
        for scenario, seconds, place in points(kind) if kind in only else ():
            left, hit = playbook.kill_at(scenario, seconds, victims, pipelining=place % 2)
            count.add(kind, scenario, f"{seconds:.3f} s after the first ppin", trial.judge(scenario, left), hit)
    if "session" in only and shutil.which("sshd"):
        with playbook.over_ssh(generator.randrange(20000, 30000)):
            for scenario, seconds, place in points("session"):
                left, hit = playbook.kill_at(scenario, seconds, crashes.the_session, pipelining=place % 2)
                count.add(
                    "session", scenario, f"{seconds:.3f} s after the first ppin", trial.judge(scenario, left), hit
                )
    elif "session" in only:
        print("session: there is no sshd here, so none was killed")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--random", type=int, default=500, help="how many random points, of all kinds")
    options = parser.parse_args()
    if not shutil.which("strace"):
        sys.exit("strace is needed, and not installed here")
    print(f"seed {options.seed}", flush=True)
    count, started = Count(), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="crash"))
    try:
        (folder / "hsm").mkdir()
        with Hsm(folder / "hsm") as hsm:
            trial = Trial(hsm, folder / "client")
            systematic(trial, folder, count, options.only, options.scenario)
            generator = random.Random(options.seed)  # noqa: S311 # to have the same points again
            at_random(trial, folder, count, options.only, options.scenario, generator, options.random)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the emulator may be removing its socket
    worse = count.table()
    print(f"{time.monotonic() - started:.0f} s, seed {options.seed}")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
