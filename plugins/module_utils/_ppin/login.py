# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Runs the commands of ppin that log in with the permanent secrets that a client has."""

import os
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.command import Ppin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    CONNECTION_FAILED,
    NO_ANSWER,
    PpinError,
    find_code,
    from_code,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.tested import Tested, parse_test


class LoginPpin(Ppin):
    """A ppin that can log in."""

    def login(self, user_name: str, hsm: t.Optional[str], slot_id: t.Optional[int] = None) -> t.Optional[PpinError]:
        """Log in once with the permanent secret. None when it worked, else what ppin said.

        :arg hsm: where; None: once at each HSM of the partition. It worked when all that judged the secret accepted it.
        :arg slot_id: to test this slot only; a partition with several would be logged in to once per slot.
        """
        args = ["--test", "--user", user_name] + ([] if hsm is None else ["--hsm", hsm])
        doing = "The login of '%s' at %s" % (user_name, hsm or "every HSM")
        output = self.run(*(args if slot_id is None else args + ["--slotid", str(slot_id)]))
        tested = parse_test(output, [user_name]).of(user_name)
        judged = [slot for slot in tested.slots if slot.may_be_spent]
        failure = None if judged and all(slot.ok for slot in judged) else self._login_failure(tested, output, doing)
        if failure and judged and failure.code in (NO_ANSWER, CONNECTION_FAILED):
            failure = PpinError(failure.msg, failure.code, "timeout")
        if failure is None or failure.cls != "transient":
            unclear = failure is not None and failure.may_be_judged
            self.logins += len(judged) + tested.logins_at_hsms or int(unclear)
        return failure

    def _login_failure(self, tested: Tested, output: str, doing: str) -> PpinError:
        """What went wrong with the logins of a test: a rejection before all else, then what is not known to be none."""
        failed = [slot.error for slot in tested.slots if slot.error]
        if not tested.slots and not any(hsm.connected for hsm in tested.hsms):
            failed = [hsm.error for hsm in tested.hsms if hsm.error]
        errors = sorted(failed, key=lambda error: (not error.rejects, not error.may_be_judged))
        if not errors:
            return self._failure(output, doing)
        error = errors[0]
        if error.code:
            return from_code(error.code, doing)
        return PpinError("%s failed%s" % (doing, self._shown(output)), cls=error.cls)

    def test(self, names: t.Collection[str], **filters: t.Optional[str]) -> Tested:
        """Log in once to each slot of each HSM that fits. :raises PpinError: when ppin does not tell of any.

        :arg names: the partitions that are listed.
        :arg filters: C(user), C(hsm), C(slot) and C(slotid), as ppin names them.
        """
        args = ["--test"]
        for name, value in filters.items():
            args += [] if value is None else ["--" + name, value]
        late = None
        try:
            output = self.run(*args)
        except PpinError as exc:
            late, output = exc, exc.output
        tested = parse_test(output, names)._replace(late=late)
        if late is not None and not tested.slots:
            raise late
        if not tested.hsms and tested.partitions == 0 and find_code(output) is None:
            raise PpinError("No slot of primus.cfg fits", cls="config")
        if not tested.hsms:
            raise self._failure(output, "Testing the connections (ppin --test)")
        self.logins += len([slot for slot in tested.slots if slot.may_be_spent])
        self.logins += tested.logins_at_hsms
        return tested

    def fetch_log(self, user_name: str, hsm: str, since: t.Optional[str], reverse: bool, out: str) -> None:
        """Log in and have the log of a partition written to a file. :raises PpinError: when it is not there then.

        :arg since: a day, C(YYYY-MM-DD).
        :arg out: a path at which nothing is. What ppin prints is thus not mixed with the log, where codes may stand.
        """
        args = ["--fetchlog", "--user", user_name, "--hsm", hsm, "--out", out]
        args += ["--since", since] if since else []
        args += ["--reverse"] if reverse else []
        output = self.run(*args)
        if find_code(output) or not os.path.exists(out):
            failure = self._failure(output, "Fetching the log of '%s' from %s" % (user_name, hsm))
            self.logins += 1 if failure.may_be_judged else 0
            raise failure
        self.logins += 1
