# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Pass data from a module to its action plugin in a form that Ansible cannot mask.

Ansible masks each value of a no_log option wherever it is part of a string or number in the result. With the PIN `1`
the number of logins is masked, with the password `eject` the class `rejected`. Ansible does not mask keys of
dictionaries and booleans, so the values that the attempt gate needs are repeated as keys.
"""

import typing as t

CONTROL = "control"
"""The key of the result that has these data. The action plugin removes it."""


def with_control(
    result: t.Mapping[str, t.Any], entry: t.Optional[t.Mapping[str, t.Optional[str]]] = None
) -> t.Dict[str, t.Any]:
    """Add the control data to the result of a module.

    :arg entry: `origin` and `since` of the permanent secret before the run, as far as they are known.
    """
    error = result.get("error") or {}
    facts = {"logins": result.get("logins"), "class": error.get("class"), "code": error.get("code"), **(entry or {})}
    return dict(result, **{CONTROL: {key: {str(value): True} for key, value in facts.items() if value is not None}})


def take_control(result: t.Dict[str, t.Any]) -> t.Dict[str, str]:
    """Remove the control data from a result, and restore the values that were masked. Invalid data are ignored.

    :returns: the `entry` that with_control() was given.
    """
    control = result.pop(CONTROL, None)
    facts = {}
    for key in ("logins", "class", "code", "origin", "since"):
        values = control.get(key) if isinstance(control, dict) else None
        if isinstance(values, dict) and len(values) == 1:
            facts[key] = str(next(iter(values)))
    if facts.get("logins", "").isdigit():
        result["logins"] = int(facts["logins"][:9])
    if isinstance(result.get("error"), dict):
        result["error"].update({key: facts[key] for key in ("class", "code") if key in facts})
    return {key: facts[key] for key in ("origin", "since") if key in facts}
