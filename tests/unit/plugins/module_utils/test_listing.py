# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ppin prints: the published outputs, and all that may differ from them."""

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.connectivity_test import (
    ConnectivityTest,
    HsmResult,
    SlotResult,
    parse_connectivity_test,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError, find_code
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import (
    CONFIGURED,
    MISSING,
    NOT_LISTED,
    Entry,
    Listing,
    entry_state,
    parse_listing,
    printable,
)
from hypothesis import given
from hypothesis import strategies as st
from published import FETCHLOG

for kind in (ConnectivityTest, HsmResult, SlotResult):
    kind.__test__ = False  # its name makes pytest take it for a test

# As published, blanks at the ends of lines included.

ADD = (
    "********************\n"
    "Primus Permanent PIN\n"
    "********************\n"
    "Provide setup password for 'HSM_USERNAME': \n"
    "Provide PKCS11 password for 'HSM_USERNAME': \n"
    "********************\n"
    "Primus Permanent PIN\n"
    "********************\n"
    "[01] slot-id 0: user 'HSM_USERNAME' permanent secret: Configured\n"
)

LIST = """\
********************
Primus Permanent PIN
********************
[01] slot-id 0:    user 'Partition-1'   permanent secret: Configured
[02] slot-id 1:    user 'Partition-2'   permanent secret: Configured
[03] slot-id 5:    user 'CLOUDHSMPAR'  permanent secret: MISSING
[04] slot-id 0:    user 'Partition-1'   permanent secret: Configured
[05] slot-id 1:    user 'Partition-2'   permanent secret: Configured
[06] slot-id 5:    user 'CLOUDHSMPAR'  permanent secret: MISSING
[01] service/proxy user 'eqabxrfnqqos'  permanent secret: MISSING
[02] service/proxy user 'eqabxrfnqqos'  permanent secret: MISSING
"""

PROXY_ADD = (
    "********************\n"
    "Primus Permanent PIN\n"
    "********************\n"
    "Provide proxy password for 'SERVICE_USER' : \n"
    "\n"
    "********************\n"
    "Primus Permanent PIN\n"
    "********************\n"
    "[01] slot-id 0:    user 'HSM_USERNAME' permanent secret: MISSING\n"
    "[01] service/proxy user 'SERVICE_USER' permanent secret: Configured\n"
)

REMOVE = """\
********************
Primus Permanent PIN
********************
[01] slot-id 0: user 'HSM_USERNAME' permanent secret: MISSING
"""

# The documentation of fetching shows the passwords' places, and no lines of asterisks.
UPDATE = """\
Primus Permanent PIN
Provide setup password for 'HSM_USERNAME': <enter User Setup Password, no echo>
Provide PKCS11 password for 'HSM_USERNAME': <enter PKCS#11 PIN, no echo>
Primus Permanent PIN
[01] slot-id 0: user 'HSM_USERNAME' permanent secret: Configured
"""

TEST = """\
Load config file: '/etc/primus/primus.cfg'

hsm0: Connect to '82.197.162.10' on port 2411, firmware: RP-2.10.0-T\x20
    slot0 (id=2), user=DEMO-TEST: OK

Number of tested HSMs: 1 (number of partitions: 1)
Number of failures: 0
"""


PUBLISHED = {
    "add": (ADD, Listing({"HSM_USERNAME": [Entry(1, 0, True)]}, {})),
    "list": (
        LIST,
        Listing(
            {
                "Partition-1": [Entry(1, 0, True), Entry(4, 0, True)],
                "Partition-2": [Entry(2, 1, True), Entry(5, 1, True)],
                "CLOUDHSMPAR": [Entry(3, 5, False), Entry(6, 5, False)],
            },
            {"eqabxrfnqqos": [Entry(1, None, False), Entry(2, None, False)]},
        ),
    ),
    "proxy_add": (
        PROXY_ADD,
        Listing({"HSM_USERNAME": [Entry(1, 0, False)]}, {"SERVICE_USER": [Entry(1, None, True)]}),
    ),
    "remove": (REMOVE, Listing({"HSM_USERNAME": [Entry(1, 0, False)]}, {})),
    "update": (UPDATE, Listing({"HSM_USERNAME": [Entry(1, 0, True)]}, {})),
    "test": (TEST, None),
    "fetchlog": (FETCHLOG, None),
}

# What a terminal or a pipe may make of it.
SHAPES = {
    "LF": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR CR LF": lambda text: text.replace("\n", "\r\r\n"),
    "no last line end": lambda text: text.rstrip("\n"),
    "empty lines": lambda text: "\n\n" + text.replace("\n", "\n\n"),
    "indented": lambda text: "".join("  \t" + line for line in text.splitlines(True)),
    "blanks at the ends": lambda text: text.replace("\n", " \t \n"),
    "coloured": lambda text: "".join("\x1b[1;32m%s\x1b[0m\n" % line for line in text.splitlines()),
    "cleared lines": lambda text: "".join("\r\x1b[2K\x1b[?25l" + line for line in text.splitlines(True)),
    "window title": lambda text: "\x1b]0;ppin\x07\x1b]2;ppin\x1b\\" + text,
    "NUL and BEL": lambda text: "\0" + text.replace("\n", "\a\n"),
    "noise around": lambda text: "Connecting...\n[info] 3 of 3\n" + text + "Done.\n[ok]\n",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_output(name, shape):
    text, expected = PUBLISHED[name]
    listing = parse_listing(SHAPES[shape](text))
    assert listing == expected
    assert listing is None or [*listing.partitions, *listing.service_users] == [
        *expected.partitions,
        *expected.service_users,
    ]
    assert find_code(SHAPES[shape](text)) is None


ONE_PARTITION = Listing({"A": [Entry(1, 0, True)]}, {})
ONE_SERVICE_USER = Listing({}, {"A": [Entry(1, None, True)]})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[01]slot-id0:user'A'permanent secret:Configured", ONE_PARTITION),
        ("[01]slot-id 0:user 'A'permanent secret:Configured", ONE_PARTITION),
        ("[01]   slot-id   0   :   user   'A'   permanent   secret   :   Configured   ", ONE_PARTITION),
        ("[01]\tslot-id\t0\t:\tuser\t'A'\tpermanent\tsecret\t:\tConfigured\t", ONE_PARTITION),
        ("[01]service/proxy user'A'permanent secret:Configured", ONE_SERVICE_USER),
        ("[01]   service/proxy   user   'A'   permanent   secret   :   Configured   ", ONE_SERVICE_USER),
        ("[01]\tservice/proxy\tuser\t'A'\tpermanent\tsecret\t:\tConfigured\t", ONE_SERVICE_USER),
        ("[01]slot-id0:user'A'permanentsecret:Configured", ONE_PARTITION),
        ("[01]service/proxyuser'A'permanent secret:Configured", ONE_SERVICE_USER),
        ("[ 1] slot-id 0: user 'A' permanent secret: Configured", ONE_PARTITION),
    ],
)
def test_joined_and_extra_white_space(line, expected):
    assert parse_listing(line) == expected


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("\x1b[32m", "\x1b[0m"),
        ("\x1b[38;5;196m", "\x1b[K"),
        ("\x1b[?2004h", "\x1b[?2004l"),
        ("\x1b]8;;https://example.org\x1b\\", "\x1b]8;;\x07"),
        ("\x1bM", "\x1bE"),
        ("", "\x1b(B\x1b[m"),
        ("\x1b7", "\x1b8"),
        ("\x1b=", "\x1b>"),
    ],
)
def test_escape_sequences(begin, end):
    line = "[01] slot-id 0: user 'A' permanent secret: Configured"
    assert printable(begin + line + end) == line
    assert parse_listing("%s%s%s\r\n" % (begin, line, end)) == ONE_PARTITION
    inside = "[01] slot-id 0: user 'A' permanent secret: %sConfigured%s\r\n" % (begin, end)
    assert parse_listing(inside) == ONE_PARTITION


