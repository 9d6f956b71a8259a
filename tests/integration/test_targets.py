# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each integration target, with `ansible-test integration`, in a copy of the collection of its own.

So that targets run at the same time: ansible-test has one directory for the files of a target in each collection. The
output is in build/integration/TARGET.log. TARGET_PYTHON names the interpreter of the modules, which needs pexpect then.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from isolated import ROOT, SHIPPED, copy_collection, run_logged

OUTPUT = ROOT / "build/integration"
TARGETS = sorted(path.parents[1].name for path in Path(__file__).parent.glob("targets/*/tasks/main.yml"))


PATHS = (*SHIPPED, "galaxy.yml", "tests/emulator", "tests/integration", "tests/support")
# ansible-test starts Ansible with a few variables of the environment only. These are what the audit and coverage set.
PASSED = ("ANSIBLE_", "COVERAGE_", "TMPDIR")
NOT_PASSED = ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG")


def version_of(python):
    return re.match(r"Python (\d+\.\d+)", subprocess.check_output([python, "--version"], text=True))[1]


@pytest.mark.parametrize("target", [name for name in TARGETS if not name.startswith("setup_")])
def test_target(target):
    assert not (ROOT / "roles" / target).exists(), "ansible-test would run the role itself, not the target"
    copy = copy_collection(OUTPUT / target, *PATHS)
    environment = {key: os.environ[key] for key in os.environ if key.startswith(PASSED) and key not in NOT_PASSED}
    environment["ANSIBLE_CACHE_PLUGIN_PREFIX"] = target  # where facts are cached, each has those of its own testhost
    home = OUTPUT / target / "home"  # where ansible-test makes a key, and Ansible has the attempt gate's store
    home.mkdir()
    environment["ANSIBLE_HOME"] = str(home)
    with (copy / f"tests/integration/targets/{target}/aliases").open("a") as aliases:
        aliases.writelines(f"env/set/{key}/{value}\n" for key, value in environment.items())

    command = [Path(sys.executable).with_name("ansible-test"), "integration", target, "-v", "--color", "no"]
    if "TARGET_PYTHON" in os.environ:
        pythons = {"origin": sys.executable, "controller": os.environ["TARGET_PYTHON"]}
        here, client = (f"{where}:python={version_of(path)}@{path}" for where, path in pythons.items())
        command += ["--controller", here, "--target", client]
    log = run_logged(command, OUTPUT / f"{target}.log", cwd=copy, env={**os.environ, "HOME": str(home)})
    skipped = re.search('"msg": "SKIPPED: (.*?)"', log)
    if skipped:
        pytest.skip(skipped[1])
