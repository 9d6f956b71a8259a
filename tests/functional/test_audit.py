# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit finds a secret wherever one is planted, in whatever form, and nothing where none is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.hsmops.primus.tests.integration.audit import Trace
from emulated_hsm import COLLECTION

AUDIT = COLLECTION / "tests/integration/audit.py"
SECRET = 'a "secret" & änother\\'

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

TYPES = f"""\
import pexpect
child = pexpect.spawn("sh", ["-c", "cat > /dev/null"], echo=False)
child.sendline({SECRET!r})
child.sendeof()
child.expect(pexpect.EOF)
"""

PLANTS = f"""\
import base64, json, mmap, os, shutil, socket, subprocess, sys, syslog, tempfile, threading, urllib.parse
secret, folder = {SECRET!r}, sys.argv[1]
raw = secret.encode()

subprocess.run(["true", "in-an-argument", "x" + secret])
subprocess.run(["true", "in-the-environment"], env={{"A": base64.b64encode(b"xy" + raw + b"z").decode()}})
try:
    os.execv("/nowhere/of-a-program-that-is-not-there", ["-", raw.hex()])
except FileNotFoundError:
    pass
if os.fork() == 0:  # a child that is no new program
    with open(folder + "/by-a-child", "w") as file:
        file.write(raw.hex().upper())
    os._exit(0)
os.wait()

with open(folder + "/short-lived", "w") as file:
    file.write(secret[::-1])
os.unlink(file.name)
with open(folder + "/in-two-pieces", "wb", buffering=0) as file:
    file.write(b"x" + raw[:7])
    file.write(raw[7:])
os.unlink(file.name)
with open(folder + "/by-writev", "wb", buffering=0) as file:
    os.writev(file.fileno(), [raw[:3], raw[3:]])
with open(folder + "/by-pwrite", "wb", buffering=0) as file:
    os.pwrite(file.fileno(), json.dumps([secret]).encode(), 5)
with open(os.environ["TMPDIR"] + "/by-mmap", "w+b") as file:
    file.truncate(100)
    mmap.mmap(file.fileno(), 100).write(urllib.parse.quote_plus(secret).encode())

ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
ends[0].send(json.dumps(json.dumps({{"in-a-datagram": secret}})).encode())
server = socket.create_server(("127.0.0.1", 0))
with socket.create_connection(server.getsockname()) as client:
    client.sendall(base64.encodebytes(raw))
syslog.syslog("password " + secret)
"""


def audit(tmp_path, script):
    """Exit status, output, and the places that hold the secret, with who made them."""
    path = tmp_path / "script.py"
    path.write_text(script)
    command = [sys.executable, str(AUDIT), "--secret", SECRET, sys.executable, str(path), str(tmp_path)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    return run.returncode, run.stdout, re.findall(r"^FOUND  (.*)\n    by (.*)", run.stdout, re.M)


def test_every_kind_is_found(tmp_path):
    status, output, found = audit(tmp_path, TYPES + PLANTS)
    assert status == 1
    places = {re.sub(r"^(TCP|UNIX).*", r"\1", Path(place).name) for place, _who in found}
    expected = {"by-a-child", "short-lived", "in-two-pieces", "by-writev", "by-pwrite", "by-mmap", "TCP", "UNIX"}
    if os.geteuid() == 0:
        expected.add("syslog")
    assert places - {"its arguments", "its environment"} == expected
    programs = {(place, who) for place, who in found if place.startswith("its ")}
    assert ("its environment", "true in-the-environment") in programs
    assert any(place == "its arguments" and who.startswith("true in-an-argument") for place, who in programs)
    assert any(place == "its arguments" and "script.py" in who for place, who in programs), "the one that is not there"
    assert len(programs) == 3


def test_nothing_is_found_where_nothing_is(tmp_path):
    status, output, found = audit(tmp_path, TYPES)
    assert (status, found) == (0, []), output
    assert "1 of them typed" in output


def test_a_run_in_which_no_password_was_typed_tests_nothing(tmp_path):
    assert audit(tmp_path, "")[0] == 1


def test_a_run_that_fails_is_no_success(tmp_path):
    assert audit(tmp_path, TYPES + "raise SystemExit(3)")[0] == 1


def test_who_it_was_when_a_pid_comes_again(tmp_path):
    """As strace 6.1 writes it. The namespace of 12 calls its child 11, and strace calls it 13."""
    (tmp_path / "trace").write_text("""\
10 execve("/bin/first", ["first"], []) = 0
10 clone(child_stack=NULL, flags=SIGCHLD) = 11
11 execve("/bin/second", ["second"], []) = 0
11 write(3</by-second>, "x", 1)    = 1
11 +++ exited with 0 +++
10 vfork( <unfinished ...>
12 execve("/bin/third", ["third"], [] <unfinished ...>
10 <... vfork resumed>)              = 12
12 <... execve resumed>)             = 0
12 fork()                            = 11 /* 13 in strace's PID NS */
13 write(3</by-third>, "x", 1)     = 1
13 +++ killed by SIGKILL +++
11 write(3</by-first>, "x", 1)     = 1
10 fork()                            = 11
""")
    found = {target: who for who, target in Trace(tmp_path / "trace").bytes if target.startswith("/")}
    assert found == {"/by-second": "second", "/by-third": "third", "/by-first": "first"}
