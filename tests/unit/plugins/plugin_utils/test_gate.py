# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the attempt gate."""

import json
import os
import subprocess

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils import _gate
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import Gate, Options, Refused
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_store import open_store

OK = {"failed": False, "logins": 1}
WRONG = {"failed": True, "logins": 1, "error": {"code": "0x80005017", "name": "login failed", "class": "rejected"}}
LATE = {"failed": True, "logins": 1, "error": {"code": None, "name": "it was late", "class": "timeout"}}
AWAY = {"failed": True, "logins": 0, "error": {"code": "0x80005015", "name": "no network", "class": "transient"}}
BROKEN = {"failed": True, "msg": "MODULE FAILURE"}


@pytest.fixture
def gate(tmp_path):
    store = open_store(str(tmp_path / "gate"))

    def make(host="h1", password="right", name="P1", kind=_gate.SECRET, window=3600, budget=2):
        return Gate(store, Options(budget, window), host, kind, name, [password, "pin"], lambda line: None)

    return make


@pytest.fixture
def clock(monkeypatch):
    now = [1_000_000.0]
    monkeypatch.setattr(_gate.time, "time", lambda: now[0])
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
    ],
    ids=str,
)
def test_judge(result, verdict):
    assert _gate.judge(result)[0] == verdict


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
    assert list(gate().store.items()) == []


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
        *("class", "code", "first_used", "host", "kind", "meaning", "name", "time", "unclear", "verdict"),
    }


@pytest.mark.parametrize("name", ["P1", "two words", "one's", 'say "no"', "$HOME"])
def test_the_command_that_a_refusal_names_clears_the_entry(tmp_path, name):
    home = tmp_path / "ansible"
    store = open_store(str(home / "hsmops-primus-gate"))
    Gate(store, Options(2, 3600), "h1", _gate.SECRET, name, ["wrong", "pin"], print).end(WRONG)
    with pytest.raises(Refused) as refused:
        Gate(store, Options(2, 3600), "h2", _gate.SECRET, name, ["wrong", "pin"], print).begin()
    command = refused.value.hint.partition("after all: ")[2].rpartition(", with")[0]
    subprocess.run(["sh", "-c", command], check=True, env={**os.environ, "ANSIBLE_HOME": str(home)})
    assert not list(store.items())


def test_the_key_of_a_credential_depends_on_the_store(gate, tmp_path):
    other = open_store(str(tmp_path / "other"))
    assert Gate(other, Options(2, 60), "h", _gate.SECRET, "P1", ["right", "pin"], print).key != gate().key


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
