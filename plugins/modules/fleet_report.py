#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is the documentation only: the code is plugins/action/fleet_report.py.

DOCUMENTATION = r"""
module: fleet_report
short_description: Write a report on all Primus HSM clients as a page, JSON and metrics
version_added: 1.0.0
description:
  - Writes a report from the results of M(hsmops.primus.ppin_info) of each host. It starts with what needs to be done.
  - Runs on the control node and contacts no host. Use it with C(run_once). The playbook C(hsmops.primus.report)
    gathers the results first.
  - The report contains no password, but names of hosts, partitions and service users.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.control_node
options:
  clients:
    description:
      - The results of M(hsmops.primus.ppin_info) by host name, including those of failed tasks and unreachable hosts. A
        host whose value is empty counts as not inspected.
    type: dict
    required: true
  logins:
    description:
      - The results of M(hsmops.primus.ppin_connectivity_info) by host name.
      - When this is left out, the report says that no login was made.
    type: dict
  dest:
    description:
      - A directory of the control node, created with mode V(0700) if it does not exist. A relative path starts at the
        working directory of Ansible.
    type: path
    required: true
  formats:
    description:
      - What to write. V(html) is C(primus_report.html), a page that needs no other file and no network. V(json) is
        C(primus_report.json), the data of the page. V(prom) is C(primus_report.prom), gauges for the textfile collector
        of Prometheus' node exporter.
    type: list
    elements: str
    choices: [html, json, prom]
    default: [html, json, prom]
  mode:
    description:
      - Permissions of the files, as for M(ansible.builtin.file). A symbolic mode is applied to those of the existing
        file, or to V(0600). By default only the owner can read the report, because it shows the weaknesses of the
        fleet.
    type: raw
    default: "0600"
  max_age_days:
    description:
      - Credentials that were set more than this many days ago are reported as old. By default none are.
    type: int
  limit:
    description:
      - The limit of the play, shown at the top of the page.
    type: str
attributes:
  check_mode:
    support: full
    details: Writes nothing, and returns the rest.
  diff_mode:
    support: none
    details: Every report differs from the last one.
seealso:
  - module: hsmops.primus.ppin_info
  - module: hsmops.primus.ppin_connectivity_info
"""

EXAMPLES = r"""
- name: Inspect each client
  hsmops.primus.ppin_info:
  register: client
  ignore_unreachable: true

- name: Write the report
  hsmops.primus.fleet_report:
    clients: >-
      {{ dict(ansible_play_hosts_all
              | zip(ansible_play_hosts_all | map('extract', hostvars) | map(attribute='client', default={}))) }}
    dest: reports
  run_once: true
"""

RETURN = r"""
files:
  description: Paths of the files, by format; none in check mode.
  returned: success
  type: dict
  sample: {"html": "/home/me/reports/primus_report.html"}
summary:
  description: The summary, in lines for a terminal.
  returned: success
  type: list
  elements: str
  sample:
    - "Hosts: 3 (2 ok, 1 problem)."
    - "Permanent secrets: 5 of 6 are there."
    - "PROBLEM: Permanent secrets that are missing: 1, on app3."
counts:
  description: Numbers of hosts, partitions, service users and logins of the fleet.
  returned: success
  type: dict
  contains:
    hosts:
      description: Hosts in the report.
      type: int
    states:
      description: Hosts by state, which is C(ok), C(attention), C(problem) or C(not inspected).
      type: dict
    versions:
      description: Hosts by the version of the provider.
      type: dict
    partitions:
      description: Partitions of all hosts, C(all) and C(configured).
      type: dict
    service_users:
      description: Service users of all hosts, C(all) and C(configured).
      type: dict
    logins:
      description: Logins that were made, C(all) and C(ok).
      type: dict
    passwords_in_plaintext:
      description: Settings of C(primus.cfg) files that hold a password in plaintext.
      type: int
"""
