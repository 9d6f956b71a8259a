# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Parse the output of `ppin -l`.

The published outputs differ in white space, so all white space is optional here. Everything else is taken literally.
The regular expressions take linear time, so that a megabyte of any input is parsed at once.
"""

import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError

CONFIGURED = "configured"
MISSING = "missing"
NOT_LISTED = "not listed"

_HEADER = re.compile(r"^[^\S\n]*Primus Permanent PIN[^\S\n]*$", re.M | re.I)
_STATES = {"configured": True, "missing": False}
_SLOT = re.compile(r"^\[\s*(\d+)\s*\]\s*slot-id\s*(\w+)\s*:\s*user\s*'(.*)'\s*permanent\s*secret\s*:\s*(\S+)$", re.I)
_PROXY = re.compile(r"^\[\s*(\d+)\s*\]\s*service/proxy\s*user\s*'(.*)'\s*permanent\s*secret\s*:\s*(\S+)$", re.I)
_ANY_ENTRY = re.compile(r"^\[\s*\d+\s*\](?:\s*(?:slot|service)|.*permanent\s*secret)", re.I)
# Escape sequences (ECMA-48) and control characters other than \t and \n.
_INVISIBLE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


class Entry(t.NamedTuple):
    """One line of the listing. `slot_id` is None on the line of a service user."""

    number: int
    slot_id: t.Optional[int]
    configured: bool

    def as_result(self) -> t.Dict[str, t.Any]:
        """Return it as in the `entries` of a module's result: index, configured and, for a partition, slot_id."""
        result: t.Dict[str, t.Any] = {"index": self.number, "configured": self.configured}
        return result if self.slot_id is None else dict(result, slot_id=self.slot_id)


class Listing(t.NamedTuple):
    """The lines by name, in the order of the listing. A partition has one line per slot and HSM."""

    partitions: t.Dict[str, t.List[Entry]]
    service_users: t.Dict[str, t.List[Entry]]


def printable(text: str) -> str:
    """Remove escape sequences, carriage returns and other control characters."""
    return _INVISIBLE.sub("", text)


def entry_state(entries: t.Optional[t.Sequence[Entry]]) -> str:
    """Return CONFIGURED when all lines of a name say so, MISSING when one does not, NOT_LISTED when there is none."""
    if not entries:
        return NOT_LISTED
    return CONFIGURED if all(entry.configured for entry in entries) else MISSING


def parse_listing(text: str) -> t.Optional[Listing]:
    """Return the listing at the end of the output of ppin, or None when there is none.

    :raises PpinError: when a line of the listing does not have the documented form.
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
            raise _unknown_line_error(line)
        else:
            continue
        try:
            entries.append(Entry(int(index), parse_slot_id(slot_id) if slot_id else None, _STATES[state.lower()]))
        except (KeyError, ValueError):
            raise _unknown_line_error(line) from None
    return listing if listing.partitions or listing.service_users else None


def not_listed_error(name: str, listed: t.Iterable[str]) -> PpinError:
    """Return the error for a partition or service user that ppin does not list."""
    return PpinError("'%s' is not in primus.cfg; it has %s" % (name, quoted(listed)), "0x80005012")


def quoted(names: t.Iterable[str]) -> str:
    """Join names for an error message."""
    return ", ".join("'%s'" % name for name in sorted(names)) or "none"


def parse_slot_id(text: str) -> int:
    """Parse a slot id as ppin prints it, decimal or hexadecimal."""
    return int(text, 16 if text.lower().startswith("0x") else 10)


def _unknown_line_error(line: str) -> PpinError:
    return PpinError(
        "ppin printed a line that is not understood: %s" % line[:200],
        cls="dialogue",
        hint="This version of the collection does not understand your provider's output: report it with the output of "
        "ppin -l.",
    )
