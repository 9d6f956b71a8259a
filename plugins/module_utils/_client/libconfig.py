# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Reads the syntax of libconfig, of which primus.cfg and .secrets.cfg consist.

Sources: https://hyperrealm.github.io/libconfig/ and scanner and grammar of its versions 1.5 to 1.8.2. It is not known
which version is in ppin, and they differ. What one version reads and another refuses is read here, as ppin is the judge
of that. What two versions read as two values is UNSURE, which nothing may be decided on. Where they differ:

- A decimal number with a leading zero is octal in 1.6 to 1.8 (strtoll with base 0), and decimal in 1.5 and from 1.8.1
  on. So 010 is UNSURE; 08 is 8 or refused.
- 0b… exists from 1.8 on, 0o… and 0q… from 1.8.1 on.
- A number in another base that takes more than 31 bits is truncated, negative, or of 64 bits. A decimal one of more
  than 64 bits is refused or saturates.
- The escapes \\a, \\b and \\v exist from 1.8 on. Before, the backslash stays in the string, as it does before every
  character that makes no escape. \\x00 ends a string or is left out of it.
- A trailing comma in a list or array exists from 1.7 on.
- All of them refuse a byte order mark, unless the application skips the one at the start of a file, as is done here.
- All of them refuse a name that is set twice, unless the application asks for the last one.
- The path of an @include is relative to a directory that the application sets, and by default to that in which it runs.
  What ppin sets is not known. So both the directory of primus.cfg and that of the file with the @include count, too.
"""

import os
import re
import typing as t

DEPTH_LIMIT = 50
"""Groups, lists and arrays in one another. A primus.cfg has 5."""

INCLUDE_LIMIT = 10
"""Files that include one another, as in libconfig."""

SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes of all files together. A primus.cfg with a thousand slots at ten HSMs has some 1.5 million."""

FILE_LIMIT = 100
"""Files that are included, however deep."""

INT_MAX = 2**31 - 1

_TOKEN = re.compile(
    rb"""[ \t\r\n\f\v\a\b]+|(?:\#|//)[^\n]*|/\*.*?\*/
    |(?P<string>"[^"\\\0]*(?:\\[^\0][^"\\\0]*)*")
    |(?P<include>@include[ \t]+"[^"\\\0]*(?:\\["\\][^"\\\0]*)*")
    |(?P<name>[A-Za-z*][-A-Za-z0-9_*]*)
    |(?P<float>[-+]?(?:[0-9]*\.[0-9]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+))
    |(?P<number>0[xX][0-9A-Fa-f]+L{0,2}|0[bB][01]+L{0,2}|0[oOqQ][0-7]+L{0,2}|[-+]?[0-9]+L{0,2})
    |(?P<sign>[=:{}()\[\],;])""",
    re.S | re.X,
)
_REST_OF_INCLUDE = re.compile(rb"[ \t\r]*(?:(?:#|//)[^\n]*)?(?:\n|\Z)")
_MARK = b"\xef\xbb\xbf"
_BEGINS = (
    (b'"', "a string does not end"),
    (b"/*", "a comment does not end"),
    (b"@", "this is no @include of a file, such as libconfig reads"),
    (_MARK, "there is a byte order mark, which libconfig does not read here"),
)
_ESCAPE = re.compile(rb'\\(?:[xX]([0-9A-Fa-f]{2})|([nrtf\\"abv]))')
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"f": b"\f"}
_UNSURE_ESCAPES = (b"a", b"b", b"v")
_OCTAL = re.compile(r"[-+]?0[0-7]+")
_BASES = {"x": 16, "b": 2, "o": 8, "q": 8}


class Where(t.NamedTuple):
    """A line of a file. path is None for a text that is in no file."""

    path: t.Optional[str]
    line: int


class NotUnderstood(ValueError):
    """What is wrong with a text, and where. Never shows anything of it, as that may be a password."""

    def __init__(self, where: Where, reason: str) -> None:
        self.file = where.path and where.path.encode("utf-8", "replace").decode("utf-8")
        self.line = where.line
        self.reason = reason
        super().__init__("%sline %d: %s" % (self.file + ", " if self.file else "", self.line, reason))


class Group(t.Dict[str, t.Any]):
    """Settings by name: dictionaries like this one, lists, strings, integers, floats, booleans, or UNSURE.

    :ivar where: where it begins.
    :ivar places: where each setting is, by name.
    """

    def __init__(self, where: Where) -> None:
        super().__init__()
        self.where = where
        self.places: t.Dict[str, Where] = {}


