# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ppin_log_info: the log of a partition, returned or written to a file."""

import datetime
import json
import re
import stat

import pytest
import yaml
from emulated_hsm import CONFIG, wrap_ppin
from fleet import ansible_playbook


@pytest.fixture
def logged(configured, hsm):
    """A client whose partition has something in its log: how it got its secret, and more."""
    assert configured.secret(state="updated", force=True, verify="never")["action"] == "updated"
    hsm("log", partition="P2", text="Error: 0x80005017 (not what the login ends with)", level="err")
    for _time in range(3):
        hsm("log", partition="P2", text="the same again", level="warning", facility="Crypto")
    hsm("advance", seconds=3600)
    hsm("log", partition="P2", text="later", level="debug")
    return configured


def fetch(client, **options):
    return client.run("ppin_log_info", **{"user_name": "P2", "hsm": "hsm0", **options})


@pytest.mark.parametrize(
    "behaviour",
    [{}, {"message_stream": "stdout", "crlf": "on", "escape_sequences": "on", "exit_success": 3}],
    ids=str,
)
def test_entries(logged, hsm, behaviour):
    logged.set(**behaviour)
    spent = len(hsm.logins())
    result = fetch(logged)
    assert not result.get("failed"), result
    assert (result["changed"], result["logins"], result["other_lines"]) == (False, 1, [])
    assert result["partitions"] == [{"user_name": "P2", "verified": True, "logins": 1, "error": None}]
    entries = result["entries"]
    assert {"time", "device", "level", "process", "text", "repeated"} == set(entries[0])
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["time"]) for entry in entries)
    assert "with setup password" in entries[0]["text"]
    assert "with permanent secret" in "".join(entry["text"] for entry in entries[-2:])
    assert sum(entry["repeated"] for entry in entries if entry["text"] == "Process: the same again") == 3
    assert len(hsm.logins()) == spent + 1


def test_filters(logged):
    everything = fetch(logged)["entries"]
    later = next(entry for entry in everything if entry["text"] == "Process: later")
    assert {entry["level"] for entry in fetch(logged, level="warning")["entries"]} == {"err", "warning"}
    assert fetch(logged, since=later["time"])["entries"][0] == later
    assert fetch(logged, since=later["time"].replace("T", " ").replace("Z", "+00:00"))["entries"][0] == later
    assert fetch(logged, since=everything[0]["time"][:10])["entries"][0] == everything[0]
    assert fetch(logged, since="2999-01-01")["entries"] == []
    newest_first = fetch(logged, reverse=True)["entries"]
    assert newest_first[-1] == everything[0]


@pytest.mark.usefixtures("usual_umask")
def test_to_a_file(logged, tmp_path):
    dest = tmp_path / "log"
    check = fetch(logged, check=True, dest=dest)
    assert check["changed"] and not dest.exists()
    result = fetch(logged, dest=dest)
    assert result["changed"] and "entries" not in result
    assert (result["dest"], result["size"]) == (str(dest), dest.stat().st_size)
    assert "Process: the same again" in dest.read_text()
    assert stat.S_IMODE(dest.stat().st_mode) == 0o600
    result = fetch(logged, dest=dest, mode="0640", reverse=True)
    assert result["changed"] and stat.S_IMODE(dest.stat().st_mode) == 0o640
    assert "with setup password" in dest.read_text().splitlines()[-1]
    assert fetch(logged, dest=dest)["changed"] and stat.S_IMODE(dest.stat().st_mode) == 0o640
    assert set(tmp_path.iterdir()) == {logged.home, dest}


MODE_WHEN_RENAMED = """
import os, sys
def note(event, arguments):
    if event == "os.rename" and os.fsdecode(arguments[1]) == os.path.basename({dest!r}):
        with open({noted!r}, "w") as file:
            file.write("%o" % (os.stat(arguments[0], dir_fd=arguments[2]).st_mode & 0o777))
sys.addaudithook(note)
"""


def test_a_file_that_all_may_read_has_its_new_rights_before_its_new_content(logged, tmp_path):
    dest, noted, site = tmp_path / "log", tmp_path / "noted", tmp_path / "site"
    dest.touch(0o644)
    site.mkdir()
    (site / "sitecustomize.py").write_text(MODE_WHEN_RENAMED.format(dest=str(dest), noted=str(noted)))
    logged.python_path.append(str(site))
    assert fetch(logged, dest=dest, mode="0600")["changed"]
    assert noted.read_text() == "600"


