# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ppin_secret: the plan table through the real dialogue, and what must hold when something goes wrong."""

import json
import os
import stat
from pathlib import Path

import pytest
from emulated_hsm import PINS, REJECTED, SETUP, WRONG_SETUP, wait_for, working_copies, wrap_ppin

P2_MISSING = "permanent secret of P2: MISSING\n"
P2_CONFIGURED = "permanent secret of P2: Configured\n"


def give_away(path):
    """Another owner and group, where that can be done."""
    if os.geteuid() == 0:
        os.chown(path, 4711, 4712)


def forget(client):
    client.ledger.unlink()


# What to do to a configured client, what to ask for, and the action (or, in parentheses, the failure) that must follow.
# other: give a setup password that the ledger does not know. logins: setup passwords that the real run may spend.
ROWS = {
    "present, MISSING": (["missing"], {}, "added", 1),
    "present, Configured": ([], {}, "none", 0),
    "present, Configured, login ok": ([], {"verify": "always"}, "none", 0),
    "present, Configured, not reachable": (["down"], {"verify": "always"}, "(0x80005015)", 0),
    "present, Configured, other, rejected": (["stale"], {"verify": "always", "other": True}, "updated", 1),
    "present, Configured, no ledger, rejected": (["stale", "forget"], {"verify": "always"}, "updated", 1),
    "present, Configured, same, rejected": (["stale"], {"verify": "always"}, "(0x80005017)", 0),
    "updated, MISSING": (["missing"], {"state": "updated"}, "added", 1),
    "updated, Configured, same": ([], {"state": "updated"}, "none", 0),
    "updated, Configured, same, login ok": ([], {"state": "updated", "verify": "always"}, "none", 0),
    "updated, Configured, same, expired": (["expired"], {"state": "updated"}, "none", 0),
    "updated, Configured, same, forced": ([], {"state": "updated", "force": True}, "updated", 1),
    "updated, Configured, other": ([], {"state": "updated", "other": True}, "updated", 1),
    "updated, Configured, no ledger": (["forget"], {"state": "updated"}, "updated", 1),
    "updated, Configured, same, rejected": (["stale"], {"state": "updated", "verify": "always"}, "(0x80005017)", 0),
    "absent, Configured": ([], {"state": "absent"}, "removed", 0),
    "absent, MISSING": (["missing"], {"state": "absent"}, "none", 0),
    "absent, not in primus.cfg": ([], {"state": "absent", "user_name": "P9"}, "none", 0),
    "present, not in primus.cfg": ([], {"user_name": "P9"}, "(0x80005012)", 0),
    "updated, not in primus.cfg": ([], {"state": "updated", "user_name": "P9"}, "(0x80005012)", 0),
    "present, its proxy MISSING": (["no proxy"], {"user_name": "P1"}, "(service proxy password)", 0),
    "updated, its proxy MISSING": (
        ["no proxy"],
        {"user_name": "P1", "state": "updated"},
        "(service proxy password)",
        0,
    ),
}
PREPARE = {
    "missing": lambda client: client.secret(state="absent"),
    "down": lambda client: client.hsm("network", state="down"),
    "stale": lambda client: client.hsm("rotate-secret", partition="P2"),
    "forget": forget,
    "expired": lambda client: client.hsm("expire", partition="P2"),
    "no proxy": lambda client: client.proxy(state="absent"),
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_plan(configured, row):
    steps, options, expected, setup_logins = ROWS[row]
    options = dict(options)
    for step in steps:
        PREPARE[step](configured)
    if options.pop("other", False):
        options["setup_password"] = configured.hsm.new_setup_password("P2")
    before, spent = configured.state(), len(configured.hsm.logins("setup"))

    predicted = configured.secret(check=True, **options)
    assert configured.state() == before
    assert len(configured.hsm.logins("setup")) == spent

    result = configured.secret(**options)
    assert len(configured.hsm.logins("setup")) == spent + setup_logins
    assert result["changed"] == predicted["changed"]
    assert result["action"] == predicted["action"]
    assert result.get("diff") == predicted.get("diff")
    if expected.startswith("("):
        assert result["failed"] and predicted["failed"]
        assert expected.strip("()") in "%s %s" % (result["error"]["code"], result["msg"])
        assert result["error"]["hint"] in result["msg"]
        after = configured.state()
        if result["verified"] is False:  # which the ledger remembers, and nothing else has changed
            assert b'"rejected": "20' in after[".secrets.cfg.ledger"][0]
            after[".secrets.cfg.ledger"] = before[".secrets.cfg.ledger"]
        assert after == before
    else:
        assert not result.get("failed")
        assert result["action"] == expected
        assert result["changed"] == (expected != "none")
        assert ("diff" in result) == result["changed"]
        again = configured.secret(**dict(options, force=False))
        assert (again["changed"], again["action"]) == (False, "none")
        assert len(configured.hsm.logins("setup")) == spent + setup_logins


def test_the_diff_shows_the_state_before_and_after(client):
    assert client.secret()["diff"] == {"before": P2_MISSING, "after": P2_CONFIGURED}
    updated = client.secret(state="updated", setup_password=client.hsm.new_setup_password("P2"))["diff"]
    assert "Configured, since 20" in updated["before"]
    assert "Configured, with the setup password given" in updated["after"]
    assert client.secret(state="absent")["diff"] == {"before": P2_CONFIGURED, "after": P2_MISSING}


def test_what_is_returned_of_the_listing(client):
    result = client.secret()
    assert result["entries"] == [
        {"index": 1, "slot_id": 1, "configured": True},
        {"index": 2, "slot_id": 1, "configured": True},
    ]
    assert result["user_name"] == "P2"


def test_not_in_primus_cfg_names_those_that_are(configured):
    assert "'P1', 'P2'" in configured.secret(user_name="P9")["msg"]


def test_the_other_names_of_user_name(configured):
    for alias in ("partition", "name"):
        assert configured.run("ppin_secret", **{alias: "P2"})["user_name"] == "P2"


# Verification


def test_one_login_at_one_node_after_a_fetch(client):
    result = client.secret()
    assert (result["verified"], result["logins"]) == (True, 2)
    assert [login["node"] for login in client.hsm.logins("permanent")] == ["hsm0"]


def test_the_next_node_when_the_first_is_not_reachable(client):
    client.hsm("network", node="0", state="down")
    result = client.secret()
    assert (result["verified"], result["logins"]) == (True, 2)
    assert [login["node"] for login in client.hsm.logins("permanent")] == ["hsm1"]


def test_a_stale_secret_costs_one_wrong_trial_on_a_cluster(configured):
    configured.hsm("rotate-secret", partition="P2")
    result = configured.secret(verify="always", setup_password=None, pkcs11_password=None)
    assert result["failed"] and result["verified"] is False and result["logins"] == 1
    assert "no longer accepted" in result["msg"] and "setup_password" in result["msg"]
    assert configured.hsm.trials("P2") == 1


def test_a_disabled_partition_is_not_taken_for_a_stale_secret(configured):
    configured.hsm("disable", partition="P2")
    new = configured.hsm.new_setup_password("P2")
    before = configured.state()
    result = configured.secret(verify="always", setup_password=new)
    assert result["failed"] and result["error"]["class"] == "refused" and result["verified"] is None
    assert configured.state() == before
    assert not [login for login in configured.hsm.logins("setup") if login["verdict"] != "ok"]


def test_never_logs_in(client):
    result = client.secret(verify="never")
    assert (result["verified"], result["logins"]) == (None, 1)
    assert client.hsm.logins("permanent") == []


def test_a_login_that_is_rejected_right_after_a_fetch_keeps_what_was_fetched(client):
    client.before_test("rotate-secret", "P2")
    result = client.secret()
    assert result["failed"] and result["changed"] and result["verified"] is False
    assert not result["rolled_back"]
    assert "was fetched" in result["msg"] and "0x80005017" in result["msg"]
    assert all(entry["configured"] for entry in client.secret(setup_password=None)["entries"])


def test_a_login_that_cannot_be_made_after_a_fetch_is_a_warning(client):
    client.before_test("network", "down")
    result = client.secret(retries=0)
    assert not result.get("failed") and result["verified"] is None
    assert "not verified" in str(result["warnings"])


# Failed changes

FAILURES = {
    "wrong": ({}, {}, "0x80005017", "rejected", 1),
    "expired": ({"expire": {"partition": "P2"}}, {}, "0x80005018", "expired", 1),
    "expires meanwhile": ({"expire-during": {"partition": "P2"}}, {}, "0x80005018", "expired", 1),
    "unreachable": ({"network": {"state": "down"}}, {}, "0x80005015", "transient", 0),
    "disabled": ({"disable": {"partition": "P2"}}, {}, "0x80005019", "refused", 1),
    "disabled meanwhile": ({"disable-during": {"partition": "P2"}}, {}, "0x80005019", "refused", 1),
    "locked": ({"lock": {"partition": "P2"}}, {}, "0x80005017", "rejected", 1),
    "wrong PIN": ({}, {}, "0x8000000B", "rejected", 1),
    "killed at the prompt": ({}, {"kill_at": "after-prompt"}, None, "unknown", 1),
    "killed before the prompt": ({}, {"kill_at": "before-prompt"}, None, "unknown", 0),
    "killed after the login": ({}, {"kill_at": "after-login"}, None, "unknown", 1),
    "killed at the first write": ({}, {"kill_at_write": 1}, None, "unknown", 1),
    "killed at the second write": ({}, {"kill_at_write": 2}, None, "unknown", 1),
    "no code": ({}, {"fail_without_code": "on"}, None, "unknown", 1),
    "keeps the entry": ({}, {"keep_entry_on_failed_update": "on"}, "0x80005017", "rejected", 1),
    "lies": ({}, {"lie_configured": "changes"}, None, "unknown", 1),
}


WRONG = ("wrong", "no code", "keeps the entry", "lies")  # those that spend a wrong setup password


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_update_leaves_everything_as_it_was(configured, failure):
    commands, behaviour, code, cls, logins = FAILURES[failure]
    give_away(configured.secrets)
    configured.secrets.chmod(0o640)
    options = {"setup_password": configured.hsm.new_setup_password("P2")}
    if failure in WRONG:
        options["setup_password"] = WRONG_SETUP
    if failure == "wrong PIN":
        options["pkcs11_password"] = "not-the-pin-of-p2"
    for command, arguments in commands.items():
        configured.hsm(command, **arguments)
    configured.set(**behaviour)
    before, trials = configured.state(), configured.hsm.trials("P2")

    result = configured.secret(state="updated", retries=0, **options)

    assert configured.state() == before
    assert result["failed"] and result["rolled_back"] and not result["changed"] and result["action"] == "none"
    assert (result["error"]["code"], result["error"]["class"]) == (code, cls)
    assert result["logins"] == logins
    assert ".secrets.cfg is as it was before." in result["msg"] and result["error"]["hint"] in result["msg"]
    assert code is None or "%s %s" % (code, result["error"]["name"]) in result["msg"]
    assert configured.hsm.trials("P2") - trials == (failure in WRONG)


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_failed_removal_leaves_everything_as_it_was(configured, write):
    configured.set(kill_at_write=write)
    before = configured.state()
    result = configured.secret(state="absent")
    assert result["failed"] and result["rolled_back"]
    assert configured.state() == before


def test_a_removal_does_not_judge_passwords(configured):
    """They are not needed for it, and the roles pass on all that stands beside a partition."""
    result = configured.secret(state="absent", setup_password="too-short", pkcs11_password="line break\n")
    assert (result["action"], result["logins"]) == ("removed", 0)


def test_a_setup_password_in_another_case_is_another_one(client):
    """Its case is neither refused nor changed: the HSM judges what was given."""
    result = client.secret(setup_password=SETUP["P2"].swapcase())
    assert result["failed"] and result["error"]["code"] == REJECTED
    assert client.secret()["action"] == "added"


def test_a_rejected_credential_is_tried_once(client):
    client.set(reprompt=3)
    result = client.secret(setup_password=WRONG_SETUP, retries=5)
    assert result["failed"] and result["logins"] == 1
    assert "twice for the same password" in result["msg"]
    assert client.hsm.trials("P2") == 1


def test_a_busy_hsm_is_tried_again_and_counts_no_trial(client):
    client.hsm("busy", count=2)
    result = client.secret(verify="never")
    assert result["action"] == "added" and result["logins"] == 1 and not result["rolled_back"]
    assert client.hsm.trials("P2") == 0


def test_retries_end(client):
    client.hsm("busy", count=2)
    result = client.secret(retries=1)
    assert result["failed"] and result["error"]["code"] == "0x80000018" and result["logins"] == 0
    assert client.hsm.trials("P2") == 0


def test_a_slow_hsm_ends_in_a_timeout_that_is_not_tried_again(configured):
    configured.hsm("slow", seconds=10)
    before = configured.state()
    new = configured.hsm.new_setup_password("P2")
    result = configured.secret(state="updated", setup_password=new, timeout=3, retries=5)
    configured.hsm("slow", seconds=0)
    assert result["failed"] and result["error"]["class"] == "timeout" and result["logins"] == 1
    assert "after 3 seconds" in result["msg"]
    assert configured.state() == before


def test_a_login_test_that_hangs_after_a_fetch_does_not_hide_that_it_was_made(configured):
    wrap_ppin(configured.ppin, 'case "$*" in *--test*) sleep 60;; esac\nexec "$0.real" "$@"')
    new = configured.hsm.new_setup_password("P2")
    result = configured.secret(state="updated", setup_password=new, timeout=5)
    assert result["failed"] and result["changed"] and result["error"]["class"] == "timeout"
    assert "was fetched and is in .secrets.cfg, but the login with it failed: " in result["msg"]
    assert (result["action"], result["verified"], result["logins"]) == ("updated", None, 1)


def test_a_login_test_that_is_not_understood_is_made_at_one_hsm_only(configured):
    """It may have been judged, and be wrong at each."""
    configured.hsm("rotate-secret", partition="P2")
    wrap_ppin(configured.ppin, '"$0.real" "$@" | sed "s/^ *slot.*/    P2 was refused/; /^Number/d"')
    result = configured.secret(verify="always")
    assert result["failed"] and result["verified"] is None and "P2 was refused" in result["msg"]
    assert result["error"]["class"] == "unknown"
    assert len(configured.hsm.logins("permanent")) == 1


@pytest.mark.parametrize(
    "said", [": login failed", " failed: access denied", ", firmware: RP-2.10.0-T, login: rejected"]
)
def test_a_login_that_fails_on_the_line_of_the_hsm_is_made_at_one_hsm_only(configured, said):
    configured.hsm("rotate-secret", partition="P2")
    wrap_ppin(
        configured.ppin,
        f'"$0.real" "$@" | sed "s/^\\(hsm[0-9]*: Connect.*\\), firmware.*/\\1{said}/; /^ *slot/d; /^Num/d"',
    )
    result = configured.secret(verify="always")
    assert result["failed"] and result["verified"] is None and result["error"]["class"] == "unknown"
    assert result["logins"] == len(configured.hsm.logins("permanent")) == 1


def test_another_partition_says_nothing_of_this_one(configured):
    wrap_ppin(configured.ppin, '"$0.real" "$@" | sed "s/user=P2:/user=P3:/"')
    result = configured.secret(verify="always")
    assert result["failed"] and result["verified"] is None and result["error"]["class"] == "unknown"


# Interrupted runs


def test_a_run_that_was_killed_left_the_client_as_it_was_and_is_tidied_up_after_by_the_next(configured):
    configured.set(write_delay_ms=500)
    before = configured.state()
    wrong = {"setup_password": WRONG_SETUP, "pkcs11_password": "any"}
    process = configured.start("ppin_secret", user_name="P2", state="updated", **wrong)
    wait_for(lambda: is_shorter(configured, before[".secrets.cfg"][0]), process)
    process.kill()
    process.communicate()
    configured.set(write_delay_ms=0)
    assert working_copies(configured.secrets) and configured.secrets.read_bytes() == before[".secrets.cfg"][0]
    assert configured.info()["interrupted"]

    predicted = configured.secret(check=True)
    assert predicted["interrupted"] and not predicted["changed"] and working_copies(configured.secrets)
    result = configured.secret(verify="always")
    assert result["interrupted"] and not result["changed"] and "warnings" not in result and result["verified"]
    assert configured.state()[".secrets.cfg"] == before[".secrets.cfg"]
    assert set(configured.state()) == set(before)
    assert configured.secret()["interrupted"] is False


def test_a_run_that_is_told_to_end_puts_everything_back(configured):
    configured.set(hang_at="after-password")
    before = configured.state()
    process = configured.start(
        "ppin_secret", user_name="P2", state="updated", setup_password=configured.hsm.new_setup_password("P2"),
        pkcs11_password=PINS["P2"],
    )  # fmt: skip
    wait_for(lambda: working_copies(configured.secrets), process)
    process.terminate()
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (1, b"")
    result = json.loads(out)
    assert result["rolled_back"] and "terminated by signal 15" in result["msg"]
    assert configured.state() == before


def test_a_ppin_that_outlives_its_killed_run_changes_nothing_any_more(configured):
    """A removal asks for nothing, so no terminal is there whose end would end it."""
    configured.set(write_delay_ms=300)
    before = configured.secrets.read_bytes()
    process = configured.start("ppin_secret", user_name="P2", state="absent")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    # The copy is short also while the module itself makes it, and then there is no ppin.
    wait_for(lambda: is_shorter(configured, before) and children.read_text(), process)
    (ppin,) = children.read_text().split()
    process.kill()
    process.communicate()
    assert Path(f"/proc/{ppin}/cmdline").read_bytes()  # it still runs
    result = configured.secret("P2")
    assert result["interrupted"] and result["action"] == "none"
    wait_for(lambda: not Path(f"/proc/{ppin}").exists())
    assert configured.secrets.read_bytes() == before
    assert working_copies(configured.secrets) == []


def is_shorter(client, content):
    """Whether a working copy is only half written."""
    return any(copy.stat().st_size < len(content) for copy in working_copies(client.secrets))


def test_two_runs_at_once_lose_nothing(client):
    client.proxy()
    client.set(write_delay_ms=100)
    runs = [
        client.start(
            "ppin_secret", user_name=name, setup_password=SETUP[name], pkcs11_password=PINS[name], verify="never"
        )
        for name in SETUP
    ]
    for run in runs:
        out, err = run.communicate(timeout=300)
        assert (run.returncode, err) == (0, b""), out
    assert all(partition["configured"] for partition in client.info()["partitions"])


def test_a_run_that_is_waited_for_too_long_is_named(client):
    go_on = client.home / "go-on"
    wrap_ppin(client.ppin, f'case "$*" in *-a*) until [ -e {go_on} ]; do sleep 0.1; done;; esac\nexec "$0.real" "$@"')
    first = client.start("ppin_secret", user_name="P2", setup_password=SETUP["P2"], pkcs11_password=PINS["P2"])
    wait_for(lambda: working_copies(client.secrets), first)
    result = client.secret(timeout=1)
    assert result["failed"] and "Another run" in result["msg"] and result["logins"] == 0
    go_on.touch()
    out = first.communicate(timeout=300)[0]
    assert first.returncode == 0, out


# Files


def test_owner_and_mode_stay_and_the_ledger_is_for_its_owner_only(client):
    give_away(client.secrets)
    client.secrets.chmod(0o660)
    before = client.secrets.stat()
    client.secret()
    status = client.secrets.stat()
    assert (status.st_uid, status.st_gid, status.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert stat.S_IMODE(client.ledger.stat().st_mode) == 0o600
    names = {path.name for path in client.etc.iterdir()}
    assert names == {"primus.cfg", ".secrets.cfg", ".secrets.cfg.ledger", "emulator.json"}


def test_backup_is_the_file_before_the_change(configured):
    before = configured.secrets.read_bytes()
    result = configured.secret(state="absent", backup=True)
    with open(result["backup_file"], "rb") as backup:
        assert backup.read() == before
    assert "backup_file" not in configured.secret(state="absent", backup=True)


def test_a_symbolic_link_stays_one(client, tmp_path):
    target = tmp_path / "elsewhere/secrets"
    target.parent.mkdir()
    client.secrets.rename(target)
    client.secrets.symlink_to(target)
    assert client.secret()["action"] == "added"
    assert client.secrets.is_symlink() and b"P2" in target.read_bytes()


def test_a_damaged_ledger_is_a_warning(configured):
    configured.ledger.write_text("{")
    result = configured.secret(state="updated")
    assert result["action"] == "updated" and "damaged" in str(result["warnings"])
    assert configured.secret(state="updated")["action"] == "none"


@pytest.mark.parametrize("gone", [False, True])
def test_the_secret_of_a_partition_that_primus_cfg_does_not_name_is_removed(configured, gone):
    """As after a run that dropped the partition before its secret was removed."""
    if gone:
        configured.config.unlink()
    else:
        configured.config.write_text(configured.config.read_text().replace('"P2"', '"P7"'))
    before, logins = configured.state(), configured.hsm.logins()
    assert configured.secret("P2", state="absent", check=True)["action"] == "removed"
    assert configured.state() == before
    result = configured.secret("P2", state="absent")
    assert (result["action"], result["logins"]) == ("removed", 0)
    assert configured.info()["orphans"] == (["P1"] if gone else [])
    assert configured.state().get("primus.cfg") == before.get("primus.cfg")
    assert configured.secret("P2", state="absent")["action"] == "none"
    assert configured.hsm.logins() == logins


def test_a_secret_that_may_be_left_behind_is_told(configured):
    configured.config.write_text(configured.config.read_text().replace('"P2"', '"P7"') + "a = 1; a = 2;")
    result = configured.secret("P2", state="absent")
    assert result["action"] == "none"
    assert "not known whether .secrets.cfg has a permanent secret of 'P2'" in str(result["warnings"])


def test_ppin_has_the_limit_of_open_files_that_the_module_has(client, tmp_path):
    client.prefix = ["sh", "-c", 'ulimit -S -n 1000; exec "$@"', "sh"]
    wrap_ppin(client.ppin, f'ulimit -S -n >> {tmp_path}/limits\nexec "$0.real" "$@"')
    assert client.secret()["action"] == "added"
    assert set((tmp_path / "limits").read_text().split()) == {"1000"}
