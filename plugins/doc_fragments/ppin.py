# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of several modules has in common. Each fragment names the code that implements it."""


class ModuleDocFragment:
    # PPIN_ARGUMENTS in module_utils/_ppin/paths.py
    DOCUMENTATION = r"""
options:
  executable:
    description:
      - Path of the C(ppin) command.
      - By default C(bin/ppin) in O(primus_home), then the first one in E(PATH).
    type: path
  primus_home:
    description:
      - The installation directory of the provider (the vendor's C(PRIMUS_HOME)).
      - By default the environment variable E(PRIMUS_HOME), then V(/usr/local/primus).
    type: path
  config_path:
    description:
      - Path of C(primus.cfg).
      - By default the file that C(ppin) uses, which is the environment variable E(SECUROSYS_PKCS11_CONF), then
        V(/etc/primus/primus.cfg), then C(etc/primus.cfg) in O(primus_home).
    type: path
  secrets_path:
    description:
      - Path of C(.secrets.cfg).
      - By default the file that C(ppin) uses, which is the environment variable E(SECUROSYS_SECRETS_CONF), then
        V(/etc/primus/.secrets.cfg), then C(etc/.secrets.cfg) in O(primus_home).
    type: path
  timeout:
    description:
      - Timeout in seconds for each C(ppin) command, and for waiting for another run's lock. At least 1.
      - A C(ppin) command that timed out is not retried, because the HSM may have evaluated the credential.
    type: int
    default: 60
"""

    # PARTITION_ARGUMENTS in module_utils/_ppin/paths.py
    PARTITION = r"""
options:
  user_name:
    description:
      - Name of the partition, the vendor's C(user_name) in C(primus.cfg).
    type: str
    required: true
    aliases: [partition, name]
"""

    # SETUP_ARGUMENTS in module_utils/_ppin/paths.py
    SETUP = r"""
options:
  setup_password:
    description:
      - Setup password of the partition. It is valid from its first use for a time that is configured at the HSM.
      - Required only when the permanent secret has to be fetched.
    type: str
  pkcs11_password:
    description:
      - PKCS#11 password (PIN) of the partition. Required only when the permanent secret has to be fetched.
    type: str
  setup_password_format_check:
    description:
      - Fail before anything runs if O(setup_password) does not have the documented form (five groups of five letters
        and digits, joined by dashes). Letters of both cases are accepted and left unchanged.
    type: bool
    default: true
"""

    # module_utils/_ppin/paths.py
    DIALOGUE = r"""
options: {}
requirements:
  - pexpect 4.0 or later, on the managed node, when C(ppin) has to be given a password
notes:
  - Passwords are typed to C(ppin) through a pseudo-terminal, after it has shown its prompt and disabled the echo. They
    are never in the arguments or the environment of a process.
"""

    # CREDENTIAL_ARGUMENTS in module_utils/_client/converge.py
    CREDENTIAL = r"""
options:
  force:
    description:
      - With O(state=updated), set the credential again even if it was set with the same password.
    type: bool
    default: false
  retries:
    description:
      - Number of retries, with a growing delay (1, 2, 4, … seconds), after an error that means that the HSM could not
        be reached or was busy. Only such errors are retried, because the HSM has not evaluated the credential.
      - A rejected credential is never retried.
    type: int
    default: 2
  backup:
    description:
      - Keep a backup of C(.secrets.cfg) in the same directory, with the same owner and mode.
    type: bool
    default: false
  in_place:
    description:
      - Write to the existing C(.secrets.cfg) instead of replacing it by a rename. For a file that is mounted on its own
        (containers), has hard links, or is in a directory that the user of the task cannot write to.
      - The old and the new content are kept during the write, in the same directory or in C(/var/tmp), so that the next
        run completes an interrupted write. Until then an application may read an incomplete file. In a container that
        is discarded after it was killed, this copy is lost.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows the state of the credential before and after, never the credential.
notes:
  - C(ppin) rewrites its file in place, and removes the existing entry if an update fails. The module therefore runs it
    on a copy, which replaces C(.secrets.cfg) when the change has succeeded. It needs write access to the directory of
    the file, and the file must have no other hard link and no mount of its own; otherwise see O(in_place).
  - The module does not use links, directories or files that a user other than root or the user of the task could have
    created.
  - In the directory of C(.secrets.cfg) the module keeps the ledger C(.secrets.cfg.ledger), mode 0600, with a salted
    PBKDF2 fingerprint of the password that set each credential. It makes O(state=updated) idempotent.
"""

    # LOGIN_ARGUMENTS in module_utils/_client/login_module.py
    LOGIN = r"""
options:
  force:
    description:
      - Log in even if the ledger of this client or the attempt gate has recorded that the HSM rejected the secret.
        Without this the module fails before any login, and names the partition.
      - A secret that was fetched again with M(hsmops.primus.ppin_secret) counts as valid until it is rejected.
    type: bool
    default: false
notes:
  - The logins are made with the permanent secrets in C(.secrets.cfg). No password is given to the module.
  - A rejection is recorded in C(.secrets.cfg.ledger), in the directory of C(.secrets.cfg).
"""

    # GATE_FINDINGS_ARGUMENTS in module_utils/_client/gate_options.py
    GATE_FINDINGS = r"""
options:
  gate_findings:
    description: Information from the attempt gate. The action plugin sets it.
    type: dict
    suboptions:
      record:
        description: Whether this is the gate's own check, which records the result of a login also in check mode.
        type: bool
        default: false
      checked:
        description: Partitions whose result in the ledger is from a login of this run.
        type: list
        elements: str
        default: []
      stale:
        description: Origins of permanent secrets that several clients have found to be rejected.
        type: list
        elements: str
        default: []
      origins:
        description: The origins to record for the secrets that are fetched, by partition.
        type: dict
        default: {}
"""

    # GATE_ARGUMENTS in module_utils/_client/gate_options.py
    GATE = r"""
options:
  gate:
    description:
      - Whether a credential that no host has tried yet is tried by a single host, while the others wait for the result.
        If it is accepted, two others follow, and more with each acceptance, up to O(gate_parallel). If it is rejected,
        the others fail without contacting the HSM. A wrong password thus costs one attempt per fleet, and a password
        that was changed at the HSM since the last run costs two.
      - A host that needs no change never waits. See C(docs/fleet_safety.md).
    type: bool
    default: true
  gate_store:
    description:
      - Where the gate stores its entries. Either a directory of the control node (created with mode 0700 if it does not
        exist; a directory that is shared by a group of operators needs mode 2770), or a Redis server, as a URL that
        starts with C(redis://), C(rediss://) or C(unix://). Redis requires the Python package redis on the control
        node.
      - By default the directory C(hsmops-primus-gate) in Ansible's home, C(~/.ansible) or C(ANSIBLE_HOME).
      - Control nodes that manage the same fleet must share the store. Fleets with different HSMs need different stores
        if their partitions have the same names.
    type: str
  gate_budget:
    description:
      - Maximum number of failed or unclear logins for one name within O(gate_window) seconds. It stops several
        different wrong passwords for one partition before the HSM locks it. At least 1.
      - Setup passwords and permanent secrets of a partition share one budget, because the HSM counts them together.
    type: int
    default: 3
  gate_parallel:
    description:
      - Maximum number of hosts that use a credential accepted in this run at the same time. At least 1.
    type: int
    default: 16
  gate_window:
    description:
      - Seconds for which an accepted credential counts as accepted, and a failed login counts towards O(gate_budget).
        At least 1.
      - A rejected credential stays rejected until its entry is cleared with M(hsmops.primus.attempt_gate).
    type: int
    default: 3600
seealso:
  - module: hsmops.primus.attempt_gate
  - module: hsmops.primus.attempt_gate_info
"""

    # GATE_ENTRY_ARGUMENTS in plugin_utils/_gate/entries.py
    GATE_ENTRIES = r"""
options:
  name:
    description:
      - Select the entries of this partition or service user.
    type: str
  kind:
    description:
      - Select the entries of this kind, which is V(secret) for a setup password with its PKCS#11 password, V(proxy) for
        a service proxy password, V(pin) for a PKCS#11 password that M(hsmops.primus.pkcs11_token_info) tried,
        V(permanent) for the permanent secrets that the clients have.
    type: str
    choices: [secret, proxy, pin, permanent]
  gate_store:
    description:
      - Where the gate stores its entries, as in M(hsmops.primus.ppin_secret). The action group
        C(hsmops.primus.attempt_gate) does not set it for this module.
    type: str
"""
