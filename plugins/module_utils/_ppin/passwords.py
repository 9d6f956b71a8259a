# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""What a password can be. The control node and the modules go by the same rules."""

import re
import typing as t
import unicodedata

PASSWORD_LIMIT = 1024
"""Bytes of a password. A terminal line ends at 4,095 and would lose the rest in silence."""

SETUP_FORM = "five groups of five letters (A-Z, a-z) and digits, joined by dashes"
"""As the vendor publishes them, with letters of both cases: bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG."""

_SETUP_PASSWORD = re.compile(r"[A-Za-z0-9]{5}(-[A-Za-z0-9]{5}){4}\Z")


def password_problem(password: str) -> t.Optional[str]:
    """Why a terminal would not deliver a password as it is, such as `is empty`, or None."""
    if not password:
        return "is empty"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in password):
        return "has a line break or another control character in it"
    if len(password.encode("utf-8")) > PASSWORD_LIMIT:
        return "is longer than %d bytes" % PASSWORD_LIMIT
    return None


def has_setup_password_form(password: str) -> bool:
    return bool(_SETUP_PASSWORD.match(password))
