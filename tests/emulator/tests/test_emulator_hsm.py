# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state machine as tables: what happens, and the verdict of each login."""

import pytest
from primus_emulator import codes
from primus_emulator.hsm import Hsm, TrialCounter, UnknownName

OK = codes.OK
REJECTED = codes.LOGIN_REJECTED
EXPIRED = codes.SETUP_PASSWORD_EXPIRED
DISABLED = codes.PARTITION_DISABLED
WRONG_PIN = codes.WRONG_PKCS11_PASSWORD
BUSY = codes.TOO_MANY_CONNECTIONS

CONFIG = {
    "partitions": {
        "P": {"setup_password": ["setup", "second"], "pkcs11_password": "pin"},
        "Q": {"setup_password": "setup", "pkcs11_password": "pin"},
    },
    "service_users": {"svc": "sesame"},
    "limits": {"max_trials": 3, "lock_seconds": 100, "reset_seconds": 50, "setup_validity_seconds": 1000},
}
WHO = {"node": 0, "client": "c", "peer": "192.0.2.1", "source": "terminal"}


class Bench:
    """An HSM with a clock that stands still until it is advanced."""

    def __init__(self, limits):
        self.hsm = Hsm({**CONFIG, "limits": {**CONFIG["limits"], **limits}}, clock=lambda: 1_600_000_000.0)
        self.first_secret = self.hsm.permanent_secret("P")

    def step(self, action, *args):
        """Do one step: setup, permanent, pin, proxy and other are logins, the rest are the administrator's."""
        if action == "setup":
            return self.hsm.login("P", "setup", args[0], **WHO)
        if action == "other":
            return self.hsm.login("Q", "setup", args[0], **WHO)
        if action == "permanent":
            secret = {"first": self.first_secret, "now": self.hsm.permanent_secret("P")}.get(args[0], args[0])
            return self.hsm.login("P", "permanent", secret, **WHO)
        if action == "pin":
            return self.hsm.login_pkcs11("P", args[0], **WHO)
        if action == "proxy":
            return self.hsm.login_proxy(*args, **WHO)
        return getattr(self.hsm, action)(*args)


THREE_WRONG = [("setup", "bad", REJECTED)] * 3

