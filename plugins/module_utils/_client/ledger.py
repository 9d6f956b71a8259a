# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The ledger of a client: for each credential, which password it was made with, when, and the HSM's last verdict.

ppin does not report this, and without it `state=updated` would spend the setup password in every run. Each entry has a
fingerprint of the credential's entry in the secrets file. If that has changed, because somebody else has written the
file, the ledger's entry does not count.
"""

import base64
import hashlib
import hmac
import json
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import secret_entries
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import UntrustedFile, read_file, replace_file
from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import TIME_FORMAT, parse_time
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError

ITERATIONS = 100000
"""PBKDF2 rounds. A setup password has 129 bits, so they matter for service proxy passwords only; the file is root's."""

VERSION = 2

KINDS = ("partitions", "service_users")


class Ledger:
    """The JSON file `.secrets.cfg.ledger` beside the secrets file, mode 0600.

    It has the form `{"version": 2, "partitions": {NAME: entry}, "service_users": {NAME: entry}}`. Keys of an entry:

    - `salt` and `entry`: the fingerprint of the credential's entry in the secrets file, in base64.
    - `hash` and `iterations`: the fingerprint of the password that the credential was made with, if it is known.
    - `since`: when it was made, in UTC as `YYYY-MM-DDTHH:MM:SSZ`; with `hash`.
    - `first_used`: when the password was first used, if that was before `since`.
    - `origin`: the attempt gate's token of that password, if it is known.
    - `rejected`, `accepted`: when the HSM or the service proxy last rejected or accepted the credential, if it did.

    Version 1 had no `entry` and no `origin`. Its entries count for the present credentials.

    :ivar problem: why the file cannot be used, or None. A missing or damaged file counts as empty.
    """

    def __init__(self, secrets_path: str) -> None:
        self.secrets_path = secrets_path
        self.path = secrets_path + ".ledger"
        self.problem: t.Optional[str] = None
        self._file = b""
        self._data = self._read()
        self._secrets = _SecretsFile(secrets_path)

    def _read(self) -> t.Dict[str, t.Any]:
        empty: t.Dict[str, t.Any] = {"version": VERSION, "partitions": {}, "service_users": {}}
        try:
            self._file = read_file(self.path)
            data = json.loads(self._file.decode("utf-8"))
            if data["version"] == 1:
                data = _upgrade_version_1(data)
            _validate(data)
            return data  # type: ignore[no-any-return]
        except OSError as exc:
            if os.path.lexists(self.path):
                self.problem = "The ledger %s cannot be read (%s)" % (self.path, exc.strerror)
        except UntrustedFile as exc:
            self.problem = "The ledger %s is not used (%s)" % (self.path, exc.msg)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            self.problem = "The ledger %s is damaged (%s)" % (self.path, exc)
        return empty

    # Reading

    def _valid_entry(self, kind: str, name: str) -> t.Dict[str, t.Any]:
        """Return the ledger's entry, or {} when the secrets file has another entry than when it was recorded."""
        known: t.Dict[str, t.Any] = self._data[kind].get(name, {})
        if "entry" in known and known["entry"] != self._secrets.fingerprint(name, known["salt"]):
            return {}
        return known

    def is_same_password(self, kind: str, name: str, password: str) -> bool:
        """Whether the present credential was made with this password. kind: `partitions` or `service_users`."""
        known = self._valid_entry(kind, name)
        if "hash" not in known:
            return False
        try:
            given = _hash_password(password, base64.b64decode(known["salt"]), known["iterations"])
        except ValueError:  # FIPS mode refuses short passwords, so no entry can have the hash of one
            return False
        return hmac.compare_digest(given, base64.b64decode(known["hash"]))

    def since(self, kind: str, name: str) -> t.Optional[str]:
        """Return when this collection set the present credential, or None when that is not known."""
        return self._valid_entry(kind, name).get("since")

    def first_used(self, kind: str, name: str) -> t.Optional[str]:
        """Return when this client first used the password of the present credential, or None when that is not known."""
        known = self._valid_entry(kind, name)
        return known.get("first_used", known.get("since"))

    def origin(self, name: str) -> t.Optional[str]:
        """Return the gate's token of the setup password that the permanent secret was fetched with, or None."""
        return self._valid_entry("partitions", name).get("origin")

    def rejected(self, partition: str) -> t.Optional[str]:
        """Return when a login with the present permanent secret was rejected, or None when that is not known."""
        return self._valid_entry("partitions", partition).get("rejected")

    def accepted_within(self, service_user: str, seconds: float) -> bool:
        """Whether the service proxy has accepted the present password within the last seconds."""
        accepted = self._valid_entry("service_users", service_user).get("accepted")
        moment = parse_time(accepted)
        return moment is not None and 0 <= time.time() - moment < seconds

    # Writing

    def record_logins(self, verdicts: t.Mapping[str, bool]) -> None:
        """Record whether logins were accepted, by partition. :raises OSError: when the file cannot be written."""
        changed = False
        for partition, accepted in verdicts.items():
            known = self._valid_entry("partitions", partition)
            if accepted == ("rejected" in known):
                changed = True
                if accepted:
                    del known["rejected"]
                else:
                    self._data["partitions"][partition] = dict(known or self._new_entry(partition), rejected=_now())
        if changed:
            self._write()

    def remember(
        self,
        kind: str,
        name: str,
        password: str,
        origin: t.Optional[str] = None,
        accepted_users: t.Sequence[str] = (),
    ) -> None:
        """Record that the present credential was made with this password, by this run.

        :arg origin: see the class.
        :arg accepted_users: the service users in front of the partition, whose passwords the proxy has accepted.
        :raises OSError: when the file cannot be written.
        :raises ValueError: when the hash cannot be computed (FIPS mode).
        """
        first_used = self.first_used(kind, name) if self.is_same_password(kind, name, password) else None
        bound = self._bound_entries() - {(kind, name)}
        self._secrets = _SecretsFile(self.secrets_path)
        new = self._new_entry(name)
        new.update(
            iterations=ITERATIONS,
            hash=_encode(_hash_password(password, base64.b64decode(new["salt"]), ITERATIONS)),
            since=_now(),
        )
        new.update({key: value for key, value in (("first_used", first_used), ("origin", origin)) if value})
        self._data[kind][name] = new
        self._rebind_entries(bound)
        for user in [name] if kind == "service_users" else accepted_users:
            known = self._valid_entry("service_users", user)
            if known:
                known["accepted"] = _now()
        self._write()

    def forget(self, kind: str, name: str) -> None:
        """Remove the entry of a credential that was removed. :raises OSError: when the file cannot be written."""
        bound = self._bound_entries()
        if self._data[kind].pop(name, None):
            self._secrets = _SecretsFile(self.secrets_path)
            self._rebind_entries(bound - {(kind, name)})
            self._write()

    @property
    def secrets_changed(self) -> bool:
        """Whether the secrets file has changed since the ledger was read, or since a method of it last changed it."""
        return _SecretsFile(self.secrets_path).content != self._secrets.content

    def rebind(self) -> None:
        """Renew the fingerprints after a ppin of this run that was only to list or to log in has written the file.

        The vendor does not document whether such a ppin writes the secrets file. If it does, all entries are expected
        to be encrypted anew. If only some have changed, somebody else has changed them, and nothing is renewed.

        :raises OSError: when the file cannot be written.
        """
        now = _SecretsFile(self.secrets_path)
        if self.problem or now.content == self._secrets.content:
            return
        bound = self._bound_entries()
        self._secrets = now
        if bound and not self._bound_entries() and read_file(self.path) == self._file:
            self._rebind_entries(bound)
            self._write()

    def _bound_entries(self) -> t.Set[t.Tuple[str, str]]:
        """Return the kind and name of the entries whose fingerprint matches the secrets file."""
        return {(kind, name) for kind in KINDS for name in self._data[kind] if self._valid_entry(kind, name)}

    def _rebind_entries(self, entries: t.Iterable[t.Tuple[str, str]]) -> None:
        """Renew the fingerprints of these entries, which matched before ppin changed another one.

        The vendor does not document whether ppin encrypts all entries anew when it changes one.
        """
        for kind, name in entries:
            known = self._data[kind][name]
            known["entry"] = self._secrets.fingerprint(name, known["salt"])

    def _new_entry(self, name: str) -> t.Dict[str, t.Any]:
        salt = _encode(os.urandom(16))
        return {"salt": salt, "entry": self._secrets.fingerprint(name, salt)}

    def _write(self) -> None:
        if self.problem and os.path.lexists(self.path):
            # It may be from a newer version of this collection, so it is kept, under a name that decommission removes.
            os.rename(self.path, "%s.%d.%s~" % (self.path, os.getpid(), time.strftime("%Y-%m-%d@%H:%M:%S")))
        self.problem = None
        self._file = (json.dumps(self._data, indent=2, sort_keys=True) + "\n").encode("utf-8")
        replace_file(self.path, self._file)


