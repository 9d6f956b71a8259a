# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Parse the log of a partition, as `ppin --fetchlog` writes it."""

import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import printable

LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""The levels of syslog, the most severe first. Unknown levels count as the most severe."""

_LONG_LEVEL_NAMES = {"panic": "emerg", "emergency": "emerg", "critical": "crit", "error": "err", "warn": "warning"}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ENTRY = re.compile(
    r"^(\d{4})\s+(%s)\s+(\d{1,2})\s+(\d\d:\d\d:\d\d)\s+(?:UTC|GMT)\s+(\S+)\s+(\S+)\s+(\S+)\s+(.*)$" % "|".join(_MONTHS)
)
_REPEATED = re.compile(r"^message repeated (\d{1,9}) times: \[\s*(.*?)\s*\]$")
_HEAD = re.compile(r"^(?:Dump log starting from|Fetching log from HSM|Number of slots:)")


class LogEntry(t.NamedTuple):
    """A line of the log. `time` is in UTC, `YYYY-MM-DDTHH:MM:SSZ`; `repeated` is how often it came in a row."""

    time: str
    device: str
    level: str
    process: str
    text: str
    repeated: int

    def is_at_least(self, level: str) -> bool:
        """Whether the entry is at least as severe as this level, one of LEVELS."""
        return self.level not in LEVELS or LEVELS.index(self.level) <= LEVELS.index(level)


def parse_log(text: str) -> t.Tuple[t.List[LogEntry], t.List[str]]:
    """Return the entries of a log in its order, and the lines that have another form."""
    entries, others = [], []
    for raw_line in printable(text).split("\n"):
        line = raw_line.strip()
        match = _ENTRY.match(line)
        if match:
            year, month, day, clock, device, level, process, message = match.groups()
            repeated = _REPEATED.match(message)
            entries.append(
                LogEntry(
                    "%s-%02d-%02dT%sZ" % (year, _MONTHS.index(month) + 1, int(day), clock),
                    device,
                    _LONG_LEVEL_NAMES.get(level.lower(), level.lower()),
                    process,
                    repeated.group(2) if repeated else message,
                    int(repeated.group(1)) if repeated else 1,
                )
            )
        elif line and not _HEAD.match(line):
            others.append(line)
    return entries, others
