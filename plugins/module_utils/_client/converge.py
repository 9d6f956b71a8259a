# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""One run of ppin_secret or ppin_proxy: observe, plan, apply, verify."""

import os
import signal
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client import plan as _plan
from ansible_collections.hsmops.primus.plugins.module_utils._client.control import with_control
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_ARGUMENTS, GateSays
from ansible_collections.hsmops.primus.plugins.module_utils._client.ledger import Ledger
from ansible_collections.hsmops.primus.plugins.module_utils._client.login import follow, note_logins
from ansible_collections.hsmops.primus.plugins.module_utils._client.places import leftovers
from ansible_collections.hsmops.primus.plugins.module_utils._client.plan import Observed, plan
from ansible_collections.hsmops.primus.plugins.module_utils._client.primus_cfg import Slot
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import (
    WorkingCopy,
    locked,
    remove_leftovers,
    warn_of,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.dialogue import TalkingPpin, import_pexpect
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    HINTS,
    PpinError,
    from_crash,
    from_os_error,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import (
    CONFIGURED,
    MISSING,
    NOT_LISTED,
    Entry,
    Listing,
    entry_state,
    not_listed,
    quoted,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import ARGUMENTS as PPIN_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import check_name, check_secret, find_paths

ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = dict(
    PPIN_ARGUMENTS,
    state={"type": "str", "choices": ["present", "updated", "absent"], "default": "present"},
    force={"type": "bool", "default": False},
    retries={"type": "int", "default": 2},
    backup={"type": "bool", "default": False},
    in_place={"type": "bool", "default": False},
    **GATE_ARGUMENTS,
)
"""The options of the doc fragments C(ppin), C(ppin.credential) and C(ppin.gate), and C(state)."""

_SHOWN = {CONFIGURED: "Configured", MISSING: "MISSING", NOT_LISTED: "not in primus.cfg"}
_DONE = {_plan.ADD: "added", _plan.UPDATE: "updated", _plan.REMOVE: "removed"}
_VERIFIED = {"ok": True, "rejected": False, "unreachable": None}
_DOING = {_plan.ADD: "Adding", _plan.UPDATE: "Updating", _plan.REMOVE: "Removing"}


class Credential:
    """What differs between a permanent secret and a service proxy password. One instance per module run."""

    kind = ""  # the part of the listing and of the ledger: "partitions" or "service_users"
    label = ""  # "permanent secret" or "service proxy password"
    passwords: t.Tuple[str, ...] = ()  # the options that an add or update needs; the ledger knows the first
    result_key = ""  # under which key the result names it
    verify = "never"  # "changed", "always" or "never"

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self.params = params
        self.name: str = params[self.result_key]

    def check(self) -> None:
        """Refuse bad input before anything runs. :raises PpinError:"""
        check_name(self.result_key, self.name)
        if self.params["state"] != "absent":
            for option in self.passwords:
                check_secret(option, self.params[option])

    def add(self, ppin: TalkingPpin) -> None:
        raise NotImplementedError

    def update(self, ppin: TalkingPpin) -> None:
        raise NotImplementedError

    def remove(self, ppin: TalkingPpin) -> None:
        raise NotImplementedError

    def missing_proxy(self, listing: Listing, slots: t.Sequence[Slot]) -> t.Optional[str]:
        """The service user whose password must be set first, or None."""
        return None


def run_credential_module(module: AnsibleModule, credential: Credential) -> None:
    """Do what the module's parameters ask for and leave through exit_json or fail_json."""
    run = _Run(module, credential)
    try:
        run.run()
    except PpinError as exc:
        run.fail(exc)
    except OSError as exc:
        run.fail(from_os_error(exc))
    except Exception as exc:  # so that the result tells in any case what was tried
        run.fail(from_crash(exc))
    module.exit_json(**with_control(run.result, run.entry))


class _Run:
    def __init__(self, module: AnsibleModule, credential: Credential) -> None:
        self.module = module
        self.params = module.params
        self.credential = credential
        self.result: t.Dict[str, t.Any] = {
            "changed": False,
            "action": "none",
            credential.result_key: credential.name,
            "entries": [],
            "interrupted": False,
            "logins": 0,
            "rolled_back": False,
        }
        if credential.kind == "partitions":
            self.result.update(verified=None, proxy_vouched=True)
        self.proxy_users: t.List[str] = []  # which stand, or may stand, before the partition
        self.says = GateSays.of(module.params)
        self.entry: t.Dict[str, t.Optional[str]] = {}  # what is known of the one that was there

    def fail(self, exc: PpinError) -> None:
        left = ""
        if exc.cls == "rejected" and self.proxy_users:
            exc.hint += " Or the service proxy rejected the password of %s." % quoted(self.proxy_users)
        if self.result["rolled_back"]:
            left = ".secrets.cfg is as it was before."
        elif not self.result["changed"]:
            left = "Nothing was changed."
        self.module.fail_json(**with_control(dict(self.result, **exc.failure(left)), self.entry))

    def run(self) -> None:
        self.credential.check()
        if self.params["retries"] < 0:
            raise PpinError("retries must be at least 0", cls="config", hint="Correct the option retries.")
        ppin = TalkingPpin(find_paths(self.params, self.module.get_bin_path), self.params["timeout"])
        if self.params["state"] == "absent" and not os.path.lexists(ppin.paths.secrets):
            return  # no secrets file, no secret: a host that was decommissioned, or never set up
        ppin.check_files()
        with locked(ppin.paths.secrets, ppin.timeout):
            try:
                self.converge(ppin)
            finally:
                self.result["logins"] = ppin.logins

    def converge(self, ppin: TalkingPpin) -> None:
        self.result["interrupted"] = bool(leftovers(ppin.paths.secrets, ppin.paths.config))
        if not self.module.check_mode:
            warn_of(self.module, remove_leftovers(ppin.paths.secrets, ppin.paths.config))
        ledger = Ledger(ppin.paths.secrets)
        if ledger.problem:
            self.module.warn(
                "%s. It counts as empty: a setup password that was spent already may be spent again. The next change "
                "sets it aside, beside the new one." % ledger.problem
            )
        try:
            self.converge_with(ppin, ledger)
        finally:
            follow(self.module, ledger)

    def converge_with(self, ppin: TalkingPpin, ledger: Ledger) -> None:
        listing = ppin.listing()
        self.tell_entries(listing)
        action, seen = self.decide(ppin, ledger, listing)
        if action == _plan.NONE:
            return
        if action != _plan.REMOVE:
            self.check_passwords()
            import_pexpect()
        diff = self.diff(action, seen, ledger)
        if not self.module.check_mode:
            for number in (signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, ppin.end)  # from here on, the working copy is removed first
            self.apply(action, ppin)
            self.note(action, ledger)
        self.result.update(changed=True, action=_DONE[action], diff=diff)
        if action != _plan.REMOVE and self.credential.verify != "never" and not self.module.check_mode:
            self.verify(ppin, ledger)

    # Observe

    def decide(self, ppin: TalkingPpin, ledger: Ledger, listing: Listing) -> t.Tuple[str, Observed]:
        """The action to take, and what it was decided on. :raises PpinError: when there is none."""
        credential, state = self.credential, self.params["state"]
        entry = entry_state(getattr(listing, credential.kind).get(credential.name))
        wanted = state != "absent" and entry == CONFIGURED
        password = self.params[credential.passwords[0]]
        slots = ppin.slots() if credential.kind == "partitions" and state != "absent" else []
        missing_proxy = credential.missing_proxy(listing, slots)
        own = [slot for slot in slots if slot.user_name == credential.name]
        self.proxy_users = list({slot.proxy_user for slot in own if slot.proxy_user})
        if ppin.config_problem:
            self.proxy_users = list(listing.service_users)
        if credential.kind == "partitions":
            self.entry = {
                "origin": ledger.origin(credential.name),
                "since": ledger.since("partitions", credential.name),
            }
            vouched = [ledger.accepted_within(user, self.params["gate_window"]) for user in self.proxy_users]
            self.result["proxy_vouched"] = all(vouched)

        def observe(login: t.Optional[str]) -> Observed:
            # The fingerprint costs some 20 ms: only when the plan asks for it.
            asked = wanted and password is not None and (state == "updated" or login == "rejected")
            same = asked and ledger.same(credential.kind, credential.name, password)
            return Observed(entry, same, login, missing_proxy is not None)

        seen = observe(None)
        action = plan(state, self.params["force"], seen)
        failure = None
        look = action == _plan.NONE and wanted and credential.verify == "always"
        if credential.kind == "partitions" and (look or action in (_plan.ADD, _plan.UPDATE)):
            self.check_config(ppin, own)
        if look:
            failure = self.known_stale(ledger)
            login = "rejected"
            if failure is None:
                login, failure = self.login(ppin, slots)
                note_logins(self.module, ledger, {credential.name: _VERIFIED[login]}, self.says.look)
            self.result["verified"] = _VERIFIED[login]
            seen = observe(login)
            action = plan(state, self.params["force"], seen)
        self.explain(action, listing, missing_proxy, failure)
        return action, seen

    def check_config(self, ppin: TalkingPpin, own: t.Sequence[Slot]) -> None:
        """Say what it costs that primus.cfg is not understood.

        :arg own: the slots of the partition in primus.cfg.
        :raises PpinError: when it is, and a login will be needed, and it does not tell where.
        """
        name, verify = self.credential.name, self.credential.verify != "never"
        if ppin.config_problem:
            self.module.warn(
                "primus.cfg is not understood: %s. So it is not checked whether a service proxy password that '%s' "
                "needs is missing%s."
                % (ppin.config_problem, name, ", and the login is tried at each of its HSMs" if verify else "")
            )
        elif verify and not own:
            raise PpinError(
                "primus.cfg does not tell at which HSM '%s' is, which ppin lists" % name,
                cls="config",
                hint="No login was spent. Check that %s is the file that ppin reads and names the partition as ppin "
                "lists it, or set verify to never." % ppin.paths.config,
            )

    def known_stale(self, ledger: Ledger) -> t.Optional[PpinError]:
        """What is known without a login of the credential that is there, or None."""
        name, found = self.credential.name, ""
        if self.says.checked and ledger.rejected(name):
            found = "as a login found at %s" % ledger.rejected(name)
        elif ledger.origin(name) in self.says.stale:
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
            raise not_listed(name, getattr(listing, self.credential.kind))
        if action == _plan.FAIL_PROXY:
            raise PpinError(
                "The service proxy password of '%s', which stands before '%s', is MISSING" % (missing_proxy, name),
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
        entries: t.List[Entry] = getattr(listing, self.credential.kind).get(self.credential.name, [])
        self.result["entries"] = [entry.as_result() for entry in entries]

    def diff(self, action: str, seen: Observed, ledger: Ledger) -> t.Dict[str, str]:
        credential = self.credential
        before, after = _SHOWN[seen.entry], "MISSING" if action == _plan.REMOVE else "Configured"
        if action == _plan.UPDATE:
            before += ", since %s" % (ledger.since(credential.kind, credential.name) or "an unknown time")
            after += ", with the %s given" % credential.passwords[0].replace("_", " ")
        line = "%s of %s: %%s\n" % (credential.label, credential.name)
        return {"before": line % before, "after": line % after}

    # Apply

    def check_passwords(self) -> None:
        """:raises PpinError: when one that is needed was not given."""
        missing = [option for option in self.credential.passwords if self.params[option] is None]
        if missing:
            state = "no longer accepted by the HSM" if self.result.get("verified") is False else "to be set"
            raise PpinError(
                "The %s of '%s' is %s, which needs %s"
                % (self.credential.label, self.credential.name, state, " and ".join(missing)),
                cls="config",
                hint="Give %s and run again. No login was spent on it." % " and ".join(missing),
            )

    def apply(self, action: str, ppin: TalkingPpin) -> None:
        """Change the credential, or leave everything as it was. :raises PpinError:"""
        attempt = 0
        while True:
            try:
                with WorkingCopy(ppin.paths.secrets, self.params["in_place"]) as copy:
                    self.result["rolled_back"] = True  # unless what ppin does from here on is put in place
                    ppin.secrets_path = copy.path
                    listing = self.change(action, ppin)
                    backup = "%s.%d.%s~" % (ppin.paths.secrets, os.getpid(), time.strftime("%Y-%m-%d@%H:%M:%S"))
                    copy.put_in_place(backup if self.params["backup"] else None)
                break
            except PpinError as exc:
                if exc.cls != "transient" or attempt >= self.params["retries"]:
                    raise
            finally:
                ppin.secrets_path = ppin.paths.secrets
            time.sleep(2**attempt)
            attempt += 1
        self.result["rolled_back"] = False
        if self.params["backup"]:
            self.result["backup_file"] = backup
        self.tell_entries(listing)

    def change(self, action: str, ppin: TalkingPpin) -> Listing:
        """Have ppin change the credential in the file it works on; what it lists then. :raises PpinError:"""
        credential = self.credential
        {_plan.ADD: credential.add, _plan.UPDATE: credential.update, _plan.REMOVE: credential.remove}[action](ppin)
        listing = ppin.listing()
        entry = entry_state(getattr(listing, credential.kind).get(credential.name))
        if (entry == CONFIGURED) != (action != _plan.REMOVE):
            raise PpinError(
                "%s the %s of '%s' had no effect: ppin -l says %s afterwards"
                % (_DOING[action], credential.label, credential.name, _SHOWN[entry])
            )
        return listing

    def note(self, action: str, ledger: Ledger) -> None:
        credential = self.credential
        try:
            if action == _plan.REMOVE:
                ledger.forget(credential.kind, credential.name)
            else:
                password = self.params[credential.passwords[0]]
                ledger.remember(credential.kind, credential.name, password, self.says.origin, self.proxy_users)
        except (OSError, ValueError) as exc:  # ValueError: FIPS mode refuses the password
            self.module.warn(
                "The ledger %s cannot be written (%s): state=updated will spend this password once more."
                % (ledger.path, getattr(exc, "strerror", None) or exc)
            )

    # Verify

    def verify(self, ppin: TalkingPpin, ledger: Ledger) -> None:
        """Log in once with what was fetched. :raises PpinError: unless it works; what was fetched stays."""
        try:
            login, failure = self.login(ppin, ppin.slots())
            self.result["verified"] = _VERIFIED[login]
            note_logins(self.module, ledger, {self.credential.name: _VERIFIED[login]})
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

    def login(self, ppin: TalkingPpin, slots: t.Sequence[Slot]) -> t.Tuple[str, t.Optional[PpinError]]:
        """One login, at the first HSM that can be reached: C(ok), C(rejected) or C(unreachable), and what ppin said.

        Where primus.cfg is not understood, it is one at each HSM of the partition.
        """
        name = self.credential.name
        slot_ids: t.Dict[t.Optional[str], t.List[t.Optional[int]]] = {}
        for slot in slots:
            if slot.user_name == name:
                slot_ids.setdefault(slot.hsm, []).append(slot.slot_id)
        if not slot_ids:  # the listing has a line for each slot at each HSM
            slot_ids[None] = list(dict.fromkeys(entry["slot_id"] for entry in self.result["entries"]))
        failure: t.Optional[PpinError] = None
        for hsm, ids in slot_ids.items():
            failure = ppin.login(name, hsm, ids[0] if len(ids) > 1 else None)
            if failure is None:
                return "ok", None
            if failure.rejects:
                return "rejected", failure
            if failure.cls != "transient":
                break
        return "unreachable", failure
