# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""primus.cfg, against what libconf reads from the same texts."""

import libconf
import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._primus_cfg import (
    Slot,
    find_passwords,
    hide_passwords,
    read_slots,
)
from hypothesis import example, given
from hypothesis import strategies as st


def slots_by_libconf(text):
    return [
        Slot(key, slot["user_name"], slot.get("id"), slot.get("proxy_user") or None)
        for key, hsm in libconf.loads(text)["primus"]["hsms"].items()
        for slot in hsm.get("slots", {}).values()
    ]


WHOLE = """\
# Primus HSM PKCS#11 provider
version = "1.0";

/* One partition on a cluster of two,
 * behind a service proxy; { } = ; " */
primus :
{
  wait_delay = 250;        // ms
  wait_max_tries = 5;
  connect_on_init = true;
  hsms :
  {
    hsm0 :
    {
      host = "grimsel.example.org";
      port = "2310";
      priority = 0;
      slots :
      {
        slot0 : { client_id = "web # 1 // not a comment"; user_name = "P1"; proxy_user = "eqabxrfnqqos"; id = 0; };
        slot1 : { client_id = "web1"; user_name = "P2"; id = 1; };
      };
    };
    hsm1 :
    {
      host = "https://nufenen.example.org:443/";
      port = "2310";
      priority = 1;
      slots :
      {
        slot0 : { user_name = "P1"; proxy_user = "eqabxrfnqqos"; proxy_password = "in { clear }"; id = 0; };
        slot1 : { user_name = "P2"; id = 1; };
      };
    };
  };
  log :
  {
    file = "/var/log/primus/primus.log";
    write_log_file = TRUE;
    write_syslog = False;
    trace_mask = 0x00;
    trace_level = 4;
  };
};
"""


def test_whole_file():
    expected = [
        Slot("hsm0", "P1", 0, "eqabxrfnqqos"),
        Slot("hsm0", "P2", 1, None),
        Slot("hsm1", "P1", 0, "eqabxrfnqqos"),
        Slot("hsm1", "P2", 1, None),
    ]
    assert read_slots(WHOLE) == expected == slots_by_libconf(WHOLE)


def with_slot(settings_of_slot):
    return "primus : { hsms : { hsm0 : { slots : { slot0 : { %s } } } } };" % settings_of_slot


USER = 'user_name = "P"; '

