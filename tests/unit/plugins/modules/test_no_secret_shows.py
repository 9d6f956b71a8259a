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
from ansible_collections.hsmops.primus.plugins.module_utils import _plan
from find_secrets import all_forms

COLLECTION = Path(_plan.__file__).parents[2]
SETUP, PIN, PROXY = "AAAAA-BBBBB-CCCCC-DDDDD-EEE01", "pin-of-partition-1", "password-of-svc1"


FORMS = all_forms((SETUP, PIN, PROXY))


class ProcessWatch:
    """Reads argv and environment of every process again and again, and keeps where a secret was found."""

    def __init__(self):
        self.found, self.looks, self.names = [], 0, set()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.stop.is_set():
            self.looks += 1
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        content = (process / name).read_bytes()
                        self.names.update(word for word in (b"/bin/ppin", b"ppin_secret.py") if word in content)
                        if any(form in content for form in FORMS):
                            self.found.append((name, content[:80]))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exc):
        self.stop.set()
        self.thread.join()


def test_the_watch_finds_a_planted_secret():
    with ProcessWatch() as watch:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.5)", PIN], check=True)
    assert watch.found


def test_argv_and_environment_of_all_processes(client):
    client.hsm("slow", seconds=0.3)
    with ProcessWatch() as watch:
        client.proxy()
        client.secret("P1")
        client.secret("P1", state="updated", setup_password="ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ")
        client.run(
            "ppin_fortinet",
            user_name="P1",
            setup_password=SETUP,
            pkcs11_password=PIN,
            return_content=True,
            proxy_user="svc1",
            proxy_password=PROXY,
        )
        client.secret("P1", state="absent")
    client.hsm("slow", seconds=0)
    assert watch.found == []
    assert watch.names == {b"/bin/ppin", b"ppin_secret.py"}


def test_no_file_holds_a_secret_afterwards(client, tmp_path):
    client.proxy()
    client.secret("P1", backup=True)
    client.secret("P1", state="updated", setup_password="ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ")
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


@pytest.mark.parametrize("setup_password", [SETUP, "ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ"])
def test_a_ppin_that_prints_its_passwords(client, setup_password):
    client.set(echo_secrets="on")
    client.proxy()
    client.secret("P1", setup_password=setup_password)  # Client.run looks for secrets in all that the module prints


def test_syslog(client, tmp_path):
    """What AnsibleModule logs of its invocation."""
    log = tmp_path / "syslog"
    module = COLLECTION / "plugins/modules/ppin_secret.py"
    wrapper = (
        "import runpy, sys, syslog\n"
        f"syslog.syslog = lambda *words: open({str(log)!r}, 'a').write(repr(words))\n"
        f"sys.argv = [{str(module)!r}]\n"
        f"runpy.run_path({str(module)!r}, run_name='__main__')\n"
    )
    arguments = {"user_name": "P2", "setup_password": SETUP, "pkcs11_password": PIN, "primus_home": str(client.home)}
    subprocess.run(
        [sys.executable, "-c", wrapper],
        env=dict(os.environ, PYTHONPATH=str(COLLECTION.parents[2])),
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode(),
        stdout=subprocess.DEVNULL,
        check=False,
    )
    content = log.read_bytes()
    assert b"Invoked with" in content and b"P2" in content
    assert not any(form in content for form in FORMS)
