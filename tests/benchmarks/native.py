# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ppin of native_ppin/ppin.c, compiled, and what takes the place of an HSM for a fleet of clients that have it."""

import json
import shutil
import subprocess
from pathlib import Path

from emulated_hsm import WRONG_SETUP
from fleet import Fleet

SOURCE = Path(__file__).with_name("native_ppin") / "ppin.c"


class NoCompiler(Exception):
    """There is none, or it does not work."""


def compile_ppin(target: Path) -> Path:
    """Compile ppin, which rejects WRONG_SETUP and nothing else. Raises NoCompiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("there is no C compiler: install gcc and libc6-dev")
    wrong = f'-DWRONG_PASSWORD="{WRONG_SETUP}"'
    words = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", wrong, "-o", target, SOURCE]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoCompiler(f"{compiler} cannot compile {SOURCE.name} (is libc6-dev installed?): {done.stderr}")
    return target


class NativeHsm:
    """No HSM: what a Fleet asks of one, for clients that have the native ppin. Its addresses are never connected to."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        nodes = [{"host": f"hsm{number}.example.com", "port": 2310} for number in range(2)]
        proxies = [{"host": f"proxy{number}.example.com", "port": 2310} for number in range(2)]
        (self.state / "endpoint.json").write_text(json.dumps({"nodes": nodes, "proxies": proxies, "ca": ""}))

    def endpoint(self) -> dict:
        return json.loads((self.state / "endpoint.json").read_text())

    def logins(self, *kinds: str) -> list[dict]:
        """The logins that were rejected; of the others nothing is known."""
        lines = [line for file in self.folder.glob("*/etc/rejected-logins") for line in file.read_text().splitlines()]
        logins = [{"kind": line.split()[0], "verdict": "rejected"} for line in lines]
        return [login for login in logins if not kinds or login["kind"] in kinds]


def give(fleet: Fleet, ppin: Path) -> None:
    """Give each client of a fleet this ppin in place of the one that it has."""
    for host in fleet.hosts:
        shutil.copy2(ppin, fleet.folder / host / "bin/ppin")
