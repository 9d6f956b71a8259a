# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What the action plugins do in front of the modules that are given credentials: observe, take permits, run, record.

Permits and turns are taken in one order by every host (see rules.order), so hosts never wait for each other in a ring,
whatever strategy, forks, serial or throttle a play has.
"""

from __future__ import annotations

import contextlib
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.collections import is_string
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.action import GatedAction, Result, display
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate, Subject
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.stores import open_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import (
    NOT_TRIED,
    Entry,
    entry_of,
    judge,
    judge_login,
    logins_of,
)

_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a dictionary"}


class Trial:
    """One credential of a task. A subclass tells what the module tries with it.

    :arg name: of the partition or service user; None when it is not given.
    :arg options: its own, those with its passwords among them.
    :cvar passwords: the options that are tried together.
    :cvar always: whether the module uses them in every run.
    :ivar outcome: what the module last returned of it, or why it was not let try.
    :ivar entry: what the client says of the permanent secret that is there.
    :ivar logins: that looks have made with it so far.
    """

    passwords: t.Tuple[str, ...] = ()
    always = False

    def __init__(self, name: t.Optional[str], options: t.Mapping[str, t.Any]) -> None:
        self.name = name
        self.options = options
        self.outcome: Result = {}
        self.entry = Entry()
        self.logins = 0

    def subject(self, gate: Gate) -> Subject:
        """What the module tries, of the passwords given."""
        raise NotImplementedError

    @property
    def vouched(self) -> bool:
        """Whether a rejection can only be of the passwords given, and not of a service proxy's."""
        return self.outcome.get("proxy_vouched") is not False

    @property
    def given(self) -> bool:
        """Whether there is a credential that the module may try."""
        given = all(self.options.get(option) is not None for option in self.passwords)
        return given and self.name is not None and self.options.get("state") != "absent"

    @property
    def verifies(self) -> bool:
        """Whether the module logs in with the secret that is there, too."""
        always = self.options.get("verify") == "always"
        return always and self.name is not None and self.options.get("state") != "absent"

    @property
    def needs_a_run(self) -> bool:
        return (self.always or bool(self.outcome.get("changed"))) and not self.outcome.get("failed")

    def refuse(self, exc: rules.Refused) -> None:
        """Note that the gate does not let this host try."""
        self.outcome = {**self.outcome, **exc.failure(), "action": "none"}
        self.outcome.pop("diff", None)

    def check_types(self) -> None:
        """:raises AnsibleActionFail: when a password is no string."""
        for option in self.passwords:
            password = self.options.get(option)
            if password is not None and not is_string(password):  # a literal that Ansible has read may be another one
                kind = next((name for kind, name in _KINDS.items() if isinstance(password, kind)), "no string")
                problem = f"{option} is {kind}, and must be a string: put it in quotes, or use | string."
                raise AnsibleActionFail(problem + " Nothing was tried.")


class SecretTrial(Trial):
    """A setup password, and with it the PKCS#11 password, which has a record of its own."""

    passwords = ("setup_password", "pkcs11_password")

    def subject(self, gate: Gate) -> Subject:
        setup, pin = (str(self.options[option]) for option in self.passwords)
        name = str(self.name)
        return gate.credential(rules.SECRET, name, setup)._replace(parts=(gate.credential(rules.PIN, name, pin),))


class ProxyTrial(Trial):
    """A service proxy password."""

    passwords = ("password",)

    def subject(self, gate: Gate) -> Subject:
        return gate.credential(rules.PROXY, str(self.name), str(self.options["password"]))