def test_printable_keeps_what_is_shown():
    text = "\tZürich 'P:1' \u65e5\u672c \U0001f511\nnext"
    assert printable(text) == text
    assert printable("a\0b\x08c\rd\x7fe\x9bf\x1b") == "abcdef"
    assert printable("") == ""


NAMES = [
    "HSM_USERNAME",
    "Partition-1",
    "O'Brien",
    "'",
    "''quoted''",
    '"double"',
    "A:B",
    "host:2310:slot",
    "user 'B' permanent secret: MISSING",
    "B' permanent secret: MISSING",
    "slot-id 1: user 'B' permanent secret: MISSING",
    "Zürich-Ä",
    "\u65e5\u672c\u8a9e",
    "\U0001f511",
    "e\u0301",
    "with blanks  inside",
    " at the ends ",
    "back\\slash\\n",
    "[02]",
    "$(reboot) `x` %s {0}",
    "MISSING",
    "x" * 5000,
    "Primus Permanent PIN",
]


@pytest.mark.parametrize("shape", ["LF", "CRLF"])
@pytest.mark.parametrize(("state", "configured"), [("Configured", True), ("MISSING", False)])
@pytest.mark.parametrize("name", NAMES)
def test_names(name, state, configured, shape):
    text = (
        "********************\nPrimus Permanent PIN\n********************\n"
        "[01] slot-id 7: user '%s' permanent secret: %s\n"
        "[01] service/proxy user '%s' permanent secret: %s\n" % (name, state, name, state)
    )
    expected = Listing({name: [Entry(1, 7, configured)]}, {name: [Entry(1, None, configured)]})
    assert parse_listing(SHAPES[shape](text)) == expected


