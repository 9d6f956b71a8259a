# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the control node in front of the module ppin_credentials."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.hsmops.primus.plugins.module_utils._client.converge import CREDENTIAL_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._client.credential_plan import VERIFY_CHOICES
from ansible_collections.hsmops.primus.plugins.module_utils._client.credentials import processing_order
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import check_client, read_flag
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.wanted import with_state
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.action import Result
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import (
    CredentialAction,
    ProxyTrial,
    SecretTrial,
    Trial,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import Entry, logins_of

Data = t.Mapping[str, t.Any]

ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = dict(
    CREDENTIAL_ARGUMENTS,
    plan={"type": "dict"},
    prefix={"type": "str"},
    rotate={"type": "bool"},
    setup_password_format_check={"type": "bool"},
    verify={"type": "str", "choices": list(VERIFY_CHOICES)},
)
"""The options that are of all credentials. The task has no others but those that list these."""

OF_ALL = ("results", "interrupted", "invocation", "logins")
"""Keys of the module's result that are of no single credential."""


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_credentials"
    once: t.Mapping[str, t.Any] = {"retries": 0}

    def _prepare(self) -> None:
        # Null is the default, as in the roles.
        arguments = self._arguments = {key: value for key, value in self._arguments.items() if value is not None}
        given = {option: arguments.pop(option, []) for option in ("service_users", "partitions")}
        _check(arguments)
        state, plan = arguments.pop("state", "present"), arguments.pop("plan", None)
        rotate = read_flag(arguments.pop("rotate", False))
        given = {option: with_state(entries, state, rotate) for option, entries in given.items()}
        checked = check_client(
            {"partitions": given["partitions"]},
            given["service_users"],
            str(arguments.pop("prefix", "")),
            known=False,
            setup_password_format_check=read_flag(arguments.get("setup_password_format_check", True)),
        )
        if checked.violations:
            msg = "%s No login was made." % " ".join(map(str, checked.violations))
            violations = [violation._asdict() for violation in checked.violations]
            raise AnsibleActionFail(msg, result={"violations": violations})
        trials = [self._proxy(user) for user in given["service_users"]]
        trials += [self._secret(partition) for partition in given["partitions"]]
        if plan is not None:
            trials = [trial for trial in trials if _is_planned(trial, plan)]
        self._missing: Data = (plan or {}).get("missing") or {}
        self._trials = sorted(trials, key=lambda trial: processing_order(KINDS[type(trial)], trial.options["state"]))

    def _proxy(self, user: Data) -> Trial:
        options = {**_texts(user, "name", "password"), "state": user["state"]}
        return ProxyTrial(options["name"], options)

    def _secret(self, partition: Data) -> Trial:
        options = {
            **_texts(partition, "user_name", "setup_password", "pkcs11_password"),
            "state": partition["state"],
            "verify": self._arguments.get("verify"),
        }
        return SecretTrial(options["user_name"], options)

    # How the module is run

    def _without_gate(self) -> Result:
        if not self._trials:
            return self._combined({})
        result = self._run(self._trials)
        return result if "ansible_job_id" in result else self._combined(result)  # async: nothing came of it yet

    def _run(self, trials: t.Sequence[Trial], check: t.Optional[bool] = None, **changes: t.Any) -> Result:
        result = self._module(check, **_lists(trials), **changes)
        outcomes = self._outcomes(result)
        if len(outcomes) == len(trials):
            self._note(trials, outcomes)
        else:  # it ended without a result, or with another than it was asked for
            for trial in trials:
                failure = {key: value for key, value in result.items() if key not in OF_ALL}
                trial.outcome, trial.entry = {**failure, "failed": True}, Entry()
        return result

    def _outcomes(self, result: Result) -> t.Sequence[Result]:
        results = result.get("results")
        outcomes = results if isinstance(results, list) else []
        return outcomes if all(isinstance(outcome, dict) for outcome in outcomes) else []

    def _clean_up(self) -> None:
        lists = _lists(self._trials, passwords=False)
        self._module(None, **lists, verify="never")

    def _says(self, gate: Gate, trials: t.Sequence[Trial]) -> t.Dict[str, t.Any]:
        return self._says_of_secrets(gate, trials)

    def _try_at_once(self, gate: Gate) -> Result:
        """Use what the plan has found to be missing without another look at the client."""
        if not all(self._is_missing(trial) for trial in self._trials):
            return super()._try_at_once(gate)
        try:
            for trial in self._trials:
                if trial.given:
                    gate.foresee(trial.subject(gate), vouched=False)
        except rules.Refused:
            return self._observe_and_try(gate)  # which finds out for which credentials that holds
        for trial in self._trials:
            trial.outcome = {"proxy_vouched": False}
        return self._try(gate, self._trials, {})

    def _is_missing(self, trial: Trial) -> bool:
        absent = trial.options["state"] == "absent"
        return absent or (trial.given and trial.name in (self._missing.get(KINDS[type(trial)]) or []))

    # The result

    def _combined(self, result: Result) -> Result:
        outcomes = [_named(trial) for trial in self._trials]
        failures = [outcome for outcome in outcomes if outcome.get("failed")]
        combined: Result = {
            **{key: value for key, value in result.items() if key in ("warnings", "deprecations", "exception")},
            "changed": any(outcome.get("changed") for outcome in outcomes),
            "interrupted": bool(result.get("interrupted")),
            "logins": sum(logins_of(outcome) or 0 for outcome in outcomes),
            "diff": [outcome.pop("diff") for outcome in outcomes if outcome.get("diff")],
            "results": outcomes,
        }
        if failures:
            messages = [str(failure.get("msg") or "The module ended without a result") for failure in failures]
            done = [str(trial.name) for trial, each in zip(self._trials, outcomes) if each.get("changed")]
            if done:
                messages.append("Changed in the same task: %s." % ", ".join(done))
            combined.update(failed=True, msg=" ".join(dict.fromkeys(messages)), error=failures[0].get("error"))
        return combined


KINDS: t.Dict[type, str] = {ProxyTrial: "service_users", SecretTrial: "partitions"}


def _check(arguments: Data) -> None:
    """Refuse what the module would refuse without telling that it tried nothing. :raises AnsibleActionFail:"""
    given = {option: value for option, value in arguments.items() if value is not None}
    errors = ArgumentSpecValidator(ARGUMENTS).validate(given).error_messages
    if errors:
        raise AnsibleActionFail("%s. No login was made." % "; ".join(errors))


def _is_planned(trial: Trial, plan: Data) -> bool:
    names = {ProxyTrial: ("set", "unset"), SecretTrial: ("fetch", "remove")}[type(trial)]
    return any(trial.name in (plan.get(key) or []) for key in names)


def _texts(entry: Data, *keys: str) -> t.Dict[str, t.Any]:
    """These values as text. A name may be a number, and a vaulted password is decrypted here."""
    return {key: None if entry.get(key) is None else str(entry[key]) for key in keys}


def _lists(trials: t.Sequence[Trial], passwords: bool = True) -> t.Dict[str, t.Any]:
    """The two options of the module that list the credentials."""
    lists: t.Dict[str, t.Any] = {kind: [] for kind in KINDS.values()}
    for trial in trials:
        left_out = ("verify",) if passwords else ("verify", *trial.passwords)
        entry = {key: value for key, value in trial.options.items() if key not in left_out and value is not None}
        lists[KINDS[type(trial)]].append(entry)
    return lists


def _named(trial: Trial) -> Result:
    """The outcome of a trial, whose name a password may have masked."""
    kind = {ProxyTrial: "service_user", SecretTrial: "user_name"}[type(trial)]
    outcome = {key: value for key, value in trial.outcome.items() if key not in ("interrupted", "invocation")}

    return {"changed": False, "action": "none", "logins": 0, **outcome, kind: trial.name}
