#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_config
short_description: The file primus.cfg, judged by ppin before it is put in place
version_added: 1.0.0
description:
  - Puts C(primus.cfg) in place. The new file takes the place of the old one at once and only after C(ppin -l) has read
    it; otherwise the old one stays as it is.
  - The exit status of C(ppin) is not documented. So the new file counts as valid when C(ppin) lists the partitions and
    service users that are in it, and no others.
author:
  - The hsmops.primus authors (@hsmops)
options:
  content:
    description:
      - The whole content, such as from P(hsmops.primus.primus_cfg#filter).
    type: str
    required: true
  validate:
    description:
      - Whether C(ppin) has to judge a new content first. It needs a C(.secrets.cfg) for that, and takes the provider's
        template while there is none.
      - It judges the content in a temporary directory. So an C(@include) in it needs an absolute path.
      - In check mode, on a client without C(ppin), nothing is judged.
    type: bool
    default: true
  backup:
    description:
      - Keep a copy of the old file beside it, with the same owner and mode.
    type: bool
    default: false
  owner:
    description:
      - Owner of the file. Left as it is by default.
    type: str
  group:
    description:
      - Group of the file. Left as it is by default.
    type: str
  mode:
    description:
      - Permissions of the file, as for M(ansible.builtin.file). Left as they are by default, V(0600) for a new file.
    type: raw
extends_documentation_fragment:
  - hsmops.primus.ppin
  - hsmops.primus.ppin.attributes
attributes:
  check_mode:
    support: full
    description: Can run in check mode and tell whether it would change something, without changing it.
  diff_mode:
    support: full
    description: Shows the content before and after, with the passwords that an older file may have in clear cut out.
seealso:
  - plugin: hsmops.primus.primus_cfg
    plugin_type: filter
  - module: hsmops.primus.ppin_info
"""

EXAMPLES = r"""
- name: The settings of the provider are in place
  hsmops.primus.ppin_config:
    content: "{{ settings | hsmops.primus.primus_cfg }}"
    owner: root
    group: primus
    mode: "0640"
"""

RETURN = r"""
path:
  description: Path of C(primus.cfg).
  returned: always
  type: str
  sample: /etc/primus/primus.cfg
backup_file:
  description: Path of the copy.
  returned: when O(backup=true) and there was a file that has changed
  type: str
  sample: /etc/primus/primus.cfg.4711.2026-01-31@12:00:00~
error:
  description: Why the module failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._errors import PpinError, from_os_error
from ansible_collections.hsmops.primus.plugins.module_utils._files import replace_file
from ansible_collections.hsmops.primus.plugins.module_utils._ppin import ARGUMENTS, Ppin, find_paths
from ansible_collections.hsmops.primus.plugins.module_utils._primus_cfg import hide_passwords, read_slots
from ansible_collections.hsmops.primus.plugins.module_utils._secrets_file import locked

NOTHING_CONFIGURED = "0x80005001"


def converge(module: AnsibleModule) -> t.Dict[str, t.Any]:
    params = module.params
    ppin = Ppin(find_paths(params, module.get_bin_path), params["timeout"])
    path = os.path.realpath(ppin.paths.config)
    old, new = read(path), params["content"].encode("utf-8")
    result: t.Dict[str, t.Any] = {"path": path, "changed": old != new}
    if old != new:
        result["diff"] = {
            "before_header": path,
            "after_header": path,
            "before": shown(old or b""),
            "after": shown(new),
        }
        if params["validate"] and (ppin.paths.executable or not module.check_mode):
            judge(module, ppin, params["content"])
        if not module.check_mode:
            with locked(path, ppin.timeout):
                if params["backup"] and old is not None:
                    result["backup_file"] = module.backup_local(path)
                replace_file(path, new, like=path if old is not None else None)
    if old is not None or not module.check_mode:
        result["changed"] = set_attributes(module, path, result["changed"])
    return result


def read(path: str) -> t.Optional[bytes]:
    try:
        with open(path, "rb") as config:
            return config.read()
    except FileNotFoundError:
        return None


def shown(content: bytes) -> str:
    """The content with no password in it, as a diff may show it."""
    hidden = hide_passwords(content.decode("utf-8", "replace"))
    return "(not shown, as it has a password in clear)\n" if hidden is None else hidden


def judge(module: AnsibleModule, ppin: Ppin, content: str) -> None:
    """Let ppin list what is in the new file. :raises PpinError: unless that is what should be in it."""
    candidate = os.path.join(module.tmpdir, "primus.cfg")
    replace_file(candidate, content.encode("utf-8"))
    template = os.path.join(ppin.paths.home, "etc", ".secrets.cfg")
    secrets = ppin.paths.secrets if os.path.exists(ppin.paths.secrets) else template
    try:
        slots = read_slots(content, candidate)
        expected: t.Optional[t.Set[str]] = {slot.user_name for slot in slots} | {
            "service user " + slot.proxy_user for slot in slots if slot.proxy_user
        }
    except ValueError:
        expected = None  # only ppin can tell
    try:
        listing = Ppin(ppin.paths._replace(config=candidate, secrets=secrets), ppin.timeout).listing()
    except PpinError as exc:
        nothing_listed = exc.code == NOTHING_CONFIGURED or (exc.code is None and exc.cls == "unknown")
        if expected == set() and nothing_listed:
            return  # as there is nothing to list
        raise PpinError(
            "The new primus.cfg was not put in place, as ppin does not accept it: %s" % exc.msg,
            exc.code,
            exc.cls,
            "The old one, if any, is as it was. %s" % exc.hint,
        ) from exc
    listed = set(listing.partitions) | {"service user " + name for name in listing.service_users}
    if expected not in (None, listed):
        raise PpinError(
            "The new primus.cfg was not put in place, as ppin reads it differently: it lists %s instead of %s"
            % (", ".join(sorted(listed)), ", ".join(sorted(expected or ())) or "nothing"),
            cls="config",
            hint="The old one, if any, is as it was. Look for names that this version of ppin cannot read.",
        )


def set_attributes(module: AnsibleModule, path: str, changed: bool) -> bool:
    changed = module.set_owner_if_different(path, module.params["owner"], changed)
    changed = module.set_group_if_different(path, module.params["group"], changed)
    return bool(module.set_mode_if_different(path, module.params["mode"], changed))


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            ARGUMENTS,
            content={"type": "str", "required": True, "no_log": False},
            validate={"type": "bool", "default": True},
            backup={"type": "bool", "default": False},
            owner={"type": "str"},
            group={"type": "str"},
            mode={"type": "raw"},
        ),
        supports_check_mode=True,
    )
    try:
        module.exit_json(**converge(module))
    except PpinError as exc:
        module.fail_json(**exc.failure())
    except OSError as exc:
        module.fail_json(**from_os_error(exc, "primus.cfg cannot be put in place").failure())


if __name__ == "__main__":
    main()
