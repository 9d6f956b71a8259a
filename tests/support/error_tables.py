# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the tables of classes and codes into docs/troubleshooting.md, from plugins/module_utils/_ppin/errors.py.

PYTHONPATH=build python tests/support/error_tables.py
"""

import re
from pathlib import Path

from ansible_collections.hsmops.primus.plugins.module_utils._ppin import errors as _errors

PAGE = Path(__file__).parents[2] / "docs/troubleshooting.md"


def classes():
    for name, hint in _errors.HINTS.items():
        error = _errors.PpinError("", cls=name)
        judged = "yes" if error.is_rejection else "not known" if error.may_be_evaluated else "no"
        yield f"`{name}`", judged, hint


def codes():
    for code, (meaning, name) in _errors.CODES.items():
        hint = _errors.PpinError("", code).hint
        yield f"`{code}`", meaning, f"`{name}`", "" if hint == _errors.HINTS[name] else hint


TABLES = {
    "classes": (("class", "has the HSM evaluated the password?", "what to do"), classes),
    "codes": (("code", "meaning", "class", "what to do, if it is not that of the class"), codes),
}


def filled(text: str) -> str:
    """The page with its tables as they should be."""
    for name, (head, rows) in TABLES.items():
        lines = [head, ("---",) * len(head), *rows()]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        place = rf"(?<=<!-- {name}: written by tests/support/error_tables.py -->\n).*?(?=<!-- end -->)"
        text = re.sub(place, lambda _match, table=table: table + "\n", text, flags=re.S)
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
