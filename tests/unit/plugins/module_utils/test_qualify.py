# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of what the collection relies on, what of an output may be shown, and how a ppin is watched."""

import contextlib
import os
import re
import sys
from pathlib import Path

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._qualify import findings, probes
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.findings import BY_NAME, FINDINGS, FREE
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.own_file import OwnFile
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.probes import rotation
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.redacted import OUTPUT_LIMIT, Redaction
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.terminal import APART, PIPES, TERMINAL, watch

ROOT = Path(findings.__file__).parents[3]


def test_what_is_not_tried_are_findings():
    assert set(probes._WITH_LOGINS + probes._WITH_SERVICE_USER + probes._AT_PROMPT) <= set(BY_NAME)


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.name)
def test_a_finding(finding):
    assert re.fullmatch("[a-z0-9_]+", finding.name) and BY_NAME[finding.name] is finding
    assert finding.expected is None or finding.expected in finding.values
    assert set(finding.cannot) <= set(finding.values)
    assert FREE not in (finding.expected, *finding.cannot)
    assert not finding.where or (ROOT / "plugins" / finding.where).is_file()
    assert finding.relies.endswith(".") and finding.how
    assert all(re.search(r"; do not use|: set |; keep ", message) for message in finding.cannot.values())


@pytest.mark.parametrize("page", ["docs/decisions.md", "docs/qualification.md", "tests/emulator/README.md"])
def test_pages_name_findings_that_there_are(page):
    named = re.findall(r"finding `([a-z0-9_]+)`", (ROOT / page).read_text("utf-8"))
    assert named and set(named) <= set(BY_NAME)


def test_the_names_are_unique():
    assert len(BY_NAME) == len(FINDINGS)


@pytest.fixture
def redaction():
    redaction = Redaction(["s3cret-Pin", None, "FxaJX-XWVQ3-dc0o5-3SLqf-LJ9l3"])
    redaction.name("P", ["PROD", "prod-eu", "a"])
    redaction.name("SU", ["eqabxrfnqqos"])
    redaction.name("ADDR", ["hsm.example.com"])
    return redaction


SHOWN = {
    "slot-id 1: user 'PROD' permanent secret: MISSING": "slot-id 1: user 'P1' permanent secret: MISSING",
    "PROD and prod-eu, Prod": "P1 and P2, P1",  # the longer name is not half of another stand-in
    "a bad day for a": "P3 bad day for P3",
    "service/proxy user 'EQABXRFNQQOS'": "service/proxy user 'SU1'",
    "Connect to 'hsm.example.com' on port 2310": "Connect to 'ADDR1' on port 2310",
    "10.1.2.3, 10.1.2.4, 10.1.2.3": "ADDR2, ADDR3, ADDR2",
    "fe80::1ff:fe23:4567:890a at 12:34:56": "ADDR2 at 12:34:56",
    "mail to ops@example.org": "mail to ADDR2",
    "firmware: RP-2.10.0-T": "firmware: RP-2.10.0-T",
    "serial 0123456789 or 1C6F65D00A4B": "serial ******** or ********",
    "Error: 0x8000000B": "Error: 0x8000000B",
    "Password: s3cret-Pin": "Password: ********",
    "s 3 c r e t - P i n": "(not shown, as a password is in it)",
    "A" * 70 + "==": "********",
}


@pytest.mark.parametrize("text", SHOWN)
def test_what_is_shown(redaction, text):
    assert redaction.text(text) == SHOWN[text]


@pytest.mark.parametrize(
    ("secret", "name", "text", "shown"),
    [
        ("2024", "PROD2024", "user 'PROD2024', PIN 2024", "user 'P1', PIN ********"),
        ("PROD2024-x", "PROD", "PROD2024-x of PROD", "******** of P1"),
        ("pin-1234", "slots", "5 \u017flots", "5 P1"),  # the long s, which is an s where case is ignored
        ("pin-1234", "\u0130stanbul", "user '\u0130stanbul'", "user 'P1'"),
        ("pin-1234", "Z\udcfcrich", "user 'Z\ufffdrich'", "user 'P1'"),  # not UTF-8
    ],
)
def test_names_and_passwords_that_contain_others(secret, name, text, shown):
    redaction = Redaction([secret])
    redaction.name("P", [name])
    assert redaction.text(text) == shown


