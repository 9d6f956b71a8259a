# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a client with each behaviour that the vendor's documentation leaves open."""

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
