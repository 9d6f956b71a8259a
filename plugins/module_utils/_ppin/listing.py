# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Reads what ppin prints: the listing of C(ppin -l) and the result of C(ppin --test).

The published outputs differ in white space, so all white space is optional here; everything else is taken literally.
A megabyte of anything takes no more than a moment: no expression here begins anew at each character of the same run.
"""

import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    CONNECTION_FAILED,
    NO_ANSWER,
    PpinError,
    find_return_value,
)

CONFIGURED = "configured"
MISSING = "missing"
NOT_LISTED = "not listed"

_HEADER = re.compile(r"^[^\S\n]*Primus Permanent PIN[^\S\n]*$", re.M | re.I)
_STATES = {"configured": True, "missing": False}
_SLOT = re.compile(r"^\[\s*(\d+)\s*\]\s*slot-id\s*(\w+)\s*:\s*user\s*'(.*)'\s*permanent\s*secret\s*:\s*(\S+)$", re.I)
_PROXY = re.compile(r"^\[\s*(\d+)\s*\]\s*service/proxy\s*user\s*'(.*)'\s*permanent\s*secret\s*:\s*(\S+)$", re.I)
_ANY_ENTRY = re.compile(r"^\[\s*\d+\s*\](?:\s*(?:slot|service)|.*permanent\s*secret)", re.I)
_TESTED_SLOT = re.compile(r"^(slot\d+)\s*\(\s*id\s*=\s*(0x[0-9A-F]{1,8}|\d{1,10})\s*\)\s*,\s*user\s*=(.*)$", re.I)
_TESTED_HSM = re.compile(r"^(hsm\d+)\s*:(.*)$", re.I)
_CONNECT = re.compile(
    r"""^Connect\s*to\s*(?:(?:'([^']*)'|"([^"]*)")[\s,]*|([^\s'",]+)[\s,]+)(?:on\s*)?port\s*['"]?(\d{1,5})\b['"]?(.*)$""",
    re.I,
)
_FAILED = re.compile(
    r"fail|error|refused|unreachable|timed?\s?out|\bnot?\b|unable|cannot|down|offline|unavailable|closed|reset|lost|abort"
    r"|log\W?in|reject|denied|lock|expired|invalid|wrong",
    re.I,
)
# Words for a connection that was not made, and a number is none of them. With any other, a login may have been judged.
_NOT_REACHED = re.compile(
    r"(?:(?:connect|connection|connecting|connected|failed|failure|error|refused|reset|closed|lost|timed|timeout|time|out"
    r"|reached|reachable|unreachable|not|no|route|to|by|the|is|could|be|cannot|unable|host|hsm|peer|server|network|tcp"
    r"|socket|address|down|offline|unavailable|answer|response|name|resolve|resolved|resolution|dns|unknown|found)\b|[\W_])*",
    re.I,
)
_OK = re.compile(r"(?:CKR_)?OK(?:[\s,:]*\(?0x0{1,8}\)?)?|0x0{1,8}", re.I)
_QUOTED_NAME = re.compile(r"""(['"])(.*?)\1(?=\s*:)""")
_COUNT = re.compile(r"\bNumber\s+of\s+(partitions|failures)\s*:\s*(\d{1,9})\b", re.I)

# What a terminal would act on instead of showing it: escape sequences (ECMA-48) and control characters but \t and \n.
_INVISIBLE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


class Entry(t.NamedTuple):
    """One line of the listing. slot_id is None on the line of a service user."""

    number: int
    slot_id: t.Optional[int]
    configured: bool

    def as_result(self) -> t.Dict[str, t.Any]:
        """The C(entries) that modules return: index, configured and, for a partition, slot_id."""
        result: t.Dict[str, t.Any] = {"index": self.number, "configured": self.configured}
        return result if self.slot_id is None else dict(result, slot_id=self.slot_id)


class Listing(t.NamedTuple):
    """Entries by name, in the order of the listing. A partition has one entry per slot and HSM."""

    partitions: t.Dict[str, t.List[Entry]]
    service_users: t.Dict[str, t.List[Entry]]


def printable(text: str) -> str:
    """Text without escape sequences, carriage returns and other control characters."""
    return _INVISIBLE.sub("", text)


