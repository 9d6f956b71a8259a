# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ppin_connectivity_info: what it tells of HSMs and slots, and the logins that it does not make."""

import json
import re

import pytest
from emulated_hsm import REJECTED, wrap_ppin


def test_all_is_well(configured, hsm):
    before, spent = configured.state(), len(hsm.logins())
    result = configured.run("ppin_connectivity_info")
    # Each of the two partitions once, to know that its secret is good, then at each of its two HSMs.
    assert (result["ok"], result["changed"], result["logins"], result["refused"]) == (True, False, 6, [])
    assert result["counts"] == {"hsms": 4, "slots": 4, "failures": 0}
    assert [(hsm["hsm"], hsm["connected"], hsm["error"]) for hsm in result["hsms"]] == [
        (f"hsm{number}", True, None) for number in range(4)
    ]
    first = result["hsms"][0]
    assert first["host"] == "127.0.0.1" and first["port"] > 0 and first["firmware"].startswith("RP-")
    assert first["slots"] == [{"slot": "slot0", "slot_id": 1, "user_name": "P2", "ok": True, "error": None}]
    assert {name["user_name"]: (name["verified"], name["logins"]) for name in result["partitions"]} == {
        "P1": (True, 2),
        "P2": (True, 2),
    }
    assert len(hsm.logins()) == spent + 6
    assert configured.state() == before


@pytest.mark.parametrize(
    ("filters", "tested"),
    [
        ({"user_name": "P2"}, [("hsm0", "P2"), ("hsm1", "P2")]),
        ({"partition": "P2", "hsm": "hsm1"}, [("hsm1", "P2")]),
        ({"slot_id": 0}, [("hsm2", "P1"), ("hsm3", "P1")]),
        ({"slot": "slot0", "hsm": "hsm3"}, [("hsm3", "P1")]),
        ({"hsm": "127.0.0.1", "user_name": "P1"}, [("hsm2", "P1"), ("hsm3", "P1")]),
    ],
    ids=str,
)
def test_filters(configured, filters, tested):
    result = configured.run("ppin_connectivity_info", **filters)
    assert [(hsm["hsm"], slot["user_name"]) for hsm in result["hsms"] for slot in hsm["slots"]] == tested
    assert result["ok"] and result["logins"] == len(tested) + (len(tested) > 1)


@pytest.mark.parametrize(
    "behaviour",
    [
        {"test_failure": "paren", "error_hex": "lower"},
        {"test_failure": "colon", "crlf": "on", "escape_sequences": "on"},
        {"test_failure": "text", "output_stream": "stderr", "trailing_spaces": 3, "exit_failure": 0},
        {"test_failure": "text", "binary_noise": "on", "exit_success": 1},
    ],
    ids=str,
)
def test_a_rejected_secret_is_told_once_and_not_tried_again(configured, hsm, behaviour):
    configured.set(**behaviour)
    hsm("rotate-secret", partition="P2")
    result = configured.run("ppin_connectivity_info")
    assert not result.get("failed") and not result["ok"]
    assert result["counts"] == {"hsms": 3, "slots": 3, "failures": 1}
    assert hsm.trials("P2") == 1
    (error,) = {json.dumps(slot["error"]) for entry in result["hsms"] for slot in entry["slots"] if not slot["ok"]}
    error = json.loads(error)
    assert (error["code"], error["class"]) == (REJECTED, "rejected") and error["hint"]
    partitions = {name["user_name"]: name for name in result["partitions"]}
    assert (partitions["P1"]["verified"], partitions["P2"]["verified"]) == (True, False)
    assert partitions["P2"]["error"] == error

    spent = len(hsm.logins())
    again = configured.run("ppin_connectivity_info")
    assert again["failed"] and again["refused"] == ["P2"] and again["logins"] == 0
    assert "The HSM rejects the permanent secret of 'P2' (found here at 20" in again["msg"]
    assert again["error"]["class"] == "rejected"
    assert len(hsm.logins()) == spent
    assert configured.run("ppin_connectivity_info", user_name="P1")["ok"]
    assert configured.run("ppin_connectivity_info", force=True)["logins"] == 4  # P1 three times, P2 once


