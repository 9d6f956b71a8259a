# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The profile and the page of a qualification, made of what a host told, which may be anything."""

import json

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.findings import BY_NAME
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.redacted import Redaction
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.qualification import build, to_page, version

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def redaction():
    redaction = Redaction(["pin-of-test"])
    redaction.name("NODE", ["app1.example.com"])
    return redaction


@pytest.mark.parametrize(
    "told",
    [
        None,
        "profile",
        [],
        {"findings": [], "platform": 1, "logins": "x", "outputs": {}, "provider": [1], "stopped": {"a": 1}},
        {"findings": {"add": "works"}, "logins": {"made": 1}, "outputs": [None, 1, {"exit": "0", "stdout": 5}]},
    ],
)
def test_what_is_not_understood_was_not_tried(told, redaction):
    profile = build(told, redaction)
    assert {found["verdict"] for found in profile["findings"].values()} == {"not tried"}
    assert "Qualification of ppin" in to_page(profile)


def test_a_host_cannot_put_anything_into_the_page(redaction):
    found = {"verdict": "differs", "seen": SCRIPT, "expected": SCRIPT, "command": SCRIPT, "note": SCRIPT, SCRIPT: 1}
    told = {
        "findings": {"add": found, SCRIPT: found},
        "provider": SCRIPT,
        "stopped": SCRIPT,
        "rotation": SCRIPT,
        "logins": {"made": [SCRIPT]},
        "outputs": [{"command": SCRIPT, "ended": SCRIPT, "stdout": SCRIPT * 100000}] * 1000,
        "more": SCRIPT,
    }
    profile = build(told, redaction)
    assert list(profile["findings"]) == list(BY_NAME) and "more" not in profile
    assert profile["findings"]["add"]["expected"] == "works" and SCRIPT not in profile["findings"]["add"]["command"]
    assert len(json.dumps(profile)) < 3_000_000
    assert SCRIPT not in to_page(profile)


def test_what_only_the_control_node_knows_is_replaced(redaction):
    told = {
        "findings": {"add": {"verdict": "differs", "seen": "no code", "note": "at app1.example.com: pin-of-test"}},
        "outputs": [{"command": "ppin -l", "exit": 0, "ended": "by itself", "stdout": "on APP1.example.com"}],
    }
    profile = build(told, redaction)
    assert profile["findings"]["add"]["note"] == "at NODE1: ********"
    assert profile["outputs"][0]["stdout"] == "on NODE1" and profile["outputs"][0]["exit"] == 0


def test_what_cannot_be_worked_with_is_said(redaction):
    told = {"provider": "2.9.9", "findings": {"secrets_flag": {"verdict": "differs", "seen": "ignored"}}}
    page = to_page(build(told, redaction))
    assert "This ppin 2.9.9: ppin_secret, ppin_proxy and ppin_credentials would change" in page
    assert "do not use them with this version." in page


def test_the_version_is_that_of_this_collection():
    assert version()[0].isdigit()