class _Unsure:
    def __repr__(self) -> str:
        return "UNSURE"


UNSURE = _Unsure()
"""A value that versions of libconfig read differently."""


def read(text: str, path: t.Optional[str] = None) -> Group:
    """The settings of a text.

    :arg path: the file that the text is in. Without one, an @include is not understood.
    :raises NotUnderstood: a ValueError, and no other.
    """
    parser = _Parser(_Files(path).tokens(text.encode("utf-8", "surrogatepass"), path))
    return parser.settings(Where(path, 1), "end", b"")


class Piece(t.NamedTuple):
    """A piece of a text. kind: string, name, float, number, sign, include, comment or space."""

    kind: str
    text: bytes


def pieces(text: str) -> t.List[Piece]:
    """All of a text, each character in one piece. What it includes is not inspected.

    :raises NotUnderstood: when the syntax is not that of libconfig.
    """
    found = list(_pieces(text.encode("utf-8", "surrogatepass")))
    tokens = [_Token(*piece, where=Where(None, 0)) for piece in found if piece.kind in _TOKENS]
    _Parser(iter(tokens + [_Token("end", b"", Where(None, 0))])).settings(Where(None, 1), "end", b"")
    return found


def _pieces(content: bytes) -> t.Iterator[Piece]:
    position = 0
    if content.startswith(_MARK):
        position = len(_MARK)
        yield Piece("space", _MARK)
    while position < len(content):
        match = _TOKEN.match(content, position)
        if match is None:
            raise NotUnderstood(Where(None, content.count(b"\n", 0, position) + 1), "it is no libconfig")
        position = match.end()
        kind = match.lastgroup or ("comment" if match.group()[:1] in (b"#", b"/") else "space")
        yield Piece(kind, match.group())


_TOKENS = ("string", "name", "float", "number", "sign")


class _Token(t.NamedTuple):
    kind: str  # one of _TOKENS, or end
    text: bytes
    where: Where


class _Files:
    """The tokens of a file and of those that it includes, in the order in which libconfig reads them."""

    def __init__(self, top: t.Optional[str]) -> None:
        self.top = top
        self.open: t.List[str] = []
        self.size = 0
        self.count = 0

    def tokens(self, content: bytes, path: t.Optional[str]) -> t.Iterator[_Token]:
        self.size += len(content)
        if self.size > SIZE_LIMIT:
            raise NotUnderstood(Where(path, 1), "it has more than %d bytes, with what it includes" % SIZE_LIMIT)
        self.open.append(os.path.realpath(path) if path else "")
        content = content[len(_MARK) :] if content.startswith(_MARK) else content
        position = counted = 0
        line = 1
        while position < len(content):
            match = _TOKEN.match(content, position)
            line += content.count(b"\n", counted, position)
            counted = position
            where = Where(path, line)
            if match is None:
                reasons = [reason for begin, reason in _BEGINS if content.startswith(begin, position)]
                raise NotUnderstood(where, (reasons or ["there is a character that libconfig does not read here"])[0])
            position = match.end()
            if match.lastgroup == "include":
                begin = content.rfind(b"\n", 0, match.start()) + 1
                if content[begin : match.start()].strip(b" \t") or not _REST_OF_INCLUDE.match(content, position):
                    raise NotUnderstood(where, "an @include does not have a line of its own")
                named = re.sub(rb"\\(.)", rb"\1", match.group("include").split(b'"', 1)[1][:-1])
                yield from self.included(named, where)
            elif match.lastgroup:
                yield _Token(match.lastgroup, match.group(), where)
        self.open.pop()
        if not self.open:
            yield _Token("end", b"", Where(path, line + content.count(b"\n", counted)))

    def included(self, named: bytes, where: Where) -> t.Iterator[_Token]:
        if where.path is None or self.top is None:
            raise NotUnderstood(where, "there is an @include")
        folders = [os.path.dirname(where.path), os.path.dirname(self.top), os.curdir]
        places = [os.path.join(os.fsencode(folder), named) for folder in folders]
        found = {os.path.realpath(place): place for place in places if os.path.isfile(place)}
        if not found:
            raise NotUnderstood(where, "the file that it includes does not exist, or is no regular file")
        if len(found) > 1:
            raise NotUnderstood(where, "it is not known which of two files of this name libconfig includes")
        ((real, place),) = found.items()
        self.count += 1
        if os.fsdecode(real) in self.open:
            raise NotUnderstood(where, "it includes itself")
        if len(self.open) > INCLUDE_LIMIT or self.count > FILE_LIMIT:
            limits = (INCLUDE_LIMIT, FILE_LIMIT)
            raise NotUnderstood(where, "more than %d files include one another, or more than %d are included" % limits)
        try:
            with open(place, "rb") as file:
                content = file.read(SIZE_LIMIT + 1)
        except OSError as exc:
            raise NotUnderstood(where, "the file that it includes cannot be read: %s" % exc.strerror) from None
        yield from self.tokens(content, os.fsdecode(place))


