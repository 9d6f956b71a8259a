#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_qualify
short_description: Find out whether a ppin behaves as this collection expects
version_added: 1.0.0
description:
  - Runs the C(ppin) of a client with one partition, and compares what it does with each thing that this collection
    relies on. The result is a profile that can be attached to a public issue. See C(docs/qualification.md), and the
    playbook C(hsmops.primus.qualify).
  - C(ppin) works on copies of C(primus.cfg) and C(.secrets.cfg) in a private directory. After each command the client's
    own files are compared byte for byte, with their owner and permissions. If one was changed, it is put back, no other
    command is run, and the module fails.
  - Without O(accept) it makes no login. With it, RV(planned) lists the logins. B(Use a partition that nothing depends
    on), because it is not documented whether an update of a permanent secret ends the secrets of other clients.
  - A credential that the HSM does not accept is not tried again. What needs it is reported as not tried.
  - The profile contains no password and no secret. Names of partitions, service users and hosts, and addresses are
    replaced in it.
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
  - hsmops.primus.ppin.gate
options:
  accept:
    description:
      - Make the logins of RV(planned). Otherwise what needs a login is reported as not tried.
    type: bool
    default: false
  wrong_attempt:
    description:
      - Also try one wrong setup password, which counts towards the lock-out of the partition for all its clients. It
        shows whether a failed update removes the entry.
    type: bool
    default: false
  wrong_setup_password:
    description:
      - The wrong setup password. The action plugin sets it, a random one each time.
    type: str
  proxy_user:
    description:
      - The service user in front of the partition (CloudHSM).
    type: str
  proxy_password:
    description:
      - The service proxy password of O(proxy_user). Without it, the copy of C(.secrets.cfg) keeps the one that it has.
    type: str
  library:
    description:
      - Path of the provider's PKCS#11 library. It is loaded to see whether that logs in, and what its token says.
        Requires python-pkcs11 on the host.
    type: path
  total_timeout:
    description:
      - Timeout in seconds for all commands together.
    type: int
    default: 900
  dest:
    description:
      - A directory of the control node, created with mode V(0700) if it does not exist, to write the profile to, as
        C(primus_qualification.json) and as a page, C(primus_qualification.html).
    type: path
attributes:
  check_mode:
    support: full
    details: Returns the logins that it would make, and runs no C(ppin).
  diff_mode:
    support: N/A
    details: Changes nothing on the client.
seealso:
  - module: hsmops.primus.ppin_info
"""

EXAMPLES = r"""
- name: Find out how this ppin behaves, without a login
  hsmops.primus.ppin_qualify:
    user_name: PARTITION1
    dest: qualification

- name: Find out how this ppin behaves
  hsmops.primus.ppin_qualify:
    user_name: PARTITION1
    setup_password: "{{ vault_partition1_setup_password }}"
    pkcs11_password: "{{ vault_partition1_pkcs11_password }}"
    accept: true
    dest: qualification
"""

RETURN = r"""
planned:
  description: The logins that are made, in their order; of a credential that is not accepted, only the first.
  returned: always
  type: list
  elements: str
  sample: ["setup password and PKCS#11 password of 'PARTITION1': ppin -a"]
logins:
  description: How many logins this run spent, successful or not.
  returned: always
  type: int
wrong_attempts:
  description:
    - How many of them the HSM rejected, or may have, after the first one. The wrong setup password is one, and so is
      the permanent secret from before the update, where an update ends it. The attempt gate counts them.
  returned: always
  type: int
profile:
  description: The profile, as in C(primus_qualification.json). Its format is in C(docs/qualification.md).
  returned: when ppin was run
  type: dict
  contains:
    findings:
      description: By name, C(verdict) (V(holds), V(differs) or V(not tried)), C(expected), C(seen), C(command) and
        C(note).
      type: dict
    rotation:
      description: The way of rotation that follows.
      type: str
    stopped:
      description: Why the run ended early, or null.
      type: str
    outputs:
      description: What each command has printed.
      type: list
      elements: dict
counts:
  description: How many findings have each verdict.
  returned: when ppin was run
  type: dict
  sample: {"holds": 50, "differs": 2, "not tried": 12}
files:
  description: The files on the control node, C(html) and C(json).
  returned: with O(dest), when ppin was run
  type: dict
error:
  description: Why the module failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
"""

import signal
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.control import with_control
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    PpinError,
    error_from_crash,
    error_from_os_error,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import (
    PARTITION_ARGUMENTS,
    PPIN_ARGUMENTS,
    SETUP_ARGUMENTS,
)
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.qualify import Ended, qualify


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            PPIN_ARGUMENTS,
            accept={"type": "bool", "default": False},
            wrong_attempt={"type": "bool", "default": False},
            wrong_setup_password={"type": "str", "no_log": True},
            proxy_user={"type": "str"},
            proxy_password={"type": "str", "no_log": True},
            library={"type": "path"},
            total_timeout={"type": "int", "default": 900},
            dest={"type": "path"},
            **PARTITION_ARGUMENTS,
            **SETUP_ARGUMENTS,
            **GATE_ARGUMENTS,
        ),
        required_by={"proxy_password": ["proxy_user"]},
        supports_check_mode=True,
    )
    result: t.Dict[str, t.Any] = {"changed": False, "logins": 0, "wrong_attempts": 0, "planned": []}
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, Ended.raise_it)
    try:
        qualify(module, result)
    except PpinError as exc:
        module.fail_json(**with_control(dict(result, **exc.failure())))
    except OSError as exc:
        module.fail_json(**with_control(dict(result, **error_from_os_error(exc).failure())))
    except Exception as exc:  # so that the result tells in any case what was tried
        module.fail_json(**with_control(dict(result, **error_from_crash(exc).failure())))
    module.exit_json(**with_control(result))


if __name__ == "__main__":
    main()
