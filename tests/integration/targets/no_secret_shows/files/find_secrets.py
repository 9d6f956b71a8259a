# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print where secrets are, as they are or encoded.

Stdin: JSON with `secrets` (strings), `folder` (searched with all below it) and `texts` (name to text).
"""

import base64
import json
import sys
import urllib.parse
from pathlib import Path


def forms(secret):
    raw = secret.encode()
    # In base64 it looks different at each of three places in what was encoded with it.
    encoded = [base64.b64encode(b"\0" * i + raw)[(0, 2, 3)[i] : -4] for i in range(3)]
    return {raw, raw.hex().encode(), raw.hex().upper().encode(), urllib.parse.quote(raw, "").encode(), *encoded}


def main():
    request = json.load(sys.stdin)
    wanted = set().union(*map(forms, request["secrets"]))
    contents = {name: text.encode() for name, text in request["texts"].items()}
    contents.update({str(path): path.read_bytes() for path in Path(request["folder"]).rglob("*") if path.is_file()})
    print(json.dumps(sorted(name for name, content in contents.items() if any(form in content for form in wanted))))


main()
