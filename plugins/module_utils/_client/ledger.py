# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Remembers of each credential of a client which password made it, when, and what the HSM said of it.

ppin cannot tell it, and without it `state=updated` would spend the setup password at every run. What is remembered is
bound to the entry as it stands in the secrets file: of an entry that somebody else has put there, nothing is known.
"""

import base64
import hashlib
import hmac
import json
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import Untrusted, read_file, replace_file
from ansible_collections.hsmops.primus.plugins.module_utils._client.primus_cfg import secret_entries
from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import TIME_FORMAT, moment_of
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError

ITERATIONS = 100000
"""PBKDF2 rounds. A setup password has 129 bits, so they matter for service proxy passwords only; the file is root's."""

VERSION = 2

KINDS = ("partitions", "service_users")


class Ledger:
    """The JSON file `.secrets.cfg.ledger` beside the secrets file, mode 0600.

    `{"version": 2, "partitions": {NAME: entry}, "service_users": {NAME: entry}}`. An entry has, in base64, `salt`
    and `entry`, the fingerprint of what the secrets file has of that name. If the password is known that made it:
    `iterations` and `hash` of it, and `since`, the time in UTC as `YYYY-MM-DDTHH:MM:SSZ`; `first_used` the
    same, where the password was used before since. And if they are known: `origin`, the attempt gate's token of that
    password; `rejected` and `accepted`, when the HSM or the service proxy last said so.

    Version 1 had no fingerprints and no origins. Its entries are taken for those that are there.
    A lost or damaged file counts as empty: see problem.
    """

    def __init__(self, secrets_path: str) -> None:
        self.secrets_path = secrets_path
        self.path = secrets_path + ".ledger"
        self.problem: t.Optional[str] = None
        self._file = b""
        self._data = self._read()
        self._secrets = _Secrets(secrets_path)

    def _read(self) -> t.Dict[str, t.Any]:
        empty: t.Dict[str, t.Any] = {"version": VERSION, "partitions": {}, "service_users": {}}
        try:
            self._file = read_file(self.path)
            data = json.loads(self._file.decode("utf-8"))
            if data["version"] == 1:
                data = _upgraded(data)
            _check(data)
            return data  # type: ignore[no-any-return]
        except OSError as exc:
            if os.path.lexists(self.path):
                self.problem = "The ledger %s cannot be read (%s)" % (self.path, exc.strerror)
        except Untrusted as exc:
            self.problem = "The ledger %s is not used (%s)" % (self.path, exc.msg)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            self.problem = "The ledger %s is damaged (%s)" % (self.path, exc)
        return empty

    # What is known

    def _known(self, kind: str, name: str) -> t.Dict[str, t.Any]:
        """What is remembered of the entry that stands in the secrets file; empty when it is another one."""
        known: t.Dict[str, t.Any] = self._data[kind].get(name, {})
        if "entry" in known and known["entry"] != self._secrets.fingerprint(name, known["salt"]):
            return {}
        return known

    def same(self, kind: str, name: str, password: str) -> bool:
        """Whether this password made the present credential. kind: `partitions` or `service_users`."""
        known = self._known(kind, name)
        if "hash" not in known:
            return False
        try:
            given = _hash(password, base64.b64decode(known["salt"]), known["iterations"])
        except ValueError:  # FIPS mode refuses short passwords, so that no entry can be of one
            return False
        return hmac.compare_digest(given, base64.b64decode(known["hash"]))

    def since(self, kind: str, name: str) -> t.Optional[str]:
        """When the present credential was set by this collection, or None when it does not know."""
        return self._known(kind, name).get("since")

    def first_used(self, kind: str, name: str) -> t.Optional[str]:
        """When this client first used the password that made the present credential, or None when it is not known."""
        known = self._known(kind, name)
        return known.get("first_used", known.get("since"))

    def origin(self, name: str) -> t.Optional[str]:
        """The token of the credential that the permanent secret of a partition was fetched with, or None."""
        return self._known("partitions", name).get("origin")

    def rejected(self, partition: str) -> t.Optional[str]:
        """When a login with the present permanent secret was rejected, or None when that is not known."""
        return self._known("partitions", partition).get("rejected")

    def accepted_within(self, service_user: str, seconds: float) -> bool:
        """Whether the service proxy is known to have accepted the present password so lately."""
        accepted = self._known("service_users", service_user).get("accepted")
        moment = moment_of(accepted)
        return moment is not None and 0 <= time.time() - moment < seconds

    # What is found out

    def note_logins(self, verdicts: t.Mapping[str, bool]) -> None:
        """Note of partitions whether a login was accepted. :raises OSError: when the file cannot be written."""
        changed = False
        for partition, accepted in verdicts.items():
            known = self._known("partitions", partition)
            if accepted == ("rejected" in known):
                changed = True
                if accepted:
                    del known["rejected"]
                else:
                    self._data["partitions"][partition] = dict(known or self._new(partition), rejected=_now())
        if changed:
            self._write()

    def remember(
        self,
        kind: str,
        name: str,
        password: str,
        origin: t.Optional[str] = None,
        through: t.Sequence[str] = (),
    ) -> None:
        """Note that this password made the credential that is there now, by a change of our own.

        :arg origin: see the class.
        :arg through: the service users of the partition, whose passwords were accepted.
        :raises OSError, ValueError: when the file cannot be written, or the fingerprint not be computed (FIPS mode).
        """
        first_used = self.first_used(kind, name) if self.same(kind, name, password) else None
        matching = self._matching() - {(kind, name)}
        self._secrets = _Secrets(self.secrets_path)
        new = self._new(name)
        new.update(
            iterations=ITERATIONS,
            hash=_encode(_hash(password, base64.b64decode(new["salt"]), ITERATIONS)),
            since=_now(),
        )
        new.update({key: value for key, value in (("first_used", first_used), ("origin", origin)) if value})
        self._data[kind][name] = new
        self._bind(matching)
        for user in [name] if kind == "service_users" else through:
            known = self._known("service_users", user)
            if known:
                known["accepted"] = _now()
        self._write()

    def forget(self, kind: str, name: str) -> None:
        """Drop what is known of a credential that was removed. :raises OSError: when the file cannot be written."""
        matching = self._matching()
        if self._data[kind].pop(name, None):
            self._secrets = _Secrets(self.secrets_path)
            self._bind(matching - {(kind, name)})
            self._write()

    @property
    def moved(self) -> bool:
        """Whether the secrets file is not as it was when this was read, or last changed by a method of this."""
        return _Secrets(self.secrets_path).content != self._secrets.content

    def follow(self) -> None:
        """Bind what is remembered to the entries as a ppin of this run has left them that was to look or to log in.

        It is not documented that such a ppin leaves the secrets file alone. One that writes it is taken to cipher all
        entries anew: where some are as they were, somebody else has changed the others.

        :raises OSError: when the file cannot be written.
        """
        now = _Secrets(self.secrets_path)
        if self.problem or now.content == self._secrets.content:
            return
        matching = self._matching()
        self._secrets = now
        if matching and not self._matching() and read_file(self.path) == self._file:
            self._bind(matching)
            self._write()

    def _matching(self) -> t.Set[t.Tuple[str, str]]:
        """The entries that stand in the secrets file as they are remembered."""
        return {(kind, name) for kind in KINDS for name in self._data[kind] if self._known(kind, name)}

    def _bind(self, entries: t.Iterable[t.Tuple[str, str]]) -> None:
        """Bind what is remembered to the entries as they stand now.

        It is not known whether ppin ciphers the other entries anew when it changes one. So what matched before that
        does afterwards, too.
        """
        for kind, name in entries:
            known = self._data[kind][name]
            known["entry"] = self._secrets.fingerprint(name, known["salt"])

    def _new(self, name: str) -> t.Dict[str, t.Any]:
        salt = _encode(os.urandom(16))
        return {"salt": salt, "entry": self._secrets.fingerprint(name, salt)}

    def _write(self) -> None:
        if self.problem and os.path.lexists(self.path):
            # It may be of a newer version of this collection: set aside, under a name that decommission knows.
            os.rename(self.path, "%s.%d.%s~" % (self.path, os.getpid(), time.strftime("%Y-%m-%d@%H:%M:%S")))
        self.problem = None
        self._file = (json.dumps(self._data, indent=2, sort_keys=True) + "\n").encode("utf-8")
        replace_file(self.path, self._file)