@pytest.mark.parametrize("state", ["Configured", "configured", "CONFIGURED", "MISSING", "Missing", "missing"])
def test_state_words_in_any_case(state):
    listing = parse_listing("[01] slot-id 0: user 'A' permanent secret: %s" % state)
    assert listing.partitions["A"] == [Entry(1, 0, state.lower() == "configured")]


@pytest.mark.parametrize(
    "line",
    [
        "[01] slot-id 0: user 'A' permanent secret: EXPIRED",
        "[01] slot-id 0: user 'A' permanent secret: Configured!",
        "[01] slot-id 0: user 'A' permanent secret: not Configured",
        "[01] slot-id 0: user 'A' permanent secret: Configured (expired)",
        "[01] slot-id 0: user 'A' permanent secret:",
        "[01] slot-id 0: user 'A' permanent secret Configured",
        "[01] slot-id 0: user A permanent secret: Configured",
        '[01] slot-id 0: user "A" permanent secret: Configured',
        "[01] slot-id: user 'A' permanent secret: Configured",
        "[01] slot-id x: user 'A' permanent secret: Configured",
        "[01] slot 0: user 'A' permanent secret: Configured",
        "[01] service/proxy user 'A' permanent secret: EXPIRED",
        "[01] service/proxy user 'A' permanent secret: not MISSING",
        "[01] service/proxy user 'A' permanent secret:",
        "[01] something else 'A' permanent secret: Configured",
        "[01] slot-id 0: user 'A'",
        "[01] Slot-ID 0",
        "[01] service/proxy user 'A'",
    ],
)
def test_a_line_that_is_not_understood_is_not_skipped(line):
    good = "Primus Permanent PIN\n[01] slot-id 0: user 'B' permanent secret: Configured\n"
    with pytest.raises(PpinError) as caught:
        parse_listing(good + line + "\n")
    assert caught.value.cls == "dialogue"
    assert line in caught.value.msg


@pytest.mark.parametrize(
    ("slot_id", "number"), [("0", 0), ("5", 5), ("127", 127), ("4294967295", 4294967295), ("0x1f", 31), ("0X1F", 31)]
)
def test_slot_ids(slot_id, number):
    listing = parse_listing("[01] slot-id %s: user 'A' permanent secret: Configured" % slot_id)
    assert listing.partitions["A"] == [Entry(1, number, True)]


@pytest.mark.parametrize(("index", "number"), [("1", 1), ("01", 1), ("09", 9), ("10", 10), ("100", 100), ("0128", 128)])
def test_indices(index, number):
    listing = parse_listing("[%s] slot-id 0: user 'A' permanent secret: MISSING" % index)
    assert listing.partitions["A"] == [Entry(number, 0, False)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\r\n \r\n",
        "\x1b[0m",
        "********************\nPrimus Permanent PIN\n********************\n",
        "Segmentation fault",
        "Error: 0x80005003",
        "Usage: ppin [-c FILE] [-s FILE] -l",
        "Primus HSM PKCS#11 2.2.4",
        "slot-id 0: user 'A' permanent secret: Configured",
        "user 'A' permanent secret: Configured",
        "permanent secret: Configured",
        "see [01] slot-id 0: user 'A' permanent secret: Configured",
    ],
)
def test_no_listing(text):
    assert parse_listing(text) is None


