# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter primus_cfg_violations."""

from __future__ import annotations

import typing as t

DOCUMENTATION = r"""
name: primus_cfg_violations
short_description: What is wrong with the data for a primus.cfg
version_added: 1.0.0
author:
  - The hsmops.primus authors (@hsmops)
description:
  - Checks the data that P(hsmops.primus.primus_cfg#filter) makes C(primus.cfg) of, on the controller, before a client
    is touched.
  - Finds settings that do not exist, wrong types and ranges, names that libconfig cannot hold, slot ids, names and keys
    used twice, HSMs that are not there, not used or named twice, passwords in clear, passwords that C(ppin) could not
    be given, and service users without a password.
positional: _input
options:
  _input:
    description: The settings, as for P(hsmops.primus.primus_cfg#filter).
    type: dict
    required: true
  service_users:
    description:
      - The service users (CloudHSM). Every C(proxy_user) of O(_input) must be one of them.
      - When this is left out, that is not checked.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the service user.
        type: str
        required: true
      password:
        description: The service proxy password.
        type: str
      state:
        description: One that is V(absent) cannot stand before a partition.
        type: str
        choices: [present, updated, absent]
        default: present
  require_passwords:
    description: Whether a service user that stands before a partition needs its password.
    type: bool
    default: true
  setup_password_format_check:
    description:
      - Whether the setup password of a partition that is not V(absent) must have the documented form, five groups of
        five letters and digits, joined by dashes.
    type: bool
    default: true
seealso:
  - plugin: hsmops.primus.primus_cfg
    plugin_type: filter
"""

EXAMPLES = r"""
- name: The data for primus.cfg is right
  ansible.builtin.assert:
    that: violations == []
    fail_msg: "{{ violations | join(' ') }}"
  vars:
    violations: "{{ settings | hsmops.primus.primus_cfg_violations(service_users=service_users) }}"
"""

RETURN = r"""
_value:
  description: A sentence for everything that is wrong, none of which shows a password. Empty when nothing is wrong.
  type: list
  elements: str
  sample:
    - "partitions[1] 'PARTITION2': slot_id is missing."
    - "The slot id 0 is used by partitions[0] 'PARTITION1' and partitions[2] 'PARTITION3'."
"""

from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import violations


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"primus_cfg_violations": violations}