class CredentialAction(GatedAction):
    """Base of them. Here for a module that is given one credential; ppin_credentials has several.

    :cvar trial: what it tries.
    :cvar once: options with which the module tries once only, as another host has just not reached the HSM.
    """

    trial: t.Type[Trial] = Trial
    once: t.Mapping[str, t.Any] = {}

    def _pass(self, options: t.Mapping[str, t.Any]) -> Result:
        for trial in self._trials:
            trial.check_types()
        verifies = any(trial.verifies for trial in self._trials)
        if self._task.check_mode and not verifies and open_store(options["gate_store"]).is_new():
            return self._without_gate()  # check mode makes no store
        gate = self._open_gate(options)
        if verifies or self._task.check_mode:
            return self._observe_and_try(gate)
        return self._try_at_once(gate)

    # What differs between the modules

    def _prepare(self) -> None:
        self._trials: t.Sequence[Trial] = [self.trial(self._name, self._arguments)]

    def _run(self, trials: t.Sequence[Trial], check: t.Optional[bool] = None, **changes: t.Any) -> Result:
        """Run the module for some of the trials, and note the outcome of each."""
        result = self._module(check, **changes)
        self._note(trials, [result])
        return result

    def _combined(self, result: Result) -> Result:
        """The result of the task, of the outcomes so far.

        :arg result: of the last run.
        """
        return self._trials[0].outcome

    # What they share

    def _says_of_secrets(self, gate: Gate, trials: t.Sequence[Trial]) -> t.Dict[str, t.Any]:
        """The option gate_says of a module that fetches permanent secrets."""
        fetched = [trial for trial in trials if trial.options.get("setup_password") is not None]
        origins = {str(each.name): gate.origin(str(each.name), str(each.options["setup_password"])) for each in fetched}
        return {"gate_says": {"stale": self._stale, "checked": self._checked, "origins": origins}}

    def _needs_gate(self) -> bool:
        return any(trial.given or trial.verifies for trial in self._trials)

    def _note(self, trials: t.Sequence[Trial], outcomes: t.Sequence[Result]) -> None:
        for trial, outcome, facts in zip(trials, outcomes, self._facts):
            trial.outcome, trial.entry = outcome, entry_of(facts)

    def _try_at_once(self, gate: Gate) -> Result:
        """Let a host use what others of this run have accepted without a look of its own."""
        if not all(trial.given and not trial.always for trial in self._trials):
            return self._observe_and_try(gate)
        subjects = {trial: trial.subject(gate) for trial in self._trials}
        with gate.early_permission(list(subjects.values())) as permitted:
            if permitted:
                return self._run_and_record(gate, self._trials, subjects, {})
            return self._observe_and_try(gate)

    def _observe_and_try(self, gate: Gate) -> Result:
        # In check mode the module spends no credential that it was given. Most hosts need nothing and end here.
        never = {"verify": "never"} if any(trial.verifies for trial in self._trials) else {}
        result = self._run(self._trials, check=True, **never)
        interrupted = bool(result.get("interrupted"))
        if never and not interrupted:
            result = self._verify(gate, result)
        if self._task.check_mode:
            self._foresee(gate)
            return self._combined(result)
        needed = [trial for trial in self._trials if trial.needs_a_run]
        if needed:
            return self._try(gate, needed, result)
        if interrupted and not result.get("failed"):
            self._clean_up()
        return self._combined(result)

    def _foresee(self, gate: Gate) -> None:
        for trial in self._trials:
            if trial.needs_a_run and trial.given:
                try:
                    gate.foresee(trial.subject(gate), trial.vouched)
                except rules.Refused as exc:
                    trial.refuse(exc)

    def _verify(self, gate: Gate, result: Result) -> Result:
        """Have the module log in with the secrets that are there, or go by what other clients found of their origin."""
        trials = [trial for trial in self._trials if trial.verifies and not trial.outcome.get("failed")]
        trials = [trial for trial in trials if not trial.outcome.get("changed")]
        with contextlib.ExitStack() as held:
            subjects: t.Dict[Trial, Subject] = {}
            stale: t.Dict[Trial, t.Any] = {}
            with self._unless_the_gate_fails(gate, subjects):
                permanent = [(trial, gate.permanent(str(trial.name), trial.entry)) for trial in trials]
                for trial, subject in _in_order(permanent):
                    try:
                        held.enter_context(gate.permission(subject))
                        subjects[trial] = subject
                    except rules.Stale as exc:
                        stale[trial] = exc.record
                    except rules.Refused as exc:
                        trial.refuse(exc)
            trials = [trial for trial in trials if trial in subjects or trial in stale]
            if not trials:
                return result
            self._stale = [trial.entry.origin for trial in stale]
            # In check mode nothing is written, so the module cannot note the verdict for the run after it.
            says = {"look": not self._task.check_mode, "stale": self._stale}
            result = self._run(trials, check=True, gate_says=says)
            for trial in trials:
                trial.logins += logins_of(trial.outcome) or 0
                if trial in subjects:
                    with rules.reported(display.warning):
                        gate.end(subjects[trial], judge_login(trial.outcome))
                elif trial.outcome.get("failed"):
                    trial.outcome["msg"] += f" {rules.found_by(stale[trial])}"
        self._checked = [str(trial.name) for trial in subjects]
        return result

    _stale: t.Sequence[t.Optional[str]] = ()  # origins that others have found to be rejected
    _checked: t.Sequence[str] = ()  # partitions to which a look of this task has logged in

    def _try(self, gate: Gate, trials: t.Sequence[Trial], result: Result) -> Result:
        """Use the credentials, each as soon as the gate lets this host."""
        while trials:
            now, trials = _without_shared_names(trials)
            result = self._try_together(gate, now, result)
        return self._combined(result)

    def _try_together(self, gate: Gate, trials: t.Sequence[Trial], result: Result) -> Result:
        with contextlib.ExitStack() as held:
            subjects: t.Dict[Trial, Subject] = {}
            changes: t.Mapping[str, t.Any] = {}
            given = [(trial, trial.subject(gate)) for trial in trials if trial.given]
            with self._unless_the_gate_fails(gate, subjects):
                for trial, subject in _in_order(given):
                    try:
                        if held.enter_context(gate.permission(subject, trial.vouched)):
                            changes = self.once
                        subjects[trial] = subject
                    except rules.Refused as exc:
                        trial.refuse(exc)
            allowed = [trial for trial in trials if trial in subjects or not trial.given]
            if not allowed:
                if any(trial.outcome.get("interrupted") for trial in trials):
                    self._clean_up()
                return result
            return self._run_and_record(gate, allowed, subjects, changes)

    @contextlib.contextmanager
    def _unless_the_gate_fails(self, gate: Gate, subjects: t.Mapping[t.Any, Subject]) -> t.Iterator[None]:
        """Note that nothing was tried with the permissions so far, while this host still has them."""
        try:
            yield
        except GateError:
            for subject in subjects.values():
                with rules.reported(display.warning):
                    gate.end(subject, NOT_TRIED)
            raise

    def _run_and_record(
        self,
        gate: Gate,
        trials: t.Sequence[Trial],
        subjects: t.Mapping[Trial, Subject],
        changes: t.Mapping[str, t.Any],
    ) -> Result:
        """Run the module with credentials that the gate lets it use, and note the verdict on each."""
        result = self._run(trials, **changes, **self._says(gate, trials))
        for trial in trials:
            logins = logins_of(trial.outcome)
            if trial in subjects:
                with rules.reported(display.warning):
                    gate.end(subjects[trial], judge(trial.outcome), trial.vouched)
            if logins is not None:
                trial.outcome["logins"] = logins + trial.logins
        return self._combined(result)

    def _says(self, gate: Gate, trials: t.Sequence[Trial]) -> t.Dict[str, t.Any]:
        """The option gate_says of a module that has it."""
        return {}

    def _clean_up(self) -> None:
        """Have the module remove what a run left that died, which takes no credential, however it ends then."""
        without_login: t.Dict[str, t.Any] = {"verify": "never"} if any(trial.verifies for trial in self._trials) else {}
        self._module(**dict.fromkeys(self.trial.passwords), **without_login)


def _in_order(subjects: t.Sequence[t.Tuple[Trial, Subject]]) -> t.Sequence[t.Tuple[Trial, Subject]]:
    return sorted(subjects, key=lambda pair: rules.order(pair[1]))


def _without_shared_names(trials: t.Sequence[Trial]) -> t.Tuple[t.List[Trial], t.List[Trial]]:
    """The trials that can be made at once, and those that have a name in common with one of them.

    The logins of a name have the permits of that name in common. A host that holds one does not wait for another.
    """
    now: t.List[Trial] = []
    later: t.List[Trial] = []
    names: t.Set[str] = set()
    for trial in trials:
        shared = trial.given and str(trial.name) in names
        (later if shared else now).append(trial)
        if trial.given:
            names.add(str(trial.name))
    return now, later
