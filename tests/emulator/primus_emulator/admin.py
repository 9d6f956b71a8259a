# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The admin command: its table, and a client of the admin socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket

from . import protocol

PARTITION = ("partition", {})
NODE = ("node", {"nargs": "?", "help": "0, 1, hsm0 or hsm1; without it both"})

# Command: its meaning and its arguments, as argparse takes them and Admin.call names them.
COMMANDS = {
    "reset": ("back to the initial state", [("--config", {"help": "another config from now on"})]),
    "status": ("partitions, counters, network", []),
    "new-setup-password": (
        "give a partition a new setup password and print it",
        [
            PARTITION,
            ("value", {"nargs": "?", "help": "a random one without it"}),
            ("--keep", {"action": "store_true", "help": "the present ones stay valid"}),
        ],
    ),
    "rotate-secret": ("permanent secrets issued so far become stale", [PARTITION]),
    "set-pkcs11-password": ("change a PKCS#11 password", [PARTITION, ("value", {})]),
    "set-proxy-password": ("change or add a service user", [("user", {}), ("value", {})]),
    "expire": ("the setup passwords of a partition expire now", [PARTITION]),
    "expire-during": ("they expire at the next login, just before it is judged", [PARTITION]),
    "disable": ("refuse all access to a partition", [PARTITION]),
    "disable-during": ("refuse it from the next login on", [PARTITION]),
    "enable": ("end disable", [PARTITION]),
    "lock": ("lock the API login of a partition for login_lockout_time", [PARTITION]),
    "unlock": ("forget locks and trials of a partition", [PARTITION]),
    "restart": ("restart the device: forgets locks and trials of all", []),
    "advance": ("move the clock", [("seconds", {"type": float})]),
    "network": ("nodes refuse and drop connections (down)", [NODE, ("state", {"choices": ["up", "down"]})]),
    "proxy": ("proxies refuse and drop connections (down)", [NODE, ("state", {"choices": ["up", "down"]})]),
    "slow": ("judge at once, delay every answer", [("seconds", {"type": float})]),
    "hang": ("judge and answer nothing until off", [("state", {"choices": ["on", "off"]})]),
    "busy": ("answer the next logins with 0x80000018", [("count", {"type": int})]),
    "log": (
        "write a line into a partition's log on both nodes",
        [PARTITION, ("text", {}), ("--level", {"default": "notice"}), ("--facility", {"default": "Crypto"})],
    ),
    "report": ("every login, in order", []),
    "report-summary": ("logins counted, and the partitions", []),
}


class AdminError(Exception):
    """The emulator has refused a command, or does not run."""


@contextlib.contextmanager
def socket_path(path: str):
    """Give a short name of a unix socket, for as long as the context lasts: addresses end at 107 bytes."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield "/proc/self/fd/%d/%s" % (folder, os.path.basename(path))
    finally:
        os.close(folder)


class Admin:
    """Talks to the emulator with this state directory. One connection a call, so it may be kept and shared."""

    def __init__(self, state: str, timeout: float = 30.0):
        self._path = os.path.join(os.path.abspath(state), "admin.sock")
        self._timeout = timeout

    def call(self, command: str, **args):
        """Run a command and return its result (None, str, list or dict).

        Arguments are named as in COMMANDS, e.g. `call("network", node=0, state="down")`. Raises AdminError.
        """
        if args.get("config"):
            args["config"] = os.path.abspath(args["config"])
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout)
                with socket_path(self._path) as path:
                    connection.connect(path)
                connection.sendall(protocol.encode({"command": command, "args": args}))
                with connection.makefile("rb") as stream:
                    answer = protocol.decode(stream.readline())
        except OSError as error:
            raise AdminError("no emulator at %s: %s" % (self._path, error)) from error
        if "error" in answer:
            raise AdminError(answer["error"])
        return answer["result"]


def add_arguments(parser):
    commands = parser.add_subparsers(dest="admin_command", metavar="COMMAND", required=True)
    for name, (meaning, arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=meaning, description=meaning)
        for argument, settings in arguments:
            command.add_argument(argument, **settings)


def run(options):
    """Run one command of the command line and print its result as JSON."""
    args = vars(options)
    names = {argument.lstrip("-") for argument, _settings in COMMANDS[options.admin_command][1]}
    result = Admin(options.folder).call(
        options.admin_command, **{name: args[name] for name in names if args[name] is not None}
    )
    print(json.dumps(result, indent=2))
