#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_config
short_description: Manage primus.cfg, validated by ppin before it is installed
version_added: 1.0.0
description:
  - Writes C(primus.cfg). The new file replaces the old one atomically, and only after C(ppin -l) has read it. Otherwise
    the old one is left unchanged.
  - The exit status of C(ppin) is not documented. The new file therefore counts as valid when C(ppin) lists exactly the
    partitions and service users that are in it.
  - A partition can be left out only when C(ppin -l) reports that it has no permanent secret. With O(validate=false),
    this is not checked.
  - A C(primus.cfg) that is a symbolic link is neither read nor replaced, because anyone who can write to its directory
    could have created it.
author:
  - The hsmops.primus authors (@hsmops)
options:
  content:
    description:
      - The whole content, such as from P(hsmops.primus.primus_cfg#filter). It is not logged.
    type: str
    required: true
  validate:
    description:
      - Whether to validate new content with C(ppin) first. This needs a C(.secrets.cfg); the provider's template is
        used while there is none.
      - The content is validated in a temporary directory, so an C(@include) in it needs an absolute path.
      - In check mode, on a client without C(ppin), nothing is validated.
    type: bool
    default: true
  removed:
    description:
      - In check mode, the partitions whose permanent secret an earlier task would remove. They can be left out.
    type: list
    elements: str
    default: []
  backup:
    description:
      - Keep a copy of the old file beside it, with the same owner and mode.
    type: bool
    default: false
  owner:
    description:
      - Owner of the file. Left as it is by default.
    type: str
  group:
    description:
      - Group of the file. Left as it is by default.
    type: str
  mode:
    description:
      - Permissions of the file, as for M(ansible.builtin.file). Left as they are by default, V(0600) for a new file.
    type: raw
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.actiongroup_ppin
  - hsmops.primus.attributes.managed_node
  - hsmops.primus.ppin
attributes:
  check_mode:
    support: full
    details: Can run in check mode and report whether it would change something, without changing it.
  diff_mode:
    support: full
    details: >-
      Shows the content before and after, without comments, and without the values of settings that hold a password or
      that the vendor does not document.
seealso:
  - plugin: hsmops.primus.primus_cfg
    plugin_type: filter
  - module: hsmops.primus.ppin_info
"""

EXAMPLES = r"""
- name: Write primus.cfg
  hsmops.primus.ppin_config:
    content: "{{ settings | hsmops.primus.primus_cfg }}"
    owner: root
    group: primus
    mode: "0640"
"""

RETURN = r"""
path:
  description: Path of C(primus.cfg).
  returned: always
  type: str
  sample: /etc/primus/primus.cfg
backup_file:
  description: Path of the copy.
  returned: when O(backup=true) and there was a file that has changed
  type: str
  sample: /etc/primus/primus.cfg.4711.2026-01-31@12:00:00~
error:
  description: Why the module failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
"""

import contextlib
import errno
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import (
    hide_passwords,
    password_values,
    read_slots,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    Directory,
    NewFile,
    open_parent,
    read_all,
    set_permissions,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import RunDirectory
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import recover_with_lock
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.command import Ppin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError, error_from_os_error
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import PPIN_ARGUMENTS, find_paths

NOTHING_CONFIGURED = "0x80005001"


def write_config(module: AnsibleModule, content: str) -> t.Dict[str, t.Any]:
    params = module.params
    ppin = Ppin(find_paths(params, module.get_bin_path), params["timeout"])
    path = ppin.paths.config
    recover_with_lock(module, ppin.paths.secrets, path, ppin.timeout)
    old, new = read_config(path), content.encode("utf-8")
    for text in (content, (old or b"").decode("utf-8", "replace")):
        with contextlib.suppress(ValueError):  # a text that cannot be parsed is not shown at all
            module.no_log_values.update(password_values(text, path))
    result: t.Dict[str, t.Any] = {"path": path, "changed": old != new}
    if old != new:
        result["diff"] = {
            "before_header": path,
            "after_header": path,
            "before": redacted(old or b""),
            "after": redacted(new),
        }
        if params["validate"] and (ppin.paths.executable or not module.check_mode):
            needed = validate(ppin, content)
            if old is not None:
                check_dropped_partitions(ppin, {*needed, *(params["removed"] if module.check_mode else [])})
        if not module.check_mode:
            with locked(path, ppin.timeout):
                result.update(replace_config(path, old, new, params["backup"]))
    if old is not None or not module.check_mode:
        permissions_changed = set_permissions(module, path, params["owner"], params["group"], params["mode"])
        result["changed"] = permissions_changed or result["changed"]
    return result


def read_config(path: str) -> t.Optional[bytes]:
    """Return the content of primus.cfg, or None when there is none. :raises OSError, PpinError: see below."""
    try:
        directory, name = open_parent(path)
        with directory:
            return read_from_directory(directory, name)
    except FileNotFoundError:
        return None


def read_from_directory(directory: Directory, name: str) -> bytes:
    """Read primus.cfg. :raises OSError: when that fails. :raises PpinError: for a symbolic link or unsafe hard link."""
    path = directory.path_of(name)
    try:
        with directory.open(name) as file:
            if os.fstat(file).st_nlink > 1 and directory.others_can_write:
                raise ambiguous_file_error(path, "has other names (hard links)")
            return read_all(file)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise ambiguous_file_error(path, "is a symbolic link") from None
        exc.filename = path
        raise


def ambiguous_file_error(path: str, reason: str) -> PpinError:
    return PpinError(
        "%s %s, so it was neither read nor changed" % (path, reason),
        cls="config",
        hint="Anyone who can write to its directory could have created it to have another file read or changed. "
        "Replace it with a file of its own, or set config_path to the path of the original.",
    )


def replace_config(path: str, old: t.Optional[bytes], new: bytes, backup: bool) -> t.Dict[str, t.Any]:
    """Replace the old content by the new one, with a backup. Return parts of the result. :raises OSError, PpinError:"""
    result: t.Dict[str, t.Any] = {}
    directory, name = open_parent(path)

    def check_unchanged() -> None:
        try:
            present: t.Optional[bytes] = read_from_directory(directory, name)
        except FileNotFoundError:
            present = None
        if present != old:
            raise PpinError(
                "%s was changed by another process during the run, and was not replaced" % path,
                cls="state",
                hint="The other change was kept. Find out who changes this client, then run again.",
            )

    with directory:
        if old is None:
            with NewFile(directory, name) as file:
                file.put_in_place(new, check_unchanged)
            return result
        with directory.open(name) as present:
            if backup:
                copy = "%s.%d.%s~" % (name, os.getpid(), time.strftime("%Y-%m-%d@%H:%M:%S"))
                with NewFile(directory, copy, attributes_from=present) as file:
                    file.put_in_place(old)
                result["backup_file"] = directory.path_of(copy)
            with NewFile(directory, name, attributes_from=present) as file:
                file.put_in_place(new, check_unchanged)
    return result


def redacted(content: bytes) -> str:
    """Return the content without passwords, for a diff."""
    hidden = hide_passwords(content.decode("utf-8", "replace"))
    return (
        "(not shown, as its syntax is not understood, and there may be a password in it)\n"
        if hidden is None
        else hidden
    )


def validate(ppin: Ppin, content: str) -> t.Collection[str]:
    """Have ppin list the new file. Return its partitions. :raises PpinError: when it does not list all of its names."""
    with RunDirectory(ppin.paths.secrets) as run_directory:
        return validate_file(ppin, content, run_directory.write("primus.cfg", content.encode("utf-8")))


def validate_file(ppin: Ppin, content: str, candidate: str) -> t.Collection[str]:
    template = os.path.join(ppin.paths.home, "etc", ".secrets.cfg")
    secrets = ppin.paths.secrets if os.path.exists(ppin.paths.secrets) else template
    try:
        slots = read_slots(content, candidate)
        expected: t.Optional[t.Set[str]] = {slot.user_name for slot in slots} | {
            "service user " + slot.proxy_user for slot in slots if slot.proxy_user
        }
    except ValueError:
        expected = None  # this collection cannot parse it, but ppin may
    try:
        listing = Ppin(ppin.paths._replace(config=candidate, secrets=secrets), ppin.timeout).listing()
    except PpinError as exc:
        nothing_listed = exc.code == NOTHING_CONFIGURED or (exc.code is None and exc.cls == "unknown")
        if expected == set() and nothing_listed:
            return ()  # there is nothing to list
        # Without a code, the message has output of ppin, which may be a line that this collection cannot redact.
        details = ": %s" % exc.msg if exc.code or expected is not None else ""
        raise PpinError(
            "The new primus.cfg was not installed, as ppin does not accept it%s" % details,
            exc.code,
            exc.cls,
            "The existing file, if any, was not changed. %s" % exc.hint,
        ) from exc
    listed = set(listing.partitions) | {"service user " + name for name in listing.service_users}
    if expected not in (None, listed):
        raise PpinError(
            "The new primus.cfg was not installed, as ppin reads it differently: it lists %s instead of %s"
            % (", ".join(sorted(listed)), ", ".join(sorted(expected or ())) or "nothing"),
            cls="config",
            hint="The existing file, if any, was not changed. Look for names that this version of ppin cannot read.",
        )
    return listing.partitions


def check_dropped_partitions(ppin: Ppin, needed: t.Collection[str]) -> None:
    """Check that no partition is dropped that has a permanent secret: ppin could not remove the secret any more.

    :arg needed: the partitions that the new file names, and those whose secret would be removed before.
    :raises PpinError: when a partition with a permanent secret is not among them.
    """
    try:
        partitions = ppin.listing().partitions
    except PpinError:
        return  # ppin cannot list with the old file, and the new one may repair it
    dropped = [
        name
        for name, entries in partitions.items()
        if name not in needed and any(entry.configured for entry in entries)
    ]
    if dropped:
        raise PpinError(
            "The new primus.cfg was not installed, as it does not name %s, whose permanent secret is there and "
            "would stay behind in .secrets.cfg" % ", ".join("'%s'" % name for name in dropped),
            cls="state",
            hint="The existing file was not changed. Remove the secret first: list the partition with state: absent "
            "for the "
            "roles, or run hsmops.primus.ppin_secret with state: absent. To leave the secret there, set validate to "
            "false.",
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            PPIN_ARGUMENTS,
            content={"type": "str", "required": True, "no_log": True},
            validate={"type": "bool", "default": True},
            removed={"type": "list", "elements": "str", "default": []},
            backup={"type": "bool", "default": False},
            owner={"type": "str"},
            group={"type": "str"},
            mode={"type": "raw"},
        ),
        supports_check_mode=True,
    )
    # no_log keeps it out of logs. It must not be masked as a whole, because the diff shows the parts without passwords.
    content = module.params["content"]
    module.no_log_values.discard(content)
    module.params["content"] = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    try:
        module.exit_json(**write_config(module, content))
    except PpinError as exc:
        module.fail_json(**exc.failure())
    except OSError as exc:
        module.fail_json(**error_from_os_error(exc, "primus.cfg cannot be put in place").failure())


if __name__ == "__main__":
    main()
