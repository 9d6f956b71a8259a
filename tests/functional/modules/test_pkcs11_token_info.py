# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pkcs11_token_info, on SoftHSM2, on another library, and on libraries that misbehave."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emulated_hsm import COLLECTION
from softhsm import LIBRARY, PIN, WRONG_PIN, make_token

TRUST = Path("/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-trust.so")

pytest.importorskip("pkcs11")


def look(library=LIBRARY, check=False, **options):
    """Run the module as Ansible does. No PIN may be in what it prints."""
    arguments = {"library": str(library), "_ansible_check_mode": check, **options}
    process = subprocess.run(
        [sys.executable, str(COLLECTION / "plugins/modules/pkcs11_token_info.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(COLLECTION.parents[2]), os.environ.get("FAKES", "")])},
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode(),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert process.stderr == b"", process.stderr.decode()
    assert PIN.encode() not in process.stdout and WRONG_PIN.encode() not in process.stdout
    return json.loads(process.stdout)


@pytest.fixture
def token(tmp_path, monkeypatch):
    """A SoftHSM2 of its own with a token P1; its slot id."""
    make_token(tmp_path, monkeypatch)
    (slot,) = [slot for slot in look()["slots"] if slot["token"]["label"] == "P1"]
    return slot["slot_id"]


def test_what_is_there(token):
    result = look()
    assert not result.get("failed"), result
    assert (result["changed"], result["login"], result["logins"]) == (False, None, 0)
    release = subprocess.run(["softhsm2-util", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert result["library"] == {
        "path": str(LIBRARY),
        "manufacturer": "SoftHSM",
        "description": "Implementation of PKCS11",
        "version": ".".join(release.split(".")[:2]),
        "cryptoki_version": "2.40",
    }
    ours, empty = result["slots"]
    assert ours["slot_id"] == token and ours["flags"] == ["TOKEN_PRESENT"] and "mechanisms" not in ours
    assert (ours["token"]["label"], ours["token"]["model"]) == ("P1", "SoftHSM v2")
    assert len(ours["token"]["serial"]) == 16 and ours["token"]["manufacturer"] == "SoftHSM project"
    assert {"LOGIN_REQUIRED", "USER_PIN_INITIALIZED", "TOKEN_INITIALIZED"} <= set(ours["token"]["flags"])
    assert "USER_PIN_INITIALIZED" not in empty["token"]["flags"]
    assert "SHA256_RSA_PKCS" in look(mechanisms=True)["slots"][0]["mechanisms"]


@pytest.mark.parametrize("by", ["slot_id", "token_label"])
def test_a_login(token, by):
    named = {"slot_id": {"slot_id": token}, "token_label": {"token_label": "P1"}}[by]
    result = look(pin=PIN, **named)
    assert not result.get("failed"), result
    assert result["logins"] == 1 and result["login"]["round_trip"] is None
    assert (result["login"]["slot_id"], result["login"]["token_label"]) == (token, "P1")
    assert result["login"]["objects"] == dict.fromkeys(
        ["data", "certificate", "public_key", "private_key", "secret_key", "domain_parameters"], 0
    )


def test_a_round_trip_leaves_nothing_behind(token):
    result = look(pin=PIN, slot_id=token, round_trip=True)
    assert result["login"]["round_trip"] == {"ok": True, "mechanism": "SHA256_RSA_PKCS", "error": None}
    assert set(look(pin=PIN, slot_id=token)["login"]["objects"].values()) == {0}


def test_objects_are_counted(token):
    code = (
        "import pkcs11; session = pkcs11.lib(%r).get_token(token_label='P1').open(rw=True, user_pin=%r)\n"
        "session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True); session.close()" % (str(LIBRARY), PIN)
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    objects = look(pin=PIN, slot_id=token)["login"]["objects"]
    assert (objects["public_key"], objects["private_key"], objects["secret_key"]) == (1, 1, 0)


def test_a_wrong_pin_is_tried_once(token):
    result = look(pin=WRONG_PIN, slot_id=token)
    assert result["failed"] and result["logins"] == 1 and result["login"] is None
    assert result["error"]["code"] == "0x000000A0" and result["error"]["class"] == "rejected"
    assert "CKR_PIN_INCORRECT" in result["msg"] and "'P1'" in result["msg"]
    assert "USER_PIN_COUNT_LOW" in look()["slots"][0]["token"]["flags"]

    for pin in (WRONG_PIN, PIN):
        refused = look(pin=pin, slot_id=token)
        assert refused["failed"] and refused["logins"] == 0 and refused["error"]["class"] == "refused"
        assert "says USER_PIN_COUNT_LOW: wrong PINs were tried" in refused["msg"]
        assert refused["slots"][0]["slot_id"] == token
    assert look(pin=PIN, slot_id=token, force=True)["logins"] == 1
    assert look(pin=PIN, slot_id=token)["logins"] == 1


def test_check_mode_tries_no_pin(token):
    result = look(check=True, pin=WRONG_PIN, slot_id=token)
    assert not result.get("failed") and result["logins"] == 0 and result["login"] is None
    assert "USER_PIN_COUNT_LOW" not in look()["slots"][0]["token"]["flags"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pin": PIN}, "neither slot_id nor token_label"),
        ({"pin": PIN, "token_label": "P2"}, "0 tokens match, exactly one must; there are 'P1' in slot "),
        ({"pin": PIN, "token_label": ""}, "neither slot_id nor token_label"),
        ({"pin": "a\nb", "token_label": "P1"}, "line break"),
        ({"pin": "", "token_label": "P1"}, "pin is empty"),
        ({"library": "/nowhere/lib.so"}, "There is no PKCS#11 library /nowhere/lib.so"),
        ({"timeout": 0}, "timeout must be at least 1"),
    ],
    ids=str,
)
def test_failures_without_a_login(token, options, told):
    result = look(**options)
    assert result["failed"] and told in result["msg"] and result["logins"] == 0
    assert result["error"]["class"] == "config"


def test_a_token_without_a_pin(token):
    empty = look()["slots"][1]["slot_id"]
    result = look(pin=PIN, slot_id=empty)
    assert result["failed"] and "has no user PIN" in result["msg"] and result["logins"] == 0


def test_the_files_of_the_provider(tmp_path):
    """They are given as environment variables: this library tells its environment."""
    body = 'FILE *f = fopen("%s/env", "w"); fputs(getenv("SECUROSYS_SECRETS_CONF"), f); fclose(f);' % tmp_path
    library = compiled(tmp_path, body)
    look(library, secrets_path="/etc/primus/.secrets.cfg", config_path="/etc/primus/primus.cfg")
    assert (tmp_path / "env").read_text() == "/etc/primus/.secrets.cfg"


@pytest.mark.parametrize("path", [TRUST, TRUST.with_name("opensc-pkcs11.so")], ids=str)
def test_another_library(path):
    if not path.exists():
        pytest.skip(f"{path} is not installed: install p11-kit-modules and opensc-pkcs11")
    result = look(path, mechanisms=True)
    assert not result.get("failed"), result
    assert result["library"]["manufacturer"] and result["library"]["cryptoki_version"].startswith(("2.", "3."))
    if path == TRUST:
        assert {slot["token"]["manufacturer"] for slot in result["slots"]} == {"PKCS#11 Kit"}
        refused = look(path, pin=PIN, slot_id=result["slots"][0]["slot_id"])
        assert refused["failed"] and "has no user PIN" in refused["msg"] and refused["logins"] == 0


# Libraries that misbehave


def compiled(folder, body):
    """A library whose only function, which all PKCS#11 libraries have, does this."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler: install gcc and libc6-dev")
    source = folder / "fake.c"
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
        "int C_GetFunctionList(void **list) { %s return 5; }\n" % body
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / "fake.so"), str(source)], check=True)
    return folder / "fake.so"


@pytest.mark.parametrize(
    ("body", "told", "cls"),
    [
        ("*(volatile int *)0 = 0;", "ended its process (signal 11)", "unknown"),
        ("abort();", "ended its process (signal 6)", "unknown"),
        ("_exit(0);", "ended its process (exit status 0)", "unknown"),
        ("sleep(60);", "timed out after 2 seconds without an answer", "timeout"),
        ("", "cannot be used: ", "unknown"),
        ('puts("{}"); fflush(stdout); fputs("noise", stderr);', "cannot be used: ", "unknown"),
    ],
)
def test_a_library_that_misbehaves(tmp_path, body, told, cls):
    result = look(compiled(tmp_path, body), timeout=2, pin=PIN, slot_id=0)
    assert result["failed"] and told in result["msg"] and result["error"]["class"] == cls
    assert result["logins"] == 0


def test_a_file_that_is_no_library(tmp_path):
    (tmp_path / "lib.so").write_text("something else")
    result = look(tmp_path / "lib.so")
    assert result["failed"] and "cannot be used" in result["msg"]


def test_without_python_pkcs11(tmp_path, monkeypatch):
    (tmp_path / "pkcs11.py").write_text("raise ImportError('not here')\n")
    (tmp_path / "lib.so").write_text("")
    monkeypatch.setenv("FAKES", str(tmp_path))
    result = look(tmp_path / "lib.so")
    assert result["failed"] and "python-pkcs11" in result["msg"] and result["error"]["class"] == "config"


def test_the_pin_is_in_no_argument_and_no_environment(tmp_path):
    library = compiled(
        tmp_path,
        'char c[999]; snprintf(c, 999, "cat /proc/%%d/cmdline /proc/%%d/environ > %s/seen", getpid(), getpid());'
        " if (system(c)) return 5;" % tmp_path,
    )
    look(library, pin=PIN, slot_id=0)
    seen = (tmp_path / "seen").read_bytes()
    assert b"pkcs11_token_info" in seen and PIN.encode() not in seen
