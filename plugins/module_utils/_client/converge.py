# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The run of ppin_secret, ppin_proxy and ppin_credentials: observe, plan, apply and verify each credential.

_Change processes one credential. _Shared has what the credentials of a run have in common.
"""

import contextlib
import os
import signal
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client import credential_plan
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import Slot
from ansible_collections.hsmops.primus.plugins.module_utils._client.control import with_control
from ansible_collections.hsmops.primus.plugins.module_utils._client.credential_plan import Observed, plan_credential
from ansible_collections.hsmops.primus.plugins.module_utils._client.credentials import Credential
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_ARGUMENTS, GateFindings
from ansible_collections.hsmops.primus.plugins.module_utils._client.ledger import Ledger, rebind_ledger
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import leftovers
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.login_module import record_logins
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import (
    WorkingCopy,
    recover,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.dialogue import DialoguePpin, import_pexpect
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    HINTS,
    PpinError,
    error_from_crash,
    error_from_os_error,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import (
    CONFIGURED,
    MISSING,
    NOT_LISTED,
    Listing,
    entry_state,
    not_listed_error,
    quoted,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import PPIN_ARGUMENTS, find_paths

CREDENTIAL_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = dict(
    PPIN_ARGUMENTS,
    state={"type": "str", "choices": list(credential_plan.STATES), "default": "present"},
    force={"type": "bool", "default": False},
    retries={"type": "int", "default": 2},
    backup={"type": "bool", "default": False},
    in_place={"type": "bool", "default": False},
    **GATE_ARGUMENTS,
)
"""The options of the doc fragments `ppin`, `ppin.credential` and `ppin.gate`, and `state`."""

_STATE_LABELS = {CONFIGURED: "Configured", MISSING: "MISSING", NOT_LISTED: "not in primus.cfg"}
_ACTION_RESULTS = {credential_plan.ADD: "added", credential_plan.UPDATE: "updated", credential_plan.REMOVE: "removed"}
_VERIFIED = {"ok": True, "rejected": False, "unreachable": None}
_OPERATIONS = {credential_plan.ADD: "Adding", credential_plan.UPDATE: "Updating", credential_plan.REMOVE: "Removing"}


STOPPING_CLASSES = ("timeout", "dialogue")
"""Classes of errors after which the credentials that follow are not processed: ppin would fail again, after a wait."""

Result = t.Dict[str, t.Any]


def run_credential_module(module: AnsibleModule, credential: Credential) -> None:
    """Run a module that has one credential, and leave through exit_json or fail_json."""
    (result,) = converge(module, [credential])
    (module.fail_json if result.get("failed") else module.exit_json)(**result)


def converge(module: AnsibleModule, credentials: t.Sequence[Credential]) -> t.List[Result]:
    """Set, update or remove credentials in this order. Return a result for each, as that of ppin_secret or ppin_proxy.

    If a credential fails, those that do not depend on it are still processed. Invalid options fail all of them before
    anything is changed.
    """
    changes = [_Change(module, credential, len(credentials) == 1) for credential in credentials]
    with contextlib.ExitStack() as stack:
        try:
            for change in changes:
                change.credential.check()
            if module.params["retries"] < 0:
                raise PpinError("retries must be at least 0", cls="config", hint="Set retries to at least 0.")
            shared = _Shared(module)
            if shared.has_no_secrets and all(change.credential.absent for change in changes):
                return [change.outcome() for change in changes]
            for change in changes:
                change.prepare(shared, stack)
            stack.enter_context(locked(shared.ppin.paths.secrets, shared.ppin.timeout))
            shared.prepare()
        except Exception as exc:  # the result must report the logins in any case
            for change in changes:
                change.fail(_as_error(exc))
            return [change.outcome() for change in changes]
        try:
            for change in changes:
                change.run(shared)
        finally:
            shared.finish()
    return [change.outcome(shared.interrupted) for change in changes]


def _not_tried(credential: Credential, because: PpinError) -> PpinError:
    msg = "The %s of '%s' was not tried, as ppin failed before: %s" % (credential.label, credential.name, because.msg)
    return PpinError(msg, cls="state", hint=because.hint)


def _as_error(exc: Exception) -> PpinError:
    if isinstance(exc, PpinError):
        return exc
    return error_from_os_error(exc) if isinstance(exc, OSError) else error_from_crash(exc)


class _Shared:
    """What the credentials of one run have in common.

    :ivar listing: the present listing of ppin; in check mode, with the simulated changes.
    :ivar slots: those of primus.cfg.
    :ivar pending: kind and name of each credential that check mode has simulated a change of.
    :ivar retries: how often to retry when the HSM is not reached.
    :ivar stopped: the error after which no further credential is processed, or None.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.ppin = DialoguePpin(find_paths(module.params, module.get_bin_path), module.params["timeout"])
        self.findings = GateFindings.of(module.params)
        self.retries: int = module.params["retries"]
        self.pending: t.Set[t.Tuple[str, str]] = set()
        self.stopped: t.Optional[PpinError] = None
        self.interrupted = False
        self.ledger: Ledger
        self._listing: t.Optional[Listing] = None
        self._slots: t.Optional[t.List[Slot]] = None

    @property
    def has_no_secrets(self) -> bool:
        """Whether there is no secrets file, as on a host that was decommissioned or never set up."""
        return not os.path.lexists(self.ppin.paths.secrets)

    def prepare(self) -> None:
        """Clean up after an interrupted run and read the ledger. The caller holds the lock."""
        paths = self.ppin.paths
        self.interrupted = bool(leftovers(paths.secrets, paths.config))
        if not self.module.check_mode:
            recover(self.module, paths.secrets, paths.config)
        self.ledger = Ledger(paths.secrets)
        if self.ledger.problem:
            self.module.warn(
                "%s. It counts as empty: a setup password that was spent already may be spent again. The next change "
                "sets it aside, beside the new one." % self.ledger.problem
            )

    def finish(self) -> None:
        if self._listing is not None:
            rebind_ledger(self.module, self.ledger)

    @property
    def listing(self) -> Listing:
        """:raises PpinError: when ppin prints none."""
        if self._listing is None:
            self._listing = self.ppin.listing()
        return self._listing

    @listing.setter
    def listing(self, listing: Listing) -> None:
        self._listing = listing

    @property
    def slots(self) -> t.List[Slot]:
        if self._slots is None:
            self._slots = self.ppin.slots()
        return self._slots