def test_a_secret_that_was_fetched_anew_is_tried(configured, hsm):
    hsm("rotate-secret", partition="P2")
    assert not configured.run("ppin_connectivity_info", user_name="P2", hsm="hsm0")["ok"]
    assert configured.secret(state="updated", setup_password=hsm.new_setup_password("P2"))["changed"]
    assert configured.run("ppin_connectivity_info")["ok"]


def test_a_secret_that_is_accepted_after_all_is_tried_again(configured, hsm):
    hsm("lock", partition="P2")
    assert not configured.run("ppin_connectivity_info", user_name="P2")["ok"]
    hsm("unlock", partition="P2")
    assert configured.run("ppin_connectivity_info", user_name="P2")["failed"]
    assert configured.run("ppin_connectivity_info", user_name="P2", force=True)["ok"]
    assert configured.run("ppin_connectivity_info", user_name="P2")["ok"]


def test_check_mode_notes_nothing(configured, hsm):
    hsm("rotate-secret", partition="P2")
    before = configured.state()
    assert not configured.run("ppin_connectivity_info", check=True, user_name="P2", hsm="hsm0")["ok"]
    assert configured.state() == before


@pytest.mark.parametrize(("stale", "refused"), [(["a" * 64, "b" * 64], ["P2"]), (["b" * 64], [])])
def test_what_other_clients_found(configured, stale, refused):
    configured.secret(state="updated", force=True, gate_findings={"origins": {"P2": "a" * 64}})
    result = configured.run("ppin_connectivity_info", gate_findings={"stale": stale})
    assert result["refused"] == refused
    assert result.get("failed", False) == bool(refused)
    if refused:
        assert result["logins"] == 0 and "'P2' (found by other clients)" in result["msg"]


def test_an_hsm_that_cannot_be_reached(configured, hsm):
    hsm("network", node=0, state="down")
    result = configured.run("ppin_connectivity_info", user_name="P2")
    assert not result.get("failed") and not result["ok"] and result["logins"] == 2
    down, up = result["hsms"]
    assert (down["connected"], down["firmware"], down["slots"]) == (False, None, [])
    assert (down["error"]["code"], down["error"]["class"]) == ("0x80005015", "transient")
    assert up["connected"] and up["slots"][0]["ok"]
    assert result["partitions"][0]["verified"] is True


def test_a_partition_without_a_secret_costs_no_login(client, hsm):
    result = client.run("ppin_connectivity_info", user_name="P2")
    assert not result["ok"] and result["logins"] == 0 and hsm.logins() == []
    assert result["partitions"] == [{"user_name": "P2", "verified": None, "logins": 0, "error": None}]


def test_what_is_not_judged_is_not_held_against_the_secret(configured, hsm):
    hsm("busy", count=4)
    result = configured.run("ppin_connectivity_info", user_name="P2")
    assert not result["ok"] and result["logins"] == 0 and result["partitions"][0]["verified"] is None
    assert configured.run("ppin_connectivity_info", user_name="P2")["ok"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"user_name": "P9"}, "primus.cfg has no such partition; it has 'P1', 'P2'"),
        ({"slot_id": 9}, "No slot of primus.cfg has this partition and slot id"),
        ({"user_name": "P1", "slot_id": 9}, "No slot of primus.cfg has this partition and slot id"),
        ({"hsm": "hsm9"}, "No slot of primus.cfg has this partition and slot id"),
        ({"timeout": 0}, "timeout must be at least 1"),
    ],
    ids=str,
)
def test_nothing_to_test(configured, hsm, options, told):
    spent = len(hsm.logins())
    result = configured.run("ppin_connectivity_info", **options)
    assert result["failed"] and told in result["msg"]
    assert result["ok"] is False and result["error"]["class"] == "config"
    assert len(hsm.logins()) == spent


