# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of ppin_credentials: passes the attempt gate, then runs the module on the host."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.hsmops.primus.plugins.module_utils._client.converge import CREDENTIAL_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._client.credential_plan import VERIFY_CHOICES
from ansible_collections.hsmops.primus.plugins.module_utils._client.credentials import processing_order
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import check_client, read_flag
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.variables import apply_default_state
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import (
    CredentialAction,
    GatedCredential,
    GatedProxyPassword,
    GatedSecret,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.gated_action import Result
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import PresentSecret, count_logins

Data = t.Mapping[str, t.Any]

COMMON_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = dict(
    CREDENTIAL_ARGUMENTS,
    plan={"type": "dict"},
    prefix={"type": "str"},
    rotate={"type": "bool"},
    setup_password_format_check={"type": "bool"},
    verify={"type": "str", "choices": list(VERIFY_CHOICES)},
)
"""The options that apply to all credentials: all but `service_users` and `partitions`."""

SHARED_RESULT_KEYS = ("results", "interrupted", "invocation", "logins")
"""Keys of the module's result that are not about a single credential."""


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_credentials"
    single_try: t.Mapping[str, t.Any] = {"retries": 0}

    def _read_options(self) -> None:
        # An option that is null gets its default, as in the roles.
        arguments = self._arguments = {key: value for key, value in self._arguments.items() if value is not None}
        given = {option: arguments.pop(option, []) for option in ("service_users", "partitions")}
        _validate_options(arguments)
        state, plan = arguments.pop("state", "present"), arguments.pop("plan", None)
        rotate = read_flag(arguments.pop("rotate", False))
        given = {option: apply_default_state(entries, state, rotate) for option, entries in given.items()}
        checked = check_client(
            {"partitions": given["partitions"]},
            given["service_users"],
            str(arguments.pop("prefix", "")),
            renders_config=False,
            setup_password_format_check=read_flag(arguments.get("setup_password_format_check", True)),
        )
        if checked.violations:
            msg = "%s No login was made." % " ".join(map(str, checked.violations))
            violations = [violation._asdict() for violation in checked.violations]
            raise AnsibleActionFail(msg, result={"violations": violations})
        credentials = [self._proxy(user) for user in given["service_users"]]
        credentials += [self._secret(partition) for partition in given["partitions"]]
        if plan is not None:
            credentials = [credential for credential in credentials if _is_planned(credential, plan)]
        self._missing: Data = (plan or {}).get("missing") or {}
        self._credentials = sorted(
            credentials,
            key=lambda credential: processing_order(LIST_OPTIONS[type(credential)], credential.options["state"]),
        )

    def _proxy(self, user: Data) -> GatedCredential:
        options = {**_as_texts(user, "name", "password"), "state": user["state"]}
        return GatedProxyPassword(options["name"], options)

    def _secret(self, partition: Data) -> GatedCredential:
        options = {
            **_as_texts(partition, "user_name", "setup_password", "pkcs11_password"),
            "state": partition["state"],
            "verify": self._arguments.get("verify"),
        }
        return GatedSecret(options["user_name"], options)

    # The module

    def _run_without_gate(self) -> Result:
        if not self._credentials:
            return self._task_result({})
        result = self._run_for(self._credentials)
        return result if "ansible_job_id" in result else self._task_result(result)  # async: no result yet

    def _run_for(
        self, credentials: t.Sequence[GatedCredential], check: t.Optional[bool] = None, **changes: t.Any
    ) -> Result:
        result = self._run_module(check, **_list_options(credentials), **changes)
        outcomes = self._outcomes(result)
        if len(outcomes) == len(credentials):
            self._store_outcomes(credentials, outcomes)
        else:  # the module ended without a result for each credential
            for credential in credentials:
                failure = {key: value for key, value in result.items() if key not in SHARED_RESULT_KEYS}
                credential.outcome, credential.entry = {**failure, "failed": True}, PresentSecret()
        return result

    def _outcomes(self, result: Result) -> t.Sequence[Result]:
        results = result.get("results")
        outcomes = results if isinstance(results, list) else []
        return outcomes if all(isinstance(outcome, dict) for outcome in outcomes) else []

    def _clean_up(self) -> None:
        lists = _list_options(self._credentials, passwords=False)
        self._run_module(None, **lists, verify="never")

    def _gate_findings(self, gate: Gate, credentials: t.Sequence[GatedCredential]) -> t.Dict[str, t.Any]:
        return self._findings_for_secrets(gate, credentials)

    def _try_without_observing(self, gate: Gate) -> Result:
        """Use the credentials without another observation, if the plan has found all of them to be missing."""
        if not all(self._is_missing(credential) for credential in self._credentials):
            return super()._try_without_observing(gate)
        try:
            for credential in self._credentials:
                if credential.usable:
                    gate.check_permission(credential.subject(gate), vouched=False)
        except rules.AttemptRefused:
            return self._observe_and_try(gate)  # it finds out which of the credentials are refused
        for credential in self._credentials:
            credential.outcome = {"proxy_vouched": False}
        return self._use_credentials(gate, self._credentials, {})

    def _is_missing(self, credential: GatedCredential) -> bool:
        absent = credential.options["state"] == "absent"
        return absent or (
            credential.usable and credential.name in (self._missing.get(LIST_OPTIONS[type(credential)]) or [])
        )

    # The result

    def _task_result(self, result: Result) -> Result:
        outcomes = [_outcome_of(credential) for credential in self._credentials]
        failures = [outcome for outcome in outcomes if outcome.get("failed")]
        combined: Result = {
            **{key: value for key, value in result.items() if key in ("warnings", "deprecations", "exception")},
            "changed": any(outcome.get("changed") for outcome in outcomes),
            "interrupted": bool(result.get("interrupted")),
            "logins": sum(count_logins(outcome) or 0 for outcome in outcomes),
            "diff": [outcome.pop("diff") for outcome in outcomes if outcome.get("diff")],
            "results": outcomes,
        }
        if failures:
            messages = [str(failure.get("msg") or "The module ended without a result") for failure in failures]
            done = [
                str(credential.name) for credential, each in zip(self._credentials, outcomes) if each.get("changed")
            ]
            if done:
                messages.append("Changed in the same task: %s." % ", ".join(done))
            combined.update(failed=True, msg=" ".join(dict.fromkeys(messages)), error=failures[0].get("error"))
        return combined


LIST_OPTIONS: t.Dict[type, str] = {GatedProxyPassword: "service_users", GatedSecret: "partitions"}


def _validate_options(arguments: Data) -> None:
    """Validate the options, as a failure of the module's own validation has no `logins`. :raises AnsibleActionFail:"""
    given = {option: value for option, value in arguments.items() if value is not None}
    errors = ArgumentSpecValidator(COMMON_ARGUMENTS).validate(given).error_messages
    if errors:
        raise AnsibleActionFail("%s. No login was made." % "; ".join(errors))


def _is_planned(credential: GatedCredential, plan: Data) -> bool:
    names = {GatedProxyPassword: ("set", "unset"), GatedSecret: ("fetch", "remove")}[type(credential)]
    return any(credential.name in (plan.get(key) or []) for key in names)


def _as_texts(entry: Data, *keys: str) -> t.Dict[str, t.Any]:
    """Return these values as text. A name may be a number, and a vaulted password is decrypted here."""
    return {key: None if entry.get(key) is None else str(entry[key]) for key in keys}


def _list_options(credentials: t.Sequence[GatedCredential], passwords: bool = True) -> t.Dict[str, t.Any]:
    """Return the options `service_users` and `partitions` for the module."""
    lists: t.Dict[str, t.Any] = {kind: [] for kind in LIST_OPTIONS.values()}
    for credential in credentials:
        left_out = ("verify",) if passwords else ("verify", *credential.passwords)
        entry = {key: value for key, value in credential.options.items() if key not in left_out and value is not None}
        lists[LIST_OPTIONS[type(credential)]].append(entry)
    return lists


def _outcome_of(credential: GatedCredential) -> Result:
    """Return the outcome of a credential, with its name, which a password may have masked in the result."""
    kind = {GatedProxyPassword: "service_user", GatedSecret: "user_name"}[type(credential)]
    outcome = {key: value for key, value in credential.outcome.items() if key not in ("interrupted", "invocation")}

    return {"changed": False, "action": "none", "logins": 0, **outcome, kind: credential.name}
