# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that behaves as the ppin of a qualification's profile, as far as switches can."""

import json

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.findings import FINDINGS, FORMAT, FREE
from primus_emulator import profile
from primus_emulator.behaviour import SWITCHES, load, parse


def test_each_finding_is_in_the_table():
    assert list(profile.ROWS) == [finding.name for finding in FINDINGS]
    assert profile.FORMAT == FORMAT


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.name)
def test_each_value_is_reproduced_or_has_a_reason(finding):
    row = profile.ROWS[finding.name]
    assert FREE in finding.values or set(row.values) <= set(finding.values)
    for switches in row.values.values():
        assert all(parse(name, value) == value for name, value in switches.items())
    if finding.expected is not None:
        assert profile.switches_of({finding.name: finding.expected})[1] == []
    if row.why:
        return
    for value in set(finding.values) - set(row.values):
        # A switch that takes any text or number, or has this value.
        assert SWITCHES[row.switch][1] in (str, int) if value == FREE else str(parse(row.switch, value)) == value


def write(path, seen, number=FORMAT):
    findings = {name: {"verdict": "holds", "seen": value} for name, value in seen.items()}
    path.write_text(json.dumps({"format": number, "findings": findings}))
    return path


def test_a_client_takes_a_profile(cli, state, admin, tmp_path):
    prefix, file = tmp_path / "client", tmp_path / "primus_qualification.json"
    write(
        file,
        {
            "version": "1.8.6",
            "usage": "a fetchlog l p r test u x",
            "exit_failure": "7",
            "line_ends": "CR LF",
            "prompt_source": "tty",
            "prompt_setup": "Password of 'P1':",
            "secrets_write": "renamed",
            "error_text": "no code",
            "remove_missing": "0x80005011",
            "login": None,
            "of_tomorrow": "yes",
        },
    )
    made = cli(
        "client", prefix, "--state", state, "--partition", "HSM_USERNAME", "--profile", file, "--set", "crlf=off"
    )
    assert made.returncode == 0
    assert made.stderr.splitlines() == [
        f"client: {file}: the emulator does not reproduce",
        "  prompt_setup: Password of 'P1': (the emulator's text of this prompt is fixed)",
        "  secrets_write: renamed (the emulator always writes in place)",
        "  remove_missing: 0x80005011 (another finding needs fail_without_code=True)",
        "  of_tomorrow: yes (this emulator does not know the finding)",
    ]
    switches = load(prefix / "etc/emulator.json")
    assert (switches.version, switches.exit_failure, switches.input) == ("1.8.6", 7, "tty")
    assert switches.fail_without_code is True and switches.crlf is False

    write(file, {"line_ends": "CR LF", "exit_failure": "1"})
    changed = cli("client", prefix, "--profile", file)
    assert (changed.returncode, changed.stderr) == (0, "")
    switches = load(prefix / "etc/emulator.json")
    assert (switches.crlf, switches.exit_failure, switches.input) == (True, 1, "tty")


def test_the_commands_of_another_version():
    switches, not_reproduced = profile.switches_of({"version": "2.4.0", "usage": "a l p r u x"})
    assert switches == {"version": "2.4.0"}
    assert not_reproduced == ["usage: a l p r u x (the version decides which commands the emulator has)"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"format": 2, "findings": {}}', "has format 2, and this emulator reads 1"),
        ('{"format": 1, "findings": ["line_ends"]}', "is no primus_qualification.json"),
        ("[]", "is no primus_qualification.json"),
        ("<html>", "is no primus_qualification.json"),
    ],
)
def test_what_is_no_profile(cli, make_client, tmp_path, text, reason):
    client = make_client()
    before = (client.prefix / "etc/emulator.json").read_text()
    (tmp_path / "file.json").write_text(text)
    refused = cli("client", client.prefix, "--profile", tmp_path / "file.json")
    assert refused.returncode == 1 and reason in refused.stderr
    assert (client.prefix / "etc/emulator.json").read_text() == before
