# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find secrets, as they are or encoded. The one place of the tests that knows what a secret may turn into.

Run as a program it prints where they are; stdin: JSON with `secrets` (strings), `folder` (searched with all below it)
and `texts` (name to text).
"""

import base64
import json
import shlex
import sys
import urllib.parse
from pathlib import Path


def forms(secret):
    """What a secret may look like, as bytes."""
    raw = secret.encode()
    # Its base64 form depends on its offset in the encoded data, modulo 3.
    encoded = [base64.b64encode(b"\0" * i + raw)[(0, 2, 3)[i] : -4] for i in range(3)]
    urls = [urllib.parse.quote(raw, ""), urllib.parse.quote(raw), urllib.parse.quote_plus(raw)]
    texts = [secret[::-1], shlex.quote(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1], *urls]
    # What is quoted once more when it is part of a JSON text that is itself in one.
    texts += [json.dumps(json.dumps(secret)[1:-1])[1:-1]]
    hexadecimal = raw.hex().encode()
    return {raw, hexadecimal, hexadecimal.upper(), *encoded, *(text.encode() for text in texts)}


def all_forms(secrets):
    return set().union(*map(forms, secrets))


def main():
    request = json.load(sys.stdin)
    wanted = all_forms(request["secrets"])
    contents = {name: text.encode() for name, text in request["texts"].items()}
    contents.update({str(path): path.read_bytes() for path in Path(request["folder"]).rglob("*") if path.is_file()})
    print(json.dumps(sorted(name for name, content in contents.items() if any(form in content for form in wanted))))


if __name__ == "__main__":
    main()
