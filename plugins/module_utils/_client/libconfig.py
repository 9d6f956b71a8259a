# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Parse the libconfig syntax of primus.cfg and .secrets.cfg.

Sources: https://hyperrealm.github.io/libconfig/ and scanner and grammar of its versions 1.5 to 1.8.2. It is not known
which version ppin uses. What only some versions accept is accepted here, as ppin reports it if it does not. What two
versions read as different values becomes AMBIGUOUS, and callers must not decide anything on it. The differences:

- A decimal number with a leading zero is octal in 1.6 to 1.8 (strtoll with base 0), and decimal in 1.5 and from 1.8.1
  on. So 010 is AMBIGUOUS; 08 is 8 or refused.
- 0b… exists from 1.8 on, 0o… and 0q… from 1.8.1 on.
- A number in another base that takes more than 31 bits is truncated, negative, or of 64 bits. A decimal one of more
  than 64 bits is refused or saturates.
- The escapes \\a, \\b and \\v exist from 1.8 on. Before, the backslash stays in the string, as it does before every
  character that makes no escape. \\x00 ends a string or is left out of it.
- A trailing comma in a list or array exists from 1.7 on.
- All of them refuse a byte order mark, unless the application skips the one at the start of a file. This parser does.
- All of them refuse a name that is set twice, unless the application asks for the last one.
- The path of an @include is relative to a directory that the application sets, and by default to that in which it runs.
  What ppin sets is not known, so the directory of primus.cfg and that of the file with the @include are searched, too.
"""

import os
import re
import typing as t

DEPTH_LIMIT = 50
"""Nesting of groups, lists and arrays. A primus.cfg has 5 levels."""

INCLUDE_LIMIT = 10
"""Nesting of included files, as in libconfig."""

SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes of all files together. A primus.cfg with a thousand slots at ten HSMs has some 1.5 million."""

FILE_LIMIT = 100
"""Number of included files."""

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
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ERRORS_BY_START = (
    (b'"', "a string does not end"),
    (b"/*", "a comment does not end"),
    (b"@", "this is no @include of a file, such as libconfig reads"),
    (_BYTE_ORDER_MARK, "there is a byte order mark, which libconfig does not read here"),
)
_ESCAPE = re.compile(rb'\\(?:[xX]([0-9A-Fa-f]{2})|([nrtf\\"abv]))')
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"f": b"\f"}
_AMBIGUOUS_ESCAPES = (b"a", b"b", b"v")
_OCTAL = re.compile(r"[-+]?0[0-7]+")
_BASES = {"x": 16, "b": 2, "o": 8, "q": 8}


class Location(t.NamedTuple):
    """A line of a file. `path` is None for a text that is not in a file."""

    path: t.Optional[str]
    line: int


class LibconfigError(ValueError):
    """A text cannot be parsed. Message and attributes have nothing of its content, which may be a password."""

    def __init__(self, location: Location, reason: str) -> None:
        self.file = location.path and location.path.encode("utf-8", "replace").decode("utf-8")
        self.line = location.line
        self.reason = reason
        super().__init__("%sline %d: %s" % (self.file + ", " if self.file else "", self.line, reason))


class Group(t.Dict[str, t.Any]):
    """A group: values by the names of the settings. A value is a Group, list, str, int, float, bool or AMBIGUOUS.

    :ivar location: of its beginning.
    :ivar locations: of each setting, by name.
    """

    def __init__(self, location: Location) -> None:
        super().__init__()
        self.location = location
        self.locations: t.Dict[str, Location] = {}


class _Ambiguous:
    def __repr__(self) -> str:
        return "AMBIGUOUS"


AMBIGUOUS = _Ambiguous()
"""A value that versions of libconfig read differently."""


def read(text: str, path: t.Optional[str] = None) -> Group:
    """Parse a text.

    :arg path: the file that the text is in. None: an @include is an error.
    :raises LibconfigError: when it cannot be parsed. No other exception is raised.
    """
    parser = _Parser(_Files(path).tokens(text.encode("utf-8", "surrogatepass"), path))
    return parser.settings(Location(path, 1), "end", b"")


