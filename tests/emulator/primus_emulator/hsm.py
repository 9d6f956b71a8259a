# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a Primus HSM cluster: partitions, service users, trial counters, clock, log and report.

Pure: no network, no files; the time comes from a function given to it, so every rule can be tested as a table.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import string
import time
from collections import Counter
from datetime import datetime, timezone

from . import codes

FIRMWARE = "RP-2.10.0-T"
NODE_NAMES = ("NUFENEN", "GRIMSEL")

DEFAULT_LIMITS = {
    "max_trials": 5,  # wrong trials that lock
    "lock_seconds": 1800,
    "reset_seconds": 1800,  # without a wrong trial, after which they are forgotten
    "setup_validity_seconds": 259200,  # from the first use
    # The vendor's documentation does not say these:
    "success_resets": False,  # does a successful login forget the wrong trials?
    "expiry_counts": False,  # is an expired setup password a wrong trial?
    "locked_code": "0x80005017",
    "disabled_code": "0x80005019",
    "expired_code": "0x80005018",
}


class UnknownName(Exception):
    """A partition, service user or node that does not exist."""


def random_setup_password() -> str:
    """Return a new setup password: five groups of five letters of both cases and digits, joined by dashes."""
    alphabet = string.ascii_letters + string.digits
    return "-".join("".join(secrets.choice(alphabet) for _char in range(5)) for _group in range(5))


class TrialCounter:
    """Counts wrong trials, locks after too many, forgets both in time. Times are epoch seconds."""

    def __init__(self, limits: dict):
        self._limits = limits
        self.clear()

    def clear(self):
        self._trials = 0
        self._last_wrong = 0.0
        self._locked_until = None

    def lock(self, now: float):
        self._locked_until = now + self._limits["lock_seconds"]

    def locked(self, now: float) -> bool:
        if self._locked_until is not None and now >= self._locked_until:
            self.clear()
        return self._locked_until is not None

    def trials(self, now: float) -> int:
        """Return the wrong trials that count at this time."""
        if not self.locked(now) and self._trials and now - self._last_wrong >= self._limits["reset_seconds"]:
            self.clear()
        return self._trials

    def wrong(self, now: float):
        self._trials = self.trials(now) + 1
        self._last_wrong = now
        if self._trials >= self._limits["max_trials"]:
            self.lock(now)

    def right(self):
        if self._limits["success_resets"]:
            self.clear()


class SetupPassword:
    """One setup password; its validity starts with its first use."""

    def __init__(self):
        self._first_use = None
        self._expired = False

    def expire(self):
        self._expired = True

    def valid(self, now: float, validity: float) -> bool:
        return not self._expired and (self._first_use is None or now < self._first_use + validity)

    def use(self, now: float):
        if self._first_use is None:
            self._first_use = now


class Partition:
    """One partition: its credentials, their counters, and the events an admin command has prepared."""

    def __init__(self, settings: dict, limits: dict):
        unknown = set(settings) - {"setup_password", "pkcs11_password"}
        if unknown:
            raise ValueError("unknown partition setting: " + ", ".join(sorted(unknown)))
        values = settings.get("setup_password", [])
        self.setup_passwords = {value: SetupPassword() for value in ([values] if isinstance(values, str) else values)}
        self.pkcs11_password = settings["pkcs11_password"]
        self.generation = 0
        self.disabled = False
        self.at_next_login = None
        self.api = TrialCounter(limits)
        self.pkcs11 = TrialCounter(limits)

    def expire(self):
        for password in self.setup_passwords.values():
            password.expire()


