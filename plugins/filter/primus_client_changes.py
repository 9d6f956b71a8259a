# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter primus_client_changes."""

from __future__ import annotations

import typing as t

DOCUMENTATION = r"""
name: primus_client_changes
short_description: Which credentials the role primus_client has to change on a client
version_added: 1.0.0
author:
  - The hsmops.primus authors (@hsmops)
description:
  - Compares what M(hsmops.primus.ppin_info) saw of a client with the partitions and service users that the role
    P(hsmops.primus.primus_client#role) is given. It is made for that role.
positional: _input, partitions, service_users, verify
options:
  _input:
    description: The result of M(hsmops.primus.ppin_info).
    type: dict
    required: true
  partitions:
    description: The partitions, as C(primus_client_partitions).
    type: list
    elements: dict
    required: true
  service_users:
    description: The service users, as C(primus_client_service_users).
    type: list
    elements: dict
    required: true
  verify:
    description: As C(primus_client_verify). With V(always), the module has to look at every partition.
    type: str
    choices: [changed, always, never]
    default: changed
seealso:
  - plugin: hsmops.primus.primus_provider_changes
    plugin_type: filter
"""

EXAMPLES = r"""
- name: It is known which permanent secrets are missing
  ansible.builtin.debug:
    msg: "{{ changes.fetch }}"
  vars:
    changes: >-
      {{ primus_provider_look
           | hsmops.primus.primus_client_changes(primus_client_partitions, primus_client_service_users) }}
"""

RETURN = r"""
_value:
  description: Names of what is to be changed.
  type: dict
  contains:
    any:
      description: Whether anything is.
      type: bool
    set:
      description: Service users whose service proxy password is to be set, or may be another than before.
      type: list
      elements: str
    fetch:
      description: Partitions whose permanent secret is to be fetched, or may be another than before.
      type: list
      elements: str
    remove:
      description: Partitions whose permanent secret is to be removed.
      type: list
      elements: str
    unset:
      description: Service users whose service proxy password is to be removed.
      type: list
      elements: str
    untried_users:
      description: Service users that check mode cannot ask the client about, as they are not in C(primus.cfg) yet.
      type: list
      elements: str
    untried_partitions:
      description: >-
        Partitions that check mode cannot ask the client about, as they are not in C(primus.cfg) yet, or the service
        proxy password before them is not set.
      type: list
      elements: str
"""

from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.changes import client_changes


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"primus_client_changes": client_changes}
