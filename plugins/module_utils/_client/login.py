# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""What the modules share that log in with the permanent secrets a client has: which of them must not be tried."""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import (
    GATE_ARGUMENTS,
    GATE_SAYS,
    GateSays,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.ledger import Ledger, follow
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import (
    remove_leftovers,
    warn_of,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    PpinError,
    error_from_crash,
    error_from_os_error,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.login import LoginPpin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import PPIN_ARGUMENTS, find_paths

ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = dict(
    PPIN_ARGUMENTS,
    force={"type": "bool", "default": False},
    **GATE_ARGUMENTS,
    **GATE_SAYS,
)
"""The options of the doc fragments `ppin`, `ppin.login` and `ppin.gate`."""


class Refused(PpinError):
    """A login that was not made, as it is known that the HSM rejects the permanent secrets of the partitions names."""

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
    do: t.Callable[[AnsibleModule, LoginPpin, Ledger, t.Dict[str, t.Any]], None],
    result: t.Dict[str, t.Any],
) -> None:
    """Have `do` log in and fill the result, with nobody else at work on this client; leave through exit_json.

    :arg result: what a failure returns if `do` did not come to it.
    """
    result = dict(result, changed=False, logins=0, refused=[])
    try:
        ppin = LoginPpin(find_paths(module.params, module.get_bin_path), module.params["timeout"])
        ppin.check_files()
        with locked(ppin.paths.secrets, ppin.timeout):
            if not module.check_mode:
                warn_of(module, remove_leftovers(ppin.paths.secrets, ppin.paths.config))
            ledger = Ledger(ppin.paths.secrets)
            if ledger.problem:
                module.warn("%s. It is not known which secrets were rejected." % ledger.problem)
            try:
                do(module, ppin, ledger, result)
            finally:
                result["logins"] = ppin.logins
                follow(module, ledger)
    except Refused as exc:
        module.fail_json(**exc.failure(), **dict(result, refused=exc.names))
    except PpinError as exc:
        module.fail_json(**exc.failure(), **result)
    except OSError as exc:
        module.fail_json(**error_from_os_error(exc).failure(), **result)
    except Exception as exc:  # so that the result tells in any case what was tried
        module.fail_json(**error_from_crash(exc).failure(), **result)
    module.exit_json(**result)


def check_not_rejected(module: AnsibleModule, ledger: Ledger, names: t.Sequence[str]) -> None:
    """Refuse to log in with a secret of which is known that it was rejected. :raises Refused:"""
    if module.params["force"]:
        return
    stale = GateSays.of(module.params).stale
    found = {}
    for name in names:
        if ledger.rejected(name):
            found[name] = "'%s' (found here at %s)" % (name, ledger.rejected(name))
        elif ledger.origin(name) in stale:
            found[name] = "'%s' (found by other clients)" % name
    if found:
        raise Refused("The HSM rejects the permanent secret of %s" % ", ".join(found.values()), list(found))


def note_logins(
    module: AnsibleModule, ledger: Ledger, verdicts: t.Mapping[str, t.Optional[bool]], look: bool = False
) -> None:
    """Remember on this client what the HSM said of its secrets; None: nothing. Not in check mode.

    A damaged ledger is left for a person to look at.

    :arg look: whether check mode is only the attempt gate's, before a run without it.
    """
    if (module.check_mode and not look) or ledger.problem:
        return
    try:
        ledger.note_logins({name: verdict for name, verdict in verdicts.items() if verdict is not None})
    except OSError as exc:
        module.warn(
            "The ledger %s cannot be written (%s): what this login found is not known to the next run."
            % (ledger.path, exc.strerror)
        )
