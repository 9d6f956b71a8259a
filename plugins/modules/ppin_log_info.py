#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_log_info
short_description: Fetch the log that a Primus HSM keeps of a partition
version_added: 1.0.0
description:
  - Fetches the log of a partition from an HSM with the vendor's C(ppin --fetchlog), and returns its entries or writes
    it to a file.
  - B(This is one login) with the permanent secret of the partition, and the HSM logs it too. A secret that the HSM no
    longer accepts costs one wrong attempt, which counts towards the lock-out of the partition for all its clients.
  - Clients can fetch the log only with C(client_log=true) in the security configuration of the HSM, which its security
    officer sets. If the log is refused or has no entries, the module reports this.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.actiongroup_ppin_gate
  - hsmops.primus.attributes.managed_node
  - hsmops.primus.ppin
  - hsmops.primus.ppin.partition
  - hsmops.primus.ppin.login
  - hsmops.primus.ppin.gate
  - hsmops.primus.ppin.gate_findings
  - ansible.builtin.files
options:
  hsm:
    description:
      - The HSM whose log is fetched, C(hsm0) and so on as in C(primus.cfg), or its host name. Each HSM of a cluster has
        a log of its own.
    type: str
    required: true
  since:
    description:
      - Only entries since this day C(YYYY-MM-DD) or time C(YYYY-MM-DDTHH:MM:SSZ), in UTC. By default all.
      - With O(dest), only the day is used.
    type: str
  level:
    description:
      - Only entries of this syslog level or a more severe one, and entries with another level than these. By default
        all.
      - Cannot be given together with O(dest).
    type: str
    choices: [emerg, alert, crit, err, warning, notice, info, debug]
  reverse:
    description:
      - The newest entry first.
    type: bool
    default: false
  dest:
    description:
      - Write the log, as it is, to this file of the host instead of returning its entries. A new file has mode 0600
        unless O(mode) says otherwise.
      - Fetching the log adds an entry to it, so every run changes the file.
    type: path
attributes:
  check_mode:
    support: full
    details: Fetches the log in check mode too, logs in for it, and writes nothing.
  diff_mode:
    support: none
    details: Does not compare logs.
seealso:
  - module: hsmops.primus.ppin_connectivity_info
"""

EXAMPLES = r"""
- name: Fetch the errors of the partition since yesterday
  hsmops.primus.ppin_log_info:
    user_name: PARTITION1
    hsm: hsm0
    since: "{{ '%Y-%m-%d' | ansible.builtin.strftime(now().timestamp() - 86400, utc=true) }}"
    level: err
  register: log

- name: Write the log to a file
  hsmops.primus.ppin_log_info:
    user_name: PARTITION1
    hsm: hsm0
    dest: /var/log/primus-partition1.log
    mode: "0640"
"""

RETURN = r"""
entries:
  description: The entries of the log, the oldest first unless O(reverse=true).
  returned: without O(dest)
  type: list
  elements: dict
  contains:
    time:
      description: When it was written, in UTC.
      type: str
    device:
      description: Name of the HSM.
      type: str
    level:
      description: Level, as in O(level) if it is one of those.
      type: str
    process:
      description: The part of the HSM that wrote it.
      type: str
    text:
      description: The message.
      type: str
    repeated:
      description: How many times in a row it occurred, as counted by the log.
      type: int
  sample:
    - time: "2026-01-31T12:00:00Z"
      device: NUFENEN
      level: err
      process: Crypto
      text: "Process: Error: Command: CommandGetKeyFlag, User: PARTITION1, 0x12"
      repeated: 11
other_lines:
  description: Lines of the log that cannot be parsed as entries. No filter applies to them.
  returned: without O(dest)
  type: list
  elements: str
dest:
  description: The file.
  returned: with O(dest)
  type: str
size:
  description: Size of the log in bytes.
  returned: success
  type: int
partitions:
  description: The result of the login with the permanent secret, with the keys of the same value of
    M(hsmops.primus.ppin_connectivity_info).
  returned: always
  type: list
  elements: dict
