# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Write what a module has fetched to the file of its option `dest`."""

import contextlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    NewFile,
    open_parent,
    os_text,
    read_file,
    real_path,
    remove_temporary_files,
    set_permissions,
    write_all,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import announced
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import FILE_HINT, PpinError


def check_dest(module: AnsibleModule) -> None:
    """Check, before a login is made, that `dest` can be written. :raises PpinError:"""
    parent = os.path.dirname(os_text(module.params["dest"])) or "."
    if os.path.isdir(os_text(module.params["dest"])):
        raise PpinError(
            "%s is a directory" % os_text(module.params["dest"]), cls="config", hint="Name a file with dest."
        )
    if not os.path.isdir(parent):
        raise PpinError("Directory %s does not exist" % parent, cls="config", hint="Create it, or correct dest.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PpinError(
            "Directory %s is not writable" % parent, cls="permission", hint="Correct its permissions, or dest."
        )
    directory, name = open_parent(real_path(os_text(module.params["dest"])))
    with directory:
        if os.path.exists(os_text(module.params["dest"])):
            directory.check(name, directory.lstat(name))


def write_dest(module: AnsibleModule, content: bytes) -> bool:
    """Write `dest` atomically. A new file has mode 0600 unless the option `mode` is set.

    Return whether that changes anything. :raises PpinError: when it cannot be written.
    """
    dest = real_path(os_text(module.params["dest"]))
    new = not os.path.exists(dest)
    changed = new or read_file(dest) != content
    # Permissions first, so that the content is never readable by others.
    permissions_changed = not new and set_attributes(module)
    if changed and not module.check_mode:
        try:
            _replace(dest, content, new)
        except OSError as exc:
            if new or not module.params["unsafe_writes"]:
                problem = "%s cannot be written: %s" % (dest, exc.strerror)
                raise PpinError(problem, cls="permission", hint=FILE_HINT) from exc
            directory, name = open_parent(dest)
            with directory, directory.open(name, os.O_RDWR) as fd:
                write_all(fd, content)
    return set_attributes(module) or permissions_changed or changed


def _replace(dest: str, content: bytes, new: bool) -> None:
    directory, name = open_parent(dest)
    with directory:
        remove_temporary_files(directory, name)
        with contextlib.ExitStack() as stack:
            attributes_from = None if new else stack.enter_context(directory.open(name))
            file = stack.enter_context(NewFile(directory, name, attributes_from))
            stack.enter_context(announced(directory.path_of(file.temporary)))
            file.put_in_place(content)


def set_attributes(module: AnsibleModule) -> bool:
    """Give `dest` the permissions of the options. Return whether that changes anything."""
    if not os.path.exists(os_text(module.params["dest"])):
        return False
    dest = real_path(os_text(module.params["dest"]))
    params = module.params
    changed = set_permissions(module, dest, params["owner"], params["group"], params["mode"])
    arguments = module.load_file_common_arguments(dict(params, owner=None, group=None, mode=None))
    return bool(module.set_fs_attributes_if_different(arguments, changed))
