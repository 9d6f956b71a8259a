# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log of a partition: the published one, and what may differ from it."""

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.log import LEVELS, LogEntry, parse_log
from hypothesis import given
from hypothesis import strategies as st
from published import FETCHLOG


@pytest.mark.parametrize(
    "shape",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", " \n\n"),
        lambda text: "".join("\x1b[1m%s\x1b[0m\n" % line for line in text.splitlines()),
    ],
)
def test_the_published_log(shape):
    entries, others = parse_log(shape(FETCHLOG))
    assert others == []
    assert [(entry.time, entry.level, entry.process, entry.repeated) for entry in entries] == [
        ("2021-04-01T09:31:28Z", "notice", "MSCNG", 1),
        ("2021-04-01T09:31:28Z", "info", "MSCNG", 1),
        ("2021-04-01T09:31:29Z", "notice", "Crypto", 1),
        ("2021-04-01T09:35:47Z", "err", "Crypto", 1),
        ("2021-04-01T09:35:48Z", "err", "Crypto", 11),
    ]
    assert {entry.device for entry in entries} == {"NUFENEN"}
    assert entries[0].text.startswith("Process: Login request: User: DEMO-TEST Client: SecurosysKspCfg@")
    assert entries[0].text.endswith("(IP 198.51.100.194:31550)")
    assert entries[4].text == entries[3].text


def test_other_lines_are_kept():
    entries, others = parse_log(
        "2021 Foo 1 09:31:28 UTC A b c d\nwhat is this\n2021 Dec 31 23:59:59 GMT A WARN C x: [y]\n"
    )
    assert entries == [LogEntry("2021-12-31T23:59:59Z", "A", "warning", "C", "x: [y]", 1)]
    assert others == ["2021 Foo 1 09:31:28 UTC A b c d", "what is this"]


@pytest.mark.parametrize("level", LEVELS)
def test_levels(level):
    severe = [other for other in LEVELS if LogEntry("", "", other, "", "", 1).is_at_least(level)]
    assert severe == list(LEVELS[: LEVELS.index(level) + 1])
    assert LogEntry("", "", "none-that-is-known", "", "", 1).is_at_least(level)


@given(st.text())
def test_any_text_is_read(text):
    entries, others = parse_log(text)
    assert len(entries) + len(others) <= text.count("\n") + 1