def entry_state(entries: t.Optional[t.Sequence[Entry]]) -> str:
    """CONFIGURED when every line of a name says so, MISSING when one does not, NOT_LISTED when there is no line."""
    if not entries:
        return NOT_LISTED
    return CONFIGURED if all(entry.configured for entry in entries) else MISSING


def parse_listing(text: str) -> t.Optional[Listing]:
    """The listing that an output of ppin ends with, or None when there is none.

    :raises PpinError: for a line of a listing that does not have the documented form.
    """
    listing = Listing({}, {})
    for raw_line in _HEADER.split(printable(text))[-1].splitlines():
        line = raw_line.strip()
        slot, proxy = _SLOT.match(line), _PROXY.match(line)
        if slot:
            index, slot_id, name, state = slot.groups()
            entries = listing.partitions.setdefault(name, [])
        elif proxy:
            (index, name, state), slot_id = proxy.groups(), None
            entries = listing.service_users.setdefault(name, [])
        elif _ANY_ENTRY.match(line):
            raise _not_understood(line)
        else:
            continue
        try:
            entries.append(Entry(int(index), _slot_id(slot_id) if slot_id else None, _STATES[state.lower()]))
        except (KeyError, ValueError):
            raise _not_understood(line) from None
    return listing if listing.partitions or listing.service_users else None


def not_listed(name: str, listed: t.Iterable[str]) -> PpinError:
    """The error for a partition or service user that no line of the listing has."""
    return PpinError("'%s' is not in primus.cfg; it has %s" % (name, quoted(listed)), "0x80005012")


def quoted(names: t.Iterable[str]) -> str:
    """Names for an error message."""
    return ", ".join("'%s'" % name for name in sorted(names)) or "none"


def _slot_id(text: str) -> int:
    return int(text, 16 if text.lower().startswith("0x") else 10)


def _not_understood(line: str) -> PpinError:
    return PpinError(
        "ppin printed a line that is not understood: %s" % line[:200],
        cls="dialogue",
        hint="This version of the collection does not know your provider's listing: report it with the output of "
        "ppin -l.",
    )


class TestedSlot(t.NamedTuple):
    """A slot that C(ppin --test) logged in to, and what it said of that. slot is its key in primus.cfg, C(slot0)."""

    slot: str
    slot_id: int
    user_name: str
    ok: bool
    said: str

    @property
    def error(self) -> t.Optional[PpinError]:
        return None if self.ok else _said(self.said)

    @property
    def may_be_judged(self) -> bool:
        """Whether the HSM may have judged the permanent secret."""
        return self.error is None or self.error.may_be_judged

    @property
    def may_be_spent(self) -> bool:
        """The same, or whether a verdict may have been given that did not arrive."""
        return self.may_be_judged or (self.error is not None and self.error.code in (NO_ANSWER, CONNECTION_FAILED))


class TestedHsm(t.NamedTuple):
    """An HSM that C(ppin --test) connected to, or tried to.

    :ivar host, port: empty and 0 when the line has another form than those that are known.
    :ivar firmware: None when the line does not tell.
    :ivar problem: what the line says of a connection that failed, or the line that is not understood; empty if neither.
    """

    hsm: str
    host: str
    port: int
    firmware: t.Optional[str]
    problem: str
    slots: t.List[TestedSlot]

    @property
    def connected(self) -> bool:
        """Whether it was reached: its line says so, or says nothing else and a login at it was judged."""
        return not self.problem and (self.firmware is not None or any(slot.may_be_judged for slot in self.slots))

    @property
    def error(self) -> t.Optional[PpinError]:
        """Of class transient only for a code of it, or words that tell of a connection that was not made."""
        if self.connected:
            return None
        error = _said(self.problem or "not connected")
        unreached = error.code is None and self.port and not self.slots and _NOT_REACHED.fullmatch(error.msg)
        return PpinError(error.msg, cls="transient") if unreached else error


