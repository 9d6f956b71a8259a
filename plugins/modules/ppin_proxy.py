#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_proxy
short_description: Set, update or remove the service proxy password of a service user
version_added: 1.0.0
description:
  - Sets or removes the service proxy password of one service user in C(.secrets.cfg) of a Primus HSM client, with the
    vendor's C(ppin) command. The service proxy validates the password.
  - CloudHSM requires it before the permanent secret of a partition can be fetched (M(hsmops.primus.ppin_secret)).
  - If anything fails, C(.secrets.cfg) is left unchanged.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.actiongroup_ppin_gate
  - hsmops.primus.attributes.managed_node
  - hsmops.primus.ppin
  - hsmops.primus.ppin.dialogue
  - hsmops.primus.ppin.credential
  - hsmops.primus.ppin.gate
options:
  service_user:
    description:
      - Name of the service user, the vendor's C(proxy_user) in C(primus.cfg).
    type: str
    required: true
    aliases: [name]
  state:
    description:
      - V(present) sets the password when it is MISSING.
      - V(updated) also sets it again when O(password) is not the one that was set last.
      - V(absent) removes it. The password of a service user that C(primus.cfg) does not name counts as absent, because
        C(ppin) neither lists nor removes it.
    type: str
    choices: [present, updated, absent]
    default: present
  password:
    description:
      - The service user's password, from its credential file. Needed only when it is to be set.
    type: str
seealso:
  - module: hsmops.primus.ppin_secret
  - module: hsmops.primus.ppin_info
"""

EXAMPLES = r"""
- name: Set the password of the service user
  hsmops.primus.ppin_proxy:
    service_user: eqabxrfnqqos
    password: "{{ vault_eqabxrfnqqos_password }}"

- name: Remove the password of the service user
  hsmops.primus.ppin_proxy:
    service_user: eqabxrfnqqos
    state: absent
"""

RETURN = r"""
action:
  description: What was done, or would be done in check mode.
  returned: always
  type: str
  choices: [none, added, updated, removed]
service_user:
  description: The service user.
  returned: always
  type: str
  sample: eqabxrfnqqos
entries:
  description: The lines of the service user in the listing of C(ppin -l) at the end, one per slot that names it.
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: Number of the line.
      type: int
    configured:
      description: Whether the password is there.
      type: bool
  sample: [{"index": 1, "configured": true}]
rolled_back:
  description: Whether a change was started and failed, so that C(.secrets.cfg) is unchanged.
  returned: always
  type: bool
interrupted:
  description: Whether an earlier run was interrupted and left a working copy, which this run removed.
  returned: always
  type: bool
logins:
  description: How many passwords the proxy validated in this run. A proxy that could not be reached counts none.
  returned: always
  type: int
backup_file:
  description: Path of the copy.
  returned: changed and O(backup=true)
  type: str
  sample: /etc/primus/.secrets.cfg.4711.2026-01-31@12:00:00~
error:
  description: Why the module failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
  sample:
    code: "0x80005017"
    name: login to the HSM failed with the credentials given (setup password)
    class: rejected
    hint: Check the credential before the next run.
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.converge import (
    CREDENTIAL_ARGUMENTS,
    run_credential_module,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.credentials import ProxyPassword


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            CREDENTIAL_ARGUMENTS,
            service_user={"type": "str", "required": True, "aliases": ["name"]},
            password={"type": "str", "no_log": True},
        ),
        supports_check_mode=True,
    )
    run_credential_module(module, ProxyPassword(module.params))


if __name__ == "__main__":
    main()
