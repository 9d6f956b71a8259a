# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a client with each behaviour that the vendor's documentation leaves open."""

import itertools

import pytest
from emulated_hsm import REJECTED, WRONG_SETUP

# Each by itself or with others that have nothing to do with it: a life takes some ten runs.
BEHAVIOURS = [
    {},
    {"output_stream": "stderr", "error_text": "meaning"},
    {"message_stream": "stdout", "exit_failure": 0},
    {"error_text": "paren", "error_hex": "lower", "test_failure": "colon"},
    {"error_text": "trailing", "exit_success": 3},
    {"exit_success": 1, "exit_failure": 1, "chunk_bytes": 7},
    {"listing": "proxy_add", "trailing_spaces": 2, "prompt_order": "pkcs11-first"},
    {"listing": "three", "crlf": "on", "proxy_existing": "duplicate"},
    {"escape_sequences": "on", "proxy_existing": "duplicate_config"},
    {"input": "tty", "flush_typeahead": "off", "prompt_newline": "on"},
    {"input": "tty", "output_stream": "stderr", "echo_off_late_ms": 300},
    {"echo_off_late_ms": 300, "echo_off_once": "on"},
    {"keep_entry_on_failed_update": "on", "exit_failure": 0},
    {"lie_configured": "changes"},
    {"test_form": "plain", "slot_id_format": "hex", "version": "1.8.6"},
    {"test_form": "plain", "test_failure": "text", "test_hsm_failure": "bare", "crlf": "on"},
]


@pytest.mark.parametrize(
    "behaviour",
    BEHAVIOURS,
    ids=lambda behaviour: ",".join(f"{key}={value}" for key, value in behaviour.items()) or "default",
)
def test_a_client_lives(new_client, behaviour):
    client = new_client(**behaviour)
    hsm = client.hsm
    assert client.proxy()["action"] == "added"
    assert client.proxy()["action"] == "none"
    result = client.secret("P1")
    assert (result["action"], result["verified"]) == ("added", True)
    assert client.secret("P1")["action"] == "none"
    assert client.secret("P1", verify="always")["verified"] is True

    hsm("set-proxy-password", user="svc1", value="password-of-svc1-now")
    assert client.proxy(state="updated", password="password-of-svc1-now")["action"] == "updated"
    new = hsm.new_setup_password("P1")
    assert client.secret("P1", state="updated", setup_password=new)["action"] == "updated"
    assert client.secret("P1", state="updated", setup_password=new)["action"] == "none"

    before = client.state()
    failed = client.secret("P1", state="updated", setup_password=WRONG_SETUP)
    assert failed["failed"] and failed["rolled_back"]
    assert failed["error"]["code"] == (None if "lie_configured" in behaviour else REJECTED)
    assert client.state() == before
    assert hsm.trials("P1") == 1

    hsm("rotate-secret", partition="P1")
    assert client.secret("P1", verify="always", setup_password=hsm.new_setup_password("P1"))["action"] == "updated"
    assert client.secret("P1", state="absent")["action"] == "removed"
    assert client.proxy(state="absent")["action"] == "removed"
    assert {login["source"] for login in hsm.logins("setup", "pkcs11", "proxy")} == {"terminal"}


FAILURES = ["colon_code", "bare", "code_paren", "name", "no_line", "firmware_none", "firmware_unknown"]


FORMS = ["quoted", "plain"]
# Each failure in both forms; with counters in one of three ways, in turn.
DOWN = list(zip(itertools.product(FORMS, FAILURES), itertools.cycle(["form", "off", "on"]), strict=False))


@pytest.mark.parametrize(("form", "failure", "counters"), [(*pair, counters) for pair, counters in DOWN])
def test_an_hsm_that_is_down_is_never_overlooked(new_client, configured, hsm, form, counters, failure):
    """However the line of an HSM is worded, or whether it is there at all: the next HSM verifies, and ok is false."""
    client = configured
    client.set(test_form=form, test_counters=counters, test_hsm_failure=failure)
    assert client.run("ppin_connectivity_info", user_name="P2")["ok"] is True
    hsm("network", node=0, state="down")
    spent = len(hsm.logins("permanent"))
    result = client.run("ppin_connectivity_info", user_name="P2")
    assert result["ok"] is False and result["logins"] == 2  # the first one, and that of the test
    assert [entry["connected"] for entry in result["hsms"] if entry["hsm"] == "hsm1"] == [True]
    assert not any(entry["connected"] for entry in result["hsms"] if entry["hsm"] == "hsm0")
    assert [slot["hsm"] for slot in result["unseen"]] == (["hsm0"] if failure == "no_line" else [])
    assert [partition["verified"] for partition in result["partitions"]] == [True]
    if failure != "no_line":  # of which nothing can be told from a login at it
        verified = client.secret(verify="always")
        assert verified["verified"] is True and not verified["changed"]
        assert [login["node"] for login in hsm.logins("permanent")[spent:]] == ["hsm1"] * 3
    hsm("network", node=1, state="down")
    assert client.run("ppin_connectivity_info", user_name="P2")["ok"] is False
    assert client.secret(verify="always", retries=0)["verified"] is None
    assert hsm.trials("P2") == 0


@pytest.mark.parametrize("failure", ["paren", "colon", "text", "ckr"])
@pytest.mark.parametrize("form", ["quoted", "plain"])
def test_a_stale_secret_is_known_in_each_form(configured, hsm, form, failure):
    configured.set(test_form=form, test_failure=failure, slot_id_format="hex")
    hsm("rotate-secret", partition="P2")
    result = configured.secret(verify="always", setup_password=None, pkcs11_password=None)
    assert result["failed"] and result["verified"] is False and result["error"]["class"] == "config"
    assert hsm.trials("P2") == 1
    assert configured.run("ppin_connectivity_info", user_name="P2")["refused"] == ["P2"], "the ledger knows"
    tested = configured.run("ppin_connectivity_info", user_name="P2", hsm="hsm0", force=True)
    assert tested["partitions"][0]["verified"] is False
    assert tested["partitions"][0]["error"]["class"] == "rejected"


def test_a_token_that_is_not_present_is_no_verdict(configured, hsm):
    """As published connection tests print it, also for a slot of an HSM that did answer."""
    configured.set(test_form="plain", test_failure="token_not_present")
    hsm("rotate-secret", partition="P2")
    result = configured.run("ppin_connectivity_info", user_name="P2")
    assert result["ok"] is False and result["partitions"][0]["verified"] is None
    assert {slot["error"]["class"] for entry in result["hsms"] for slot in entry["slots"]} == {"transient"}
    assert not configured.run("ppin_connectivity_info", user_name="P2").get("failed"), "nothing is held against it"
