# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Reads primus.cfg: which HSMs there are, which service user stands before which partition, and where passwords stand;
and .secrets.cfg: whose secrets are in it.

The listing of ppin does not tell what primus.cfg tells. This reads the libconfig syntax
(https://hyperrealm.github.io/libconfig/), but for @include; ppin remains the judge of whether a file is valid.
"""

import base64
import re
import typing as t
import unicodedata

from ansible_collections.hsmops.primus.plugins.module_utils._errors import find_code
from ansible_collections.hsmops.primus.plugins.module_utils._listing import printable

NAME_LIMIT = 255
"""Bytes of a name. The vendor documents no limit; this is for what is no name, such as the content of a file."""

_TOKEN = re.compile(
    r"""\s+|(?:\#|//)[^\n]*|/\*.*?\*/
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<name>[A-Za-z*][-A-Za-z0-9_*]*)
    |(?P<number>[-+]?(?:0[xX][0-9A-Fa-f]+|[0-9.][0-9.eE+-]*)L{0,2})
    |(?P<sign>[=:{}()\[\],;])""",
    re.S | re.X,
)
VENDOR_PASSWORDS = ("pin", "proxy_password")
"""The settings in which the vendor lets a password stand in clear."""

_PASSWORD = re.compile(r"pin|.*password.*", re.I)
_WORD = re.compile(r"[-A-Za-z0-9_*]+")
_STRINGS = re.compile(r"""\s*[=:]\s*((?:"(?:[^"\\]|\\.)*"(?:\s+|(?:\#|//)[^\n]*|/\*.*?\*/)*)+)""", re.S)
_SETS = re.compile(r"\s*(?:[=:#]|//|/\*)")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)", re.S)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "b": "\b", "a": "\a"}


def name_problem(name: str) -> t.Optional[str]:
    """What no name of a partition or service user can be, such as C(is empty), or None."""
    if not name.strip():
        return "is empty"
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name):
        return "has a line break or another control character in it"
    if len(name.encode("utf-8")) > NAME_LIMIT:
        return "is longer than %d bytes" % NAME_LIMIT
    if find_code(name):
        return "has an error code in it, which could not be told from one that ppin prints"
    return None


class Slot(t.NamedTuple):
    """A slot of an HSM. hsm and slot are its keys in primus.cfg, C(hsm0) and C(slot0); host and port as there."""

    hsm: str
    user_name: str
    slot_id: t.Optional[int]
    proxy_user: t.Optional[str]
    slot: str
    host: str
    port: str


