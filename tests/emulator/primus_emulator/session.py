# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection of ppin to an HSM."""

import socket
import ssl

from . import codes, protocol
from .codes import PpinError


class Session:
    """A connection to one HSM for one slot, through the proxy when the slot names one. A context. Raises PpinError.

    proxy_password: a Password, for a slot with a proxy user. `firmware` is the HSM's.
    """

    def __init__(self, hsm, slot, switches, proxy_password=None):
        self.client_id = slot.client_id
        try:
            plain = socket.create_connection((hsm.host, hsm.port), timeout=switches.timeout)
            self._connection = _tls(switches.ca).wrap_socket(plain)
        except socket.timeout:  # an error of its own before Python 3.10
            raise PpinError(codes.CONNECT_TIMEOUT) from None
        except OSError:
            raise PpinError(codes.CONNECT_FAILED) from None
        self._stream = self._connection.makefile("rb")
        if slot.proxy_user:
            self.call(
                "proxy-login",
                user=slot.proxy_user,
                password=proxy_password.value,
                source=proxy_password.source,
                client=slot.client_id,
            )
        self.firmware = self.call("hello")["firmware"]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._stream.close()
        self._connection.close()

    def call(self, op, **fields):
        """Send a request and return its answer. Raises PpinError with the code of the answer."""
        try:
            self._connection.sendall(protocol.encode({"op": op, **fields}))
            answer = protocol.decode(self._stream.readline())
        except socket.timeout:
            raise PpinError(codes.CONNECT_TIMEOUT) from None
        except (OSError, ValueError):
            raise PpinError(codes.CONNECT_FAILED) from None
        if answer["code"] != codes.OK:
            raise PpinError(answer["code"])
        return answer

    def login(self, user, kind, password):
        self.call(
            "login",
            partition=user,
            kind=kind,
            password=password.value,
            source=password.source,
            client=self.client_id,
        )


def _tls(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate is the emulator's own, its address any
    if ca:
        context.load_verify_locations(ca)
    else:
        context.verify_mode = ssl.CERT_NONE
    return context
