#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: config_files
short_description: Move or copy the files of a Primus HSM client out of the provider's directory
version_added: 1.0.0
description:
  - Moves or copies C(primus.cfg), C(.secrets.cfg) and its ledger from the directory of the provider, or corrects their
    owner, group and permissions, or those of their directory. Access control lists are removed. It is intended for the
    role P(hsmops.primus.primus_provider#role).
  - The directory of the provider may belong to the user C(primus), who could create a link there. No link is followed,
    and a file that another user could have created is refused.
  - No file is replaced. The module waits for another run that works on C(.secrets.cfg).
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.managed_node
options:
  state:
    description:
      - V(moved) and V(copied) put the files in O(dest). V(present) only corrects those that are in O(dest).
      - V(directory) creates O(dest), or corrects its owner, group and permissions.
    type: str
    choices: [present, copied, moved, directory]
    default: present
  names:
    description: The files, in the order in which to process them. Not used with O(state=directory).
    type: list
    elements: str
    choices: [.secrets.cfg.ledger, .secrets.cfg, primus.cfg]
  src:
    description: The directory of the files. Required with O(state=copied) and O(state=moved).
    type: path
  dest:
    description: The directory to put the files in.
    type: path
    required: true
  owner:
    description: Owner of the files or the directory, by name or number.
    type: str
  group:
    description:
      - Group of the files or the directory, by name or number. The permissions are C(0640) for C(primus.cfg),
        C(0660) for C(.secrets.cfg), C(0600) for the ledger and C(0750) for the directory.
    type: str
  timeout:
    description: Seconds to wait for another run.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    details: Reports whether it would change something, without changing it.
  diff_mode:
    support: none
    details: The files have secrets in them.
seealso:
  - module: hsmops.primus.ppin_config
"""

EXAMPLES = r"""
- name: Move the configuration to a directory that no package overwrites
  hsmops.primus.config_files:
    state: moved
    names: [.secrets.cfg.ledger, .secrets.cfg, primus.cfg]
    src: /usr/local/primus/etc
    dest: /etc/primus
    owner: root
    group: primus
"""

RETURN = r"""
error:
  description: Why the module failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
"""

import contextlib
import os
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    Directory,
    NewFile,
    open_directory,
    open_parent,
    read_all,
    set_permissions,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import announced
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import all_locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import recover_with_lock
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError, error_from_os_error

SECRETS = ".secrets.cfg"
CONFIG = "primus.cfg"
DIRECTORY_MODE = "0750"
REQUIRED_OPTIONS = {"present": ["names"], "copied": ["names", "src"], "moved": ["names", "src"], "directory": []}
MODES = {".secrets.cfg.ledger": "0600", SECRETS: "0660", CONFIG: "0640"}


def transfer_files(module: AnsibleModule) -> bool:
    """Move or copy the files. Return whether that changes anything. :raises OSError, PpinError:"""
    params = module.params
    changed = make_directory(module)
    with open_directory(params["src"]) as source, contextlib.ExitStack() as locks:
        if not module.check_mode:
            secrets = [os.path.join(params[option], SECRETS) for option in ("dest", "src")]
            locks.enter_context(all_locked(secrets, params["timeout"]))
        for name in params["names"]:
            with contextlib.suppress(FileNotFoundError):  # an earlier run has moved it
                changed = transfer_file(module, source, name) or changed
    return changed


def transfer_file(module: AnsibleModule, source: Directory, name: str) -> bool:
    params = module.params
    with open_single_file(source, name) as file, contextlib.ExitStack() as stack:
        if module.check_mode:
            return True
        dest = stack.enter_context(open_directory(params["dest"]))
        content = read_all(file)
        if name not in dest.names():
            new = stack.enter_context(NewFile(dest, name))
            stack.enter_context(announced(dest.path_of(new.temporary)))  # other modules search for leftovers in src
            new.put_in_place(content)
        elif dest.read(name) != content:  # if equal, an interrupted run has not removed the original
            raise PpinError(
                "%s exists in two places, %s and %s, and it is not known which one is valid"
                % (name, source.path, dest.path),
                cls="state",
                hint="Nothing was replaced. Remove the invalid one, then run again.",
            )
        set_permissions(module, dest.path_of(name), params["owner"], params["group"], MODES[name], exact=True)
        if params["state"] == "moved":
            os.unlink(name, dir_fd=source.fd)
    return True


@contextlib.contextmanager
def open_single_file(directory: Directory, name: str) -> t.Iterator[int]:
    """Open a file that is neither a symbolic link nor has hard links. :raises OSError, PpinError:"""
    if stat.S_ISLNK(directory.lstat(name).st_mode):
        raise ambiguous_file_error(directory.path_of(name), "is a symbolic link")
    with directory.open(name) as file:
        if os.fstat(file).st_nlink > 1:
            raise ambiguous_file_error(directory.path_of(name), "has other names (hard links)")
        yield file


def ambiguous_file_error(path: str, reason: str) -> PpinError:
    return PpinError(
        "%s %s, so it was not used" % (path, reason),
        cls="config",
        hint="Anyone who can write to its directory could have created it to have another file copied or handed over. "
        "Replace it with a file of its own, then run again.",
    )


def correct_permissions(module: AnsibleModule) -> bool:
    """Give the files their owner, group and permissions. Return whether that changes anything."""
    params = module.params
    changed = False
    with open_directory(params["dest"]) as dest:
        for name in params["names"]:
            with open_single_file(dest, name):
                pass
            path = dest.path_of(name)
            changed = set_permissions(module, path, params["owner"], params["group"], MODES[name], True) or changed
    return changed


def make_directory(module: AnsibleModule) -> bool:
    """Create dest, or correct its permissions. Return whether that changes anything. :raises OSError, PpinError:

    It is created with mode 0700, so that others can never read a file in it.
    """
    params = module.params
    new = not os.path.isdir(params["dest"])
    if new:
        if module.check_mode:
            return True
        os.makedirs(os.path.dirname(params["dest"]), exist_ok=True)
        parent, name = open_parent(params["dest"])
        with parent:
            os.mkdir(name, 0o700, dir_fd=parent.fd)
    with open_directory(params["dest"]) as dest:
        path = dest.path
    return set_permissions(module, path, params["owner"], params["group"], DIRECTORY_MODE, exact=True) or new


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(REQUIRED_OPTIONS), "default": "present"},
            "names": {"type": "list", "elements": "str", "choices": list(MODES)},
            "src": {"type": "path"},
            "dest": {"type": "path", "required": True},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "timeout": {"type": "int", "default": 60},
        },
        required_if=[("state", state, options) for state, options in REQUIRED_OPTIONS.items()],
        supports_check_mode=True,
    )
    try:
        for directory in filter(None, (module.params["dest"], module.params["src"])):
            secrets = os.path.realpath(os.path.join(directory, SECRETS))
            recover_with_lock(module, secrets, os.path.join(directory, CONFIG), module.params["timeout"])
        apply = {"present": correct_permissions, "directory": make_directory}.get(
            module.params["state"], transfer_files
        )
        changed = apply(module)
    except PpinError as exc:
        module.fail_json(**exc.failure())
    except OSError as exc:
        module.fail_json(**error_from_os_error(exc, "The files cannot be put in place").failure())
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
