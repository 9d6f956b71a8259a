# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Parse the output of `ppin --test`.

As in listing.py, all white space is optional, and the regular expressions take linear time.
"""

import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    CONNECTION_FAILED,
    NO_ANSWER,
    PpinError,
    find_return_value,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import parse_slot_id, printable

_SLOT = re.compile(r"^(slot\d+)\s*\(\s*id\s*=\s*(0x[0-9A-F]{1,8}|\d{1,10})\s*\)\s*,\s*user\s*=(.*)$", re.I)
_HSM = re.compile(r"^(hsm\d+)\s*:(.*)$", re.I)
_CONNECT = re.compile(
    r"""^Connect\s*to\s*(?:(?:'([^']*)'|"([^"]*)")[\s,]*|([^\s'",]+)[\s,]+)(?:on\s*)?port\s*['"]?(\d{1,5})\b['"]?(.*)$""",
    re.I,
)
_FAILED = re.compile(
    r"fail|error|refused|unreachable|timed?\s?out|\bnot?\b|unable|cannot|down|offline|unavailable|closed|reset|lost|abort"
    r"|log\W?in|reject|denied|lock|expired|invalid|wrong",
    re.I,
)
# All words that may be in a message about a connection that was not made. A message with any other word, or with a
# number, may be about a login that the HSM has evaluated.
_NOT_REACHED = re.compile(
    r"(?:(?:connect|connection|connecting|connected|failed|failure|error|refused|reset|closed|lost|timed|timeout|time|out"
    r"|reached|reachable|unreachable|not|no|route|to|by|the|is|could|be|cannot|unable|host|hsm|peer|server|network|tcp"
    r"|socket|address|down|offline|unavailable|answer|response|name|resolve|resolved|resolution|dns|unknown|found)\b|[\W_])*",
    re.I,
)
_OK = re.compile(r"(?:CKR_)?OK(?:[\s,:]*\(?0x0{1,8}\)?)?|0x0{1,8}", re.I)
_QUOTED_NAME = re.compile(r"""(['"])(.*?)\1(?=\s*:)""")
_COUNT = re.compile(r"\bNumber\s+of\s+(partitions|failures)\s*:\s*(\d{1,9})\b", re.I)


class SlotResult(t.NamedTuple):
    """The result of the login to one slot.

    :ivar slot: its key in primus.cfg, such as `slot0`.
    :ivar message: what ppin printed about the login, such as `OK` or `failed, 0x80005017`.
    """

    slot: str
    slot_id: int
    user_name: str
    ok: bool
    message: str

    @property
    def error(self) -> t.Optional[PpinError]:
        return None if self.ok else _error_from_message(self.message)

    @property
    def may_be_evaluated(self) -> bool:
        """Whether the HSM has evaluated the permanent secret, or may have."""
        return self.error is None or self.error.may_be_evaluated

    @property
    def counts_as_login(self) -> bool:
        """Whether to count it as a login: as may_be_evaluated, and also when only the HSM's answer may be missing."""
        return self.may_be_evaluated or (self.error is not None and self.error.code in (NO_ANSWER, CONNECTION_FAILED))


class HsmResult(t.NamedTuple):
    """The result of the connection to one HSM.

    :ivar hsm: its key in primus.cfg, such as `hsm0`.
    :ivar host: empty when the line has an unknown form; `port` is 0 then.
    :ivar firmware: None when the line does not report it.
    :ivar failure: the message of a failed connection, or a line of unknown form; empty otherwise.
    :ivar slots: the logins at this HSM.
    """

    hsm: str
    host: str
    port: int
    firmware: t.Optional[str]
    failure: str
    slots: t.List[SlotResult]

    @property
    def connected(self) -> bool:
        """Whether it was reached: its line reports a firmware, or no failure and a login was evaluated."""
        return not self.failure and (self.firmware is not None or any(slot.may_be_evaluated for slot in self.slots))

    @property
    def error(self) -> t.Optional[PpinError]:
        """Why it was not reached, or None. Without a code it is `transient` only if all words are in _NOT_REACHED."""
        if self.connected:
            return None
        error = _error_from_message(self.failure or "not connected")
        unreached = error.code is None and self.port and not self.slots and _NOT_REACHED.fullmatch(error.msg)
        return PpinError(error.msg, cls="transient") if unreached else error


