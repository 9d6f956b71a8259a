# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ppin_fortinet: the secrets string, where it goes, and where it does not show."""

import base64
import json
import re
import signal
import stat

import pytest
from emulated_hsm import PINS, PROXY_PASSWORD, REJECTED, SETUP, WRONG_SETUP, wait_for, working_copies, wrap_ppin

PROXY = {"proxy_user": "svc1", "proxy_password": PROXY_PASSWORD}


def fortinet(client, partition="P2", **options):
    passwords = {"setup_password": SETUP[partition], "pkcs11_password": PINS[partition]}
    return client.run("ppin_fortinet", **{"user_name": partition, **passwords, **options})


def string_in(text):
    """Whether there is anything in it that could be a part of a secrets string, or of a secret of one."""
    return bool(re.search(r"[A-Za-z0-9+/]{60,}", re.sub(r"/[a-zA-Z0-9_./-]+", "", text)))


BEHAVIOURS = [
    {},
    {"input": "tty", "prompt_newline": "on", "echo_off_late_ms": 200},
    {"crlf": "on", "escape_sequences": "on", "prompt_order": "pkcs11-first", "trailing_spaces": 2},
    {"output_stream": "stderr", "exit_success": 7, "binary_noise": "on"},
]


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=str)
@pytest.mark.usefixtures("usual_umask")
def test_to_a_file(client, hsm, tmp_path, behaviour):
    client.set(**behaviour)
    before, dest = client.state(), tmp_path / "string"
    result = fortinet(client, dest=dest)
    assert not result.get("failed"), result
    assert (result["changed"], result["logins"], result["users"], result["dest"]) == (True, 1, ["P2"], str(dest))
    assert "content" not in result and not string_in(json.dumps(result))
    assert stat.S_IMODE(dest.stat().st_mode) == 0o600
    text = dest.read_text()
    assert text.endswith("\n") and text.count("\n") == 1
    assert 'name = "P2"' in base64.b64decode(text, validate=False).decode()
    assert client.state() == before
    assert [(login["kind"], login["source"]) for login in hsm.logins()] == [
        ("setup", "terminal"),
        ("pkcs11", "terminal"),
    ]

    again = fortinet(client, dest=dest, setup_password=None, pkcs11_password=None)
    assert (again["changed"], again["logins"], again["users"]) == (False, 0, ["P2"])
    moded = fortinet(client, dest=dest, mode="0400")
    assert moded["changed"] and stat.S_IMODE(dest.stat().st_mode) == 0o400 and dest.read_text() == text
    assert len(hsm.logins("setup")) == 1
    forced = fortinet(client, dest=dest, force=True)
    assert forced["changed"] and dest.read_text() != text and stat.S_IMODE(dest.stat().st_mode) == 0o400
    assert len(hsm.logins("setup")) == 2


def test_returned(client, tmp_path):
    result = fortinet(client, return_content=True)
    assert result["changed"] and 'name = "P2"' in base64.b64decode(result["content"]).decode()
    assert "dest" not in result
    dest = tmp_path / "string"
    fetched = fortinet(client, return_content=True, dest=dest)
    assert fortinet(client, return_content=True, dest=dest)["content"] == fetched["content"] == dest.read_text().strip()


def test_behind_the_service_proxy(client, hsm, tmp_path):
    result = fortinet(client, "P1", dest=tmp_path / "string", **PROXY)
    assert not result.get("failed"), result
    assert result["users"] == ["P1"]
    assert {login["source"] for login in hsm.logins("setup", "pkcs11", "proxy")} == {"terminal"}
    assert "svc1" in base64.b64decode((tmp_path / "string").read_text()).decode()


def test_check_mode(client, hsm, tmp_path):
    before, dest = client.state(), tmp_path / "string"
    result = fortinet(client, check=True, dest=dest)
    assert result["changed"] and result["logins"] == 0 and not dest.exists()
    assert hsm.logins() == [] and client.state() == before


@pytest.mark.parametrize(
    ("partition", "options", "code", "kind"),
    [
        ("P2", {"setup_password": WRONG_SETUP}, REJECTED, "setup"),
        ("P2", {"pkcs11_password": "wrong"}, "0x8000000B", "pkcs11"),
        ("P1", {**PROXY, "proxy_password": "wrong"}, REJECTED, "proxy"),
    ],
)
def test_rejected_once(client, hsm, tmp_path, partition, options, code, kind):
    dest = tmp_path / "string"
    result = fortinet(client, partition, dest=dest, **options)
    assert result["failed"] and (result["error"]["code"], result["error"]["class"]) == (code, "rejected")
    assert (result["changed"], result["logins"]) == (False, 1) and not dest.exists()
    assert [login["kind"] for login in hsm.logins() if login["verdict"] != "ok"] == [kind]