class Hsm:
    """A cluster of two nodes with shared state.

    config: the JSON of ``serve --config``; clock: returns epoch seconds, the injected offset is added to it.
    Raises ValueError for a config that is not valid.
    """

    def __init__(self, config: dict, clock=time.time):
        self._clock = clock
        self._seed = os.urandom(32)
        self._config = {}
        self.reset(config)

    def reset(self, config: dict | None = None):
        """Return to the initial state. Permanent secrets issued before any rotation stay valid."""
        config = self._config if config is None else config
        unknown = set(config) - {"partitions", "service_users", "limits"}
        unknown |= set(config.get("limits", {})) - set(DEFAULT_LIMITS)
        if unknown:
            raise ValueError("unknown setting: " + ", ".join(sorted(unknown)))
        limits = {**DEFAULT_LIMITS, **config.get("limits", {})}
        partitions = {name: Partition(value, limits) for name, value in config.get("partitions", {}).items()}
        self._config = config
        self._limits = limits
        self._partitions = partitions
        self._service_users = dict(config.get("service_users", {}))
        self._offset = 0.0
        self._busy = 0
        self._log = []
        self.report = []

    @property
    def now(self) -> float:
        return self._clock() + self._offset

    def partition(self, name: str) -> Partition:
        try:
            return self._partitions[name]
        except KeyError:
            raise UnknownName("no partition %r" % name) from None

    # What clients do. who: node (0 or 1), client (its client_id), peer (its address), source (of the password).

    def login(self, partition: str, kind: str, password: str, **who) -> int:
        """Judge an API login. kind: setup or permanent. Returns a code, 0 for success."""
        code = self._judge_login(partition, kind, password)
        self._record(kind, code, partition=partition, **who)
        words = "setup password" if kind == "setup" else "permanent secret"
        user = "User: %s Client: %s@%s" % (partition, who["client"], who["peer"])
        self._write(partition, who["node"], "notice", "PKCS11", "Login request: %s with %s" % (user, words))
        if code == codes.OK:
            self._write(partition, who["node"], "info", "PKCS11", "Login successful: %s" % user)
        else:
            self._write(partition, who["node"], "err", "PKCS11", "Login failed: %s, %s" % (user, codes.text(code)))
        return code

    def _judge_login(self, name: str, kind: str, password: str) -> int:
        now = self.now
        if self._busy:
            self._busy -= 1
            return codes.TOO_MANY_CONNECTIONS
        partition = self._partitions.get(name)
        if partition is None:
            return codes.USER_NOT_FOUND
        if partition.at_next_login == "expire":
            partition.expire()
        elif partition.at_next_login == "disable":
            partition.disabled = True
        partition.at_next_login = None
        if partition.disabled:
            return self._code("disabled_code")
        if partition.api.locked(now):
            return self._code("locked_code")
        if kind == "permanent":
            right = hmac.compare_digest(password.encode(), self.permanent_secret(name).encode())
        else:
            setup = partition.setup_passwords.get(password)
            right = setup is not None
            if right and not setup.valid(now, self._limits["setup_validity_seconds"]):
                if self._limits["expiry_counts"]:
                    partition.api.wrong(now)
                return self._code("expired_code")
            if right:
                setup.use(now)
        if not right:
            partition.api.wrong(now)
            return codes.LOGIN_REJECTED
        partition.api.right()
        return codes.OK

    def login_pkcs11(self, name: str, password: str, **who) -> int:
        """Judge a PKCS#11 password, for a session whose API login succeeded. Returns a code, 0 for success."""
        now = self.now
        partition = self.partition(name)
        code = codes.WRONG_PKCS11_PASSWORD
        if not partition.pkcs11.locked(now):
            if password == partition.pkcs11_password:
                partition.pkcs11.right()
                code = codes.OK
            else:
                partition.pkcs11.wrong(now)
        self._record("pkcs11", code, partition=name, **who)
        return code

    def login_proxy(self, user: str, password: str, **who) -> int:
        """Judge a service proxy password. Returns a code, 0 for success."""
        right = user in self._service_users and self._service_users[user] == password
        code = codes.OK if right else codes.LOGIN_REJECTED
        self._record("proxy", code, service_user=user, **who)
        return code

    def fetch_secret(self, name: str, *, node: int, client: str, peer: str) -> str:
        """Issue the permanent secret of a partition."""
        text = "Interaction: User: %s, Client: %s@%s, Protocol: pkcs11, Retrieved permanent login credentials"
        self._write(name, node, "notice", "Crypto", text % (name, client, peer))
        return self.permanent_secret(name)

    def permanent_secret(self, name: str) -> str:
        """Return the permanent secret that is valid now."""
        text = "%s/%d" % (name, self.partition(name).generation)
        return hmac.new(self._seed, text.encode(), hashlib.sha256).hexdigest()

    def log_lines(self, name: str, node: int, since: float = 0.0, reverse: bool = False) -> list[str]:
        """Return a node's log of a partition. since: epoch seconds; reverse: newest first."""
        lines = []
        for entry in self._log:
            if (entry["partition"], entry["node"]) != (name, node) or entry["time"] < since:
                continue
            day = datetime.fromtimestamp(entry["time"], timezone.utc)
            when = "%s %2d %s UTC" % (day.strftime("%Y %b"), day.day, day.strftime("%H:%M:%S"))
            head = "%s %s %s %s" % (when, NODE_NAMES[node], entry["level"], entry["facility"])
            lines.append("%s Process: %s" % (head, entry["text"]))
            if entry["repeated"]:
                lines.append("%s message repeated %d times: [ Process: %s]" % (head, entry["repeated"], entry["text"]))
        return lines[::-1] if reverse else lines

    # What an administrator does

    def new_setup_password(self, partition: str, value: str | None = None, keep: bool = False) -> str:
        value = value or random_setup_password()
        passwords = self.partition(partition).setup_passwords
        if not keep:
            passwords.clear()
        passwords[value] = SetupPassword()
        return value

    def rotate_secret(self, partition: str):
        self.partition(partition).generation += 1

    def set_pkcs11_password(self, partition: str, value: str):
        self.partition(partition).pkcs11_password = value

    def set_proxy_password(self, user: str, value: str):
        self._service_users[user] = value

    def expire(self, partition: str):
        self.partition(partition).expire()

    def disable(self, partition: str):
        self.partition(partition).disabled = True

    def enable(self, partition: str):
        self.partition(partition).disabled = False

    def expire_during(self, partition: str):
        self.partition(partition).at_next_login = "expire"

    def disable_during(self, partition: str):
        self.partition(partition).at_next_login = "disable"

    def lock(self, partition: str):
        self.partition(partition).api.lock(self.now)

    def unlock(self, partition: str):
        self.partition(partition).api.clear()
        self.partition(partition).pkcs11.clear()

    def restart(self):
        for name in self._partitions:
            self.unlock(name)

    def advance(self, seconds: float):
        self._offset += seconds

    def busy(self, count: int):
        self._busy = count

    def log(self, partition: str, text: str, level: str = "notice", facility: str = "Crypto"):
        self.partition(partition)
        for node in range(len(NODE_NAMES)):
            self._write(partition, node, level, facility, text)

    def status(self) -> dict:
        return {"time": self._time_text(), "busy": self._busy, "partitions": self._partition_status()}

    def report_summary(self) -> dict:
        counts = Counter((entry["kind"], entry["verdict"]) for entry in self.report)
        kinds = {}
        for (kind, verdict), count in sorted(counts.items()):
            kinds.setdefault(kind, {})[verdict] = count
        return {"counts": kinds, "partitions": self._partition_status()}

    def _partition_status(self) -> dict:
        now = self.now
        return {
            name: {
                "disabled": partition.disabled,
                "locked": partition.api.locked(now),
                "trials": partition.api.trials(now),
                "pkcs11_locked": partition.pkcs11.locked(now),
                "pkcs11_trials": partition.pkcs11.trials(now),
            }
            for name, partition in self._partitions.items()
        }

    def _code(self, limit: str) -> int:
        return int(self._limits[limit], 16)

    def _time_text(self) -> str:
        return datetime.fromtimestamp(self.now, timezone.utc).isoformat(timespec="milliseconds")

    def _record(self, kind, code, *, node, client, peer, source, partition=None, service_user=None):
        self.report.append(
            {
                "time": self._time_text(),
                "node": "hsm%d" % node,
                "partition": partition,
                "service_user": service_user,
                "client": client,
                "peer": peer,
                "kind": kind,
                "verdict": codes.text(code) if code else "ok",
                "source": source,
            }
        )

    def _write(self, partition, node, level, facility, text):
        # The HSM folds a message that follows itself, as syslog does.
        entry = {"partition": partition, "node": node, "level": level, "facility": facility, "text": text}
        mine = [e for e in self._log[-len(NODE_NAMES) :] if (e["partition"], e["node"]) == (partition, node)]
        if mine and all(mine[-1][key] == value for key, value in entry.items()):
            mine[-1]["repeated"] += 1
        else:
            self._log.append({**entry, "time": self.now, "repeated": 0})
