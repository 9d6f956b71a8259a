# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a Primus HSM cluster: partitions, service users, attempt counters, clock, log and report.

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
    # The vendor's names, and the values of its published reference configuration:
    "login_attempt_threshold": 100,  # wrong attempts within attempt_reset_time that lock
    "attempt_reset_time": 300,  # seconds
    "login_lockout_time": 300,  # seconds
    "lifespan_setup_pwd": 72,  # hours, fractions allowed; 0: serves one client
    "lifespan_from": "first_use",  # or issuance, as CloudHSM Economy Certified has it
    "client_log": True,  # may clients fetch the log?
    # The vendor's documentation does not say these:
    "client_log_off": "refused",  # what a client gets without client_log
    "client_log_code": "0x80000069",
    "fetch_renews_secret": False,  # does each fetch give another permanent secret, and end the one before?
    "success_resets": False,  # does a successful login reset the wrong attempts?
    "expiry_counts": False,  # is an expired setup password a wrong attempt?
    "locked_code": "0x80005017",
    "disabled_code": "0x80005019",
    "expired_code": "0x80005018",
}
LIMIT_CHOICES = {"lifespan_from": ("first_use", "issuance"), "client_log_off": ("refused", "empty")}


class UnknownName(Exception):
    """A partition, service user or node that does not exist."""


def random_setup_password() -> str:
    """Return a new setup password: five groups of five letters of both cases and digits, joined by dashes."""
    alphabet = string.ascii_letters + string.digits
    return "-".join("".join(secrets.choice(alphabet) for _char in range(5)) for _group in range(5))


def change_limits(limits: dict, changes: dict) -> dict:
    """Return limits with changes to some of them. Raises ValueError for an unknown name or choice."""
    unknown = set(changes) - set(DEFAULT_LIMITS)
    if unknown:
        raise ValueError("unknown limit: " + ", ".join(sorted(unknown)))
    changed = {**limits, **changes}
    for name, choices in LIMIT_CHOICES.items():
        if changed[name] not in choices:
            raise ValueError("%s: %r is not one of %s" % (name, changed[name], ", ".join(choices)))
    return changed


class TrialCounter:
    """Counts wrong attempts within attempt_reset_time, and locks after too many. Times are epoch seconds."""

    def __init__(self, limits: dict):
        self._limits = limits
        self.clear()

    def clear(self):
        self._wrong = []  # when
        self._locked_until = None

    def lock(self, now: float):
        self._locked_until = now + self._limits["login_lockout_time"]

    def locked(self, now: float) -> bool:
        if self._locked_until is not None and now >= self._locked_until:
            self.clear()
        return self._locked_until is not None

    def trials(self, now: float) -> int:
        """Return the wrong attempts that count at this time."""
        if not self.locked(now):
            self._wrong = [when for when in self._wrong if now - when < self._limits["attempt_reset_time"]]
        return len(self._wrong)

    def wrong(self, now: float):
        trials = self.trials(now) + 1
        self._wrong.append(now)
        if trials >= self._limits["login_attempt_threshold"]:
            self.lock(now)

    def right(self):
        if self._limits["success_resets"]:
            self.clear()


class SetupPassword:
    """One setup password. Times are epoch seconds."""

    def __init__(self, issued: float):
        self._issued = issued
        self._first_use = None
        self._expired = False

    def expire(self):
        self._expired = True

    def valid(self, now: float, limits: dict) -> bool:
        lifespan = limits["lifespan_setup_pwd"] * 3600
        start = self._issued if limits["lifespan_from"] == "issuance" else self._first_use
        return not self._expired and (not lifespan or start is None or now < start + lifespan)

    def use(self, now: float):
        if self._first_use is None:
            self._first_use = now


class Partition:
    """One partition: its credentials, their counters, and the events an admin command has prepared.

    settings: as in the config; limits: those of the device, which the partition's own go before; now: epoch seconds.
    """

    def __init__(self, settings: dict, limits: dict, now: float):
        unknown = set(settings) - {"setup_password", "pkcs11_password", "limits"}
        if unknown:
            raise ValueError("unknown partition setting: " + ", ".join(sorted(unknown)))
        self.limits = change_limits(limits, settings.get("limits", {}))
        values = settings.get("setup_password", [])
        values = [values] if isinstance(values, str) else values
        self.setup_passwords = {value: SetupPassword(now) for value in values}
        self.pkcs11_password = settings["pkcs11_password"]
        self.generation = 0
        self.disabled = False
        self.at_next_login = None
        self.api = TrialCounter(self.limits)
        self.pkcs11 = TrialCounter(self.limits)

    def expire(self):
        for password in self.setup_passwords.values():
            password.expire()

    def code(self, limit: str) -> int:
        return int(self.limits[limit], 16)


