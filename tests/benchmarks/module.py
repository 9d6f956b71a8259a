# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module run that changes nothing costs a client, against the least that it could: module.py [ROUNDS]

Timed is what Ansible runs on a client: the file that it has made of the module and all that it imports. The least is
such a file of an empty module, and one bare `ppin -l`. All take turns, ROUNDS times (default 30), so that whatever else
the machine does meets all alike; where that is much, the CPU time is the better guide. `ppin` is the emulator's: a
faster one gives higher ratios, but the same milliseconds on top.

Prints a table and judges nothing. All that it writes is in build/bench.
"""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("build", "tests/emulator", "tests/support")]

from emulated_hsm import Hsm  # noqa: E402
from primus_emulator.client import install  # noqa: E402

BUILD = ROOT / "build/bench"
CLIENT = BUILD / "client"
GOAL = 1.3

PASSWORDS = {"setup_password": "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE", "pkcs11_password": "the-pin-of-P1"}
CLIENT_PATHS = {
    "primus_home": str(CLIENT),
    "config_path": str(CLIENT / "etc/primus.cfg"),
    "secrets_path": str(CLIENT / "etc/.secrets.cfg"),
}
EMPTY = "an empty module"
LISTING = "ppin -l"
# The first one to run adds the secret, all later ones find it.
MODULES = {
    EMPTY: {"empty": {}},
    "ppin_secret, present": {"hsmops.primus.ppin_secret": {"user_name": "P1", **PASSWORDS, **CLIENT_PATHS}},
    "ppin_secret, updated": {
        "hsmops.primus.ppin_secret": {"user_name": "P1", "state": "updated", **PASSWORDS, **CLIENT_PATHS}
    },
    "ppin_info": {"hsmops.primus.ppin_info": CLIENT_PATHS},
}


def build_commands() -> dict[str, list]:
    """What Ansible would run on the client, by the name of the row. It is run once, which adds the secret."""
    folders = {name: BUILD / f"module{number}" for number, name in enumerate(MODULES)}
    tasks = [
        {"name": name, **task, "vars": {"ansible_remote_tmp": str(folders[name])}} for name, task in MODULES.items()
    ]
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    playbook = BUILD / "playbook.json"
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}]))
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build"),
        **os.environ,
        "ANSIBLE_LIBRARY": str(Path(__file__).with_name("library")),
        "ANSIBLE_HOME": str(BUILD / "ansible"),
        "ANSIBLE_KEEP_REMOTE_FILES": "1",
        "ANSIBLE_PIPELINING": "0",
    }
    ansible = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), playbook],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ansible.returncode:
        sys.exit(ansible.stdout + ansible.stderr)
    commands = {name: [sys.executable, *folder.glob("*/AnsiballZ_*.py")] for name, folder in folders.items()}
    paths = ["-c", CLIENT_PATHS["config_path"], "-s", CLIENT_PATHS["secrets_path"]]
    return {LISTING: [CLIENT / "bin/ppin", *paths, "-l"], **commands}


def measure(command: list) -> tuple[float, float]:
    """Run a command: milliseconds by the clock, and of a CPU. Ends the program when it fails or changes something."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode or b'"changed": true' in text:
        sys.exit(f"{command} did not do what it should: {text.decode()}")
    return seconds * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def describe_machine():
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    print(f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, ansible-core {importlib.metadata.version('ansible-core')}")


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True, mode=0o700)
    with Hsm(BUILD, {"partitions": {"P1": PASSWORDS, "P2": PASSWORDS}}) as hsm:
        install(str(CLIENT), str(hsm.state), ["P1", "P2"])
        commands = build_commands()
        times = {name: [] for name in commands}
        for _round in range(rounds):
            for name, command in commands.items():
                times[name].append(measure(command))

    describe_machine()
    print(f"\n{rounds} rounds, milliseconds. The ratios are to the first row, which is the sum of the next two.\n")
    print(f"{'':22}" + "".join(f"{title:>8}{'ratio':>7}" for title in ("median", "min", "CPU")))
    rows = {name: figures(values) for name, values in times.items()}
    least = [sum(pair) for pair in zip(rows[EMPTY], rows[LISTING], strict=True)]
    rows = {"the least": least, **rows}
    for name, row in rows.items():
        cells = (f"{value:8.1f}{value / unit:7.2f}" for value, unit in zip(row, least, strict=True))
        print(f"{name:22}" + "".join(cells))
    reached = max(rows[name][0] for name in MODULES if "ppin_secret" in name) / least[0]
    print(f"\nThe goal for ppin_secret is {GOAL}; the slower of the two reached {reached:.2f}.")


def figures(measured: list[tuple[float, float]]) -> list[float]:
    """Median and least of the clock, median of the CPU."""
    clock, cpu = zip(*measured, strict=True)
    return [statistics.median(clock), min(clock), statistics.median(cpu)]


if __name__ == "__main__":
    main()
