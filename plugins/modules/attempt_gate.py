#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is the documentation only: the code is plugins/action/attempt_gate.py.

DOCUMENTATION = r"""
module: attempt_gate
short_description: Clear entries of the attempt gate
version_added: 1.0.0
description:
  - Clears entries of the attempt gate of M(hsmops.primus.ppin_secret), M(hsmops.primus.ppin_proxy) and other modules.
    The credentials then count as never tried, and no longer towards
    O(hsmops.primus.ppin_secret#module:gate_budget).
  - Select the entries with O(name), O(kind) or both, or all of them with O(all=true).
  - Runs on the control node, once for each host of the play. Use C(run_once), or a play with one host.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.control_node
  - hsmops.primus.ppin.gate_entries
options:
  state:
    description:
      - The state of the entries. Only the modules that try a credential create entries.
    type: str
    choices: [absent]
    required: true
  all:
    description:
      - Clear every entry of the store, including damaged ones and those that cannot be used because the key of the
        store is lost. Cannot be combined with O(name) or O(kind).
    type: bool
attributes:
  check_mode:
    support: full
    details: Returns what it would clear.
  diff_mode:
    support: full
    details: Shows the entries that are cleared.
seealso:
  - module: hsmops.primus.attempt_gate_info
  - module: hsmops.primus.ppin_secret
  - module: hsmops.primus.ppin_proxy
"""

EXAMPLES = r"""
- name: Allow the setup password of PARTITION1 to be tried again
  hsmops.primus.attempt_gate:
    name: PARTITION1
    kind: secret
    state: absent
  run_once: true

- name: Clear every entry, including damaged ones
  hsmops.primus.attempt_gate:
    all: true
    state: absent
  run_once: true
"""

RETURN = r"""
entries:
  description: The entries that were cleared, or would be in check mode, the oldest first.
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
damaged:
  description:
    - Number of unusable entries that were cleared, or would be in check mode. RV(entries) does not list them. Always 0
      without O(all=true).
  returned: success
  type: int
  sample: 0
"""