def read_slots(text: str) -> t.List[Slot]:
    """The slots of a primus.cfg, in its order. :raises ValueError: when it cannot be read."""
    slots = []
    try:
        hsms = _Reader(text).read()["primus"]["hsms"]
        for hsm_key, hsm in hsms.items():
            host, port = str(hsm.get("host", "")), str(hsm.get("port", ""))
            for slot_key, settings in hsm.get("slots", {}).items():
                proxy_user = settings.get("proxy_user") or None
                slot = Slot(hsm_key, settings["user_name"], settings.get("id"), proxy_user, slot_key, host, port)
                if not isinstance(slot.user_name, str) or not isinstance(slot.proxy_user, (str, type(None))):
                    raise TypeError("a name is not a string")
                if type(slot.slot_id) not in (int, type(None)):
                    raise TypeError("a slot id is not an integer")
                slots.append(slot)
    except (KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ValueError("not the structure of a primus.cfg: %s" % exc) from exc
    return slots


def find_passwords(text: str) -> t.List[str]:
    """The settings of a primus.cfg that hold a password, such as C(primus.hsms.hsm0.pin), and never what they hold.

    Those are the vendor's, and any name with password in it, which somebody has made up.

    :raises ValueError: when it cannot be read.
    """
    try:
        return list(_passwords_in(_Reader(text).read(), ""))
    except RecursionError as exc:
        raise ValueError("too deep for a primus.cfg") from exc


def _passwords_in(value: t.Any, path: str) -> t.Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            place = (path + "." if path else "") + name
            if not isinstance(inner, (dict, list)) and inner != "" and _PASSWORD.fullmatch(name):
                yield place
            yield from _passwords_in(inner, place)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _passwords_in(inner, "%s[%d]" % (path, number))


def hide_passwords(text: str) -> t.Optional[str]:
    """The text of a primus.cfg without the passwords in it, or None when one may be left.

    It goes by what stands beside a name, so that it takes any text for one, and finds what is commented out, too.
    """
    shown, end = "", 0
    for word in _WORD.finditer(text):
        if word.start() < end or not _PASSWORD.fullmatch(word.group()):
            continue
        strings = _STRINGS.match(text, word.end())
        if strings:
            shown += text[end : strings.start(1)] + '"********"'
            end = strings.end(1)
        elif word.group().lower() in VENDOR_PASSWORDS or _SETS.match(text, word.end()):
            return None
    return shown + text[end:]


def read_secret_users(text: str) -> t.List[str]:
    """The partitions whose secrets are in a secrets file. :raises ValueError: when it cannot be read."""
    try:
        names = [user["name"] for user in _Reader(text).read()["primus"]["users"].values()]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a name is not a string")
        return names
    except (KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ValueError("not the structure of a secrets file") from exc


class SecretsString(t.NamedTuple):
    """A secrets file in base64, on one line, and the partitions whose secrets are in it."""

    text: str
    users: t.List[str]


def find_secrets_string(text: str) -> t.Optional[SecretsString]:
    """The secrets string that stands in a text, on one line or several, or None."""
    runs = [""]
    for raw_line in printable(text).splitlines():
        line = raw_line.strip()
        if _BASE64.match(line):
            runs[-1] += line
        elif runs[-1]:
            runs.append("")
    for run in sorted(runs, key=len, reverse=True):
        try:
            users = read_secret_users(base64.b64decode(run, validate=True).decode("utf-8"))
        except ValueError:
            continue
        return SecretsString(run, users)
    return None


class _Reader:
    """A recursive descent over the tokens of a libconfig text."""

    def __init__(self, text: str) -> None:
        self.tokens: t.List[t.Tuple[str, str]] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise ValueError("line %d is not understood" % (text.count("\n", 0, position) + 1))
            position = match.end()
            if match.lastgroup:
                self.tokens.append((match.lastgroup, match.group()))
        self.tokens.append(("end", ""))
        self.tokens.reverse()

    def read(self) -> t.Dict[str, t.Any]:
        return self.settings("")

    def accept(self, *signs: str) -> bool:
        if self.tokens[-1][1] in signs and self.tokens[-1][0] in ("sign", "end"):
            self.tokens.pop()
            return True
        return False

    def settings(self, closing: str) -> t.Dict[str, t.Any]:
        group = {}
        while not self.accept(closing):
            kind, name = self.tokens.pop()
            if kind != "name" or not self.accept("=", ":"):
                raise ValueError("a setting is expected at %r" % name[:40])
            group[name] = self.value()
            self.accept(";", ",")
        return group

    def value(self) -> t.Any:
        kind, text = self.tokens.pop()
        if text == "{":
            return self.settings("}")
        if text in ("(", "["):
            values = []
            while not self.accept(")" if text == "(" else "]"):
                values.append(self.value())
                self.accept(",")
            return values
        if kind == "string":
            parts = [text]
            while self.tokens[-1][0] == "string":
                parts.append(self.tokens.pop()[1])
            return "".join(_ESCAPE.sub(_unescape, part[1:-1]) for part in parts)
        if kind == "number":
            number = text.rstrip("L")
            return (
                float(number)
                if re.match(r"[-+]?[0-9.]*[.eE]", number)
                else int(number, 16 if "x" in number.lower() else 10)
            )
        if kind == "name" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ValueError("a value is expected at %r" % text[:40])


def _unescape(match: t.Match[str]) -> str:
    what = match.group(1)
    return chr(int(what[1:], 16)) if len(what) == 3 else _ESCAPES.get(what, what)
