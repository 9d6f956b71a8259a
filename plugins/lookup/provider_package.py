# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup provider_package."""

from __future__ import annotations

DOCUMENTATION = r"""
name: provider_package
short_description: What is known of a provider package before a client is reached
version_added: 1.0.0
author:
  - The hsmops.primus authors (@hsmops)
description:
  - Tells the version of a package of the PKCS#11 provider, and what is wrong with the variables that describe it. It is
    made for the role P(hsmops.primus.primus_provider#role).
  - Nothing is unpacked. The names in an archive or a directory on the control node are read only when its own name does
    not tell the version.
options:
  _terms:
    description:
      - The package, as the role's O(hsmops.primus.primus_provider#role:main:primus_provider_package). When it is empty,
        no version is returned.
    type: list
    elements: str
    required: true
  remote_src:
    description: Whether it is a path on the client.
    type: bool
    default: false
  version:
    description: The version that was asked for, if any.
    type: str
    default: ""
  checksum:
    description: The checksum of a download.
    type: str
    default: ""
seealso:
  - module: hsmops.primus.provider_package
"""

EXAMPLES = r"""
- name: Show the version that the clients will have
  ansible.builtin.debug:
    msg: "{{ lookup('hsmops.primus.provider_package', 'files/PrimusAPI_PKCS11-v2.2.4.zip').version }}"
"""

RETURN = r"""
_raw:
  description: For each package, what is known of it.
  type: list
  elements: dict
  contains:
    url:
      description: Whether it is to be downloaded.
      type: bool
    file_name:
      description: Name of the package, the archive or the directory.
      type: str
    version:
      description: Its version, or empty when it is not known.
      type: str
    violations:
      description: What is wrong, in sentences that name the variables of the role.
      type: list
      elements: str
"""

import os
import re
import typing as t

from ansible.plugins.lookup import LookupBase
from ansible_collections.hsmops.primus.plugins.module_utils._client.package_files import names_in
from ansible_collections.hsmops.primus.plugins.module_utils._client.packages import (
    PackageError,
    form_of,
    name_in_url,
    newest_version,
    version_of,
)

NAMES = "PrimusAPI_PKCS11-X-VERSION-…"


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(
        self, terms: t.Sequence[str], variables: t.Optional[t.Dict[str, t.Any]] = None, **options: t.Any
    ) -> t.List[t.Dict[str, t.Any]]:
        self.set_options(var_options=variables, direct=options)
        return [
            describe(
                term,
                lambda name: self.find_file_in_search_path(variables, "files", name, ignore_missing=True),
                **{option: self.get_option(option) for option in ("remote_src", "version", "checksum")},
            )
            for term in terms
        ]


def describe(
    package: t.Any, find: t.Callable[[str], t.Optional[str]], remote_src: bool, version: str, checksum: str
) -> t.Dict[str, t.Any]:
    """What is returned for a package; find tells where a file or directory of the control node is."""
    if package is None:  # a variable of YAML without a value
        package = ""
    if not isinstance(package, str):
        return {
            "url": False,
            "file_name": "",
            "version": "",
            "violations": ["primus_provider_package: is not a string."],
        }
    url = re.match("https?://", package) is not None
    name = name_in_url(package) if url else os.path.basename(os.path.normpath(package))
    known = version or version_of(name)
    violations: t.List[str] = []
    here = None if url or remote_src else find(package)
    if not package:
        known = ""
    elif not url and not remote_src and here is None:
        hint = "" if os.path.isabs(package) else " A relative path begins at the playbook: give an absolute one."
        violations.append(f"primus_provider_package: there is no {package} on the control node.{hint}")
    elif not form_of(name) and (url or (here is not None and not os.path.isdir(here))):
        violations.append("primus_provider_package: its name does not end in .deb, .rpm, .tar.gz or .zip.")
    elif not known and here is not None and (os.path.isdir(here) or form_of(name) == "zip"):
        try:
            known = newest_version(names_in(here))
            if not known:
                violations.append(f"primus_provider_package: {package} has no package named {NAMES}.")
        except PackageError as exc:
            violations.append(f"primus_provider_package: {exc}.")
    elif not known:
        reason = f"the package is not named {NAMES}"
        if form_of(name) in ("", "zip"):
            before = "the download" if url else "the run, as it is on the client"
            reason = f"the name {name} does not tell it. What is in it is not read before {before}"
        violations.append(f"primus_provider_version: is missing, and {reason}.")
    if url and not re.match("sha(256|384|512):[0-9A-Fa-f]+$", checksum):
        violations.append("primus_provider_package_checksum: a download needs one, such as sha256:….")
    return {"url": url, "file_name": name, "version": known, "violations": violations}