def test_only_the_last_listing_counts():
    assert parse_listing(LIST + REMOVE) == PUBLISHED["remove"][1]
    assert parse_listing(REMOVE + LIST) == PUBLISHED["list"][1]


def test_a_listing_that_was_cut_off_at_its_header_does_not_fall_back_on_an_earlier_one():
    assert parse_listing(ADD + "********************\nPrimus Permanent PIN\n") is None


NOISE = "".join(
    [
        "\n",
        "2021 Apr  1 09:31:28 UTC NUFENEN info MSCNG Process: 0x2000000e [ok]\n",
        "[%s]\n" % ("0" * 500),
        "[[[[[[[[[[[[[[[[ ''''''''''''''''' ::::::::::::::\r\n",
        "slot-id 0: user 'A\n",
        "[01] user '%s\n" % ("' permanent " * 40),
        "[01] proxy user '%s'\n" % (" " * 500),
        "\x1b[31m\x1b[\x1b]\x1b\x1b\x07\0\x9b\n",
        "slot0 (id=, user=: OK\n",
        "%s\n" % ("Zürich \u65e5\u672c " * 20),
    ]
)
TWO_MB = 2 * 1024 * 1024


@pytest.mark.parametrize(
    "noise",
    [NOISE, "x", " ", "\n", " \n", "'", "[01] ", "[01] user '", "\x1b[0", "\x1b]", "hsm", "hsm0", ","],
    ids=lambda noise: repr(noise[:10]),
)
def test_two_megabytes_of_noise(noise):
    text = (noise * (TWO_MB // len(noise) + 1))[:TWO_MB]
    assert parse_listing(text) is None
    assert parse_connectivity_test(text).hsms == []
    assert parse_listing(text + "\n" + LIST) == PUBLISHED["list"][1]
    assert parse_listing(LIST + "\n" + text) == PUBLISHED["list"][1]


@pytest.mark.parametrize("noise", [" ", ":", " :", ": OK"])
def test_two_megabytes_behind_a_tested_slot(noise):
    (slot,) = parse_connectivity_test("slot0 (id=1), user=P1" + noise * (TWO_MB // len(noise)) + ": x").slots
    assert (slot.slot_id, slot.user_name, slot.ok) == (1, "P1", False)


shown = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1)


@given(
    st.dictionaries(shown, st.lists(st.tuples(st.integers(0, 2**32), st.booleans()), min_size=1), max_size=4),
    st.dictionaries(shown, st.lists(st.booleans(), min_size=1), max_size=4),
    st.sampled_from(sorted(SHAPES)),
)
def test_what_is_listed_is_read(partitions, service_users, shape):
    slots = [(name, *slot) for name, slots in partitions.items() for slot in slots]
    proxies = [(name, state) for name, states in service_users.items() for state in states]
    words = {True: "Configured", False: "MISSING"}
    text = "Primus Permanent PIN\n"
    expected = Listing({}, {})
    for number, (name, slot_id, configured) in enumerate(slots, 1):
        text += "[%02d] slot-id %d: user '%s' permanent secret: %s\n" % (number, slot_id, name, words[configured])
        expected.partitions.setdefault(name, []).append(Entry(number, slot_id, configured))
    for number, (name, configured) in enumerate(proxies, 1):
        text += "[%02d] service/proxy user '%s' permanent secret: %s\n" % (number, name, words[configured])
        expected.service_users.setdefault(name, []).append(Entry(number, None, configured))
    assert parse_listing(SHAPES[shape](text)) == (expected if slots or proxies else None)


PUBLISHED_TEXT = LIST + ADD + PROXY_ADD + TEST


@given(
    st.integers(0, len(PUBLISHED_TEXT)),
    st.integers(0, 40),
    st.text(max_size=3) | st.text("\n\r\x1b[]m' :0", max_size=9),
)
def test_damage_makes_no_credential(start, length, instead):
    """Whatever is cut out or put in: what reads as configured was so, but for the line that was damaged."""
    text = PUBLISHED_TEXT[:start] + instead + PUBLISHED_TEXT[start + length :]
    try:
        listing = parse_listing(text)
    except PpinError as exc:
        assert exc.cls == "dialogue"
        return
    entries = [entry for names in listing or () for lines in names.values() for entry in lines]
    assert sum(entry.configured for entry in entries) <= printable(text).count("Configured")
    assert len(parse_connectivity_test(text).slots) <= text.count("user=")


@given(
    st.lists(
        st.one_of(
            st.text(max_size=20), st.sampled_from(["[01]", " slot-id ", "0", ":", "user '", "' ", "permanent secret"])
        )
    ).map("".join)
)
def test_any_text_is_read_or_refused(text):
    try:
        listing = parse_listing(text)
    except PpinError as exc:
        assert exc.cls == "dialogue"
    else:
        assert listing is None or listing.partitions or listing.service_users
    assert isinstance(parse_connectivity_test(text), ConnectivityTest)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (None, NOT_LISTED),
        ([], NOT_LISTED),
        ([True], CONFIGURED),
        ([True, True], CONFIGURED),
        ([False], MISSING),
        ([False, False], MISSING),
        ([True, False], MISSING),
        ([False, True], MISSING),
    ],
)
def test_entry_state(states, expected):
    entries = None if states is None else [Entry(number, 0, state) for number, state in enumerate(states, 1)]
    assert entry_state(entries) == expected


def test_results():
    assert Entry(3, 0, False).as_result() == {"index": 3, "slot_id": 0, "configured": False}
    assert Entry(1, None, True).as_result() == {"index": 1, "configured": True}


# ppin --test

PLAIN = """\
Load config file: '/etc/primus/primus.cfg'

hsm0: Connect to a-api.cloudshsm.com port 2310, firmware: RX-2.20.0-T
          slot0 (id=0), user=DEMO_PARTITION: OK
          slot1 (id=1), user=DEMO_PARTITION2: CKR_TOKEN_NOT_PRESENT
"""
# What the vendor's pages do not show: white space and case.
WORDED = {
    "as published": lambda text: text,
    "tabs": lambda text: text.replace(" ", "\t"),
    "wide": lambda text: text.replace(" ", "   ").replace(":", " : ").replace("=", " = "),
    "close": lambda text: text.replace(", ", ",").replace(": ", ":").replace(" (", "("),
    "lower case": lambda text: text.lower(),
    "upper case": lambda text: text.upper(),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_published_test(shape):
    slots = [SlotResult("slot0", 2, "DEMO-TEST", True, "OK")]
    hsm = HsmResult("hsm0", "82.197.162.10", 2411, "RP-2.10.0-T", "", slots)
    assert parse_connectivity_test(SHAPES[shape](TEST)) == ConnectivityTest([hsm], 1, 0)
    assert hsm.connected and hsm.error is None and slots[0].error is None


@pytest.mark.parametrize("shape", SHAPES)
def test_published_plain_test(shape):
    tested = parse_connectivity_test(SHAPES[shape](PLAIN))
    slots = [
        SlotResult("slot0", 0, "DEMO_PARTITION", True, "OK"),
        SlotResult("slot1", 1, "DEMO_PARTITION2", False, "CKR_TOKEN_NOT_PRESENT"),
    ]
    assert tested == ConnectivityTest(
        [HsmResult("hsm0", "a-api.cloudshsm.com", 2310, "RX-2.20.0-T", "", slots)], None, None
    )
    assert tested.hsms[0].connected
    assert (slots[1].error.code, slots[1].error.cls, slots[1].may_be_evaluated) == ("0x000000E0", "transient", False)


@pytest.mark.parametrize("wording", WORDED)
@pytest.mark.parametrize("form", [TEST, PLAIN], ids=["quoted", "plain"])
def test_either_form_in_other_words(form, wording):
    def facts(text):
        return [
            (hsm.hsm, hsm.host.lower(), hsm.port, hsm.connected, hsm.firmware.lower())
            + tuple((slot.slot, slot.slot_id, slot.user_name.lower(), slot.ok) for slot in hsm.slots)
            for hsm in parse_connectivity_test(text).hsms
        ], parse_connectivity_test(text)[1:]

    assert facts(WORDED[wording](form)) == facts(form)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "test"])
