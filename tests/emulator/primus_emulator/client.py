# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs clients of the emulator: a prefix as PRIMUS_HOME, with ppin and both files."""

from __future__ import annotations

import json
import os
import sys

from .behaviour import parse
from .secrets_file import SecretsFile, dumps

EMULATOR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_LAUNCHER = """\
#!{python} -I
# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
import os
import sys

home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path[:0] = [os.path.join(home, "share"){folder}]
from primus_emulator.ppin import main

sys.exit(main(sys.argv[1:], home))
"""


def launcher(python: str, folder: str | None = None) -> str:
    """Return the text of bin/ppin. It finds this package in PRIMUS_HOME/share, then in `folder`."""
    return _LAUNCHER.format(python=python, folder=", %r" % folder if folder else "")


def install(prefix: str, state: str, partitions: list[str], behaviour: dict | None = None):
    """Install a client of the emulator with this state directory.

    partitions: `NAME[:slot_id[:proxy_user]]`, the slot id is the place in the list by default.
    behaviour: switches. Raises ValueError, and OSError when no emulator runs there.
    """
    with open(os.path.join(state, "endpoint.json")) as file:
        endpoint = json.load(file)
    config = primus_cfg(endpoint, partitions, client_id=os.path.basename(os.path.abspath(prefix)))
    for folder in ("bin", "etc"):
        os.makedirs(os.path.join(prefix, folder), exist_ok=True)
    _write(prefix, "bin/ppin", launcher(sys.executable, EMULATOR), 0o755)
    _write(prefix, "etc/primus.cfg", dumps(config), 0o644)
    _write(prefix, "etc/.secrets.cfg", SecretsFile().text(), 0o600)
    _write(prefix, "etc/emulator.json", "{}\n", 0o644)
    set_behaviour(prefix, {"ca": endpoint["ca"], **(behaviour or {})})


def set_behaviour(prefix: str, changes: dict, clear: bool = False):
    """Change switches of an installed client; clear: all others go back to their defaults, except `ca`."""
    path = os.path.join(prefix, "etc/emulator.json")
    with open(path) as file:
        values = json.load(file)
    if clear:
        values = {name: value for name, value in values.items() if name == "ca"}
    values.update({name: parse(name, value) for name, value in changes.items()})
    _write(prefix, "etc/emulator.json", json.dumps(values, indent=2) + "\n", 0o644)


def primus_cfg(endpoint: dict, partitions: list[str], client_id: str) -> dict:
    """Return a complete primus.cfg for both nodes: direct partitions first, then those behind the proxy."""
    direct, proxied = {}, {}
    for number, partition in enumerate(partitions):
        name, slot_id, proxy_user = (partition.split(":") + ["", ""])[:3]
        slots = proxied if proxy_user else direct
        slot = {"client_id": client_id, "user_name": name, "id": int(slot_id or number)}
        if proxy_user:
            slot["proxy_user"] = proxy_user
        slots["slot%d" % len(slots)] = slot
    hsms = {}
    for addresses, slots in ((endpoint["nodes"], direct), (endpoint["proxies"], proxied)):
        for address in addresses if slots else ():
            entry = {"host": address["host"], "port": str(address["port"]), "priority": 0, "slots": slots}
            hsms["hsm%d" % len(hsms)] = entry
    log = {"file": "/var/log/primus.log", "write_log_file": False, "write_syslog": False, "trace_level": 0}
    settings = {"wait_delay": 250, "wait_max_tries": 5, "connect_on_init": True, "hsms": hsms, "log": log}
    return {"version": "1.0", "primus": settings}


def _write(prefix: str, name: str, text: str, mode: int):
    path = os.path.join(prefix, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
