#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is the documentation only: the code is plugins/action/client_plan.py.

DOCUMENTATION = r"""
module: client_plan
short_description: Plan the changes that a Primus HSM client needs
version_added: 1.0.0
description:
  - Validates the variables of a client, inspects the client with M(hsmops.primus.ppin_info), and returns the changes
    that are needed. It is intended for the roles of this collection, whose tasks only apply the plan.
  - Changes nothing, makes no login, and returns no password. Everything that is wrong with the variables is reported at
    once, before the client is contacted.
  - A client whose files are still in C(PRIMUS_HOME/etc) is inspected twice, because they have to be moved.
  - Fails, too, if the credentials cannot be set on this client, for example if a permanent secret is MISSING and its
    partition has no passwords.
author:
  - The hsmops.primus authors (@hsmops)
options:
  prefix:
    description: Prefix of the variables in messages, such as C(primus_client_).
    type: str
    default: ""
  scope:
    description:
      - What to plan. V(provider) is the package, C(primus.cfg), its directory and group, login shells and logs.
        V(credentials) are the service proxy passwords and permanent secrets.
      - Without V(provider), partitions need no C(slot_id), and C(primus.cfg) is left as it is.
    type: list
    elements: str
    choices: [provider, credentials]
    default: [provider, credentials]
  state:
    description: The state of partitions and service users that do not set their own.
    type: str
    choices: [present, updated, absent]
    default: present
  rotate:
    description:
      - Update all partitions and service users whose state is not V(absent), as with O(state=updated). Those with
        V(absent) are left unchanged.
    type: bool
    default: false
  package:
    description: The provider's package, as O(hsmops.primus.primus_provider#role:main:primus_provider_package).
    type: str
    default: ""
  package_remote_src:
    description: Whether O(package) is a path on the client.
    type: bool
    default: false
  package_checksum:
    description: Checksum of a package that is downloaded.
    type: str
    default: ""
  version:
    description: Version of the package. By default it is taken from the name, or from the packages in it.
    type: str
    default: ""
  allow_downgrade:
    description: Whether to replace a newer provider, too.
    type: bool
    default: false
  hsms:
    description:
      - The HSMs, as for P(hsmops.primus.primus_cfg#filter).
      - When both this and O(partitions) are empty, and O(service_users) is null, C(primus.cfg) is not managed.
    type: list
    elements: dict
    default: []
  partitions:
    description: The partitions, as for P(hsmops.primus.primus_cfg#filter), with their passwords.
    type: list
    elements: dict
    default: []
  service_users:
    description:
      - The service users (CloudHSM), each with C(name), C(password) and C(state).
      - When this is null, the service users of the partitions are not checked.
    type: list
    elements: dict
  changing_service_users:
    description:
      - Names of service users whose password an earlier task would set if it did not run in check mode. It has no
        effect otherwise.
    type: list
    elements: str
    default: []
  log:
    description: The log of the provider, as for P(hsmops.primus.primus_cfg#filter).
    type: dict
    default: {}
  wait_delay:
    description: As for P(hsmops.primus.primus_cfg#filter).
    type: int
  wait_max_tries:
    description: As for P(hsmops.primus.primus_cfg#filter).
    type: int
  connect_on_init:
    description: As for P(hsmops.primus.primus_cfg#filter).
    type: bool
  setup_password_format_check:
    description: Whether the setup password of a partition that is not absent must have the documented form.
    type: bool
    default: true
  verify:
    description:
      - As for M(hsmops.primus.ppin_secret). With V(always), every permanent secret is in RV(plan.credentials.fetch), as
        only a login shows whether it works.
    type: str
    choices: [changed, always, never]
    default: changed
  pkcs11_check:
    description: Whether to log in, as an application does, to each partition that has a C(pkcs11_password).
    type: bool
    default: false
  group_members:
    description: Users to add to the group.
    type: list
    elements: str
    default: []
  login_shells:
    description: Whether to make login shells find the provider.
    type: bool
    default: true
  rsyslog:
    description: Whether rsyslog writes the provider's messages to a file of their own.
    type: bool
    default: false
  rsyslog_filter:
    description: The filter of rsyslog for these messages.
    type: str
    default: local1.*
  rsyslog_file:
    description: The file that rsyslog writes them to.
    type: path
    default: /var/log/primus_syslog.log
  logrotate:
    description: Whether to rotate the logs.
    type: bool
    default: false
  home:
    description:
      - The directory of the provider. With V(provider) in O(scope), V(/usr/local/primus) by default, otherwise as
        O(primus_home).
    type: path
  etc:
    description:
      - The directory of the configuration. With V(provider) in O(scope), V(/etc/primus) by default, otherwise as
        O(config_path) and O(secrets_path).
    type: path
  owner:
    description: Owner of the configuration, by name or number.
    type: str
    default: root
  group:
    description: The group whose members may use the provider, by name or number.
    type: str
    default: primus
  pexpect_package:
    description:
      - The distribution's package of pexpect, for a client without a usable one. When it is empty, none is installed.
    type: str
    default: python3-pexpect
  system_etc:
    description: Where C(profile.d), C(rsyslog.d) and C(logrotate.d) are. Other directories are for tests.
    type: path
    default: /etc
  wanted:
    description:
      - RV(wanted) of an earlier result, used in place of all other options. It is for a new plan after an installation,
        without evaluating the variables again. The files in C(PRIMUS_HOME/etc) are then those of the package.
    type: dict
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.actiongroup_ppin
  - hsmops.primus.attributes.managed_node
  - hsmops.primus.ppin
attributes:
  action:
    support: full
    description: Is an action plugin, which runs M(hsmops.primus.ppin_info) on the client.
  check_mode:
    support: full
    details: Changes nothing in any mode. In check mode the plan lists what modules cannot simulate.
  diff_mode:
    support: N/A
    details: Changes nothing.
seealso:
  - module: hsmops.primus.ppin_info
"""

