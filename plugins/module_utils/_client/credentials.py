# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The two kinds of credentials in .secrets.cfg, and how ppin sets, updates and removes each."""

import contextlib
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import Slot
from ansible_collections.hsmops.primus.plugins.module_utils._client.orphans import paths_for_removal
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.dialogue import DialoguePpin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import DUPLICATE_CODES, PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import MISSING, Entry, Listing, entry_state
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import (
    Paths,
    check_name,
    check_password,
    check_setup_password,
)

Warn = t.Callable[[str], None]


class Credential:
    """A credential of a client. Subclasses have what differs between the kinds.

    :arg params: the options of ppin_secret or ppin_proxy.
    :cvar kind: the section of the ledger and the field of the listing, `partitions` or `service_users`.
    :cvar label: its name in messages.
    :cvar passwords: the options that an add or update needs; the ledger has a fingerprint of the first.
    :cvar result_key: the option that names it, and the key of the result.
    :cvar logs_in: whether `ppin --test` can log in with the present one.
    :ivar verify: when to log in with it, one of VERIFY_CHOICES.
    """

    kind = ""
    label = ""
    passwords: t.Tuple[str, ...] = ()
    result_key = ""
    logs_in = False
    verify = "never"

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self.params = params
        self.name: str = params[self.result_key]
        self.absent: bool = params["state"] == "absent"

    @property
    def password(self) -> t.Optional[str]:
        """The password that the ledger has a fingerprint of."""
        return self.params[self.passwords[0]]  # type: ignore[no-any-return]

    def check(self) -> None:
        """Check the options before anything runs. :raises PpinError:"""
        check_name(self.result_key, self.name)
        if not self.absent:
            for option in self.passwords:
                check_password(option, self.params[option])

    def entries(self, listing: Listing) -> t.List[Entry]:
        """Return its lines in the listing."""
        found: t.List[Entry] = getattr(listing, self.kind).get(self.name, [])
        return found

    def listed(self, listing: Listing) -> t.Collection[str]:
        """Return all names of its kind in the listing."""
        return t.cast(t.Collection[str], getattr(listing, self.kind))

    def own_slots(self, slots: t.Sequence[Slot]) -> t.List[Slot]:
        """Return the slots of primus.cfg whose login uses it."""
        return []

    def missing_proxy(self, listing: Listing, slots: t.Sequence[Slot]) -> t.Optional[str]:
        """Return the service user whose password must be set first, or None."""
        return None

    def paths_for_removal(self, paths: Paths, timeout: int, warn: Warn) -> t.ContextManager[Paths]:
        """Return the paths with which ppin can remove it. :raises OSError, PpinError:"""
        return _unchanged(paths)

    def add(self, ppin: DialoguePpin) -> None:
        raise NotImplementedError

    def update(self, ppin: DialoguePpin) -> None:
        raise NotImplementedError

    def remove(self, ppin: DialoguePpin) -> None:
        raise NotImplementedError


@contextlib.contextmanager
def _unchanged(paths: Paths) -> t.Iterator[Paths]:
    yield paths


class PermanentSecret(Credential):
    """The permanent secret of a partition.

    Options: `user_name`, `setup_password`, `pkcs11_password`, `setup_password_format_check`, `verify` and `state`.
    """

    kind = "partitions"
    label = "permanent secret"
    passwords = ("setup_password", "pkcs11_password")
    result_key = "user_name"
    logs_in = True

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        super().__init__(params)
        self.verify = params["verify"]

    def check(self) -> None:
        super().check()
        if self.params["setup_password_format_check"] and not self.absent:
            check_setup_password(self.params["setup_password"])

    def own_slots(self, slots: t.Sequence[Slot]) -> t.List[Slot]:
        return [slot for slot in slots if slot.user_name == self.name]

    def missing_proxy(self, listing: Listing, slots: t.Sequence[Slot]) -> t.Optional[str]:
        users = [slot.proxy_user for slot in self.own_slots(slots) if slot.proxy_user]
        return next((user for user in users if entry_state(listing.service_users.get(user)) == MISSING), None)

    def paths_for_removal(self, paths: Paths, timeout: int, warn: Warn) -> t.ContextManager[Paths]:
        return paths_for_removal(paths, self.name, timeout, warn)

    def add(self, ppin: DialoguePpin) -> None:
        ppin.add(self.name, self.params["setup_password"], self.params["pkcs11_password"])

    def update(self, ppin: DialoguePpin) -> None:
        ppin.update(self.name, self.params["setup_password"], self.params["pkcs11_password"])

    def remove(self, ppin: DialoguePpin) -> None:
        ppin.remove(self.name)


class ProxyPassword(Credential):
    """The service proxy password of a service user. Options: `service_user`, `password` and `state`."""

    kind = "service_users"
    label = "service proxy password"
    passwords = ("password",)
    result_key = "service_user"

    def add(self, ppin: DialoguePpin) -> None:
        ppin.add_proxy(self.name, self.params["password"])

    def update(self, ppin: DialoguePpin) -> None:
        try:
            self.add(ppin)
        except PpinError as exc:
            if exc.code not in DUPLICATE_CODES:
                raise
            # ppin has no update for proxy passwords, and it is not documented whether it replaces one.
            ppin.remove_proxy(self.name)
            self.add(ppin)

    def remove(self, ppin: DialoguePpin) -> None:
        ppin.remove_proxy(self.name)


def processing_order(kind: str, state: str) -> int:
    """Return a key to sort credentials by.

    A permanent secret depends on the service proxy passwords. So these are set before it, and removed after it.
    """
    kinds = ["service_users", "partitions"]
    return 3 - kinds.index(kind) if state == "absent" else kinds.index(kind)
