#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is the documentation only: the code is plugins/action/attempt_gate_info.py.

DOCUMENTATION = r"""
module: attempt_gate_info
short_description: Gather information about the entries of the attempt gate
version_added: 1.0.0
description:
  - Returns the entries of the attempt gate of M(hsmops.primus.ppin_secret), M(hsmops.primus.ppin_proxy) and other
    modules, one for each credential that was tried. Without O(name) and O(kind), all of them.
  - Runs on the control node, once for each host of the play. Use C(run_once), or a play with one host.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes.control_node
  - hsmops.primus.attributes.info_module
  - hsmops.primus.ppin.gate_entries
options:
  setup_password_lifespan:
    description:
      - Number of hours that a setup password is valid from its first use, for RV(entries[].setup_password_validity); 0
        for a one-time password. By default 72, as with an HSM on premises; with CloudHSM it is 168 (7 days).
    type: int
seealso:
  - module: hsmops.primus.attempt_gate
  - module: hsmops.primus.ppin_secret
  - module: hsmops.primus.ppin_proxy
"""

EXAMPLES = r"""
- name: Read all entries of the attempt gate
  hsmops.primus.attempt_gate_info:
  register: gate
  run_once: true

- name: Read the entries of PARTITION1
  hsmops.primus.attempt_gate_info:
    name: PARTITION1
  register: gate
  run_once: true
"""

RETURN = r"""
entries:
  description: The entries, the oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The partition or service user.
      type: str
    kind:
      description: As the option.
      type: str
    verdict:
      description: >-
        V(accepted), V(rejected), V(unclear) (it is not known whether the HSM evaluated the credential, or which
        password it rejected), V(running) (a host tries it, or was interrupted while it tried it) or V(unreachable)
        (hosts have recently not reached the HSM; C(kind) is V(unreachable), too).
      type: str
    host:
      description: The host that tried.
      type: str
    time:
      description: When it tried, in UTC.
      type: str
    code:
      description: Error code of the vendor's list, or null.
      type: str
    meaning:
      description: Its meaning, or null.
      type: str
    wrong:
      description: When logins failed or had an unclear result, in UTC. Those of the last C(gate_window) seconds count.
      type: list
      elements: str
    witnesses:
      description: >-
        The hosts whose logins were rejected, if the cause may be something other than the credential. Other hosts rely
        on it only after two of them have reported it.
      type: list
      elements: str
    setup_password_validity:
      description:
        - Until when an accepted setup password may be valid. C(valid_until) and C(first_used) are times in UTC,
          C(assumption) is what C(valid_until) is based on. Null for other entries.
      type: dict
  sample:
    - name: PARTITION1
      kind: secret
      verdict: rejected
      host: client1
      time: "2026-01-31T12:00:00Z"
      code: "0x80005017"
      meaning: login to the HSM failed with the credentials given (setup password)
      wrong: ["2026-01-31T12:00:00Z"]
      witnesses: [client1]
      setup_password_validity: null
"""
