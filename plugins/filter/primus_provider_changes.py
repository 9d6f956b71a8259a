# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter primus_provider_changes."""

from __future__ import annotations

import typing as t

DOCUMENTATION = r"""
name: primus_provider_changes
short_description: What the role primus_provider has to change on a client
version_added: 1.0.0
author:
  - The hsmops.primus authors (@hsmops)
description:
  - Compares what M(hsmops.primus.ppin_info) saw of a client with what the role P(hsmops.primus.primus_provider#role) is
    told to make it. It is made for that role.
positional: _input, wanted
options:
  _input:
    description: The result of M(hsmops.primus.ppin_info), with the files that the role looks at.
    type: dict
    required: true
  wanted:
    description: What the client shall be like.
    type: dict
    required: true
    suboptions:
      package:
        description: The package; when it is empty, nothing is installed.
        type: str
      version:
        description: Version of the package.
        type: str
      allow_downgrade:
        description: Whether a newer provider is to be replaced too.
        type: bool
      home:
        description: C(PRIMUS_HOME).
        type: path
      etc:
        description: The folder of the configuration.
        type: path
      owner:
        description: Owner of the configuration.
        type: str
      group:
        description: Group of the configuration.
        type: str
      settings:
        description:
          - What C(primus.cfg) is made of, as for P(hsmops.primus.primus_cfg#filter). When it is empty, what the client
            has is right.
          - A partition that is absent stays in it as long as the client has its permanent secret, or the service proxy
            password of an absent service user before it.
        type: dict
      service_users:
        description: The service users, or null when they are not known.
        type: list
        elements: dict
      removed:
        description: Partitions and service users whose credentials check mode has said that it would remove.
        type: list
        elements: str
      members:
        description: Users who shall be members of the group.
        type: list
        elements: str
      around:
        description: Other files, as pairs of path and content.
        type: list
        elements: list
seealso:
  - plugin: hsmops.primus.primus_client_changes
    plugin_type: filter
"""

EXAMPLES = r"""
- name: It is known whether the client is as it should be
  ansible.builtin.debug:
    msg: "{{ primus_provider_look | hsmops.primus.primus_provider_changes(wanted) }}"
"""

RETURN = r"""
_value:
  description: What is to be changed.
  type: dict
  contains:
    any:
      description: Whether anything is.
      type: bool
    install:
      description: Whether the package is to be installed.
      type: bool
    folder:
      description: Whether the group, or the folder of the configuration or its rights are.
      type: bool
    move:
      description: Names of the files to move from C(PRIMUS_HOME/etc) to the folder of the configuration.
      type: list
      elements: str
    where:
      description: The path of each file of the configuration before that, by its name.
      type: dict
    configure:
      description: Whether any of the following is to be changed.
      type: bool
    config:
      description: Whether C(primus.cfg) is.
      type: bool
    content:
      description: What is to be in C(primus.cfg), or empty when it is left to others.
      type: str
    secrets:
      description: Whether the rights of C(.secrets.cfg) are.
      type: bool
    templates:
      description: Names of the files to copy from the provider's templates.
      type: list
      elements: str
    members:
      description: Users to add to the group.
      type: list
      elements: str
    around:
      description: Paths of the other files to write.
      type: list
      elements: path
    untried:
      description: Sentences for what check mode can only tell, as it takes something that is not there yet.
      type: list
      elements: str
"""

from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.changes import provider_changes


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"primus_provider_changes": provider_changes}
