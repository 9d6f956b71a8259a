# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret in argv, environment, output, syslog or files; and the terminal is the only way in."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from emulated_hsm import COLLECTION, PINS, PROXY_PASSWORD, SETUP, WRONG_SETUP, wait_for
from find_secrets import all_forms

FORMS = all_forms((SETUP["P1"], PINS["P1"], PROXY_PASSWORD))


class ProcessWatch:
    """Reads argv and environment of every process again and again, and keeps where one of the forms was found."""

    def __init__(self, forms=FORMS):
        self.forms = forms
        self.found, self.names = [], set()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.stop.wait(0.005):
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        content = (process / name).read_bytes()
                        self.names.update(word for word in (b"/bin/ppin", b"ppin_secret.py") if word in content)
                        if any(form in content for form in self.forms):
                            self.found.append((name, content[:80]))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exc):
        self.stop.set()
        self.thread.join()


def test_the_watch_finds_a_planted_secret():
    planted = "not a secret that another test looks for"
    command = [sys.executable, "-c", "import time; time.sleep(600)", planted]
    with ProcessWatch({planted.encode()}) as watch, subprocess.Popen(command) as process:
        try:
            wait_for(lambda: watch.found, process)
        finally:
            process.kill()


def test_argv_and_environment_of_all_processes(client):
    client.prefix = ["env"]  # so that a module is a program of its own, with its own arguments
    client.hsm("slow", seconds=0.1)
    with ProcessWatch() as watch:
        client.proxy()
        client.secret("P1")
        client.secret("P1", state="updated", setup_password=WRONG_SETUP)
        client.run(
            "ppin_fortinet",
            user_name="P1",
            setup_password=SETUP["P1"],
            pkcs11_password=PINS["P1"],
            return_content=True,
            proxy_user="svc1",
            proxy_password=PROXY_PASSWORD,
        )
        client.secret("P1", state="absent")
    client.hsm("slow", seconds=0)
    assert watch.found == []
    assert watch.names == {b"/bin/ppin", b"ppin_secret.py"}


def test_no_file_holds_a_secret_afterwards(client, tmp_path):
    client.proxy()
    client.secret("P1", backup=True)
    client.secret("P1", state="updated", setup_password=WRONG_SETUP)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {".secrets.cfg", ".secrets.cfg.ledger"} <= {path.name for path in files}
    assert [path for path in files if any(form in path.read_bytes() for form in FORMS)] == []


def test_the_terminal_is_the_way_in(client):
    client.proxy()
    client.secret("P1")
    client.secret("P1", state="updated", setup_password=client.hsm.new_setup_password("P1"))
    logins = client.hsm.logins("setup", "pkcs11", "proxy")
    assert [login["kind"] for login in logins] == ["proxy", "setup", "pkcs11", "setup", "pkcs11"]
    assert {login["source"] for login in logins} == {"terminal"}


# The name of a test is in the environment of what it starts, where another test may look for secrets.
@pytest.mark.parametrize("setup_password", [SETUP["P1"], WRONG_SETUP], ids=["right", "wrong"])
def test_a_ppin_that_prints_its_passwords(client, setup_password):
    client.set(echo_secrets="on")
    client.proxy()
    result = client.secret("P1", setup_password=setup_password)  # Client.run looks for secrets in all that it prints
    assert result["logins"] == 2 if setup_password == SETUP["P1"] else result["failed"]


ODD_PIN = 'it\'s a "pin" \\ of P1'


@pytest.mark.parametrize("name", ["ppin_secret", "ppin_credentials"])
def test_syslog(client, tmp_path, name):
    """What AnsibleModule logs of its invocation, also of passwords that `repr` does not leave as they are."""
    log = tmp_path / "syslog"
    module = COLLECTION / f"plugins/modules/{name}.py"
    wrapper = (
        "import runpy, sys, syslog\n"
        f"syslog.syslog = lambda *words: open({str(log)!r}, 'a').write(str(words[-1]))\n"
        f"sys.argv = [{str(module)!r}]\n"
        f"runpy.run_path({str(module)!r}, run_name='__main__')\n"
    )
    options = {"user_name": "P2", "setup_password": SETUP["P1"], "pkcs11_password": ODD_PIN}
    if name == "ppin_credentials":
        options = {"service_users": [{"name": "svc1", "password": ODD_PIN}], "partitions": [options]}
    subprocess.run(
        [sys.executable, "-c", wrapper],
        env=dict(os.environ, PYTHONPATH=str(COLLECTION.parents[2])),
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**options, "primus_home": str(client.home)}}).encode(),
        stdout=subprocess.DEVNULL,
        check=False,
    )
    content = log.read_bytes()
    assert b"Invoked with" in content and str(client.home).encode() in content
    assert not any(form in content for form in [*FORMS, *all_forms([ODD_PIN]), b"of P1"])