def test_other_outputs_have_no_tested_slot(name):
    assert parse_connectivity_test(PUBLISHED[name][0]) == ConnectivityTest([], None, None)


def test_several_hsms():
    text = """\
hsm0: Connect to '192.0.2.1' on port 2310, firmware: RP-2.10.0-T
    slot0 (id=0), user=P1: OK
    slot1 (id=0x1f), user=P2: FAILED (0x80005017)
hsm1: Connect to '192.0.2.2' on port 2310 failed: 0x80005015
hsm2:Connect to 'a.example.com' on port 2310
    slot0 (id=0), user=P1: OK
    slot1 (id=31), user=P2: Not OK

Number of tested HSMs: 3 (number of partitions: 4)
Number of failures: 3
"""
    tested = parse_connectivity_test(text)
    assert [(hsm.hsm, hsm.host, hsm.port, hsm.connected, hsm.firmware) for hsm in tested.hsms] == [
        ("hsm0", "192.0.2.1", 2310, True, "RP-2.10.0-T"),
        ("hsm1", "192.0.2.2", 2310, False, None),
        ("hsm2", "a.example.com", 2310, True, None),
    ]
    assert tested.slots == [
        SlotResult("slot0", 0, "P1", True, "OK"),
        SlotResult("slot1", 31, "P2", False, "FAILED (0x80005017)"),
        SlotResult("slot0", 0, "P1", True, "OK"),
        SlotResult("slot1", 31, "P2", False, "Not OK"),
    ]
    assert (tested.partitions, tested.failures) == (4, 3)
    assert [hsm.error and hsm.error.code for hsm in tested.hsms] == [None, "0x80005015", None]


