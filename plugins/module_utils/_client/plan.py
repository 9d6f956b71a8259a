# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""What a run does, decided from what is wanted and what was seen. Nothing else decides; no I/O here."""

import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import CONFIGURED, MISSING, NOT_LISTED

STATES = ("present", "updated", "absent")
VERIFY = ("changed", "always", "never")


class Observed(t.NamedTuple):
    """What was seen of one credential."""

    entry: str  # CONFIGURED, MISSING or NOT_LISTED
    same_password: bool  # the password given is the one that the ledger remembers
    login: t.Optional[str]  # None: not asked; "ok", "rejected" or "unreachable"
    proxy_missing: bool  # the partition's service user has no password yet


# The actions of a plan, and the reasons why one cannot be made.
NONE, ADD, UPDATE, REMOVE = "none", "add", "update", "remove"
FAIL_NOT_LISTED, FAIL_PROXY, FAIL_UNREACHABLE, FAIL_SPENT = "not listed", "proxy missing", "unreachable", "spent"


def plan(state: str, force: bool, seen: Observed) -> str:
    """One of the constants above.

    :arg state: `present`, `updated` or `absent`.
    :arg force: with `updated`, spend the password even if it is the one that made the present entry.
    """
    if state == "absent":
        return REMOVE if seen.entry == CONFIGURED else NONE
    if seen.entry == NOT_LISTED:
        return FAIL_NOT_LISTED
    if seen.proxy_missing:
        return FAIL_PROXY
    if seen.entry == MISSING:
        return ADD
    if state == "updated" and (force or not seen.same_password):
        return UPDATE
    if seen.login == "unreachable":
        return FAIL_UNREACHABLE
    if seen.login == "rejected":
        return FAIL_SPENT if seen.same_password else UPDATE
    return NONE