class Piece(t.NamedTuple):
    """A lexical element. kind: string, name, float, number, sign, include, comment or space."""

    kind: str
    text: bytes


def pieces(text: str) -> t.List[Piece]:
    """Split a whole text into its lexical elements. Included files are not read.

    :raises LibconfigError: when it cannot be parsed.
    """
    found = list(_pieces(text.encode("utf-8", "surrogatepass")))
    tokens = [_Token(*piece, location=Location(None, 0)) for piece in found if piece.kind in _TOKENS]
    _Parser(iter(tokens + [_Token("end", b"", Location(None, 0))])).settings(Location(None, 1), "end", b"")
    return found


def _pieces(content: bytes) -> t.Iterator[Piece]:
    position = 0
    if content.startswith(_BYTE_ORDER_MARK):
        position = len(_BYTE_ORDER_MARK)
        yield Piece("space", _BYTE_ORDER_MARK)
    while position < len(content):
        match = _TOKEN.match(content, position)
        if match is None:
            raise LibconfigError(Location(None, content.count(b"\n", 0, position) + 1), "it is no libconfig")
        position = match.end()
        kind = match.lastgroup or ("comment" if match.group()[:1] in (b"#", b"/") else "space")
        yield Piece(kind, match.group())


_TOKENS = ("string", "name", "float", "number", "sign")


class _Token(t.NamedTuple):
    kind: str  # one of _TOKENS, or end
    text: bytes
    location: Location


class _Files:
    """Yields the tokens of a file and of the files that it includes, in the order in which libconfig reads them."""

    def __init__(self, top: t.Optional[str]) -> None:
        self.top = top
        self.open: t.List[str] = []
        self.size = 0
        self.count = 0

    def tokens(self, content: bytes, path: t.Optional[str]) -> t.Iterator[_Token]:
        self.size += len(content)
        if self.size > SIZE_LIMIT:
            raise LibconfigError(Location(path, 1), "it has more than %d bytes, with what it includes" % SIZE_LIMIT)
        self.open.append(os.path.realpath(path) if path else "")
        content = content[len(_BYTE_ORDER_MARK) :] if content.startswith(_BYTE_ORDER_MARK) else content
        position = counted = 0
        line = 1
        while position < len(content):
            match = _TOKEN.match(content, position)
            line += content.count(b"\n", counted, position)
            counted = position
            location = Location(path, line)
            if match is None:
                reasons = [reason for begin, reason in _ERRORS_BY_START if content.startswith(begin, position)]
                raise LibconfigError(
                    location, (reasons or ["there is a character that libconfig does not read here"])[0]
                )
            position = match.end()
            if match.lastgroup == "include":
                begin = content.rfind(b"\n", 0, match.start()) + 1
                if content[begin : match.start()].strip(b" \t") or not _REST_OF_INCLUDE.match(content, position):
                    raise LibconfigError(location, "an @include does not have a line of its own")
                named = re.sub(rb"\\(.)", rb"\1", match.group("include").split(b'"', 1)[1][:-1])
                yield from self.included(named, location)
            elif match.lastgroup:
                yield _Token(match.lastgroup, match.group(), location)
        self.open.pop()
        if not self.open:
            yield _Token("end", b"", Location(path, line + content.count(b"\n", counted)))

    def included(self, named: bytes, location: Location) -> t.Iterator[_Token]:
        if location.path is None or self.top is None:
            raise LibconfigError(location, "there is an @include")
        directories = [os.path.dirname(location.path), os.path.dirname(self.top), os.curdir]
        places = [os.path.join(os.fsencode(directory), named) for directory in directories]
        found = {os.path.realpath(place): place for place in places if os.path.isfile(place)}
        if not found:
            raise LibconfigError(location, "the file that it includes does not exist, or is no regular file")
        if len(found) > 1:
            raise LibconfigError(location, "it is not known which of two files of this name libconfig includes")
        ((real, place),) = found.items()
        self.count += 1
        if os.fsdecode(real) in self.open:
            raise LibconfigError(location, "it includes itself")
        if len(self.open) > INCLUDE_LIMIT or self.count > FILE_LIMIT:
            limits = (INCLUDE_LIMIT, FILE_LIMIT)
            raise LibconfigError(
                location, "more than %d files include one another, or more than %d are included" % limits
            )
        try:
            with open(place, "rb") as file:
                content = file.read(SIZE_LIMIT + 1)
        except OSError as exc:
            raise LibconfigError(location, "the file that it includes cannot be read: %s" % exc.strerror) from None
        yield from self.tokens(content, os.fsdecode(place))


