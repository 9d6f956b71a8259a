# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks run: fleets of clients, and the plays that provision them in either of two ways."""

import collections
import contextlib
import os
import shutil
import sys
import tempfile
import typing as t
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BUILD = ROOT / "build/bench"
sys.path[:0] = [str(ROOT / folder) for folder in ("build", "tests/emulator", "tests/support")]

from emulated_hsm import PINS, PROXY_PASSWORD, SETUP, WRONG_SETUP, Hsm  # noqa: E402
from fleet import Fleet, measured  # noqa: E402
from native import NativeHsm, NoCompiler, compile_ppin, give  # noqa: E402

OURS, PLAIN = WAYS = ("hsmops.primus", "plain playbook")
PING = {"tasks": [{"name": "ping", "ansible.builtin.ping": {}}]}

# The partitions that a client is to have. All but the one secret are of a whole client, behind a service proxy.
ONE, WHOLE, LARGE = "one secret", "whole client", "client with 20 partitions"
SCOPES = {ONE: ("P2",), WHOLE: ("P1", "P2"), LARGE: tuple(f"P{number}" for number in range(1, 21))}
SERVICE_USER = "svc1"

# The passwords by name; those of the first two are known to the emulated HSM of the tests, too.
SETUPS = {**{name: f"AAAAA-BBBBB-CCCCC-DDDDD-EE{name:0>3}" for name in SCOPES[LARGE]}, **SETUP}
PKCS11 = {**{name: f"pin-of-{name}" for name in SCOPES[LARGE]}, **PINS}
CONFIG = {
    "partitions": {name: {"setup_password": SETUPS[name], "pkcs11_password": PKCS11[name]} for name in SETUPS},
    "service_users": {SERVICE_USER: PROXY_PASSWORD},
    "limits": {},  # the published ones
}


def role(variables: dict[str, t.Any]) -> dict:
    """A play that has this collection provision a whole client: the one place that knows the role's interface."""
    # As the playbook provision has it.
    imported = {"name": "hsmops.primus.primus_client", "rolespec_validate": False}
    task = {"name": "Provision the client", "ansible.builtin.import_role": imported}
    return {"tasks": [task], "vars": {f"primus_client_{name}": value for name, value in variables.items()}}


def as_they_are(kind: str, name: str, value: str) -> str:
    return value


def play_of(
    fleet: Fleet,
    scope: str,
    way: str,
    wrong: str = "",
    password: t.Callable[[str, str, str], str] = as_they_are,
    **options: t.Any,
) -> dict:
    """The play that makes hosts what the scope says.

    wrong: a partition whose setup password is a wrong one. password: makes what stands for a password in the variables,
    of its kind, the name it belongs to, and its value. options: of our module, where the scope is one secret.
    """
    partitions = [
        {
            "user_name": name,
            "slot_id": slot_id,
            "client_id": "the same for all, so that files can be copied",
            "setup_password": WRONG_SETUP if name == wrong else password("setup password", name, SETUPS[name]),
            "pkcs11_password": password("PKCS#11 password", name, PKCS11[name]),
            **({} if scope == ONE else {"proxy_user": SERVICE_USER}),
        }
        for slot_id, name in enumerate(SCOPES[scope])
    ]
    proxy_password = password("proxy password", SERVICE_USER, PROXY_PASSWORD)
    hsms = fleet.hsm.endpoint()["proxies"]
    owner, group = (fleet.folder.owner(), fleet.folder.group())
    if way == PLAIN:
        file = HERE / ("plain_secret.yml" if scope == ONE else "plain_client.yml")
        variables = {
            "benchmarks": str(HERE),
            "ppin": ["{{ home }}/bin/ppin", "-c", "{{ home }}/etc/primus.cfg", "-s", "{{ home }}/etc/.secrets.cfg"],
            "owner": owner,
            "group": group,
            "hsms": hsms,
            "service_user": SERVICE_USER,
            "proxy_password": proxy_password,
            "partitions": partitions,
        }
        return {"tasks": yaml.safe_load(file.read_text()), "vars": variables}
    if scope == ONE:
        setup = partitions[0]["setup_password"]
        return {"tasks": [fleet.secret(SCOPES[ONE][0], setup_password=setup, verify="never", **options)]}
    variables = {
        "hsms": hsms,
        "service_users": [{"name": SERVICE_USER, "password": proxy_password}],
        "partitions": partitions,
        "home": "{{ home }}",
        "etc": "{{ home }}/etc",
        "owner": owner,
        "group": group,
        "login_shells": False,
    }
    return role(variables)