@pytest.mark.parametrize("behaviour", [{}, {"error_text": "trailing", "exit_failure": 0, "message_stream": "stdout"}])
def test_a_rejected_secret_is_not_tried_again(configured, hsm, behaviour):
    configured.set(**behaviour)
    hsm("rotate-secret", partition="P2")
    result = fetch(configured)
    assert result["failed"] and (result["error"]["code"], result["error"]["class"]) == ("0x80005017", "rejected")
    assert result["logins"] == 1 and result["partitions"][0]["verified"] is False
    spent = len(hsm.logins())
    again = fetch(configured)
    assert again["failed"] and again["refused"] == ["P2"] and again["logins"] == 0
    assert configured.run("ppin_connectivity_info", user_name="P2")["refused"] == ["P2"]
    assert len(hsm.logins()) == spent
    assert fetch(configured, force=True)["logins"] == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"since": "yesterday"}, "since is not a day or time"),
        ({"dest": "/nowhere/log"}, "Directory /nowhere does not exist"),
        ({"dest": "/etc"}, "/etc is a directory"),
        ({"dest": "/nowhere/log", "level": "err"}, "mutually exclusive"),
        ({"user_name": "P9"}, "0x80005012"),
        ({"hsm": "hsm9"}, "0x80005001"),
    ],
    ids=str,
)
def test_failures_without_a_login(configured, hsm, options, told):
    spent = len(hsm.logins())
    result = fetch(configured, **options)
    assert result["failed"] and told in result["msg"]
    assert len(hsm.logins()) == spent


def test_an_hsm_that_cannot_be_reached(configured, hsm):
    hsm("network", node=0, state="down")
    result = fetch(configured)
    assert result["failed"] and result["error"]["class"] == "transient" and result["logins"] == 0
    assert not fetch(configured, hsm="hsm1").get("failed")


def test_a_ppin_that_dies_silently(configured):
    configured.ppin.write_text("#!/bin/sh\n")
    result = fetch(configured)
    assert result["failed"] and "it printed nothing" in result["msg"]


def test_a_full_disk(configured, full_disk):
    result = fetch(configured, dest=full_disk / "log")
    assert result["failed"] and "No space left" in str(result)
    assert not (full_disk / "log").exists()


@pytest.mark.parametrize("zone", ["WEST+12", "EAST-12"])
def test_yesterday_of_the_example_is_that_of_utc_wherever_the_controller_is(tmp_path, zone):
    from ansible_collections.hsmops.primus.plugins.modules import ppin_log_info

    since = yaml.safe_load(ppin_log_info.EXAMPLES)[0]["hsmops.primus.ppin_log_info"]["since"]
    book = tmp_path / "play.json"
    task = {"ansible.builtin.debug": {"msg": f"it is {since}."}}
    book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))

    def yesterday():
        return (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)).strftime("%Y-%m-%d")

    before = yesterday()
    words = ["-i", "localhost,", "-c", "local", str(book)]
    process = ansible_playbook(tmp_path, {"TZ": zone, "ANSIBLE_HOME": str(tmp_path)}, *words)
    output = process.communicate()[0]
    assert any(f"it is {day}." in output for day in (before, yesterday())), output


@pytest.mark.parametrize("limits", [{"client_log_off": "empty"}, {"client_log_off": "refused"}], ids=str)
def test_an_hsm_that_gives_its_log_to_no_client(configured, hsm, tmp_path, limits):
    hsm.reset({**CONFIG, "limits": {**CONFIG["limits"], "client_log": False, **limits}})
    for options in ({}, {"dest": tmp_path / "log"}):
        result = fetch(configured, **options)
        assert "client_log=true" in str(result.get("warnings", "")) + result.get("msg", "")
        assert result.get("failed", False) == (limits["client_log_off"] == "refused")
        assert result["partitions"][0]["verified"] is None


def test_an_empty_file_proves_no_login(configured, hsm):
    """A ppin that makes the file before it asks the HSM, and fails without a code: what is known stays so."""
    hsm("rotate-secret", partition="P2")
    assert configured.run("ppin_connectivity_info", user_name="P2", hsm="hsm0")["partitions"][0]["verified"] is False
    wrap_ppin(
        configured.ppin,
        'case "$*" in *--fetchlog*) while [ "$1" != --out ]; do shift; done; : > "$2"; echo Connection failed;; '
        '*) exec "$0.real" "$@";; esac',
    )
    result = fetch(configured, force=True)
    assert result["partitions"][0]["verified"] is None and "has no entries" in str(result["warnings"])
    assert fetch(configured)["refused"] == ["P2"]
