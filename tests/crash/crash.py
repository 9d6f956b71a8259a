# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that are killed everywhere: crash.py [--only KIND …] [--seed N] [--random N].

Kills the module at every system call that matters, ppin at every write and step, and module, ppin, Ansible's worker and
the ssh session at random times; and cuts the power after every step, with all that was not synced lost, in part or
whole. After each, the next ordinary run must put everything right, and in between the client must work as it did.
The kind "host" kills every module at each of its writes; what it leaves must be on the list of leftovers, and be gone
from the whole host after the next run of some module, and after client_removal.
As root it works in a mount namespace of its own, where the directories for temporary files are empty file systems in
memory: what others do there is not searched, and does not count.
Prints what was tried and what was worse than before, by kind; exits with 1 when anything was. Needs strace; the kind
"session" also sshd. "host" takes 4 minutes, all of it an hour; on a busy machine several times that.
"""

import argparse
import collections
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("build", "tests/emulator", "tests/support")]

import crashes  # noqa: E402
from crashes import SCENARIOS, Playbook, Trial  # noqa: E402
from emulated_hsm import Hsm  # noqa: E402
from whole_host import CASES, PLACES, Host  # noqa: E402

KINDS = ("module", "ppin", "power", "host", "module-random", "ppin-random", "worker", "tree", "session")
# Of every 500 random points.
SHARES = {"module-random": 250, "ppin-random": 130, "worker": 40, "tree": 40, "session": 40}


class Count:
    """What was tried and what was worse, by kind and scenario. A point at which nothing was killed does not count."""

    def __init__(self):
        self.points, self.worse, self.missed = collections.Counter(), collections.Counter(), collections.Counter()

    def add(self, kind, scenario, where, faults, hit=True):
        self.points[kind, scenario] += hit
        self.missed[kind] += not hit
        self.worse[kind, scenario] += bool(faults)
        for fault in faults:
            print(f"WORSE {kind}, {scenario}, {where}: {fault}", flush=True)

    def table(self):
        print(f"\n{'kind':14} {'scenario':24} {'points':>6} {'worse':>6}")
        for (kind, scenario), points in self.points.items():
            print(f"{kind:14} {scenario:24} {points:6} {self.worse[kind, scenario]:6}")
        print(f"{'all':39} {sum(self.points.values()):6} {sum(self.worse.values()):6}")
        for kind, number in self.missed.items():
            if number:
                print(f"{kind}: {number} more found nothing to kill, as the run had ended; nothing was worse after it")


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
            steps += [{"kill_at_write": number} for number in range(1, crashes.writes(trial) + 1)]
            for behaviour in steps:
                left = crashes.kill_ppin(trial, scenario, behaviour)
                count.add("ppin", scenario, str(behaviour), trial.judge(scenario, left))
        if "power" in only:
            owner = trial.starts[SCENARIOS[scenario][0]][".secrets.cfg"]
            done = crashes.record(trial, scenario, log)
            last = trial.files()[".secrets.cfg"][0]
            lasting = crashes.lasting(trial, scenario, done)
            count.add("power", scenario, "after the end", [] if lasting == {last} else ["what was reported is lost"])
            for step, event, kind, files in list(crashes.cuts(trial, scenario, done)):
                trial.begin(scenario)
                left = {name: (content, 0o600, owner[2]) for name, content in files.items()}
                trial.put(left)
                count.add("power", scenario, f"step {step} {event}, {kind}", trial.judge(scenario, left))


def on_the_whole_host(folder, count):
    """Every module at each of its writes; then one of the next runs that there may be, in turn with client_removal."""
    (folder / "other-hsm").mkdir()
    with contextlib.ExitStack() as stack:
        host = Host(lambda config: stack.enter_context(Hsm(folder / "other-hsm", config)), folder)
        for case in CASES:
            points = host.writes(case)
            print(f"host, {case}: {len(points)} writes", flush=True)
            for number, point in enumerate(points):
                for after in (number, "removal"):
                    killed = host.kill(case, point)
                    where = f"{point[0]} number {point[1]}"
                    count.add("host", case, where, host.judge(case, after), killed)


def at_random(trial, folder, count, only, scenarios, generator, number):
    lasts = {}
    for scenario in scenarios:
        trial.begin(scenario)
        started = time.monotonic()
        trial.start_scenario(scenario).communicate()
        lasts[scenario] = time.monotonic() - started
    playbook = Playbook(trial, folder / "playbook")

    def tries(kind, kill):
        """As many points as the kind's share at which something was killed."""
        place = hits = 0
        while hits < number * SHARES[kind] // 500:
            scenario = scenarios[hits % len(scenarios)]
            seconds = generator.uniform(0, lasts[scenario])
            left, hit = kill(scenario, seconds, place % 2 == 1)
            count.add(kind, scenario, f"{seconds:.3f} s", trial.judge(scenario, left), hit)
            place, hits = place + 1, hits + hit

    def in_playbook(victims):
        return lambda scenario, seconds, pipelining: playbook.kill_at(scenario, seconds, victims, pipelining)

    if "module-random" in only:
        tries("module-random", lambda scenario, seconds, _odd: crashes.kill_module_at(trial, scenario, seconds))
    if "ppin-random" in only:
        tries("ppin-random", lambda scenario, seconds, _odd: crashes.kill_ppin_at(trial, scenario, seconds))
    if "worker" in only:
        tries("worker", in_playbook(crashes.the_worker))
    if "tree" in only:
        tries("tree", in_playbook(crashes.all_but_ppin))
    if "session" in only and shutil.which("sshd"):
        with playbook.over_ssh(generator.randrange(20000, 30000)):
            tries("session", in_playbook(crashes.the_session))
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
    if os.geteuid() == 0 and "CRASH_NAMESPACE" not in os.environ:
        own = ["unshare", "--mount", sys.executable, *sys.argv]
        sys.exit(subprocess.call(own, env={**os.environ, "CRASH_NAMESPACE": "own"}))
    if os.environ.get("CRASH_NAMESPACE") == "own":
        for place in PLACES:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    print(f"seed {options.seed}", flush=True)
    count, started = Count(), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="crash"))
    try:
        (folder / "hsm").mkdir()
        with Hsm(folder / "hsm") as hsm:
            trial = Trial(hsm, folder / "client")
            if "host" in options.only:
                on_the_whole_host(folder, count)
            systematic(trial, folder, count, options.only, options.scenario)
            generator = random.Random(options.seed)  # noqa: S311 # to have the same points again
            at_random(trial, folder, count, options.only, options.scenario, generator, options.random)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the emulator may be removing its socket
    count.table()
    print(f"{time.monotonic() - started:.0f} s, seed {options.seed}")
    sys.exit(1 if any(count.worse.values()) else 0)


if __name__ == "__main__":
    main()
