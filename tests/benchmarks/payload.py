# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module code that a whole client is sent, and how long its Python takes to import it: payload.py [ROUNDS]

A first provision and a converged run of one client are made without pipelining, and Ansible keeps the files that it has
made of each module and all that this imports. Counted are the bytes of the zip in it; timed is the import of the module
out of it, the compilation included, which a client does anew each time: the median of ROUNDS imports, all taking turns.
"""

import base64
import os
import re
import statistics
import subprocess
import sys
import tempfile
import typing as t
import zipfile
from pathlib import Path

from plays import OURS, WHOLE, Fleet, choose_ppin, measure, new_fleet, play_of

IMPORT = """
import importlib, sys, time
sys.path.insert(0, sys.argv[1])
wall, cpu = time.perf_counter(), time.process_time()
importlib.import_module(sys.argv[2])
print(1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu))
"""
MODULE = re.compile(r"(ansible_collections/\w+/\w+/plugins/modules|ansible/modules|ansible/legacy)/(?!__init__)\w+\.py")
EMPTY = "ansible.legacy.empty"


class Payload(t.NamedTuple):
    """A module: how often a run sends it, bytes of its zip and files in it, milliseconds (wall, CPU) to import it."""

    run: str
    module: str
    sent: int
    bytes: int
    files: int
    wall: float
    cpu: float


def collect(rounds: int, ppin: Path | None) -> list[Payload]:
    """What is sent to a client, by run and module; first of all, for comparison, an empty one."""
    empty = {"tasks": [{"name": "empty", "empty": {}}]}
    found: dict[tuple[str, str], list[Path]] = {}
    os.environ["ANSIBLE_KEEP_REMOTE_FILES"] = "1"
    os.environ["ANSIBLE_LIBRARY"] = str(Path(__file__).with_name("library"))
    try:
        with new_fleet(1, WHOLE, ppin) as fleet, tempfile.TemporaryDirectory() as name:
            play = play_of(fleet, WHOLE, OURS)
            for number, (run, what) in enumerate((("", empty), ("first provision", play), ("converged", play))):
                for file in sent(fleet, what, Path(name) / str(number), run == "first provision"):
                    found.setdefault((run, module_name(file)), []).append(file)
            return timed(found, rounds)
    finally:
        del os.environ["ANSIBLE_KEEP_REMOTE_FILES"], os.environ["ANSIBLE_LIBRARY"]


def sent(fleet: Fleet, play: dict, folder: Path, changes: bool) -> list[Path]:
    """The zips that a run of a play sends, moved to a folder."""
    play = {**play, "vars": {**play.get("vars", {}), "ansible_pipelining": False, "ansible_remote_tmp": str(folder)}}
    measure(fleet, play, 1, changes=changes)
    zips = []
    for number, file in enumerate(sorted(folder.glob("*/AnsiballZ_*.py"))):
        archive = max(re.findall(r"[A-Za-z0-9+/=\s]{200,}", file.read_text()), key=len)
        zips.append(folder / f"{number}.zip")
        zips[-1].write_bytes(base64.b64decode(archive))
    return zips


def module_name(file: Path) -> str:
    """The name to import it by of the module that a zip was made for."""
    (name,) = (name for name in zipfile.ZipFile(file).namelist() if MODULE.fullmatch(name))
    return name.removesuffix(".py").replace("/", ".")


def timed(found: dict[tuple[str, str], list[Path]], rounds: int) -> list[Payload]:
    times: dict[str, list[tuple[float, float]]] = {}
    for _round in range(rounds):
        for (_run, module), (file, *_more) in found.items():
            imported = "ansible.module_utils.basic" if module == EMPTY else module  # it runs as soon as it is imported
            words = [sys.executable, "-c", IMPORT, file, imported]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            wall, cpu = map(float, done.stdout.split())
            times.setdefault(module, []).append((wall, cpu))
    payloads = []
    for (run, module), files in found.items():
        medians = [statistics.median(values) for values in zip(*times[module], strict=True)]
        inside = len(zipfile.ZipFile(files[0]).namelist())
        name = "an empty module" if module == EMPTY else re.sub(r"ansible_collections\.|plugins\.modules\.", "", module)
        payloads.append(Payload(run, name, len(files), files[0].stat().st_size, inside, *medians))
    return payloads


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(f"{'run':16} {'module':36} {'sent':>5} {'bytes':>8} {'files':>6} {'import ms':>10} {'CPU ms':>8}")
    for payload in collect(rounds, choose_ppin("native")):
        print("{:16} {:36} {:5} {:8} {:6} {:10.1f} {:8.1f}".format(*payload))


if __name__ == "__main__":
    main()
