#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_secret
short_description: The permanent secret of a Primus HSM partition on a client
version_added: 1.0.0
description:
  - Fetches, updates or removes the permanent secret of one partition in C(.secrets.cfg) of a Primus HSM client, with
    the vendor's C(ppin) command.
  - Every wrong setup password counts towards the lock-out of the partition for all its clients. So the module tries a
    password once, and does not spend one when it is not needed.
  - Whatever fails, C(.secrets.cfg) is left as it was found.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.ppin
  - hsmops.primus.ppin.partition
  - hsmops.primus.ppin.setup
  - hsmops.primus.ppin.dialogue
  - hsmops.primus.ppin.credential
  - hsmops.primus.ppin.gate
  - hsmops.primus.ppin.gate_says
  - hsmops.primus.ppin.attributes
options:
  state:
    description:
      - V(present) fetches the permanent secret when it is MISSING. A secret that is there stays, unless
        O(verify=always) finds that the HSM no longer accepts it.
      - V(updated) also fetches it again when O(setup_password) is another one than that which made the present secret,
        so running it twice with the same setup password changes nothing the second time. What it fetches is the secret
        that is valid now; it is not documented whether that is another one than before.
      - V(absent) removes it, also that of a partition that C(primus.cfg) does not name. As C(ppin) neither lists nor
        removes such a secret, it is given a temporary C(primus.cfg) that does. Where C(primus.cfg) or C(.secrets.cfg)
        is not understood, such a secret counts as absent, with a warning.
    type: str
    choices: [present, updated, absent]
    default: present
  verify:
    description:
      - Whether to log in to the HSM with the secret (C(ppin --test)), at one HSM of the cluster, the next one only when
        that cannot be reached.
      - Where C(primus.cfg) is not understood, which is a warning that names file and line, it is not known which HSMs
        the partition is on. Then it is one login at each of them, so that a secret that is no longer accepted costs
        one wrong attempt at each.
      - V(changed) does so after a secret was fetched. A login that is rejected fails the module, what was fetched
        stays. An HSM that cannot be reached is a warning, as is a login of which C(ppin) does not say whether the HSM
        accepted it.
      - V(always) does so also when nothing is to be changed, in check mode too. It finds a secret that the HSM no
        longer accepts, which costs that wrong attempt, and fetches the one that is valid now with O(setup_password).
      - V(never) does not.
    type: str
    choices: [changed, always, never]
    default: changed
seealso:
  - module: hsmops.primus.ppin_proxy
  - module: hsmops.primus.ppin_info
"""

EXAMPLES = r"""
- name: The client has the permanent secret of its partition
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

- name: The HSM accepts the permanent secret, or it is replaced
  hsmops.primus.ppin_secret:
    user_name: PARTITION1
    setup_password: "{{ vault_partition1_setup_password }}"
    pkcs11_password: "{{ vault_partition1_pkcs11_password }}"
    verify: always

- name: The client has no secret of this partition
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
  description: Whether a login with the secret worked; null when none was made, or the HSM could not be
    reached, or the verdict is not clear.
  returned: always
  type: bool
proxy_vouched:
  description: Whether the service proxies before the partition are known to accept their passwords, as one was accepted
    within O(gate_window) and has not changed since; true where there is none. If not, a rejection may be of such a
    password.
  returned: always
  type: bool
rolled_back:
  description: Whether a change was begun and failed, so that C(.secrets.cfg) is as it was before.
  returned: always
  type: bool
interrupted:
  description: Whether an earlier run had died, and left a working copy behind that this run removed.
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
        What may follow. V(transient) is the only one after which the same credential may be tried again without a look
        at it. Others are V(rejected), V(expired), V(refused), V(config), V(permission), V(state), V(timeout),
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
      Get a new setup password, then run again with it. On premises the HSM's security officer makes it
      (hsm_sec_new_setup_pass, or hsm_user_new_setup_pass for a partition with a configuration of its own), for CloudHSM
      the vendor's support (a ticket).
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.converge import ARGUMENTS, run_credential_module
from ansible_collections.hsmops.primus.plugins.module_utils._client.credentials import VERIFY, PermanentSecret
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_SAYS
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import PARTITION_ARGUMENTS, SETUP_ARGUMENTS


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            ARGUMENTS,
            verify={"type": "str", "choices": list(VERIFY), "default": "changed"},
            **PARTITION_ARGUMENTS,
            **SETUP_ARGUMENTS,
            **GATE_SAYS,
        ),
        supports_check_mode=True,
    )
    run_credential_module(module, PermanentSecret(module.params))


if __name__ == "__main__":
    main()