SCENARIOS = {
    "a setup password and the secret it gives": ({}, [("setup", "setup", OK), ("permanent", "now", OK)]),
    "several setup passwords are valid": ({}, [("setup", "setup", OK), ("setup", "second", OK)]),
    "too many wrong trials lock every credential of the partition": (
        {},
        [*THREE_WRONG, ("setup", "setup", REJECTED), ("permanent", "now", REJECTED), ("other", "setup", OK)],
    ),
    "the code of a lock is a limit": ({"locked_code": "0x80000069"}, [*THREE_WRONG, ("setup", "setup", 0x80000069)]),
    "one trial less does not lock": ({}, [*THREE_WRONG[:2], ("setup", "setup", OK)]),
    "stale permanent secrets count the same trials": (
        {},
        [("permanent", "bad", REJECTED), ("setup", "bad", REJECTED), ("permanent", "bad", REJECTED)]
        + [("setup", "setup", REJECTED)],
    ),
    "a lock ends after lock_seconds": (
        {},
        [*THREE_WRONG, ("advance", 99), ("setup", "setup", REJECTED), ("advance", 1), ("setup", "setup", OK)],
    ),
    "a trial during the lock does not lengthen it": (
        {},
        [*THREE_WRONG, ("advance", 60), ("setup", "bad", REJECTED), ("advance", 40), ("setup", "setup", OK)],
    ),
    "after a lock all trials are there again": (
        {},
        [*THREE_WRONG, ("advance", 100), *THREE_WRONG[:2], ("setup", "setup", OK)],
    ),
    "trials are forgotten after reset_seconds without one": (
        {},
        [*THREE_WRONG[:2], ("advance", 50), *THREE_WRONG[:2], ("setup", "setup", OK)],
    ),
    "they are remembered until then": (
        {},
        [*THREE_WRONG[:2], ("advance", 49), ("setup", "bad", REJECTED), ("setup", "setup", REJECTED)],
    ),
    "a success forgets no trial by default": (
        {},
        [*THREE_WRONG[:2], ("setup", "setup", OK), ("setup", "bad", REJECTED), ("setup", "setup", REJECTED)],
    ),
    "a success forgets them with success_resets": (
        {"success_resets": True},
        [*THREE_WRONG[:2], ("setup", "setup", OK), *THREE_WRONG[:2], ("setup", "setup", OK)],
    ),
    "a restart forgets a lock": ({}, [*THREE_WRONG, ("restart",), ("setup", "setup", OK)]),
    "a restart forgets trials": ({}, [*THREE_WRONG[:2], ("restart",), *THREE_WRONG[:2], ("setup", "setup", OK)]),
    "the administrator locks and unlocks": (
        {},
        [("lock", "P"), ("setup", "setup", REJECTED), ("other", "setup", OK), ("unlock", "P"), ("setup", "setup", OK)],
    ),
    "a setup password does not age before its first use": (
        {},
        [("advance", 1_000_000), ("setup", "setup", OK), ("advance", 999), ("setup", "setup", OK)],
    ),
    "its validity runs from the first use, not the last": (
        {},
        [*[("setup", "setup", OK), ("advance", 500)] * 2, ("setup", "setup", EXPIRED)],
    ),
    "each setup password has a validity of its own": (
        {},
        [("setup", "setup", OK), ("advance", 1000), ("setup", "setup", EXPIRED), ("setup", "second", OK)],
    ),
    "a permanent secret outlives the setup password": (
        {},
        [("setup", "setup", OK), ("advance", 1000), ("setup", "setup", EXPIRED), ("permanent", "first", OK)],
    ),
    "an expired setup password is no trial": (
        {},
        [("expire", "P"), *[("setup", "setup", EXPIRED)] * 4, ("permanent", "now", OK)],
    ),
    "it is one with expiry_counts": (
        {"expiry_counts": True},
        [("expire", "P"), *[("setup", "setup", EXPIRED)] * 3, ("permanent", "now", REJECTED)],
    ),
    "a setup password that expires meanwhile, once": (
        {},
        [("expire_during", "P"), ("setup", "setup", EXPIRED), ("new_setup_password", "P", "new"), ("setup", "new", OK)],
    ),
    "a new setup password ends the present ones": (
        {},
        [("new_setup_password", "P", "new"), ("setup", "new", OK), ("setup", "setup", REJECTED)],
    ),
    "unless they are kept": (
        {},
        [("new_setup_password", "P", "new", True), ("setup", "new", OK), ("setup", "setup", OK)],
    ),
    "a new setup password starts anew": (
        {},
        [("setup", "setup", OK), ("advance", 1000), ("new_setup_password", "P", "setup"), ("setup", "setup", OK)],
    ),
    "a rotation makes secrets stale": (
        {},
        [("rotate_secret", "P"), ("permanent", "first", REJECTED), ("permanent", "now", OK)],
    ),
    "a reset makes the first ones valid": (
        {},
        [("rotate_secret", "P"), ("reset",), ("permanent", "first", OK)],
    ),
    "a disabled partition": (
        {},
        [("disable", "P"), ("setup", "setup", DISABLED), ("permanent", "now", DISABLED), ("enable", "P")]
        + [("setup", "setup", OK)],
    ),
    "the other documented codes of a disabled partition and an expired setup password": (
        {"disabled_code": "0x80000069", "expired_code": "0x80000037"},
        [("disable", "P"), ("setup", "setup", 0x80000069), ("enable", "P"), ("expire", "P")]
        + [("setup", "setup", 0x80000037)],
    ),
    "a disabled partition counts no trial": (
        {},
        [("disable", "P"), *[("setup", "bad", DISABLED)] * 4, ("enable", "P"), ("setup", "setup", OK)],
    ),
    "a partition that is disabled meanwhile": (
        {},
        [("disable_during", "P"), ("setup", "setup", DISABLED), ("setup", "setup", DISABLED)],
    ),
    "PKCS#11 passwords have a counter of their own": (
        {},
        [*[("pin", "bad", WRONG_PIN)] * 3, ("pin", "pin", WRONG_PIN), ("setup", "setup", OK), ("permanent", "now", OK)],
    ),
    "and the same timers": ({}, [*[("pin", "bad", WRONG_PIN)] * 3, ("advance", 100), ("pin", "pin", OK)]),
    "an API lock does not lock the PKCS#11 password": ({}, [*THREE_WRONG, ("pin", "pin", OK)]),
    "a changed PKCS#11 password": (
        {},
        [("set_pkcs11_password", "P", "new"), ("pin", "pin", WRONG_PIN), ("pin", "new", OK)],
    ),
    "busy logins are not judged": (
        {},
        [("busy", 4), *[("setup", "bad", BUSY)] * 4, ("setup", "setup", OK)],
    ),
    "service users": (
        {},
        [("proxy", "svc", "sesame", OK), ("proxy", "svc", "bad", REJECTED), ("proxy", "nobody", "sesame", REJECTED)]
        + [("set_proxy_password", "svc", "new"), ("proxy", "svc", "new", OK), ("proxy", "svc", "sesame", REJECTED)],
    ),
}