def rebind_ledger(module: AnsibleModule, ledger: Ledger) -> None:
    """As Ledger.rebind(), with a warning when that fails. Also in check mode, in which ppin is run, too."""
    try:
        ledger.rebind()
    except (OSError, PpinError) as exc:
        module.warn("ppin has written %s, and the ledger cannot follow (%s)." % (ledger.secrets_path, exc))


class _SecretsFile:
    """The content of the secrets file when it was read. A file that cannot be read counts as empty."""

    def __init__(self, path: str) -> None:
        try:
            self.content = read_file(path)
        except (OSError, UntrustedFile):
            self.content = b""
        self._entries: t.Optional[t.Dict[str, bytes]] = None

    def fingerprint(self, name: str, salt: str) -> str:
        """Return the fingerprint of the entry of this name, or of the whole file if that entry cannot be parsed."""
        if self._entries is None:
            self._entries = secret_entries(self.content)
        entry = self._entries.get(name, b"\0" + self.content)
        return _encode(hmac.new(base64.b64decode(salt), entry, hashlib.sha256).digest())


def _upgrade_version_1(data: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """Convert a ledger of version 1, which had the rejections in a section of their own."""
    rejected = data.pop("rejected", {})
    for name, moment in rejected.items():
        data["partitions"].setdefault(name, {"salt": _encode(os.urandom(16))})["rejected"] = moment
    return dict(data, version=VERSION)


def _validate(data: t.Mapping[str, t.Any]) -> None:
    """:raises ValueError, KeyError, TypeError, AttributeError: when the file does not have the form of a ledger."""
    if data["version"] != VERSION:
        raise ValueError("version %r is not known" % data["version"])
    for known in list(data["partitions"].values()) + list(data["service_users"].values()):
        base64.b64decode(known["salt"])
        texts = ["entry", "since", "first_used", "origin", "rejected", "accepted"]
        if not all(isinstance(known.get(key, ""), str) for key in texts):
            raise ValueError("an entry is damaged")
        if "hash" in known or "iterations" in known:
            base64.b64decode(known["hash"])
            iterations = known["iterations"]
            if not isinstance(iterations, int) or not 0 < iterations <= 100 * ITERATIONS or "since" not in known:
                raise ValueError("an entry is damaged")


def _now() -> str:
    return time.strftime(TIME_FORMAT, time.gmtime())


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _hash_password(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode("utf-8"), salt, iterations)
