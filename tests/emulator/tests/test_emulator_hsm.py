# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state machine as tables: what happens, and the verdict of each login."""

import re

import pytest
from primus_emulator import codes
from primus_emulator.hsm import Hsm, TrialCounter, UnknownName, random_setup_password

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
    "limits": {
        "login_attempt_threshold": 3,
        "login_lockout_time": 100,
        "attempt_reset_time": 50,
        "lifespan_setup_pwd": 0.5,
    },
}
WHO = {"node": 0, "client": "c", "peer": "192.0.2.1", "source": "terminal"}


class Bench:
    """An HSM with a clock that stands still until it is advanced."""

    def __init__(self, limits):
        self.hsm = Hsm({**CONFIG, "limits": {**CONFIG["limits"], **limits}}, clock=lambda: 1_600_000_000.0)
        self.first_secret = self.hsm.permanent_secret("P")

    def step(self, action, *args):
        """Do one step: JUDGED are a client's and have a verdict, the rest are the administrator's."""
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
        if action == "fetch":
            return self.hsm.fetch_secret("P", args[0], node=0, client="c", peer="192.0.2.1")["code"]
        return getattr(self.hsm, action)(*args)


JUDGED = ("setup", "other", "permanent", "pin", "proxy", "fetch")
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
    "a lock ends after login_lockout_time": (
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
    "trials are forgotten after attempt_reset_time": (
        {},
        [*THREE_WRONG[:2], ("advance", 50), *THREE_WRONG[:2], ("setup", "setup", OK)],
    ),
    "they are remembered until then": (
        {},
        [*THREE_WRONG[:2], ("advance", 49), ("setup", "bad", REJECTED), ("setup", "setup", REJECTED)],
    ),
    "slow trials never lock": ({}, [("setup", "bad", REJECTED), ("advance", 25)] * 6 + [("setup", "setup", OK)]),
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
        [("advance", 1_000_000), ("setup", "setup", OK), ("advance", 1799), ("setup", "setup", OK)],
    ),
    "its validity runs from the first use, not the last": (
        {},
        [*[("setup", "setup", OK), ("advance", 900)] * 2, ("setup", "setup", EXPIRED)],
    ),
    "unless it runs from the issuance, which is a reset": (
        {"lifespan_from": "issuance"},
        [("advance", 1799), ("setup", "setup", OK), ("advance", 1), ("setup", "setup", EXPIRED)]
        + [("setup", "second", EXPIRED), ("reset",), ("setup", "setup", OK)],
    ),
    "or a new one": (
        {"lifespan_from": "issuance"},
        [("advance", 1000), ("new_setup_password", "P", "new", True), ("advance", 1799)]
        + [("setup", "setup", EXPIRED), ("setup", "new", OK), ("advance", 1), ("setup", "new", EXPIRED)],
    ),
    "a one-time setup password ends at the first fetch, not at a login": (
        {"lifespan_setup_pwd": 0},
        [*[("setup", "setup", OK), ("advance", 1_000_000)] * 2, ("fetch", "setup", OK), ("setup", "setup", EXPIRED)]
        + [("setup", "second", OK), ("permanent", "now", OK)],
    ),
    "it serves one of two that have logged in": (
        {"lifespan_setup_pwd": 0},
        [("setup", "setup", OK), ("setup", "setup", OK), ("fetch", "setup", OK), ("fetch", "setup", EXPIRED)],
    ),
    "one with a lifespan serves any number": ({}, [("setup", "setup", OK), *[("fetch", "setup", OK)] * 3]),
    "letters of a setup password have a case": (
        {},
        [("new_setup_password", "P", "aBcDe"), ("setup", "ABCDE", REJECTED), ("setup", "aBcDe", OK)],
    ),
    "each setup password has a validity of its own": (
        {},
        [("setup", "setup", OK), ("advance", 1800), ("setup", "setup", EXPIRED), ("setup", "second", OK)],
    ),
    "a permanent secret outlives the setup password": (
        {},
        [("setup", "setup", OK), ("advance", 1800), ("setup", "setup", EXPIRED), ("permanent", "first", OK)],
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
        [("setup", "setup", OK), ("advance", 1800), ("new_setup_password", "P", "setup"), ("setup", "setup", OK)],
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
        if action in JUDGED:
            *args, verdict = args
            assert bench.step(action, *args) == verdict, "step %d" % number
        else:
            bench.step(action, *args)


def test_trials_count_within_a_sliding_window():
    counter = TrialCounter(CONFIG["limits"])
    counter.wrong(0)
    counter.wrong(40)
    assert [counter.trials(now) for now in (49, 50, 89, 90)] == [2, 1, 1, 0]
    counter.wrong(100)
    counter.wrong(101)
    counter.wrong(102)
    assert counter.locked(201.9)
    assert counter.trials(201.9) == 3
    assert not counter.locked(202)
    assert counter.trials(202) == 0


def test_the_limits_are_those_of_the_published_reference_configuration():
    hsm = Hsm({"partitions": {"P": {"setup_password": ["used", "unused"], "pkcs11_password": "pin"}}}, lambda: 0)

    def login(password):
        return hsm.login("P", "setup", password, **WHO)

    assert login("used") == OK
    assert {login("wrong") for _trial in range(99)} == {REJECTED}
    assert login("used") == OK
    login("wrong")
    assert login("used") == REJECTED
    hsm.advance(299)
    assert login("used") == REJECTED
    hsm.advance(1)
    assert login("used") == OK
    hsm.advance(72 * 3600 - 301)
    assert login("used") == OK
    hsm.advance(1)
    assert (login("used"), login("unused")) == (EXPIRED, OK)


def test_a_partition_may_have_limits_of_its_own():
    own = {"login_attempt_threshold": 1, "locked_code": "0x80000069", "lifespan_setup_pwd": 0}
    partition = {"setup_password": "setup", "pkcs11_password": "pin"}
    partitions = {"P": {**partition, "limits": own}, "Q": partition}
    hsm = Hsm({"partitions": partitions, "limits": {"login_attempt_threshold": 2}}, clock=lambda: 0)
    verdicts = {
        name: [hsm.login(name, "setup", password, **WHO) for password in ("bad", "setup", "bad", "setup")]
        for name in partitions
    }
    assert verdicts == {"P": [REJECTED, 0x80000069] + [0x80000069] * 2, "Q": [REJECTED, OK, REJECTED, REJECTED]}


def test_a_setup_password_has_letters_of_both_cases_and_digits():
    made = [random_setup_password() for _number in range(100)]
    assert all(re.fullmatch("[A-Za-z0-9]{5}(-[A-Za-z0-9]{5}){4}", password) for password in made)
    assert all(any(test(char) for char in "".join(made)) for test in (str.isupper, str.islower, str.isdigit))


@pytest.mark.parametrize(
    ("limits", "code", "lines"),
    [
        ({}, OK, 1),
        ({"client_log": False}, 0x80000069, None),
        ({"client_log": False, "client_log_code": "0x8000000D"}, 0x8000000D, None),
        ({"client_log": False, "client_log_off": "empty"}, OK, 0),
    ],
)
def test_a_log_that_clients_may_not_fetch(limits, code, lines):
    hsm = Bench(limits).hsm
    hsm.log("P", "a line")
    fetched = hsm.fetch_log("P", 0)
    assert fetched["code"] == code
    assert len(fetched["lines"]) == lines if code == OK else "lines" not in fetched


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
        {"partitions": {"P": {"pkcs11_password": "y", "limits": {"trials": 1}}}},
        {"partitions": {"P": {"password": "x", "pkcs11_password": "y"}}},
    ],
)
def test_a_config_with_an_unknown_setting_is_refused(config):
    with pytest.raises(ValueError, match="unknown"):
        Hsm(config)


