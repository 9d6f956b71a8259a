#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: pkcs11_token_info
short_description: Gather information about a PKCS#11 library and its tokens, and test a PIN
version_added: 1.0.0
description:
  - Returns information about a PKCS#11 library, its slots and its tokens, as an application on the host sees them. With
    the Primus PKCS#11 provider each token is a partition.
  - With O(pin) it logs in once and counts the objects that it sees. B(A wrong PIN counts towards the lock-out) of the
    partition's privileged access for all its clients, so it is tried once, and not at all if the token reports
    earlier wrong PINs.
  - The library runs in a process of its own. If it crashes or hangs, the module reports it.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.actiongroup_gate
  - hsmops.primus.attributes.managed_node
  - hsmops.primus.ppin.gate
options:
  library:
    description:
      - Path of the PKCS#11 library.
    type: path
    default: /usr/local/primus/lib/libprimusP11.so
  config_path:
    description:
      - Path of C(primus.cfg), passed to the library in the environment variable E(SECUROSYS_PKCS11_CONF). By default
        the library finds the file itself.
    type: path
  secrets_path:
    description:
      - Path of C(.secrets.cfg), passed to the library in the environment variable E(SECUROSYS_SECRETS_CONF). By default
        the library finds the file itself.
    type: path
  mechanisms:
    description:
      - Also return the mechanisms of each token.
    type: bool
    default: false
  pin:
    description:
      - The PKCS#11 password (PIN) of the user. Requires O(slot_id) or O(token_label) to select the token.
      - In check mode it is not tried.
    type: str
  slot_id:
    description:
      - Slot id of the token to log in to, as that of the partition in C(primus.cfg).
    type: int
  token_label:
    description:
      - Label of the token to log in to.
    type: str
  user_name:
    description:
      - Name of the partition, for the attempt gate and its messages. By default O(token_label), then O(slot_id). Set it
        if different partitions have the same slot id on different hosts.
    type: str
    aliases: [partition, name]
  round_trip:
    description:
      - After the login, sign a text with a new RSA key of 2048 bits and verify the signature. The key is deleted with
        the session.
    type: bool
    default: false
  force:
    description:
      - Try O(pin) even if the flags of the token report wrong PINs before (C(USER_PIN_COUNT_LOW)), that the next one is
        the last (C(USER_PIN_FINAL_TRY)) or that it is locked (C(USER_PIN_LOCKED)).
    type: bool
    default: false
  timeout:
    description:
      - Timeout in seconds for the library to answer. It starts again with the login.
      - A login that timed out is not retried, because the HSM may have evaluated the PIN.
    type: int
    default: 60
requirements:
  - python-pkcs11, on the host
attributes:
  check_mode:
    support: full
    details: Changes nothing in any mode, and tries no PIN in check mode.
  diff_mode:
    support: N/A
    details: Changes nothing.
notes:
  - The PIN is never in the arguments or the environment of a process.
  - The library of the provider connects to the HSMs when it is loaded, with the permanent secrets of the client, unless
    C(connect_on_init) in C(primus.cfg) is false. So even without O(pin), a secret that the HSM no longer accepts may
    cost attempts.
  - Works with Python 3.6 and later on the host, if there is a python-pkcs11 for it.
seealso:
  - module: hsmops.primus.ppin_connectivity_info
"""

EXAMPLES = r"""
- name: Gather information about the tokens of the client
  hsmops.primus.pkcs11_token_info:
  register: pkcs11

- name: Log in to PARTITION1 as an application does, and sign a text
  hsmops.primus.pkcs11_token_info:
    user_name: PARTITION1
    slot_id: 0
    pin: "{{ vault_partition1_pkcs11_password }}"
    round_trip: true
  register: pkcs11
  failed_when: pkcs11 is failed or not pkcs11.login.round_trip.ok
"""

RETURN = r"""
library:
  description: Information about the library.
  returned: when it could be loaded
  type: dict
  contains:
    path:
      description: Its path.
      type: str
    manufacturer: &manufacturer
      description: Its manufacturer.
      type: str
    description:
      description: Its description.
      type: str
    version:
      description: Its version.
      type: str
    cryptoki_version:
      description: The version of PKCS#11 that it implements.
      type: str
  sample:
    path: /usr/local/primus/lib/libprimusP11.so
    manufacturer: SoftHSM
    description: Implementation of PKCS11
    version: "2.6"
    cryptoki_version: "2.40"
