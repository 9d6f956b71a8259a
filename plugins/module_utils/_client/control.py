# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""What a module tells its action plugin in a form that no password can mask.

Ansible replaces each value of a no_log option wherever it is a part of a string or number of the result: with a PIN
`1` the number of logins is masked, with `eject` the class `rejected`. Keys of dictionaries and booleans it leaves
alone. So what the attempt gate decides on is repeated as keys.
"""

import typing as t

CONTROL = "control"
"""The key of a result that holds it; the action plugin takes it out."""


def with_control(
    result: t.Mapping[str, t.Any], entry: t.Optional[t.Mapping[str, t.Optional[str]]] = None
) -> t.Dict[str, t.Any]:
    """The result of a module, with what the attempt gate needs of it.

    :arg entry: `origin` and `since` of the permanent secret that was there, where they are known.
    """
    error = result.get("error") or {}
    facts = {"logins": result.get("logins"), "class": error.get("class"), "code": error.get("code"), **(entry or {})}
    return dict(result, **{CONTROL: {key: {str(value): True} for key, value in facts.items() if value is not None}})


def take_control(result: t.Dict[str, t.Any]) -> t.Dict[str, str]:
    """Put right in a result what was masked, and take the control data out. What has another form is ignored.

    :returns: what was given as entry.
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
