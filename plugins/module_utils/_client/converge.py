# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""One run of ppin_secret, ppin_proxy or ppin_credentials: observe, plan, apply and verify each credential.

What the credentials of a run share is in _Client, what is done to each of them in _Change.
"""

import contextlib
import os
import signal
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client import plan as _plan
from ansible_collections.hsmops.primus.plugins.module_utils._client.control import with_control
from ansible_collections.hsmops.primus.plugins.module_utils._client.credentials import Credential
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_ARGUMENTS, GateSays
from ansible_collections.hsmops.primus.plugins.module_utils._client.ledger import Ledger, follow
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.login import note_logins
from ansible_collections.hsmops.primus.plugins.module_utils._client.places import leftovers
from ansible_collections.hsmops.primus.plugins.module_utils._client.plan import Observed, plan
from ansible_collections.hsmops.primus.plugins.module_utils._client.primus_cfg import Slot
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import (
    WorkingCopy,
    remove_leftovers,
    warn_of,
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

ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = dict(
    PPIN_ARGUMENTS,
    state={"type": "str", "choices": list(_plan.STATES), "default": "present"},
    force={"type": "bool", "default": False},
    retries={"type": "int", "default": 2},
    backup={"type": "bool", "default": False},
    in_place={"type": "bool", "default": False},
    **GATE_ARGUMENTS,
)
"""The options of the doc fragments `ppin`, `ppin.credential` and `ppin.gate`, and `state`."""

_SHOWN = {CONFIGURED: "Configured", MISSING: "MISSING", NOT_LISTED: "not in primus.cfg"}
_DONE = {_plan.ADD: "added", _plan.UPDATE: "updated", _plan.REMOVE: "removed"}
_VERIFIED = {"ok": True, "rejected": False, "unreachable": None}
_DOING = {_plan.ADD: "Adding", _plan.UPDATE: "Updating", _plan.REMOVE: "Removing"}


ENDS_THE_RUN = ("timeout", "dialogue")
"""Classes of errors after which ppin is not run again for the credentials that follow: each would take as long."""

Result = t.Dict[str, t.Any]


def run_credential_module(module: AnsibleModule, credential: Credential) -> None:
    """Do what the options of a module for one credential ask for, and leave through exit_json or fail_json."""
    (result,) = converge(module, [credential])
    (module.fail_json if result.get("failed") else module.exit_json)(**result)


def converge(module: AnsibleModule, credentials: t.Sequence[Credential]) -> t.List[Result]:
    """Set or remove credentials, in this order. The result of each is that of ppin_secret or ppin_proxy.

    One that fails does not stop those that do not need it. Bad input stops all of them before anything is touched.
    """
    changes = [_Change(module, credential, len(credentials) == 1) for credential in credentials]
    with contextlib.ExitStack() as stack:
        try:
            for change in changes:
                change.credential.check()
            if module.params["retries"] < 0:
                raise PpinError("retries must be at least 0", cls="config", hint="Set retries to at least 0.")
            client = _Client(module)
            if client.has_no_secrets and all(change.credential.absent for change in changes):
                return [change.outcome() for change in changes]
            for change in changes:
                change.enter(client, stack)
            stack.enter_context(locked(client.ppin.paths.secrets, client.ppin.timeout))
            client.begin()
        except Exception as exc:  # so that the result tells in any case what was tried
            for change in changes:
                change.fail(_as_error(exc))
            return [change.outcome() for change in changes]
        try:
            for change in changes:
                change.run(client)
        finally:
            client.end()
    return [change.outcome(client.interrupted) for change in changes]


def _not_tried(credential: Credential, because: PpinError) -> PpinError:
    msg = "The %s of '%s' was not tried, as ppin failed before: %s" % (credential.label, credential.name, because.msg)
    return PpinError(msg, cls="state", hint=because.hint)


def _as_error(exc: Exception) -> PpinError:
    if isinstance(exc, PpinError):
        return exc
    return error_from_os_error(exc) if isinstance(exc, OSError) else error_from_crash(exc)


class _Client:
    """What the credentials of one run share.

    :ivar listing: as it is now; in check mode, as it would be.
    :ivar slots: of primus.cfg.
    :ivar pending: kinds and names of what check mode only says that it would change.
    :ivar retries: how often to try again when the HSM is not reached.
    :ivar stopped: why ppin is not run again for the credentials that follow, or None.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.ppin = DialoguePpin(find_paths(module.params, module.get_bin_path), module.params["timeout"])
        self.says = GateSays.of(module.params)
        self.retries: int = module.params["retries"]
        self.pending: t.Set[t.Tuple[str, str]] = set()
        self.stopped: t.Optional[PpinError] = None
        self.interrupted = False
        self.ledger: Ledger
        self._listing: t.Optional[Listing] = None
        self._slots: t.Optional[t.List[Slot]] = None

    @property
    def has_no_secrets(self) -> bool:
        """Whether nothing can be removed: a host that was decommissioned, or never set up."""
        return not os.path.lexists(self.ppin.paths.secrets)

    def begin(self) -> None:
        """Observe what concerns all credentials, having the lock."""
        paths = self.ppin.paths
        self.interrupted = bool(leftovers(paths.secrets, paths.config))
        if not self.module.check_mode:
            warn_of(self.module, remove_leftovers(paths.secrets, paths.config))
        self.ledger = Ledger(paths.secrets)
        if self.ledger.problem:
            self.module.warn(
                "%s. It counts as empty: a setup password that was spent already may be spent again. The next change "
                "sets it aside, beside the new one." % self.ledger.problem
            )

    def end(self) -> None:
        if self._listing is not None:
            follow(self.module, self.ledger)

    @property
    def listing(self) -> Listing:
        """:raises PpinError: when there is none."""
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
    """What is done to one credential, and what came of it."""

    def __init__(self, module: AnsibleModule, credential: Credential, alone: bool) -> None:
        self.module = module
        self.params = module.params
        self.credential = credential
        self.alone = alone  # otherwise others of this run may have changed the file
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
        self.proxy_users: t.List[str] = []  # which stand, or may stand, before the partition
        self.entry: t.Dict[str, t.Optional[str]] = {}  # what is known of the one that was there
        self.client: _Client
        self.ppin: DialoguePpin

    def enter(self, client: _Client, stack: contextlib.ExitStack) -> None:
        """Find the ppin that can do it. :raises OSError, PpinError: when there is none."""
        self.client = client
        paths, timeout = client.ppin.paths, client.ppin.timeout
        if self.credential.absent:
            paths = stack.enter_context(self.credential.path_to_remove(paths, timeout, self.module.warn))
        self.ppin = client.ppin if paths == client.ppin.paths else DialoguePpin(paths, timeout)
        self.ppin.check_files()

    def run(self, client: _Client) -> None:
        if client.stopped is not None:
            self.fail(_not_tried(self.credential, client.stopped))
            return
        logins = self.ppin.logins
        try:
            self.converge()
        except Exception as exc:  # so that the result tells in any case what was tried
            error = _as_error(exc)
            self.fail(error)
            if error.cls in ENDS_THE_RUN:
                client.stopped = error
            elif error.cls == "transient":
                client.retries = 0
        finally:
            self.result["logins"] = self.ppin.logins - logins

    def fail(self, exc: PpinError) -> None:
        left = ""
        if exc.cls == "rejected" and self.proxy_users:
            exc.hint += " Or the service proxy rejected the password of %s." % quoted(self.proxy_users)
        if self.result["rolled_back"]:
            left = ".secrets.cfg is as it was before." if self.alone else "It is as it was before."
        elif not self.result["changed"]:
            left = "Nothing was changed." if self.alone else "It was not changed."
        self.result.update(failed=True, **exc.failure(left))

    def outcome(self, interrupted: bool = False) -> Result:
        return with_control(dict(self.result, interrupted=interrupted), self.entry)

    def converge(self) -> None:
        listing = self.listing
        self.tell_entries(listing)
        action, seen = self.decide(listing)
        if action == _plan.NONE:
            return
        if action != _plan.REMOVE:
            self.check_passwords()
            import_pexpect()
        diff = self.diff(action, seen)
        if self.module.check_mode:
            self.listing = self.foreseen(action, listing)
        else:
            for number in (signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, self.ppin.on_signal)  # from here on, the working copy is removed first
            self.apply(action)
            self.note(action)
        self.result.update(changed=True, action=_DONE[action], diff=diff)
        if action != _plan.REMOVE and self.credential.verify != "never" and not self.module.check_mode:
            self.verify()

    # Observe

    @property
    def listing(self) -> Listing:
        return self.client.listing if self.ppin is self.client.ppin else self.ppin.listing()

    @listing.setter
    def listing(self, listing: Listing) -> None:
        if self.ppin is self.client.ppin:
            self.client.listing = listing

    def foreseen(self, action: str, listing: Listing) -> Listing:
        """What ppin would list after the action, so that check mode can tell what follows for other credentials."""
        credential = self.credential
        self.client.pending.add((credential.kind, credential.name))
        entries = [entry._replace(configured=action != _plan.REMOVE) for entry in credential.entries(listing)]
        kind = dict(getattr(listing, credential.kind), **{credential.name: entries})
        return listing._replace(**{credential.kind: kind})

    def decide(self, listing: Listing) -> t.Tuple[str, Observed]:
        """The action to take, and what it was decided on. :raises PpinError: when there is none."""
        credential, client = self.credential, self.client
        ledger, state = client.ledger, credential.params["state"]
        entry = entry_state(credential.entries(listing))
        wanted = not credential.absent and entry == CONFIGURED
        password = credential.password
        missing_proxy: t.Optional[str] = None
        own: t.List[Slot] = []
        if credential.logs_in:
            if not credential.absent:
                own = credential.own_slots(client.slots)
                missing_proxy = credential.missing_proxy(listing, client.slots)
            self.proxy_users = list({slot.proxy_user for slot in own if slot.proxy_user})
            if self.ppin.config_problem:
                self.proxy_users = list(listing.service_users)
            self.entry = {
                "origin": ledger.origin(credential.name),
                "since": ledger.since("partitions", credential.name),
            }
            vouched = [ledger.accepted_within(user, self.params["gate_window"]) for user in self.proxy_users]
            self.result["proxy_vouched"] = all(vouched)

        def observe(login: t.Optional[str]) -> Observed:
            # The fingerprint costs some 20 ms: only when the plan asks for it.
            asked = wanted and password is not None and (state == "updated" or login == "rejected")
            same = asked and ledger.same(credential.kind, credential.name, t.cast(str, password))
            return Observed(entry, same, login, missing_proxy is not None)

        seen = observe(None)
        action = plan(state, self.params["force"], seen)
        failure = None
        look = action == _plan.NONE and wanted and credential.verify == "always"
        # A login with the password that is there would not tell what one with the new password will.
        look = look and not client.pending & {("service_users", user) for user in self.proxy_users}
        if credential.logs_in and (look or action in (_plan.ADD, _plan.UPDATE)):
            self.check_config(own)
        if look:
            failure = self.known_stale()
            login = "rejected"
            if failure is None:
                login, failure = self.login()
                note_logins(self.module, ledger, {credential.name: _VERIFIED[login]}, client.says.look)
            self.result["verified"] = _VERIFIED[login]
            seen = observe(login)
            action = plan(state, self.params["force"], seen)
        self.explain(action, listing, missing_proxy, failure)
        return action, seen

    def check_config(self, own: t.Sequence[Slot]) -> None:
        """Say what it costs that primus.cfg is not understood.

        :arg own: the slots of the partition in primus.cfg.
        :raises PpinError: when it is, and a login will be needed, and it does not tell where.
        """
        name, verify = self.credential.name, self.credential.verify != "never"
        if self.ppin.config_problem:
            self.module.warn(
                "primus.cfg is not understood: %s. Service proxy passwords that '%s' needs are therefore not checked%s."
                % (self.ppin.config_problem, name, ", and the login is tried at each of its HSMs" if verify else "")
            )
        elif verify and not own:
            raise PpinError(
                "primus.cfg names no HSM for '%s', which ppin lists" % name,
                cls="config",
                hint="No login was spent. Check that %s is the file that ppin reads and names the partition as ppin "
                "lists it, or set verify to never." % self.ppin.paths.config,
            )

    def known_stale(self) -> t.Optional[PpinError]:
        """What is known without a login of the credential that is there, or None."""
        name, found = self.credential.name, ""
        ledger, says = self.client.ledger, self.client.says
        if name in says.checked and ledger.rejected(name):
            found = "as a login found at %s" % ledger.rejected(name)
        elif ledger.origin(name) in says.stale:
            found = "as logins of other clients with a secret of the same origin found"
        if not found:
            return None
        return PpinError("The HSM rejects the %s of '%s', %s" % (self.credential.label, name, found), cls="rejected")

    def explain(
        self, action: str, listing: Listing, missing_proxy: t.Optional[str], failure: t.Optional[PpinError]
    ) -> None:
        """Say why nothing can be done. :raises PpinError: for the plans that are failures."""
        name, label = self.credential.name, self.credential.label
        if action == _plan.FAIL_NOT_LISTED:
            raise not_listed_error(name, self.credential.listed(listing))
        if action == _plan.FAIL_PROXY:
            raise PpinError(
                "The service proxy password of '%s', the service user of '%s', is MISSING" % (missing_proxy, name),
                cls="config",
                hint="Set it first with hsmops.primus.ppin_proxy. No login was spent.",
            )
        if failure and action == _plan.FAIL_UNREACHABLE:
            raise PpinError(
                "The %s of '%s' could not be verified: %s" % (label, name, failure.msg), failure.code, failure.cls
            )
        if failure and action == _plan.FAIL_SPENT:
            raise PpinError(
                "%s, and the setup password given is the one that made this secret" % failure.msg,
                failure.code,
                failure.cls,
                HINTS["expired"],
            )

    def tell_entries(self, listing: Listing) -> None:
        self.result["entries"] = [entry.as_result() for entry in self.credential.entries(listing)]

    def diff(self, action: str, seen: Observed) -> t.Dict[str, str]:
        credential = self.credential
        before, after = _SHOWN[seen.entry], "MISSING" if action == _plan.REMOVE else "Configured"
        if action == _plan.UPDATE:
            before += ", since %s" % (self.client.ledger.since(credential.kind, credential.name) or "an unknown time")
            after += ", with the %s given" % credential.passwords[0].replace("_", " ")
        line = "%s of %s: %%s\n" % (credential.label, credential.name)
        return {"before": line % before, "after": line % after}

    # Apply

    def check_passwords(self) -> None:
        """:raises PpinError: when one that is needed was not given."""
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
        """Change the credential, or leave everything as it was. :raises PpinError:"""
        ppin, attempt = self.ppin, 0
        while True:
            try:
                with WorkingCopy(ppin.paths.secrets, self.params["in_place"]) as copy:
                    self.result["rolled_back"] = True  # unless what ppin does from here on is put in place
                    ppin.secrets_path = copy.path
                    listing = self.change(action)
                    backup = "%s.%d.%s~" % (ppin.paths.secrets, os.getpid(), time.strftime("%Y-%m-%d@%H:%M:%S"))
                    copy.put_in_place(backup if self.params["backup"] else None)
                break
            except PpinError as exc:
                if exc.cls != "transient" or attempt >= self.client.retries:
                    raise
            finally:
                ppin.secrets_path = ppin.paths.secrets
            time.sleep(2**attempt)
            attempt += 1
        self.result["rolled_back"] = False
        if self.params["backup"]:
            self.result["backup_file"] = backup
        self.listing = listing
        self.tell_entries(listing)

    def change(self, action: str) -> Listing:
        """Have ppin change the credential in the file it works on; what it lists then. :raises PpinError:"""
        credential = self.credential
        {_plan.ADD: credential.add, _plan.UPDATE: credential.update, _plan.REMOVE: credential.remove}[action](self.ppin)
        listing = self.ppin.listing()
        entry = entry_state(credential.entries(listing))
        if (entry == CONFIGURED) != (action != _plan.REMOVE):
            raise PpinError(
                "%s the %s of '%s' had no effect: ppin -l says %s afterwards"
                % (_DOING[action], credential.label, credential.name, _SHOWN[entry])
            )
        return listing

    def note(self, action: str) -> None:
        credential, ledger = self.credential, self.client.ledger
        try:
            if action == _plan.REMOVE:
                ledger.forget(credential.kind, credential.name)
            else:
                origin = self.client.says.origins.get(credential.name)
                password = t.cast(str, credential.password)
                ledger.remember(credential.kind, credential.name, password, origin, self.proxy_users)
        except (OSError, ValueError) as exc:  # ValueError: FIPS mode refuses the password
            self.module.warn(
                "The ledger %s cannot be written (%s): state=updated will spend this password once more."
                % (ledger.path, getattr(exc, "strerror", None) or exc)
            )

    # Verify

    def verify(self) -> None:
        """Log in once with what was fetched. :raises PpinError: unless it works; what was fetched stays."""
        try:
            login, failure = self.login()
            self.result["verified"] = _VERIFIED[login]
            note_logins(self.module, self.client.ledger, {self.credential.name: _VERIFIED[login]})
        except PpinError as exc:  # such as a ppin that hangs
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
        """One login, at the first HSM that can be reached: `ok`, `rejected` or `unreachable`, and what ppin said.

        Where primus.cfg is not understood, it is one at each HSM of the partition.
        """
        name = self.credential.name
        slot_ids: t.Dict[t.Optional[str], t.List[t.Optional[int]]] = {}
        for slot in self.credential.own_slots(self.client.slots):
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
