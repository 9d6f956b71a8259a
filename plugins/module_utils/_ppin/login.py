# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Run the commands of ppin that log in with the permanent secrets of the client."""

import os
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.command import Ppin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.connectivity_test import (
    ConnectivityTest,
    parse_connectivity_test,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    CONNECTION_FAILED,
    NO_ANSWER,
    PpinError,
    error_from_code,
    find_code,
)


class LoginPpin(Ppin):
    """The commands of ppin that log in with permanent secrets."""

    def login(self, user_name: str, hsm: t.Optional[str], slot_id: t.Optional[int] = None) -> t.Optional[PpinError]:
        """Log in once with the permanent secret. Return None when it was accepted, otherwise the error.

        :arg hsm: the HSM to log in to. None: log in once at each HSM of the partition; the secret counts as accepted
            when every HSM that evaluated it has accepted it.
        :arg slot_id: log in to this slot only. None: ppin logs in once per slot of the partition.
        """
        args = ["--test", "--user", user_name] + ([] if hsm is None else ["--hsm", hsm])
        operation = "The login of '%s' at %s" % (user_name, hsm or "every HSM")
        output = self.run(*(args if slot_id is None else args + ["--slotid", str(slot_id)]))
        tested = parse_connectivity_test(output, [user_name]).for_partition(user_name)
        evaluated = [slot for slot in tested.slots if slot.counts_as_login]
        failure = (
            None if evaluated and all(slot.ok for slot in evaluated) else self._login_error(tested, output, operation)
        )
        if failure and evaluated and failure.code in (NO_ANSWER, CONNECTION_FAILED):
            failure = PpinError(failure.msg, failure.code, "timeout")
        if failure is None or failure.cls != "transient":
            unclear = failure is not None and failure.may_be_evaluated
            self.logins += len(evaluated) + tested.logins_without_slot or int(unclear)
        return failure

    def _login_error(self, tested: ConnectivityTest, output: str, operation: str) -> PpinError:
        """Return the error of a failed test: a rejection first, then one that may be a rejection, then any other."""
        failed = [slot.error for slot in tested.slots if slot.error]
        if not tested.slots and not any(hsm.connected for hsm in tested.hsms):
            failed = [hsm.error for hsm in tested.hsms if hsm.error]
        errors = sorted(failed, key=lambda error: (not error.is_rejection, not error.may_be_evaluated))
        if not errors:
            return self._error_from_output(output, operation)
        error = errors[0]
        if error.code:
            return error_from_code(error.code, operation)
        return PpinError("%s failed%s" % (operation, self._excerpt(output)), cls=error.cls)

    def test(self, names: t.Collection[str], **filters: t.Optional[str]) -> ConnectivityTest:
        """Run `ppin --test`, which logs in once to each slot of each HSM that matches the filters.

        :arg names: the partitions that ppin lists, to recognise names that contain a colon.
        :arg filters: `user`, `hsm`, `slot` and `slotid`, as ppin names them. None: no filter.
        :raises PpinError: when the output shows no HSM.
        """
        args = ["--test"]
        for name, value in filters.items():
            args += [] if value is None else ["--" + name, value]
        timeout_error = None
        try:
            output = self.run(*args)
        except PpinError as exc:
            timeout_error, output = exc, exc.output
        tested = parse_connectivity_test(output, names)._replace(timeout_error=timeout_error)
        if timeout_error is not None and not tested.slots:
            raise timeout_error
        if not tested.hsms and tested.partitions == 0 and find_code(output) is None:
            raise PpinError("No slot of primus.cfg has this partition and slot id", cls="config")
        if not tested.hsms:
            raise self._error_from_output(output, "Testing the connections (ppin --test)")
        self.logins += len([slot for slot in tested.slots if slot.counts_as_login])
        self.logins += tested.logins_without_slot
        return tested

    def fetch_log(self, user_name: str, hsm: str, since: t.Optional[str], reverse: bool, out: str) -> None:
        """Log in and write the log of a partition to a file. :raises PpinError: when the file was not written.

        :arg since: the first day, `YYYY-MM-DD`; None: the whole log.
        :arg out: path of the file, which must not exist. The log may contain error codes, so it must not be mixed with
            what ppin prints.
        """
        args = ["--fetchlog", "--user", user_name, "--hsm", hsm, "--out", out]
        args += ["--since", since] if since else []
        args += ["--reverse"] if reverse else []
        output = self.run(*args)
        if find_code(output) or not os.path.exists(out):
            failure = self._error_from_output(output, "Fetching the log of '%s' from %s" % (user_name, hsm))
            self.logins += 1 if failure.may_be_evaluated else 0
            raise failure
        self.logins += 1