class Hsm:
    """A cluster of two nodes with shared state.

    config: the JSON of `serve --config`; clock: returns epoch seconds, the injected offset is added to it.
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
        if unknown:
            raise ValueError("unknown setting: " + ", ".join(sorted(unknown)))
        limits = change_limits(DEFAULT_LIMITS, config.get("limits", {}))
        now = self._clock()
        partitions = {name: Partition(value, limits, now) for name, value in config.get("partitions", {}).items()}
        self._config = config
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
        """Evaluate an API login. kind: setup or permanent. Returns a code, 0 for success."""
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
            return partition.code("disabled_code")
        if partition.api.locked(now):
            return partition.code("locked_code")
        if kind == "permanent":
            right = hmac.compare_digest(password.encode(), self.permanent_secret(name).encode())
        else:
            setup = partition.setup_passwords.get(password)
            right = setup is not None
            if right and not setup.valid(now, partition.limits):
                if partition.limits["expiry_counts"]:
                    partition.api.wrong(now)
                return partition.code("expired_code")
            if right:
                setup.use(now)
        if not right:
            partition.api.wrong(now)
            return codes.LOGIN_REJECTED
        partition.api.right()
        return codes.OK

    def login_pkcs11(self, name: str, password: str, **who) -> int:
        """Evaluate a PKCS#11 password, for a session whose API login succeeded. Returns a code, 0 for success."""
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
        """Evaluate a service proxy password. Returns a code, 0 for success."""
        right = user in self._service_users and self._service_users[user] == password
        code = codes.OK if right else codes.LOGIN_REJECTED
        self._record("proxy", code, service_user=user, **who)
        return code

    def fetch_secret(self, name: str, setup_password: str | None, *, node: int, client: str, peer: str) -> dict:
        """Issue the permanent secret of a partition to a session.

        setup_password: the one it logged in with. Returns `code` and, when that is 0, `secret`.
        """
        partition = self.partition(name)
        setup = partition.setup_passwords.get(setup_password)
        if setup is not None and partition.limits["lifespan_setup_pwd"] == 0:
            if not setup.valid(self.now, partition.limits):
                return {"code": partition.code("expired_code")}  # another client was faster
            setup.expire()
        if partition.limits["fetch_renews_secret"]:
            partition.generation += 1
        text = "Interaction: User: %s, Client: %s@%s, Protocol: pkcs11, Retrieved permanent login credentials"
        self._write(name, node, "notice", "Crypto", text % (name, client, peer))
        return {"code": codes.OK, "secret": self.permanent_secret(name)}

    def permanent_secret(self, name: str) -> str:
        """Return the permanent secret that is valid now."""
        text = "%s/%d" % (name, self.partition(name).generation)
        return hmac.new(self._seed, text.encode(), hashlib.sha256).hexdigest()

    def fetch_log(self, name: str, node: int, since: float = 0.0, reverse: bool = False) -> dict:
        """Give a client a log. Returns `code` and, when that is 0, `lines`. Arguments as for log_lines."""
        partition = self.partition(name)
        if partition.limits["client_log"]:
            return {"code": codes.OK, "lines": self.log_lines(name, node, since, reverse)}
        if partition.limits["client_log_off"] == "empty":
            return {"code": codes.OK, "lines": []}
        return {"code": partition.code("client_log_code")}

    def log_lines(self, name: str, node: int, since: float = 0.0, reverse: bool = False) -> list[str]:
        """Return a node's log of a partition. since: epoch seconds; reverse: newest first."""
        lines = []
        for entry in self._log:
            if (entry["partition"], entry["node"]) != (name, node) or entry["time"] < since:
                continue
            lines.append("%s Process: %s" % (self._log_head(node, entry["time"], entry), entry["text"]))
            if entry["repeated"]:
                head = self._log_head(node, entry["last"], entry)
                lines.append("%s message repeated %d times: [ Process: %s]" % (head, entry["repeated"], entry["text"]))
        return lines[::-1] if reverse else lines

    @staticmethod
    def _log_head(node: int, time: float, entry: dict) -> str:
        day = datetime.fromtimestamp(time, timezone.utc)
        when = "%s %2d %s UTC" % (day.strftime("%Y %b"), day.day, day.strftime("%H:%M:%S"))
        return "%s %s %s %s" % (when, NODE_NAMES[node], entry["level"], entry["facility"])

    # What an administrator does

    def new_setup_password(self, partition: str, value: str | None = None, keep: bool = False) -> str:
        value = value or random_setup_password()
        passwords = self.partition(partition).setup_passwords
        if not keep:
            passwords.clear()
        passwords[value] = SetupPassword(self.now)
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
            mine[-1].update(repeated=mine[-1]["repeated"] + 1, last=self.now)
        else:
            self._log.append({**entry, "time": self.now, "repeated": 0})
