# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Estimate until when a setup password is valid. Neither ppin nor the HSM reports it, so each result has an assumption.

Source: the vendor's documentation. An HSM on premises has 72 hours from the first use by default (lifespan_setup_pwd, 0
for a one-time password), CloudHSM has 7 days, which Economy Certified (ECO-CC) counts from the date of issuance.
"""

import calendar
import datetime
import re
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
"""Times in UTC, as in the ledger and in results."""

ON_PREMISES_HOURS, CLOUDHSM_HOURS = 72, 7 * 24
"""Hours from the first use."""

LIFESPAN_LIMIT_HOURS = 10 * 365 * 24

LIFESPAN_ARGUMENT: t.Dict[str, t.Any] = {"type": "int", "no_log": False}
"""The option `setup_password_lifespan`: hours, or None when it is not known."""


def parse_time(text: t.Any) -> t.Optional[int]:
    """Return the seconds since 1970 of a time in TIME_FORMAT, or None when it has another form.

    A damaged ledger may have any value. Not time.strptime, whose import takes as long as the rest of ppin_info.
    """
    match = re.match(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z\Z", text, re.A) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        year, month, day, hour, minute, second = map(int, match.groups())
        return calendar.timegm(datetime.datetime(year, month, day, hour, minute, second).timetuple())
    except ValueError:
        return None


def check_lifespan(hours: t.Optional[int]) -> None:
    """:raises PpinError: when it is negative or more than LIFESPAN_LIMIT_HOURS."""
    if hours is not None and not 0 <= hours <= LIFESPAN_LIMIT_HOURS:
        raise PpinError(
            "setup_password_lifespan is %d, which is not in 0 to %d hours" % (hours, LIFESPAN_LIMIT_HOURS),
            cls="config",
            hint="Give the hours of the HSM's lifespan_setup_pwd, or leave the option out.",
        )


def validity(
    first_used: t.Optional[str], lifespan: t.Optional[int], behind_proxy: bool = False
) -> t.Optional[t.Dict[str, str]]:
    """Return the `setup_password_validity` of a result, or None when the first use is not known.

    :arg first_used: the earliest use that is known, in TIME_FORMAT.
    :arg lifespan: hours from the first use; 0: one-time password; None: the default for the kind of HSM.
    :arg behind_proxy: whether the partition is behind a service proxy, as in CloudHSM.
    """
    moment = parse_time(first_used)
    if moment is None:
        return None
    hours = lifespan if lifespan is not None else CLOUDHSM_HOURS if behind_proxy else ON_PREMISES_HOURS
    until = time.strftime(TIME_FORMAT, time.gmtime(moment + hours * 3600))
    if lifespan == 0:
        assumption = "one-time: it served one client (setup_password_lifespan)"
    elif lifespan is not None:
        assumption = "%d hours from the first use (setup_password_lifespan)" % lifespan
    elif behind_proxy:
        assumption = (
            "7 days from the first use (CloudHSM); Economy Certified counts from the issuance, so it ends earlier"
        )
    else:
        assumption = "72 hours from the first use (default of an HSM on premises)"
    return {"first_used": str(first_used), "valid_until": until, "assumption": assumption}
