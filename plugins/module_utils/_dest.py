# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Puts what a module fetched into the file that its option C(dest) names."""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._errors import FILE_HINT, PpinError


def check_dest(module: AnsibleModule) -> None:
    """Know before anything is spent that C(dest) can be written. :raises PpinError:"""
    folder = os.path.dirname(module.params["dest"]) or "."
    if os.path.isdir(module.params["dest"]):
        raise PpinError("%s is a folder" % module.params["dest"], cls="config", hint="Name a file with dest.")
    if not os.path.isdir(folder):
        raise PpinError("There is no folder %s" % folder, cls="config", hint="Make it, or correct dest.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PpinError(
            "The folder %s cannot be written" % folder, cls="permission", hint="Correct its rights or dest."
        )


def write_dest(module: AnsibleModule, content: bytes) -> bool:
    """Put content into C(dest), whole or not at all. A new file has mode 0600 unless told otherwise.

    Returns whether that changes anything. :raises PpinError: when it cannot be written.
    """
    dest = module.params["dest"]
    new = not os.path.exists(dest)
    changed = new
    if not new:
        with open(dest, "rb") as present:
            changed = present.read() != content
    rights_changed = not new and set_attributes(module)  # first, so that nobody reads the content who must not
    if changed and not module.check_mode:
        os.umask(0o077)  # a new file is given the rights that the umask leaves, before its own
        temporary = os.path.join(module.tmpdir, "dest")
        with open(temporary, "wb") as file:
            file.write(content)
        try:
            module.atomic_move(temporary, dest, unsafe_writes=module.params["unsafe_writes"])
        except Exception as exc:  # that is what it raises since ansible-core 2.19; before, it ends the module itself
            problem = "%s cannot be written: %s" % (dest, exc.__cause__ or exc)
            raise PpinError(problem, cls="permission", hint=FILE_HINT) from exc
    return set_attributes(module, new) or rights_changed or changed


def set_attributes(module: AnsibleModule, new: bool = False) -> bool:
    """Give C(dest) the rights that were asked for. Returns whether that changes anything."""
    if not os.path.exists(module.params["dest"]):
        return False
    arguments = module.load_file_common_arguments(module.params)
    if new and arguments["mode"] is None:
        arguments["mode"] = "0600"
    return bool(module.set_fs_attributes_if_different(arguments, False))
