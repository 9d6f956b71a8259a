# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Decide whether a credential is added, updated, removed or left as it is. Only this function decides it. No I/O."""

import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import CONFIGURED, MISSING, NOT_LISTED

STATES = ("present", "updated", "absent")
VERIFY_CHOICES = ("changed", "always", "never")


class Observed(t.NamedTuple):
    """The observed state of one credential.

    :ivar entry: CONFIGURED, MISSING or NOT_LISTED.
    :ivar same_password: whether the password given is the one that the present credential was made with.
    :ivar login: "ok", "rejected" or "unreachable"; None when no login was made.
    :ivar proxy_missing: whether a service user in front of the partition has no password yet.
    """

    entry: str
    same_password: bool
    login: t.Optional[str]
    proxy_missing: bool


# The possible plans: actions, and reasons to fail.
NONE, ADD, UPDATE, REMOVE = "none", "add", "update", "remove"
FAIL_NOT_LISTED, FAIL_PROXY, FAIL_UNREACHABLE, FAIL_SPENT = "not listed", "proxy missing", "unreachable", "spent"


def plan_credential(state: str, force: bool, observed: Observed) -> str:
    """Return an action, or a reason to fail: one of the constants above.

    :arg state: one of STATES.
    :arg force: with `updated`, spend the password even if the present credential was made with it.
    """
    if state == "absent":
        return REMOVE if observed.entry == CONFIGURED else NONE
    if observed.entry == NOT_LISTED:
        return FAIL_NOT_LISTED
    if observed.proxy_missing:
        return FAIL_PROXY
    if observed.entry == MISSING:
        return ADD
    if state == "updated" and (force or not observed.same_password):
        return UPDATE
    if observed.login == "unreachable":
        return FAIL_UNREACHABLE
    if observed.login == "rejected":
        return FAIL_SPENT if observed.same_password else UPDATE
    return NONE
