# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of ppin_qualify: passes the attempt gate, runs the module on the host, and writes what it found."""

from __future__ import annotations

import json
import os
import secrets
import string
import typing as t

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import make_directory, replace_file
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import CODES, NOT_ACCEPTED, PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.redacted import PASSWORDS, Redaction
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.qualification import FILE_NAME, build, to_page
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import (
    CredentialAction,
    GatedCredential,
    GatedProxiedSecret,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.gated_action import Result, display
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate, Subject
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import LIST_LIMIT
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import (
    REJECTED,
    Verdict,
    count_logins,
    sanitized_error,
)

LOCK_TIMEOUT = 60
WRONG = {"code": "0x80005017", "class": "rejected", "name": "a wrong attempt of ppin_qualify"}


class GatedQualification(GatedProxiedSecret):
    runs_always = True


class ActionModule(CredentialAction):
    module = "hsmops.primus.ppin_qualify"
    credential_class = GatedQualification

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        if "profile" in result:
            try:
                self._finish(result)
            except (OSError, PpinError) as exc:
                result.update(failed=True, msg="The qualification cannot be written: %s" % exc)
        return result

    def _read_options(self) -> None:
        self._dest = self._arguments.pop("dest", None)
        if self._is_true("wrong_attempt"):
            letters = string.ascii_letters + string.digits
            groups = ["".join(secrets.choice(letters) for _letter in range(5)) for _group in range(5)]
            self._arguments["wrong_setup_password"] = "-".join(groups)
        super()._read_options()

    def _is_true(self, option: str) -> bool:
        return bool(boolean(self._arguments.get(option) or False, strict=False))

    def _needs_gate(self) -> bool:
        return self._is_true("accept") and super()._needs_gate()

    def _run_and_record(
        self,
        gate: Gate,
        credentials: t.Sequence[GatedCredential],
        subjects: t.Mapping[GatedCredential, Subject],
        changes: t.Mapping[str, t.Any],
    ) -> Result:
        """Also let the gate count the wrong attempts, and make the one that was asked for only if it has room."""
        if self._is_true("wrong_attempt"):
            try:
                gate.check_permission(self._wrong_subject(gate))
            except rules.AttemptRefused as exc:
                display.warning("No wrong attempt is made: %s" % exc.failure()["msg"])
                changes = {**changes, "wrong_attempt": False}
        result = super()._run_and_record(gate, credentials, subjects, changes)
        outcome = self._credentials[0].outcome
        # The host is not trusted: no budget is larger than LIST_LIMIT, so more attempts would not change anything.
        wrong = min(count_logins({"logins": outcome.get("wrong_attempts")}) or 0, LIST_LIMIT)
        spent = self._setup_rejected_later(outcome)
        if spent and self._credentials[0] in subjects:
            with rules.warn_on_gate_error(display.warning):
                gate.record_verdict(subjects[self._credentials[0]], spent)
            wrong -= 1
        for _attempt in range(wrong):
            with rules.warn_on_gate_error(display.warning):
                gate.record_verdict(self._wrong_subject(gate), Verdict(REJECTED, sanitized_error(WRONG)))
        return result

    def _setup_rejected_later(self, outcome: Result) -> t.Optional[Verdict]:
        """Return the verdict on a setup password that was accepted first, and then not: no other run may use it.

        The profile is taken for hostile.
        """
        findings = build(outcome.get("profile"), Redaction([]))["findings"]
        for name in ("setup_twice", "fortinet"):
            code = findings[name]["seen"]
            meaning, cls = CODES.get(code or "", ("", ""))
            if cls in NOT_ACCEPTED:
                return Verdict(REJECTED, sanitized_error({"code": code, "class": cls, "name": meaning}))
        return None

    def _wrong_subject(self, gate: Gate) -> Subject:
        """Return a setup password that nobody has, so that what counts against the partition rejects nobody's."""
        return gate.password_subject(rules.SECRET, str(self._credential_name), secrets.token_hex(16))

    def _finish(self, result: Result) -> None:
        """Make the profile safe to be shown, and write it. :raises OSError, PpinError:"""
        redaction = Redaction(str(self._arguments[option]) for option in PASSWORDS if self._arguments.get(option))
        names = (self._task_vars.get(name) for name in ("inventory_hostname", "ansible_host"))
        redaction.name("NODE", [str(name) for name in names if name])
        profile = result["profile"] = build(result["profile"], redaction)
        if self._dest is None or self._task.check_mode:
            return
        dest = os.path.abspath(os.path.expanduser(str(self._dest)))
        files = {"json": json.dumps(profile, indent=1) + "\n", "html": to_page(profile)}
        make_directory(dest)
        with locked(os.path.join(dest, FILE_NAME), LOCK_TIMEOUT):
            for name, text in files.items():
                replace_file(os.path.join(dest, "%s.%s" % (FILE_NAME, name)), text.encode())
        result["files"] = {name: os.path.join(dest, "%s.%s" % (FILE_NAME, name)) for name in files}
        if result.get("failed"):  # the playbook ends here
            result["msg"] = "%s What was found is in %s." % (result.get("msg", ""), result["files"]["html"])
