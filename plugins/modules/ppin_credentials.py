#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_credentials
short_description: Fetch, set or remove all credentials of a Primus HSM client
version_added: 1.0.0
description:
  - Sets, updates or removes the service proxy passwords and permanent secrets of one client in one run, each as
    M(hsmops.primus.ppin_proxy) and M(hsmops.primus.ppin_secret) do it.
  - The order follows their dependencies. Service proxy passwords are set first, then permanent secrets are fetched,
    then those of absent partitions are removed, and the passwords of absent service users last.
  - If a credential fails, those that do not depend on it are still processed. The task fails at the end, and
    RV(results) has the outcome of each. If C(ppin) hangs or shows an unknown prompt, no further credential is tried.
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
  - hsmops.primus.ppin.gate_findings
options:
  service_users:
    description:
      - The service users (CloudHSM), as in the roles.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the service user.
        type: str
        required: true
      password:
        description: Its password. Required only when it has to be set.
        type: str
      state:
        description: As for M(hsmops.primus.ppin_proxy). By default O(state).
        type: str
        choices: [present, updated, absent]
  partitions:
    description:
      - The partitions, as in the roles. Their other keys, which are for C(primus.cfg), are ignored.
    type: list
    elements: dict
    default: []
    suboptions:
      user_name:
        description: Name of the partition.
        type: str
        required: true
      setup_password:
        description: Setup password of the partition. Needed only when the permanent secret is to be fetched.
        type: str
      pkcs11_password:
        description: PKCS#11 password (PIN) of the partition. Needed only when the permanent secret is to be fetched.
        type: str
      state:
        description: As for M(hsmops.primus.ppin_secret). By default O(state).
        type: str
        choices: [present, updated, absent]
  state:
    description:
      - The state of partitions and service users that do not set their own.
    type: str
    choices: [present, updated, absent]
    default: present
  rotate:
    description:
      - Update all credentials whose state is not V(absent), as with O(state=updated). Those with V(absent) are left
        unchanged.
    type: bool
    default: false
  plan:
    description:
      - C(plan.credentials) of the result of M(hsmops.primus.client_plan). Only the credentials that it names are
        then processed, and those that it found to be missing are not checked on the client again.
    type: dict
  prefix:
    description: Prefix of the variables in messages, such as C(primus_client_).
    type: str
    default: ""
  setup_password_format_check:
    description:
      - Refuse a C(setup_password) that does not have the documented form (five groups of five letters and digits,
        joined by dashes) before anything runs.
    type: bool
    default: true
  verify:
    description:
      - Whether to log in to the HSM with the permanent secrets, as for M(hsmops.primus.ppin_secret).
    type: str
    choices: [changed, always, never]
    default: changed
seealso:
  - module: hsmops.primus.ppin_secret
  - module: hsmops.primus.ppin_proxy
  - module: hsmops.primus.client_plan
"""

EXAMPLES = r"""
- name: Set the service proxy password and fetch two permanent secrets
  hsmops.primus.ppin_credentials:
    service_users:
      - name: eqabxrfnqqos
        password: "{{ vault_eqabxrfnqqos_password }}"
    partitions:
      - user_name: PARTITION1
        setup_password: "{{ vault_partition1_setup_password }}"
        pkcs11_password: "{{ vault_partition1_pkcs11_password }}"
      - user_name: PARTITION2
        setup_password: "{{ vault_partition2_setup_password }}"
        pkcs11_password: "{{ vault_partition2_pkcs11_password }}"
"""

RETURN = r"""
results:
  description:
    - The outcome of each credential, in the order in which they were processed. The keys are those of
      M(hsmops.primus.ppin_proxy) or M(hsmops.primus.ppin_secret), without C(interrupted). A failed one also has C(msg)
      and C(failed).
  returned: always
  type: list
  elements: dict
  sample:
    - {"user_name": "PARTITION1", "changed": true, "action": "added", "verified": true, "logins": 2,
       "rolled_back": false, "proxy_vouched": true, "entries": [{"index": 1, "slot_id": 0, "configured": true}]}
interrupted:
  description: Whether an earlier run was interrupted and left a working copy, which this run removed.
  returned: always
  type: bool
logins:
  description: How many logins this run spent, successful or not. An HSM that could not be reached counts none.
  returned: always
  type: int
error:
  description: Why the first credential failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
violations:
  description: What is wrong with the options, each with C(where), C(what) and C(fix).
  returned: when the options are wrong
  type: list
  elements: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.converge import CREDENTIAL_ARGUMENTS, converge
from ansible_collections.hsmops.primus.plugins.module_utils._client.credential_plan import STATES, VERIFY_CHOICES
from ansible_collections.hsmops.primus.plugins.module_utils._client.credentials import (
    Credential,
    PermanentSecret,
    ProxyPassword,
    processing_order,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_FINDINGS_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import SETUP_ARGUMENTS

STATE: t.Dict[str, t.Dict[str, t.Any]] = {"state": {"type": "str", "choices": list(STATES)}}

SERVICE_USER: t.Dict[str, t.Dict[str, t.Any]] = dict(
    STATE,
    name={"type": "str", "required": True},
    password={"type": "str", "no_log": True},
)
PARTITION: t.Dict[str, t.Dict[str, t.Any]] = dict(
    STATE,
    user_name={"type": "str", "required": True},
    setup_password=SETUP_ARGUMENTS["setup_password"],
    pkcs11_password=SETUP_ARGUMENTS["pkcs11_password"],
)


def credentials_of(params: t.Mapping[str, t.Any]) -> t.List[Credential]:
    """Return the credentials of the options, in the order of their dependencies."""

    def options(entry: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
        return dict(params, **dict(entry, state=entry["state"] or params["state"]))

    credentials: t.List[Credential] = [
        ProxyPassword(dict(options(user), service_user=user["name"])) for user in params["service_users"]
    ]
    credentials += [PermanentSecret(options(partition)) for partition in params["partitions"]]
    return sorted(credentials, key=lambda each: processing_order(each.kind, each.params["state"]))


class Module(AnsibleModule):  # type: ignore[misc]
    params: t.Dict[str, t.Any]

    def _log_invocation(self) -> None:
        """Keep lists with passwords out of the log: there, Ansible masks a password as it is, not as `repr` has it."""
        params = self.params
        self.params = {key: value for key, value in params.items() if key not in ("partitions", "service_users")}
        super()._log_invocation()
        self.params = params


def main() -> None:
    module = Module(
        argument_spec=dict(
            CREDENTIAL_ARGUMENTS,
            service_users={"type": "list", "elements": "dict", "options": SERVICE_USER, "default": []},
            partitions={"type": "list", "elements": "dict", "options": PARTITION, "default": []},
            rotate={"type": "bool", "default": False},  # this and the next two are for the action plugin
            plan={"type": "dict"},
            prefix={"type": "str", "default": ""},
            setup_password_format_check=SETUP_ARGUMENTS["setup_password_format_check"],
            verify={"type": "str", "choices": list(VERIFY_CHOICES), "default": "changed"},
            **GATE_FINDINGS_ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    results = converge(module, credentials_of(module.params))
    result: t.Dict[str, t.Any] = {
        "changed": any(each["changed"] for each in results),
        "interrupted": any(each.pop("interrupted") for each in results),
        "logins": sum(each["logins"] for each in results),
        "results": results,
    }
    failures = [each for each in results if each.get("failed")]
    if failures:
        msg = " ".join(dict.fromkeys(each["msg"] for each in failures))
        module.fail_json(msg=msg, error=failures[0]["error"], **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