EXAMPLES = r"""
- name: Plan what a client needs
  hsmops.primus.client_plan:
    hsms:
      - host: hsm1.example.com
    partitions:
      - user_name: PARTITION1
        slot_id: 0
        setup_password: "{{ setup_password }}"
        pkcs11_password: "{{ pkcs11_password }}"
  register: client

- name: Show which permanent secrets are to be fetched
  ansible.builtin.debug:
    var: client.plan.credentials.fetch
"""

RETURN = r"""
plan:
  description: The changes that are needed.
  returned: success
  type: dict
  contains:
    any:
      description: Whether there is anything to do, including the logins of C(pkcs11).
      type: bool
    check_mode:
      description: Whether the task ran in check mode.
      type: bool
    paths:
      description:
        - Paths after the plan was applied, as C(home), C(etc), C(config) (C(primus.cfg)), C(secrets) (C(.secrets.cfg))
          and C(library).
      type: dict
    now:
      description:
        - Paths of C(config) and C(secrets) for the tasks after a move. In check mode, which moves nothing, these are
          the present paths.
      type: dict
    owner:
      description: Owner of the files, for the tasks.
      type: str
    group:
      description: Group of the files, for the tasks. Null in check mode if the group would be created.
      type: str
    install:
      description:
        - The package to install, with C(package), C(remote_src), C(url) (whether it is a URL), C(checksum), C(version),
          C(file_name), C(allow_downgrade), C(staging) (a directory to unpack it in), C(home), C(keep_as) (the new name
          of the present provider, or null) and C(group); or null.
      type: dict
    python_packages:
      description: Packages of the distribution that the client lacks and that a credential needs.
      type: list
      elements: str
    new_group:
      description: The group to create, or null.
      type: str
    directory:
      description: Whether to create the directory of the configuration, or to correct its owner, group and permissions.
      type: bool
    move:
      description: Names of the files to move from C(PRIMUS_HOME/etc) to the directory of the configuration.
      type: list
      elements: str
    templates:
      description: Names of the files to copy from the provider's templates.
      type: list
      elements: str
    permissions:
      description: Names of the files whose owner, group and permissions have to be corrected.
      type: list
      elements: str
    config:
      description:
        - The new C(content) of C(primus.cfg), empty if it is not managed; C(change), whether it differs from the
          present content; and C(removed), for M(hsmops.primus.ppin_config).
        - A partition that is absent stays in it as long as the client has its permanent secret, or the service proxy
          password of an absent service user in front of it.
      type: dict
    final_config:
      description: C(content) and C(removed) of C(primus.cfg) after the credentials of absent partitions and service
        users were removed. Null if that does not differ from C(config).
      type: dict
    members:
      description: Users to add to the group.
      type: list
      elements: str
    files:
      description: Other files to write, each with C(path), C(content) and C(mode).
      type: list
      elements: dict
    restart_rsyslog:
      description: Whether the settings of rsyslog change.
      type: bool
    configure:
      description: Whether there is anything to do for C(new_group), C(directory), C(move), C(templates),
        C(permissions), C(config.change), C(members) or C(files).
      type: bool
    credentials:
      description: The credentials that have to be changed, or may have to be.
      type: dict
      contains:
        any:
          description: Whether there are any.
          type: bool
        set:
          description: Service users whose service proxy password has to be set, or may have to be.
          type: list
          elements: str
        fetch:
          description: Partitions whose permanent secret has to be fetched, or may have to be.
          type: list
          elements: str
        remove:
          description: Partitions whose permanent secret has to be removed.
          type: list
          elements: str
        unset:
          description: Service users whose service proxy password has to be removed.
          type: list
          elements: str
        missing:
          description: Those of C(set), as C(service_users), and of C(fetch), as C(partitions), whose credential is
            MISSING on the client.
          type: dict
        unsimulated:
          description:
            - In check mode, sentences about credentials that would be set and that no module can simulate.
          type: list
          elements: str
    pkcs11:
      description:
        - Logins to make at the end, as an application does, each with C(user_name), C(slot_id) and C(index) (its place
          in O(partitions)). None in check mode.
      type: list
      elements: dict
    unsimulated:
      description: In check mode, sentences about changes of the provider that no module can simulate.
      type: list
      elements: str
facts:
  description: The result of M(hsmops.primus.ppin_info).
  returned: success
  type: dict
wanted:
  description: The validated options, with a boolean in place of each password.
  returned: success
  type: dict
violations:
  description: What is wrong with the variables. RV(msg) has the same in sentences.
  returned: when the variables cannot be used
  type: list
  elements: dict
  contains:
    where:
      description: The variable, the place in it and the name of the entry.
      type: str
      sample: primus_client_partitions[0].pkcs11_password ('PARTITION1')
    what:
      description: What is wrong.
      type: str
      sample: is a number
    fix:
      description: What to do, or empty.
      type: str
      sample: put it in quotes, or use | string
msg:
  description: Why the task failed.
  returned: failure
  type: str
"""