def follow(module: AnsibleModule, ledger: Ledger) -> None:
    """Let the ledger follow a ppin that has written the secrets file without being told to, also in check mode."""
    try:
        ledger.follow()
    except (OSError, PpinError) as exc:
        module.warn("ppin has written %s, and the ledger cannot follow (%s)." % (ledger.secrets_path, exc))


class _Secrets:
    """The content of the secrets file, at one moment."""

    def __init__(self, path: str) -> None:
        try:
            self.content = read_file(path)
        except (OSError, Untrusted):
            self.content = b""
        self._entries: t.Optional[t.Dict[str, bytes]] = None

    def fingerprint(self, name: str, salt: str) -> str:
        """That of what the file has under a name; of the whole file when that cannot be told."""
        if self._entries is None:
            self._entries = secret_entries(self.content)
        entry = self._entries.get(name, b"\0" + self.content)
        return _encode(hmac.new(base64.b64decode(salt), entry, hashlib.sha256).digest())


def _upgraded(data: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """A ledger of version 1. Its rejections were in a part of their own."""
    rejected = data.pop("rejected", {})
    for name, moment in rejected.items():
        data["partitions"].setdefault(name, {"salt": _encode(os.urandom(16))})["rejected"] = moment
    return dict(data, version=VERSION)


def _check(data: t.Mapping[str, t.Any]) -> None:
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


def _hash(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode("utf-8"), salt, iterations)
