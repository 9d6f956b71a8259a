# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Input made to go wrong, and a ppin that lies.

What goes in is delivered to the last byte or refused before a ppin is started; a ppin gets each password once, at its
own prompt, and can put none into a message, in no form that is easily made.
"""

import base64
import json
import re
import sys
import tempfile
from pathlib import Path

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.dialogue import DialoguePpin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import (
    Paths,
    check_name,
    check_password,
    find_paths,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

SETUP, PIN = "FxaJX-XWVQ3-dc0o5-3SLqf-LJ9l3", "7h3-P1N!of*Zürich"

FAKE = """\
#!%(python)s -SE
import os, sys, termios
def note(what):
    with open(%(log)r, "ab") as log:
        log.write(what.hex().encode() + b"\\n")
def say(text):
    text = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    while text:
        text = text[os.write(1, text):]
def echo(on):
    attributes = termios.tcgetattr(0)
    attributes[3] = attributes[3] | termios.ECHO if on else attributes[3] & ~termios.ECHO
    termios.tcsetattr(0, termios.TCSAFLUSH, attributes)
def read():
    line = b""
    while not line.endswith(b"\\n"):
        line += os.read(0, 1)
    note(b"read " + line[:-1])
    return line[:-1].decode("utf-8", "surrogateescape")
def ask(prompt):
    echo(False)
    say(prompt)
    return read()
def listing(name, state="Configured"):
    say("Primus Permanent PIN\\n[01] slot-id 0: user '" + name + "' permanent secret: " + state + "\\n")
