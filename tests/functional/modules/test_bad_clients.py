# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients and inputs with which nothing can be done: each gets a message that says what and what next."""

import os

import pytest
from emulated_hsm import PINS, SETUP, wrap_ppin


def assert_refused(client, before, result, *words, logins=0):
    assert result["failed"] and not result["changed"] and result["logins"] == logins
    for word in words:
        assert word in result["msg"], result["msg"]
    assert result["error"]["hint"] in result["msg"]
    assert client.state() == before


INPUTS = {
    "no setup password": ({"setup_password": None}, "needs setup_password"),
    "no PIN": ({"pkcs11_password": None}, "needs pkcs11_password"),
    "neither": ({"setup_password": None, "pkcs11_password": None}, "needs setup_password and pkcs11_password"),
    "a setup password with a blank": ({"setup_password": SETUP["P2"] + " "}, "the form of a setup password"),
    "a setup password that is none": ({"setup_password": "too-short"}, "the form of a setup password"),
    "a short setup password": ({"setup_password": SETUP["P2"][:-1]}, "the form of a setup password"),
    "a setup password with a line break": ({"setup_password": SETUP["P2"] + "\n"}, "line break"),
    "an empty PIN": ({"pkcs11_password": ""}, "pkcs11_password is empty"),
    "a PIN with a control character": ({"pkcs11_password": "ab\x03cd"}, "control character"),
    "a PIN with NUL": ({"pkcs11_password": "ab\x00cd"}, "control character"),
    "a long PIN": ({"pkcs11_password": "x" * 1025}, "longer than 1024 bytes"),
    "no timeout": ({"timeout": 0}, "timeout must be at least 1"),
    "negative retries": ({"retries": -1}, "retries must be at least 0"),
}


NAMES = {
    "a name with a line break": ("P2\n", "has a line break"),
    "a name with an escape sequence": ("\x1b[2JP2", "has a line break or another control character"),
    "a name with NUL": ("P2\0", "has a line break or another control character"),
    "a name with a line separator": ("P2\u2028", "has a line break"),
    "a blank name": (" \u00a0 ", "is empty"),
    "a long name": ("P" * 10000, "longer than 255 bytes"),
    "a name like an error code": ("0x80005017", "has an error code in it"),
}
PATHS = ["executable", "primus_home", "config_path", "secrets_path"]
BEFORE = {case: INPUTS[case] for case in INPUTS if "needs" not in INPUTS[case][1]}
BEFORE.update({case: ({"user_name": name}, words) for case, (name, words) in NAMES.items()})
BEFORE.update({f"{option} with NUL": ({option: "/etc\0"}, f"{option} has a NUL") for option in PATHS})


@pytest.mark.parametrize("case", BEFORE)
def test_bad_input_is_refused_before_ppin_runs(client, case):
    options, words = BEFORE[case]
    client.ppin.write_text("#!/bin/sh\ntouch '%s/ran'\n" % client.home)
    # Without a log on the client: from Python 3.12 on it cannot take a NUL, and Ansible itself gives up.
    result = client.secret(_ansible_no_log="NUL" in case, **options)
    assert_refused(client, client.state(), result, words)
    assert not (client.home / "ran").exists()
    if case == next(iter(BEFORE)):
        client.secret()
        assert (client.home / "ran").exists(), "this is how a ppin that runs is seen"


@pytest.mark.parametrize("option", ["user_name", "setup_password", "pkcs11_password"])
def test_what_is_no_text_runs_no_ppin(client, option):
    """Ansible's own code cannot return such an option, so this ends in its words, not ours."""
    client.ppin.write_text("#!/bin/sh\ntouch '%s/ran'\n" % client.home)
    before = client.state()
    options = {
        "user_name": "P2",
        "setup_password": SETUP["P2"],
        "pkcs11_password": PINS["P2"],
        option: "ab\udcffcd",
    }
    process = client.start("ppin_secret", **options)
    out, err = process.communicate(timeout=300)
    assert process.returncode
    assert not any(secret in (out + err).decode() for secret in (SETUP["P2"], PINS["P2"]))
    assert client.state() == before and not (client.home / "ran").exists()


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("case", INPUTS)
def test_bad_input_is_refused_before_anything_is_touched(client, case, check):
    options, words = INPUTS[case]
    before = client.state()
    assert_refused(client, before, client.secret(check=check, **options), words)
    assert client.hsm.logins() == []


def test_the_form_of_a_setup_password_can_be_left_to_the_device(client):
    client.hsm("new-setup-password", partition="P2", value="another form")
    result = client.secret(setup_password="another form", setup_password_format_check=False)
    assert result["action"] == "added"


@pytest.mark.parametrize("pin", ["pass word ", "ünïcödé-ßecret", "$(touch x);'\"\\", "x" * 1024, "%s %d {0} {{ x }}"])
def test_a_pin_is_delivered_as_it_is(client, pin):
    client.hsm("set-pkcs11-password", partition="P2", value=pin)
    assert client.secret(pkcs11_password=pin)["action"] == "added"


def test_a_name_reaches_ppin_in_utf_8_whatever_the_locale(client, monkeypatch):
    """Python 3.6, and later ones that are told so, take all file names of the locale C for ASCII."""
    for variable, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(variable, value)
    client.ppin.write_text('#!/bin/sh\necho "$@" > "%s/words"\n' % client.home)
    result = client.run("ppin_log_info", user_name="Zürich", hsm="hsm0")
    assert result["failed"] and "Fetching the log of 'Zürich' from hsm0 failed; it printed nothing" in result["msg"]
    assert "--user Zürich --hsm" in (client.home / "words").read_text("utf-8")


