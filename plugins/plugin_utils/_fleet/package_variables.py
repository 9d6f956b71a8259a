# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Validate the variables about the provider package, before the client is contacted.

Nothing is unpacked. The names in an archive or a directory on the control node are read only when its own name does not
have the version.
"""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.package_choice import (
    PackageError,
    form_of,
    name_in_url,
    newest_version,
    version_of,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.package_files import package_names
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import Violation

NAME_FORM = "PrimusAPI_PKCS11-X-VERSION-…"


class Package(t.NamedTuple):
    """What is known of a provider package.

    :ivar url: whether it is to be downloaded.
    :ivar file_name: of the package, the archive or the directory.
    :ivar version: "" when it is not known.
    """

    url: bool
    file_name: str
    version: str
    violations: t.List[Violation]


def describe_package(
    package: str,
    find: t.Callable[[str], t.Optional[str]],
    remote_src: bool = False,
    version: str = "",
    checksum: str = "",
    prefix: str = "",
) -> Package:
    """Return what is known of a package, with the violations of its variables.

    :arg find: returns the path of a file or directory of the control node, or None.
    :arg remote_src: whether the package is a path on the client.
    :arg version: the version that the user has set, if any.
    :arg prefix: the prefix of the variable names, for violations.
    """
    if not package:
        return Package(False, "", "", [])
    url = re.match("https?://", package) is not None
    name = name_in_url(package) if url else os.path.basename(os.path.normpath(package))
    known = version or version_of(name)
    violations: t.List[Violation] = []
    local_path = None if url or remote_src else find(package)
    where = prefix + "package"
    if not url and not remote_src and local_path is None:
        fix = "" if os.path.isabs(package) else "a relative path begins at the playbook: give an absolute one"
        violations.append(Violation(where, f"is {package}, which is not on the control node", fix))
    elif not form_of(name) and (url or (local_path is not None and not os.path.isdir(local_path))):
        violations.append(Violation(where, "has a name that does not end in .deb, .rpm, .tar.gz or .zip"))
    elif not known and local_path is not None and (os.path.isdir(local_path) or form_of(name) == "zip"):
        try:
            known = newest_version(package_names(local_path))
            if not known:
                violations.append(Violation(where, f"is {package}, which has no package named {NAME_FORM}"))
        except PackageError as exc:
            violations.append(Violation(where, f"cannot be used: {exc}"))
    elif not known:
        reason = f"the package is not named {NAME_FORM}"
        if form_of(name) in ("", "zip"):
            before = "the download" if url else "the run, as it is on the client"
            reason = f"the name {name} does not tell it. What is in it is not read before {before}"
        violations.append(Violation(prefix + "version", f"is missing, and {reason}"))
    if url and not re.match("sha(256|384|512):[0-9A-Fa-f]+$", checksum):
        violations.append(
            Violation(prefix + "package_checksum", "is needed for a download", "give one, such as sha256:…")
        )
    return Package(url, name, known, violations)
