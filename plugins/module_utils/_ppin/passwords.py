# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Check passwords before they are used. The action plugins and the modules share these rules."""

import re
import typing as t
import unicodedata

PASSWORD_LIMIT = 1024
"""Bytes of a password. A terminal silently drops what follows the first 4,095 bytes of a line."""

SETUP_FORM = "five groups of five letters (A-Z, a-z) and digits, joined by dashes"
"""As in the vendor's examples, with letters of both cases: bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG."""

_SETUP_PASSWORD = re.compile(r"[A-Za-z0-9]{5}(-[A-Za-z0-9]{5}){4}\Z")


def invalid_password_reason(password: str) -> t.Optional[str]:
    """Return why a terminal would not deliver this password unchanged, such as `is empty`, or None."""
    if not password:
        return "is empty"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in password):
        return "has a line break or another control character in it"
    if len(password.encode("utf-8")) > PASSWORD_LIMIT:
        return "is longer than %d bytes" % PASSWORD_LIMIT
    return None


def has_setup_password_form(password: str) -> bool:
    return bool(_SETUP_PASSWORD.match(password))
