# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocol between ppin, proxy, HSM and admin command: one JSON object a line, answered by one line.

A client connects over TLS. Through a proxy its first request must be `proxy-login`. Requests, by `op`:
  proxy-login {user, password, source, client}
  hello {} -> {firmware}
  login {partition, kind: setup|permanent, password, source, client}
  pkcs11-login {password, source}     needs login
  fetch-secret {} -> {secret}         needs login and pkcs11-login
  fetch-log {since, reverse} -> {lines}   needs login
`source` says how the password reached ppin: terminal, stdin, argv or file. Every answer has `code`, 0 for success.
"""

import json

LIMIT = 16 * 1024 * 1024  # bytes of one line: a log may be long


def encode(message) -> bytes:
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes):
    """Raises ValueError when the line is not JSON, and ConnectionError when it is not whole."""
    if not line.endswith(b"\n"):
        raise ConnectionError("connection closed")
    return json.loads(line)
