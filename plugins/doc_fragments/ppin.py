# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of several modules has in common. Each fragment names the code that implements it."""


class ModuleDocFragment:
    # module_utils/_ppin/paths.py
    DOCUMENTATION = r"""
options:
  executable:
    description:
      - Path of the C(ppin) command.
      - By default C(bin/ppin) under O(primus_home), then what E(PATH) finds.
    type: path
  primus_home:
    description:
      - The folder that the provider is installed in (the vendor's C(PRIMUS_HOME)).
      - By default the environment variable E(PRIMUS_HOME), then V(/usr/local/primus).
    type: path
  config_path:
    description:
      - Path of C(primus.cfg).
      - By default as C(ppin) finds it, which is the environment variable E(SECUROSYS_PKCS11_CONF), then
        V(/etc/primus/primus.cfg), then C(etc/primus.cfg) under O(primus_home).
    type: path
  secrets_path:
    description:
      - Path of C(.secrets.cfg).
      - By default as C(ppin) finds it, which is the environment variable E(SECUROSYS_SECRETS_CONF), then
        V(/etc/primus/.secrets.cfg), then C(etc/.secrets.cfg) under O(primus_home).
    type: path
  timeout:
    description:
      - Seconds that one C(ppin) may take before it is ended, and that another run on the same client is waited for. At
        least 1.
      - A C(ppin) that was ended is not run again, as the HSM may have judged the credential.
    type: int
    default: 60
"""

    # module_utils/_ppin/paths.py
    PARTITION = r"""
options:
  user_name:
    description:
      - Name of the partition, the vendor's C(user_name) in C(primus.cfg).
    type: str
    required: true
    aliases: [partition, name]
"""

    # module_utils/_ppin/paths.py
    SETUP = r"""
options:
  setup_password:
    description:
      - Setup password of the partition. Its validity starts with its first use and ends after a time that the HSM sets.
      - Needed only when the permanent secret is to be fetched.
    type: str
  pkcs11_password:
    description:
      - PKCS#11 password (PIN) of the partition. Needed only when the permanent secret is to be fetched.
    type: str
  setup_password_format_check:
    description:
      - Refuse a O(setup_password) that does not have the documented form (five groups of five letters and digits,
        joined by dashes) before anything runs. Letters of both cases are accepted, and none is changed.
    type: bool
    default: true
"""

    # module_utils/_ppin/paths.py
    DIALOGUE = r"""
options: {}
requirements:
  - pexpect 4.0 or later, on the host that runs C(ppin), for the runs that give it a password
notes:
  - Passwords are typed to C(ppin) through a pseudo-terminal once it has asked and has switched the echo off. They are
    never in the arguments or the environment of a process.
"""

    # module_utils/_client/converge.py
    CREDENTIAL = r"""
options:
  force:
    description:
      - With O(state=updated), set the credential again even if the password given is the one that set it.
    type: bool
    default: false
  retries:
    description:
      - How often to try again, with a growing pause (1, 2, 4, … seconds), after an error that says that the HSM could
        not be reached or was busy.
      - A credential that was rejected is never tried again.
    type: int
    default: 2
  backup:
    description:
      - Keep a copy of C(.secrets.cfg) as it was before the change, beside it, with the same owner and mode.
    type: bool
    default: false
  in_place:
    description:
      - Write to C(.secrets.cfg) as it is, in place of a new file that takes its place by one rename. For a file that is
        mounted on its own (containers), has hard links, or lies in a directory that the user of the task may not write
        to.
      - What was in the file and what is to be is kept meanwhile, beside it or in C(/var/tmp), so that the next run ends
        a write that was interrupted. Until then an application may find half of it. In a container that is thrown
        away after it was killed, what was kept is lost.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Can run in check mode and tell whether it would change something, without changing it.
  diff_mode:
    support: full
    description: Shows the state of the credential before and after, never the credential.
notes:
  - C(ppin) rewrites its file in place, and removes the present entry when an update fails. So it works on a copy, which
    takes the place of C(.secrets.cfg) when the change has worked. The module needs write access to the directory of the
    file; the file must be one that can be replaced, with no other hard link and no mount of its own, or see
    O(in_place).
  - The module follows no link, and works in no directory and on no file, that a user could have put there who is
    neither root nor the user of the task.
  - Beside C(.secrets.cfg) the module keeps the ledger C(.secrets.cfg.ledger), mode 0600, with a salted PBKDF2
    fingerprint of the password that set each credential. It makes O(state=updated) idempotent.
"""

    # module_utils/_client/login.py
    LOGIN = r"""
options:
  force:
    description:
      - Log in even with a secret of which the ledger of this client or the attempt gate knows that the HSM rejected it.
        Without this the module fails then, before any login, and names the partition.
      - A secret that was fetched anew with M(hsmops.primus.ppin_secret) counts as good until it is rejected.
    type: bool
    default: false
notes:
  - The logins are made with the permanent secrets in C(.secrets.cfg). No password is given to the module.
  - What was rejected is noted in C(.secrets.cfg.ledger), beside C(.secrets.cfg).
"""

    # module_utils/_client/gate_options.py
    GATE_SAYS = r"""
options:
  gate_says:
    description: What the attempt gate knows. The action plugin sets it.
    type: dict
    suboptions:
      look:
        description: Whether this is the gate's own look, which notes the verdict of a login also in check mode.
        type: bool
        default: false
      checked:
        description: Partitions of whose present secret the verdict in the ledger is that of a login of this run.
        type: list
        elements: str
        default: []
      stale:
        description: Origins of permanent secrets that the HSM rejects, as several clients found.
        type: list
        elements: str
        default: []
      origins:
        description: The origins to note of the secrets that are fetched, by partition.
        type: dict
        default: {}
"""

    # module_utils/_client/gate_options.py
    GATE = r"""
options:
  gate:
    description:
      - Whether a credential that no host has tried yet is tried by one host alone, while the others wait for the
        verdict. Accepted, two others follow, and more with each acceptance, up to O(gate_parallel); rejected, the
        others fail without contact with the HSM. So a wrong password costs one attempt per fleet, and one that was
        changed at the HSM since the last run two.
      - A host that needs nothing never waits. See C(docs/fleet_safety.md).
    type: bool
    default: true
  gate_store:
    description:
      - Where the gate keeps what it knows. This is a directory of the control node (created with mode 0700 when it is
        not there; one that a group of operators shares needs mode 2770), or a Redis, as a URL that begins with
        C(redis://), C(rediss://) or C(unix://). For a Redis the control node needs the Python package redis.
      - By default the directory C(hsmops-primus-gate) in Ansible's own, C(~/.ansible) or what C(ANSIBLE_HOME) says.
      - Controllers that work on the same fleet must share it, and fleets with different HSMs need different ones if
        their partitions have the same names.
    type: str
  gate_budget:
    description:
      - How many logins with one name may go wrong, or remain without a verdict, within O(gate_window) seconds. It stops
        several different wrong passwords for one partition before the HSM locks it. At least 1.
      - Setup passwords and permanent secrets of a partition have one account, as the HSM counts them together.
    type: int
    default: 3
  gate_parallel:
    description:
      - How many hosts may use a credential at once that was accepted in this run. At least 1.
    type: int
    default: 16
  gate_window:
    description:
      - Seconds for which the gate goes by a credential that was accepted, and counts those that were not. At least 1.
      - A credential that was rejected stays so until its entry is cleared with M(hsmops.primus.attempt_gate).
    type: int
    default: 3600
seealso:
  - module: hsmops.primus.attempt_gate
  - module: hsmops.primus.attempt_gate_info
"""

    # plugin_utils/_gate/entries.py
    GATE_ENTRIES = r"""
options:
  name:
    description:
      - Only entries of this partition or service user.
    type: str
  kind:
    description:
      - Only entries of this kind, which is V(secret) for a setup password with its PKCS#11 password, V(proxy) for a
        service proxy password, V(pin) for a PKCS#11 password that M(hsmops.primus.pkcs11_token_info) tried,
        V(permanent) for the permanent secrets that the clients have.
    type: str
    choices: [secret, proxy, pin, permanent]
  gate_store:
    description:
      - Where the gate keeps what it knows, as in M(hsmops.primus.ppin_secret). The action group
        C(hsmops.primus.attempt_gate) does not set it for this module.
    type: str
"""

    ATTRIBUTES = r"""
options: {}
attributes:
  action_group:
    support: full
    description: Use C(group/hsmops.primus.ppin) in C(module_defaults) to set defaults for this module.
    membership:
      - hsmops.primus.ppin
  platform:
    support: full
    description: Linux, with the Primus PKCS#11 provider installed.
    platforms: posix
notes:
  - Works with Python 3.6 and later on the host.
"""

    # Modules that are an action plugin only: plugins/action/
    CONTROLLER = r"""
options: {}
attributes:
  action:
    support: full
    description: Is an action plugin, and runs on the controller.
  platform:
    support: full
    description: The controller.
    platforms: posix
"""
