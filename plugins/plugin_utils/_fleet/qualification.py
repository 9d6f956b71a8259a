# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Makes a profile and a page of what ppin_qualify found on a host, whose result is taken for hostile.

The profile's format is described in module_utils/_qualify/findings.py.
"""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

from ansible_collections.hsmops.primus.plugins.module_utils._qualify.findings import BY_NAME, FORMAT
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.redacted import Redaction
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.report import Data, render

FILE_NAME = "primus_qualification"
VERDICTS = ("differs", "not tried", "holds")
TEXT_LIMIT, OUTPUT_LIMIT, OUTPUTS_LIMIT = 500, 10000, 200
_ROOT = Path(__file__).parents[3]


def build(told: t.Any, redaction: Redaction) -> Data:
    """The profile: what is known of what a host told, without the names that only the control node knows."""

    def text(value: t.Any, limit: int = TEXT_LIMIT) -> str:
        return redaction.text(str(value)[:limit])

    def maybe(value: t.Any) -> t.Optional[str]:
        return None if value is None else text(value)

    def texts(value: t.Any) -> t.List[str]:
        return [text(item) for item in (value if isinstance(value, list) else [])[:OUTPUTS_LIMIT]]

    told = _dictionary(told)
    findings = {}
    for name, finding in BY_NAME.items():
        found = _dictionary(_dictionary(told.get("findings")).get(name))
        verdict, seen = found.get("verdict"), found.get("seen")
        findings[name] = {
            "verdict": verdict if verdict in VERDICTS else "not tried",
            "expected": finding.expected,
            "seen": seen if seen in finding.values else maybe(seen),
            "command": finding.how,
            "note": text(found.get("note") or ""),
        }
    platform, logins = _dictionary(told.get("platform")), _dictionary(told.get("logins"))
    outputs = told.get("outputs")
    return {
        "format": FORMAT,
        "collection": version(),
        "provider": maybe(told.get("provider")),
        "platform": {
            key: text(platform.get(key, "unknown")) for key in ("system", "machine", "python", "libc", "user")
        },
        "findings": findings,
        "rotation": text(told.get("rotation", "")),
        "stopped": maybe(told.get("stopped")),
        "logins": {key: texts(logins.get(key)) for key in ("planned", "made")},
        "outputs": [
            {
                "command": text(output.get("command")),
                "exit": output.get("exit") if isinstance(output.get("exit"), int) else None,
                "ended": text(output.get("ended")),
                **{key: text(output.get(key, ""), OUTPUT_LIMIT) for key in ("stdout", "stderr", "terminal")},
            }
            for output in map(_dictionary, (outputs if isinstance(outputs, list) else [])[:OUTPUTS_LIMIT])
        ],
    }


def to_page(profile: Data) -> str:
    counts = dict.fromkeys(VERDICTS, 0)
    for found in profile["findings"].values():
        counts[found["verdict"]] += 1
    return render("qualification.html.j2", {**profile, "counts": counts, "relies": BY_NAME, "verdicts": VERDICTS})


def version() -> str:
    """Of this collection, from the file that it is built from, or the one that it is installed with."""
    for name, pattern in (("MANIFEST.json", r'"version":\s*"([^"]+)"'), ("galaxy.yml", r"(?m)^version:\s*(\S+)")):
        if (_ROOT / name).is_file():
            found = re.search(pattern, (_ROOT / name).read_text("utf-8"))
            if found:
                return found.group(1)
    return "unknown"


def _dictionary(value: t.Any) -> t.Mapping[str, t.Any]:
    return value if isinstance(value, dict) else {}