class _Parser:
    """A recursive descent over the tokens."""

    def __init__(self, tokens: t.Iterator[_Token]) -> None:
        self.tokens = tokens
        self.next = next(tokens)
        self.depth = 0

    def take(self) -> _Token:
        token = self.next
        if token.kind != "end":
            self.next = next(self.tokens)
        return token

    def accept(self, *signs: bytes) -> bool:
        accepted = self.next.kind == "sign" and self.next.text in signs
        if accepted:
            self.take()
        return accepted

    def settings(self, where: Where, kind: str, closing: bytes) -> Group:
        group = Group(where)
        while (self.next.kind, self.next.text) != (kind, closing):
            token = self.take()
            name = token.text.decode("ascii", "replace")
            if token.kind != "name" or _boolean(token) is not None:
                raise _unexpected(token, "the name of a setting")
            if name in group:
                raise NotUnderstood(token.where, "a setting is there for the second time")
            if not self.accept(b"=", b":"):
                raise _unexpected(self.next, "= or :")
            group.places[name] = token.where
            group[name] = self.value()
            self.accept(b";", b",")
        self.take()
        return group

    def value(self) -> t.Any:
        token = self.take()
        if token.kind == "sign" and token.text in (b"{", b"(", b"["):
            self.depth += 1
            if self.depth > DEPTH_LIMIT:
                raise NotUnderstood(token.where, "it is nested more than %d deep" % DEPTH_LIMIT)
            inner: t.Any = self.settings(token.where, "sign", b"}") if token.text == b"{" else self.values(token.text)
            self.depth -= 1
            return inner
        if token.kind == "string":
            parts = [token.text]
            while self.next.kind == "string":
                parts.append(self.take().text)
            return _string(parts)
        if token.kind == "number":
            return _integer(token.text)
        if token.kind == "float":
            return 0.0  # a float is for nothing here
        value = _boolean(token)
        if value is None:
            raise _unexpected(token, "a value")
        return value

    def values(self, opening: bytes) -> t.List[t.Any]:
        closing = b")" if opening == b"(" else b"]"
        values: t.List[t.Any] = []
        while not self.accept(closing):
            where = self.next.where
            values.append(self.value())
            if opening == b"[" and isinstance(values[-1], (dict, list)):
                raise NotUnderstood(where, "an array has more than numbers, strings or booleans in it")
            comma = False
            while self.accept(b","):
                comma = True
            if not comma and (self.next.kind, self.next.text) != ("sign", closing):
                raise _unexpected(self.next, "a comma or the end of a list")
        return values


def _unexpected(token: _Token, expected: str) -> NotUnderstood:
    if token.kind == "end":
        return NotUnderstood(token.where, "the file ends where %s is expected" % expected)
    return NotUnderstood(token.where, "%s is expected, and there is something else" % expected)


def _boolean(token: _Token) -> t.Optional[bool]:
    return {b"true": True, b"false": False}.get(token.text.lower()) if token.kind == "name" else None


def _string(parts: t.Sequence[bytes]) -> t.Any:
    if any(
        match.group(1) == b"00" or match.group(2) in _UNSURE_ESCAPES for p in parts for match in _ESCAPE.finditer(p)
    ):
        return UNSURE
    return b"".join(_ESCAPE.sub(_unescape, part[1:-1]) for part in parts).decode("utf-8", "replace")


def _unescape(match: t.Match[bytes]) -> bytes:
    if match.group(1):
        return bytes([int(match.group(1), 16)])
    return _ESCAPES.get(match.group(2), match.group(2))


def _integer(text: bytes) -> t.Any:
    digits = text.decode("ascii").rstrip("L")
    base = _BASES.get(digits[1:2].lower(), 10)
    if len(digits) > 70:
        return UNSURE
    if base != 10:
        number = int(digits[2:], base)
        return number if number <= INT_MAX else UNSURE
    number = int(digits)
    octal = int(digits, 8) if _OCTAL.fullmatch(digits) else number
    return number if number == octal and -(2**63) <= number < 2**63 else UNSURE
