# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of the collection for ansible-test, and runs whose output goes to a file."""

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("meta", "playbooks", "plugins", "roles")
TAIL_LINES = 60


def copy_collection(directory: Path, *paths: str) -> Path:
    """Copy the files of the repository, or those in paths, to a directory that ansible-test can be run in.

    What users get comes from the collection that ANSIBLE_COLLECTIONS_PATH names, which may be an installed one.
    """
    used = Path(os.environ.get("ANSIBLE_COLLECTIONS_PATH", ROOT / "build"), "ansible_collections/hsmops/primus")
    if not used.is_dir():
        raise FileNotFoundError(f"{used}: the collection is not there")
    shutil.rmtree(directory, ignore_errors=True)
    copy = directory / "ansible_collections/hsmops/primus"
    git = ["git", "-c", f"safe.directory={ROOT}"]  # for root, whose repository it need not be
    listing = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths]
    for name in filter(None, subprocess.check_output(listing, cwd=ROOT, text=True).split("\0")):
        source = (used if name.split("/")[0] in SHIPPED else ROOT) / name
        if source.is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name)
    # ansible-test asks git what belongs to the collection: without a repository, the one around, which ignores build/.
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
    return copy


def run_logged(command: list, log: Path, **options) -> str:
    """Run a command; its output, which is in the file `log` as well. If it fails, the test fails with the end of it."""
    import pytest

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        status = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, **options)
    lines = log.read_text(errors="replace").splitlines()
    if status:
        # What follows a failed step of molecule is only the destruction of the hosts.
        end = next((i + 1 for i, line in enumerate(lines) if re.search("Executed: Failed", line)), len(lines))
        pytest.fail("\n".join([*lines[max(0, end - TAIL_LINES) : end], f"(all of it: {log})"]), pytrace=False)
    return "\n".join(lines)
