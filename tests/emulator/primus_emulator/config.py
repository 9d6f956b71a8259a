# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""primus.cfg as ppin reads it."""

import libconf

from . import codes
from .codes import PpinError


class Slot:
    """A slot of primus.cfg."""

    def __init__(self, name, settings):
        self.name = name
        self.id = int(settings["id"])
        self.user = str(settings["user_name"])
        self.client_id = str(settings.get("client_id", ""))
        self.proxy_user = settings.get("proxy_user")
        self.proxy_password = settings.get("proxy_password")


class HsmEntry:
    """An HSM of primus.cfg."""

    def __init__(self, name, settings):
        self.name = name
        self.host = str(settings["host"])
        self.port = int(settings["port"])
        self.priority = int(settings.get("priority", 0))
        self.slots = [Slot(*item) for item in settings.get("slots", {}).items()]


def read(path):
    """Return the HSM entries of a primus.cfg, in its order. Raises PpinError."""
    try:
        with open(path, encoding="utf-8") as file:
            hsms = libconf.loads(file.read())["primus"].get("hsms", {})
        entries = [HsmEntry(*item) for item in hsms.items()]
    except FileNotFoundError:
        raise PpinError(codes.CONFIG_NOT_FOUND) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, libconf.ConfigParseError):
        raise PpinError(codes.CONFIG_INVALID) from None
    if not any(entry.slots for entry in entries):
        raise PpinError(codes.NOTHING_CONFIGURED)
    return entries
