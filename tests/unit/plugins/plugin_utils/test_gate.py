# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the attempt gate."""

import contextlib
import json
import multiprocessing
import os
import subprocess
import tempfile
import threading

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.directory_store import DirectoryStore
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.open_store import open_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import (
    AttemptRefused,
    Gate,
    GateOptions,
    StaleSecret,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError, Store, Turn
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import (
    ACCEPTED,
    NOT_TRIED,
    PIN_CODE,
    REJECTED,
    SETUP_CODE,
    UNCLEAR,
    PresentSecret,
    Verdict,
    present_secret,
    sanitized_error,
    verdict_on_credential,
    verdict_on_secret,
)
from hypothesis import given
from hypothesis import strategies as st

FORK = multiprocessing.get_context("fork")


def verdict(value, code=None, name="", cls="rejected", unreachable=False):
    return Verdict(value, sanitized_error({"code": code, "name": name, "class": cls}), unreachable)


OK = Verdict(ACCEPTED)
WRONG = verdict(REJECTED, "0x80005017", "login failed")
WRONG_PIN = verdict(REJECTED, PIN_CODE, "wrong PIN")
LATE = verdict(UNCLEAR, None, "it was late", "timeout")
AWAY = verdict(None, "0x80005015", "no network", "transient", unreachable=True)
ORIGIN = "a" * 64


@pytest.fixture
def gate(tmp_path):
    """Make the gate as a host sees it."""
    store = open_store(str(tmp_path / "gate"))

    def make(host="h1", window=3600, budget=3, parallel=16, display=lambda line: None, before_wait=lambda: None):
        return Gate(store, GateOptions(budget, window, parallel), host, display, before_wait)

    return make


@pytest.fixture
def clock(monkeypatch):
    now = [1_000_000.0]
    monkeypatch.setattr(Store, "now", lambda self: now[0])
    return now


@pytest.fixture
def in_run(monkeypatch):
    """What follows is done by a worker of the run of this name."""
    return lambda name: monkeypatch.setattr(rules, "_run_id", lambda: name)


def setup(gate, password="right", name="P1", pin="pin"):
    return gate.password_subject(rules.SECRET, name, password)._replace(
        parts=(gate.password_subject(rules.PIN, name, pin),)
    )


def pin(gate, password="pin", name="P1"):
    return gate.password_subject(rules.PIN, name, password)


def permanent(gate, since=1000.0, origin=ORIGIN, name="P1"):
    return gate.secret_subject(name, PresentSecret(origin, since))


def attempt(gate, subject, found, vouched=True):
    """Try, and find this; whether one try was enough."""
    with gate.permission(subject, vouched) as once:
        gate.record_verdict(subject, found, vouched)
    return once


def rejected(gate, subject, *hosts, vouched=True):
    for host in hosts:
        attempt(gate(host), subject, WRONG, vouched)


def record_of(gate, subject):
    return gate().store.read(subject.key)


def die(gate, subject):
    """A process that ends while it tries."""

    def work():
        gate.permission(subject).__enter__()
        os._exit(7)

    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == 7


# One password


def test_an_accepted_one_is_so_for_the_window(gate, clock):
    right = setup(gate())
    assert not gate().accepted(right)
    with gate().permission(right):
        assert not gate().accepted(right)
        gate().record_verdict(right, OK)
    assert gate("h2").accepted(right) and gate("h2").accepted(pin(gate()))
    others = [setup(gate(), "other"), setup(gate(), name="P2"), gate().password_subject(rules.PROXY, "P1", "right")]
    assert not any(gate().accepted(other) for other in others)
    clock[0] += 3599
    assert gate().accepted(right)
    clock[0] += 1
    assert not gate().accepted(right)


def test_a_rejected_one_is_so_for_ever(gate, clock):
    wrong = setup(gate())
    rejected(gate, wrong, "h1")
    clock[0] += 1e7
    with pytest.raises(
        AttemptRefused, match=r"rejected when h1 tried at 1970-01-12T13:46:40Z: 0x80005017 login failed"
    ):
        attempt(gate("h2"), wrong, OK)
    with pytest.raises(AttemptRefused, match="h2 did not use it"):
        gate("h2").check_permission(wrong)


def test_no_verdict_often_enough_is_enough(gate, clock):
    right = setup(gate())
    for host in ("h1", "h2", "h3"):
        attempt(gate(host), right, LATE)
    message = "'P1': 3 of 3 failed or unclear logins within 3600 seconds, the latest of h3 at .*: it was late"
    with pytest.raises(AttemptRefused, match=message + ". h4 made no login to it"):
        attempt(gate("h4"), right, OK)
    with pytest.raises(AttemptRefused):
        attempt(gate("h4"), setup(gate(), "other"), OK)
    attempt(gate("h4", budget=4), setup(gate(), "other"), OK)
    clock[0] += 3600
    attempt(gate("h4"), right, OK)


def test_what_is_right_in_the_end_does_not_count(gate):
    right = setup(gate())
    attempt(gate(budget=2), right, LATE)
    attempt(gate(budget=2), right, OK)
    attempt(gate(budget=2), setup(gate(), "w1"), WRONG)
    attempt(gate(budget=2), setup(gate(), "w2"), WRONG)


@pytest.mark.parametrize("found", [AWAY, NOT_TRIED], ids=["away", "not tried"])
def test_what_was_not_judged_leaves_nothing(gate, found):
    attempt(gate(), setup(gate()), found)
    assert [record["kind"] for _key, record in gate().store.items()] == ["unreachable"] * (found is AWAY)


def test_what_was_not_judged_leaves_the_first_use(gate, clock):
    right = setup(gate())
    attempt(gate(), right, OK)
    clock[0] += 7200
    attempt(gate("h2"), right, NOT_TRIED)
    assert record_of(gate, right)["first_used"] == 1_000_000.0
    assert not gate().accepted(right)


def test_an_accepted_one_that_is_rejected_later_is_rejected(gate):
    right = setup(gate())
    attempt(gate(), right, OK)
    with gate("h2").permission(right), gate("h3").permission(right):
        gate("h2").record_verdict(right, WRONG)
        gate("h3").record_verdict(right, WRONG)
    with pytest.raises(AttemptRefused, match="rejected when h2 tried"):
        attempt(gate("h4"), right, OK)
    assert len(record_of(gate, right)["wrong"]) == 2


def test_times_are_those_of_the_store(gate, clock, monkeypatch):
    monkeypatch.setattr(rules.time, "time", lambda: 5_000_000.0)
    right = setup(gate())
    for found in (LATE, OK):
        attempt(gate(), right, found)
        record = record_of(gate, right)
        assert {record["time"], *record["wrong"], record.get("first_used", clock[0])} == {clock[0]}


def test_a_time_in_the_future_is_of_now(gate, clock):
    clock[0] += 1000
    attempt(gate(), setup(gate()), LATE)
    clock[0] -= 1000
    with pytest.raises(AttemptRefused):
        attempt(gate("h2", budget=1), setup(gate()), OK)
    ahead = permanent(gate(), since=clock[0] + 1e6)
    assert ahead.since == clock[0]


@pytest.mark.parametrize(
    "kind, found, windows",
    [
        (rules.SECRET, OK, 720),  # 30 days, as it has the first use
        (rules.PROXY, OK, 24),
        (rules.SECRET, LATE, 24),
        (rules.PIN, None, 24),
        (rules.PERMANENT, WRONG, 24),
        (rules.SECRET, WRONG, None),
        (rules.PROXY, WRONG, None),
        (rules.PIN, WRONG, None),
    ],
    ids=str,
)
def test_how_long_a_record_is_kept(gate, clock, kind, found, windows):
    subject = permanent(gate()) if kind == rules.PERMANENT else gate().password_subject(kind, "P1", "right")
    with gate().permission(subject):
        if found:
            gate().record_verdict(subject, found)
    store = gate().store
    clock[0] += 3600 * (windows or 10_000) - 1
    assert len(store.items()) == 1
    clock[0] += 2
    assert len(store.items()) == len(store.keys()) == (0 if windows else 1)


def test_the_budget_reads_the_records_of_the_name_only(gate, monkeypatch):
    asked = []
    monkeypatch.setattr(DirectoryStore, "items", lambda self, prefix="": asked.append(prefix) or [])
    tried = [gate().password_subject(kind, name, "x") for kind in (rules.SECRET, rules.PROXY) for name in ("P1", "P2")]
    for subject in tried:
        asked.clear()
        attempt(gate(), subject, LATE)
        assert set(asked) == {subject.key[: rules.PREFIX_DIGITS]}
    assert len({subject.key[: rules.PREFIX_DIGITS] for subject in [*tried, permanent(gate())]}) == 2


def test_very_long_names_can_be_noted(gate):
    host, name = "h" * 5000, "n" * 5000
    for password in ("w1", "w2", "w3"):
        attempt(gate(host), setup(gate(), password, name), WRONG)
    attempt(gate(host), permanent(gate(), name="m" * 5000), WRONG)
    attempt(gate(host), setup(gate(), name="o" * 5000), AWAY)
    attempt(gate(host), setup(gate(), name="o" * 5000), NOT_TRIED)
    with pytest.raises(AttemptRefused):
        attempt(gate(), setup(gate(), name=name), OK)


def test_nothing_of_a_password_is_kept(gate, tmp_path):
    wrong = setup(gate(), "secret-word", pin="number-word")
    attempt(gate(), wrong, WRONG)
    texts = [path.read_text() for path in (tmp_path / "gate").iterdir()]
    assert not any("secret-word" in text or "number-word" in text for text in texts)
    (path,) = (tmp_path / "gate").glob("*.json")
    fields = {*("class", "code", "host", "kind", "meaning", "name", "time"), *("sure", "verdict", "witnesses", "wrong")}
    assert set(json.loads(path.read_text())) == fields


@pytest.mark.parametrize("name", ["P1", "two words", "one's", 'say "no"', "$HOME"])
def test_the_command_that_a_refusal_names_clears_the_entry(tmp_path, name):
    home = tmp_path / "ansible"
    gate = Gate(open_store(str(home / "hsmops-primus-gate")), GateOptions(3, 3600, 16), "h1", print)
    attempt(gate, setup(gate, name=name), WRONG)
    with pytest.raises(AttemptRefused) as refused:
        gate.check_permission(setup(gate, name=name))
    command = refused.value.hint.partition("after all: ")[2]
    subprocess.run(["sh", "-c", command], check=True, env={**os.environ, "ANSIBLE_HOME": str(home)})
    assert not gate.store.items()


def test_keys_and_origins_depend_on_the_store(gate, tmp_path):
    other = Gate(open_store(str(tmp_path / "other")), GateOptions(3, 60, 16), "h", print)
    assert setup(other).key != setup(gate()).key
    assert other.origin("P1", "right") != gate().origin("P1", "right")


def test_an_origin_is_of_the_partition_and_the_password(gate):
    origins = [gate(host).origin(*of) for host in ("h1", "h2") for of in (("P1", "a"), ("P1", "b"), ("P2", "a"))]
    assert len(set(origins)) == 3 and origins[:3] == origins[3:]
    assert present_secret({"origin": origins[0]}).origin == origins[0]


def test_a_lost_turn_is_said(gate, tmp_path):
    said = []
    right = setup(gate())
    with gate(display=said.append).permission(right):
        pass
    assert said == []
    with gate(display=said.append).permission(right):
        for lock in (tmp_path / "gate").glob("*.lock"):
            lock.unlink()
    assert [line.partition(" of")[0] for line in said] == [
        "h1 lost its turn for the PKCS#11 password",
        "h1 lost its turn for the setup password",
    ]


def test_what_a_host_does_before_it_waits(gate, monkeypatch):
    """It is told for whom, and leaves nothing on the client."""
    said = []
    right = setup(gate())
    monkeypatch.setattr(rules, "TURN_TIMEOUT", 0)
    waiting = gate("h2", display=said.append, before_wait=lambda: said.append("left nothing"))
    with gate("h1").permission(right):
        with pytest.raises(GateError, match="Waited for more than 0 seconds for h1"), waiting.permission(right):
            pass
        assert said == ["h2 waits for the verdict on the setup password of 'P1', which h1 is trying.", "left nothing"]
    with waiting.permission(right):
        pass
    assert len(said) == 2


def test_foreseeing_writes_nothing(gate, tmp_path):
    before = {path.name: path.read_bytes() for path in (tmp_path / "gate").iterdir()} if gate() else {}
    gate().check_permission(setup(gate()))
    gate().check_permission(permanent(gate()))
    assert {path.name: path.read_bytes() for path in (tmp_path / "gate").iterdir()} == before


# A process that dies


def test_a_run_that_died_may_have_tried(gate):
    right = setup(gate())
    for host in ("h1", "h2", "h3"):
        die(gate(host), right)
    message = "'P1': 3 of 3 failed or unclear logins .*, the latest of h3 at .*: the run was interrupted"
    with pytest.raises(AttemptRefused, match=message):
        attempt(gate("h4"), right, OK)
    attempt(gate("h4"), setup(gate(), name="P2"), OK)


def test_what_died_counts_for_other_credentials_of_the_account(gate):
    for number, subject in enumerate(
        (setup(gate(), "w1"), setup(gate(), "w2"), gate("h3").secret_subject("P1", PresentSecret()))
    ):
        die(gate(f"h{number + 1}"), subject)
    with pytest.raises(AttemptRefused, match="3 of 3 failed or unclear"):
        attempt(gate("h4"), setup(gate(), "w3"), OK)
    attempt(gate("h4"), pin(gate()), OK)


def test_what_still_runs_is_not_taken_for_dead(gate):
    with gate("h1").permission(setup(gate(), "w1")):
        attempt(gate("h2"), setup(gate(), "w2", pin="another"), OK)
        assert record_of(gate, setup(gate(), "w1"))["verdict"] == "running"


def test_a_death_takes_back_no_finding(gate):
    """Others go by what two have found, also when one with a newer secret died after that."""
    old = permanent(gate(), since=0)
    rejected(gate, old, "h1", "h2")
    die(gate("h3", budget=9), permanent(gate(), since=1e6))
    with pytest.raises(StaleSecret):
        attempt(gate("h4", budget=9), old, OK)


def test_one_who_died_with_a_permit_leaves_it(gate):
    right = setup(gate())
    attempt(gate(), right, OK)
    die(gate("h2"), right)
    assert permits_of(gate, right) == 2


# Passwords that are tried together


def test_the_code_of_the_pin_marks_the_pin_only(gate):
    tried = setup(gate())
    attempt(gate(), tried, WRONG_PIN)
    assert [(record["kind"], record["verdict"]) for _key, record in gate().store.items()] == [("pin", "rejected")]
    message = "The PKCS#11 password of 'P1' was rejected when h1 tried"
    for other in (setup(gate(), "another"), pin(gate()), tried):
        with pytest.raises(AttemptRefused, match=message):
            attempt(gate("h2"), other, OK)
    attempt(gate("h2"), setup(gate(), pin="right"), OK)
    with pytest.raises(AttemptRefused, match=message):
        attempt(gate("h3"), tried, OK)


def test_the_code_of_the_pin_where_nobody_knows_of_the_service_proxy(gate):
    attempt(gate(), setup(gate()), WRONG_PIN, vouched=False)
    with pytest.raises(AttemptRefused):
        attempt(gate("h2"), pin(gate()), OK)


def test_what_was_rejected_elsewhere_is_not_tried_with_others(gate):
    rejected(gate, pin(gate()), "h1")
    proxy = gate().password_subject(rules.PROXY, "svc1", "wrong")
    rejected(gate, proxy, "h1")
    with pytest.raises(AttemptRefused, match="The PKCS#11 password of 'P1' was rejected"):
        attempt(gate("h2"), setup(gate()), OK)
    through = gate().combined_subject(setup(gate(), pin="good"), proxy)
    with pytest.raises(AttemptRefused, match="The service proxy password of 'svc1' was rejected"):
        attempt(gate("h2"), through, OK)
    attempt(gate("h2"), setup(gate(), pin="good"), OK)


def test_an_accepted_setup_password_permits_no_other_pin(gate):
    """A PIN that nobody has had accepted is tried by one host at a time, and costs one login."""
    attempt(gate(), setup(gate()), OK)
    mistyped = setup(gate(), pin="mistyped")
    with gate("h2").permission(mistyped), alone(gate("h3"), mistyped):
        gate("h2").record_verdict(mistyped, WRONG_PIN)
    assert gate().accepted(setup(gate()))
    with pytest.raises(AttemptRefused):
        attempt(gate("h3"), mistyped, OK)
    for number in range(2):
        attempt(gate(f"h{number}"), setup(gate(), pin=f"mistyped{number}"), WRONG_PIN)
    with pytest.raises(AttemptRefused, match="3 of 3"):
        attempt(gate("h4"), setup(gate(), pin="mistyped2"), OK)
    attempt(gate("h4"), setup(gate()), OK)


@contextlib.contextmanager
def alone(gate, subject):
    """Another host does not get permission meanwhile."""
    entered, done = threading.Event(), threading.Event()
    gate.before_wait = entered.set

    def work():
        with contextlib.suppress(AttemptRefused, StaleSecret, GateError), gate.permission(subject):
            gate.record_verdict(subject, NOT_TRIED)
            done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert entered.wait(60) and not done.is_set()
    yield


def test_one_account_for_setup_passwords_and_permanent_secrets(gate):
    for host in ("h1", "h2", "h3"):
        attempt(gate(host), permanent(gate()), LATE)
    new = setup(gate(), "new")
    with pytest.raises(AttemptRefused, match="3 of 3 failed or unclear logins"):
        attempt(gate("h4"), new, OK)
    with pytest.raises(AttemptRefused):
        gate("h4").check_permission(new)
    attempt(gate("h4"), pin(gate(), "another"), OK)  # has an account of its own at the HSM
    attempt(gate("h4"), setup(gate(), name="P2"), OK)


# Who is to blame


def test_one_rejection_that_may_be_of_the_service_proxy_is_unclear(gate):
    wrong = setup(gate())
    rejected(gate, wrong, "h1", vouched=False)
    assert record_of(gate, wrong)["verdict"] == UNCLEAR
    rejected(gate, wrong, "h1", vouched=False)
    assert record_of(gate, wrong)["verdict"] == UNCLEAR, "the same host again"
    rejected(gate, wrong, "h2", vouched=False)
    with pytest.raises(AttemptRefused, match="was rejected when h1 and h2 tried"):
        attempt(gate("h3", budget=9), wrong, OK, vouched=False)


def test_who_can_vouch_for_the_service_proxy_may_try_nonetheless(gate):
    wrong = setup(gate())
    rejected(gate, wrong, "h1", "h2", vouched=False)
    with gate("h3").permission(wrong, vouched=True):
        gate("h3").record_verdict(wrong, NOT_TRIED)
    assert record_of(gate, wrong)["verdict"] == REJECTED, "as before"
    attempt(gate("h3"), wrong, OK, vouched=True)
    assert gate().accepted(wrong)


def test_a_rejection_that_can_only_be_of_the_password_is_final(gate):
    wrong = setup(gate())
    rejected(gate, wrong, "h1", "h2", vouched=False)
    rejected(gate, wrong, "h3")
    with pytest.raises(AttemptRefused):
        attempt(gate("h4", budget=9), wrong, OK, vouched=True)


def test_an_expired_setup_password_is_named_by_its_code(gate):
    expired = setup(gate())
    attempt(gate(), expired, verdict(REJECTED, SETUP_CODE, "expired", "expired"), vouched=False)
    with pytest.raises(AttemptRefused, match="was rejected when h1 tried .* expired"):
        attempt(gate("h2"), expired, OK, vouched=False)


def test_a_sure_rejection_is_not_made_unclear_by_a_host_at_the_same_time(gate):
    right = setup(gate())
    attempt(gate(), right, OK)
    with gate("h2").permission(right), gate("h3").permission(right):
        gate("h2").record_verdict(right, WRONG)
        gate("h3").record_verdict(right, LATE)
    assert len(record_of(gate, right)["wrong"]) == 2
    with pytest.raises(AttemptRefused, match="rejected when h2 tried at .*: 0x80005017 login failed"):
        attempt(gate("h4"), right, OK)


# Permanent secrets


def test_two_hosts_must_find_a_secret_stale(gate):
    subject = permanent(gate())
    rejected(gate, subject, "h1")
    assert gate("h2").stale_record(subject) is None
    rejected(gate, subject, "h2")
    with pytest.raises(StaleSecret) as stale:
        attempt(gate("h3"), subject, OK)
    assert "It was h1 and h2 that found out, the latest at" in rules.witnesses_sentence(stale.value.record)


def test_the_same_host_twice_is_one_witness(gate):
    subject = permanent(gate())
    rejected(gate, subject, "h1", "h1")
    assert gate("h2").stale_record(subject) is None
    attempt(gate("h2"), subject, OK)


def test_an_acceptance_takes_back_what_one_has_found(gate):
    subject = permanent(gate())
    rejected(gate, subject, "h1")
    attempt(gate("h2"), subject, OK)
    rejected(gate, subject, "h3")
    assert record_of(gate, subject)["witnesses"] == ["h3"]
    assert gate("h4").stale_record(subject) is None


def test_witnesses_of_long_ago_do_not_count(gate, clock):
    subject = permanent(gate())
    rejected(gate, subject, "h1")
    clock[0] += 3600
    rejected(gate, subject, "h2")
    assert gate("h3").stale_record(subject) is None
    rejected(gate, subject, "h3")
    assert gate("h4").stale_record(subject)
    clock[0] += 3600
    assert gate("h4").stale_record(subject) is None


def test_secrets_of_another_origin_are_not_concerned(gate):
    rejected(gate, permanent(gate()), "h1", "h2")
    for other in (permanent(gate(), origin="b" * 64), permanent(gate(), name="P2"), permanent(gate(), origin=None)):
        assert gate("h3").stale_record(other) is None
    attempt(gate("h3"), permanent(gate(), origin="b" * 64), OK)


def test_newer_secrets_of_the_same_origin_are_not_concerned(gate):
    old, same, new = (permanent(gate(), since=since) for since in (10_000, 13_600, 13_601))
    rejected(gate, old, "h1", "h2")
    assert gate("h3").stale_record(old) and gate("h3").stale_record(same) and not gate("h3").stale_record(new)
    attempt(gate("h3"), new, OK)
    assert gate("h4").stale_record(old), "that a newer one works says nothing of the old ones"
    assert not gate("h4").accepted(new)
    attempt(gate("h4"), new, NOT_TRIED)
    assert gate("h4").stale_record(old)


def test_a_secret_of_unknown_origin_concerns_nobody_else(gate):
    unknown = [gate(host).secret_subject("P1", PresentSecret()) for host in ("h1", "h2", "h3", "h4")]
    assert len({subject.key for subject in unknown}) == 4
    for number, subject in enumerate(unknown[:3]):
        attempt(gate(f"h{number + 1}"), subject, WRONG)
        assert gate(f"h{number + 1}").stale_record(subject) is None
    with pytest.raises(AttemptRefused, match="3 of 3 failed or unclear logins"):
        attempt(gate("h4"), unknown[3], OK)


def test_what_a_secret_of_unknown_origin_has_accepted_is_no_promise(gate):
    unknown = gate().secret_subject("P1", PresentSecret())
    attempt(gate(), unknown, LATE)
    attempt(gate(), unknown, OK)
    assert not gate().accepted(unknown) and gate().store.items() == []


# Slots: what may go wrong at once


@pytest.fixture(params=["directory", "redis"])
def address(request, tmp_path):
    return request.getfixturevalue("redis_url") if request.param == "redis" else str(tmp_path / "gate")


def test_never_more_in_flight_than_the_budget_leaves(address):
    """Ten processes with a wrong password each: those that try at once, with those that failed, are three at most."""
    barrier, trials = FORK.Barrier(10), FORK.Queue()
    most, now, lock = FORK.Value("i", 0), FORK.Value("i", 0), FORK.Lock()
    open_store(address).secret()

    def work(number):
        gate = Gate(open_store(address), GateOptions(3, 3600, 16), f"h{number}", lambda line: None)
        wrong = setup(gate, f"wrong{number}", pin=f"pin{number}")
        barrier.wait()
        with contextlib.suppress(AttemptRefused), gate.permission(wrong):
            with lock:
                now.value += 1
                most.value = max(most.value, now.value)
            gate.record_verdict(wrong, WRONG)
            trials.put(number)

    processes = [FORK.Process(target=work, args=(number,)) for number in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    assert sum(1 for _trial in iter_queue(trials)) == 3 and most.value <= 3


def iter_queue(queue):
    import queue as queues

    with contextlib.suppress(queues.Empty):
        while True:
            yield queue.get(timeout=1)


@pytest.mark.parametrize("wrong, parallel, free", [(0, 16, 3), (1, 16, 2), (2, 16, 1), (0, 2, 2), (0, 1, 1)])
def test_slots(gate, wrong, parallel, free):
    for number in range(wrong):
        attempt(gate(), setup(gate(), f"w{number}"), WRONG)
    with contextlib.ExitStack() as held:
        for number in range(free):
            trying = setup(gate(), f"right{number}", pin=f"pin{number}")
            held.enter_context(gate(f"h{number}", parallel=parallel).permission(trying))
        with alone(gate("late", parallel=parallel), setup(gate(), "another", pin="another")):
            pass


def test_a_slot_is_given_back_when_the_store_fails(gate, monkeypatch):
    take = _FailingTake(4)
    monkeypatch.setattr(gate().store, "new_turn", take.wrap(gate().store.new_turn))
    with pytest.raises(GateError, match="is away"), gate().permission(setup(gate())):
        pass
    with contextlib.ExitStack() as held:
        for number in range(3):
            held.enter_context(gate(f"h{number}").permission(setup(gate(), f"p{number}", pin=f"p{number}")))


class _FailingTake:
    """Turns of a store; the n-th attempt to take one fails."""

    def __init__(self, fails):
        self.left = fails

    def wrap(self, new_turn):
        def make(key, holder) -> Turn:
            turn = new_turn(key, holder)
            take = turn.try_acquire

            def count():
                self.left -= 1
                if self.left == 0:
                    raise GateError("The store is away")
                return take()

            turn.try_acquire = count
            return turn

        return make


# Permits: what was accepted


def permits_of(gate, subject, **options):
    """How many hosts have the credential at once."""
    with contextlib.ExitStack() as held:
        for count in range(40):
            asking = gate(f"h{count}", **options)
            permit = asking._take_permit(subject, True)
            if permit is None:
                return count
            held.callback(permit.release)
    return 40


def test_permits_double_with_each_acceptance_in_a_run(gate, in_run):
    in_run("first")
    right = setup(gate())
    seen = []
    for _acceptance in range(5):
        attempt(gate(), right, OK)
        seen.append(permits_of(gate, right))
    assert seen == [2, 4, 8, 16, 16]
    assert permits_of(gate, right, parallel=3) == 3
    in_run("second")
    assert permits_of(gate, right) == 2, "what was accepted in another run is no promise"
    attempt(gate(), right, OK)
    assert permits_of(gate, right) == 4


@pytest.mark.parametrize("found", [AWAY, NOT_TRIED, verdict(None, cls="config")], ids=["away", "not tried", "config"])
def test_what_was_not_judged_leaves_an_accepted_one_accepted(gate, found):
    right = setup(gate())
    attempt(gate(), right, OK)
    attempt(gate("h2"), right, found)
    assert gate().accepted(right)


def test_an_accepted_one_without_a_verdict_is_tried_by_one_host_again(gate):
    """Who waits for a permit leaves that path."""
    right = setup(gate())
    attempt(gate(), right, OK)
    with gate("h2").permission(right):
        gate("h2").record_verdict(right, LATE)
    assert not gate().accepted(right)
    with gate("h3").permission(right):
        with alone(gate("h4"), right):
            assert record_of(gate, right)["verdict"] == "running"
        gate("h3").record_verdict(right, OK)
    assert gate().accepted(right)


def test_who_waits_for_a_permit_goes_by_what_becomes_of_it(gate):
    """Unclear: it tries in its turn; rejected: it does not try."""
    for number, (found, then) in enumerate([(LATE, "running"), (WRONG, "refused")]):
        right = setup(gate(), f"p{number}", f"P{number}")
        attempt(gate(parallel=1), right, OK)
        waits, seen = threading.Event(), []

        def work(right, waits, seen):
            waiting = gate("h3", parallel=1, before_wait=waits.set)
            try:
                with waiting.permission(right):
                    seen.append(record_of(gate, right)["verdict"])
                    waiting.record_verdict(right, OK)
            except AttemptRefused:
                seen.append("refused")

        thread = threading.Thread(target=work, args=(right, waits, seen), daemon=True)
        with gate("h2", parallel=1).permission(right):
            thread.start()
            assert waits.wait(60)
            gate("h2").record_verdict(right, found)
        thread.join(60)
        assert seen == [then]


def test_a_host_with_a_permit_takes_nothing_back_of_one_that_tries(gate):
    right = setup(gate())
    attempt(gate(), right, OK)
    with gate("h2").permission(right):
        attempt(gate("h3"), right, LATE)
        with gate("h4").permission(right):
            gate("h2").record_verdict(right, NOT_TRIED)
            assert record_of(gate, right)["verdict"] == "running"
            assert record_of(gate, right)["host"] == "h4"


def test_nobody_waits_for_a_permit_that_there_will_not_be(gate, monkeypatch):
    """Another password that is tried with an accepted one was not accepted, or was rejected: the host looks."""
    monkeypatch.setattr(rules.time, "sleep", lambda seconds: pytest.fail("waits"))
    attempt(gate(), setup(gate()), OK)
    with gate("h2").early_permission([setup(gate(), pin="new")]) as permitted:
        assert not permitted
    rejected(gate, pin(gate()), "h1")
    with gate("h2").early_permission([setup(gate())]) as permitted:
        assert not permitted


def test_a_rejection_ends_all_permits(gate):
    right = setup(gate())
    attempt(gate(), right, OK)
    with gate("h2").permission(right), gate("h3").permission(right):
        gate("h2").record_verdict(right, WRONG)
        gate("h3").record_verdict(right, OK)
        with pytest.raises(AttemptRefused, match="rejected when h2 tried"):
            attempt(gate("h4"), right, OK)
    with pytest.raises(AttemptRefused, match="rejected when h2 tried"):
        gate("h5").check_permission(right)


# An HSM that is not reached


def test_two_hosts_that_do_not_reach_the_hsm_spare_the_others_that(gate, clock, in_run):
    in_run("first")
    right = setup(gate())
    assert attempt(gate("h1"), right, AWAY) is False
    assert attempt(gate("h2"), right, AWAY) is True, "one try is enough"
    for other in (right, setup(gate(), "other"), permanent(gate())):
        with pytest.raises(
            AttemptRefused, match="was not reached by h1 and h2 at .*: 0x80005015 no network. h3 did not"
        ) as no:
            attempt(gate("h3"), other, OK)
        assert (no.value.cls, no.value.code) == ("transient", "0x80005015")
    attempt(gate("h2"), right, AWAY)
    attempt(gate("h3"), setup(gate(), name="P2"), NOT_TRIED)
    clock[0] += rules.UNREACHABLE_RETENTION
    attempt(gate("h3"), right, NOT_TRIED)


def test_the_same_host_twice_is_one_that_does_not_reach_it(gate, in_run):
    in_run("first")
    attempt(gate("h1"), setup(gate()), AWAY)
    attempt(gate("h1"), setup(gate()), AWAY)
    assert attempt(gate("h2"), setup(gate()), NOT_TRIED) is True


def test_another_run_finds_out_anew(gate, in_run):
    in_run("first")
    for host in ("h1", "h2"):
        attempt(gate(host), setup(gate()), AWAY)
    in_run("second")
    assert attempt(gate("h3"), setup(gate()), NOT_TRIED) is False


@pytest.mark.parametrize("found", [OK, WRONG, LATE], ids=lambda found: found.value)
def test_who_reaches_it_takes_that_back(gate, in_run, found):
    in_run("first")
    attempt(gate("h1"), setup(gate(), "p1"), AWAY)
    attempt(gate("h2"), setup(gate(), "p2"), found)
    assert attempt(gate("h3"), setup(gate(), "p3"), AWAY) is False
    attempt(gate("h4"), setup(gate(), "p4"), NOT_TRIED)


def test_the_run_is_that_of_all_workers_of_a_process():
    def report(queue):
        queue.put(rules._run_id())

    def start(queue):
        workers = [FORK.Process(target=report, args=(queue,)) for _worker in range(2)]
        for worker in workers:
            worker.start()
            worker.join(60)

    queue = FORK.Queue()
    starters = [FORK.Process(target=start, args=(queue,)) for _run in range(2)]
    for starter in starters:
        starter.start()
        starter.join(60)
    runs = [queue.get(timeout=60) for _worker in range(4)]
    assert runs[0] == runs[1] != runs[2] == runs[3]


# What a host says

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["rejected", "0x80005017"]),
    lambda values: st.lists(values) | st.dictionaries(st.sampled_from(["code", "class", "name"]) | st.text(), values),
    max_leaves=8,
)
TELLS = ("failed", "logins", "error", "verified", "partitions", "origin", "since")
RESULTS = st.dictionaries(st.sampled_from(TELLS), ANYTHING)
TIMES = ANYTHING | st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
ENTRIES = st.fixed_dictionaries({"origin": ANYTHING | st.just(ORIGIN), "since": TIMES})