class _Parser:
    """A recursive descent parser."""

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

    def settings(self, location: Location, kind: str, closing: bytes) -> Group:
        group = Group(location)
        while (self.next.kind, self.next.text) != (kind, closing):
            token = self.take()
            name = token.text.decode("ascii", "replace")
            if token.kind != "name" or _boolean(token) is not None:
                raise _unexpected(token, "the name of a setting")
            if name in group:
                raise LibconfigError(token.location, "a setting is there for the second time")
            if not self.accept(b"=", b":"):
                raise _unexpected(self.next, "= or :")
            group.locations[name] = token.location
            group[name] = self.value()
            self.accept(b";", b",")
        self.take()
        return group

    def value(self) -> t.Any:
        token = self.take()
        if token.kind == "sign" and token.text in (b"{", b"(", b"["):
            self.depth += 1
            if self.depth > DEPTH_LIMIT:
                raise LibconfigError(token.location, "it is nested more than %d deep" % DEPTH_LIMIT)
            inner: t.Any = (
                self.settings(token.location, "sign", b"}") if token.text == b"{" else self.values(token.text)
            )
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
            return 0.0  # no setting that is used here is a float
        value = _boolean(token)
        if value is None:
            raise _unexpected(token, "a value")
        return value

    def values(self, opening: bytes) -> t.List[t.Any]:
        closing = b")" if opening == b"(" else b"]"
        values: t.List[t.Any] = []
        while not self.accept(closing):
            location = self.next.location
            values.append(self.value())
            if opening == b"[" and isinstance(values[-1], (dict, list)):
                raise LibconfigError(location, "an array has more than numbers, strings or booleans in it")
            comma = False
            while self.accept(b","):
                comma = True
            if not comma and (self.next.kind, self.next.text) != ("sign", closing):
                raise _unexpected(self.next, "a comma or the end of a list")
        return values


def _unexpected(token: _Token, expected: str) -> LibconfigError:
    if token.kind == "end":
        return LibconfigError(token.location, "the file ends where %s is expected" % expected)
    return LibconfigError(token.location, "%s is expected, and there is something else" % expected)


def _boolean(token: _Token) -> t.Optional[bool]:
    return {b"true": True, b"false": False}.get(token.text.lower()) if token.kind == "name" else None


def _string(parts: t.Sequence[bytes]) -> t.Any:
    if any(
        match.group(1) == b"00" or match.group(2) in _AMBIGUOUS_ESCAPES for p in parts for match in _ESCAPE.finditer(p)
    ):
        return AMBIGUOUS
    return b"".join(_ESCAPE.sub(_unescape, part[1:-1]) for part in parts).decode("utf-8", "replace")


def _unescape(match: t.Match[bytes]) -> bytes:
    if match.group(1):
        return bytes([int(match.group(1), 16)])
    return _ESCAPES.get(match.group(2), match.group(2))


def _integer(text: bytes) -> t.Any:
    digits = text.decode("ascii").rstrip("L")
    base = _BASES.get(digits[1:2].lower(), 10)
    if len(digits) > 70:
        return AMBIGUOUS
    if base != 10:
        number = int(digits[2:], base)
        return number if number <= INT_MAX else AMBIGUOUS
    number = int(digits)
    octal = int(digits, 8) if _OCTAL.fullmatch(digits) else number
    return number if number == octal and -(2**63) <= number < 2**63 else AMBIGUOUS