class Tested(t.NamedTuple):
    """An output of C(ppin --test). partitions and failures are what ppin counted, or None when it does not tell.

    late is why it is not the whole output, or None.
    """

    hsms: t.List[TestedHsm]
    partitions: t.Optional[int]
    failures: t.Optional[int]
    late: t.Optional[PpinError] = None

    @property
    def slots(self) -> t.List[TestedSlot]:
        return [slot for hsm in self.hsms for slot in hsm.slots]

    def of(self, user_name: str) -> "Tested":
        """The same without the slots of other partitions, should ppin have shown any."""
        hsms = [
            hsm._replace(slots=[slot for slot in hsm.slots if slot.user_name == user_name.strip()]) for hsm in self.hsms
        ]
        return self._replace(hsms=hsms)

    @property
    def logins_at_hsms(self) -> int:
        """How many HSMs have no slot, and may have judged a secret all the same, going by what their line says."""
        return len([hsm for hsm in self.hsms if not hsm.slots and hsm.error and hsm.error.may_be_judged])


def _said(text: str) -> PpinError:
    return PpinError(text[:200], find_return_value(text))


def parse_test(text: str, names: t.Collection[str] = ()) -> Tested:
    """What an output of C(ppin --test) tells, in either of the two forms that are published.

    One has the host in quotes, C(on port) and counts; the other (guides for other products, provider 1.8.6 and later)
    has neither, and the names of PKCS#11 return values as verdicts. A slot before any HSM is on one without a name.

    :arg names: the partitions, for names with a colon in them.
    """
    hsms: t.List[TestedHsm] = []
    counts: t.Dict[str, int] = {}
    for raw_line in printable(text).splitlines():
        line = raw_line.strip()
        slot, hsm = _TESTED_SLOT.match(line), _TESTED_HSM.match(line)
        if slot:
            key, slot_id, rest = slot.groups()
            name, said = _verdict(rest, names)
            if not said:
                continue
            if not hsms:
                hsms.append(TestedHsm("", "", 0, None, "", []))
            ok = _OK.fullmatch(said) is not None
            hsms[-1].slots.append(TestedSlot(key.lower(), _slot_id(slot_id), name, ok, said))
        elif hsm:
            hsms.append(_tested_hsm(hsm.group(1).lower(), hsm.group(2).strip()))
        else:
            for count in _COUNT.finditer(line):
                counts[count.group(1).lower()] = int(count.group(2))
    return Tested(hsms, counts.get("partitions"), counts.get("failures"))


def _tested_hsm(key: str, text: str) -> TestedHsm:
    """The HSM of a line, of which this is what follows the key."""
    connect = _CONNECT.match(text)
    if connect is None:
        return TestedHsm(key, "", 0, None, text or "nothing", [])
    *hosts, port, rest = connect.groups()
    outcome, *stated = rest.split(",")
    attributes = [item.partition(":") for item in stated]
    firmware = next((value.strip() for name, _colon, value in attributes if name.strip().lower() == "firmware"), "")
    # A success has nothing but attributes, C(, firmware: RP-2.10.0-T), none of which tells of a failure.
    good = outcome.strip(" .:") == "" or _OK.fullmatch(outcome.strip(" .:"))
    good = good and all(value.strip() for _name, _colon, value in attributes)
    good = good and not _FAILED.search(rest) and find_return_value(rest) is None
    if not re.search(r"\d", firmware):  # such as unknown
        firmware = ""
    problem = "" if good else rest.strip(" ,:")
    return TestedHsm(key, next(filter(None, hosts), ""), int(port), firmware or None, problem, [])


def _verdict(text: str, names: t.Collection[str]) -> t.Tuple[str, str]:
    """The name of the partition and what was said of it, in C(NAME: VERDICT); a name may have colons in it."""
    text = text.strip()
    in_quotes = _QUOTED_NAME.match(text)
    if in_quotes and in_quotes.group(2) in names:
        text = in_quotes.group(2) + text[in_quotes.end() :]
    name, _colon, said = text.rpartition(":")
    if not _OK.fullmatch(said.strip()):
        known = [name for name in names if re.match(r"\s*:", text[len(name) :]) and text.startswith(name)]
        name = max(known, key=len, default=text.partition(":")[0])
        said = text[len(name) :].lstrip().partition(":")[2]
    return name.strip(), said.strip()
