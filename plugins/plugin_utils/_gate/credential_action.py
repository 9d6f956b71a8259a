# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Base class of the action plugins of modules that are given passwords: observe, get permits, run, record.

Every host takes permits and turns in the same order (rules.order), so hosts cannot wait for each other in a ring,
whatever strategy, forks, serial or throttle a play has.
"""

from __future__ import annotations

import contextlib
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.collections import is_string
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.gated_action import GatedAction, Result, display
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.open_store import open_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate, Subject
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import (
    NOT_TRIED,
    PresentSecret,
    count_logins,
    present_secret,
    verdict_on_credential,
    verdict_on_secret,
)

_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a dictionary"}


class GatedCredential:
    """One credential of a task, and its outcome. Subclasses define which passwords the module tries together.

    :arg name: of the partition or service user; None when it is not given.
    :arg options: the options of this credential, with its passwords.
    :cvar passwords: the options with its passwords.
    :cvar runs_always: whether the module uses the passwords in every run, not only when something is to be changed.
    :ivar outcome: the module's last result for it, or the refusal of the gate.
    :ivar entry: the permanent secret that the client has.
    :ivar logins: number of logins that observations have made with it.
    """

    passwords: t.Tuple[str, ...] = ()
    runs_always = False

    def __init__(self, name: t.Optional[str], options: t.Mapping[str, t.Any]) -> None:
        self.name = name
        self.options = options
        self.outcome: Result = {}
        self.entry = PresentSecret()
        self.logins = 0

    def subject(self, gate: Gate) -> Subject:
        """Return what the module tries, as the gate identifies it."""
        raise NotImplementedError

    @property
    def vouched(self) -> bool:
        """Whether a rejection can only be about these passwords, and not about one of a service proxy."""
        return self.outcome.get("proxy_vouched") is not False

    @property
    def usable(self) -> bool:
        """Whether all passwords are given, and the state is not absent, so that the module may try them."""
        given = all(self.options.get(option) is not None for option in self.passwords)
        return given and self.name is not None and self.options.get("state") != "absent"

    @property
    def verifies(self) -> bool:
        """Whether the module also logs in with the present permanent secret."""
        always = self.options.get("verify") == "always"
        return always and self.name is not None and self.options.get("state") != "absent"

    @property
    def needs_run(self) -> bool:
        return (self.runs_always or bool(self.outcome.get("changed"))) and not self.outcome.get("failed")

    def refuse(self, exc: rules.AttemptRefused) -> None:
        """Set the outcome to the refusal of the gate."""
        self.outcome = {**self.outcome, **exc.failure(), "action": "none"}
        self.outcome.pop("diff", None)

    def check_types(self) -> None:
        """:raises AnsibleActionFail: when a password is no string."""
        for option in self.passwords:
            password = self.options.get(option)
            if password is not None and not is_string(password):  # YAML may have changed an unquoted password
                kind = next((name for kind, name in _KINDS.items() if isinstance(password, kind)), "no string")
                problem = f"{option} is {kind}, and must be a string: put it in quotes, or use | string."
                raise AnsibleActionFail(problem + " Nothing was tried.")


class GatedSecret(GatedCredential):
    """A setup password and its PKCS#11 password, which has a record of its own in the gate's store."""

    passwords = ("setup_password", "pkcs11_password")

    def subject(self, gate: Gate) -> Subject:
        setup, pin = (str(self.options[option]) for option in self.passwords)
        name = str(self.name)
        return gate.password_subject(rules.SECRET, name, setup)._replace(
            parts=(gate.password_subject(rules.PIN, name, pin),)
        )


class GatedProxiedSecret(GatedSecret):
    """The same, and the password of the service user in front of the partition, if it is given."""

    def subject(self, gate: Gate) -> Subject:
        setup = super().subject(gate)
        user, password = self.options.get("proxy_user"), self.options.get("proxy_password")
        if password is None:
            return setup
        proxy = gate.password_subject(rules.PROXY, str(user), str(password))
        if gate.accepted(proxy):
            return setup._replace(parts=(*setup.parts, proxy))
        # ppin does not report which of the two was rejected, so they are one subject.
        return gate.combined_subject(setup, proxy)

    @property
    def vouched(self) -> bool:
        return self.options.get("proxy_password") is not None or super().vouched


class GatedProxyPassword(GatedCredential):
    """A service proxy password."""

    passwords = ("password",)

    def subject(self, gate: Gate) -> Subject:
        return gate.password_subject(rules.PROXY, str(self.name), str(self.options["password"]))


