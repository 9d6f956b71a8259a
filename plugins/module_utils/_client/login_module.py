# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Shared code of the modules that log in with the permanent secrets of a client.

They do not use a secret that is known to be rejected, and they record the HSM's verdict in the ledger.
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import (
    GATE_ARGUMENTS,
    GATE_FINDINGS_ARGUMENTS,
    GateFindings,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.ledger import Ledger, rebind_ledger
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import (
    recover,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    PpinError,
    error_from_crash,
    error_from_os_error,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.login import LoginPpin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import PPIN_ARGUMENTS, find_paths

LOGIN_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = dict(
    PPIN_ARGUMENTS,
    force={"type": "bool", "default": False},
    **GATE_ARGUMENTS,
    **GATE_FINDINGS_ARGUMENTS,
)
"""The options of the doc fragments `ppin`, `ppin.login` and `ppin.gate`."""


class LoginRefused(PpinError):
    """The module did not log in, because the HSM is known to reject the permanent secrets of the partitions `names`."""

    def __init__(self, msg: str, names: t.Sequence[str]) -> None:
        super().__init__(
            msg,
            cls="rejected",
            hint="No login was made. Fetch the valid secret with hsmops.primus.ppin_secret, or set force to true if "
            "the HSM accepts this one after all, for example because the partition was locked.",
        )
        self.names = names


def run_login_module(
    module: AnsibleModule,
    log_in: t.Callable[[AnsibleModule, LoginPpin, Ledger, t.Dict[str, t.Any]], None],
    result: t.Dict[str, t.Any],
) -> None:
    """Call `log_in` with the lock of the client held, and leave through exit_json or fail_json.

    :arg log_in: makes the logins and fills the result.
    :arg result: the result of a failure before `log_in` has filled it.
    """
    result = dict(result, changed=False, logins=0, refused=[])
    try:
        ppin = LoginPpin(find_paths(module.params, module.get_bin_path), module.params["timeout"])
        ppin.check_files()
        with locked(ppin.paths.secrets, ppin.timeout):
            if not module.check_mode:
                recover(module, ppin.paths.secrets, ppin.paths.config)
            ledger = Ledger(ppin.paths.secrets)
            if ledger.problem:
                module.warn("%s. It is not known which secrets were rejected." % ledger.problem)
            try:
                log_in(module, ppin, ledger, result)
            finally:
                result["logins"] = ppin.logins
                rebind_ledger(module, ledger)
    except LoginRefused as exc:
        module.fail_json(**exc.failure(), **dict(result, refused=exc.names))
    except PpinError as exc:
        module.fail_json(**exc.failure(), **result)
    except OSError as exc:
        module.fail_json(**error_from_os_error(exc).failure(), **result)
    except Exception as exc:  # the result must report the logins in any case
        module.fail_json(**error_from_crash(exc).failure(), **result)
    module.exit_json(**result)


def check_not_rejected(module: AnsibleModule, ledger: Ledger, names: t.Sequence[str]) -> None:
    """Check that no login would use a secret that is known to be rejected. :raises LoginRefused:"""
    if module.params["force"]:
        return
    stale = GateFindings.of(module.params).stale
    found = {}
    for name in names:
        if ledger.rejected(name):
            found[name] = "'%s' (found here at %s)" % (name, ledger.rejected(name))
        elif ledger.origin(name) in stale:
            found[name] = "'%s' (found by other clients)" % name
    if found:
        raise LoginRefused("The HSM rejects the permanent secret of %s" % ", ".join(found.values()), list(found))


def record_logins(
    module: AnsibleModule, ledger: Ledger, verdicts: t.Mapping[str, t.Optional[bool]], in_check_mode: bool = False
) -> None:
    """Record in the ledger whether the HSM accepted the secrets. A damaged ledger is not changed.

    :arg verdicts: by partition; None: not evaluated.
    :arg in_check_mode: record them in check mode, too, which the attempt gate uses for an observation before the run.
    """
    if (module.check_mode and not in_check_mode) or ledger.problem:
        return
    try:
        ledger.record_logins({name: verdict for name, verdict in verdicts.items() if verdict is not None})
    except OSError as exc:
        module.warn(
            "The ledger %s cannot be written (%s): what this login found is not known to the next run."
            % (ledger.path, exc.strerror)
        )