@contextlib.contextmanager
def new_fleet(hosts: int, scope: str, ppin: Path | None) -> t.Iterator[Fleet]:
    """A fleet with this native ppin, or, if that is None, with the emulator's and an HSM of its own."""
    behind = "" if scope == ONE else f":{SERVICE_USER}"
    partitions = [f"{name}:{slot_id}{behind}" for slot_id, name in enumerate(SCOPES[scope])]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        hsm = NativeHsm(folder) if ppin else stack.enter_context(Hsm(folder, CONFIG))
        fleet = Fleet(hsm, folder, hosts, partitions)
        if ppin:
            give(fleet, ppin)
        for plugins, source in (("callbacks", "callback_plugins"), ("lookup_plugins", "lookup_plugins")):
            shutil.copytree(HERE / source, folder / plugins, dirs_exist_ok=True)
        yield fleet


def provision_first(fleet: Fleet, scope: str, way: str) -> None:
    """Have the first host provisioned, and give all others its files, with which nothing is left to do on them."""
    play = play_of(fleet, scope, way)
    run = fleet.run(*play["tasks"], play=play, arguments=["--limit", fleet.hosts[0]])
    assert run.status == 0, run.output
    fleet.copy_first("primus.cfg", ".secrets.cfg", *([".secrets.cfg.ledger"] if way == OURS else []))
    first = fleet.folder / fleet.hosts[0] / "etc"
    for host in fleet.hosts[1:]:
        for path in (Path(), Path("primus.cfg"), Path(".secrets.cfg")):
            status = (first / path).stat()
            (fleet.folder / host / "etc" / path).chmod(status.st_mode & 0o7777)
            os.chown(fleet.folder / host / "etc" / path, status.st_uid, status.st_gid)


class Measure(t.NamedTuple):
    """One run of a playbook.

    failed, changed: hosts. rejected: wrong setup passwords that were judged. executed, skipped, included: tasks, and
    executions: of tasks or, where they loop, of their items, each of the host that had most. wall, cpu: seconds.
    """

    failed: int
    changed: int
    rejected: int
    executed: int
    skipped: int
    included: int
    executions: int
    wall: float
    cpu: float


def measure(fleet: Fleet, play: dict, forks: int, changes: bool = True, fails: bool = False) -> Measure:
    """Run a play. Ends the program unless all hosts do what they should: whether they change, and whether they fail."""
    (fleet.folder / "tasks.txt").write_text("")
    before = rejected(fleet)
    run, wall, cpu = measured(fleet, *play["tasks"], play=play, forks=forks)
    failed = {entry["host"] for entry in run.entries if entry["result"]["failed"]}
    changed = {entry["host"] for entry in run.entries if entry["result"].get("changed")}
    hosts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for line in (fleet.folder / "tasks.txt").read_text().splitlines():
        host, kind = line.split()
        hosts[host][kind] += 1

    def most(kind: str) -> int:
        return max(counts[kind] for counts in hosts.values())

    as_expected = len(failed) == (len(fleet.hosts) if fails else 0) and (fails or bool(changed) == changes)
    if not as_expected or not hosts:
        sys.exit(f"{len(failed)} of {len(fleet.hosts)} hosts failed, {len(changed)} changed:\n{run.output[-5000:]}")
    tasks = (most("executed"), most("skipped"), most("included"), most("execution"))
    return Measure(len(failed), len(changed), rejected(fleet) - before, *tasks, wall, cpu)


def rejected(fleet: Fleet) -> int:
    return sum(count for verdict, count in fleet.verdicts("setup").items() if verdict != "ok")


def choose_ppin(which: str) -> Path | None:
    """The ppin for new_fleet, compiled anew if it is the native one. Ends the program when it cannot be."""
    if which == "emulator":
        return None
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        return compile_ppin(BUILD / "ppin")
    except NoCompiler as reason:
        sys.exit(f"No native ppin: {reason}. Or choose the emulator's: --ppin emulator.")