note(b"ran " + b"\\0".join(os.fsencode(word) for word in sys.argv[1:]))
name = sys.argv[-1]
"""


class Fake:
    """A ppin with a body of its own. It keeps what it was started with and what it read."""

    def __init__(self, folder, body, executable="ppin", config="primus.cfg"):
        self.log = folder / "log"
        path = folder / executable
        path.write_text(FAKE % {"python": sys.executable, "log": str(self.log)} + body)
        path.chmod(0o700)
        self.paths = Paths(str(path), str(folder), str(folder / config), str(folder / ".secrets.cfg"))

    def ppin(self, timeout=20):
        return DialoguePpin(self.paths, timeout)

    def notes(self, kind):
        lines = self.log.read_bytes().splitlines() if self.log.exists() else []
        notes = [bytes.fromhex(line.decode()) for line in lines]
        return [note[len(kind) + 1 :] for note in notes if note.startswith(kind.encode() + b" ")]

    @property
    def read(self):
        return [line.decode("utf-8", "surrogateescape") for line in self.notes("read")]


@pytest.fixture
def fake(tmp_path):
    return lambda body: Fake(tmp_path, body)


ASK_BOTH = """\
setup = ask("Provide setup password for '%s': " % name)
say("\\n")
pin = ask("Provide PKCS11 password for '%s': " % name)
say("\\n")
"""
HONEST = ASK_BOTH + "listing(name)\n"

# Input

controls = st.characters(categories=("Cc", "Cs", "Zl", "Zp", "Cf"))
eaten = "\x00\x03\x04\x08\n\r\x11\x12\x13\x15\x16\x17\x1a\x1c\x7f\x80\xff"
anything = st.one_of(
    st.text(st.characters()),
    st.text(st.one_of(controls, st.sampled_from("aZ0-'\"\\ $`;|&*?[]{}()<>!#~%:"))),
    st.text(min_size=1).flatmap(lambda text: st.integers(1, 5000).map(lambda times: text * times)),
    st.builds("{}{}{}".format, st.text("ab"), st.sampled_from(eaten), st.text("ab")),
)


@given(anything, anything)
@example("\udc80", "pin")
@example("x" * 1024, "ü" * 512)
@example("x" * 1025, "pin")
@example("x" * 4096, "pin")
@example(" \u00a0", "\u200b\u202e\ufeff")
def test_a_password_is_delivered_to_the_last_byte_or_refused(setup, pin):
    with tempfile.TemporaryDirectory() as folder:
        fake = Fake(Path(folder), HONEST)
        try:
            check_password("setup_password", setup)
            check_password("pkcs11_password", pin)
        except PpinError as exc:
            assert exc.cls == "config" and re.match("(setup|pkcs11)_password (is|has) ", exc.msg)
            return
        fake.ppin().add("P1", setup, pin)
        assert fake.read == [setup, pin]


@given(anything)
@example("'")
@example("P' : ")
@example("setup password for 'x")
@example("P1': PKCS11 password for 'P1")
@example("-l")
@example("x" * 255)
@example("0X00000001")
@example("$(reboot)\\1.*")
def test_a_name_is_delivered_to_the_last_byte_or_refused(name):
    with tempfile.TemporaryDirectory() as folder:
        fake = Fake(Path(folder), HONEST)
        try:
            check_name("user_name", name)
        except PpinError as exc:
            assert exc.cls == "config" and exc.msg.startswith("user_name ")
            return
        fake.ppin().add(name, SETUP, PIN)
        assert fake.read == [SETUP, PIN]
        (argv,) = fake.notes("ran")
        assert argv.split(b"\0")[-3:] == [b"-a", b"-e", name.encode()]


file_names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=60)


@settings(max_examples=20)
@given(file_names.filter(lambda name: name not in (".", "..", "log", "ppin")))
@example("-c")
@example("a\nb\t'\"$(x) *\\")
def test_a_path_is_delivered_to_the_last_byte(name):
    with tempfile.TemporaryDirectory() as folder:
        fake = Fake(Path(folder), HONEST, config=name)
        for run in (lambda: fake.ppin().add("P1", SETUP, PIN), lambda: fake.ppin().run("-l")):
            run()
        assert {argv.split(b"\0")[1].decode("utf-8", "surrogateescape") for argv in fake.notes("ran")} == {
            str(Path(folder) / name)
        }


@pytest.mark.parametrize("option", ["executable", "primus_home", "config_path", "secrets_path"])
@pytest.mark.parametrize("char", ["\0", "\udcff"])
def test_what_can_be_no_path_is_refused(option, char):
    params = dict(dict.fromkeys(["executable", "primus_home", "config_path", "secrets_path"]), **{option: "/a" + char})
    with pytest.raises(PpinError, match="%s has a NUL or" % option):
        find_paths(params, lambda name: None)


# Prompts

ASK_SETUP, ASK_PIN = "Provide setup password for '%s': ", "Provide PKCS11 password for '%s': "

# What ppin asks one after the other, what it reads, and how the run ends if not well.
PROMPTS = {
    "in the other order": ([ASK_PIN, ASK_SETUP], [PIN, SETUP], None),
    "with a remark": ([ASK_SETUP + "<no echo>", ASK_PIN + "<no echo>"], [SETUP, PIN], None),
    "only one": ([ASK_SETUP], [SETUP], None),
    "setup twice": ([ASK_SETUP, ASK_SETUP], [SETUP], "asked twice"),
    "PKCS11 twice": ([ASK_PIN, "PKCS#11 Password for '%s' :"], [PIN], "asked twice"),
    "setup again at last": ([ASK_SETUP, ASK_PIN, ASK_SETUP], [SETUP, PIN], "asked twice"),
    "of another partition": (["Provide PKCS11 password for '%sx': "], [], "another password"),
    "of a partition in other case": (["Provide PKCS11 password for 'p1': "], [], "another password"),
    "of a proxy": (["Provide proxy password for '%s': "], [], "another password"),
    "two in a line": ([ASK_SETUP + ASK_PIN], [], "another password"),
    "one or the other": (["setup password for '%s' or PKCS11 password for '%s': "], [], "another password"),
    "two below each other": ([ASK_SETUP + "\n" + ASK_PIN], [PIN], None),
    "below it another": ([ASK_SETUP + "\nReally? "], [], "unknown prompt"),
    "a question": (["Is this the setup password for '%s'? "], [], "unknown prompt"),
    "no password": (["Provide the device code for '%s': "], [], "unknown prompt"),
    "overwritten": (["Provide setup\b\b\b\b\bPKCS11 password for '%s': "], [], "unknown prompt"),
    "by another name": (["Provide user setup-password of '%s': "], [], "unknown prompt"),
    "a question at last": ([ASK_SETUP, "Save the setup password of '%s' [y/n]? "], [SETUP], "unknown prompt"),
}


@pytest.mark.parametrize("case", PROMPTS)
def test_a_password_goes_to_its_own_prompt_only_and_once(fake, case):
    prompts, expected, error = PROMPTS[case]
    ppin = fake("for prompt in %r:\n    ask(prompt.replace('%%s', name))\n    say('\\n')\nlisting(name)\n" % prompts)
    run = ppin.ppin(20 if error != "unknown prompt" else 3)
    if error is None:
        run.add("P1", SETUP, PIN)
    else:
        with pytest.raises(PpinError, match=error) as caught:
            run.add("P1", SETUP, PIN)
        assert caught.value.cls == "dialogue"
    assert ppin.read == expected
    assert run.logins == bool(expected)


def test_nothing_is_typed_while_the_echo_is_on(fake, monkeypatch):
    monkeypatch.setattr("ansible_collections.hsmops.primus.plugins.module_utils._ppin.dialogue.ECHO_TIMEOUT", 0.5)
    ppin = fake("echo(True)\nsay(\"setup password for '%s': \" % name)\nread()\n")
    with pytest.raises(PpinError, match="with the echo on"):
        ppin.ppin().add("P1", SETUP, PIN)
    assert ppin.read == []


@pytest.mark.parametrize("noise", ["setup password for '", "\n", " ", "x\n", "\x1b[", "'"])
def test_half_a_megabyte_before_the_prompt(fake, noise):
    ppin = fake("say(%r * (500000 // %d))\nsay('\\n')\n%s" % (noise, len(noise), HONEST))
    ppin.ppin().add("P1", SETUP, PIN)
    assert ppin.read == [SETUP, PIN]


# What shows

# How ppin prints the passwords that it has read, as Python.
LEAKS = {
    "plain": "setup + ' ' + pin",
    "on lines": "'\\n'.join(setup[i:i + 10] for i in range(0, 30, 10)) + '\\n' + pin[:9] + '\\r\\n' + pin[9:]",
    "by letters": "' '.join(setup) + '\\n' + '.'.join(pin)",
    "with escapes": "''.join('\\x1b[1m' + char + '\\x1b[0m' for char in setup + pin)",
    "with escapes of no meaning": "''.join(char + '\\x1b[[' for char in setup + pin)",
    "reversed": "setup[::-1] + ' ' + pin[::-1]",
    "in lower case": "setup.lower() + ' ' + pin.upper()",
    "without dashes": "setup.replace('-', '') + pin.replace('-', '')",
    "half of it": "setup[:16] + ' ' + pin[:12]",
    "base64": "base64.b64encode(('x' + setup + '/' + pin).encode()).decode()",
    "base64 on lines": "base64.encodebytes((setup * 5 + pin * 5).encode()).decode()",
    "hex": "(setup + pin).encode().hex()",
    "hex with colons": "':'.join('%02X' % byte for byte in (setup + pin).encode())",
    "URL": "urllib.parse.quote(setup + pin)",
    "JSON": "json.dumps([setup, pin])",
    "Python": "ascii([setup, pin])",
    "a forged line": "'[01] ' + setup + pin + ' permanent secret: x'",
    "a forged line, base64": "'[01] ' + base64.b64encode((setup + pin).encode()).decode() + ' permanent secret: x'",
    "a forged listing": '"Primus Permanent PIN\\n[01] slot-id 0: user \'" + setup + pin + "\' permanent secret: maybe"',
    "much": "(setup[::-1] + pin[::-1] + '\\n') * 10000",
}
ENDS = {
    "it ends": "",
    "with an error": "say('Error: something\\n')\n",
    "with a code": "say('Error: 0x80005017\\n')\n",
    "killed": "os.kill(os.getpid(), 9)\n",
    "it waits": "echo(False)\nread()\n",
    "it asks again": "ask(\"Provide setup password for '%s': \" % name)\n",
}


def squeezed(text):
    return re.sub(r"[\W_]+", "", text).lower()


def traces(secret):
    """Eight letters in a row of a secret, or of what it may have become: none of it may show."""
    raw = secret.encode()
    forms = [secret, secret[::-1], raw.hex(), json.dumps(secret)]
    forms += [base64.b64encode(b"\0" * i + raw).decode()[4:-4] for i in range(3)]
    forms = [squeezed(form) for form in forms]
    return {form[i : i + 12] for form in forms for i in range(len(form) - 11)}


@pytest.mark.parametrize(
    ("leak", "end"), [(leak, "with an error") for leak in LEAKS] + [("by letters", end) for end in ENDS]
)
def test_no_password_that_ppin_prints_shows(fake, leak, end):
    ppin = fake("import base64, json, urllib.parse\n%ssay(%s + '\\n')\n%s" % (ASK_BOTH, LEAKS[leak], ENDS[end]))
    run = ppin.ppin(3 if end == "it waits" else 20)
    with pytest.raises(PpinError) as caught:
        run.add("P1", SETUP, PIN)
    assert ppin.read[:2] == [SETUP, PIN]
    told = squeezed(" ".join([caught.value.msg, *filter(None, caught.value.result().values())]))
    assert not [trace for trace in traces(SETUP) | traces(PIN) if trace in told]
    assert caught.value.__cause__ is None


def test_the_traces_are_found():
    for made in (SETUP[::-1], base64.b64encode(b"xy" + SETUP.encode()).decode(), SETUP.encode().hex(), ".".join(SETUP)):
        assert [trace for trace in traces(SETUP) if trace in squeezed(made)]


def test_a_later_ppin_does_not_show_it_either(fake, tmp_path):
    stored = tmp_path / "stored"
    later = "if '-a' not in sys.argv:\n    say(open(%r).read())\n    sys.exit()\n" % str(stored)
    run = fake(later + ASK_BOTH + "open(%r, 'w').write(setup[::-1])\nlisting(name)\n" % str(stored)).ppin()
    run.add("P1", SETUP, PIN)
    for command in (run.listing, lambda: run.remove("P1")):
        with pytest.raises(PpinError) as caught:
            command()
        assert stored.read_text() == SETUP[::-1] and SETUP[::-1] not in caught.value.msg
    assert SETUP[::-1] not in run.login("P1", "hsm0").msg


def test_what_ppin_prints_shows_when_no_password_is_in_it(fake):
    ppin = fake(ASK_BOTH + "say('Error: the disk of hsm-1 is on fire: \\x1b[31mcall 112\\x1b[0m\\x07\\n')\n")
    with pytest.raises(PpinError, match="it printed: .*the disk of hsm-1 is on fire: call 112$"):
        ppin.ppin().add("P1", SETUP, PIN)


def test_a_version_is_a_short_word(fake):
    ppin = fake("say('Primus HSM PKCS#11 2.2.4\\x1b]0;title\\x07' + 'x' * 100000)\n").ppin()
    assert re.fullmatch(r"2\.2\.4x{40}", ppin.version())
