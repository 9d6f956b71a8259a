#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_secret
short_description: Fetch, update or remove the permanent secret of a partition
version_added: 1.0.0
description:
  - Fetches, updates or removes the permanent secret of one partition in C(.secrets.cfg) of a Primus HSM client, with
    the vendor's C(ppin) command.
  - Every wrong setup password counts towards the lock-out of the partition for all its clients. The module therefore
    tries a password once, and only when it is needed.
  - If anything fails, C(.secrets.cfg) is left unchanged.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.actiongroup_ppin_gate
  - hsmops.primus.attributes.managed_node
  - hsmops.primus.ppin
  - hsmops.primus.ppin.partition
  - hsmops.primus.ppin.setup
  - hsmops.primus.ppin.dialogue
  - hsmops.primus.ppin.credential
  - hsmops.primus.ppin.gate
  - hsmops.primus.ppin.gate_findings
options:
  state:
    description:
      - V(present) fetches the permanent secret when it is MISSING. A secret that is there stays, unless
        O(verify=always) finds that the HSM no longer accepts it.
      - V(updated) also fetches it again when O(setup_password) is not the one that the present secret was fetched with,
        so a second run with the same setup password changes nothing. It fetches the secret that is valid now; the
        vendor does not document whether that differs from the one before.
      - V(absent) removes it, even if C(primus.cfg) does not name the partition. C(ppin) neither lists nor removes such
        a secret, so the module runs it with a temporary C(primus.cfg) that names it. If C(primus.cfg) or
        C(.secrets.cfg) cannot be parsed, such a secret counts as absent, with a warning.
    type: str
    choices: [present, updated, absent]
    default: present
  verify:
    description:
      - Whether to log in to the HSM with the secret (C(ppin --test)). The login is made at one HSM of the cluster, and
        at the next one only if that one cannot be reached.
      - If C(primus.cfg) cannot be parsed (a warning names file and line), the HSMs of the partition are not known. One
        login is then made at each of them, so a secret that is no longer accepted costs one wrong attempt at each.
      - V(changed) logs in after a secret was fetched. If the login is rejected, the module fails and keeps the fetched
        secret. If the HSM cannot be reached, or C(ppin) does not report whether the login was accepted, it warns.
      - V(always) also logs in when nothing needs to change, even in check mode. If the HSM no longer accepts the
        secret, which costs one wrong attempt, the valid one is fetched with O(setup_password).
      - V(never) does not log in.
    type: str
    choices: [changed, always, never]
    default: changed
seealso:
  - module: hsmops.primus.ppin_proxy
  - module: hsmops.primus.ppin_info
"""

EXAMPLES = r"""
- name: Fetch the permanent secret of the partition
  hsmops.primus.ppin_secret:
    user_name: PARTITION1
    setup_password: "{{ vault_partition1_setup_password }}"
    pkcs11_password: "{{ vault_partition1_pkcs11_password }}"

- name: Fetch the permanent secret that is valid now, with a new setup password
  hsmops.primus.ppin_secret:
    user_name: PARTITION1
    state: updated
    setup_password: "{{ vault_partition1_new_setup_password }}"
    pkcs11_password: "{{ vault_partition1_pkcs11_password }}"

- name: Replace the permanent secret if the HSM no longer accepts it
  hsmops.primus.ppin_secret:
    user_name: PARTITION1
    setup_password: "{{ vault_partition1_setup_password }}"
    pkcs11_password: "{{ vault_partition1_pkcs11_password }}"
    verify: always

- name: Remove the permanent secret of the partition
  hsmops.primus.ppin_secret:
    user_name: PARTITION1
    state: absent
"""

RETURN = r"""
action:
  description: What was done, or would be done in check mode.
  returned: always
  type: str
  choices: [none, added, updated, removed]
user_name:
  description: The partition.
  returned: always
  type: str
  sample: PARTITION1
entries:
  description: The lines of the partition in the listing of C(ppin -l) at the end, one per slot and HSM.
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: Number of the line.
      type: int
    slot_id:
      description: PKCS#11 slot id.
      type: int
    configured:
      description: Whether the permanent secret is there.
      type: bool
  sample: [{"index": 1, "slot_id": 0, "configured": true}]
verified:
  description: Whether a login with the secret succeeded. Null when none was made, the HSM could not be
    reached, or the result is unclear.
  returned: always
  type: bool
proxy_vouched:
  description: Whether the service proxies in front of the partition are known to accept their passwords, because each
    was accepted within O(gate_window) and has not changed since; true if there is no service proxy. If false, a
    rejection may concern such a password.
  returned: always
  type: bool
rolled_back:
  description: Whether a change was started and failed, so that C(.secrets.cfg) is unchanged.
  returned: always
  type: bool
interrupted:
  description: Whether an earlier run was interrupted and left a working copy, which this run removed.
  returned: always
  type: bool
logins:
  description: How many logins this run spent, successful or not. An HSM that could not be reached counts none.
  returned: always
  type: int
backup_file:
  description: Path of the copy.
  returned: changed and O(backup=true)
  type: str
  sample: /etc/primus/.secrets.cfg.4711.2026-01-31@12:00:00~
error:
  description: Why the module failed.
  returned: failure
  type: dict
  contains:
    code:
      description: Error code of the vendor's list, or null when there is none.
      type: str
    name:
      description: Its meaning.
      type: str
    class:
      description: >-
        The kind of error. V(transient) is the only one after which the same credential can be retried without checking
        it first. The others are V(rejected), V(expired), V(refused), V(config), V(permission), V(state), V(timeout),
        V(dialogue), V(bug) and V(unknown).
      type: str
    hint:
      description: What to do next.
      type: str
  sample:
    code: "0x80005018"
    name: setup password expired
    class: expired
    hint: >-
      Get a new setup password, then run again with it. On premises, the HSM's security officer creates it
      (hsm_sec_new_setup_pass, or hsm_user_new_setup_pass for a partition with a configuration of its own). For
      CloudHSM, open a ticket with the vendor's support.
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.converge import (
    CREDENTIAL_ARGUMENTS,
    run_credential_module,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.credential_plan import VERIFY_CHOICES
from ansible_collections.hsmops.primus.plugins.module_utils._client.credentials import PermanentSecret
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_FINDINGS_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import PARTITION_ARGUMENTS, SETUP_ARGUMENTS


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            CREDENTIAL_ARGUMENTS,
            verify={"type": "str", "choices": list(VERIFY_CHOICES), "default": "changed"},
            **PARTITION_ARGUMENTS,
            **SETUP_ARGUMENTS,
            **GATE_FINDINGS_ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    run_credential_module(module, PermanentSecret(module.params))


if __name__ == "__main__":
    main()
