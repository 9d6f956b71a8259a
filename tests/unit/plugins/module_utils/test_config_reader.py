# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""primus.cfg, against what libconf reads from the same texts."""

import re

import libconf
import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import (
    MANAGED_COMMENT,
    Slot,
    find_passwords,
    hide_passwords,
    read_slots,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.libconfig import LibconfigError
from hypothesis import example, given
from hypothesis import strategies as st


def slots_in(text, path=None):
    """What decides on a login."""
    return [Slot(*slot[:4]) for slot in read_slots(text, path)]


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


HSM1 = WHOLE[WHOLE.index("    hsm1 :\n") + len("    hsm1 :\n") : WHOLE.index("  };\n  log")]


def test_whole_file():
    expected = [
        Slot("hsm0", "P1", 0, "eqabxrfnqqos"),
        Slot("hsm0", "P2", 1, None),
        Slot("hsm1", "P1", 0, "eqabxrfnqqos"),
        Slot("hsm1", "P2", 1, None),
    ]
    assert slots_in(WHOLE) == expected == slots_by_libconf(WHOLE)


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
    "escapes": with_slot(r'user_name = "\\ \" \n \r \t \f \x41\x5a \x7f";'),
    "a backslash before a character that makes no escape": with_slot(r'user_name = "EXAMPLE\user \q\1";'),
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
    "long hexadecimal": with_slot(USER + "id = 0x1FL;"),
    "the largest hexadecimal": with_slot(USER + "id = 0x7FFFFFFF;"),
    "no id": with_slot(USER),
    "proxy user": with_slot(USER + 'proxy_user = "S";'),
    "empty proxy user": with_slot(USER + 'proxy_user = "";'),
    "other settings": with_slot(USER + 'a = 1.5; b = .5; c = 1.; d = 1e3; e = -1.5E-3; f = tRuE; g = FALSE; h = "";'),
    "arrays and lists": with_slot(USER + 'a = [1, 2]; b = []; c = (); d = (1, [2.5], ("x" "y"), { z = 1; });'),
    "a group of nothing": with_slot(USER + "a = { };"),
    "names": with_slot(USER + "a-b = 1; *c = 2; d_e = 3; F9 = 4; id = 5;"),
    "any keys": 'primus = { hsms = { *b = { slots = { x = { user_name = "Q" }; a = { user_name = "P" } } } } }',
    "no slots": 'primus : { hsms : { hsm0 : { host = "h"; }; hsm1 : { slots : { }; }; }; };',
    "no HSMs": "primus : { hsms : { }; };",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text(text):
    assert slots_in(text) == slots_by_libconf(text)


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
    "given twice": with_slot(USER + "id = 1; a = 2; id = 1;"),
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
    "point and letter": with_slot(USER + "a = .e;"),
    "values of a list without commas": with_slot(USER + "a = (1 2);"),
    "a list that begins with a comma": with_slot(USER + "a = (, 1);"),
    "a group in an array": with_slot(USER + "a = [{}];"),
    "a boolean as a name": with_slot(USER + "True = 1;"),
    "two byte order marks": "\ufeff\ufeff" + WHOLE,
    "a byte order mark within": WHOLE + "\ufeff",
    "a NUL in a string": with_slot('user_name = "a\0b";'),
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
    with pytest.raises(ValueError, match=r"^primus, line \d+: "):
        read_slots(text, "primus")


# What is not the same for all versions of libconfig, as module_utils/_client/libconfig.py has it of their sources.
AMBIGUOUS = {
    "octal or not": "id = 010;",
    "octal or not, negative": "id = -017;",
    "octal or not, long": "id = 010L;",
    "unsigned or negative": "id = 0x80000000;",
    "truncated or not": "id = 0x1FFFFFFFF;",
    "of 32 bits in binary": "id = 0b%s;" % ("1" * 32),
    "more than 64 bits": "id = 9223372036854775808;",
    "a bell or two characters": r'proxy_user = "EXAMPLE\alice";',
    "a backspace or two characters": r'proxy_user = "EXAMPLE" "\bob";',
    "a vertical tab or two characters": r'proxy_user = "\\\v";',
    "the end of the string, or nothing": r'proxy_user = "a\x00b";',
}


@pytest.mark.parametrize("setting", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_can_be_read_in_two_ways_matters_only_where_it_is_needed(setting):
    other = setting.replace("id =", "port =").replace("proxy_user =", "client_id =")
    assert slots_in(with_slot(USER + other)) == [Slot("hsm0", "P", None, None)]
    with pytest.raises(ValueError, match=r"^line 2: the value of \w+ depends on the version of libconfig$"):
        read_slots(with_slot(USER + "\n" + setting))


# Beyond libconf. Each value stands in the place of a slot id or of a user name.
VALUES = [
    ("0b101", 5),
    ("0B11LL", 3),
    ("0o17", 15),
    ("0O17L", 15),
    ("0q17", 15),
    ("007", 7),
    ("-00", 0),
    ("08", 8),
    ("0X7fL", 127),
    ("2147483648", 2**31),
    (r'"\xC3\XbC" "\xE2" "\x82\xac"', "ü€"),
    (r'"EXAMPLE\user\"', None),
    (r'"EXAMPLE\user\\"', "EXAMPLE\\user\\"),
    (r'"\Q\0\N\x4"', r"\Q\0\N\x4"),
    ('"a\\\nb"', "a\\\nb"),
]


@pytest.mark.parametrize(("written", "value"), VALUES)
def test_values(written, value):
    if value is None:
        with pytest.raises(ValueError, match="line 1: a string does not end"):
            read_slots(with_slot("user_name = %s;" % written))
    elif isinstance(value, int):
        assert slots_in(with_slot(USER + "id = %s;" % written)) == [Slot("hsm0", "P", value, None)]
    else:
        assert slots_in(with_slot("user_name = %s;" % written)) == [Slot("hsm0", value, None, None)]


ERRORS = [
    ('version = "1.0";\n\n  @include "hsms.cfg"\n' + WHOLE, 3, "there is an @include"),
    ("a = 1;\n\ufeffb = 1;", 2, "there is a byte order mark, which libconfig does not read here"),
    ('a = 1;\r\nb = "c;\r\n', 2, "a string does not end"),
    ("a = 1;\n/* b\n*", 2, "a comment does not end"),
    ('# a\n\n/* b\n */ @include "x"', 4, "an @include does not have a line of its own"),
    ('\n@include "x\\y"', 2, "this is no @include of a file, such as libconfig reads"),
    ("a = 1;\n\u00a0", 2, "there is a character that libconfig does not read here"),
    ("a = 1;\nb 2", 2, "= or : is expected, and there is something else"),
    ("a = 1;\nb = c;\n", 2, "a value is expected, and there is something else"),
    ("a = {\n", 2, "the file ends where the name of a setting is expected"),
    ("a =\n\n\n", 4, "the file ends where a value is expected"),
    ("a = [1,\n 2 3]", 2, "a comma or the end of a list is expected, and there is something else"),
    ("a = [1,\n [2]]", 2, "an array has more than numbers, strings or booleans in it"),
    ("a = 1;\nb = 2;\na = 3;", 3, "a setting is there for the second time"),
    ("a = \n" + "{ a = " * 60, 2, "it is nested more than 50 deep"),
    ("a = 1;", 1, "there is no setting primus in this group"),
    ("\nprimus = 1;", 2, "primus is not a group"),
    ("primus =\n{ a = 1; }", 2, "there is no setting hsms in this group"),
    ("primus = { hsms = {\n a = 1; }; }", 2, "an HSM is not a group"),
    ("primus = { hsms = { a = {\n slots = { s = 0; }; }; }; }", 2, "a slot is not a group"),
    (with_slot('\nuser_name = "P";\nid = "5";'), 3, "id is not an integer"),
    (with_slot("\nid = 1;"), 1, "there is no setting user_name in this group"),
]


@pytest.mark.parametrize(("text", "line", "reason"), ERRORS)
def test_an_error_names_the_line(text, line, reason):
    with pytest.raises(LibconfigError) as caught:
        read_slots(text)
    assert (caught.value.file, caught.value.line, caught.value.reason) == (None, line, reason)


@given(st.integers(0, len(WHOLE)), st.sampled_from('{}()[]=:;,"\\#/*@\n.'))
def test_an_error_shows_nothing_of_the_text(position, character):
    """Damaged anywhere, with every string and every number a password."""
    text = re.sub(r'"[^"]*"|\b\d+\b', '"Sesame"', WHOLE)
    try:
        read_slots(text[:position] + "Sesame" + character + "Sesame" + text[position:])
    except ValueError as exc:
        assert "Sesame" not in str(exc)


INCLUDES = {
    "relative": {"primus.cfg": '@include "more/hsms.cfg"\n', "more/hsms.cfg": WHOLE},
    "absolute": {"primus.cfg": '@include "DIR/hsms.cfg"\n', "hsms.cfg": WHOLE},
    "at the end of the file": {"primus.cfg": '  \t@include\t "hsms.cfg"', "hsms.cfg": WHOLE},
    "with a comment behind, and CRLF": {"primus.cfg": '@include "hsms.cfg" # of 2026\r\n', "hsms.cfg": WHOLE},
    "of a quote and a backslash": {"primus.cfg": r'@include "a \"b\" \\c.cfg"', 'a "b" \\c.cfg': WHOLE},
    "nested, relative to the file with the @include": {
        "primus.cfg": '@include "a/b.cfg"\n',
        "a/b.cfg": 'x = 1;\n@include "c.cfg"\ny = 2;',
        "a/c.cfg": WHOLE,
    },
    "nested, relative to primus.cfg": {
        "primus.cfg": '@include "a/b.cfg"\n',
        "a/b.cfg": '@include "a/c.cfg"',
        "a/c.cfg": WHOLE,
    },
    "in the middle of a setting": {
        "primus.cfg": WHOLE.replace('"grimsel', '\n@include "empty"\n@include "one"\n"grimsel'),
        "empty": "",
        "one": '/* no line end */ "h" // either',
    },
    "of a part": {
        "primus.cfg": WHOLE.replace("    hsm1 :", '@include "hsm1"\n #').replace(HSM1, ""),
        "hsm1": "hsm1 :\n" + HSM1,
    },
    "the same file twice": {
        "primus.cfg": WHOLE.replace("      slots :", '@include "s"\n      slots :'),
        "s": "s = [1, 2,];",
    },
    "ten deep": {
        "primus.cfg": '@include "1"\n',
        **{str(i): '@include "%d"\n' % (i + 1) for i in range(1, 10)},
        "10": WHOLE,
    },
}


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("DIR", str(folder)), newline="")
    return (folder / "primus.cfg").read_bytes().decode(), str(folder / "primus.cfg")


@pytest.mark.parametrize("files", INCLUDES.values(), ids=INCLUDES)
def test_include(tmp_path, files):
    assert slots_in(*write(tmp_path, files)) == slots_by_libconf(WHOLE)


NO_FILE = "the file that it includes does not exist, or is no regular file"
BAD_INCLUDES = {
    "missing": ({"primus.cfg": '\n@include "x"'}, "primus.cfg", 2, NO_FILE),
    "missing, nested": ({"primus.cfg": '@include "x"', "x": '\n\n@include "y"'}, "x", 3, NO_FILE),
    "a directory": ({"primus.cfg": '@include "."'}, "primus.cfg", 1, NO_FILE),
    "empty": ({"primus.cfg": '@include ""'}, "primus.cfg", 1, NO_FILE),
    "endless": ({"primus.cfg": '@include "/dev/zero"'}, "primus.cfg", 1, NO_FILE),
    "a name longer than any": ({"primus.cfg": '@include "%s"' % ("x" * 5000)}, "primus.cfg", 1, NO_FILE),
    "itself": ({"primus.cfg": '\n@include "primus.cfg"'}, "primus.cfg", 2, "it includes itself"),
    "each other": ({"primus.cfg": '@include "x"', "x": '\n@include "./x"'}, "x", 2, "it includes itself"),
    "eleven deep": (
        {"primus.cfg": '@include "1"\n', **{str(i): '@include "%d"\n' % (i + 1) for i in range(1, 11)}, "11": ""},
        "10",
        1,
        "more than 10 files include one another, or more than 100 are included",
    ),
    "more and more": (
        {"primus.cfg": '@include "1"\n', **{str(i): ('@include "%d"\n' % (i + 1)) * 9 for i in range(1, 9)}, "9": ""},
        "8",
        None,
        "more than 10 files include one another, or more than 100 are included",
    ),
    "two files of the name": (
        {"primus.cfg": '@include "a/b"', "a/b": '@include "c"', "a/c": "", "c": "d = 1;"},
        "a/b",
        1,
        "it is not known which of two files of this name libconfig includes",
    ),
    "not on a line of its own": (
        {"primus.cfg": 'a = 1; @include "x"', "x": ""},
        "primus.cfg",
        1,
        "an @include does not have a line of its own",
    ),
    "with a setting behind": (
        {"primus.cfg": '@include "x" a = 1;', "x": ""},
        "primus.cfg",
        1,
        "an @include does not have a line of its own",
    ),
    "an error in it": ({"primus.cfg": '@include "x"', "x": 'a = 1;\nb = "c'}, "x", 2, "a string does not end"),
    "a byte order mark in it": (
        {"primus.cfg": '@include "x"', "x": "\ufeffa = 1;\ufeff"},
        "x",
        1,
        "there is a byte order mark, which libconfig does not read here",
    ),
    "a group that ends in another file": (
        {"primus.cfg": '@include "x"\n', "x": "a = {\n"},
        "primus.cfg",
        2,
        "the file ends where the name of a setting is expected",
    ),
    "a setting of both": (
        {"primus.cfg": 'a = 1;\n@include "x"\n', "x": "\na = 1;\n"},
        "x",
        2,
        "a setting is there for the second time",
    ),
}


@pytest.mark.parametrize(("files", "file", "line", "reason"), BAD_INCLUDES.values(), ids=BAD_INCLUDES)
def test_an_include_that_is_not_understood(tmp_path, files, file, line, reason):
    text, path = write(tmp_path, files)
    with pytest.raises(LibconfigError) as caught:
        read_slots(text, path)
    assert (caught.value.file, caught.value.reason) == (str(tmp_path / file), reason)
    assert line in (None, caught.value.line)


def test_an_include_that_may_be_another_file_in_the_directory_in_which_ppin_runs(tmp_path, monkeypatch):
    text, path = write(tmp_path, {"primus.cfg": '@include "hsms.cfg"', "elsewhere/hsms.cfg": WHOLE})
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert slots_in(text, path) == slots_by_libconf(WHOLE)
    (tmp_path / "hsms.cfg").write_text(WHOLE)
    with pytest.raises(LibconfigError, match="it is not known which of two files"):
        read_slots(text, path)


# A megabyte of what could take long: it is read or refused, and a test that takes minutes is noticed.
MEGABYTE = {
    "strings": "a = %s;" % ('"" ' * 350_000),
    "backslashes": 'a = "' + "\\" * 1_000_000,
    "an open string": 'a = "' + "x" * 1_000_000,
    "open comments": "/* " * 350_000,
    "comments": "/**/" * 250_000,
    "blanks": " \n" * 500_000 + "\0",
    "digits": "a = " + "1" * 1_000_000,
    "zeros": "a = " + "0" * 1_000_000,
    "points": "a = (" + "1.," * 350_000,
    "a name": "x" * 1_000_000,
    "groups": "a={" * 350_000,
    "settings": "".join("a%d=1;" % i for i in range(100_000)),
    "includes": '@include "x"\n' * 80_000,
    "blanks before includes": " " * 1_000_000 + '@include "x"',
    "more than is read": " " * 5_000_000,
}


@pytest.mark.parametrize("text", MEGABYTE.values(), ids=MEGABYTE)
def test_a_megabyte(text, tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(LibconfigError):
        read_slots(text, str(tmp_path / "primus.cfg"))


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
    "of an HSM": ('host = "b"; pin = "P" ; id = 1;', 'host = "b"; pin = "********" ; id = 1;'),
    "in pieces": ('pin:"P"\n "\\"P"\nid = 1;', 'pin:"********"\n "********"\nid = 1;'),
    "with comments between": (
        'pin = "P" # 1\n"P" // 2\n /* 3 */ "P";',
        'pin = "********" # ********\n"********" // ********\n /* ******** */ "********";',
    ),
    "made up": ('Setup_Password2 = "P";', 'Setup_Password2 = "********";'),
    "of another name": ('passphrase = "P"; a = P;', None),
    "a number": ("my_password : 1234; wait_delay = 0x10L;", 'my_password : "********"; wait_delay = 0x10L;'),
    "a boolean": ("connect_on_init = TRUE; other = true", 'connect_on_init = TRUE; other = "********"'),
    "in a group of that name": (
        'pin = { id = 1; host : "P"; }; id = 2',
        'pin = { id = "********"; host : "********"; }; id = 2',
    ),
    "in a list": (
        'host = ("P", { host = "P"; }); id = [1, 2];',
        'host = ("********", { host = "********"; }); id = ["********", "********"];',
    ),
    "in documented groups": (
        'primus : { hsms : { hsm10 = { host = "a"; pin = "P"; }; }; };',
        'primus : { hsms : { hsm10 = { host = "a"; pin = "********"; }; }; };',
    ),
    "what a string has in it": (
        'host = "pin = \\"a\\" # pin"; pin = "P";',
        'host = "pin = \\"a\\" # pin"; pin = "********";',
    ),
    "an open string in a comment": ('# pin = "\npin = "P"; # "', '# ********\npin = "********"; # ********'),
    "what is commented out": ('/* pin = "P"; */ id = 1; // P\n', "/* ******** */ id = 1; // ********\n"),
    "a mark": ('\ufeffid = 1; pin = "P";', '\ufeffid = 1; pin = "********";'),
    "an include": ('id = 1;\n@include "other.cfg"\npin = "P";', 'id = 1;\n@include "other.cfg"\npin = "********";'),
    "ours": (MANAGED_COMMENT + "\nid = 1;", MANAGED_COMMENT + "\nid = 1;"),
    "nothing": ("", ""),
    "no setting": ("P", None),
    "an open string": ('a_password = "P', None),
    "an open comment": ('id = 1; /* pin = "P";', None),
    "a setting that is there twice": ('pin = "P"; pin = "P";', None),
}


@pytest.mark.parametrize(("text", "hidden"), HIDDEN.values(), ids=HIDDEN)
def test_passwords_are_hidden(text, hidden):
    assert hide_passwords(text) == hidden


# Properties

# libconf takes true-x for a boolean and a rest; libconfig takes it for a name, so it has no place here.
names = st.from_regex(r"[A-Za-z*][-A-Za-z0-9_*]{0,8}", fullmatch=True).filter(
    lambda name: not name.lower().startswith(("true", "false"))
)
# libconf writes the others as escapes that not all versions of libconfig have.
strings = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\a\b\v"), max_size=12)
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


slot_groups = group({"user_name": strings}, id=st.integers(-(2**63), 2**63 - 1), proxy_user=strings)
hsm_groups = group({}, slots=st.dictionaries(names, slot_groups, max_size=2))
configs = group({"primus": group({"hsms": st.dictionaries(names, hsm_groups, max_size=2)})})


@given(configs)
def test_what_libconf_writes_is_read_the_same(config):
    text = libconf.dumps(config)
    assert slots_in(text) == slots_by_libconf(text)


@given(st.text() | st.text('{}()[]=:;,"\\#/*@\n 0x1.5eLtrueprimushsms-+'))
@example("primus={hsms={}}")
def test_any_text_is_read_or_refused(text):
    try:
        assert isinstance(read_slots(text), list)
    except ValueError as exc:
        assert re.match(r"line \d+: ", str(exc))


@given(st.integers(0, len(WHOLE)), st.integers(0, 40), st.text(max_size=3) | st.text('{}()[]=:;,"\\#/*@\n', max_size=3))
def test_any_damage_is_read_or_refused(start, length, instead):
    try:
        assert isinstance(read_slots(WHOLE[:start] + instead + WHOLE[start + length :]), list)
    except ValueError as exc:
        assert re.match(r"line \d+: ", str(exc))


# What may stand between two tokens, and what a value may look like.
blanks = st.lists(
    st.sampled_from([" ", "\t", "\n", "\r\n", "\f", '# } ; "\n', "// @include { \n", '/* " } \n * */']), max_size=3
).map("".join)
forms = st.sampled_from([str, "%d".__mod__, "0x%x".__mod__, "0b{:b}".format, "0o{:o}".format, "{}LL".format])


@st.composite
def written_config(draw):
    """Slots, and files that have them, with anything that does not matter between, and settings in any order."""
    files = []

    def quoted(text):
        pieces = [text[: len(text) // 2], text[len(text) // 2 :]] if draw(st.booleans()) else [text]
        return draw(blanks).join('"%s"' % re.sub(r'([\\"])', r"\\\1", piece) for piece in pieces)

    def group(settings):
        texts = []
        for name, value in settings:
            parts = [name, draw(st.sampled_from("=:")), value, draw(st.sampled_from([";", ",", ""])), "\n"]
            text = draw(blanks).join(parts)
            if draw(st.integers(0, 3)) == 0 and len(files) < 20:
                files.append(text)
                text = '\n  @include "%d"\n' % (len(files) - 1)
            texts.append(text)
        return "\n".join(texts)

    def braces(settings):
        return "{%s%s}" % (draw(blanks), group(settings))

    def shuffled(settings):
        others = [
            ("x%d" % i, draw(st.sampled_from(["1.5", "[1, 2,]", "({}, true)", r'"\a\q"', "010"]))) for i in range(2)
        ]
        return draw(st.permutations(settings + others[: draw(st.integers(0, 2))]))

    slots, hsms = [], []
    for key in draw(st.lists(names, max_size=3, unique=True)):
        there = []
        for name in draw(st.lists(names, max_size=3, unique=True)):
            texts = strings.filter(lambda text: "\\" not in text)
            user, proxy_user = draw(texts), draw(st.none() | texts.filter(bool))
            slot_id = draw(st.none() | st.integers(0, 2**31 - 1))
            slots.append(Slot(key, user, slot_id, proxy_user))
            settings = [("user_name", quoted(user))]
            settings += [] if proxy_user is None else [("proxy_user", quoted(proxy_user))]
            settings += [] if slot_id is None else [("id", draw(forms)(slot_id))]
            there.append((name, braces(shuffled(settings))))
        hsms.append((key, braces(shuffled([("slots", braces(there))]))))
    primus = ("primus", braces(shuffled([("hsms", braces(hsms))])))
    return slots, {"primus.cfg": group(shuffled([primus])), **{str(i): text for i, text in enumerate(files)}}


@given(written_config())
def test_slots_are_the_same_whatever_stands_around_them(tmp_path_factory, made):
    slots, files = made
    assert slots_in(*write(tmp_path_factory.mktemp("made"), files)) == slots


def test_where_a_slot_is():
    (first, *_others) = read_slots("\ufeff" + WHOLE)
    assert (first.hsm, first.slot, first.host, first.port) == ("hsm0", "slot0", "grimsel.example.org", "2310")


def test_a_byte_order_mark_at_the_start_of_a_file(tmp_path):
    files = {"primus.cfg": '\ufeff@include "x"\n', "x": "\ufeff" + WHOLE}
    assert slots_in(*write(tmp_path, files)) == slots_by_libconf(WHOLE)
