#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_fortinet
short_description: Fetch the secrets string of a Primus HSM partition for FortiGate
version_added: 1.0.0
description:
  - Fetches the permanent secret of a partition with the vendor's C(ppin --fortinet) and writes it to a file, or returns
    it, as the string that a FortiGate expects, which is a secrets file in base64.
  - B(The string is a secret.) Whoever has it can open the connection to the HSM as that partition.
  - It uses the setup password. Every wrong one counts towards the lock-out of the partition for all its clients, so the
    module tries it once, and not at all when O(dest) already contains the string.
  - The C(.secrets.cfg) of the host is not changed. C(ppin) runs on a copy.
  - Needs provider 2.2.4 or later.
  - A FortiGate takes a string of 3 kB at most. The module warns when this one is longer.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.actiongroup_ppin_gate
  - hsmops.primus.attributes.managed_node
  - hsmops.primus.ppin
  - hsmops.primus.ppin.partition
  - hsmops.primus.ppin.setup
  - hsmops.primus.ppin.dialogue
  - hsmops.primus.ppin.gate
  - ansible.builtin.files
options:
  proxy_user:
    description:
      - The service user in front of the partition (CloudHSM). Its password is included in the string.
    type: str
  proxy_password:
    description:
      - The service proxy password of O(proxy_user).
    type: str
  dest:
    description:
      - The file on the host to write the string and a line break to. A new file has mode 0600 unless O(mode) says
        otherwise.
      - If it already contains the string of this partition, nothing is fetched. If it contains anything else, the
        module fails. See O(force) for both.
    type: path
  return_content:
    description:
      - Return the string as RV(content). B(Then set) C(no_log) B(for the task) and for tasks that use the
        registered result; otherwise the string is shown with C(-v) and in logs.
      - One of this and O(dest) is needed. Without O(dest) every run fetches the string again.
    type: bool
    default: false
  force:
    description:
      - Fetch the string again and replace the content of O(dest).
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    details: Reports whether it would fetch the string, without fetching it.
  diff_mode:
    support: none
    details: Would show the string.
seealso:
  - module: hsmops.primus.ppin_secret
"""

EXAMPLES = r"""
- name: Write the secrets string for the FortiGate to a file
  hsmops.primus.ppin_fortinet:
    user_name: PARTITION1
    setup_password: "{{ vault_partition1_setup_password }}"
    pkcs11_password: "{{ vault_partition1_pkcs11_password }}"
    dest: /root/partition1.fortigate

- name: Fetch the secrets string and register it
  hsmops.primus.ppin_fortinet:
    user_name: PARTITION1
    setup_password: "{{ vault_partition1_setup_password }}"
    pkcs11_password: "{{ vault_partition1_pkcs11_password }}"
    proxy_user: eqabxrfnqqos
    proxy_password: "{{ vault_eqabxrfnqqos_password }}"
    return_content: true
  register: fortigate
  no_log: true
"""

RETURN = r"""
user_name:
  description: The partition.
  returned: always
  type: str
  sample: PARTITION1
users:
  description: Names of all partitions whose secrets are in the string.
  returned: when there is a string
  type: list
  elements: str
  sample: [PARTITION1]
length:
  description: Length of the string in bytes.
  returned: when there is a string
  type: int
  sample: 412
dest:
  description: The file.
  returned: with O(dest)
  type: str
content:
  description: The string, on one line. It is a secret.
  returned: with O(return_content=true), when there is a string
  type: str
logins:
  description: How many logins this run spent, successful or not. An HSM that could not be reached counts none.
  returned: always
  type: int
error:
  description: Why the module failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
