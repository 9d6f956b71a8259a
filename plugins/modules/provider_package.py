#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: provider_package
short_description: Copy the matching Primus provider package to a host
version_added: 1.0.0
description:
  - Selects the package of the PKCS#11 provider for a host from the vendor's C(.zip), which has those of all platforms,
    or from a directory, and copies it to the host. It does not install it.
  - The choice depends on the distribution, its release and the architecture. The rules are in the README of the role
    P(hsmops.primus.primus_provider#role).
  - From an archive or a directory on the control node, only the chosen package is sent to the host. An archive on the
    host is unpacked there, without C(unzip).
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.managed_node
options:
  src:
    description:
      - The vendor's C(.zip), a directory with packages, or one package (C(.deb), C(.rpm), C(.tar.gz)).
      - In an archive, packages in any directory count; in a directory, also those in three levels of subdirectories.
      - A single package only has to be for the host's system, according to its name, not for its exact release.
      - For a URL, only the name is checked. Nothing is downloaded; use M(ansible.builtin.get_url) for that.
    type: str
    required: true
  remote_src:
    description: Whether O(src) is a path on the host.
    type: bool
    default: false
  dest:
    description:
      - The directory on the host to copy the package to, under its own name, with mode 0600.
      - Only root should be able to write to it, as what is installed from it runs as root.
    type: path
    required: true
  version:
    description: Version of the package. By default the newest one in O(src).
    type: str
    default: ""
  facts:
    description:
      - The facts C(os_family), C(distribution), C(distribution_version) and C(architecture) of the host to choose for.
      - By default the known facts of the host. If there are none, they are gathered.
    type: dict
attributes:
  action:
    support: full
    description: Has an action plugin, which selects and unpacks the package on the control node.
  check_mode:
    support: full
    details: Reports which package it would copy.
  diff_mode:
    support: none
    details: Packages are not text.
seealso:
  - module: hsmops.primus.client_plan
"""

EXAMPLES = r"""
- name: Copy the provider package for this host
  hsmops.primus.provider_package:
    src: files/PrimusAPI_PKCS11-v2.2.4.zip
    dest: /root
  register: provider

- name: Install the package
  ansible.builtin.apt:
    deb: "{{ provider.path }}"
"""

RETURN = r"""
package:
  description: Name of the package, or null when it is in an archive that is not downloaded yet.
  returned: success
  type: str
  sample: PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb
path:
  description: Where the package is on the host. Null when O(src) is a URL.
  returned: success
  type: str
  sample: /root/PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb
version:
  description: Its version, or empty when its name does not include it.
  returned: success
  type: str
  sample: 2.2.4
form:
  description: V(deb), V(rpm) or V(tar.gz), or empty when it is not known yet.
  returned: success
  type: str
  sample: deb
why:
  description: Why this one was chosen, in a sentence.
  returned: success
  type: str
  sample: >-
    PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb was chosen for Ubuntu 22.04 on x86_64: it counts as debian12, and
    debian10 is the newest platform in PrimusAPI_PKCS11-v2.2.4.zip up to that.
os_family:
  description: The family of the host's operating system, as the fact of this name.
  returned: success
  type: str
  sample: Debian
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.package_choice import (
    PACKAGE_ARGUMENTS,
    Choice,
    PackageError,
    package_result,
    system_from_facts,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.package_files import choose_package, copy_package


def copy_to_dest(module: AnsibleModule, choice: Choice, path: str) -> bool:
    """Copy the package to the host's directory. Return whether that changes anything. :raises PackageError:"""
    new = os.path.join(module.tmpdir, "package")
    copy_package(module.params["src"], choice.package.name, new)
    changed = not os.path.exists(path) or module.sha256(path) != module.sha256(new)
    if changed and not module.check_mode:
        if not os.path.isdir(module.params["dest"]):
            raise PackageError("Directory %s does not exist" % module.params["dest"])
        module.atomic_move(new, path)
    if os.path.exists(path):
        changed = module.set_mode_if_different(path, "0600", changed)
    return bool(changed)


def main() -> None:
    module = AnsibleModule(argument_spec=PACKAGE_ARGUMENTS, supports_check_mode=True)
    try:
        system = system_from_facts(module.params["facts"] or {})
        choice = choose_package(module.params["src"], system, module.params["version"])
        path = os.path.join(module.params["dest"], choice.package.file_name)
        changed = copy_to_dest(module, choice, path)
    except PackageError as exc:
        module.fail_json(msg="%s. Nothing was changed." % exc)
    module.exit_json(changed=changed, **package_result(choice, system, path))


if __name__ == "__main__":
    main()
