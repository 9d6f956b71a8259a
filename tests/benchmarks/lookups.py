# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often one host asks for each password of a whole client, where the variables are look-ups: lookups.py PPIN

Prints, as JSON, the requests for each by run, on the ansible-core whose Python runs this. For others, compare.py makes
environments in build/bench, and runs this there. PPIN: that of compare.py.
"""

import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from plays import BUILD, OURS, WHOLE, choose_ppin, measure, new_fleet, play_of

PYTHONS = {"2.16": "3.11", "2.17": "3.12"}
"""By ansible-core, a Python that it runs on; later ones run on 3.13."""
PACKAGES = ("pexpect", "libconf", "PyYAML")


def count(ppin: Path | None) -> dict[str, dict[str, int]]:
    """The requests for each password, of the first provision and of a converged run."""
    runs = {}
    with new_fleet(1, WHOLE, ppin) as fleet:
        play = play_of(
            fleet,
            WHOLE,
            OURS,
            password=lambda kind, name, value: f"{{{{ lookup('counted', '{kind} {name}', '{value}') }}}}",
        )
        asked = fleet.folder / "asked.txt"
        for run in ("first provision", "converged"):
            asked.write_text("")
            measure(fleet, play, 1, changes=run == "first provision")
            runs[run] = dict(sorted(collections.Counter(asked.read_text().splitlines()).items()))
    return runs


def count_on(core: str, ppin: str) -> dict:
    """The same on another ansible-core, such as 2.16: its version and runs. Raises OSError when it cannot be had."""
    folder = BUILD / f"core-{core}"
    python = folder / "bin/python"
    if not python.exists():
        if shutil.which("uv") is None:
            raise OSError("there is no uv to make an environment with")
        shutil.rmtree(folder, ignore_errors=True)
        version = PYTHONS.get(core, "3.13")
        versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
        interpreter = next(
            versions.glob(f"{version}.*/bin/python"), version
        )  # pyenv's on PATH may be no more than a shim
        output(["uv", "venv", "--quiet", "--python", interpreter, folder])
        try:
            output(["uv", "pip", "install", "--quiet", "--python", python, f"ansible-core~={core}.0", *PACKAGES])
        except OSError:
            shutil.rmtree(folder)
            raise
    return json.loads(output([python, Path(__file__), ppin]))


def output(words: list) -> str:
    """What a program prints. Raises OSError when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError((done.stderr.strip() or done.stdout.strip() or str(words[0])).splitlines()[-1])
    return done.stdout


def main() -> None:
    import importlib.metadata

    print(json.dumps({"core": importlib.metadata.version("ansible-core"), "runs": count(choose_ppin(sys.argv[1]))}))


if __name__ == "__main__":
    main()
