# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator's command line: serve, client and admin."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from . import admin, client, profile


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m primus_emulator", description="A Primus HSM for tests.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, add, run, meaning in (
        ("serve", serve_arguments, serve, "run two HSM nodes and their proxies"),
        ("client", client_arguments, run_client, "install a client, or change its switches"),
        ("admin", admin_arguments, admin.run, "change or ask a running emulator"),
    ):
        command = commands.add_parser(name, help=meaning, description=meaning)
        add(command)
        command.set_defaults(run=run)
    options = parser.parse_args()
    try:
        return options.run(options) or 0
    except (OSError, ValueError, KeyError, admin.AdminError) as error:
        print("%s: %s" % (options.command, error), file=sys.stderr)
        return 1


def serve_arguments(parser):
    parser.add_argument("--state", required=True, help="folder of endpoint.json, ca.pem and admin.sock")
    parser.add_argument("--config", help="JSON file: partitions, service_users, limits")
    parser.add_argument("--bind", default="127.0.0.1", help="address of all four listeners")
    parser.add_argument("--ports", type=int, help="the first of four ports; free ones without it")
    parser.add_argument("--daemon", action="store_true", help="return when ready, and serve in the background")


def client_arguments(parser):
    parser.add_argument("prefix", help="folder of the client: its PRIMUS_HOME")
    parser.add_argument("--state", help="state folder of the emulator; without it only the switches are changed")
    parser.add_argument("--partition", action="append", default=[], metavar="NAME[:SLOT_ID[:PROXY_USER]]")
    parser.add_argument("--behaviour", "--set", action="append", default=[], metavar="KEY=VALUE", help="a switch")
    parser.add_argument("--profile", metavar="FILE", help="primus_qualification.json of the ppin to behave as")
    parser.add_argument("--clear", action="store_true", help="first return all switches to their defaults")


def admin_arguments(parser):
    # Some commands have an argument named state.
    parser.add_argument("--state", dest="folder", required=True, help="state folder of the emulator")
    admin.add_arguments(parser)


def run_client(options):
    switches, not_reproduced = profile.read(options.profile) if options.profile else ({}, [])
    if not_reproduced:
        lines = ["client: %s: the emulator does not reproduce" % options.profile, *not_reproduced]
        print("\n  ".join(lines), file=sys.stderr)
    for text in options.behaviour:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError("%s is not KEY=VALUE" % text)
        switches[name] = value
    if options.state:
        client.install(options.prefix, options.state, options.partition, switches)
    else:
        client.set_behaviour(options.prefix, switches, options.clear)


def serve(options) -> int:
    if not options.daemon:
        run_server(options, lambda: print("ready", flush=True))
        return 0
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with open(reader) as file:
            verdict = file.read()
        if verdict == "ready":
            return 0
        print("serve: %s" % (verdict or "ended while starting"), file=sys.stderr)
        return 1
    os.close(reader)
    os.setsid()
    os.makedirs(options.state, exist_ok=True)
    log = os.open(os.path.join(options.state, "emulator.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        run_server(options, lambda: tell(writer, "ready"))
    except (OSError, ValueError, KeyError) as error:
        tell(writer, str(error))
        return 1
    return 0


def tell(writer: int, text: str):
    os.write(writer, text.encode())
    os.close(writer)


def run_server(options, ready):
    from . import server

    config = server.read_config(options.config) if options.config else {}
    asyncio.run(server.Server(config, options.state, options.bind, options.ports).run(ready))


if __name__ == "__main__":
    sys.exit(main())