class CredentialAction(GatedAction):
    """Base class. As it is here, it is for a module with one credential; ppin_credentials has several.

    :cvar credential_class: of the module's credential.
    :cvar single_try: options that turn off retries, for when another host has just not reached the HSM.
    """

    credential_class: t.Type[GatedCredential] = GatedCredential
    single_try: t.Mapping[str, t.Any] = {}

    def _run_with_gate(self, options: t.Mapping[str, t.Any]) -> Result:
        for credential in self._credentials:
            credential.check_types()
        verifies = any(credential.verifies for credential in self._credentials)
        if self._task.check_mode and not verifies and open_store(options["gate_store"]).is_new():
            return self._run_without_gate()  # check mode must not create the store
        gate = self._open_gate(options)
        if verifies or self._task.check_mode:
            return self._observe_and_try(gate)
        return self._try_without_observing(gate)

    # What differs between the modules

    def _read_options(self) -> None:
        self._credentials: t.Sequence[GatedCredential] = [self.credential_class(self._credential_name, self._arguments)]

    def _run_for(
        self, credentials: t.Sequence[GatedCredential], check: t.Optional[bool] = None, **changes: t.Any
    ) -> Result:
        """Run the module for these credentials, and store the outcome of each."""
        result = self._run_module(check, **changes)
        self._store_outcomes(credentials, [result])
        return result

    def _task_result(self, result: Result) -> Result:
        """Return the result of the task, from the outcomes so far.

        :arg result: of the last run of the module.
        """
        return self._credentials[0].outcome

    # What is the same for all modules

    def _findings_for_secrets(self, gate: Gate, credentials: t.Sequence[GatedCredential]) -> t.Dict[str, t.Any]:
        """Return the option gate_findings for a module that fetches permanent secrets."""
        fetched = [credential for credential in credentials if credential.options.get("setup_password") is not None]
        origins = {str(each.name): gate.origin(str(each.name), str(each.options["setup_password"])) for each in fetched}
        return {"gate_findings": {"stale": self._stale, "checked": self._checked, "origins": origins}}

    def _needs_gate(self) -> bool:
        return any(credential.usable or credential.verifies for credential in self._credentials)

    def _store_outcomes(self, credentials: t.Sequence[GatedCredential], outcomes: t.Sequence[Result]) -> None:
        for credential, outcome, facts in zip(credentials, outcomes, self._control_data):
            credential.outcome, credential.entry = outcome, present_secret(facts)

    def _try_without_observing(self, gate: Gate) -> Result:
        """Use credentials that other hosts of this run have used, without an observation of this host first."""
        if not all(credential.usable and not credential.runs_always for credential in self._credentials):
            return self._observe_and_try(gate)
        subjects = {credential: credential.subject(gate) for credential in self._credentials}
        with gate.early_permission(list(subjects.values())) as permitted:
            if permitted:
                return self._run_and_record(gate, self._credentials, subjects, {})
            return self._observe_and_try(gate)

    def _observe_and_try(self, gate: Gate) -> Result:
        # In check mode the module spends no password. Most hosts need no change and are done after this run.
        never = {"verify": "never"} if any(credential.verifies for credential in self._credentials) else {}
        result = self._run_for(self._credentials, check=True, **never)
        interrupted = bool(result.get("interrupted"))
        if never and not interrupted:
            result = self._verify(gate, result)
        if self._task.check_mode:
            self._check_permissions(gate)
            return self._task_result(result)
        needed = [credential for credential in self._credentials if credential.needs_run]
        if needed:
            return self._use_credentials(gate, needed, result)
        if interrupted and not result.get("failed"):
            self._clean_up()
        return self._task_result(result)

    def _check_permissions(self, gate: Gate) -> None:
        for credential in self._credentials:
            if credential.needs_run and credential.usable:
                try:
                    gate.check_permission(credential.subject(gate), credential.vouched)
                except rules.AttemptRefused as exc:
                    credential.refuse(exc)

    def _verify(self, gate: Gate, result: Result) -> Result:
        """Run the module to log in with the present secrets, or to report that other clients have found them stale."""
        credentials = [
            credential
            for credential in self._credentials
            if credential.verifies and not credential.outcome.get("failed")
        ]
        credentials = [credential for credential in credentials if not credential.outcome.get("changed")]
        with contextlib.ExitStack() as held:
            subjects: t.Dict[GatedCredential, Subject] = {}
            stale: t.Dict[GatedCredential, t.Any] = {}
            with self._withdraw_on_gate_error(gate, subjects):
                permanent = [
                    (credential, gate.secret_subject(str(credential.name), credential.entry))
                    for credential in credentials
                ]
                for credential, subject in _in_order(permanent):
                    try:
                        held.enter_context(gate.permission(subject))
                        subjects[credential] = subject
                    except rules.StaleSecret as exc:
                        stale[credential] = exc.record
                    except rules.AttemptRefused as exc:
                        credential.refuse(exc)
            credentials = [credential for credential in credentials if credential in subjects or credential in stale]
            if not credentials:
                return result
            self._stale = [credential.entry.origin for credential in stale]
            # If the task is in check mode, the module must not write the verdict to the ledger.
            findings = {"record": not self._task.check_mode, "stale": self._stale}
            result = self._run_for(credentials, check=True, gate_findings=findings)
            for credential in credentials:
                credential.logins += count_logins(credential.outcome) or 0
                if credential in subjects:
                    with rules.warn_on_gate_error(display.warning):
                        gate.record_verdict(subjects[credential], verdict_on_secret(credential.outcome))
                elif credential.outcome.get("failed"):
                    credential.outcome["msg"] += f" {rules.witnesses_sentence(stale[credential])}"
        self._checked = [str(credential.name) for credential in subjects]
        return result

    _stale: t.Sequence[t.Optional[str]] = ()  # origins that other hosts have found to be rejected
    _checked: t.Sequence[str] = ()  # partitions to which an observation of this task has logged in

    def _use_credentials(self, gate: Gate, credentials: t.Sequence[GatedCredential], result: Result) -> Result:
        """Use the credentials, each as soon as the gate permits it."""
        while credentials:
            now, credentials = _without_shared_names(credentials)
            result = self._use_together(gate, now, result)
        return self._task_result(result)

    def _use_together(self, gate: Gate, credentials: t.Sequence[GatedCredential], result: Result) -> Result:
        with contextlib.ExitStack() as held:
            subjects: t.Dict[GatedCredential, Subject] = {}
            changes: t.Mapping[str, t.Any] = {}
            given = [(credential, credential.subject(gate)) for credential in credentials if credential.usable]
            with self._withdraw_on_gate_error(gate, subjects):
                for credential, subject in _in_order(given):
                    try:
                        if held.enter_context(gate.permission(subject, credential.vouched)):
                            changes = self.single_try
                        subjects[credential] = subject
                    except rules.AttemptRefused as exc:
                        credential.refuse(exc)
            allowed = [credential for credential in credentials if credential in subjects or not credential.usable]
            if not allowed:
                if any(credential.outcome.get("interrupted") for credential in credentials):
                    self._clean_up()
                return result
            return self._run_and_record(gate, allowed, subjects, changes)

    @contextlib.contextmanager
    def _withdraw_on_gate_error(self, gate: Gate, subjects: t.Mapping[t.Any, Subject]) -> t.Iterator[None]:
        """If the gate fails, record that nothing was tried with the permissions that this host has got so far."""
        try:
            yield
        except GateError:
            for subject in subjects.values():
                with rules.warn_on_gate_error(display.warning):
                    gate.record_verdict(subject, NOT_TRIED)
            raise

    def _run_and_record(
        self,
        gate: Gate,
        credentials: t.Sequence[GatedCredential],
        subjects: t.Mapping[GatedCredential, Subject],
        changes: t.Mapping[str, t.Any],
    ) -> Result:
        """Run the module with credentials that the gate permits, and record the verdict on each."""
        result = self._run_for(credentials, **changes, **self._gate_findings(gate, credentials))
        for credential in credentials:
            logins = count_logins(credential.outcome)
            if credential in subjects:
                with rules.warn_on_gate_error(display.warning):
                    gate.record_verdict(
                        subjects[credential], verdict_on_credential(credential.outcome), credential.vouched
                    )
            if logins is not None:
                credential.outcome["logins"] = logins + credential.logins
        return self._task_result(result)

    def _gate_findings(self, gate: Gate, credentials: t.Sequence[GatedCredential]) -> t.Dict[str, t.Any]:
        """Return the option gate_findings, for a module that has it."""
        return {}

    def _clean_up(self) -> None:
        """Run the module without passwords to remove leftovers of an interrupted run. Its result is ignored."""
        without_login: t.Dict[str, t.Any] = (
            {"verify": "never"} if any(credential.verifies for credential in self._credentials) else {}
        )
        self._run_module(**dict.fromkeys(self.credential_class.passwords), **without_login)


def _in_order(subjects: t.Sequence[t.Tuple[GatedCredential, Subject]]) -> t.Sequence[t.Tuple[GatedCredential, Subject]]:
    return sorted(subjects, key=lambda pair: rules.order(pair[1]))


def _without_shared_names(
    credentials: t.Sequence[GatedCredential],
) -> t.Tuple[t.List[GatedCredential], t.List[GatedCredential]]:
    """Split credentials into those that can be used at once, and those that share a name with one of them.

    All logins of a name share the permits of that name, and a host that holds one must not wait for another.
    """
    now: t.List[GatedCredential] = []
    later: t.List[GatedCredential] = []
    names: t.Set[str] = set()
    for credential in credentials:
        shared = credential.usable and str(credential.name) in names
        (later if shared else now).append(credential)
        if credential.usable:
            names.add(str(credential.name))
    return now, later
