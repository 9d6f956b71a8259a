# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each switch of the emulator changes the findings about it, and a profile makes another client like the first."""

import json
import os
import typing as t

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.findings import BY_NAME
from emulated_hsm import PINS, PROXY_PASSWORD, SETUP, WRONG_SETUP
from primus_emulator import profile
from primus_emulator.behaviour import SWITCHES, Behaviour
from primus_emulator.ppin import DEFAULT_VERSION
from primus_emulator.verdicts import FORMS

# What is seen of a client without a switch. For some findings nothing is expected, and some are not tried here.
DEFAULT = {name: finding.expected for name, finding in BY_NAME.items()}
DEFAULT.update({"version": DEFAULT_VERSION, "update_secret": "not known"})
if os.geteuid() == 0:
    DEFAULT["read_only_file"] = None

OF_TEST = {"test_form", "test_counters", "test_failure", "test_hsm_failure", "login", "before_update"}
OF_FORTINET = {"fortinet_proxy_option", "fortinet"}
CODES = {name for name, expected in DEFAULT.items() if expected and expected.startswith("0x")}


class Case(t.NamedTuple):
    """Switches, and the findings that they change: name and value.

    hides: findings that cannot be tried then; None: all that would have come after.
    alone: it cannot be combined with other switches.
    """

    switches: dict
    seen: dict
    hides: t.Optional[t.Collection[str]] = ()
    alone: bool = False

    def __str__(self):
        return ",".join(f"{key}={value}" for key, value in self.switches.items())


def each(switch, finding, *values):
    """The cases of a switch whose value is what is seen."""
    return [Case({switch: value}, {finding: str(value)}) for value in values]


MATRIX = [
    *each("version", "version", "2.4.0"),
    Case({"version": "1.8.6"}, {"version": "1.8.6", "usage": "a fetchlog l p r test u x"}, OF_FORTINET),
    Case({"version": "1.7.36"}, {"version": "1.7.36", "usage": "a fetchlog l p r u x"}, OF_FORTINET | OF_TEST),
    # Output
    *each("output_stream", "output_stream", "stderr"),
    *each("message_stream", "message_stream", "stdout"),
    *each("error_text", "error_text", "meaning", "paren", "trailing"),
    *each("error_hex", "error_digits", "lower"),
    Case({"test_form": "plain"}, {"test_form": "plain", "test_counters": "off", "test_failure": "ckr"}),
    *each("test_failure", "test_failure", "colon", "text", "ckr", "token_not_present"),
    *each(
        "test_hsm_failure",
        "test_hsm_failure",
        *("bare", "code_paren", "name", "no_line", "firmware_none", "firmware_unknown"),
    ),
    *each("test_counters", "test_counters", "off"),
    *each("exit_success", "exit_success", 3),
    *each("exit_failure", "exit_failure", 0),
    *each("listing", "listing_spaces", "proxy_add", "three"),
    *each("slot_id_format", "slot_ids", "hex"),
    *each("proxy_remove_listing", "proxy_remove_listing", "all"),
    *each("trailing_spaces", "trailing_spaces", 2),
    Case({"crlf": True}, {"line_ends": "CR LF"}),
    Case({"escape_sequences": True}, {"escape_sequences": "used"}),
    # The dialogue
    *each("input", "prompt_source", "tty"),
    Case({"echo_off_late_ms": 1000}, {"echo_off": "after the prompt"}),
    Case({"flush_typeahead": False}, {"typeahead": "kept"}),
    Case({"prompt_newline": True}, {"prompt_line": "next"}),
    *each("prompt_order", "prompt_order", "pkcs11-first"),
    Case({"reprompt": 1}, {"reprompt": "yes"}, {"failed_update", "failed_update_code"}),
    # The command line and the secrets file
    *each("fortinet_proxy_option", "fortinet_proxy_option", "proxypwd", "proxypassword"),
    Case({"proxy_existing": "duplicate"}, {"proxy_existing": "0x80000003"}),
    Case({"proxy_existing": "duplicate_config"}, {"proxy_existing": "0x80005002"}),
    Case({"keep_entry_on_failed_update": True}, {"failed_update": "kept"}),
    Case({"recipher": True}, {"other_entries": "ciphered anew"}),
    Case({"recipher_reads": True}, {"other_entries": "ciphered anew", "reads_change_file": "yes"}),
    Case({"echo_secrets": True}, {"secrets_shown": "yes"}),
    # Ways to fail
    Case(
        {"fail_without_code": True},
        {"error_text": "no code", **dict.fromkeys(CODES, "no code")},
        {"error_digits"},
        True,
    ),
    Case({"lie_configured": "always"}, {"listing_true": "lies"}, alone=True),
    Case(
        {"lie_configured": "changes"},
        dict.fromkeys(("update_missing", "add_present", "failed_update_code"), "lists Configured"),
        alone=True,
    ),
    Case({"binary_noise": True}, {"output_text": "bytes"}, alone=True),
    *[
        Case({"extra_question": "Really?", "extra_question_at": when}, {"questions": when}, None)
        for when in ("before", "after")
    ],
    Case({"print_mb": 2}, {"output_size": "too much"}, None),
    *[Case({"hang_at": place}, {"commands_end": "timed out"}, None) for place in ("start", "prompt", "after-password")],
    *[
        Case({"kill_at": place}, {"commands_end": "signal 9"}, None)
        for place in ("before-prompt", "after-prompt", "after-login")
    ],
    Case({"kill_at_write": 1}, {"commands_end": "signal 9"}, None),
]

