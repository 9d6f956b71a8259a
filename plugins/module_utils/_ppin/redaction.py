# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Cuts secrets out of what ppin prints."""

import base64
import json
import re
import typing as t
import urllib.parse

# A secrets file in base64 on one line or several, or a ciphered value of one.
_ENCODED = re.compile(r"(?:[A-Za-z0-9+/]{60,}\s*)+[A-Za-z0-9+/]*={0,2}")


def without(secrets: t.Iterable[str], text: str) -> str:
    """The text with the secrets cut out, or none of it when one is there in another form, or in pieces."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "********")
    text = _ENCODED.sub("********", text)
    for between in (r"\s+", r"[\W_]+"):
        squeezed = re.sub(between, "", text).lower()
        for form in (re.sub(between, "", form).lower() for secret in secrets for form in _forms(secret)):
            length = max(8, len(form) // 2)
            pieces = [form[i : i + length] for i in range(max(1, len(form) - length + 1))]
            if len(form) >= 4 and any(piece in squeezed for piece in pieces):
                return "(not shown, as a password is in it)"
    return text


def _forms(secret: str) -> t.List[str]:
    """A secret and what is easily made of it."""
    raw = secret.encode("utf-8")
    # In base64 it looks different at each of three places in what was encoded with it.
    encoded = [base64.b64encode(b"\0" * i + raw)[(0, 2, 3)[i] : -4].decode("ascii") for i in range(3)]
    return [secret, secret[::-1], raw.hex(), urllib.parse.quote(secret, ""), json.dumps(secret)[1:-1]] + encoded