def test_a_host_is_replaced_with_its_domain():
    redaction = Redaction([])
    redaction.name("HOST", ["app1"])
    assert redaction.text("from app1.corp.example.com to app1.") == "from HOST1 to HOST1."


def test_a_long_output_is_cut_between_lines(redaction):
    shown = redaction.output("the name is PROD\n" * 10000)
    assert len(shown) <= OUTPUT_LIMIT + 10 and shown.endswith("P1\n[…]\n") and "PR" not in shown


@pytest.mark.parametrize(
    ("seen", "words"),
    [("logs in", "host by host"), ("0x80005017", "in one window"), ("0x80005015", "Not known"), (None, "Not known")],
)
def test_the_way_of_rotation(seen, words):
    assert words in rotation(seen)


CHANGES = {
    "written": lambda path: path.write_text("other"),
    "mode": lambda path: path.chmod(0o666),
    "renamed over": lambda path: path.with_name("new").rename(path),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_is_put_back(tmp_path, change):
    path = tmp_path / "file"
    path.write_text("the content")
    path.chmod(0o640)
    path.with_name("new").write_text("new")
    with contextlib.ExitStack() as stack:
        own = OwnFile(str(path), stack)
        assert own.is_as_it_was()
        CHANGES[change](path)
        assert not own.is_as_it_was()
        own.put_back()
    assert path.read_text() == "the content" and path.stat().st_mode & 0o7777 == 0o640


ASKS = """
import os, sys, termios, time
tty = os.open("/dev/tty", os.O_RDWR) if {tty} else 0
def echo_off():
    silent = termios.tcgetattr(tty)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(tty, termios.{when}, silent)
late = {late}
if not late and os.isatty(tty):
    echo_off()
os.write(tty if {tty} else 1, b"Provide setup password for 'P': {end}")
if late:
    time.sleep(0.3)
    echo_off()
os.read(tty, 1)
open("answered", "w")
"""


@pytest.mark.parametrize(
    ("how", "way", "echo", "dropped", "on_terminal"),
    [
        ({}, TERMINAL, "before the prompt", True, True),
        ({"when": "TCSANOW"}, TERMINAL, "before the prompt", False, True),
        ({"late": True}, TERMINAL, "after the prompt", True, True),
        ({"tty": True}, APART, "before the prompt", True, True),
        ({}, APART, "after the prompt", False, False),  # there is no echo to switch off
    ],
)
def test_a_prompt_is_looked_at_and_not_answered(tmp_path, monkeypatch, how, way, echo, dropped, on_terminal):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "ansible_collections.hsmops.primus.plugins.module_utils._qualify.terminal.ECHO_TIMEOUT",
        5 if way == TERMINAL else 0,
    )
    program = ASKS.format(**{"tty": False, "when": "TCSAFLUSH", "late": False, "end": "", **how})
    seen = watch([sys.executable, "-c", program], os.environ, 60, way)
    assert seen.prompt and seen.ended == "terminated at a prompt" and seen.status is None
    assert (seen.dropped, seen.on_terminal) == (dropped, on_terminal)
    assert way == APART or seen.echo == echo
    assert not (tmp_path / "answered").exists()


ENDS = {
    "print(1); raise SystemExit(3)": ("by itself", 3),
    "import time; print(1, flush=True); time.sleep(600)": ("timed out", None),
    "while True: print('n' * 1000)": ("printed too much", None),
    "import os; os.kill(os.getpid(), 9)": ("signal 9", -9),
}


@pytest.mark.parametrize("program", ENDS)
def test_how_a_command_ends(program):
    seen = watch([sys.executable, "-c", program], os.environ, 1 if "sleep" in program else 60, PIPES)
    assert (seen.ended, seen.status) == ENDS[program]