logins:
  description: How many logins the HSM may have evaluated.
  returned: always
  type: int
refused:
  description: The partition, if no login was made because its secret is known to be rejected.
  returned: always
  type: list
  elements: str
error:
  description: Why the module failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.dest import check_dest, write_dest
from ansible_collections.hsmops.primus.plugins.module_utils._client.ledger import Ledger
from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import RunDirectory
from ansible_collections.hsmops.primus.plugins.module_utils._client.login_module import (
    LOGIN_ARGUMENTS,
    check_not_rejected,
    record_logins,
    run_login_module,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import TIME_FORMAT
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.log import LEVELS, parse_log
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.login import LoginPpin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import PARTITION_ARGUMENTS

CLIENT_LOG_HINT = (
    "A client gets the log only when the HSM's security configuration has client_log=true, which is set by the HSM's "
    "security officer, or for CloudHSM by the vendor's support."
)


def parse_since(text: str) -> str:
    """Convert a day or time to the form of the log. YAML may have changed its form. :raises PpinError:"""
    normal = text.replace(" ", "T").replace("+00:00", "Z").rstrip("Z")
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"):
        try:
            return time.strftime(TIME_FORMAT, time.strptime(normal, form))
        except ValueError:
            pass
    raise PpinError(
        "since is not a day or time", cls="config", hint="Write it as YYYY-MM-DD or as YYYY-MM-DDTHH:MM:SSZ, in UTC."
    )


def fetch_log_entries(module: AnsibleModule, ppin: LoginPpin, ledger: Ledger, result: t.Dict[str, t.Any]) -> None:
    params = module.params
    since = parse_since(params["since"]) if params["since"] else ""
    if params["dest"]:
        check_dest(module)
    check_not_rejected(module, ledger, [params["user_name"]])
    try:
        with RunDirectory(ppin.paths.secrets) as run_directory:
            out = run_directory.path_of("log")
            ppin.fetch_log(params["user_name"], params["hsm"], since[:10] or None, params["reverse"], out)
            content = run_directory.directory.read("log")
    except PpinError as exc:
        verified = False if exc.is_rejection else None
        record_login(module, ledger, result, {"verified": verified, "logins": ppin.logins, "error": exc.result()})
        if exc.cls == "refused":
            exc.hint += " " + CLIENT_LOG_HINT
        raise
    result["size"] = len(content)
    entries, other_lines = parse_log(content.decode("utf-8", "replace"))
    # ppin may create the file before the HSM has answered.
    record_login(module, ledger, result, {"verified": True if entries else None, "logins": 1, "error": None})
    if not entries:
        module.warn(
            "The log of '%s' from %s has no entries. %s" % (params["user_name"], params["hsm"], CLIENT_LOG_HINT)
        )
    if params["dest"]:
        result.update(dest=params["dest"], changed=write_dest(module, content))
        return
    result["other_lines"] = other_lines
    result["entries"] = [
        entry._asdict()
        for entry in entries
        if entry.time >= since and (params["level"] is None or entry.is_at_least(params["level"]))
    ]


def record_login(
    module: AnsibleModule, ledger: Ledger, result: t.Dict[str, t.Any], verdict: t.Dict[str, t.Any]
) -> None:
    name = module.params["user_name"]
    result["partitions"] = [dict(verdict, user_name=name)]
    record_logins(module, ledger, {name: verdict["verified"]})


def main() -> None:
    run_login_module(
        AnsibleModule(
            argument_spec=dict(
                LOGIN_ARGUMENTS,
                **PARTITION_ARGUMENTS,
                hsm={"type": "str", "required": True},
                since={"type": "str"},
                level={"type": "str", "choices": list(LEVELS)},
                reverse={"type": "bool", "default": False},
                dest={"type": "path"},
            ),
            add_file_common_args=True,
            mutually_exclusive=[("dest", "level")],
            supports_check_mode=True,
        ),
        fetch_log_entries,
        {"partitions": []},
    )


if __name__ == "__main__":
    main()