"""

import os
import signal
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import (
    SecretsString,
    find_secrets_string,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.control import with_control
from ansible_collections.hsmops.primus.plugins.module_utils._client.dest import check_dest, set_attributes, write_dest
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import os_text, read_file, real_path
from ansible_collections.hsmops.primus.plugins.module_utils._client.gate_options import GATE_ARGUMENTS
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import RunDirectory
from ansible_collections.hsmops.primus.plugins.module_utils._client.lock import locked
from ansible_collections.hsmops.primus.plugins.module_utils._client.secrets_file import (
    recover,
    recover_with_lock,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.dialogue import DialoguePpin, import_pexpect
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    PpinError,
    error_from_crash,
    error_from_os_error,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import not_listed_error
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import (
    PARTITION_ARGUMENTS,
    PPIN_ARGUMENTS,
    SETUP_ARGUMENTS,
    check_password,
    check_setup_password,
    find_paths,
)

PASSWORDS = ("setup_password", "pkcs11_password")

FORTIGATE_LIMIT = 3000
"""Bytes of a secrets string. According to the vendor, a FortiGate takes at most 3 kB."""


def provide_secrets_string(module: AnsibleModule, result: t.Dict[str, t.Any]) -> None:
    params = module.params
    for option in PASSWORDS + ("proxy_password",):
        check_password(option, params[option])
    if params["setup_password_format_check"]:
        check_setup_password(params["setup_password"])
    if not params["dest"] and not params["return_content"]:
        raise PpinError("Neither dest nor return_content is given", cls="config", hint="Give one of them.")
    if params["dest"]:
        check_dest(module)
        result["dest"] = params["dest"]
    present = (
        None if params["force"] else read_existing(params["dest"] and os_text(params["dest"]), params["user_name"])
    )
    if present is not None:
        paths = find_paths(params, module.get_bin_path)
        recover_with_lock(module, paths.secrets, paths.config, params["timeout"])
        result["changed"] = set_attributes(module)
        set_result(module, result, present)
        return
    ppin = prepare_ppin(module)
    if module.check_mode:
        result["changed"] = True
        return
    secrets_string = fetch_string(module, ppin, result)
    result["changed"] = not params["dest"] or write_dest(module, (secrets_string.text + "\n").encode("ascii"))
    set_result(module, result, secrets_string)


def read_existing(dest: t.Optional[str], user_name: str) -> t.Optional[SecretsString]:
    """Return the string in the file, or None when there is no file. :raises PpinError: when it has another content."""
    if not dest or not os.path.exists(dest):
        return None
    found = find_secrets_string(read_file(real_path(dest)).decode("utf-8", "replace"))
    if found is None or user_name not in found.users:
        raise PpinError(
            "%s is there and has no secrets string of '%s'" % (dest, user_name),
            cls="state",
            hint="Correct dest, or set force to true to have it replaced. No login was spent.",
        )
    return found


def prepare_ppin(module: AnsibleModule) -> DialoguePpin:
    """Check all that can be checked without a login, and return the ppin. :raises PpinError:"""
    user_name = module.params["user_name"]
    missing = [option for option in PASSWORDS if module.params[option] is None]
    if missing:
        raise PpinError(
            "To fetch the secrets string of '%s' needs %s" % (user_name, " and ".join(missing)),
            cls="config",
            hint="Give %s and run again. No login was spent." % " and ".join(missing),
        )
    import_pexpect()
    ppin = DialoguePpin(find_paths(module.params, module.get_bin_path), module.params["timeout"])
    ppin.check_files()
    listed = ppin.listing().partitions
    if user_name not in listed:
        raise not_listed_error(user_name, listed)
    return ppin


def fetch_string(module: AnsibleModule, ppin: DialoguePpin, result: t.Dict[str, t.Any]) -> SecretsString:
    """Have ppin fetch the string, on a copy of the secrets file. :raises PpinError:"""
    params = module.params
    with locked(ppin.paths.secrets, ppin.timeout):
        recover(module, ppin.paths.secrets, ppin.paths.config)
        content = read_file(ppin.paths.secrets)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, ppin.on_signal)  # removes the copy before the module ends
    try:
        with RunDirectory(ppin.paths.secrets) as run_directory:
            ppin.secrets_path = run_directory.write(".secrets.cfg", content)
            secrets_string = ppin.fortinet(
                params["user_name"],
                params["setup_password"],
                params["pkcs11_password"],
                params["proxy_user"],
                params["proxy_password"],
            )
    finally:
        result["logins"] = ppin.logins
    if params["user_name"] not in secrets_string.users:
        raise PpinError(
            "ppin --fortinet made a string without a secret of '%s'" % params["user_name"],
            cls="dialogue",
            hint="Report it with the version of your provider, never with the string.",
        )
    return secrets_string


def set_result(module: AnsibleModule, result: t.Dict[str, t.Any], secrets_string: SecretsString) -> None:
    result.update(users=secrets_string.users, length=len(secrets_string.text))
    if result["length"] > FORTIGATE_LIMIT:
        module.warn(
            "The secrets string of '%s' has %d bytes, and a FortiGate takes 3 kB at most: it is to be expected that it "
            "refuses the string." % (module.params["user_name"], result["length"])
        )
    if module.params["return_content"]:
        result["content"] = secrets_string.text


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            PPIN_ARGUMENTS,
            proxy_user={"type": "str"},
            proxy_password={"type": "str", "no_log": True},
            dest={"type": "path"},
            return_content={"type": "bool", "default": False},
            force={"type": "bool", "default": False},
            **PARTITION_ARGUMENTS,
            **SETUP_ARGUMENTS,
            **GATE_ARGUMENTS,
        ),
        add_file_common_args=True,
        required_together=[("proxy_user", "proxy_password")],
        supports_check_mode=True,
    )
    result: t.Dict[str, t.Any] = {"changed": False, "user_name": module.params["user_name"], "logins": 0}
    try:
        provide_secrets_string(module, result)
    except PpinError as exc:
        module.fail_json(**with_control(dict(result, **exc.failure())))
    except OSError as exc:
        module.fail_json(**with_control(dict(result, **error_from_os_error(exc).failure())))
    except Exception as exc:  # the result must report the logins in any case
        module.fail_json(**with_control(dict(result, **error_from_crash(exc).failure())))
    module.exit_json(**with_control(result))


if __name__ == "__main__":
    main()
