# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Remove passwords and secrets from what ppin prints."""

import base64
import json
import re
import typing as t
import urllib.parse

NOT_SHOWN = "(not shown, as a password is in it)"

# A whole secrets file in base64, on one line or several, or one of its encrypted values.
_ENCODED = re.compile(r"(?:[A-Za-z0-9+/]{60,}\s*)+[A-Za-z0-9+/]*={0,2}")


def redact(secrets: t.Iterable[str], text: str) -> str:
    """Replace the secrets in a text by asterisks. If it has one in an encoded form, or half of it, return no text."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "********")
    text = _ENCODED.sub("********", text)
    for separator in (r"\s+", r"[\W_]+"):
        compact = re.sub(separator, "", text).lower()
        for form in (re.sub(separator, "", form).lower() for secret in secrets for form in _encodings(secret)):
            length = max(8, len(form) // 2)
            pieces = [form[i : i + length] for i in range(max(1, len(form) - length + 1))]
            if len(form) >= 4 and any(piece in compact for piece in pieces):
                return NOT_SHOWN
    return text


def _encodings(secret: str) -> t.List[str]:
    """Return a secret in the forms that a program might print: itself, reversed, hex, URL, JSON, base64."""
    raw = secret.encode("utf-8")
    # Its base64 form depends on its offset in the encoded data, modulo 3.
    encoded = [base64.b64encode(b"\0" * i + raw)[(0, 2, 3)[i] : -4].decode("ascii") for i in range(3)]
    return [secret, secret[::-1], raw.hex(), urllib.parse.quote(secret, ""), json.dumps(secret)[1:-1]] + encoded
