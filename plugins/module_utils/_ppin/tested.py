# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Reads what C(ppin --test) prints.

All white space is optional here, too, and no expression begins anew at each character of the same run: see listing.py.
"""

import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    CONNECTION_FAILED,
    NO_ANSWER,
    PpinError,
    find_return_value,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import number_of_slot, printable

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
            hsms[-1].slots.append(TestedSlot(key.lower(), number_of_slot(slot_id), name, ok, said))
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
