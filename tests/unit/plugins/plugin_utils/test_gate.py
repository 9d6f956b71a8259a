# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the attempt gate."""

import contextlib
import json
import os
import subprocess
import tempfile

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils import _gate
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import Gate, Options, Refused
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_store import DirectoryStore, Store, open_store
from hypothesis import given
from hypothesis import strategies as st

OK = {"failed": False, "logins": 1}
WRONG = {"failed": True, "logins": 1, "error": {"code": "0x80005017", "name": "login failed", "class": "rejected"}}
LATE = {"failed": True, "logins": 1, "error": {"code": None, "name": "it was late", "class": "timeout"}}
AWAY = {"failed": True, "logins": 0, "error": {"code": "0x80005015", "name": "no network", "class": "transient"}}
BROKEN = {"failed": True, "msg": "MODULE FAILURE"}


@pytest.fixture
def gate(tmp_path):
    store = open_store(str(tmp_path / "gate"))

    def make(host="h1", password="right", name="P1", kind=_gate.SECRET, window=3600, budget=2, parallel=16):
        return Gate(store, Options(budget, window, parallel), host, kind, name, [password, "pin"], lambda line: None)

    return make


@pytest.fixture
def clock(monkeypatch):
    now = [1_000_000.0]
    monkeypatch.setattr(Store, "now", lambda self: now[0])
    return now


@pytest.mark.parametrize(
    "result, verdict",
    [
        (OK, "accepted"),
        ({"failed": False, "logins": 0}, None),
        (WRONG, "rejected"),
        ({**WRONG, "error": {"class": "expired"}}, "rejected"),
        ({**WRONG, "logins": 0}, None),
        (LATE, "unclear"),
        ({**LATE, "error": {"class": "unknown"}}, "unclear"),
        ({**LATE, "error": {"class": "dialogue"}}, "unclear"),
        ({**LATE, "error": {"class": "permission"}}, None),
        (AWAY, None),
        (BROKEN, "unclear"),
        *(({"failed": False, "logins": value}, "unclear") for value in ("x", "1", [1], {}, None, True, -1, 1.0)),
        ({}, None),
        ({**WRONG, "logins": "0"}, "rejected"),
        ({**AWAY, "logins": "x"}, None),
        ({**LATE, "error": None}, "unclear"),
        ({**LATE, "error": "text"}, "unclear"),
        ({**LATE, "error": ["rejected"]}, "unclear"),
        ({**LATE, "error": {"class": ["rejected"]}}, "unclear"),
        ({**LATE, "error": {"class": {}}}, "unclear"),
    ],
    ids=str,
)
def test_judge(result, verdict):
    assert _gate.judge(result)[0] == verdict


@pytest.mark.parametrize(
    "error, code, cls, meaning",
    [
        (WRONG["error"], "0x80005017", "rejected", "login failed"),
        ({"code": "0xc000001f", "class": "bug", "name": "ümlaut"}, "0xc000001f", "bug", "ümlaut"),
        *(({"code": code}, None, "unknown", "") for code in (5, [5], {}, None, True, "", "0x8000", "80005017")),
        *(({"code": "0x80005017" + end}, None, "unknown", "") for end in ("0", "\n", " rejected", "0x80005017")),
        *(({"class": cls}, None, "unknown", "") for cls in ("", "good", "Rejected", ["rejected"], {}, 1, None)),
        *(({"name": name}, None, "unknown", "") for name in (None, 5, ["n"], {"n": 1}, "")),
        ({"name": "red \x1b[31mtext\r\n\u202eend\ud800"}, None, "unknown", "red  [31mtext   end "),
        ({"name": "n" * 5_000_000}, None, "unknown", "n" * 200),
        ("text", None, "unknown", "text"),
        *((error, None, "unknown", "") for error in (None, 5, True, [], ["code"], {}, [{"code": "0x80005017"}])),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bounded(error, code, cls, meaning):
    assert _gate.bounded(error) == {"code": code, "class": cls, "meaning": meaning}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["rejected", "0x80005017"]),
    lambda values: st.lists(values) | st.dictionaries(st.sampled_from(["code", "class", "name"]) | st.text(), values),
    max_leaves=8,
)
RESULTS = st.dictionaries(st.sampled_from(["failed", "logins", "error", "verified", "partitions"]), ANYTHING)