TEXTS = {
    "CRLF": WHOLE.replace("\n", "\r\n"),
    "no line ends": WHOLE.replace("# Primus HSM PKCS#11 provider\n", "").replace("// ms", "").replace("\n", " "),
    "equal signs": WHOLE.replace(" :\n", " =\n"),
    "no semicolons": 'wait = 1 primus = { hsms = { hsm0 = { slots = { slot0 = { user_name = "P" id = 3 } } } } }',
    "commas": 'wait = 1, primus = { hsms = { hsm0 = { slots = { slot0 = { user_name = "P", id = 3 } } } } }',
    "joined": 'primus:{hsms:{hsm0:{slots:{slot0:{user_name="P";id=3;proxy_user="S";};};};};};',
    "comments of a line": with_slot('# user_name = "A";\n // user_name = "B";\n user_name = "P";# }\n'),
    "comment at the end": with_slot(USER) + "# no line end",
    "other comment at the end": with_slot(USER) + "// no line end",
    "comment of lines": with_slot(USER + '/* id = 1;\n ** / * // # " */ id /* : */ = /**/ 2 /***/;'),
    "comments do not nest": with_slot(USER + "/* /* */ id = 2;"),
    "comment signs in a string": with_slot('user_name = "a # b // c /* d */ e";'),
    "comments between strings": with_slot('user_name = "a" // b\n "c" /* d */ "e" # f\n;'),
    "adjacent strings": with_slot('user_name = "a" "b"\n\n"c""d";'),
    "adjacent empty strings": with_slot('user_name = "" "P" "";'),
    "escapes": with_slot(r'user_name = "\\ \" \n \r \t \f \v \b \a \x41\x5a \x7f";'),
    "hexadecimal escape before a digit": with_slot(r'user_name = "\x414";'),
    "escaped backslash before a quote": with_slot(r'user_name = "a\\"; id = 3;'),
    "quote in a string": with_slot(r'user_name = "a\"; id = 3; x = \"";'),
    "line end in a string": with_slot('user_name = "a\nb";'),
    "unicode": with_slot('user_name = "Zürich \u65e5\u672c \U0001f511";'),
    "empty name": with_slot('user_name = "";'),
    "decimal": with_slot(USER + "id = 127;"),
    "negative": with_slot(USER + "id = -1;"),
    "positive": with_slot(USER + "id = +1;"),
    "hexadecimal": with_slot(USER + "id = 0x1E;"),
    "hexadecimal in lower case": with_slot(USER + "id = 0xbeef;"),
    "hexadecimal with X": with_slot(USER + "id = 0XE;"),
    "long": with_slot(USER + "id = 4294967296L;"),
    "long long": with_slot(USER + "id = 4294967296LL;"),
    "long hexadecimal": with_slot(USER + "id = 0x1FFFFFFFFL;"),
    "no id": with_slot(USER),
    "proxy user": with_slot(USER + 'proxy_user = "S";'),
    "empty proxy user": with_slot(USER + 'proxy_user = "";'),
    "other settings": with_slot(USER + 'a = 1.5; b = .5; c = 1.; d = 1e3; e = -1.5E-3; f = tRuE; g = FALSE; h = "";'),
    "arrays and lists": with_slot(USER + 'a = [1, 2]; b = []; c = (); d = (1, [2.5], ("x" "y"), { z = 1; });'),
    "a group of nothing": with_slot(USER + "a = { };"),
    "names": with_slot(USER + "a-b = 1; *c = 2; d_e = 3; F9 = 4; id = 5;"),
    "given twice": with_slot(USER + 'id = 1; id = 2; user_name = "Q";'),
    "any keys": 'primus = { hsms = { *b = { slots = { x = { user_name = "Q" }; a = { user_name = "P" } } } } }',
    "no slots": 'primus : { hsms : { hsm0 : { host = "h"; }; hsm1 : { slots : { }; }; }; };',
    "no HSMs": "primus : { hsms : { }; };",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text(text):
    assert read_slots(text) == slots_by_libconf(text)


GARBAGE = {
    "empty": "",
    "blanks": " \n\t",
    "only a comment": "# primus",
    "word": "primus",
    "zeros": "\0" * 100,
    "not text": "\ufffd\ufffd\x01\x7f",
    "JSON": '{"primus": {"hsms": {}}}',
    "YAML": "primus:\n  hsms:\n    - host: a\n",
    "INI": "[primus]\nhsms = 1\n",
    "XML": "<primus/>",
    "cut off": WHOLE[: len(WHOLE) // 2],
    "last brace missing": WHOLE.rstrip("\n};"),
    "one brace more": WHOLE + "}",
    "text behind": WHOLE + "P1",
    "wrong brace": with_slot(USER).replace("}", ")"),
    "open string": with_slot('user_name = "P;'),
    "string ends in a backslash": 'a = "\\',
    "open comment": with_slot(USER) + "/* and",
    "include": '@include "hsms.cfg"\n' + WHOLE,
    "include in a group": with_slot(USER + '\n@include "slot.cfg"\n'),
    "no value": with_slot("user_name = ;"),
    "no sign": with_slot('user_name "P";'),
    "no name": with_slot('= "P";'),
    "a name that begins with a digit": with_slot(USER + "0a = 1;"),
    "a value without quotes": with_slot("user_name = P;"),
    "single quotes": with_slot("user_name = 'P';"),
    "two numbers": with_slot(USER + "id = 1 2;"),
    "a number with a string": with_slot(USER + 'id = 1 "2";'),
    "two semicolons": with_slot(USER + ";;"),
    "hexadecimal without digits": with_slot(USER + "id = 0x;"),
    "sign without digits": with_slot(USER + "id = -;"),
    "two signs": with_slot(USER + "id = --1;"),
    "two points": with_slot(USER + "a = 1..2;"),
    "point alone": with_slot(USER + "a = .;"),
    "exponent without digits": with_slot(USER + "a = 1e;"),
    "number of too many digits": with_slot(USER + "id = %s;" % ("9" * 5000)),
    "LLL": with_slot(USER + "id = 1LLL;"),
    "open array": with_slot(USER + "a = [1, 2;"),
    "no primus": 'version = "1.0";',
    "no hsms": "primus : { wait_delay = 250; };",
    "primus is a string": 'primus = "x";',
    "primus is a number": "primus = 1;",
    "primus is a list": 'primus = ( "hsms" );',
    "hsms is a list": "primus = { hsms = ( { slots = { }; } ); };",
    "hsms is a string": 'primus = { hsms = "hsm0"; };',
    "hsms is true": "primus = { hsms = true; };",
    "HSM is a string": 'primus = { hsms = { hsm0 = "x"; }; };',
    "HSM is a number": "primus = { hsms = { hsm0 = 1; }; };",
    "slots is a list": 'primus = { hsms = { hsm0 = { slots = ( { user_name = "P"; } ); }; }; };',
    "slots is a string": 'primus = { hsms = { hsm0 = { slots = "x"; }; }; };',
    "slot is a string": 'primus = { hsms = { hsm0 = { slots = { slot0 = "x"; }; }; }; };',
    "slot is a number": "primus = { hsms = { hsm0 = { slots = { slot0 = 0; }; }; }; };",
    "slot without a user": with_slot("id = 0;"),
    "user is a number": with_slot("user_name = 5;"),
    "user is a list": with_slot('user_name = ["P"];'),
    "proxy user is a list": with_slot(USER + "proxy_user = [1];"),
    "slot id is a string": with_slot(USER + 'id = "0";'),
    "slot id is a fraction": with_slot(USER + "id = 1.5;"),
    "nested without end": "a = " + "(" * 100000,
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE)
def test_garbage(text):
    with pytest.raises(ValueError):
        read_slots(text)


def test_the_line_of_what_is_not_understood_is_told():
    with pytest.raises(ValueError, match=r"line 3\b"):
        read_slots('version = "1.0";\n\n  @include "hsms.cfg"\n' + WHOLE)


PASSWORDS = {
    "none": (WHOLE.replace("proxy_password", "other"), []),
    "of a proxy": (WHOLE, ["primus.hsms.hsm1.slots.slot0.proxy_password"]),
    "of an HSM": ('primus : { hsms : { hsm0 : { pin = "P"; }; hsm1 : { pin = "Q"; }; }; };', ["hsm0.pin", "hsm1.pin"]),
    "empty": (with_slot('proxy_password = ""; pin = "";'), []),
    "a number": (with_slot("pin = 1234;"), ["slot0.pin"]),
    "made up": ('Setup_Password = "P"; pkcs11_password = "Q";', ["Setup_Password", "pkcs11_password"]),
    "in a list": ('a = ( { pin = "P" }, ( { pin = "Q" } ) );', ["a[0].pin", "a[1][0].pin"]),
    "only like one": ('spin = "P"; ping = "Q"; pinned = true;', []),
    "a group of that name": ('passwords = { user = "P"; pin = "Q"; };', ["passwords.pin"]),
    "in a comment": ('# pin = "P";\n/* pin = "Q"; */', []),
}


@pytest.mark.parametrize(("text", "places"), PASSWORDS.values(), ids=PASSWORDS)
def test_passwords(text, places):
    found = find_passwords(text)
    assert len(found) == len(places)
    assert all(have.endswith(want) for have, want in zip(found, places, strict=True))


@pytest.mark.parametrize("text", ['a = "P;', "a = " + "(" * 100000, 'a = "P"; }', '@include "x"'])
def test_passwords_in_what_cannot_be_read(text):
    with pytest.raises(ValueError):
        find_passwords(text)


HIDDEN = {
    "of an HSM": ('a = "b"; pin = "P" ; c = 1;', 'a = "b"; pin = "********"; c = 1;'),
    "two, in pieces": ('pin:"P"\n "\\"P"\nproxy_password = "P";', 'pin:"********"proxy_password = "********";'),
    "in pieces, with comments between": ('pin = "P" # 1\n"P" // 2\n /* 3 */ "P"; c = 1;', 'pin = "********"; c = 1;'),
    "made up": ('root.Setup_Password2 = "P";', 'root.Setup_Password2 = "********";'),
    "in a comment": ('# pin = "P"', '# pin = "********"'),
    "only like one": ('spin = "a"; pin-code = "b";', 'spin = "a"; pin-code = "b";'),
    "only mentioned": ('# Passwords are elsewhere. a = "password";', '# Passwords are elsewhere. a = "password";'),
    "the name of a group": ('passwords = { pin = "P"; };', None),
    "without quotes": ("pin = P;", None),
    "a number": ("my_password : 1234;", None),
    "a comment between": ('a_password /* of */ = "P";', None),
    "an open string": ('a_password = "P', None),
    "no setting": ("/* the pin is P */", None),
}


@pytest.mark.parametrize(("text", "hidden"), HIDDEN.values(), ids=HIDDEN)
def test_passwords_are_hidden(text, hidden):
    assert hide_passwords(text) == hidden


# Properties

# libconf takes true-x for a boolean and a rest; libconfig takes it for a name, so it has no place here.
names = st.from_regex(r"[A-Za-z*][-A-Za-z0-9_*]{0,8}", fullmatch=True).filter(
    lambda name: not name.lower().startswith(("true", "false"))
)
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(st.booleans(), st.integers(), floats, strings)
arrays = st.one_of(*(st.lists(kind, max_size=3) for kind in (st.booleans(), st.integers(), floats, strings)))
values = st.recursive(
    scalars | arrays,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(names, inner, max_size=3),
    max_leaves=4,
)
other_settings = st.dictionaries(
    names.filter(lambda name: name not in ("primus", "hsms", "slots", "user_name", "id", "proxy_user")),
    values,
    max_size=2,
)


def group(required, **optional):
    """A group with these settings and any others."""
    wanted = st.fixed_dictionaries(required, optional=optional)
    return st.builds(lambda others, settings_wanted: dict(others, **settings_wanted), other_settings, wanted)


slot_groups = group({"user_name": strings}, id=st.integers(), proxy_user=strings)
hsm_groups = group({}, slots=st.dictionaries(names, slot_groups, max_size=2))
configs = group({"primus": group({"hsms": st.dictionaries(names, hsm_groups, max_size=2)})})


@given(configs)
def test_what_libconf_writes_is_read_the_same(config):
    text = libconf.dumps(config)
    assert read_slots(text) == slots_by_libconf(text)


@given(st.text() | st.text('{}()[]=:;,"\\#/*@\n 0x1.5eLtrueprimushsms-+'))
@example("primus={hsms={}}")
def test_any_text_is_read_or_refused(text):
    try:
        assert isinstance(read_slots(text), list)
    except ValueError as exc:
        assert str(exc)


@given(st.integers(0, len(WHOLE)), st.integers(0, 40), st.text(max_size=3) | st.text('{}()[]=:;,"\\#/*@\n', max_size=3))
def test_any_damage_is_read_or_refused(start, length, instead):
    try:
        assert isinstance(read_slots(WHOLE[:start] + instead + WHOLE[start + length :]), list)
    except ValueError as exc:
        assert str(exc)