def test_a_limit_with_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="lifespan_from: 'delivery' is not one of first_use, issuance"):
        Hsm({"limits": {"lifespan_from": "delivery"}})


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


# As published, with other names and addresses.
PUBLISHED_LOG = [
    "2021 Apr  1 09:31:28 UTC NUFENEN notice MSCNG Process: Login request: User: P Client: "
    "SecurosysKspCfg@HOST-1@192.0.2.76@00:00:5e:00:53:7b with setup password over TCP connection 536870926 "
    "(IP 198.51.100.7:31550)",
    "2021 Apr  1 09:31:28 UTC NUFENEN info MSCNG Process: Login successful: User: P Client: "
    "SecurosysKspCfg@HOST-1@192.0.2.76@00:00:5e:00:53:7b over TCP connection 0x2000000e (IP 198.51.100.7:31550)",
    "2021 Apr  1 09:31:29 UTC NUFENEN notice Crypto Process: Interaction: User: P, Client: "
    "SecurosysKspCfg@HOST-1@192.0.2.76@00:00:5e:00:53:7b, Protocol: mscng, Retrieved permanent login credentials",
    "2021 Apr  1 09:35:47 UTC NUFENEN err Crypto Process: Error: Command: CommandGetKeyFlag, User: P, Client: "
    "hsmcons@HOST-1@192.0.2.76@00:00:5e:00:53:7b, Protocol: mscng, 0x12 (C_GetAttributeValue: Requested attribute "
    "type is not valid)",
    "2021 Apr  1 09:35:48 UTC NUFENEN err Crypto message repeated 11 times: [ Process: Error: Command: "
    "CommandGetKeyFlag, User: P, Client: hsmcons@HOST-1@192.0.2.76@00:00:5e:00:53:7b, Protocol: mscng, 0x12 "
    "(C_GetAttributeValue: Requested attribute type is not valid)]",
]


def test_log_as_published():
    hsm = Bench({}).hsm
    hsm.advance(-1_600_000_000 + 1617269488)
    for line, seconds in zip(PUBLISHED_LOG[:4], (0, 1, 258, 1)):
        head, _process, text = line.partition(" Process: ")
        hsm.log("P", text, *head.split()[-2:])
        hsm.advance(seconds)
    for _time in range(11):
        hsm.log("P", text, *head.split()[-2:])
    assert hsm.log_lines("P", 0) == PUBLISHED_LOG


def test_log_of_logins():
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
