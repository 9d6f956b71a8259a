#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is the documentation only: the code is plugins/action/gate.py.

DOCUMENTATION = r"""
module: gate
short_description: What the attempt gate knows, shown or cleared
version_added: 1.0.0
description:
  - Shows what the attempt gate of M(hsmops.primus.ppin_secret), M(hsmops.primus.ppin_proxy) and other modules knows of
    the credentials that were tried, and clears it if it is told to.
  - Works on the controller, for each host of the play. Use C(run_once), or one host.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.ppin.controller
options:
  name:
    description:
      - Only entries of this partition or service user. By default all.
    type: str
  kind:
    description:
      - Only entries of this kind, which is V(secret) for a setup password with its PKCS#11 password, V(proxy) for a
        service proxy password, V(pin) for a PKCS#11 password that M(hsmops.primus.pkcs11_token_info) tried,
        V(permanent) for the permanent secrets that the clients have. By default all.
    type: str
    choices: [secret, proxy, pin, permanent]
  clear:
    description:
      - Forget these entries. The credentials count as never tried then, and no longer towards
        O(hsmops.primus.ppin_secret#module:gate_budget).
      - Without O(name) and O(kind) this forgets all entries, those that are damaged or cannot be used any more because
        the key of the store is lost, too.
    type: bool
    default: false
  gate_store:
    description:
      - Where the gate keeps what it knows, as in M(hsmops.primus.ppin_secret).
    type: str
  setup_password_lifespan:
    description:
      - How many hours a setup password is valid from its first use, for RV(entries[].setup_password_validity); 0 for a
        one-time password. By default 72, as with an HSM on premises; with CloudHSM it is 168 (7 days).
    type: int
attributes:
  check_mode:
    support: full
    description: Tells what it would clear.
  diff_mode:
    support: none
    description: Shows the entries in any case.
seealso:
  - module: hsmops.primus.ppin_secret
  - module: hsmops.primus.ppin_proxy
"""

EXAMPLES = r"""
- name: It is known what the gate holds
  hsmops.primus.gate:
  register: gate

- name: The setup password of PARTITION1 may be tried again
  hsmops.primus.gate:
    name: PARTITION1
    clear: true
"""

RETURN = r"""
entries:
  description: The entries, the oldest first. With O(clear=true) those that were cleared.
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
        V(accepted), V(rejected), V(unclear) when it is not known whether the HSM judged it, V(running) while it is
        tried, or after the run that tried it has died.
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
    unclear:
      description: When logins were made, in UTC, whose verdict is not known.
      type: list
      elements: str
    setup_password_validity:
      description:
        - Until when a setup password that was accepted may be valid, C(valid_until) in UTC, with C(first_used) and the
          C(assumption) that this rests on. Null for other entries.
      type: dict
  sample:
    - name: PARTITION1
      kind: secret
      verdict: rejected
      host: client1
      time: "2026-01-31T12:00:00Z"
      code: "0x80005017"
      meaning: login to the HSM failed with the credentials given (setup password)
      unclear: []
      setup_password_validity: null
"""