def test_what_is_in_the_way_is_kept(client, hsm, tmp_path):
    dest = tmp_path / "string"
    dest.write_text("something else\n")
    result = fortinet(client, dest=dest)
    assert result["failed"] and "has no secrets string of 'P2'" in result["msg"]
    assert dest.read_text() == "something else\n" and hsm.logins() == []
    assert fortinet(client, dest=dest, force=True)["changed"]
    assert fortinet(client, "P1", dest=dest)["failed"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "Neither dest nor return_content"),
        ({"return_content": True, "setup_password": None}, "needs setup_password"),
        ({"return_content": True, "setup_password": "too-short"}, "form of a setup password"),
        ({"return_content": True, "pkcs11_password": "a\nb"}, "line break"),
        ({"return_content": True, "user_name": "P9"}, "'P9' is not in primus.cfg; it has 'P1', 'P2'"),
        ({"return_content": True, "proxy_user": "svc1"}, "required together"),
        ({"return_content": True, "timeout": 0}, "timeout must be at least 1"),
        ({"dest": "/nowhere/string"}, "Directory /nowhere does not exist"),
    ],
    ids=str,
)
def test_failures_before_anything_is_spent(client, hsm, options, told):
    result = fortinet(client, **options)
    assert result["failed"] and told in result["msg"]
    assert hsm.logins() == []


def spoil(client, command):
    """Have something done to what ppin --fortinet prints, but not to its prompts.

    A filter gets it when ppin has ended: in a pipe, its first lines could come behind a prompt.
    """
    client.set(input="tty")
    wrap_ppin(client.ppin, 'case "$*" in *--fortinet*) %s;; *) exec "$0.real" "$@";; esac' % command)


@pytest.mark.parametrize(
    "spoiled",
    [
        '"$0.real" "$@"; sleep 60',  # it printed the string and hangs
        '"$0.real" "$@"; echo Error: 0x80005014',
        'printed=$("$0.real" "$@"); echo "$printed" | rev',
        'printed=$("$0.real" "$@"); echo "$printed" | fold -w 76 | sed "\\$d"',
        'printed=$("$0.real" "$@"); echo "$printed" | sed "s/^[A-Za-z0-9+=/]*$/(&)/"',
    ],
)
def test_a_string_that_is_not_understood_does_not_show(client, spoiled):
    spoil(client, spoiled)
    result = fortinet(client, return_content=True, timeout=5 if "sleep" in spoiled else 60)
    assert result["failed"] and result["logins"] == 1
    assert not string_in(json.dumps(result)), result["msg"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_leaves_no_copy_of_the_secrets_file(configured, tmp_path, number):
    """Such as one whose connection broke."""
    configured.set(hang_at="prompt")
    passwords = {"setup_password": SETUP["P2"], "pkcs11_password": PINS["P2"]}
    options = {"user_name": "P2", "return_content": True, **passwords}
    process = configured.start("ppin_fortinet", **options)
    wait_for(lambda: working_copies(configured.secrets), process)
    process.send_signal(number)
    out, _err = process.communicate(timeout=60)
    assert not working_copies(configured.secrets)
    assert f"was terminated by signal {number}" in json.loads(out)["msg"]


def test_a_string_on_several_lines(client):
    spoil(client, 'printed=$("$0.real" "$@"); echo "$printed" | fold -w 64')
    result = fortinet(client, return_content=True)
    assert not result.get("failed"), result
    assert "\n" not in result["content"] and result["users"] == ["P2"]


@pytest.mark.parametrize(("padding", "warned"), [(0, False), (1500, False), (2500, True)])
def test_a_string_that_is_too_long_for_a_fortigate(client, tmp_path, padding, warned):
    """What is fetched is written in any case: the setup password may not serve a second time."""
    pad = f"base64 -d | sed 's|^version|// {'x' * padding}\\nversion|' | base64 -w 0"
    spoil(client, f'printed=$("$0.real" "$@"); echo "$printed" | tail -n 1 | {pad}')
    result = fortinet(client, dest=tmp_path / "string")
    assert not result.get("failed"), result
    assert result["length"] == len((tmp_path / "string").read_text().strip()) > padding
    assert bool(result.get("warnings")) == warned
    if warned:
        assert "a FortiGate takes 3 kB at most" in str(result["warnings"])
