#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_info
short_description: Gather information about a Primus HSM client
version_added: 1.0.0
description:
  - Returns the provider's version, the state of C(primus.cfg) and C(.secrets.cfg), and which partitions and service
    users have their credential.
  - Never logs in, never writes, and never fails because of the state of the client. Problems are returned in
    RV(error).
author:
  - The hsmops.primus authors (@hsmops)
options:
  files:
    description:
      - Additional files and directories to report in RV(files).
    type: list
    elements: path
    default: []
  group:
    description:
      - The group whose members may use the provider, for RV(group), by its name or number.
    type: str
    default: primus
  setup_password_lifespan:
    description:
      - Number of hours that a setup password is valid from its first use (the HSM's setting C(lifespan_setup_pwd)), for
        RV(partitions[].setup_password_validity). 0 is for a one-time password.
      - By default 168 (7 days) for a partition behind a service proxy, as with CloudHSM, and 72 for others.
    type: int
extends_documentation_fragment:
  - hsmops.primus.attributes.actiongroup_ppin
  - hsmops.primus.attributes.info_module
  - hsmops.primus.attributes.managed_node
  - hsmops.primus.ppin
seealso:
  - module: hsmops.primus.ppin_secret
  - module: hsmops.primus.ppin_proxy
"""

EXAMPLES = r"""
- name: Inspect the client
  hsmops.primus.ppin_info:
  register: client

- name: Check that every partition has its permanent secret
  ansible.builtin.assert:
    that: client.partitions | rejectattr('configured') | length == 0
"""

RETURN = r"""
installed:
  description: Whether there is a C(ppin).
  returned: always
  type: bool
executable:
  description: Path of C(ppin), or null.
  returned: always
  type: str
  sample: /usr/local/primus/bin/ppin
changeable:
  description:
    - Who, apart from root and the user of the task, can change C(ppin) or its library, in a few words, or null.
  returned: always
  type: str
  sample: /usr/local/primus belongs to the user primus
version:
  description: Version of the provider. Null if there is no provider, or if it does not report a version.
  returned: always
  type: str
  sample: 2.2.4
home:
  description: The directory of the provider, whether it exists or not.
  returned: always
  type: str
  sample: /usr/local/primus
config:
  description: The file C(primus.cfg).
  returned: always
  type: dict
  contains:
    path:
      description: Where C(ppin) looks for it.
      type: str
    exists:
      description: Whether it exists. The other keys are returned only if it does.
      type: bool
    mode:
      description: Permissions, octal.
      type: str
      sample: "0640"
    owner:
      description: Name of the owner, or the number when it has none.
      type: str
    uid:
      description: Number of the owner.
      type: int
    group:
      description: Name of the group, or the number when it has none.
      type: str
    gid:
      description: Number of the group.
      type: int
    checksum:
      description: SHA-256 of the content, or null when it cannot be read.
      type: str
    link:
      description: Target of the symbolic link, or null if it is not a link. The other keys are those of the target.
      type: str
    mount:
      description: Whether something is mounted there, such as one file in a container.
      type: bool
    hard_links:
      description: Number of hard links (names) of the file. Null for a directory.
      type: int
    acl:
      description:
        - The entries of its access control list that name a user or a group, as C(user:NAME:rw-). The mask of the list
          limits their permissions.
        - Those of the default list of a directory begin with C(default:). New files in it inherit them, except those
          that this collection creates.
      type: list
      elements: str
    refused:
      description: Why the modules refuse to use it (another user could have created it to redirect them), or null.
      type: str
    problem:
      description:
        - Why this collection cannot parse the file, or null. C(ppin) may still be able to read it.
        - Then RV(partitions[].hsms) and RV(partitions[].proxy_users) are empty, M(hsmops.primus.ppin_secret) does not
          check whether a service proxy password is missing, and it verifies a secret at each HSM of the partition.
      type: dict
      contains:
        file:
          description: The file, which may be one that C(primus.cfg) includes.
          type: str
        line:
          description: The line, or null when the file cannot be read at all.
          type: int
        reason:
          description: Why the line cannot be parsed, without showing its content.
          type: str
secrets:
  description: >-
    The file C(.secrets.cfg), its symbolic links followed. The keys are those of RV(config), without C(problem).
  returned: always
  type: dict
directory:
  description: The directory of the file C(.secrets.cfg). The keys are those of RV(secrets).
  returned: always
  type: dict
passwords_in_plaintext:
  description:
    - Paths of the settings of C(primus.cfg) that hold a password in plaintext, never the password itself. These are
      C(pin), C(proxy_password), and any setting with password in its name, also in included files.
    - Null when the file does not exist or cannot be parsed. Comments are not searched.
  returned: always
  type: list
  elements: str
  sample: [primus.hsms.hsm0.pin]
partitions:
  description: The partitions that C(ppin -l) lists.
  returned: always
  type: list
  elements: dict
  contains:
    user_name:
      description: Name of the partition.
      type: str
    configured:
      description: Whether its permanent secret is there.
      type: bool
    entries:
      description: Its lines in the listing, one per slot and HSM, each with C(index), C(slot_id) and C(configured).
      type: list
      elements: dict
    hsms:
      description: The HSMs that it is on, by their keys in C(primus.cfg).
      type: list
      elements: str
    proxy_users:
      description: The service users in front of it.
      type: list
      elements: str
    since:
      description: When this collection set the present secret, in UTC, or null if unknown.
      type: str
    origin:
      description: Opaque token of the setup password that the present secret was fetched with, or null when it is not
        known. Clients with the same one have secrets of the same origin. The attempt gate creates it.
      type: str
    rejected:
      description: When a login of this collection with the present secret was rejected, in UTC, or null.
      type: str
    setup_password_validity:
      description:
        - Until when the setup password that fetched the present secret may be valid. C(valid_until) is the time in UTC,
          C(first_used) is when this client first used it, and C(assumption) is what this is based on.
        - The first use on another client may have been earlier.
        - Null when this is not known.
      type: dict
  sample:
    - user_name: PARTITION1
      configured: true
      entries: [{"index": 1, "slot_id": 0, "configured": true}]
      hsms: [hsm0]
      proxy_users: [eqabxrfnqqos]
      since: "2026-01-31T12:00:00Z"
      origin: null
      rejected: null
      setup_password_validity:
        first_used: "2026-01-31T12:00:00Z"
        valid_until: "2026-02-07T12:00:00Z"
        assumption: >-
          7 days from the first use (CloudHSM); Economy Certified counts from the issuance, so it ends earlier
service_users:
  description: The service users that C(ppin -l) lists.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the service user.
      type: str
    configured:
      description: Whether its service proxy password is there.
      type: bool
    entries:
      description: Its lines in the listing, each with C(index) and C(configured).
      type: list
      elements: dict
    since:
      description: When this collection set the present password, in UTC, or null if unknown.
      type: str
files:
  description: The files of O(files), by path. The keys of each are those of RV(secrets).
  returned: always
  type: dict
  sample:
    /etc/primus: {"path": "/etc/primus", "exists": true, "mode": "0750", "owner": "root", "uid": 0, "group": "primus",
                  "gid": 990, "checksum": null, "link": null, "mount": false, "hard_links": null, "acl": [],
                  "refused": null}
group:
  description: The group O(group).
  returned: always
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    exists:
      description: Whether it exists.
      type: bool
    gid:
      description: Its number, or null when it does not exist.
      type: int
    members:
      description: Names of the users that the group lists.
      type: list
      elements: str
ledger:
  description: The file with the fingerprints of the passwords that were used.
  returned: always
  type: dict
  contains:
    path:
      description: Where it is.
      type: str
    problem:
      description: What is wrong with it, or null.
      type: str
    exists:
      description: Whether it exists. The other keys are those of RV(secrets).
      type: bool
orphans:
  description:
    - Partitions whose permanent secret is in C(.secrets.cfg) and which C(primus.cfg) does not name, so that C(ppin)
      does not list them. O(hsmops.primus.ppin_secret#module:state=absent) removes such a secret.
    - Null when one of the two files cannot be parsed.
  returned: always
  type: list
  elements: str
  sample: []
pexpect:
  description: The Python package pexpect, which is needed to give C(ppin) a password. It is not loaded.
  returned: always
  type: dict
  contains:
    installed:
      description: Whether the Python that the module runs with has it.
      type: bool
    version:
      description: Its version, or null.
      type: str
    usable:
      description: Whether the version is 4.0 or later.
      type: bool
  sample: {"installed": true, "version": "4.9.0", "usable": true}
check_mode:
  description: Whether the task ran in check mode, with C(--check) or with the keyword C(check_mode).
  returned: always
  type: bool
interrupted:
  description: >-
    Whether an earlier run was interrupted and left files. The file C(.secrets.cfg) itself is complete, or is completed
    by the next run of a module that works on it, which also removes the files.
  returned: always
  type: bool
leftovers:
  description: Paths of files that interrupted runs have left. With root, those of all users.
  returned: always
  type: list
  elements: str
error:
  description: >-
    Why the credentials could not be listed, with the keys of the same value of M(hsmops.primus.ppin_secret) and
    C(msg), or null.
  returned: always
  type: dict
"""

import contextlib
import grp
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    acl_entries,
    display_text,
    group_name,
    link_facts,
    os_text,
    user_name,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.ledger import Ledger, rebind_ledger
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import leftovers
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import is_mount_point, locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.orphans import orphans
from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import (
    LIFESPAN_ARGUMENT,
    check_lifespan,
    validity,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.command import Ppin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import (
    CONFIGURED,
    Entry,
    Listing,
    entry_state,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import PPIN_ARGUMENTS, changeable_by, find_paths
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.pexpect_check import pexpect_facts


def file_facts(module: AnsibleModule, path: str) -> t.Dict[str, t.Any]:
    if not os.path.exists(path):
        return {"path": display_text(path), "exists": False}
    status = os.stat(path)
    readable = os.path.isfile(path) and os.access(path, os.R_OK)
    return dict(
        link_facts(path),
        path=display_text(path),
        exists=True,
        mode="%04o" % (status.st_mode & 0o7777),
        owner=user_name(status.st_uid),
        uid=status.st_uid,
        group=group_name(status.st_gid),
        gid=status.st_gid,
        checksum=module.sha256(path) if readable else None,
        mount=is_mount_point(os.path.realpath(path)),
        hard_links=None if os.path.isdir(path) else status.st_nlink,
        acl=acl_entries(path),
    )


def group_facts(name: str) -> t.Dict[str, t.Any]:
    group = None
    with contextlib.suppress(KeyError, ValueError):  # ValueError: not a valid name
        group = grp.getgrnam(name)
    if group is None:
        with contextlib.suppress(KeyError, ValueError, OverflowError):
            group = grp.getgrgid(int(name))
    if group is None:
        return {"name": name, "exists": False, "gid": None, "members": []}
    return {"name": group.gr_name, "exists": True, "gid": group.gr_gid, "members": sorted(group.gr_mem)}


def credential_facts(entries: t.List[Entry]) -> t.Dict[str, t.Any]:
    return {
        "configured": entry_state(entries) == CONFIGURED,
        "entries": [entry.as_result() for entry in entries],
    }


def client_facts(module: AnsibleModule) -> t.Dict[str, t.Any]:
    check_lifespan(module.params["setup_password_lifespan"])
    paths = find_paths(module.params, module.get_bin_path)
    ppin = Ppin(paths, module.params["timeout"])
    ledger = Ledger(paths.secrets)
    leftover_paths = leftovers(paths.secrets, paths.config)
    facts: t.Dict[str, t.Any] = {
        "installed": paths.executable is not None,
        "executable": paths.executable and display_text(paths.executable),
        "changeable": changeable_by(paths),
        "version": None,
        "home": display_text(paths.home),
        "config": file_facts(module, paths.config),
        "secrets": dict(file_facts(module, paths.secrets), **link_facts(paths.secrets_as_given or paths.secrets)),
        "passwords_in_plaintext": ppin.passwords_in_plaintext(),
        "files": {path: file_facts(module, os_text(path)) for path in module.params["files"]},
        "group": group_facts(module.params["group"]),
        "ledger": dict(file_facts(module, ledger.path), problem=ledger.problem),
        "directory": file_facts(module, os.path.dirname(paths.secrets) or "."),
        "leftovers": [display_text(path) for path in leftover_paths],
        "interrupted": bool(leftover_paths),
        "orphans": orphans(paths),
        "pexpect": pexpect_facts(),
        "check_mode": module.check_mode,
        "error": None,
    }
    listing = Listing({}, {})
    try:
        if paths.executable is not None:
            facts["version"] = ppin.version()
        ppin.check_files()
        listing = ppin.listing()
        if ledger.secrets_changed:  # probably by this ppin. Most do not write the file, so the lock is taken only here
            with locked(paths.secrets, ppin.timeout):
                rebind_ledger(module, ledger)
    except PpinError as exc:
        facts["error"] = dict(exc.result(), msg=exc.msg)
    if facts["changeable"] and os.geteuid() == 0:
        module.warn("%s, who can become root by replacing it: root runs ppin." % facts["changeable"])
    if paths.executable is not None and facts["version"] is None:
        module.warn("%s does not report its version. The roles replace it only if it does not work." % paths.executable)
    slots = []
    if facts["config"]["exists"]:
        slots = ppin.slots()
        facts["config"]["problem"] = ppin.config_problem and ppin.config_problem._asdict()
    facts["partitions"] = []
    for name, entries in listing.partitions.items():
        partition_slots = [slot for slot in slots if slot.user_name == name]
        proxy_users = _unique(slot.proxy_user for slot in partition_slots if slot.proxy_user)
        facts["partitions"].append(
            dict(
                credential_facts(entries),
                user_name=name,
                hsms=_unique(slot.hsm for slot in partition_slots),
                proxy_users=proxy_users,
                since=ledger.since("partitions", name),
                origin=ledger.origin(name),
                rejected=ledger.rejected(name),
                setup_password_validity=validity(
                    ledger.first_used("partitions", name), module.params["setup_password_lifespan"], bool(proxy_users)
                ),
            )
        )
    facts["service_users"] = [
        dict(credential_facts(entries), name=name, since=ledger.since("service_users", name))
        for name, entries in listing.service_users.items()
    ]
    return facts


def _unique(values: t.Iterable[str]) -> t.List[str]:
    return list(dict.fromkeys(values))


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            PPIN_ARGUMENTS,
            files={"type": "list", "elements": "path", "default": []},
            group={"type": "str", "default": "primus"},
            setup_password_lifespan=LIFESPAN_ARGUMENT,
        ),
        supports_check_mode=True,
    )
    try:
        facts = client_facts(module)
    except PpinError as exc:
        module.fail_json(**exc.failure())
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