slots:
  description: The slots of the library.
  returned: when it could be loaded
  type: list
  elements: dict
  contains:
    slot_id:
      description: Slot id.
      type: int
    description:
      description: Its description.
      type: str
    manufacturer: *manufacturer
    hardware_version: &hardware_version
      description: Version of its hardware.
      type: str
    firmware_version: &firmware_version
      description: Version of its firmware.
      type: str
    flags: &flags
      description: Names of its flags in PKCS#11, without C(CKF_), for example C(TOKEN_PRESENT) or C(LOGIN_REQUIRED).
      type: list
      elements: str
    mechanisms:
      description: Names of the mechanisms in PKCS#11, without C(CKM_), or numbers. With O(mechanisms=true), when there
        is a token.
      type: list
      elements: str
    token:
      description: The token in it, or null.
      type: dict
      contains:
        label:
          description: Its label.
          type: str
        manufacturer: *manufacturer
        model:
          description: Its model.
          type: str
        serial:
          description: Its serial number.
          type: str
        hardware_version: *hardware_version
        firmware_version: *firmware_version
        flags: *flags
login:
  description: The login with O(pin) and the objects found, or null when there was none.
  returned: always
  type: dict
  contains:
    slot_id:
      description: Slot id of the token.
      type: int
    token_label:
      description: Its label.
      type: str
    objects:
      description: How many objects of each class were seen.
      type: dict
      sample: {"certificate": 1, "data": 0, "domain_parameters": 0, "private_key": 1, "public_key": 1, "secret_key": 0}
    round_trip:
      description: The result of the signature test, as C(ok), C(mechanism) and C(error). Null without
        O(round_trip=true).
      type: dict
      sample: {"ok": true, "mechanism": "SHA256_RSA_PKCS", "error": null}
logins:
  description: How many times the PIN was tried.
  returned: always
  type: int
error:
  description: Why the module failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.control import with_control
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._client.pkcs11 import Login, Request, query_library
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError, error_from_crash
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import check_password, check_timeout


def make_request(params: t.Mapping[str, t.Any], check_mode: bool) -> Request:
    check_password("pin", params["pin"])
    check_timeout(params["timeout"])
    if params["pin"] is not None and params["slot_id"] is None and not params["token_label"]:
        raise PpinError(
            "pin is given, and neither slot_id nor token_label",
            cls="config",
            hint="Set slot_id or token_label to choose the token that the PIN belongs to.",
        )
    variables = {"SECUROSYS_PKCS11_CONF": params["config_path"], "SECUROSYS_SECRETS_CONF": params["secrets_path"]}
    environment = {name: path for name, path in variables.items() if path}
    login = None
    if params["pin"] is not None and not check_mode:
        login = Login(params["pin"], params["slot_id"], params["token_label"], params["round_trip"], params["force"])
    return Request(params["library"], environment, params["mechanisms"], login)


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            library={"type": "path", "default": "/usr/local/primus/lib/libprimusP11.so"},
            config_path={"type": "path"},
            secrets_path={"type": "path", "no_log": False},
            mechanisms={"type": "bool", "default": False},
            pin={"type": "str", "no_log": True},
            slot_id={"type": "int"},
            token_label={"type": "str", "no_log": False},
            user_name={"type": "str", "aliases": ["partition", "name"]},
            round_trip={"type": "bool", "default": False},
            force={"type": "bool", "default": False},
            timeout={"type": "int", "default": 60},
            **GATE_ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    facts: t.Dict[str, t.Any] = {"changed": False, "login": None, "logins": 0}
    try:
        query_library(make_request(module.params, module.check_mode), module.params["timeout"], facts)
    except PpinError as exc:
        module.fail_json(**with_control(dict(facts, **exc.failure())))
    except Exception as exc:  # the result must report the logins in any case
        module.fail_json(**with_control(dict(facts, **error_from_crash(exc).failure())))
    module.exit_json(**with_control(facts))


if __name__ == "__main__":
    main()
