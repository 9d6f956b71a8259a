# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""primus.cfg as ppin reads it: the syntax of libconfig 1.8.2, with the last of two settings of the same name."""

import os
import re

import libconf

from . import codes
from .codes import PpinError


class Slot:
    """A slot of primus.cfg."""

    def __init__(self, name, settings):
        self.name = name
        self.id = int(settings["id"])
        self.user = str(settings["user_name"])
        self.client_id = str(settings.get("client_id", ""))
        self.proxy_user = settings.get("proxy_user")
        self.proxy_password = settings.get("proxy_password")


class HsmEntry:
    """An HSM of primus.cfg."""

    def __init__(self, name, settings):
        self.name = name
        self.host = str(settings["host"])
        self.port = int(settings["port"])
        self.priority = int(settings.get("priority", 0))
        self.slots = [Slot(*item) for item in settings.get("slots", {}).items()]


INCLUDE_DEPTH = 10

_PARTS = re.compile(
    r""""(?P<string>(?:[^"\\]|\\.)*)"
    |(?P<comment>(?:\#|//)[^\n]*|/\*.*?\*/)
    |^[ \t]*@include[ \t]+"(?P<path>(?:[^"\\]|\\["\\])*)"
    |(?<![-\w*.])(?:0(?P<base>[bBoOqQ])(?P<digits>[0-7]+)|(?P<sign>[-+]?)0+(?P<decimal>[0-9]))""",
    re.M | re.S | re.X,
)
_ESCAPE = re.compile(rb'\\(?:[xX]([0-9A-Fa-f]{2})|([abfnrtv\\"]))')
_ESCAPES = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v"))  # noqa: B905  # strict= needs Python 3.10


def _expand(path, depth=0):
    """The text of a file, with those that it includes, in the words that libconf knows."""
    if depth > INCLUDE_DEPTH:
        raise ValueError("include file nesting too deep")
    with open(path, encoding="utf-8-sig", newline="") as file:
        text = file.read()

    def put(match):
        if match["string"] is not None:
            value = _ESCAPE.sub(_unescape, match["string"].encode()).decode(errors="replace")
            return '"%s"' % re.sub(r'([\\"])', r"\\\1", value)
        if match["path"] is not None:
            named = os.path.join(os.path.dirname(path), re.sub(r"\\(.)", r"\1", match["path"]))
            return " %s " % _expand(named, depth + 1)
        if match["digits"]:
            return str(int(match["digits"], 2 if match["base"] in "bB" else 8))
        return match["sign"] + match["decimal"] if match["decimal"] else " "

    return _PARTS.sub(put, text)


def _unescape(match):
    if match[1]:
        return bytes([int(match[1], 16)])
    return bytes([_ESCAPES.get(match[2][0], match[2][0])])


def read_settings(path):
    """Return the group primus of a primus.cfg, as libconf has it. Raises what read() makes a PpinError of."""
    return libconf.loads(_expand(path))["primus"]


def read(path):
    """Return the HSM entries of a primus.cfg, in its order. Raises PpinError."""
    try:
        hsms = read_settings(path).get("hsms", {})
        entries = [HsmEntry(*item) for item in hsms.items()]
    except FileNotFoundError:
        raise PpinError(codes.CONFIG_INVALID if os.path.exists(path) else codes.CONFIG_NOT_FOUND) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, libconf.ConfigParseError):
        raise PpinError(codes.CONFIG_INVALID) from None
    if not any(entry.slots for entry in entries):
        raise PpinError(codes.NOTHING_CONFIGURED)
    return entries