@given(result=RESULTS, entry=ENTRIES, vouched=st.booleans())
def test_whatever_a_host_says_can_be_noted(result, entry, vouched):
    """And is then nothing that another host could not read, and binds no other credential."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(os.path.join(folder, "gate"))
        one, other = (Gate(store, GateOptions(9, 3600, 16), host, lambda line: None) for host in ("h1", "h2"))
        right, secret = setup(one), one.secret_subject("P1", present_secret(entry))
        attempt(one, right, verdict_on_credential(result), vouched)
        attempt(one, secret, verdict_on_secret(result))
        assert len(store.items()) == len(store.keys())
        assert other.accepted(right) == (verdict_on_credential(result).value == ACCEPTED)
        assert other.stale_record(secret) is None, "of one witness"
        attempt(other, secret, OK)
        attempt(other, setup(other, "other", pin="other"), OK)


@pytest.mark.parametrize(
    "result",
    [
        {"failed": True, "logins": 1, "error": {"code": 5, "name": ["n" * 5_000_000], "class": {}}},
        {"failed": True, "logins": 1, "error": {"code": ["0x80005017"]}},
        {"failed": True, "logins": "x", "error": "text"},
        {"failed": True, "logins": None, "error": None},
        {"failed": False, "logins": "x"},
        {"failed": "yes", "logins": [1], "error": []},
    ],
    ids=lambda result: str(result)[:60],
)
def test_a_result_that_makes_no_sense_stops_nobody(gate, result):
    right = setup(gate())
    attempt(gate("h1"), right, verdict_on_credential(result))
    assert not gate("h2").accepted(right)
    attempt(gate("h2"), right, OK)
    assert gate("h3").accepted(right)


def test_a_store_that_fails_after_a_login_is_told_of():
    said = []
    with rules.warn_on_gate_error(said.append):
        raise GateError("The store is away.")
    assert said == ["The store is away. What this run found is not known to others."]