@pytest.mark.parametrize(
    ("line", "host", "port", "connected", "code"),
    [
        # without a slot under it, an HSM is reached only when its line tells of a firmware and of nothing else
        ("Connect to b.example.com port 2310, firmware: RX-3.1.0", "b.example.com", 2310, True, None),
        ("Connect to b.example.com port 2310, firmware: RX-3.1.0, serial: 17", "b.example.com", 2310, True, None),
        ("Connect to 2001:db8::1 port 2310, firmware: RX-3.1.0", "2001:db8::1", 2310, True, None),
        (
            "Connect to https://p.example.com:443/x port 443, firmware: 2.1",
            "https://p.example.com:443/x",
            443,
            True,
            None,
        ),
        ("Connect to b.example.com on port 2310, firmware: RX-3.1.0", "b.example.com", 2310, True, None),
        ("Connect to 'b.example.com' port 2310 : OK, firmware: RX-3.1.0", "b.example.com", 2310, True, None),
        ('connect to "b.example.com", port 2310, Firmware: RX-3.1.0', "b.example.com", 2310, True, None),
        ("Connect to b.example.com port 2310", "b.example.com", 2310, False, None),
        ("Connect to b.example.com port 2310 failed", "b.example.com", 2310, False, None),
        ("Connect to 'b.example.com' on port 2310 failed", "b.example.com", 2310, False, None),
        ("Connect to b.example.com port 2310 failed: 0x80005015", "b.example.com", 2310, False, "0x80005015"),
        ("Connect to 'b.example.com' on port 2310: FAILED (0x8000003b)", "b.example.com", 2310, False, "0x8000003B"),
        ("Connect to b.example.com port 2310: CKR_TOKEN_NOT_PRESENT", "b.example.com", 2310, False, "0x000000E0"),
        ("Connect to b.example.com port 2310, error: 0xE0", "b.example.com", 2310, False, "0x000000E0"),
        ("Connect to b.example.com port 2310, firmware: unknown", "b.example.com", 2310, False, None),
        ("Connect to b.example.com port 2310, firmware:", "b.example.com", 2310, False, None),
        ("Connect to b.example.com port 2310, firmware: RX-3.1.0, login failed", "b.example.com", 2310, False, None),
        ("Connect to b.example.com port 2310 (timeout)", "b.example.com", 2310, False, None),
        ("Connect to b.example.com port 2310 - no route to host", "b.example.com", 2310, False, None),
        # not understood
        ("Connection refused", "", 0, False, None),
        ("Connect to b.example.com:2310, firmware: RX-3.1.0", "", 0, False, None),
        ("Connect to b.example.com port http, firmware: RX-3.1.0", "", 0, False, None),
        ("Verbindung mit b.example.com Port 2310, Firmware: RX-3.1.0", "", 0, False, None),
        ("OK", "", 0, False, None),
        ("firmware: RX-3.1.0", "", 0, False, None),
        ("", "", 0, False, None),
    ],
)
def test_line_of_an_hsm(line, host, port, connected, code):
    (hsm,) = parse_connectivity_test("hsm7: %s\n" % line).hsms
    assert (hsm.hsm, hsm.host, hsm.port, hsm.connected) == ("hsm7", host, port, connected)
    assert (hsm.error is None) == connected
    assert connected or hsm.error.code == code


