# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter primus_cfg."""

from __future__ import annotations

import typing as t

DOCUMENTATION = r"""
name: primus_cfg
short_description: Render primus.cfg from data
version_added: 1.0.0
author:
  - The hsmops.primus authors (@hsmops)
description:
  - Renders C(primus.cfg), the settings of the Primus PKCS#11 provider, from a dictionary.
  - Passwords in the dictionary are never written to the text.
  - The same data always gives the same text, so its checksum shows whether a client is up to date.
positional: _input
options:
  _input:
    description:
      - The settings. Those that are left out or null are not written, and the provider's defaults apply.
    type: dict
    required: true
    suboptions:
      hsms:
        description:
          - The HSMs, or the service proxies in front of them, in the order in which they are written.
        type: list
        elements: dict
        required: true
        suboptions:
          key:
            description:
              - What C(primus.cfg) calls the HSM, C(hsm) and a number, such as C(hsm3).
              - By default C(hsm) and its place in O(_input.hsms), which begins with C(hsm0).
            type: str
          host:
            description: Name, address or proxy URL.
            type: str
            required: true
          port:
            description: TCP port, 1 to 65535.
            type: str
            default: "2310"
          priority:
            description: From 0, the highest, to 127. HSMs of equal priority are used round-robin.
            type: int
      partitions:
        description:
          - The partitions. Each becomes slots on every HSM, or on those in its own O(_input.partitions[].hsms).
        type: list
        elements: dict
        required: true
        suboptions:
          user_name:
            description: Name of the partition.
            type: str
            required: true
          slot_id:
            description:
              - PKCS#11 slot id, or a list of them for parallel access. Different partitions have different ones.
              - Required unless O(_input.partitions[].state) is V(absent).
            type: raw
          client_id:
            description:
              - Free text, seen in the log of the HSM.
              - Either a string, for every HSM that the partition is on, or a dictionary from HSMs, named as in
                O(_input.partitions[].hsms), to strings. An HSM that is not in the dictionary has none.
            type: raw
          proxy_user:
            description:
              - The service user in front of the partition (CloudHSM).
              - A string or a dictionary, as O(_input.partitions[].client_id).
            type: raw
          hsms:
            description:
              - The HSMs that the partition is on. By default all.
              - Each is named by its O(_input.hsms[].host), as C(host:port), or by its O(_input.hsms[].key). A name that
                is a host means all HSMs of that host, and never another HSM that has it as its key.
            type: list
            elements: str
          state:
            description: A partition that is V(absent) is left out, unless O(include_absent=true).
            type: str
            choices: [present, updated, absent]
            default: present
          setup_password:
            description: Accepted, so that one list can have everything of a partition, but not written.
            type: str
          pkcs11_password:
            description: Accepted, so that one list can have everything of a partition, but not written.
            type: str
      log:
        description: The log of the provider.
        type: dict
        suboptions:
          file:
            description:
              - Path of the log file. The users of the provider must be able to write it.
              - Without it the provider writes V(/tmp/primus.log), unless
                O(_input.log.write_log_file=false).
            type: str
          write_log_file:
            description: Whether to write to the log file. The provider's default is true. Provider 2.2.2 and later.
            type: bool
          write_syslog:
            description:
              - Whether to write to syslog, with the facility LOCAL1 and under the name of the application.
              - Provider 2.2.2 and later.
            type: bool
          trace_linenumber:
            description: Whether a line has the line number of the source.
            type: bool
          trace_timestamp:
            description: Whether a line has the time.
            type: bool
          trace_function:
            description: Whether a line has the function.
            type: bool
          trace_inout:
            description: Whether entering and leaving a function is logged.
            type: bool
          trace_pid:
            description: Whether a line has the process id.
            type: bool
          trace_filename:
            description: Whether a line has the source file.
            type: bool
          trace_mask:
            description: From V(0x00) to V(0x07), the sum of V(0x01), V(0x02) and V(0x04).
            type: int
          trace_level:
            description: From 0 to 7. The vendor recommends 4 for production.
            type: int
      wait_delay:
        description: Milliseconds to wait when incomplete data was received. The provider's default is 250.
        type: int
      wait_max_tries:
        description:
          - Number of tries for the completion of data, and for the fallback to the next HSM. The provider's default is
            5.
        type: int
      connect_on_init:
        description: Whether to connect as soon as the library is initialised. The provider's default is true.
        type: bool
  include_absent:
    description:
      - Also write partitions that are V(absent), because C(ppin) removes the permanent secret of a partition only if
        C(primus.cfg) names it.
      - Such a partition gets a free slot id if it has none, or if another partition has the same one.
    type: bool
    default: false
seealso:
  - module: hsmops.primus.ppin_config
"""

EXAMPLES = r"""
- name: Write primus.cfg
  hsmops.primus.ppin_config:
    content: "{{ settings | hsmops.primus.primus_cfg }}"
  vars:
    settings:
      hsms:
        - host: hsm1.example.com
        - host: hsm2.example.com
          priority: 1
      partitions:
        - user_name: PARTITION1
          slot_id: 0
          client_id: "{{ inventory_hostname }}"
      log:
        write_syslog: true
        trace_level: 3
"""

RETURN = r"""
_value:
  description: The text of C(primus.cfg).
  type: str
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import render


def primus_cfg(settings: t.Any, include_absent: bool = False) -> str:
    """See DOCUMENTATION."""
    try:
        return render(settings, None if include_absent else ())
    except ValueError as exc:
        raise AnsibleFilterError("No primus.cfg can be made of this: %s" % exc) from exc


class FilterModule:
    """The entry point for Ansible."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"primus_cfg": primus_cfg}