@pytest.mark.parametrize(("limits", "steps"), SCENARIOS.values(), ids=SCENARIOS.keys())
def test_scenario(limits, steps):
    bench = Bench(limits)
    for number, (action, *args) in enumerate(steps):
        if action in ("setup", "other", "permanent", "pin", "proxy"):
            *args, verdict = args
            assert bench.step(action, *args) == verdict, "step %d" % number
        else:
            bench.step(action, *args)


def test_the_last_trial_counts_from_the_last_wrong_one():
    limits = {"max_trials": 3, "lock_seconds": 100, "reset_seconds": 50}
    counter = TrialCounter(limits)
    counter.wrong(0)
    counter.wrong(40)
    assert counter.trials(89) == 2
    assert counter.trials(90) == 0
    counter.wrong(100)
    counter.wrong(101)
    counter.wrong(102)
    assert counter.locked(201.9)
    assert not counter.locked(202)
    assert counter.trials(202) == 0


def test_unknown_partition():
    hsm = Bench({}).hsm
    assert hsm.login("NOBODY", "setup", "setup", **WHO) == codes.USER_NOT_FOUND
    with pytest.raises(UnknownName, match="NOBODY"):
        hsm.lock("NOBODY")


@pytest.mark.parametrize(
    "config",
    [
        {"partition": {}},
        {"limits": {"trials": 1}},
        {"partitions": {"P": {"password": "x", "pkcs11_password": "y"}}},
    ],
)
def test_a_config_with_an_unknown_setting_is_refused(config):
    with pytest.raises(ValueError, match="unknown"):
        Hsm(config)


def test_report_names_everything_but_the_password():
    hsm = Bench({}).hsm
    hsm.login("P", "setup", "bad", **WHO)
    hsm.login_proxy("svc", "sesame", **WHO)
    common = {"time": "2020-09-13T12:26:40.000+00:00", "node": "hsm0", "client": "c", "peer": "192.0.2.1"}
    common["source"] = "terminal"
    assert hsm.report == [
        {**common, "partition": "P", "service_user": None, "kind": "setup", "verdict": "0x80005017"},
        {**common, "partition": None, "service_user": "svc", "kind": "proxy", "verdict": "ok"},
    ]
    summary = hsm.report_summary()
    assert summary["counts"] == {"proxy": {"ok": 1}, "setup": {"0x80005017": 1}}
    assert summary["partitions"]["P"] == {
        "disabled": False,
        "locked": False,
        "trials": 1,
        "pkcs11_locked": False,
        "pkcs11_trials": 0,
    }


def test_log_has_the_published_form():
    hsm = Bench({}).hsm
    hsm.advance(-1_600_000_000 + 1617269488)
    hsm.login("P", "setup", "setup", **WHO)
    hsm.advance(86400)
    for _time in range(3):
        hsm.log("P", "Error: something", level="err")
    first = [
        "2021 Apr  1 09:31:28 UTC NUFENEN notice PKCS11 Process: "
        "Login request: User: P Client: c@192.0.2.1 with setup password",
        "2021 Apr  1 09:31:28 UTC NUFENEN info PKCS11 Process: Login successful: User: P Client: c@192.0.2.1",
    ]
    second = [
        "2021 Apr  2 09:31:28 UTC NUFENEN err Crypto Process: Error: something",
        "2021 Apr  2 09:31:28 UTC NUFENEN err Crypto message repeated 2 times: [ Process: Error: something]",
    ]
    assert hsm.log_lines("P", 0) == first + second
    assert hsm.log_lines("P", 0, since=1617321600) == second
    assert hsm.log_lines("P", 0, reverse=True) == (first + second)[::-1]
    assert [line.split()[5] for line in hsm.log_lines("P", 1)] == ["GRIMSEL"] * 2
    assert hsm.log_lines("Q", 0) == []