@pytest.mark.parametrize(
    ("line", "verdict", "connected"),
    [
        ("Connect to 'b' on port 2310", "OK", True),
        ("Connect to 'b' on port 2310", "CKR_PIN_INCORRECT", True),
        ("Connect to 'b' on port 2310", "CKR_TOKEN_NOT_PRESENT", False),
        ("Connect to 'b' on port 2310", "FAILED (0x80005015)", False),
        ("Connect to b port 2310, firmware: unknown", "OK", True),
        ("Connect to b port 2310 failed", "CKR_TOKEN_NOT_PRESENT", False),
        ("Something that nobody knows", "OK", False),
        ("Connect to b port 2310 and more words", "OK", False),
    ],
)
def test_what_a_login_says_of_its_hsm(line, verdict, connected):
    (hsm,) = parse_connectivity_test("hsm0: %s\n slot0 (id=0), user=P: %s\n" % (line, verdict)).hsms
    assert hsm.connected == connected
    assert [slot.ok for slot in hsm.slots] == [verdict == "OK"]


@pytest.mark.parametrize(
    ("line", "names", "expected"),
    [
        ("user=A:B: OK", [], ("A:B", "OK")),
        ("user=A:B: OK", ["A"], ("A:B", "OK")),
        ("user=A:B: CKR_PIN_INCORRECT", ["A:B", "A"], ("A:B", "CKR_PIN_INCORRECT")),
        ("user=A:B : failed: CKR_PIN_INCORRECT", ["A:B"], ("A:B", "failed: CKR_PIN_INCORRECT")),
        ("user=A: failed: 0x80005017", ["A", "B"], ("A", "failed: 0x80005017")),
        ("user=A: failed: 0x80005017", [], ("A", "failed: 0x80005017")),
        ("user = A : CKR_OK", [], ("A", "CKR_OK")),
        ("user='A': OK", ["A"], ("A", "OK")),
        ('user="A:B" : failed: 0x80005017', ["A:B", "A"], ("A:B", "failed: 0x80005017")),
        ("user='A': OK", ["'A'"], ("'A'", "OK")),
        ("user=id=0x00000001: CKR_PIN_INCORRECT", [], ("id=0x00000001", "CKR_PIN_INCORRECT")),
    ],
)
def test_names_with_colons(line, names, expected):
    (slot,) = parse_connectivity_test("slot0 (id=0x00000001), " + line, names).slots
    assert (slot.user_name, slot.message) == expected
    assert slot.ok == (expected[1] in ("OK", "CKR_OK"))


@pytest.mark.parametrize(
    ("said", "cls"),
    [
        ("", "transient"),
        (" failed", "transient"),
        (" FAILED: Connection refused", "transient"),
        (" - no route to host", "transient"),
        (": timed out", "transient"),
        (", firmware: unknown", "transient"),
        (": CKR_TOKEN_NOT_PRESENT", "transient"),
        # the HSM may have judged the secret
        (": login failed", "unknown"),
        (" failed: access denied", "unknown"),
        (" failed: wrong credentials", "unknown"),
        (" failed: permanent secret not accepted", "unknown"),
        (" failed: 160", "unknown"),
        (", firmware: RX-3.1.0, login: rejected", "unknown"),
        (" failed: something that nobody knows", "unknown"),
        (" failed (0x80005017)", "rejected"),
        (" failed: CKR_PIN_LOCKED", "refused"),
    ],
)
@pytest.mark.parametrize("form", ["Connect to 'b.example.com' on port 2410", "Connect to b.example.com port 2410"])
def test_an_hsm_whose_login_went_wrong_is_not_one_that_was_not_reached(form, said, cls):
    tested = parse_connectivity_test("hsm4: %s%s\n" % (form, said))
    assert not tested.hsms[0].connected and tested.hsms[0].error.cls == cls
    assert tested.logins_without_slot == (0 if cls == "transient" else 1)


