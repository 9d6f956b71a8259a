# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the attempt gate believes of a client, and what not: masked results, crashes, leftovers, a look that failed."""

import json
import re
import subprocess

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client.control import take_control, with_control
from emulated_hsm import CONFIG, PINS, REJECTED, SETUP, WRONG_SETUP, wrap_ppin


@pytest.mark.parametrize("pin", ["1", "2", "0", "eject", "e", "rejected", "0x80005017", "True", "logins", "ok"])
def test_a_pin_that_masks_a_part_of_the_result(new_fleet, pin):
    """Such a PIN is as good as any: right, it is used by all; with a wrong setup password, one login is rejected."""
    fleet = new_fleet(3)
    fleet.hsm("set-pkcs11-password", partition="P2", value=pin)
    run = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP, pkcs11_password=pin, verify="never"))
    assert set(run.failures()) == set(fleet.hosts)
    assert fleet.verdicts("setup") == {REJECTED: 1}
    (tried,) = [result for result in run.results().values() if result["logins"]]
    assert (tried["logins"], tried["error"]["class"], tried["error"]["code"]) == (1, "rejected", REJECTED)
    assert "control" not in tried
    assert fleet.run(fleet.secret("P2", pkcs11_password=pin, verify="never")).failures() == {}


@pytest.mark.parametrize(
    "result",
    [
        {"control": "text"},
        {"control": {"logins": 3, "class": [], "code": {"a": 1, "b": 2}}},
        {"control": {"logins": {"many": True}, "class": {"rejected": True}}, "error": "text"},
        {"control": None, "logins": 1, "error": {"class": "unknown"}},
        {"logins": 1},
    ],
    ids=str,
)
def test_control_data_of_another_form_is_ignored(result):
    before = {key: value for key, value in result.items() if key != "control"}
    take_control(result)
    assert result == before


def test_control_data_there_and_back():
    result = {"changed": False, "logins": 2, "error": {"code": REJECTED, "class": "rejected", "name": "n", "hint": "h"}}
    masked = json.loads(json.dumps(with_control(result)).replace('"logins": 2', '"logins": "****"'))
    masked["error"].update({"class": "r****ed", "code": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"})
    take_control(masked)
    assert masked == result


@pytest.mark.parametrize("value", ["{{ [1, 2] }}", "{{ 1234 }}", "{{ true }}", "{{ {'a': 1} }}"])
def test_a_password_that_is_no_string(new_fleet, value):
    fleet = new_fleet(1)
    run = fleet.run(fleet.secret("P2", pkcs11_password=value))
    (message,) = run.failures().values()
    if "1234" not in value:  # ansible-core 2.16 makes a text of a number, which is a password like another
        assert re.search(r"pkcs11_password is a \w+, and must be a string", message)
        assert fleet.hsm.logins() == []


def leave(fleet, host):
    file = fleet.folder / host / "etc/.secrets.cfg.new-0123456789abcdef"
    file.write_text("half of one")
    return file


def test_leftovers_are_removed_without_a_credential(new_fleet):
    """Also where the credential is known to be wrong: of hosts that need nothing, none fails for it."""
    fleet = new_fleet(3)
    fleet.fetch("P2")
    ledgers = [fleet.folder / host / "etc/.secrets.cfg" for host in fleet.hosts]
    ledgers[2].write_text((fleet.folder / "host0000/etc/.secrets.cfg").read_text().replace("P2", "P9"))
    left = [leave(fleet, host) for host in fleet.hosts]
    run = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP), arguments=["--limit", "host0002"])
    assert set(run.failures()) == {"host0002"} and not left[2].exists()
    left[2] = leave(fleet, "host0002")
    run = fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP))
    assert set(run.failures()) == {"host0002"}
    assert [file.exists() for file in left] == [False] * 3
    assert fleet.verdicts("setup") == {"ok": 1, REJECTED: 1}


def test_a_look_that_failed_guards_everything(new_fleet):
    fleet = new_fleet(3, partitions=("P2:1",))
    fleet.fetch("P2")
    fleet.hsm("rotate-secret", partition="P2")
    for host in fleet.hosts:
        once = 'case "$*" in *-l*) [ -e "$0.failed" ] || { touch "$0.failed"; echo nothing; exit 1; };; esac'
        wrap_ppin(fleet.folder / host / "bin/ppin", f'{once}\nexec "$0.real" "$@"')
    run = fleet.run(fleet.ppin("ppin_connectivity_info"))
    assert set(run.failures()) == set(fleet.hosts)
    assert all("No login was made" in message for message in run.failures().values())
    assert fleet.hsm.logins("permanent") == []


def test_what_waiting_hosts_say_is_not_on_stdout(new_fleet):
    fleet = new_fleet(4)
    out, err = fleet.start(fleet.secret("P2", gate_parallel=1), stderr=subprocess.PIPE).communicate()
    assert "waits for the verdict" not in out and "host0000" in out
    assert "waits for the verdict" in err


def test_the_record_names_the_host_that_logged_in(new_fleet):
    fleet = new_fleet(2)
    task = {"delegate_to": "host0001", "run_once": True, "vars": {"home": str(fleet.folder / "host0001")}}
    fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP, task=task))
    run = fleet.run({"name": "Read the entries", "hsmops.primus.attempt_gate_info": {}})
    assert {entry["host"] for entry in run.results()["host0000"]["entries"]} == {"host0001"}


def test_an_old_pexpect_costs_no_budget(new_fleet):
    fleet = new_fleet(3)
    (fleet.folder / "old").mkdir()
    (fleet.folder / "old/pexpect.py").write_text('__version__ = "3.3"\n')
    play = {"environment": {"PYTHONPATH": str(fleet.folder / "old")}}
    for arguments in (["--check"], []):
        run = fleet.run(fleet.secret("P2"), play=play, arguments=arguments)
        assert set(run.failures()) == set(fleet.hosts)
        assert all("pexpect 3.3 is too old" in message for message in run.failures().values())
    assert fleet.run(fleet.secret("P2")).failures() == {}


def test_an_accepted_login_takes_back_a_rejection(configured, hsm):
    hsm("lock", partition="P2")
    assert configured.secret(verify="always", setup_password=None, pkcs11_password=None)["failed"]
    assert configured.info()["partitions"][0]["rejected"]
    hsm("unlock", partition="P2")
    assert configured.secret(verify="always")["verified"] is True
    assert configured.info()["partitions"][0]["rejected"] is None
    assert configured.run("ppin_connectivity_info", user_name="P2")["ok"]


def test_a_crash_is_a_result(configured, tmp_path):
    """As of a dependency that behaves as none should: the result says where, what was tried, and no more."""
    (tmp_path / "pexpect.py").write_text(f'__version__ = "9"\nraise RuntimeError("{SETUP["P2"]} {PINS["P2"]}")\n')
    configured.python_path = [str(tmp_path)]
    result = configured.secret(state="updated", force=True)
    assert result["failed"] and result["logins"] == 0
    assert re.search(r"Unexpected error: RuntimeError at pexpect\.py:2", result["msg"])
    assert CONFIG["limits"]["login_attempt_threshold"] == 5
