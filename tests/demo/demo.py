# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Three emulated clients get their credentials from an emulated HSM, through real ansible-playbook runs.

Needs no root and no arguments; it writes only to build/demo. Each of its statements is checked against the clients'
files and the HSM's report. Exits with 1 and the statement that is not true.
"""

import collections
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# From here on relative to ROOT, so that the commands shown are short.
BUILD = Path("build/demo")
HSM = BUILD / "hsm"
HSM_CONFIG = BUILD / "hsm.json"
PASSWORDS = BUILD / "passwords.json"
OLD_PASSWORDS = BUILD / "old_passwords.json"
PRINTED = BUILD / "ansible.txt"
REPORT = BUILD / "report"

CLIENTS = ["app1", "app2", "app3"]
PARTITIONS = ["PAYMENTS", "ARCHIVE"]
SERVICE_USER = "svc_demo"

# A login in the HSM's report: the credential, how it was given to ppin, and the result.
PROXY = ("service proxy password", "terminal", "accepted")
SETUP = ("setup password", "terminal", "accepted")
WRONG_SETUP = ("setup password", "terminal", "rejected")
PKCS11 = ("PKCS#11 password", "terminal", "accepted")
PERMANENT = ("permanent secret", ".secrets.cfg", "accepted")
KINDS = {"proxy": PROXY[0], "setup": SETUP[0], "pkcs11": PKCS11[0], "permanent": PERMANENT[0]}
STORED = PERMANENT[1]


class Untrue(Exception):
    """A statement of the demo is not true."""


# What the reader sees


def show(text: str, indent: str = "", hanging: str = ""):
    print(textwrap.fill(text, 110, initial_indent=indent, subsequent_indent=indent + hanging), flush=True)


def headline(title: str, why: str):
    print(f"\n=== {title}\n")
    show(why)
    print()


def check(holds: bool, sentence: str):
    """Show a sentence that is true. Raises Untrue when it is not."""
    if not holds:
        raise Untrue(sentence)
    show(f"--> {sentence}", hanging="    ")
    print()


def show_table(*rows: list[str]):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("    " + "   ".join(map(str.ljust, row, widths)).rstrip())
    print()


# The emulated HSM


def start_emulator(*words, shown: bool = True) -> subprocess.Popen:
    """Start a command of the emulator, with what it prints in a pipe."""
    words = [str(word) for word in words]
    if shown:
        print(f"  $ python -m primus_emulator {' '.join(words)}", flush=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests/emulator")}
    command = [sys.executable, "-m", "primus_emulator", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def run_emulator(*words, shown: bool = True) -> str:
    """Run a command of the emulator to its end; what it prints."""
    with start_emulator(*words, shown=shown) as process:
        output = process.stdout.read()
    if process.returncode != 0:
        raise Untrue(f"The emulator can do {words[0]}.")
    return output


@contextlib.contextmanager
def running_hsm():
    with start_emulator("serve", "--state", HSM, "--config", HSM_CONFIG) as process:
        try:
            if process.stdout.readline() != "ready\n":
                raise Untrue("The emulated HSM runs.")
            yield
        finally:
            process.terminate()


def new_setup_password(partition: str) -> str:
    return json.loads(run_emulator("admin", "--state", HSM, "new-setup-password", partition))


def logins() -> collections.Counter:
    """All logins that the HSM reports, counted.

    Those with a stored service proxy password are left out, as ppin sends it with every connection.
    """
    report = json.loads(run_emulator("admin", "--state", HSM, "report", shown=False))
    counts = collections.Counter(
        (
            KINDS[login["kind"]],
            STORED if login["source"] == "file" else login["source"],
            "accepted" if login["verdict"] == "ok" else "rejected",
        )
        for login in report
    )
    counts.pop((PROXY[0], STORED, "accepted"), None)
    return counts


# The clients, and Ansible


def checksums() -> list[str]:
    """Of .secrets.cfg of each client."""
    return [hashlib.sha256((BUILD / client / "etc/.secrets.cfg").read_bytes()).hexdigest() for client in CLIENTS]


def write_private(path: Path, data: dict):
    path.touch(mode=0o600)
    path.write_text(json.dumps(data, indent=2))


class Playbook:
    """One run of ansible-playbook, shown while it runs.

    Attributes: output, all of its stdout; changed, how many tasks did, by client that did not fail; failed, the others.
    """

    def __init__(self, name: str, *words: str):
        # A name with dots in it is that of a playbook of the collection.
        arguments = [name if "." in name else f"tests/demo/{name}.yml", *words]
        print(f"  $ ansible-playbook {' '.join(arguments)}", flush=True)
        # The user's own settings of Ansible must not have an effect. `make` sets where the collection is.
        kept = ("ANSIBLE_COLLECTIONS_PATH",)
        environment = {name: os.environ[name] for name in os.environ if not name.startswith("ANSIBLE_") or name in kept}
        environment.update(ANSIBLE_CONFIG="tests/demo/ansible.cfg", LC_ALL="C.UTF-8")
        command = [Path(sys.executable).with_name("ansible-playbook"), *arguments]
        self.output = ""
        with (
            PRINTED.open("a") as printed,
            subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=printed, text=True
            ) as process,
        ):
            for line in self.essential(process.stdout):
                show(line.strip(" *\n"), indent=" " * (4 + len(line) - len(line.lstrip())), hanging="  ")
            printed.write(self.output)
        print()
        recap = re.findall(r"^(\w+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=\d+\s+failed=(\d+)", self.output, re.M)
        self.changed = {client: int(changed) for client, changed, failed in recap if failed == "0"}
        self.failed = [client for client, _changed, failed in recap if failed != "0"]
        if not recap or process.returncode != (2 if self.failed else 0):
            raise Untrue(f"ansible-playbook runs {arguments[0]} to its end. Its output is in {PRINTED}.")

    def essential(self, lines):
        """The lines but empty ones, and what ansible-core 2.19 and later say of a failure before the failure itself."""
        announced = False
        for line in lines:
            self.output += line
            announced = (announced or line.startswith("[ERROR]")) and not line.startswith("fatal:")
            if line.strip() and not announced:
                yield re.sub(r"\s+skipped=\d+\s+rescued=.*", "", line)


# The steps. Each adds to `expected` the logins that it costs.


def prepare() -> dict[str, str]:
    """Make what the HSM is started with, in an empty build/demo; the passwords in it, by variable."""
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    passwords = {f"vault_{name.lower()}_pkcs11_password": secrets.token_urlsafe(12) for name in PARTITIONS}
    passwords["vault_service_proxy_password"] = secrets.token_urlsafe(12)
    partitions = {name: {"pkcs11_password": passwords[f"vault_{name.lower()}_pkcs11_password"]} for name in PARTITIONS}
    service_users = {SERVICE_USER: passwords["vault_service_proxy_password"]}
    # The wrong attempt is counted at the end, so the HSM must not forget it before.
    limits = {"attempt_reset_time": 3600}
    write_private(HSM_CONFIG, {"partitions": partitions, "service_users": service_users, "limits": limits})
    return passwords


def run_steps():
    passwords = prepare()
    expected = collections.Counter()
    headline(
        "1. An HSM and three clients",
        "The HSM is a cluster of two nodes behind a service proxy, emulated on the loopback interface. It has two "
        "partitions, PAYMENTS and ARCHIVE. Each client is a directory with ppin, a primus.cfg and no credential yet.",
    )
    with running_hsm():
        slots = [f"--partition={name}:{slot_id}:{SERVICE_USER}" for slot_id, name in enumerate(PARTITIONS)]
        for client in CLIENTS:
            run_emulator("client", BUILD / client, "--state", HSM, *slots)
        make_setup_passwords(passwords)
        provision(expected)
        provision_again(expected)
        rotate(passwords, expected)
        fail(expected)
        remove(expected)
        report()
        count(expected)
        look_for_passwords()


def make_setup_passwords(passwords: dict[str, str]):
    headline(
        "2. The security officer creates the setup passwords",
        "A client uses one to fetch the permanent secret of a partition. All passwords are written to "
        f"{PASSWORDS}, which only you can read; in production, use a vault.",
    )
    for name in PARTITIONS:
        passwords[f"vault_{name.lower()}_setup_password"] = new_setup_password(name)
    write_private(PASSWORDS, passwords)


def provision(expected: collections.Counter):
    headline(
        "3. The clients get their credentials",
        "First the service proxy password, which the proxy requires, then the permanent secrets.",
    )
    run = Playbook("provision", f"-e@{PASSWORDS}")
    expected.update({PROXY: 3, SETUP: 6, PKCS11: 6, PERMANENT: 6})
    check(
        run.changed == dict.fromkeys(CLIENTS, 2) and logins() == expected,
        "Each client has three credentials. The proxy and the HSM accepted every password, and each permanent secret "
        "was verified by one login.",
    )


def provision_again(expected: collections.Counter):
    headline("4. The same run again", "Nothing has to be changed, so no password is used and no login is made.")
    before = checksums()
    run = Playbook("provision", f"-e@{PASSWORDS}")
    check(
        run.changed == dict.fromkeys(CLIENTS, 0) and checksums() == before and logins() == expected,
        "changed=0 on each client, each .secrets.cfg is unchanged, and there was no login.",
    )


def rotate(passwords: dict[str, str], expected: collections.Counter):
    headline(
        "5. Rotate the secret of PAYMENTS",
        "The security officer creates a new setup password, which replaces the old one. With state: updated, each "
        "client uses it to fetch the permanent secret again.",
    )
    PASSWORDS.rename(OLD_PASSWORDS)
    passwords["vault_payments_setup_password"] = new_setup_password("PAYMENTS")
    write_private(PASSWORDS, passwords)
    run = Playbook("rotate", f"-e@{PASSWORDS}")
    expected.update({SETUP: 3, PKCS11: 3, PERMANENT: 3})
    check(
        run.changed == dict.fromkeys(CLIENTS, 1) and logins() == expected,
        "Each client has spent the new setup password once, and has logged in with the secret that it fetched.",
    )
    run = Playbook("rotate", f"-e@{PASSWORDS}")
    check(
        run.changed == dict.fromkeys(CLIENTS, 0) and logins() == expected,
        "changed=0 and no login: each client has a fingerprint of the setup password, and does not spend it twice.",
    )


def fail(expected: collections.Counter):
    headline(
        "6. An update that fails",
        "Somebody runs it with old passwords. If an update fails, ppin removes the present entry, and the client could "
        "not log in any more. The module therefore runs ppin on a copy of .secrets.cfg.",
    )
    before = checksums()
    run = Playbook("rotate", f"-e@{OLD_PASSWORDS}", "--limit=app3")
    expected[WRONG_SETUP] += 1
    check(
        run.failed == ["app3"] and "rolled_back: true" in run.output and checksums() == before,
        "The run failed, and .secrets.cfg of app3 is unchanged.",
    )
    check(
        logins() == expected,
        "The wrong password was tried only once: wrong attempts lock a partition for all its clients.",
    )


def remove(expected: collections.Counter):
    headline(
        "7. app3 no longer needs ARCHIVE",
        "With state: absent, its permanent secret is removed. This needs no password.",
    )
    run = Playbook("remove", "--limit=app3")
    check(
        run.changed == {"app3": 1} and logins() == expected, "The secret was removed from app3, and there was no login."
    )


def report():
    headline(
        "8. Report on the fleet",
        "The playbook hsmops.primus.report inspects each client without a login, and reports what needs to be done.",
    )
    run = Playbook("hsmops.primus.report")
    check(not run.failed, "Each client was inspected.")
    data = json.loads((REPORT / "primus_report.json").read_text())
    states = {}
    for client in sorted(data["hosts"], key=lambda client: client["name"]):
        credentials = {entry["name"]: entry["configured"] for entry in client["service_users"] + client["partitions"]}
        states[client["name"]] = [
            "Configured" if credentials[name] else "MISSING" for name in (SERVICE_USER, *PARTITIONS)
        ]
    show_table(["client", SERVICE_USER, *PARTITIONS], *([client, *row] for client, row in states.items()))
    all_there = ["Configured"] * 3
    found = {finding["kind"]: finding["hosts"] for finding in data["findings"]}
    check(
        states == {"app1": all_there, "app2": all_there, "app3": [*all_there[:2], "MISSING"]}
        and found == {"secret_missing": ["app3"]},
        "The report has one finding: app3 has no secret of ARCHIVE. Its secret of PAYMENTS is still there after the "
        "failed update.",
    )


def count(expected: collections.Counter):
    headline("9. Logins at the HSM", "The emulated HSM reports every login, and how the credential was given to ppin.")
    counts = logins()
    show_table(
        ["credential", "given through", "result", "logins"],
        *([*login, str(number)] for login, number in sorted(counts.items())),
    )
    summary = json.loads(run_emulator("admin", "--state", HSM, "report-summary", shown=False))
    trials = {name: partition["trials"] for name, partition in summary["partitions"].items()}
    check(
        counts == expected and trials == {"PAYMENTS": 1, "ARCHIVE": 0},
        "There were no other logins, and one wrong attempt, at PAYMENTS. Each password was typed at a terminal of "
        "ppin's own; none was an argument, which other users could read.",
    )


def look_for_passwords():
    given = {HSM_CONFIG, PASSWORDS, OLD_PASSWORDS}
    passwords = {*json.loads(PASSWORDS.read_text()).values(), *json.loads(OLD_PASSWORDS.read_text()).values()}
    texts = [path.read_bytes() for path in BUILD.rglob("*") if path.is_file() and path not in given]
    check(
        not any(password.encode() in text for password in passwords for text in texts),
        f"In {BUILD}, including the output of Ansible, no password is in any file but the three that it was given in.",
    )


def main() -> int:
    os.chdir(ROOT)
    # Stop the emulator at these signals, too.
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        run_steps()
    except Untrue as untrue:
        print(f"\nThe demo has failed. This is not true: {untrue}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f"The demo is complete, and everything was as described. The HSM is stopped; the files are in {BUILD}.")
    print(f"To see the report, open {REPORT}/primus_report.html.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
