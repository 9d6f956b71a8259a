# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
""".secrets.cfg: libconfig syntax, values encrypted with AES-GCM under a key that every ppin has.

So the file can be carried to another machine, as the vendor documents; the cipher hides, it does not protect.
"""

import binascii
import os

import libconf

from . import codes
from .codes import PpinError

_KEY = b"emulated ppin, no secret at all!"  # 32 bytes: AES-256
_NONCE, _TAG = 12, 16  # bytes
_GROUPS = {"users": "user", "proxies": "proxy"}


class SecretsFile:
    """The entries of a secrets file: `users` (permanent secrets) and `proxies`, from name to encrypted value."""

    def __init__(self):
        self.users = {}
        self.proxies = {}

    @classmethod
    def load(cls, path):
        """Read a file. Raises PpinError: not found, invalid, or invalid element."""
        try:
            with open(path, encoding="utf-8") as file:
                root = libconf.loads(file.read())
            groups = root["primus"]
            listed = {group: list(groups.get(group, {}).values()) for group in _GROUPS}
        except FileNotFoundError:
            raise PpinError(codes.SECRETS_NOT_FOUND) from None
        except (OSError, ValueError, KeyError, AttributeError, TypeError, libconf.ConfigParseError):
            raise PpinError(codes.SECRETS_INVALID) from None
        self = cls()
        for group, entries in listed.items():
            for entry in entries:
                try:
                    name, secret = entry["name"], entry["secret"]
                    if len(binascii.a2b_base64(secret)) < _NONCE + _TAG:
                        raise ValueError("too short")
                except (ValueError, KeyError, TypeError):
                    raise PpinError(codes.ELEMENT_INVALID) from None
                getattr(self, group)[name] = secret
        return self

    def text(self):
        """Return the file's content."""
        groups = {
            group: {
                "%s%d" % (prefix, number): {"name": name, "secret": secret}
                for number, (name, secret) in enumerate(getattr(self, group).items())
            }
            for group, prefix in _GROUPS.items()
        }
        return dumps({"version": "1.0", "primus": groups})

    def write(self, path, chunk_bytes=64, before_write=None):
        """Rewrite the file in place, so that mode and owner stay, and a kill half-way leaves half a file.

        before_write: called with the number of each write, from 1, after the file was emptied.
        Raises PpinError: no write access.
        """
        data = self.text().encode()
        try:
            with open(path, "r+b", buffering=0) as file:
                file.truncate(0)
                for number, start in enumerate(range(0, len(data), chunk_bytes), 1):
                    if before_write:
                        before_write(number)
                    file.write(data[start : start + chunk_bytes])
        except OSError:
            raise PpinError(codes.SECRETS_NOT_WRITABLE) from None


def dumps(settings):
    """Return libconfig text, with the colon before a group that the vendor writes; libconf writes an equals sign."""
    return libconf.dumps(settings).replace(" =\n", " :\n")  # a new line inside a string is written as an escape


def cipher(name, secret):
    """Return the encrypted form of a secret, bound to its entry's name."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE)
    return binascii.b2a_base64(
        nonce + AESGCM(_KEY).encrypt(nonce, secret.encode(), name.encode()), newline=False
    ).decode()


def decipher(name, ciphered):
    """Return a secret from its encrypted form. Raises PpinError: invalid element."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    data = binascii.a2b_base64(ciphered)
    try:
        return AESGCM(_KEY).decrypt(data[:_NONCE], data[_NONCE:], name.encode()).decode()
    except InvalidTag:
        raise PpinError(codes.ELEMENT_INVALID) from None
