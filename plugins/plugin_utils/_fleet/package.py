# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""What is known of a provider package before a client is reached, and what is wrong with the variables about it.

Nothing is unpacked. The names in an archive or a directory on the control node are read only when its own name does not
tell the version.
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

NAMES = "PrimusAPI_PKCS11-X-VERSION-…"


class Package(t.NamedTuple):
    """:ivar url: whether it is to be downloaded.
    :ivar file_name: the name of the package, the archive or the directory.
    :ivar version: its version, or empty when it is not known.
    """

    url: bool
    file_name: str
    version: str
    violations: t.List[Violation]


def describe(
    package: str,
    find: t.Callable[[str], t.Optional[str]],
    remote_src: bool = False,
    version: str = "",
    checksum: str = "",
    prefix: str = "",
) -> Package:
    """What is known of a package.

    :arg find: tells where a file or directory of the control node is.
    :arg remote_src: whether it is a path on the client.
    :arg version: the version that was asked for, if any.
    :arg prefix: what the names of the variables begin with.
    """
    if not package:
        return Package(False, "", "", [])
    url = re.match("https?://", package) is not None
    name = name_in_url(package) if url else os.path.basename(os.path.normpath(package))
    known = version or version_of(name)
    violations: t.List[Violation] = []
    here = None if url or remote_src else find(package)
    where = prefix + "package"
    if not url and not remote_src and here is None:
        fix = "" if os.path.isabs(package) else "a relative path begins at the playbook: give an absolute one"
        violations.append(Violation(where, f"is {package}, which is not on the control node", fix))
    elif not form_of(name) and (url or (here is not None and not os.path.isdir(here))):
        violations.append(Violation(where, "has a name that does not end in .deb, .rpm, .tar.gz or .zip"))
    elif not known and here is not None and (os.path.isdir(here) or form_of(name) == "zip"):
        try:
            known = newest_version(package_names(here))
            if not known:
                violations.append(Violation(where, f"is {package}, which has no package named {NAMES}"))
        except PackageError as exc:
            violations.append(Violation(where, f"cannot be used: {exc}"))
    elif not known:
        reason = f"the package is not named {NAMES}"
        if form_of(name) in ("", "zip"):
            before = "the download" if url else "the run, as it is on the client"
            reason = f"the name {name} does not tell it. What is in it is not read before {before}"
        violations.append(Violation(prefix + "version", f"is missing, and {reason}"))
    if url and not re.match("sha(256|384|512):[0-9A-Fa-f]+$", checksum):
        violations.append(
            Violation(prefix + "package_checksum", "is needed for a download", "give one, such as sha256:…")
        )
    return Package(url, name, known, violations)