def test_wording_that_is_not_known_is_no_success(configured):
    """A provider that words the line of a slot in another way: its own count tells that something was overlooked."""
    wrap_ppin(configured.ppin, '"$0.real" "$@" | sed "s/user=P2: OK/P2 is fine/"')
    result = configured.run("ppin_connectivity_info")
    assert result["failed"] and result["error"]["class"] == "dialogue"
    assert "counts 4 partitions and 0 failures, but the collection found 2 and 0 in its output" in result["msg"]
    assert {name["user_name"] for name in result["partitions"]} == {"P1"}


@pytest.mark.parametrize(("down", "counted"), [(False, 2), (False, 4), (True, 2), (True, 3), (True, 4)])
def test_it_is_not_documented_how_partitions_count(configured, hsm, down, counted):
    """Two partitions, each at two HSMs: once, for each HSM, or also for an HSM that is down."""
    if down:
        hsm("network", node=0, state="down")
    wrap_ppin(
        configured.ppin, f'"$0.real" "$@" | sed "s/number of partitions: [0-9]*/number of partitions: {counted}/"'
    )
    result = configured.run("ppin_connectivity_info")
    assert not result.get("failed"), result
    assert result["ok"] is not down


def test_a_ppin_that_hangs(configured):
    configured.set(hang_at="start")
    result = configured.run("ppin_connectivity_info", timeout=1)
    assert result["failed"] and result["error"]["class"] == "timeout"


def test_what_was_found_before_ppin_hung_is_not_tried_again(configured, hsm):
    """An HSM rejects the secret, and another one behind a firewall does not even refuse the connection."""
    hsm("rotate-secret", partition="P2")
    wrap_ppin(configured.ppin, '"$0.real" "$@"; case "$*" in *--test*) sleep 60;; esac')
    result = configured.run("ppin_connectivity_info", user_name="P2", hsm="hsm0", timeout=5)
    assert result["failed"] and not result["ok"] and result["error"]["class"] == "timeout"
    assert (result["logins"], result["partitions"][0]["verified"]) == (1, False)
    again = configured.run("ppin_connectivity_info", user_name="P2", hsm="hsm0", timeout=5)
    assert again["refused"] == ["P2"] and len(hsm.logins("permanent")) == 1


def test_what_worked_before_ppin_hung_is_no_success(configured):
    wrap_ppin(configured.ppin, '"$0.real" "$@"; case "$*" in *--test*) sleep 60;; esac')
    result = configured.run("ppin_connectivity_info", user_name="P2", hsm="hsm0", timeout=5)
    assert result["failed"] and not result["ok"] and result["error"]["class"] == "timeout"
    assert (result["logins"], result["partitions"][0]["verified"]) == (1, True)


def test_a_damaged_ledger_is_told_and_left_alone(configured, hsm):
    configured.ledger.write_text("{")
    hsm("rotate-secret", partition="P2")
    result = configured.run("ppin_connectivity_info", user_name="P2")
    assert not result.get("failed") and not result["ok"]
    assert "is damaged" in str(result["warnings"]) and configured.ledger.read_text() == "{"


def test_a_ledger_that_cannot_be_written(configured, hsm):
    hsm("rotate-secret", partition="P2")
    in_the_way = f'case "$*" in *--test*) rm -f {configured.ledger}; mkdir -p {configured.ledger}/x;; esac'
    wrap_ppin(configured.ppin, f'{in_the_way}\nexec "$0.real" "$@"')
    result = configured.run("ppin_connectivity_info", user_name="P2")
    assert not result.get("failed") and not result["ok"]
    assert "cannot be written" in str(result["warnings"])


def test_a_secret_that_is_missing_is_not_one_that_is_rejected(client, hsm):
    result = client.run("ppin_connectivity_info", user_name="P2", gate_findings={"stale": ["a" * 64]})
    assert not result.get("failed") and (result["ok"], result["refused"], result["logins"]) == (False, [], 0)
    assert hsm.logins("permanent") == []


