# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run integration targets through ansible-playbook: run.py [--target-python PATH] [TARGET ...], without names all.

A target is a role in tests/integration/targets/, laid out as ansible-test wants it, and is run as ansible-test does: on
`testhost` over the local connection, with facts, and `output_dir` naming a fresh directory of its own. Targets named
setup_* are dependencies of others and not run by themselves. Modules run with the interpreter PATH if it is given,
which needs pexpect then; all else runs with that of this program. As many targets run at once as the machine has
processors, as each has an emulator of its own. The full output is in build/integration/TARGET.log.

Exits with 1 when a target failed or none was run, with 2 when a name is unknown.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ROOT / "tests/integration/targets"
OUTPUT = ROOT / "build/integration"
TAIL_LINES = 60


def run(target_python: str, target: str) -> bool:
    """Run one target and print the verdict; True when its playbook succeeded."""
    directory = OUTPUT / target
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    log = OUTPUT / f"{target}.log"
    config = OUTPUT / f"{target}.cfg"
    config.touch()
    inventory = OUTPUT / f"{target}.inventory.json"
    playbook = OUTPUT / f"{target}.playbook.json"
    testhost = {
        "ansible_connection": "local",
        "ansible_python_interpreter": target_python,
        "output_dir": str(directory),
    }
    inventory.write_text(json.dumps({"all": {"hosts": {"testhost": testhost}}}))
    playbook.write_text(json.dumps([{"hosts": "testhost", "gather_facts": True, "roles": [target]}]))
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build"),
        **os.environ,
        "ANSIBLE_CACHE_PLUGIN_PREFIX": target,  # where facts are cached, each has those of its own testhost
        "ANSIBLE_CONFIG": str(config),  # an empty one, whatever is set on this machine
        "ANSIBLE_HOME": str(directory / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_ROLES_PATH": str(TARGETS),
    }
    command = [Path(sys.executable).with_name("ansible-playbook"), "-v", "-i", inventory, playbook]
    start = time.monotonic()
    with log.open("wb") as stream:
        status = subprocess.call(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
    report = [f"{'failed' if status else 'passed'}  {target}  {time.monotonic() - start:.1f} s"]
    if status:
        tail = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        report += [*(f"    {line}" for line in tail), f"    (all of it: {log})"]
    print(*report, sep="\n", flush=True)
    return status == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", metavar="TARGET", nargs="*")
    parser.add_argument("--target-python", metavar="PATH", default=sys.executable)
    options = parser.parse_args()
    names = options.targets
    known = sorted(path.parent.parent.name for path in TARGETS.glob("*/tasks/main.yml"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are: {', '.join(known)}")
    names = names or [name for name in known if not name.startswith("setup_")]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = list(pool.map(partial(run, options.target_python), names))
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
