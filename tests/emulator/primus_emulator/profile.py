# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes switches of what hsmops.primus.qualify has found of a ppin, its ``primus_qualification.json``.

The profile's format, and what each finding is, is described in plugins/module_utils/_qualify/findings.py.
"""

from __future__ import annotations

import json
import typing as t

from .behaviour import parse
from .options import Language
from .ppin import DEFAULT_VERSION

FORMAT = 1

Switches = t.Dict[str, t.Any]


class Row(t.NamedTuple):
    """What follows from a finding.

    values: the switches for each value of the finding; none where the emulator always behaves so.
    switch: the switch that has the same values as the finding, except those in values.
    why: why other values cannot be reproduced; empty where there are none.
    """

    values: t.Mapping[str, Switches] = {}  # never changed
    switch: str = ""
    why: str = ""


_CODE = "the emulator's code for this failure is fixed"
_PROMPT = "the emulator's text of this prompt is fixed"
_NO_LIBRARY = "the emulator has no PKCS#11 library"
_HSM = "it depends on the HSM: see the limits of serve and the admin commands"


def _failure(code: str, **more: Switches) -> Row:
    """A failure that the emulator has with this code, or with none."""
    return Row({code: {"fail_without_code": False}, "no code": {"fail_without_code": True}, **more}, why=_CODE)


def _prompt(text: str) -> Row:
    return Row({text: {}}, why=_PROMPT)


ROWS: dict[str, Row] = {
    # The files
    "secrets_flag": Row({"honoured": {}}, why="the emulator always honours -s"),
    "secrets_flag_commands": Row({"all": {}}, why="the emulator always honours -s"),
    "own_file": Row({"unchanged": {}}, why="the emulator writes only to the file that -s names"),
    "config_flag": Row({"honoured": {}}, why="the emulator always honours -c"),
    "flags_or_environment": Row({"flags": {}}, why="flags always win in the emulator"),
    # The output
    "version": Row(switch="version"),
    "usage": Row(why="the version decides which commands the emulator has"),  # see usage()
    "commands_end": Row(
        {"by themselves": {"hang_at": "", "kill_at": "", "kill_at_write": 0}},
        why="the outputs show which command: set hang_at, kill_at or kill_at_write",
    ),
    "output_size": Row({"bounded": {"print_mb": 0}, "too much": {"print_mb": 2}}),
    "output_text": Row({"text": {"binary_noise": False}, "bytes": {"binary_noise": True}}),
    "output_stream": Row(switch="output_stream"),
    "message_stream": Row(switch="message_stream"),
    "exit_success": Row(switch="exit_success"),
    "exit_failure": Row(switch="exit_failure"),
    "line_ends": Row({"LF": {"crlf": False}, "CR LF": {"crlf": True}}),
    "trailing_spaces": Row(switch="trailing_spaces"),
    "escape_sequences": Row({"none": {"escape_sequences": False}, "used": {"escape_sequences": True}}),
    "error_text": Row(
        {"no code": {"fail_without_code": True}}, switch="error_text", why="the wording is none of error_text"
    ),
    "error_digits": Row(switch="error_hex"),
    # The listing
    "listing": Row({"complete": {}}, why="the emulator always lists everything"),
    "listing_true": Row({"true": {}, "lies": {"lie_configured": "always"}}),
    "listing_spaces": Row(switch="listing", why="the white space is none of listing"),
    "slot_ids": Row(switch="slot_id_format"),
    "proxy_remove_listing": Row(switch="proxy_remove_listing", why="the listing is none of proxy_remove_listing"),
    # The command line
    "joined_flags": Row({"understood": {}}, why="the emulator always understands them"),
    "fortinet_proxy_option": Row(switch="fortinet_proxy_option", why="the emulator has at least one of them"),
    # What is there already, or is not
    "unknown_partition": _failure("0x80005012"),
    "remove_missing": _failure("0x80005011"),
    "proxy_remove_missing": _failure("0x80005011"),
    "update_missing": _failure("0x80005010", **{"lists Configured": {"lie_configured": "changes"}}),
    "add_present": _failure("0x80000003", **{"lists Configured": {"lie_configured": "changes"}}),
    "proxy_existing": Row(
        {
            "asks": {"proxy_existing": "overwrite"},
            "0x80000003": {"proxy_existing": "duplicate", "fail_without_code": False},
            "0x80005002": {"proxy_existing": "duplicate_config", "fail_without_code": False},
            "no code": {"proxy_existing": "duplicate", "fail_without_code": True},
            "lists Configured": {"proxy_existing": "duplicate", "lie_configured": "changes"},
        },
        why=_CODE,
    ),
    # The connection test and the log
    "test_form": Row(switch="test_form", why="the form is none of test_form"),
    "test_counters": Row(switch="test_counters"),
    "test_failure": Row(switch="test_failure", why="the wording is none of test_failure"),
    "test_hsm_failure": Row(switch="test_hsm_failure", why="the wording is none of test_hsm_failure"),
    "login": Row({"OK": {}}, why=_HSM),
    "log": Row({"complete": {}}, why=_HSM),
    # The dialogue
    "questions": Row(
        {
            "none": {"extra_question": ""},
            "before": {"extra_question": "Continue?", "extra_question_at": "before"},
            "after": {"extra_question": "Continue?", "extra_question_at": "after"},
        }
    ),
    "prompt_source": Row(switch="input", why="the emulator asks on stdin or on the controlling terminal"),
    "prompt_order": Row(switch="prompt_order"),
    "prompt_setup": _prompt("Provide setup password for 'P1':"),
    "prompt_pkcs11": _prompt("Provide PKCS11 password for 'P1':"),
    "prompt_proxy": _prompt("Provide proxy password for 'SU1' :"),
    "prompt_line": Row({"same": {"prompt_newline": False}, "next": {"prompt_newline": True}}),
    "echo_off": Row(
        {
            "before the prompt": {"echo_off_late_ms": 0},
            "after the prompt": {"echo_off_late_ms": 1000},
            "never": {"echo_off_late_ms": 3600000},
        }
    ),
    "typeahead": Row({"dropped": {"flush_typeahead": True}, "kept": {"flush_typeahead": False}}),
    "secrets_shown": Row({"no": {"echo_secrets": False}, "yes": {"echo_secrets": True}}),
    # The secrets file
    "proxy_add": Row({"works": {}}, why=_HSM),
    "add": Row({"works": {}}, why=_HSM),
    "secrets_write": Row({"in place": {}}, why="the emulator always writes in place"),
    "secrets_mode": Row({"kept": {}}, why="the emulator keeps owner and permissions, as it writes in place"),
    "secrets_leftovers": Row({"none": {}}, why="the emulator leaves no other file"),
    "other_entries": Row({"same": {"recipher": False}, "ciphered anew": {"recipher": True}}),
    "reads_change_file": Row({"no": {"recipher_reads": False}, "yes": {"recipher_reads": True}}),
    "read_only_file": _failure("0x80005007"),
    # The credentials
    "setup_twice": Row({"accepted": {}}, why=_HSM),
    "update_secret": Row(
        {"not known": {}}, why="each entry is ciphered anew; the admin command rotate-secret changes it"
    ),
    "before_update": Row({"logs in": {}}, why="only the admin command rotate-secret ends a permanent secret"),
    "fortinet": Row({"complete": {}}, why=_HSM),
    "failed_update": Row(
        {"removed": {"keep_entry_on_failed_update": False}, "kept": {"keep_entry_on_failed_update": True}}
    ),
    "failed_update_code": _failure("0x80005017", **{"lists Configured": {"lie_configured": "changes"}}),
    "reprompt": Row({"no": {"reprompt": 0}, "yes": {"reprompt": 1}}),
    # The library
    "library_login": Row(why=_NO_LIBRARY),
    "token_flags": Row(why=_NO_LIBRARY),
    "token_label": Row(why=_NO_LIBRARY),
}


def read(path: str) -> tuple[Switches, list[str]]:
    """Return the switches of a profile, and a line for each of its findings that they do not reproduce.

    Raises OSError, and ValueError when it is no profile.
    """
    try:
        with open(path, encoding="utf-8") as file:
            profile = json.load(file)
        known, findings = profile["format"] == FORMAT, profile["findings"].items()
        seen = {name: str(found["seen"]) for name, found in findings if found["seen"] is not None}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("%s is no primus_qualification.json" % path) from None
    if not known:
        raise ValueError("%s has format %s, and this emulator reads %d" % (path, profile["format"], FORMAT))
    return switches_of(seen)


def switches_of(seen: t.Mapping[str, str]) -> tuple[Switches, list[str]]:
    """The same of what was seen, by the names of the findings. Without what was not tried."""
    switches: Switches = {}
    not_reproduced = []
    for name, value in seen.items():
        if (name, value) == ("usage", usage(seen.get("version", DEFAULT_VERSION))):
            continue
        wanted, why = _row_of(name, value)
        others = [key for key in wanted if switches.get(key, wanted[key]) != wanted[key]]
        if others:
            why = "another finding needs %s=%s" % (others[0], switches[others[0]])
        if why:
            not_reproduced.append("%s: %s (%s)" % (name, value, why))
        else:
            switches.update(wanted)
    return switches, not_reproduced


def _row_of(name: str, value: str) -> tuple[Switches, str]:
    """Return the switches of one finding, or why there are none."""
    row = ROWS.get(name)
    if row is None:
        return {}, "this emulator does not know the finding"
    if value in row.values:
        return row.values[value], ""
    try:
        if row.switch:
            return {row.switch: parse(row.switch, value)}, ""
    except ValueError:
        pass
    return {}, row.why or "the finding has no such value"


def usage(version: str) -> str:
    """Return the commands of the usage text of a version, as in the finding usage."""
    language = Language(version, "both")
    since = {"t": "test", "fortinet": "fortinet"}
    return " ".join(sorted([*"alprux", "fetchlog", *(word for key, word in since.items() if language.knows(key))]))