@pytest.mark.parametrize("behaviour", [{}, {"test_form": "plain"}, {"slot_id_format": "hex"}], ids=str)
def test_a_stale_secret_costs_one_login_whatever_the_slots_and_hsms(hsm, new_client, configured, behaviour):
    """Two HSMs and three slots: one rejection, and the other partition is tested as a whole."""
    text = configured.config.read_text()

    def tripled(slot):
        more = [slot.group().replace("slot0", f"slot{number}").replace("id = 1", f"id = {number}") for number in (7, 8)]
        return slot.group() + "".join(more)

    configured.config.write_text(re.sub(r"slot0 :\s*\{[^}]*P2[^}]*\};", tripled, text))
    configured.set(**behaviour)
    assert configured.run("ppin_connectivity_info", user_name="P2")["logins"] == 7
    hsm("rotate-secret", partition="P2")
    result = configured.run("ppin_connectivity_info")
    assert hsm.trials("P2") == 1 and not result["ok"] and not result.get("failed")
    verdicts = {entry["user_name"]: (entry["verified"], entry["logins"]) for entry in result["partitions"]}
    assert verdicts == {"P1": (True, 2), "P2": (False, 1)}
    assert result["unseen"] == []


def test_a_verdict_that_is_lost_is_no_reason_for_another_login(configured, hsm):
    hsm("rotate-secret", partition="P2")
    wrap_ppin(configured.ppin, '"$0.real" "$@" | sed "s/P2: FAILED.*/P2: FAILED (0x8000003B)/"')
    result = configured.run("ppin_connectivity_info", user_name="P2")
    assert not result["ok"] and result["logins"] == 1
    assert result["partitions"][0]["verified"] is None
    assert hsm.trials("P2") == 1


@pytest.mark.parametrize("form", ["quoted", "plain"])
def test_an_hsm_under_the_key_of_one_that_is_left_out(configured, hsm, form):
    """A ppin that leaves out what is down and numbers the rest: hsm0 is shown, and is hsm1 of primus.cfg."""
    configured.set(test_form=form, test_hsm_failure="no_line")
    hsm("network", node=0, state="down")
    wrap_ppin(configured.ppin, '"$0.real" "$@" | sed "s/^hsm1:/hsm0:/"')
    result = configured.run("ppin_connectivity_info", user_name="P2")
    assert not result.get("failed") and not result["ok"]
    assert [entry["hsm"] for entry in result["unseen"]] == ["hsm0"]
    assert [(entry["hsm"], entry["connected"]) for entry in result["hsms"]] == [("hsm0", True)]


def test_hsms_under_each_others_keys(configured):
    wrap_ppin(configured.ppin, '"$0.real" "$@" | sed "s/^hsm0:/HSM9:/; s/^hsm1:/hsm0:/; s/^HSM9:/hsm1:/"')
    result = configured.run("ppin_connectivity_info", user_name="P2")
    assert result["ok"] and result["unseen"] == [] and {entry["hsm"] for entry in result["hsms"]} == {"hsm0", "hsm1"}


@pytest.mark.parametrize(("counters", "ok"), [("on", True), ("off", False)])
def test_a_filter_that_ppin_reads_in_another_way(configured, counters, ok):
    """Only the counters tell then whether all is well."""
    configured.set(test_counters=counters)
    wrap_ppin(
        configured.ppin, 'for a; do shift; case $a in HSM1) a=hsm1;; esac; set -- "$@" "$a"; done; "$0.real" "$@"'
    )
    result = configured.run("ppin_connectivity_info", user_name="P2", hsm="HSM1")
    assert not result.get("failed") and (result["ok"], result["logins"], result["unseen"]) == (ok, 1, [])


def test_a_login_that_an_hsm_rejects_without_a_slot_is_counted(configured):
    wrap_ppin(configured.ppin, '"$0.real" "$@" | sed "/user=P2/d; s/^\\(hsm0.*\\), firmware.*/\\1: login failed/"')
    result = configured.run("ppin_connectivity_info", user_name="P2", hsm="hsm0")
    assert not result["ok"] and result["logins"] == 1
