# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Until when a setup password may be valid. Neither ppin nor the HSM tells, so each answer names its assumption.

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
"""Times in UTC, as they are kept and returned."""

ON_PREMISES, CLOUDHSM = 72, 7 * 24
"""Hours from the first use."""

LIFESPAN_LIMIT = 10 * 365 * 24

LIFESPAN_ARGUMENT: t.Dict[str, t.Any] = {"type": "int", "no_log": False}
"""The option `setup_password_lifespan`: hours, or None when it is not known."""


def moment_of(text: t.Any) -> t.Optional[int]:
    """Seconds since 1970 of a time in TIME_FORMAT, or None when it is none: a damaged ledger may hold anything.

    Not by strptime, whose import takes as long as all else that a look does.
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
    """:raises PpinError: when no setup password can be valid for so many hours."""
    if hours is not None and not 0 <= hours <= LIFESPAN_LIMIT:
        raise PpinError(
            "setup_password_lifespan is %d, which is not in 0 to %d hours" % (hours, LIFESPAN_LIMIT),
            cls="config",
            hint="Give the hours of the HSM's lifespan_setup_pwd, or leave the option out.",
        )


def validity(
    first_used: t.Optional[str], lifespan: t.Optional[int], behind_proxy: bool = False
) -> t.Optional[t.Dict[str, str]]:
    """Until when a setup password may be valid, as modules return it; None when its first use is not known.

    :arg first_used: when it was first used, as far as is known, in TIME_FORMAT. An earlier use ends it earlier.
    :arg lifespan: hours, 0 for a one-time password, or None: as is usual for the kind of HSM.
    :arg behind_proxy: whether the partition is behind a service proxy, so that it is one of CloudHSM.
    """
    moment = moment_of(first_used)
    if moment is None:
        return None
    hours = lifespan if lifespan is not None else CLOUDHSM if behind_proxy else ON_PREMISES
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
