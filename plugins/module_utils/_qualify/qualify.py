# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""One run of the module ppin_qualify."""

import collections
import contextlib
import os
import platform
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import password_values
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import RunDirectory
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import recover
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.command import Ppin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.dialogue import import_pexpect
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import not_listed_error
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import (
    check_name,
    check_password,
    check_setup_password,
    check_timeout,
    find_paths,
)
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.bench import Bench, values_of
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.findings import BY_NAME, FINDINGS, FORMAT
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.own_file import OwnFile
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.probes import Probes, Wanted, rotation
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.redacted import PASSWORDS, Redaction

_WORDS = (repr(FINDINGS) + " holds differs not tried by itself platform outputs rotation planned made").lower()

SHORTEST = 4
"""Characters of a password that can be cut out of a profile without showing what it is."""


class Ended(Exception):
    """A signal asks this run to end: what it has made is removed first."""

    @classmethod
    def raise_it(cls, number: int, frame: t.Any) -> None:
        raise cls(number)


def qualify(module: AnsibleModule, result: t.Dict[str, t.Any]) -> None:
    """Fill the result. :raises OSError, PpinError:"""
    params = module.params
    check_name("user_name", params["user_name"])
    for option in PASSWORDS:
        check_password(option, params[option])
        _check_hideable(option, params[option])
    if params["setup_password_format_check"]:
        check_setup_password(params["setup_password"])
    check_timeout(params["total_timeout"])
    client = Ppin(find_paths(params, module.get_bin_path), params["timeout"])
    client.check_files()
    wanted = _wanted(params, client)
    result["planned"] = wanted.logins()
    if module.check_mode:
        return
    if result["planned"]:
        import_pexpect()
    paths = client.paths
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(paths.secrets, params["timeout"]))
        recover(module, paths.secrets, paths.config)
        own = [OwnFile(path, stack) for path in (os.path.realpath(paths.config), paths.secrets)]
        redaction = _redaction(params, client, wanted, own)
        place = stack.enter_context(RunDirectory(paths.secrets))
        redaction.name("DIR", [place.directory.path])
        bench = Bench(paths, params["timeout"], params["total_timeout"], place, own, redaction)
        probes = Probes(bench, wanted)
        try:
            probes.run()
        finally:
            result["logins"], result["wrong_attempts"] = bench.logins, probes.wrong_attempts()
            for file in own:
                if not file.is_as_it_was():
                    file.put_back()
    result["profile"] = _profile(bench, wanted)
    verdicts = [finding["verdict"] for finding in result["profile"]["findings"].values()]
    result["counts"] = dict(collections.Counter(verdicts))
    for name, finding in BY_NAME.items():
        message = finding.cannot.get(bench.seen(name) or "")
        if message:
            version = bench.seen("version") or "of an unknown version"
            module.warn("Finding %s: this ppin %s: %s with this version." % (name, version, message))
    if bench.seen("own_file") == "changed":
        raise PpinError(
            bench.stopped or "", cls="state", hint="Do not use this ppin with this collection: see profile."
        )
    if probes.failure:
        raise probes.failure


def _check_hideable(option: str, password: t.Optional[str]) -> None:
    """Check that a password does not show by what is missing where it was cut out. :raises PpinError:

    Ansible also cuts it out of the result, so that of one such as "1" or "holds" nothing would be understood.
    """
    if password and (len(password) < SHORTEST or password.lower() in _WORDS):
        raise PpinError(
            "%s is shorter than %d characters, or a word that each profile has: where it is cut out would show what "
            "it is" % (option, SHORTEST),
            cls="config",
            hint="Qualify with a partition that has another password. Nothing was tried.",
        )


def _wanted(params: t.Mapping[str, t.Any], client: Ppin) -> Wanted:
    """:raises PpinError: when primus.cfg does not tell enough."""
    slots = client.slots()
    if client.config_problem:
        hint = "Correct it first: which names are to be replaced in the profile is known from it."
        raise PpinError("primus.cfg is not understood: %s" % str(client.config_problem), cls="config", hint=hint)
    of_partition = [slot for slot in slots if slot.user_name == params["user_name"]]
    if not of_partition:
        raise not_listed_error(params["user_name"], {slot.user_name for slot in slots})
    slot = of_partition[0]
    if params["proxy_user"] not in (None, *(slot.proxy_user for slot in of_partition)):
        raise PpinError(
            "'%s' is not the service user in front of '%s' in primus.cfg" % (params["proxy_user"], slot.user_name),
            cls="config",
            hint="Correct proxy_user. No login was made.",
        )
    if params["proxy_user"]:
        slot = next(slot for slot in of_partition if slot.proxy_user == params["proxy_user"])
    wrong = params["wrong_setup_password"] if params["wrong_attempt"] else None
    return Wanted(
        slot,
        slot.proxy_user,
        params["setup_password"],
        params["pkcs11_password"],
        params["proxy_password"],
        wrong,
        params["library"],
        params["accept"],
    )


def _redaction(params: t.Mapping[str, t.Any], client: Ppin, wanted: Wanted, own: t.Sequence[OwnFile]) -> Redaction:
    config = own[0].content.decode("utf-8", "replace")
    redaction = Redaction([params[option] for option in PASSWORDS])
    redaction.secrets |= password_values(config, client.paths.config) | values_of(own[1].content)
    slots = client.slots()
    redaction.name("P", [wanted.user_name, *(slot.user_name for slot in slots)])
    redaction.name("SU", [wanted.service_user, *(slot.proxy_user for slot in slots)])
    redaction.name("CLIENT", re.findall(r'client_id\s*[=:]\s*"([^"]*)"', config))
    node = platform.node()
    redaction.name("HOST", [node, node.partition(".")[0]])
    redaction.name("ADDR", [slot.host for slot in slots])
    for place in (client.paths.secrets, client.paths.config, client.paths.home):
        redaction.name("DIR", [place if place == client.paths.home else os.path.dirname(place)])
    return redaction


def _profile(bench: Bench, wanted: Wanted) -> t.Dict[str, t.Any]:
    made = bench.redaction.all(bench.made)
    return {
        "format": FORMAT,
        "provider": bench.seen("version"),
        "platform": _platform(),
        "findings": bench.findings,
        "rotation": rotation(bench.seen("before_update")),
        "stopped": bench.stopped and bench.redaction.text(bench.stopped),
        "logins": {"planned": bench.redaction.all(wanted.logins()), "made": made},
        "outputs": bench.outputs,
    }


def _platform() -> t.Dict[str, str]:
    release: t.Dict[str, str] = {}
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8", errors="replace") as file:
        release = dict(re.findall(r'^(\w+)="?([\w.-]*)"?$', file.read(), re.M))
    return {
        "system": "%s %s" % (release.get("ID", "unknown"), release.get("VERSION_ID", "")),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "user": "root" if os.geteuid() == 0 else "other",
    }