@given(result=RESULTS)
def test_whatever_a_host_says_can_be_noted(result):
    """And is then nothing that another host could not read."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(os.path.join(folder, "gate"))
        gate = Gate(store, Options(2, 3600, 16), "h1", _gate.SECRET, "P1", ["right", "pin"], print)
        gate.begin()
        gate.end(result)
        gate.note_permanent(result, store.now())
        assert len(store.items()) == len(store.keys())
        other = Gate(store, Options(2, 3600, 16), "h2", _gate.SECRET, "P1", ["right", "pin"], print)
        assert other.accepted() == (not result.get("failed") and (_gate.logins_of(result) or 0) > 0)
        other.permanent()
        Gate(store, Options(2, 3600, 16), "h2", _gate.SECRET, "P1", ["other", "pin"], print).begin()


@pytest.mark.parametrize(
    "result",
    [
        {**WRONG, "error": {**WRONG["error"], "code": 5, "name": ["n" * 5_000_000], "class": {}}},
        {**WRONG, "error": {"code": ["0x80005017"]}},
        {**WRONG, "error": "text", "logins": "x"},
        {**WRONG, "error": None, "logins": None},
        {"failed": False, "logins": "x"},
        {"failed": "yes", "logins": [1], "error": []},
    ],
    ids=lambda result: str(result)[:60],
)
def test_a_result_that_makes_no_sense_stops_nobody(gate, result):
    gate("h1").begin()
    gate("h1").end(result)
    assert not gate("h2").accepted()
    gate("h2").begin()
    gate("h2").end(OK)
    assert gate("h3").accepted()


def test_times_are_those_of_the_store(gate, clock, monkeypatch):
    monkeypatch.setattr(_gate.time, "time", lambda: 5_000_000.0)
    for result in (LATE, OK):
        gate().begin()
        gate().end(result)
        ((_key, record),) = gate().store.items()
        assert {record["time"], *record["unclear"], record["first_used"] or clock[0]} == {clock[0]}


def test_a_time_in_the_future_is_of_now(gate, clock):
    clock[0] += 1000
    gate().note_permanent(TestPermanentSecrets.STALE, clock[0])
    gate().begin()
    gate().end(LATE)
    clock[0] -= 1000
    stale = gate().permanent().stale
    assert gate().stale_age(stale) == _gate.STALE_SLACK
    gate("h2", budget=3).begin()
    with pytest.raises(Refused):
        gate("h3", budget=3).begin()


@pytest.mark.parametrize(
    "kind, result, windows",
    [
        (_gate.SECRET, OK, 720),  # 30 days, as it has the first use
        (_gate.PROXY, OK, 24),
        (_gate.SECRET, LATE, 24),
        (_gate.PIN, None, 24),
        (_gate.SECRET, WRONG, None),
        (_gate.PROXY, WRONG, None),
    ],
    ids=str,
)
def test_how_long_a_record_is_kept(gate, clock, kind, result, windows):
    gate(kind=kind).begin()
    if result:
        gate(kind=kind).end(result)
    store = gate().store
    clock[0] += 3600 * (windows or 10_000) - 1
    assert len(store.items()) == 1
    clock[0] += 2
    assert len(store.items()) == len(store.keys()) == (0 if windows else 1)


def test_permanent_secrets_are_not_kept_for_ever(gate, clock):
    gate().note_permanent(TestPermanentSecrets.STALE, clock[0])
    clock[0] += 24 * 3600 + 1
    assert gate().store.items() == []


def test_the_budget_reads_the_records_of_the_name_only(gate, monkeypatch):
    asked = []
    monkeypatch.setattr(DirectoryStore, "items", lambda self, prefix="": asked.append(prefix) or [])
    gate(name="P1").begin()
    gate(name="P1", password="other", kind=_gate.PROXY).begin()
    gate(name="P2").begin()
    keys = gate().store.keys()
    assert asked[0] == asked[1] != asked[2]
    assert len(asked[0]) == _gate.PREFIX_DIGITS
    assert sorted(key[: _gate.PREFIX_DIGITS] for key in keys) == sorted(asked)
    assert gate(name="P1").permanent_key.startswith(asked[0])


def test_very_long_names_can_be_noted(gate):
    for password in ("w1", "w2"):
        gate(host="h" * 5000, name="n" * 5000, password=password).begin()
        gate(host="h" * 5000, name="n" * 5000, password=password).end(WRONG)
    with pytest.raises(Refused):
        gate(name="n" * 5000, password="w3").begin()


def test_a_lost_turn_is_said(tmp_path):
    said = []
    store = open_store(str(tmp_path / "gate"))
    gate = Gate(store, Options(2, 3600, 16), "h1", _gate.SECRET, "P1", ["right", "pin"], said.append)
    with gate.turn() as turn:
        assert not turn.lost
    assert said == []
    with pytest.raises(KeyError), gate.turn() as turn:
        os.unlink(tmp_path / f"gate/{gate.turn_key}.lock")
        raise KeyError
    assert turn.lost
    assert len(said) == 1 and said[0].startswith("h1 lost its turn for the setup password and PKCS#11 password of 'P1'")


def test_an_accepted_one_is_so_for_the_window(gate, clock):
    assert not gate().accepted()
    gate().begin()
    assert not gate().accepted()
    gate().end(OK)
    assert gate(host="h2").accepted()
    assert not gate(password="other").accepted()
    assert not gate(name="P2").accepted()
    assert not gate(kind=_gate.PROXY).accepted()
    clock[0] += 3599
    assert gate().accepted()
    clock[0] += 1
    assert not gate().accepted()


def test_a_rejected_one_is_so_for_ever(gate, clock):
    gate().begin()
    gate().end(WRONG)
    clock[0] += 1e7
    with pytest.raises(Refused, match=r"rejected when h1 tried at 1970-01-12T13:46:40Z: 0x80005017 login failed"):
        gate(host="h2").begin()


def test_a_run_that_died_may_have_tried(gate):
    gate(host="h1").begin()
    gate(host="h2").begin()
    with pytest.raises(Refused, match="2 of 2 logins of 'P1' .* h2 tried at .*: the run was ended before it told"):
        gate(host="h3").begin()
    gate(name="P2").begin()


def test_no_verdict_twice_is_enough(gate, clock):
    for host in ("h1", "h2"):
        gate(host).begin()
        gate(host).end(LATE)
    with pytest.raises(Refused, match="the last when h2 tried at .*: it was late. h3 did not contact the HSM"):
        gate("h3").begin()
    with pytest.raises(Refused):
        gate("h3", password="other").begin()
    gate("h3", password="other", budget=3).begin()
    clock[0] += 3600
    gate("h3").begin()


def test_what_is_right_in_the_end_does_not_count(gate):
    gate().begin()
    gate().end(LATE)
    gate().begin()
    gate().end(OK)
    gate(password="w1").begin()
    gate(password="w1").end(WRONG)
    gate(password="w2").begin()


def test_what_was_not_judged_leaves_nothing(gate):
    gate().begin()
    gate().end(AWAY)
    assert gate().store.items() == []


def test_an_accepted_one_that_is_rejected_later_is_rejected(gate):
    gate().begin()
    gate().end(OK)
    gate(host="h2").end(WRONG)
    gate(host="h3").end(WRONG)
    with pytest.raises(Refused, match="rejected when h2 tried"):
        gate(host="h4").begin()


def test_nothing_of_a_password_is_kept(gate, tmp_path):
    gate(password="right").begin()
    gate(password="right").end(WRONG)
    texts = [path.read_text() for path in (tmp_path / "gate").iterdir()]
    assert not any("right" in text or "pin" in text for text in texts)
    (path,) = (tmp_path / "gate").glob("*.json")
    assert set(json.loads(path.read_text())) == {
        *("class", "code", "first_used", "host", "kind", "meaning", "name", "permits", "run", "time"),
        *("unclear", "verdict"),
    }


@pytest.mark.parametrize("name", ["P1", "two words", "one's", 'say "no"', "$HOME"])
def test_the_command_that_a_refusal_names_clears_the_entry(tmp_path, name):
    home = tmp_path / "ansible"
    store = open_store(str(home / "hsmops-primus-gate"))
    Gate(store, Options(2, 3600, 16), "h1", _gate.SECRET, name, ["wrong", "pin"], print).end(WRONG)
    with pytest.raises(Refused) as refused:
        Gate(store, Options(2, 3600, 16), "h2", _gate.SECRET, name, ["wrong", "pin"], print).begin()
    command = refused.value.hint.partition("after all: ")[2].rpartition(", with")[0]
    subprocess.run(["sh", "-c", command], check=True, env={**os.environ, "ANSIBLE_HOME": str(home)})
    assert not store.items()


def test_the_key_of_a_credential_depends_on_the_store(gate, tmp_path):
    other = open_store(str(tmp_path / "other"))
    assert Gate(other, Options(2, 60, 16), "h", _gate.SECRET, "P1", ["right", "pin"], print).key != gate().key


class TestPermanentSecrets:
    LOGIN = {"failed": False, "logins": 1, "verified": True}
    STALE = {"failed": True, "logins": 1, "verified": False, "error": {"code": "0x80005017", "class": "rejected"}}

    def test_the_first_verdict_is_for_all(self, gate, clock):
        assert gate().permanent() == (False, None)
        gate().note_permanent(self.LOGIN, clock[0])
        assert gate("h2", password="other").permanent() == (True, None)
        clock[0] += 3600
        assert gate().permanent() == (False, None)

    def test_a_finding_has_the_time_before_the_login(self, gate, clock):
        gate().note_permanent(self.STALE, clock[0] - 10)
        known, stale = gate("h2").permanent()
        assert known and stale["host"] == "h1"
        clock[0] += 20
        assert gate("h2").stale_age(stale) == 30 + _gate.STALE_SLACK

    def test_a_newer_secret_that_works_does_not_hide_it(self, gate, clock):
        gate().note_permanent(self.STALE, clock[0])
        gate("h2").note_permanent(self.LOGIN, clock[0], gate("h2").permanent()[1])
        assert gate().permanent()[1]["host"] == "h1"

    def test_a_newer_secret_that_is_stale_again_is_the_finding(self, gate, clock):
        gate().note_permanent(self.STALE, clock[0])
        gate("h2").note_permanent(self.STALE, clock[0] + 5, gate("h2").permanent()[1])
        assert gate().permanent()[1]["host"] == "h2"
        gate("h3").note_permanent(self.STALE, clock[0] + 6, None)
        assert gate().permanent()[1]["host"] == "h2", "it logged in before it could know"

    def test_without_a_login_nothing_is_learnt(self, gate, clock):
        gate().note_permanent({**self.STALE, "logins": 0}, clock[0])
        assert gate().permanent() == (False, None)


# Permits


@pytest.fixture
def in_run(monkeypatch):
    """What follows is done by a worker of the run of this name."""
    return lambda name: monkeypatch.setattr(_gate, "_run", lambda: name)


def permits_of(gate, **options):
    """How many hosts have the credential at once."""
    with contextlib.ExitStack() as stack:
        for count in range(40):
            asking = gate(f"h{count}", **options)
            record = asking.store.read(asking.key) or {}
            if count >= asking._permits(record):
                return count
            stack.enter_context(asking.permit())
    return 40


def test_permits_double_with_each_acceptance_in_a_run(gate, in_run):
    in_run("first")
    gate().begin()
    gate().end(OK)
    seen = []
    for _acceptance in range(5):
        seen.append(permits_of(gate))
        gate().end(OK)
    assert seen == [2, 4, 8, 16, 16]
    assert permits_of(gate, parallel=3) == 3
    in_run("second")
    assert permits_of(gate) == 2, "what was accepted in another run is no promise"
    gate().end(OK)
    assert permits_of(gate) == 4


@pytest.mark.parametrize(
    "result", [AWAY, {"failed": False, "logins": 0}, {**AWAY, "error": {"class": "config"}}], ids=str
)
def test_what_was_not_judged_leaves_an_accepted_one_accepted(gate, result):
    gate().begin()
    gate().end(OK)
    with gate("h2").permit():
        gate("h2").end(result)
    assert gate().accepted()


def test_an_accepted_one_without_a_verdict_is_tried_by_one_host_again(gate):
    gate().begin()
    gate().end(OK)
    with gate("h2").permit():
        gate("h2").end(LATE)
    assert not gate().accepted()
    gate("h3").begin()
    gate("h3").end(OK)
    assert gate().accepted()


def test_a_rejection_ends_all_permits(gate):
    gate().begin()
    gate().end(OK)
    with gate("h2").permit(), gate("h3").permit():
        gate("h2").end(WRONG)
        gate("h3").end(OK)
        with pytest.raises(Refused, match="rejected when h2 tried"), gate("h4").permit():
            pass
    with pytest.raises(Refused, match="rejected when h2 tried"):
        gate("h5").foresee()


def test_one_account_for_setup_passwords_and_permanent_secrets(gate):
    lost = {"logins": 1, "verified": None, "error": {"name": "no answer"}}
    for host in ("h1", "h2"):
        gate(host).note_permanent(lost, gate().store.now())
    assert not gate().permanent().known
    with pytest.raises(Refused, match="2 of 2 logins of 'P1'"):
        gate("h3", password="new").begin()
    with pytest.raises(Refused):
        gate("h3", password="new").foresee()
    gate("h3", kind=_gate.PIN).begin()  # has an account of its own at the HSM
    gate("h3", name="P2").begin()
    gate().note_permanent({"logins": 1, "verified": True}, gate().store.now())
    gate("h3", password="new").begin()


def test_foreseeing_writes_nothing(gate):
    before = list(gate().store.items())
    gate().foresee()
    assert list(gate().store.items()) == before == []
