# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attributes of modules. A module adds only what is particular to it, as `details`."""


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and report whether it would change something, without changing it.
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
"""

    # Modules that change nothing, in place of the above
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and report whether it would change something, without changing it.
    support: full
    details: Changes nothing in any mode.
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
    support: N/A
    details: Changes nothing.
"""

    MANAGED_NODE = r"""
options: {}
attributes:
  platform:
    description: The systems that the module runs on.
    support: full
    platforms: posix
    details: Linux, with Python 3.6 or later.
"""

    # Modules that are an action plugin only: plugins/action/
    CONTROL_NODE = r"""
options: {}
attributes:
  action:
    description: Has an action plugin, which runs on the control node.
    support: full
    details: Does not contact the managed node.
  platform:
    description: The systems that the module runs on.
    support: full
    platforms: posix
    details: The control node.
"""

    # meta/runtime.yml
    ACTIONGROUP_PPIN = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/hsmops.primus.ppin) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - hsmops.primus.ppin
"""

    ACTIONGROUP_GATE = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/hsmops.primus.attempt_gate) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - hsmops.primus.attempt_gate
"""

    ACTIONGROUP_PPIN_GATE = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/hsmops.primus.ppin) or C(group/hsmops.primus.attempt_gate) in C(module_defaults) to set defaults for
      this module.
    support: full
    membership:
      - hsmops.primus.ppin
      - hsmops.primus.attempt_gate
"""