@given(
    st.lists(
        st.sampled_from(["hsm0", ":", " ", "Connect to ", "'", "b.example", " on", " port ", "2310", ", ", "firmware"])
    ),
    st.lists(st.text(max_size=8), max_size=2),
)
def test_an_hsm_is_never_reached_by_chance(words, noise):
    for hsm in parse_connectivity_test("".join(words + noise)).hsms:
        assert not hsm.connected or (hsm.firmware and hsm.port)


def test_slots_of_one_partition():
    text = "hsm0: Connect to b port 2310, firmware: 1\n slot0 (id=0), user=A: 0x80005017\n slot1 (id=1), user=B: OK\n"
    tested = parse_connectivity_test(text)
    assert [slot.user_name for slot in tested.for_partition("B").slots] == ["B"]
    assert tested.for_partition("B").hsms[0].connected
    assert tested.for_partition("C").slots == [] and tested.for_partition("A").slots == tested.slots[:1]


def test_a_slot_without_an_hsm():
    tested = parse_connectivity_test("slot0 (id=0), user=P1: OK\n")
    assert [(hsm.hsm, len(hsm.slots)) for hsm in tested.hsms] == [("", 1)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("slot0(id=2),user=A:OK", ("slot0", 2, "A", True)),
        ("   slot0   (id=2)   ,   user=A   :   OK   ", ("slot0", 2, "A", True)),
        ("\tslot10\t(id=12),\tuser=A:\tOK\t", ("slot10", 12, "A", True)),
        ("slot0 (id=2), user=O'Brien: OK", ("slot0", 2, "O'Brien", True)),
        ("slot0 (id=2), user=Zürich \u65e5\u672c: OK", ("slot0", 2, "Zürich \u65e5\u672c", True)),
        ("slot0 (id=2), user=A: CKR_OK (0x00000000)", ("slot0", 2, "A", True)),
        ("slot0 (id=2), user=A: 0x00000000", ("slot0", 2, "A", True)),
        ("slot0 (id=2), user=A: OK 0x00000030", ("slot0", 2, "A", False)),
        ("slot0 (id=2), user=A: 0x80005017", ("slot0", 2, "A", False)),
        ("slot0 (id=2), user=A: error: code: 0x80005017", ("slot0", 2, "A", False)),
        ("slot0 (id=2), user=A: NOK", ("slot0", 2, "A", False)),
        ("slot0 (id=2), user=A: OK, but 0x80000018", ("slot0", 2, "A", False)),
        ("slot0 (id=2), user=A: failed: not OK", ("slot0", 2, "A", False)),
        ("slot0 (id=2), user=A:B: OK", ("slot0", 2, "A:B", True)),
    ],
)
def test_tested_slot(line, expected):
    assert [slot[:4] for slot in parse_connectivity_test(line).slots] == [expected]


@pytest.mark.parametrize(
    ("said", "code", "cls"),
    [
        ("FAILED (0x80005017)", "0x80005017", "rejected"),
        ("login failed, error 0x8000000b", "0x8000000B", "rejected"),
        ("CKR_PIN_LOCKED", "0x000000A4", "refused"),
        ("error 0xa0", "0x000000A0", "rejected"),
        ("CKR_GENERAL_ERROR", "0x00000005", "unknown"),
        ("ckr_token_not_present", "0x000000E0", "transient"),
        ("rv=0xE0", "0x000000E0", "transient"),
        ("CKR_TOKEN_NOT_PRESENT (0x000000e0)", "0x000000E0", "transient"),
        ("CKR_FUNCTION_FAILED, error 0x80005017", "0x80005017", "rejected"),
        ("CKR_NO_SUCH_NAME", None, "unknown"),
        ("error 0x05", "0x00000005", "unknown"),
        ("failed", None, "unknown"),
    ],
)
def test_what_is_said_of_a_failed_login(said, code, cls):
    (slot,) = parse_connectivity_test("slot0 (id=2), user=A: %s" % said).slots
    assert (slot.error.code, slot.error.cls) == (code, cls)
    assert slot.error.msg == said


@pytest.mark.parametrize("text", ["", "\r\n", "OK", "user=A: OK", "slot0 (id=2), user=A", "hsm: OK", "slot0: OK"])
def test_no_tested_slot(text):
    assert parse_connectivity_test(text) == ConnectivityTest([], None, None)