# No command shows these, so a client with all of them has the same findings as one without any.
NOT_OBSERVABLE = {
    "system_etc": "/nonexistent",  # ppin is always told which files to use
    "default_log_file": os.devnull,  # the provider's own log is not read
    "timeout": 60.0,  # it would take an HSM that does not answer
    "test_failure": "paren",  # as by default in the quoted form
    "test_counters": "on",  # the same
    "echo_off_once": True,  # the echo is off at each prompt in either case, and between them there is no time to see it
    "extra_question_at": "after",  # where there is no question
    "chunk_bytes": 7,  # what is in the file at the end is the same
    "write_delay_ms": 1,  # the same
    "hang_seconds": "1",  # where nothing hangs
}
CERTIFICATE = "ca"
"""The switch with the certificate of the emulated HSM, which each client must have."""


def qualified(client, **options):
    """What was seen of a client, by finding, and the profile."""
    given = {"user_name": "P1", "setup_password": SETUP["P1"], "pkcs11_password": PINS["P1"], "accept": True}
    given.update(proxy_user="svc1", proxy_password=PROXY_PASSWORD, wrong_attempt=True, wrong_setup_password=WRONG_SETUP)
    found = client.run("ppin_qualify", **{**given, **options})["profile"]
    return {name: finding["seen"] for name, finding in found["findings"].items()}, found


def changed(seen):
    """The findings that differ from the default, with their values."""
    return {name: value for name, value in seen.items() if value not in (None, DEFAULT[name])}


def missing(seen):
    """The findings that were not tried, and are by default."""
    return {name for name, value in seen.items() if value is None and DEFAULT[name] is not None}


def observable(switches):
    """All switches of a client that has these, as far as a qualification can show them."""
    values = vars(Behaviour(switches))
    form = FORMS[values["test_form"]]
    values["version"] = values["version"] or DEFAULT_VERSION
    values["recipher"] = values["recipher"] or values["recipher_reads"]
    values["extra_question_at"] = values["extra_question"] and values["extra_question_at"]
    values["extra_question"] = bool(values["extra_question"])
    for switch, key in (("test_failure", "failure"), ("test_counters", "counters")):
        values[switch] = form[key] if values[switch] == "form" else values[switch]
    never = {CERTIFICATE, *NOT_OBSERVABLE} - {"test_failure", "test_counters", "extra_question_at"}
    return {name: value for name, value in values.items() if name not in never}


def test_every_switch_is_in_the_table():
    for name, (default, kind, _meaning) in SWITCHES.items():
        values = {case.switches[name] for case in [*MATRIX, Case(NOT_OBSERVABLE, {})] if name in case.switches}
        needed = set(kind) if isinstance(kind, tuple) else {True, False} if kind is bool else set()
        assert name == CERTIFICATE or (values and needed <= values | {default, "form"}), name


def can_be_combined(case):
    return not case.alone and case.hides is not None


def one_by_one():
    """Each switch with one value, where all its values change the same findings; the others only in combined()."""
    first = {(*case.switches, *case.seen): case for case in reversed(MATRIX)}.values()
    return [case for case in MATRIX if case in first or not can_be_combined(case)]


@pytest.mark.parametrize("case", [pytest.param(Case(NOT_OBSERVABLE, {}), id="not observable"), *one_by_one()], ids=str)
def test_a_switch_changes_the_findings_about_it_and_no_other(configured, case):
    configured.set(**case.switches)
    waits = "extra_question" in case.switches or "hang_at" in case.switches
    seen, _profile = qualified(configured, timeout=8 if waits else 60)
    assert changed(seen) == case.seen
    assert case.hides is None or missing(seen) == set(case.hides)
    switches, not_reproduced = profile.switches_of({name: value for name, value in seen.items() if value is not None})
    if "commands_end" in case.seen:  # only the outputs show which command it was
        assert not_reproduced[0].startswith("commands_end: ") and len(not_reproduced) == 1
    else:
        assert not_reproduced == [] and observable(switches) == observable(case.switches)


def combined():
    """The cases that can be combined, in few clients: no two of a client touch the same switch or finding."""
    clients = []
    for case in filter(can_be_combined, MATRIX):
        touched = {*case.switches, *case.seen, *case.hides}
        free = next((client for client in clients if not client[0] & touched), None)
        if free is None:
            free = (set(), [])
            clients.append(free)
        free[0].update(touched)
        free[1].append(case)
    return [cases for _touched, cases in clients]


@pytest.mark.parametrize("cases", combined())
def test_a_client_with_the_profile_has_the_same_findings(new_client, configured, tmp_path, cases):
    for case in cases:
        configured.set(**case.switches)
    first, found = qualified(configured)
    assert changed(first) == {name: value for case in cases for name, value in case.seen.items()}
    assert missing(first) == {name for case in cases for name in case.hides}
    file = tmp_path / "primus_qualification.json"
    file.write_text(json.dumps(found))
    switches, not_reproduced = profile.read(str(file))
    assert not_reproduced == []
    fresh = new_client("fresh", **switches)
    fresh.secrets.write_bytes(configured.secrets.read_bytes())
    assert qualified(fresh)[0] == first