class _Change:
    """The processing of one credential, and its result."""

    def __init__(self, module: AnsibleModule, credential: Credential, is_only: bool) -> None:
        self.module = module
        self.params = module.params
        self.credential = credential
        self.is_only = is_only  # otherwise another credential of this run may have changed the file
        self.result: Result = {
            "changed": False,
            "action": "none",
            credential.result_key: credential.name,
            "entries": [],
            "interrupted": False,
            "logins": 0,
            "rolled_back": False,
        }
        if credential.logs_in:
            self.result.update(verified=None, proxy_vouched=True)
        self.proxy_users: t.List[str] = []  # the service users that are, or may be, in front of the partition
        self.entry: t.Dict[str, t.Optional[str]] = {}  # origin and time of the permanent secret before the change
        self.shared: _Shared
        self.ppin: DialoguePpin

    def prepare(self, shared: _Shared, stack: contextlib.ExitStack) -> None:
        """Find the ppin, and check its files. :raises OSError, PpinError:

        :arg stack: gets the temporary primus.cfg that the removal of an orphan needs.
        """
        self.shared = shared
        paths, timeout = shared.ppin.paths, shared.ppin.timeout
        if self.credential.absent:
            paths = stack.enter_context(self.credential.paths_for_removal(paths, timeout, self.module.warn))
        self.ppin = shared.ppin if paths == shared.ppin.paths else DialoguePpin(paths, timeout)
        self.ppin.check_files()

    def run(self, shared: _Shared) -> None:
        if shared.stopped is not None:
            self.fail(_not_tried(self.credential, shared.stopped))
            return
        logins = self.ppin.logins
        try:
            self.converge()
        except Exception as exc:  # the result must report the logins in any case
            error = _as_error(exc)
            self.fail(error)
            if error.cls in STOPPING_CLASSES:
                shared.stopped = error
            elif error.cls == "transient":
                shared.retries = 0
        finally:
            self.result["logins"] = self.ppin.logins - logins

    def fail(self, exc: PpinError) -> None:
        state = ""
        if exc.cls == "rejected" and self.proxy_users:
            exc.hint += " Or the service proxy rejected the password of %s." % quoted(self.proxy_users)
        if self.result["rolled_back"]:
            state = ".secrets.cfg is as it was before." if self.is_only else "It is as it was before."
        elif not self.result["changed"]:
            state = "Nothing was changed." if self.is_only else "It was not changed."
        self.result.update(failed=True, **exc.failure(state))

    def outcome(self, interrupted: bool = False) -> Result:
        return with_control(dict(self.result, interrupted=interrupted), self.entry)

    def converge(self) -> None:
        listing = self.listing
        self.set_entries(listing)
        action, observed = self.decide(listing)
        if action == credential_plan.NONE:
            return
        if action != credential_plan.REMOVE:
            self.check_passwords()
            import_pexpect()
        diff = self.diff(action, observed)
        if self.module.check_mode:
            self.listing = self.simulated_listing(action, listing)
        else:
            for number in (signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, self.ppin.on_signal)  # removes the working copy before the module ends
            self.apply(action)
            self.update_ledger(action)
        self.result.update(changed=True, action=_ACTION_RESULTS[action], diff=diff)
        if action != credential_plan.REMOVE and self.credential.verify != "never" and not self.module.check_mode:
            self.verify()

    # Observe

    @property
    def listing(self) -> Listing:
        return self.shared.listing if self.ppin is self.shared.ppin else self.ppin.listing()

    @listing.setter
    def listing(self, listing: Listing) -> None:
        if self.ppin is self.shared.ppin:
            self.shared.listing = listing

    def simulated_listing(self, action: str, listing: Listing) -> Listing:
        """Return what ppin would list after the action. Check mode needs it for the credentials that follow."""
        credential = self.credential
        self.shared.pending.add((credential.kind, credential.name))
        entries = [entry._replace(configured=action != credential_plan.REMOVE) for entry in credential.entries(listing)]
        kind = dict(getattr(listing, credential.kind), **{credential.name: entries})
        return listing._replace(**{credential.kind: kind})

    def decide(self, listing: Listing) -> t.Tuple[str, Observed]:
        """Return the action to take, and the observation that it is based on. Logs in with `verify: always`.

        :raises PpinError: when the plan is a failure: see raise_failure.
        """
        credential, shared = self.credential, self.shared
        ledger, state = shared.ledger, credential.params["state"]
        entry = entry_state(credential.entries(listing))
        wanted = not credential.absent and entry == CONFIGURED
        password = credential.password
        missing_proxy: t.Optional[str] = None
        partition_slots: t.List[Slot] = []
        if credential.logs_in:
            if not credential.absent:
                partition_slots = credential.own_slots(shared.slots)
                missing_proxy = credential.missing_proxy(listing, shared.slots)
            self.proxy_users = list({slot.proxy_user for slot in partition_slots if slot.proxy_user})
            if self.ppin.config_problem:
                self.proxy_users = list(listing.service_users)
            self.entry = {
                "origin": ledger.origin(credential.name),
                "since": ledger.since("partitions", credential.name),
            }
            vouched = [ledger.accepted_within(user, self.params["gate_window"]) for user in self.proxy_users]
            self.result["proxy_vouched"] = all(vouched)

        def observe(login: t.Optional[str]) -> Observed:
            # The fingerprint takes some 20 ms, so it is computed only when the plan needs it.
            needed = wanted and password is not None and (state == "updated" or login == "rejected")
            same = needed and ledger.is_same_password(credential.kind, credential.name, t.cast(str, password))
            return Observed(entry, same, login, missing_proxy is not None)

        observed = observe(None)
        action = plan_credential(state, self.params["force"], observed)
        failure = None
        login_needed = action == credential_plan.NONE and wanted and credential.verify == "always"
        # A login through a service proxy whose password is about to change would not be conclusive.
        login_needed = login_needed and not shared.pending & {("service_users", user) for user in self.proxy_users}
        if credential.logs_in and (login_needed or action in (credential_plan.ADD, credential_plan.UPDATE)):
            self.check_config(partition_slots)
        if login_needed:
            failure = self.known_rejection()
            login = "rejected"
            if failure is None:
                login, failure = self.login()
                record_logins(self.module, ledger, {credential.name: _VERIFIED[login]}, shared.findings.record)
            self.result["verified"] = _VERIFIED[login]
            observed = observe(login)
            action = plan_credential(state, self.params["force"], observed)
        self.raise_failure(action, listing, missing_proxy, failure)
        return action, observed

    def check_config(self, partition_slots: t.Sequence[Slot]) -> None:
        """Warn when primus.cfg cannot be parsed.

        :arg partition_slots: the slots of the partition in primus.cfg.
        :raises PpinError: when a login will be needed, and primus.cfg can be parsed but has no slot of the partition.
        """
        name, verify = self.credential.name, self.credential.verify != "never"
        if self.ppin.config_problem:
            self.module.warn(
                "primus.cfg is not understood: %s. Service proxy passwords that '%s' needs are therefore not checked%s."
                % (self.ppin.config_problem, name, ", and the login is tried at each of its HSMs" if verify else "")
            )
        elif verify and not partition_slots:
            raise PpinError(
                "primus.cfg names no HSM for '%s', which ppin lists" % name,
                cls="config",
                hint="No login was spent. Check that %s is the file that ppin reads and names the partition as ppin "
                "lists it, or set verify to never." % self.ppin.paths.config,
            )

    def known_rejection(self) -> t.Optional[PpinError]:
        """Return the error if the present credential is known to be rejected, so that no login is needed, or None."""
        name, found = self.credential.name, ""
        ledger, findings = self.shared.ledger, self.shared.findings
        if name in findings.checked and ledger.rejected(name):
            found = "as a login found at %s" % ledger.rejected(name)
        elif ledger.origin(name) in findings.stale:
            found = "as logins of other clients with a secret of the same origin found"
        if not found:
            return None
        return PpinError("The HSM rejects the %s of '%s', %s" % (self.credential.label, name, found), cls="rejected")

    def raise_failure(
        self, action: str, listing: Listing, missing_proxy: t.Optional[str], failure: t.Optional[PpinError]
    ) -> None:
        """Raise the error of a plan that is a failure; return for all others. :raises PpinError:"""
        name, label = self.credential.name, self.credential.label
        if action == credential_plan.FAIL_NOT_LISTED:
            raise not_listed_error(name, self.credential.listed(listing))
        if action == credential_plan.FAIL_PROXY:
            raise PpinError(
                "The service proxy password of '%s', the service user of '%s', is MISSING" % (missing_proxy, name),
                cls="config",
                hint="Set it first with hsmops.primus.ppin_proxy. No login was spent.",
            )
        if failure and action == credential_plan.FAIL_UNREACHABLE:
            raise PpinError(
                "The %s of '%s' could not be verified: %s" % (label, name, failure.msg), failure.code, failure.cls
            )
        if failure and action == credential_plan.FAIL_SPENT:
            raise PpinError(
                "%s, and the setup password given is the one that made this secret" % failure.msg,
                failure.code,
                failure.cls,
                HINTS["expired"],
            )

    def set_entries(self, listing: Listing) -> None:
        self.result["entries"] = [entry.as_result() for entry in self.credential.entries(listing)]

    def diff(self, action: str, observed: Observed) -> t.Dict[str, str]:
        credential = self.credential
        before, after = _STATE_LABELS[observed.entry], "MISSING" if action == credential_plan.REMOVE else "Configured"
        if action == credential_plan.UPDATE:
            before += ", since %s" % (self.shared.ledger.since(credential.kind, credential.name) or "an unknown time")
            after += ", with the %s given" % credential.passwords[0].replace("_", " ")
        line = "%s of %s: %%s\n" % (credential.label, credential.name)
        return {"before": line % before, "after": line % after}

    # Apply

    def check_passwords(self) -> None:
        """:raises PpinError: when a password that is needed was not given."""
        missing = [option for option in self.credential.passwords if self.credential.params[option] is None]
        if missing:
            state = "no longer accepted by the HSM" if self.result.get("verified") is False else "to be set"
            raise PpinError(
                "The %s of '%s' is %s, which needs %s"
                % (self.credential.label, self.credential.name, state, " and ".join(missing)),
                cls="config",
                hint="Give %s and run again. No login was spent on it." % " and ".join(missing),
            )

    def apply(self, action: str) -> None:
        """Change the credential on a working copy, with retries. :raises PpinError: .secrets.cfg is unchanged then."""
        ppin, attempt = self.ppin, 0
        while True:
            try:
                with WorkingCopy(ppin.paths.secrets, self.params["in_place"]) as copy:
                    self.result["rolled_back"] = True  # until the copy is put in place
                    ppin.secrets_path = copy.path
                    listing = self.change_copy(action)
                    backup = "%s.%d.%s~" % (ppin.paths.secrets, os.getpid(), time.strftime("%Y-%m-%d@%H:%M:%S"))
                    copy.put_in_place(backup if self.params["backup"] else None)
                break
            except PpinError as exc:
                if exc.cls != "transient" or attempt >= self.shared.retries:
                    raise
            finally:
                ppin.secrets_path = ppin.paths.secrets
            time.sleep(2**attempt)
            attempt += 1
        self.result["rolled_back"] = False
        if self.params["backup"]:
            self.result["backup_file"] = backup
        self.listing = listing
        self.set_entries(listing)

    def change_copy(self, action: str) -> Listing:
        """Have ppin change the credential in the working copy. Return what ppin lists then. :raises PpinError:"""
        credential = self.credential
        actions = {
            credential_plan.ADD: credential.add,
            credential_plan.UPDATE: credential.update,
            credential_plan.REMOVE: credential.remove,
        }
        actions[action](self.ppin)
        listing = self.ppin.listing()
        entry = entry_state(credential.entries(listing))
        if (entry == CONFIGURED) != (action != credential_plan.REMOVE):
            raise PpinError(
                "%s the %s of '%s' had no effect: ppin -l says %s afterwards"
                % (_OPERATIONS[action], credential.label, credential.name, _STATE_LABELS[entry])
            )
        return listing

    def update_ledger(self, action: str) -> None:
        credential, ledger = self.credential, self.shared.ledger
        try:
            if action == credential_plan.REMOVE:
                ledger.forget(credential.kind, credential.name)
            else:
                origin = self.shared.findings.origins.get(credential.name)
                password = t.cast(str, credential.password)
                ledger.remember(credential.kind, credential.name, password, origin, self.proxy_users)
        except (OSError, ValueError) as exc:  # ValueError: FIPS mode refuses the password
            self.module.warn(
                "The ledger %s cannot be written (%s): state=updated will spend this password once more."
                % (ledger.path, getattr(exc, "strerror", None) or exc)
            )

    # Verify

    def verify(self) -> None:
        """Log in once with the secret that was fetched. :raises PpinError: when it is rejected; the secret is kept."""
        try:
            login, failure = self.login()
            self.result["verified"] = _VERIFIED[login]
            record_logins(self.module, self.shared.ledger, {self.credential.name: _VERIFIED[login]})
        except PpinError as exc:  # for example, ppin hangs
            login, failure = "unknown", exc
        if failure is None:
            return
        if login == "unreachable":
            self.module.warn("The permanent secret was fetched but not verified: %s." % failure.msg)
            return
        raise PpinError(
            "The permanent secret of '%s' was fetched and is in .secrets.cfg, but the login with it failed: %s"
            % (self.credential.name, failure.msg),
            failure.code,
            failure.cls,
            failure.hint,
        )

    def login(self) -> t.Tuple[str, t.Optional[PpinError]]:
        """Log in once, at the first HSM that can be reached. Return `ok`, `rejected` or `unreachable`, and the error.

        When primus.cfg cannot be parsed, the HSMs are not known: ppin then logs in at each HSM of the partition.
        """
        name = self.credential.name
        slot_ids: t.Dict[t.Optional[str], t.List[t.Optional[int]]] = {}
        for slot in self.credential.own_slots(self.shared.slots):
            slot_ids.setdefault(slot.hsm, []).append(slot.slot_id)
        if not slot_ids:  # the listing has a line for each slot at each HSM
            slot_ids[None] = list(dict.fromkeys(entry["slot_id"] for entry in self.result["entries"]))
        failure: t.Optional[PpinError] = None
        for hsm, ids in slot_ids.items():
            failure = self.ppin.login(name, hsm, ids[0] if len(ids) > 1 else None)
            if failure is None:
                return "ok", None
            if failure.is_rejection:
                return "rejected", failure
            if failure.cls != "transient":
                break
        return "unreachable", failure