class ConnectivityTest(t.NamedTuple):
    """The parsed output of `ppin --test`.

    :ivar partitions: how many ppin counted, or None when it printed no count.
    :ivar failures: the same.
    :ivar timeout_error: set when ppin timed out, so that the output is not complete.
    """

    hsms: t.List[HsmResult]
    partitions: t.Optional[int]
    failures: t.Optional[int]
    timeout_error: t.Optional[PpinError] = None

    @property
    def slots(self) -> t.List[SlotResult]:
        return [slot for hsm in self.hsms for slot in hsm.slots]

    def for_partition(self, user_name: str) -> "ConnectivityTest":
        """Return the test without the slots of other partitions."""
        hsms = [
            hsm._replace(slots=[slot for slot in hsm.slots if slot.user_name == user_name.strip()]) for hsm in self.hsms
        ]
        return self._replace(hsms=hsms)

    @property
    def logins_without_slot(self) -> int:
        """Number of HSMs for which no slot is shown, but whose line means that a secret may have been evaluated."""
        return len([hsm for hsm in self.hsms if not hsm.slots and hsm.error and hsm.error.may_be_evaluated])


def _error_from_message(text: str) -> PpinError:
    return PpinError(text[:200], find_return_value(text))


def parse_connectivity_test(text: str, names: t.Collection[str] = ()) -> ConnectivityTest:
    """Parse the output of `ppin --test`, which has been published in two forms.

    One has the host in quotes, `on port` and counts. The other (guides for other products, provider 1.8.6 and later)
    has neither, and reports logins by the names of PKCS#11 return values. A slot that is shown before any HSM gets an
    HSM without a name.

    :arg names: the partitions, to recognise names that contain a colon.
    """
    hsms: t.List[HsmResult] = []
    counts: t.Dict[str, int] = {}
    for raw_line in printable(text).splitlines():
        line = raw_line.strip()
        slot, hsm = _SLOT.match(line), _HSM.match(line)
        if slot:
            key, slot_id, rest = slot.groups()
            name, message = _split_message(rest, names)
            if not message:
                continue
            if not hsms:
                hsms.append(HsmResult("", "", 0, None, "", []))
            ok = _OK.fullmatch(message) is not None
            hsms[-1].slots.append(SlotResult(key.lower(), parse_slot_id(slot_id), name, ok, message))
        elif hsm:
            hsms.append(_parse_hsm(hsm.group(1).lower(), hsm.group(2).strip()))
        else:
            for count in _COUNT.finditer(line):
                counts[count.group(1).lower()] = int(count.group(2))
    return ConnectivityTest(hsms, counts.get("partitions"), counts.get("failures"))


def _parse_hsm(key: str, text: str) -> HsmResult:
    """Parse the line of an HSM. text: what follows the key and its colon."""
    connect = _CONNECT.match(text)
    if connect is None:
        return HsmResult(key, "", 0, None, text or "nothing", [])
    *hosts, port, rest = connect.groups()
    outcome, *stated = rest.split(",")
    attributes = [item.partition(":") for item in stated]
    firmware = next((value.strip() for name, _colon, value in attributes if name.strip().lower() == "firmware"), "")
    # A successful connection has only attributes, such as `, firmware: RP-2.10.0-T`, and none that reports a failure.
    good = outcome.strip(" .:") == "" or _OK.fullmatch(outcome.strip(" .:"))
    good = good and all(value.strip() for _name, _colon, value in attributes)
    good = good and not _FAILED.search(rest) and find_return_value(rest) is None
    if not re.search(r"\d", firmware):  # such as unknown
        firmware = ""
    failure = "" if good else rest.strip(" ,:")
    return HsmResult(key, next(filter(None, hosts), ""), int(port), firmware or None, failure, [])


def _split_message(text: str, names: t.Collection[str]) -> t.Tuple[str, str]:
    """Split `NAME: MESSAGE` into the partition and the message. A name may contain colons."""
    text = text.strip()
    in_quotes = _QUOTED_NAME.match(text)
    if in_quotes and in_quotes.group(2) in names:
        text = in_quotes.group(2) + text[in_quotes.end() :]
    name, _colon, message = text.rpartition(":")
    if not _OK.fullmatch(message.strip()):
        known = [name for name in names if re.match(r"\s*:", text[len(name) :]) and text.startswith(name)]
        name = max(known, key=len, default=text.partition(":")[0])
        message = text[len(name) :].lstrip().partition(":")[2]
    return name.strip(), message.strip()