def test_no_ppin(client, tmp_path):
    client.ppin.unlink()
    before = client.state()
    result = client.secret(primus_home=str(tmp_path / "none"))
    assert_refused(client, before, result, "ppin was not found in", "Install the Primus PKCS#11 provider")
    result = client.secret(executable="/nowhere/ppin")
    assert_refused(client, before, result, "There is no /nowhere/ppin", "Install the Primus PKCS#11 provider")


def test_a_ppin_that_is_not_executable(client):
    client.ppin.chmod(0o644)
    assert_refused(client, client.state(), client.secret(), "cannot be executed")


def test_a_ppin_that_is_no_program(client):
    client.ppin.write_bytes(b"\x00\x01 not a program")
    assert_refused(client, client.state(), client.secret(), "cannot be run")


BEHAVIOURS = {
    "hangs at the start": ({"hang_at": "start"}, 1, "timed out after 1 seconds", "it printed nothing", 0),
    "hangs at the prompt": ({"hang_at": "prompt"}, 3, "timed out after 3 seconds", "Adding", 1),
    "hangs after a password": ({"hang_at": "after-password"}, 3, "timed out after 3 seconds", "Adding", 1),
    "prints 10 MB": ({"print_mb": 10}, 60, "printed more than 1048576 characters", "Is this the vendor's ppin?", 0),
    "asks something else first": (
        {"extra_question": "Really [y/N]? ", "extra_question_at": "before"}, 3, "unknown prompt", "Really [y/N]?", 0,
    ),
    "asks something else last": (
        {"extra_question": "Really [y/N]? ", "extra_question_at": "after"}, 3, "unknown prompt", "Really [y/N]?", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BEHAVIOURS)
def test_a_ppin_that_behaves_badly(configured, case):
    behaviour, timeout, first, second, logins = BEHAVIOURS[case]
    configured.secret(state="absent")
    configured.set(**behaviour)
    before = configured.state()
    assert_refused(configured, before, configured.secret(timeout=timeout), first, second, logins=logins)


LIES = {
    "it says so in the listing that follows": (
        "echo \"[01] slot-id 1: user 'P2' permanent secret: Configured\"",
        "had no effect",
    ),
    "in a line that is forged": ("printf '[01] %s permanent secret\\n' \"$a $b\"", "a line that is not understood"),
    "turned round": ("echo $a$b | rev", "not shown, as a password is in it"),
    "in base64": ("echo x$a$b | base64", "it printed: setup password for 'P2': | PKCS11 password for 'P2': | ********"),
    "letter by letter": ("echo $a$b | sed 's/./&\\n/g'", "not shown, as a password is in it"),
    "with escape sequences": ("printf '\\033[1m%s\\033[0m' $a $b", "it printed: "),
}


@pytest.mark.parametrize("case", LIES)
def test_a_ppin_that_lies(client, case):
    """It gets the passwords, and whatever it does with them: nothing of it is believed, and none shows."""
    lie, words = LIES[case]
    wrap_ppin(
        client.ppin,
        'case " $* " in *" -a "*) ;; *) exec "$0.real" "$@" ;; esac\nstty -echo\n'
        "printf \"setup password for 'P2': \"; read -r a\n"
        "printf \"\\nPKCS11 password for 'P2': \"; read -r b\necho\n" + lie,
    )
    before = client.state()
    result = client.secret()
    assert_refused(client, before, result, words, logins=1)
    assert result["rolled_back"]
    for trace in ("AAAA", "20EEE", "pin-of", "QUFBQUEt", "2-noititrap"):
        assert trace not in str(result).replace("', '", "")


def test_binary_noise_around_the_listing_does_no_harm(client):
    client.set(binary_noise="on")
    assert client.secret()["action"] == "added"


def test_only_binary_noise_is_an_error_without_control_characters(client):
    client.ppin.write_text("#!/bin/sh\nhead -c 3000 /dev/urandom\n")
    result = client.secret()
    assert_refused(client, client.state(), result, "Listing the credentials (ppin -l) failed", "it printed")
    assert result["msg"].isprintable()


@pytest.mark.parametrize(("name", "code"), [("config", "0x80005003"), ("secrets", "0x80005004")])
def test_a_file_that_is_missing(client, name, code):
    getattr(client, name).unlink()
    result = client.secret()
    assert_refused(client, client.state(), result, "There is no ", f"{name}_path")
    assert result["error"]["code"] == code


@pytest.mark.parametrize(("name", "code"), [("config", "0x80005005"), ("secrets", "0x80005006")])
def test_a_file_that_is_invalid(client, name, code):
    getattr(client, name).write_text("this is { not libconfig")
    before = client.state()
    result = client.secret()
    assert_refused(client, before, result, code)
    assert result["error"]["code"] == code


def test_absent_on_a_host_without_anything(client, tmp_path):
    result = client.secret(state="absent", primus_home=str(tmp_path), secrets_path=str(tmp_path / "none"))
    assert (result["changed"], result["action"], result["entries"]) == (False, "none", [])


def test_the_files_are_found_as_ppin_finds_them(client, monkeypatch):
    monkeypatch.setenv("SECUROSYS_SECRETS_CONF", str(client.secrets))
    monkeypatch.setenv("SECUROSYS_PKCS11_CONF", str(client.config))
    monkeypatch.setenv("PRIMUS_HOME", str(client.home))
    result = client.secret(primus_home=None, config_path=None, secrets_path=None)
    assert result["action"] == "added"
    assert os.path.samefile(client.info(primus_home=None)["executable"], client.ppin)
