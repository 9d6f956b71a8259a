# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stores of the attempt gate, with many processes at once, processes that are killed, and stores that fail."""

import contextlib
import errno
import json
import math
import multiprocessing
import os
import pwd
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import directory_store, redis_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import store as _gate_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.open_store import open_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.redis_store import RedisStore
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import (
    LAST_TIME,
    LIST_LIMIT,
    MEANING_LIMIT,
    TEXT_LIMIT,
    GateError,
)
from emulated_hsm import fill
from hypothesis import given
from hypothesis import strategies as st

KEY, OTHER = "a" * 64, "b" * 64
FORK = multiprocessing.get_context("fork")


def record(**values):
    return {"verdict": "accepted", "kind": "secret", "name": "P1", "host": "h", "time": 1.0, **values}


def nobody_waits(holder):
    raise AssertionError(f"waited for {holder}")


@pytest.fixture
def where(tmp_path):
    """The directory of a store."""
    return str(tmp_path / "gate")


@pytest.fixture(params=["where", "redis_url"])
def address(request):
    """The address of a store of each kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def store(address):
    store = open_store(address)
    store.secret()
    return store


def processes(count, target, *args):
    """Run target in processes that start together; what they put into the queue."""
    queue, barrier = FORK.Queue(), FORK.Barrier(count)
    started = [FORK.Process(target=target, args=(queue, barrier, number, *args)) for number in range(count)]
    for process in started:
        process.start()
    results = [queue.get(timeout=600) for _process in started]
    for process in started:
        process.join(600)
        assert process.exitcode == 0
    return results


class TestRecords:
    def test_are_read_as_written(self, store):
        assert store.read(KEY) is None
        store.write(KEY, record(host="höst"))
        assert store.read(KEY) == record(host="höst")
        assert store.items() == [(KEY, record(host="höst"))]
        store.write(KEY, record(host="other"))
        assert store.read(KEY)["host"] == "other"
        store.remove(KEY)
        store.remove(KEY)
        assert store.read(KEY) is None
        assert store.items() == store.keys() == []

    def test_of_one_prefix_are_read_without_the_others(self, store, monkeypatch):
        for key in (KEY, "a" * 16 + "c" * 48, OTHER):
            store.write(key, record(host=key[:3]))
        assert [key for key, _record in store.items("a" * 16)] == [KEY, "a" * 16 + "c" * 48]
        assert [key for key, _record in store.items()] == store.keys() == [KEY, "a" * 16 + "c" * 48, OTHER]
        assert store.items("a" * 15 + "b") == store.keys("c") == []

    def test_expire(self, store):
        store.write(KEY, record(), ttl=0.2)
        store.write(OTHER, record(), ttl=3600)
        assert store.read(KEY) == record()
        time.sleep(0.3)
        assert store.read(KEY) is None
        assert store.items() == [(OTHER, record())]
        assert store.keys() == [OTHER]
        store.write(OTHER, record(), ttl=0.2)
        store.write(OTHER, record(host="stays"))
        time.sleep(0.3)
        assert store.read(OTHER) == record(host="stays")

    def test_are_never_seen_half_written(self, address, store):
        def write(queue, barrier, number):
            mine = open_store(address)
            barrier.wait()
            for _time in range(50):
                mine.write(KEY, record(host=str(number) * 1000))
                assert len(set(mine.read(KEY)["host"])) == 1
            queue.put(True)

        assert processes(6, write) == [True] * 6


class TestTurns:
    def test_are_of_one_process_at_a_time(self, address, store, tmp_path):
        def count(queue, barrier, number):
            mine = open_store(address)
            barrier.wait()
            for _time in range(5):
                with mine.turn(KEY, f"host{number}", 60, lambda holder: None):
                    seen = int(counter.read_text())
                    time.sleep(0.001)
                    counter.write_text(str(seen + 1))
            queue.put(len(mine.keys()))

        counter = tmp_path / "counter"
        counter.write_text("0")
        processes(12, count)
        assert counter.read_text() == "60"

    def test_of_other_keys_do_not_wait(self, store):
        with store.turn(KEY, "h1", 1, nobody_waits), store.turn(OTHER, "h1", 1, nobody_waits):
            pass

    def test_who_waits_is_told_for_whom_and_gives_up(self, address, store):
        waited = []
        with store.turn(KEY, "host7", 1, nobody_waits):
            late = pytest.raises(GateError, match="Waited for more than 0 seconds for host7")
            with late, open_store(address).turn(KEY, "host8", 0, waited.append):
                raise AssertionError("two have the turn")
        assert waited == ["host7"]
        with store.turn(KEY, "host8", 1, nobody_waits):
            pass

    def test_end_with_a_killed_process(self, address, store, monkeypatch):
        monkeypatch.setattr(redis_store.RedisStore, "LEASE", 4)

        def hold(queue):
            with open_store(address).turn(KEY, "victim", 1, nobody_waits):
                queue.put(True)
                time.sleep(600)

        queue = FORK.Queue()
        holder = FORK.Process(target=hold, args=(queue,))
        holder.start()
        queue.get(timeout=30)
        waited = []
        with contextlib.suppress(GateError), store.turn(KEY, "h", 0, waited.append):
            raise AssertionError("two have the turn")
        os.kill(holder.pid, signal.SIGKILL)
        holder.join(30)
        with store.turn(KEY, "h", 60, waited.append):
            assert waited[0] == "victim"

    def test_end_with_an_exception(self, store):
        with pytest.raises(ValueError), store.turn(KEY, "h", 1, nobody_waits):
            raise ValueError
        with store.turn(KEY, "h", 1, nobody_waits):
            pass


BAD_FIELDS = [
    *({"verdict": value} for value in (None, 1, "x" * 41, ["accepted"], {})),
    *({"name": value} for value in (None, 7, "n" * (TEXT_LIMIT + 1))),
    *({"host": value} for value in (["h"], "h" * 5_000_000)),
    *({"time": value} for value in ("now", None, True, -1, math.nan, math.inf, LAST_TIME + 1, 10**400)),
    *({"code": value} for value in (5, ["0x80005017"], "0x800050170")),
    *({"meaning": value} for value in (0, {}, "m" * (MEANING_LIMIT + 1))),
    {"class": []},
    *({"first_used": value} for value in ("", False, -0.5)),
    *({"unclear": value} for value in (None, "1", {}, ["1"], [None], [1.0, True], [1.0] * (LIST_LIMIT + 1))),
    {"expires": 1.0},
    {"other": None},
    {1: 2},
]


class TestWhatARecordIs:
    @pytest.mark.parametrize("fields", BAD_FIELDS, ids=lambda fields: str(fields)[:40])
    def test_what_read_would_refuse_is_not_written(self, store, fields):
        store.write(KEY, record())
        with pytest.raises(ValueError) as refused:
            store.write(KEY, record(**{}) | fields)
        assert len(str(refused.value)) < 100
        assert store.read(KEY) == record()

    @pytest.mark.parametrize("field", ["verdict", "kind", "name", "host", "time"])
    def test_what_lacks_a_field_is_not_written(self, store, field):
        incomplete = record()
        del incomplete[field]
        with pytest.raises(ValueError):
            store.write(KEY, incomplete)
        assert store.keys() == []

    @pytest.mark.parametrize(
        "content",
        [
            *(b"", b"{", b"[]", b"null", b'"text"', b'{"verdict": "accepted"}', b"\xff", b"[" * 60_000),
            json.dumps(record()).encode() + b" " * _gate_store.SIZE_LIMIT,
            *(json.dumps(record(expires=expires)).encode() for expires in ("", -1, math.nan, [])),
            *(json.dumps(record() | fields).encode() for fields in BAD_FIELDS if "expires" not in fields),
        ],
        ids=lambda content: content[:40],
    )
    def test_what_is_none_is_damaged(self, content):
        with pytest.raises(ValueError):
            _gate_store.decode_record(content)

    def test_the_largest_one_is_small_enough(self):
        largest = {
            **dict.fromkeys(("name", "host"), "\U0001f511" * TEXT_LIMIT),
            **dict.fromkeys(("verdict", "kind", "class"), "\x1b" * 40),
            "meaning": "\U0001f511" * MEANING_LIMIT,
            "code": "\x00" * 10,
            "time": 2.2250738585072014e-308,
            "first_used": 1.7976931348623157,
            "wrong": [2.2250738585072014e-308] * LIST_LIMIT,
        }
        assert _gate_store.decode_record(_gate_store.encode_record(largest, 1.5)) == (largest, 1.5)

    VALUES = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(1e9),
        lambda values: st.lists(values) | st.dictionaries(st.text(), values),
        max_leaves=5,
    )

    @given(st.dictionaries(st.sampled_from(sorted(_gate_store.FIELDS)) | st.text(), VALUES))
    def test_all_that_is_written_can_be_read(self, fields):
        given = record() | fields
        try:
            content = _gate_store.encode_record(given)
        except ValueError:
            return
        assert _gate_store.decode_record(content) == (given, None)

    @given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
    def test_anything_else_is_damaged(self, content):
        with contextlib.suppress(ValueError):
            _gate_store.validate_record(_gate_store.decode_record(content)[0])


def lose_key(address):
    if "://" in address:
        client(address).delete("hsmops.primus.gate:key")
    else:
        os.unlink(f"{address}/key")


def client(address):
    import redis

    return redis.Redis.from_url(address)


class TestTheKey:
    def test_is_made_once(self, address):
        def ask(queue, barrier, number):
            barrier.wait()
            store = open_store(address)
            queue.put(store.secret())
            store.write(f"{number:064}", record())  # others may still be about to ask

        secrets = processes(16, ask)
        assert len(set(secrets)) == 1
        assert len(secrets[0]) == _gate_store.SECRET_BYTES

    def test_that_is_lost_is_not_replaced_while_there_are_records(self, address, store):
        store.write(KEY, record(verdict="rejected"))
        lose_key(address)
        for _time in range(2):
            with pytest.raises(
                GateError, match="is missing, but the records .* Restore the key .*or clear all entries"
            ):
                store.secret()
        assert [key for key, _record in store.items()] == [KEY], "they can be shown and cleared"
        store.remove(KEY)
        assert len(store.secret()) == _gate_store.SECRET_BYTES

    def test_that_is_lost_is_missed_by_a_damaged_record_too(self, address, store):
        damage(address, KEY, b"{")
        lose_key(address)
        with pytest.raises(GateError, match="is missing, but the records"):
            store.secret()
        assert store.items() == [] and store.keys() == [KEY]

    def test_that_is_lost_is_replaced_when_nothing_is_forgotten(self, address, store):
        lose_key(address)
        assert len(store.secret()) == _gate_store.SECRET_BYTES

    def test_that_goes_again_at_once(self, store, monkeypatch):
        monkeypatch.setattr(store, "_read_secret", lambda: None)
        with pytest.raises(GateError, match="is gone again"):
            store.secret()

    @pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"x" * 100_000])
    def test_that_is_damaged_is_not_replaced(self, address, store, content):
        if "://" in address:
            client(address).set("hsmops.primus.gate:key", content)
        else:
            Path(address, "key").write_bytes(content)
        with pytest.raises(
            GateError, match="is damaged. Restore it from a backup, or (remove the dir|delete all keys)"
        ):
            store.secret()


def damage(address, key, content):
    if "://" in address:
        client(address).set(f"hsmops.primus.gate:record:{key}", content)
    else:
        Path(address, f"{key}.json").write_bytes(content)


class TestTheClock:
    def test_is_the_same_for_processes_whose_clocks_differ(self, address, store, monkeypatch):
        def ask(queue, barrier, number):
            monkeypatch.setattr(time, "time", lambda real=time.time: real() + 100_000 * number)
            barrier.wait()
            queue.put(open_store(address).now())

        moments = processes(4, ask)
        assert max(moments) - min(moments) < 100

    def test_is_that_of_the_store(self, store, monkeypatch):
        monkeypatch.setattr(store, "_clocks", {})
        monkeypatch.setattr(store, "_server_time", lambda: 5000.0)
        assert 5000 <= store.now() < 5100
        monkeypatch.setattr(store, "_server_time", lambda: 7000.0)
        assert 5000 <= store.now() < 5100, "it is not asked each time"
        monkeypatch.setattr(_gate_store, "CLOCK_MAX_AGE", -1)
        assert 7000 <= store.now() < 7100


def life(store):
    """Everything that is done with a store, as one host does it."""
    store.secret()
    with store.turn(KEY, "h", 10, lambda holder: None):
        store.read(KEY)
        store.write(KEY, record(host="new"), ttl=3600)
        store.items("a" * 16)
    store.write(OTHER, record(host="new"))
    store.remove("c" * 64)


class Faults:
    """Have a process die, or calls fail, at the n-th call of those that touch the store."""

    OS = "fstat ftruncate fchmod fsync link listdir open pread pwrite rename stat unlink utime"

    def __init__(self, monkeypatch, step, fault, lasting=False):
        self.monkeypatch, self.step, self.fault, self.lasting = monkeypatch, step, fault, lasting
        self.calls = 0

    def count(self):
        self.calls += 1
        if self.calls == self.step or (self.lasting and self.calls > self.step):
            self.fault()

    def wrapped(self, call):
        def counted(*args, **kwargs):
            self.count()
            return call(*args, **kwargs)

        return counted

    def into(self, address):
        if "://" in address:
            from redis.connection import AbstractConnection

            for name in ("send_packed_command", "read_response"):
                self.monkeypatch.setattr(AbstractConnection, name, self.wrapped(getattr(AbstractConnection, name)))
            return
        for module, names in ((os, self.OS), (directory_store.fcntl, "flock")):
            wrapped = {name: self.wrapped(getattr(module, name)) for name in names.split()}
            self.monkeypatch.setattr(directory_store, module.__name__, Proxy(module, wrapped))


class Proxy:
    def __init__(self, module, instead):
        self._module = module
        self.__dict__.update(instead)

    def __getattr__(self, name):
        return getattr(self._module, name)


@pytest.fixture
def short_leases(monkeypatch):
    monkeypatch.setattr(RedisStore, "LEASE", 0.5)
    monkeypatch.setattr(_gate_store, "POLL_INTERVAL", 0.02)


def fresh(address, used):
    """An empty store, or one with two records."""
    if "://" in address:
        client(address).flushall()
    else:
        shutil.rmtree(address, ignore_errors=True)
    _gate_store.Store._clocks.clear()
    redis_store._Server._of_process.clear()
    store = open_store(address)
    if used:
        store.secret()
        for key in (KEY, OTHER, "c" * 64):
            store.write(key, record(host="old"))
    _gate_store.Store._clocks.clear()
    redis_store._Server._of_process.clear()
    return store


def assert_whole(address, used):
    """No lock, no half record, and the next one goes on."""
    store = open_store(address)
    store.secret()
    hosts = {"old", "new"} if used else {None, "new"}
    for key in (KEY, OTHER):
        assert (store.read(key) or {"host": None})["host"] in hosts
    with store.turn(KEY, "next", 5 if "://" in address else 0, lambda holder: None):
        pass
    life(store)
    assert [key for key, found in store.items() if found == record(host="new")] == [KEY, OTHER]
    if "://" not in address:
        assert not list(Path(address).glob("*.lock"))


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
class TestAtEachStep:
    def test_a_process_is_killed(self, address, used, monkeypatch, short_leases):
        def run(step):
            faults = Faults(monkeypatch, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
            faults.into(address)
            life(open_store(address))

        for step in range(1, 500):
            fresh(address, used)
            process = FORK.Process(target=run, args=(step,))
            process.start()
            process.join(60)
            assert_whole(address, used)
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
        assert step > 20

    @pytest.mark.parametrize("lasting", [False, True], ids=["once", "from-then-on"])
    @pytest.mark.parametrize(
        "address, failure",
        [
            ("where", errno.ENOSPC),
            ("where", errno.EIO),
            ("where", errno.EROFS),
            ("redis_url", "ConnectionError"),
            ("redis_url", "TimeoutError"),
        ],
        indirect=["address"],
    )
    def test_the_store_fails(self, address, used, lasting, failure, monkeypatch, short_leases):
        def fail():
            if isinstance(failure, str):
                import redis

                raise getattr(redis, failure)
            raise OSError(failure, os.strerror(failure))

        monkeypatch.setattr("time.sleep", lambda seconds, real=time.sleep: real(min(seconds, 0.02)))
        for step in range(1, 500):
            fresh(address, used)
            with monkeypatch.context() as patched:
                faults = Faults(patched, step, fail, lasting)
                faults.into(address)
                with contextlib.suppress(GateError):
                    life(open_store(address))
            assert_whole(address, used)
            if faults.calls < step:
                break
        assert step > 20


class TestDirectory:
    @pytest.fixture
    def address(self, where):
        return where

    def test_is_for_its_owner_only(self, where, store, usual_umask):
        store.write(KEY, record())
        with store.turn(KEY, "h", 1, nobody_waits):
            assert {path.name for path in Path(where).iterdir()} == {"key", KEY + ".json", KEY + ".lock"}
            for path in Path(where).iterdir():
                assert path.stat().st_mode & 0o7777 == 0o600
        assert os.stat(where).st_mode & 0o777 == 0o700
        assert {path.name for path in Path(where).iterdir()} == {"key", KEY + ".json"}

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"verdict": "accepted"}', b"\xff"])
    def test_a_damaged_record_says_which_file_it_is(self, where, store, content):
        store.write(OTHER, record())
        damage(where, KEY, content)
        with pytest.raises(GateError, match=f"record {where}/{KEY}.json is damaged. Remove the file"):
            store.read(KEY)
        assert [key for key, _record in store.items()] == [OTHER]
        store.remove(KEY)
        assert store.read(KEY) is None

    def test_a_full_disk_is_told_and_keeps_what_was_there(self, full_disk):
        (full_disk / "filler").unlink()
        store = open_store(str(full_disk / "gate"))
        store.secret()
        store.write(KEY, record())
        fill(full_disk)
        with pytest.raises(GateError, match="cannot write its directory .*: No space left on device"):
            store.write(KEY, record(verdict="rejected"))
        assert store.read(KEY) == record()
        assert store.now() > 1e9
        assert not list((full_disk / "gate").glob(".new.*"))

    def test_a_place_that_is_no_directory_is_told(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(GateError, match="The attempt gate cannot use its directory"):
            open_store(str(tmp_path / "file")).secret()

    def test_that_is_not_there_holds_nothing(self, where):
        store = open_store(where)
        assert store.items() == store.keys() == [] and store.read(KEY) is None
        store.remove(KEY)
        assert not os.path.exists(where)

    def test_few_records_of_others_are_read(self, store, monkeypatch):
        for number in range(100):
            store.write(f"{number:064}", record())
        store.write(KEY, record())
        read = []
        content = store._read_file
        monkeypatch.setattr(store, "_read_file", lambda directory, name: read.append(name) or content(directory, name))
        assert len(store.items("a" * 16)) == 1
        assert len(read) == 1 + store.SWEEP_COUNT

    def test_what_has_expired_is_removed_in_the_end(self, where, store):
        """Also of names that nobody asks for any more."""
        for number in range(60):
            store.write(f"{number:064}", record(), ttl=0.01)
        store.write(OTHER, record())
        time.sleep(0.1)
        for _time in range(5):
            assert store.items("a" * 16) == []
        assert set(os.listdir(where)) == {"key", OTHER + ".json"}

    def test_what_is_replaced_while_it_expires_stays(self, where, store, monkeypatch):
        store.write(KEY, record(), ttl=0.01)
        time.sleep(0.1)
        parsed, writer = store._decoded, open_store(where)

        def replace(*args):
            monkeypatch.undo()
            result = parsed(*args)
            writer.write(KEY, record(host="newer"))
            return result

        monkeypatch.setattr(store, "_decoded", replace)
        store.read(KEY)
        assert store.read(KEY) == record(host="newer")

    def test_what_a_killed_process_left_is_removed_after_an_hour(self, where, store):
        for name, age in ((".new.0123456789abcdef", 4000), (".new.fedcba9876543210", 10)):
            Path(where, name).touch()
            os.utime(f"{where}/{name}", (time.time() - age, time.time() - age))
        store.items("a" * 16)
        assert set(os.listdir(where)) == {"key", ".new.fedcba9876543210"}

    def test_no_lock_file_stays(self, where, store):
        def take(queue, barrier, number):
            mine = open_store(where)
            barrier.wait()
            for _time in range(20):
                with mine.turn(KEY, "h", 60, lambda holder: None) as turn:
                    assert not turn.lost
            queue.put(True)

        processes(6, take)
        assert os.listdir(where) == ["key"]

    def test_a_lock_file_that_somebody_removes_is_noticed(self, where, store):
        with store.turn(KEY, "h1", 1, nobody_waits) as turn:
            assert not turn.lost
            os.unlink(f"{where}/{KEY}.lock")
            assert turn.lost
            with store.turn(KEY, "h2", 1, nobody_waits) as other:
                assert not other.lost
        assert turn.lost and not other.lost

    def test_a_lock_on_a_file_that_was_removed_is_none(self, store, monkeypatch):
        """The one before ends its turn between the waiter's open and its lock."""
        before = contextlib.ExitStack()
        before.enter_context(store.turn(KEY, "h1", 1, nobody_waits))
        lock = directory_store._FileTurn._lock

        def lock_late(handle):
            before.close()
            return lock(handle)

        monkeypatch.setattr(directory_store._FileTurn, "_lock", staticmethod(lock_late))
        with store.turn(KEY, "h2", 1, nobody_waits) as turn:
            assert not turn.lost
            with pytest.raises(GateError, match="for h2"), store.turn(KEY, "h3", 0, lambda holder: None):
                raise AssertionError("two have the turn")

    def test_the_lock_of_a_later_one_is_not_removed(self, where, store):
        with contextlib.ExitStack() as later:
            with store.turn(KEY, "h1", 1, nobody_waits):
                os.unlink(f"{where}/{KEY}.lock")
                later.enter_context(store.turn(KEY, "h2", 1, nobody_waits))
            with pytest.raises(GateError, match="for h2"), store.turn(KEY, "h3", 0, lambda holder: None):
                raise AssertionError("two have the turn")


class TestTheDefaultDirectory:
    @pytest.fixture(autouse=True)
    def homeless(self, tmp_path, monkeypatch):
        def unknown(_name):
            raise KeyError

        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("HOME")
        monkeypatch.delenv("ANSIBLE_HOME", raising=False)
        monkeypatch.setattr(pwd, "getpwuid", unknown)
        monkeypatch.setattr(pwd, "getpwnam", unknown)

    @pytest.mark.parametrize("where", [None, "", "~", "~/gate", "~nobody/gate"])
    def test_without_a_home_is_an_error(self, where, tmp_path):
        with pytest.raises(GateError, match="home directory.*gate_store, or set ANSIBLE_HOME"):
            open_store(where)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "where, home, path",
        [
            (None, "/srv/ansible", "/srv/ansible/hsmops-primus-gate"),
            ("/srv/gate", None, "/srv/gate"),
            ("gate~", None, "gate~"),
        ],
    )
    def test_with_a_name_is_where_it_says(self, where, home, path, monkeypatch, tmp_path):
        if home:
            monkeypatch.setenv("ANSIBLE_HOME", home)
        assert open_store(where).path == os.path.join(tmp_path, path)


@pytest.fixture
def as_root():
    if os.geteuid():
        pytest.skip("needs root")


GROUP = 40000


def share(where, owner=0):
    """Make a directory one that a group shares, as the guide says."""
    os.chown(where, owner, GROUP)
    os.chmod(where, 0o2770)  # noqa: S103 # what the guide says


class TestWhoMayWrite:
    @pytest.fixture
    def address(self, where):
        return where

    @pytest.fixture
    def public(self, as_root):
        """A place that all users can get to."""
        place = tempfile.mkdtemp()
        os.chmod(place, 0o755)  # noqa: S103 # other users are to get there
        yield Path(place)
        shutil.rmtree(place)

    def as_user(self, uid, group, call):
        """What call returns as another user, or the text of its GateError."""

        def run(queue, barrier, number):
            os.setgroups([group] if group else [])
            os.setgid(uid)
            os.setuid(uid)
            os.umask(0o077)
            try:
                queue.put(call())
            except GateError as exc:
                queue.put(str(exc))

        return processes(1, run)[0]

    @pytest.mark.parametrize(
        "mode, message",
        [
            (0o700, None),
            (0o2700, None),
            (0o755, None),
            (0o2770, None),
            (0o770, "can be written by its group .mode 0770.. Make its mode 0700, or, for a group .* the mode 2770"),
            (0o720, "can be written by its group"),
            (0o3770, "can be written by its group"),
            (0o2775, "can be written by its group"),
            (0o2771, "can be written by its group"),
            (0o777, "can be written by everybody"),
            (0o1777, "can be written by everybody"),
            (0o2772, "can be written by everybody"),
            (0o702, "can be written by everybody"),
        ],
        ids=lambda value: oct(value) if isinstance(value, int) else None,
    )
    def test_modes_of_the_directory(self, where, mode, message):
        os.mkdir(where)
        os.chmod(where, mode)
        store = open_store(where)
        if message is None:
            store.secret()
            store.write(KEY, record())
            assert store.read(KEY) == record()
            return
        with pytest.raises(GateError, match=message):
            store.secret()
        for refused in (store.items, store.now, store.keys, lambda: store.write(KEY, record())):
            with pytest.raises(GateError, match=message):
                refused()
        assert not os.listdir(where)

    def test_a_group_of_operators_shares_a_directory(self, public):
        where = public / "gate"
        where.mkdir()
        share(where)

        def use(host):
            store = open_store(str(where))
            before = [found["host"] for _key, found in store.items()]
            store.secret()
            with store.turn(KEY, host, 5, nobody_waits):
                store.write(KEY, record(host=host))
            store.write(OTHER, record(host=host), ttl=0.01)
            return before

        assert self.as_user(30001, GROUP, lambda: use("one")) == []
        time.sleep(0.1)
        assert self.as_user(30002, GROUP, lambda: use("two")) == ["one"]
        assert [found["host"] for _key, found in open_store(str(where)).items()][:1] == ["two"], "root may, too"
        for path in where.iterdir():
            status = path.stat()
            assert (status.st_mode & 0o7777, status.st_gid) == (0o660, GROUP)
        assert "Permission denied" in self.as_user(30003, None, lambda: use("three"))

    def test_turns_of_operators_do_not_meet(self, public):
        where = public / "gate"
        where.mkdir()
        share(where)

        def count(queue, barrier, number):
            os.setgroups([GROUP])
            os.setgid(30000 + number)
            os.setuid(30000 + number)
            os.umask(0o077)
            store = open_store(str(where))
            store.secret()
            barrier.wait()
            for _time in range(5):
                with store.turn(KEY, "h", 60, lambda holder: None):
                    found = store.read(KEY) or record(time=0)
                    store.write(KEY, record(time=found["time"] + 1))
            queue.put(True)

        processes(6, count)
        assert open_store(str(where)).read(KEY)["time"] == 30

    def test_a_directory_of_another_user_is_refused(self, where, store, as_root):
        os.chown(where, 12345, 0)
        for refused in (store.secret, store.items, lambda: store.read(KEY)):
            with pytest.raises(GateError, match="belongs to the user with the id 12345, and not to root"):
                refused()

    def test_a_directory_of_another_user_is_refused_when_it_is_shared(self, where, store, as_root):
        share(where, 12345)
        with pytest.raises(GateError, match="belongs to the user with the id 12345"):
            store.secret()

    @pytest.mark.parametrize("shared", [False, True])
    @pytest.mark.parametrize("name", ["key", KEY + ".json", KEY + ".lock"])
    def test_a_file_of_another_user_is_refused(self, where, store, name, shared, as_root):
        store.write(KEY, record())
        path = Path(where, name)
        path.touch()
        os.chown(path, 12345, 12345)
        if shared:
            share(where)
        self.assert_refused(store, name, f"{path} is not a file of the attempt gate")

    @pytest.mark.parametrize("name", ["key", KEY + ".json", KEY + ".lock"])
    @pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "directory"])
    def test_what_is_no_file_is_refused(self, where, store, name, kind, tmp_path):
        store.write(KEY, record())
        path, victim = Path(where, name), tmp_path / "victim"
        path.unlink(missing_ok=True)
        if kind == "link":
            victim.write_text("content")
            path.symlink_to(victim)
        elif kind == "dangling":
            path.symlink_to(victim)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
        message = "is a symbolic link|is not a file of the attempt gate|Is a directory"
        self.assert_refused(store, name, message)
        assert not victim.exists() if kind != "link" else victim.read_text() == "content"

    def assert_refused(self, store, name, message):
        def take():
            with store.turn(KEY, "h", 0, nobody_waits):
                raise AssertionError("locked")

        uses = {
            "key": [store.secret, lambda: store.write(OTHER, record())],
            KEY + ".json": [lambda: store.read(KEY)],
            KEY + ".lock": [take],
        }
        for use in uses[name]:
            with pytest.raises(GateError, match=message):
                use()
        assert not list(Path(store.path).glob(".new.*"))

    @pytest.mark.parametrize("dangling", [False, True])
    def test_a_directory_that_is_a_link_is_refused(self, where, tmp_path, dangling):
        target = tmp_path / "target"
        if not dangling:
            target.mkdir(0o700)
        os.symlink(target, where)
        store = open_store(where)
        for refused in (store.secret, store.now, store.items, lambda: store.write(KEY, record())):
            with pytest.raises(GateError, match="is a symbolic link. Name the directory itself in gate_store"):
                refused()
        assert not target.exists() or not os.listdir(target)


class TestRedis:
    @pytest.fixture
    def address(self, redis_url):
        return redis_url

    def test_a_turn_outlasts_its_lease(self, store, redis_url, monkeypatch):
        monkeypatch.setattr(RedisStore, "LEASE", 4)
        with store.turn(KEY, "h1", 1, nobody_waits) as turn:
            late = pytest.raises(GateError, match="Waited for more than 6 seconds for h1")
            with late, open_store(redis_url).turn(KEY, "h2", 6, lambda holder: None):
                raise AssertionError("two have the turn")
            assert not turn.lost
        assert not turn.lost
        with store.turn(KEY, "h2", 1, nobody_waits):
            pass

    @pytest.mark.parametrize("content", [b"{", b"\xff", b"[]"])
    def test_a_damaged_record_says_which_it_is(self, store, redis_url, content):
        damage(redis_url, KEY, content)
        with pytest.raises(GateError, match=f"hsmops.primus.gate:record:{KEY} in Redis at .* is damaged. Delete it"):
            store.read(KEY)
        assert store.items() == []

    def test_that_is_not_there_is_told_without_the_password(self):
        with pytest.raises(GateError, match="The attempt gate cannot use Redis at 127.0.0.1: ") as error:
            open_store("redis://:hidden@127.0.0.1:1").secret()
        assert "hidden" not in str(error.value)

    def test_only_the_records_of_one_prefix_are_read(self, store, monkeypatch):
        asked = []
        mget = store._server.redis.mget
        for key in (KEY, OTHER, "c" * 64):
            store.write(key, record())
        monkeypatch.setattr(store._server.redis, "mget", lambda names: asked.extend(names) or mget(names))
        store.items("a" * 16)
        assert asked == [f"hsmops.primus.gate:record:{KEY}"]

    def test_many_records(self, store, monkeypatch):
        monkeypatch.setattr(store, "BATCH", 7)
        for number in range(50):
            store.write(f"{number:064}", record(host=str(number)))
        assert [found["host"] for _key, found in store.items()] == [str(number) for number in range(50)]

    @pytest.mark.parametrize(
        "option", ["decode_responses=true", "encoding=utf-16", "protocol=2", "protocol=3", "socket_timeout=5"]
    )
    def test_options_of_the_address(self, redis_url, option):
        fresh(redis_url, used=True)
        life(open_store(f"{redis_url}?{option}"))
        assert_whole(f"{redis_url}?{option}", used=True)
        assert_whole(redis_url, used=True)

    def test_an_unknown_option_is_told(self, redis_url):
        with pytest.raises(GateError, match="has no valid Redis URL"):
            open_store(f"{redis_url}?hidden=1").secret()

    def test_hundred_turns_take_one_thread_and_two_connections(self, store, redis_url, monkeypatch):
        monkeypatch.setattr(RedisStore, "LEASE", 2)
        threads = threading.active_count()
        with contextlib.ExitStack() as stack:
            turns = [
                stack.enter_context(
                    open_store(f"{redis_url}?client_name=us").turn(f"{number:064}", "h", 1, nobody_waits)
                )
                for number in range(100)
            ]
            assert threading.active_count() == threads + 1
            time.sleep(4)  # twice as long as they would last
            assert not any(turn.lost for turn in turns)
            other = client(redis_url)
            assert len(list(other.scan_iter(match="hsmops.primus.gate:turn:*"))) == 100
            assert len([entry for entry in other.client_list() if entry["name"] == "us"]) in (1, 2)
        assert not any(turn.lost for turn in turns)
        wait_until(lambda: threading.active_count() == threads)

    @pytest.mark.parametrize("how", ["deleted", "taken"])
    def test_a_lost_lease_is_noticed(self, store, redis_url, how, monkeypatch):
        monkeypatch.setattr(RedisStore, "LEASE", 1.5)
        name = f"hsmops.primus.gate:turn:{KEY}"
        with store.turn(KEY, "h1", 1, nobody_waits) as turn:
            assert not turn.lost
            client(redis_url).delete(name) if how == "deleted" else client(redis_url).set(name, "token h2")
            wait_until(lambda: turn.lost)
        assert turn.lost
        assert client(redis_url).get(name) == (None if how == "deleted" else b"token h2")

    def test_a_lease_that_was_lost_is_noticed_at_the_end(self, store, redis_url):
        with store.turn(KEY, "h1", 1, nobody_waits) as turn:
            client(redis_url).delete(f"hsmops.primus.gate:turn:{KEY}")
        assert turn.lost

    def test_a_lease_that_cannot_be_renewed_is_lost(self, store, redis_user, monkeypatch):
        monkeypatch.setattr(RedisStore, "LEASE", 1)
        url, permit = redis_user
        with open_store(url).turn(KEY, "h1", 1, nobody_waits) as turn:
            permit("-eval")
            wait_until(lambda: turn.lost)
        assert turn.lost

    def test_a_lease_that_is_renewed_late_is_not_lost(self, store, redis_user, monkeypatch):
        monkeypatch.setattr(RedisStore, "LEASE", 3)
        url, permit = redis_user
        with open_store(url).turn(KEY, "h1", 1, nobody_waits) as turn:
            permit("-eval")
            time.sleep(1.3)
            permit("+eval")
            time.sleep(2.5)
            assert not turn.lost
        assert not turn.lost

    def test_an_answer_that_is_lost_does_not_have_it_wait_for_itself(self, store, monkeypatch):
        """The client asks again when the connection breaks; the first time may have worked."""
        redis = store._server.redis
        real = redis.set

        def twice(name, *args, **kwargs):
            real(name, *args, **kwargs)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(redis, "set", twice)
        with store.turn(KEY, "h1", 1, nobody_waits) as turn:
            assert not turn.lost
        assert not turn.lost

    COMMANDS = ("set", "get", "mget", "del", "scan", "time", "eval", "pexpire")

    @pytest.fixture
    def redis_user(self, redis_url):
        """A user who may do what the guide says: the address, and a function to change what he may."""
        admin = client(redis_url)

        def permit(*rules):
            admin.execute_command("ACL", "SETUSER", "gate", *rules)

        commands = [f"+{command}" for command in self.COMMANDS]
        permit("reset", "on", ">hidden", "~hsmops.primus.gate:*", *commands)
        redis_store._Server._of_process.clear()
        yield redis_url.replace("unix://", "unix://gate:hidden@"), permit
        admin.execute_command("ACL", "DELUSER", "gate")

    def test_the_rights_of_the_guide_are_enough(self, redis_user, redis_url, monkeypatch):
        monkeypatch.setattr(RedisStore, "LEASE", 1)
        fresh(redis_url, used=True)
        store = open_store(redis_user[0])
        life(store)
        with store.turn(KEY, "h1", 1, nobody_waits) as turn:
            time.sleep(2)
            assert not turn.lost
        assert store.now() > 1e9 and len(store.items()) == 2

    @pytest.mark.parametrize("command", COMMANDS)
    def test_a_command_that_is_denied_is_named(self, redis_user, redis_url, command):
        url, permit = redis_user
        permit(f"-{command}")
        named = "EVAL" if command == "pexpire" else command.upper()
        if command in ("get", "del"):
            named = f"({named}|EVAL)"
        for _time in range(2):
            with pytest.raises(GateError, match=f"does not let the attempt gate use the command {named}: ") as error:
                open_store(url).secret()
        assert "hidden" not in str(error.value)
        assert not list(client(redis_url).scan_iter(match="hsmops.primus.gate:[kr]*"))
        permit(f"+{command}")
        open_store(url).secret()

    def test_one_that_takes_no_writes_says_so(self, store, redis_url):
        admin = client(redis_url)
        admin.config_set("min-replicas-to-write", 1)
        try:
            with pytest.raises(GateError, match="cannot use Redis at .*: .*NOREPLICAS|replicas"):
                store.write(KEY, record())
            with pytest.raises(GateError), store.turn(KEY, "h", 0, nobody_waits):
                raise AssertionError("has the turn")
            redis_store._Server._of_process.clear()
            with pytest.raises(GateError, match="use the command SET: "):
                open_store(redis_url).secret()
        finally:
            admin.config_set("min-replicas-to-write", 0)
        with open_store(redis_url).turn(KEY, "h", 0, nobody_waits):
            open_store(redis_url).write(KEY, record())

    def test_a_fork_has_connections_of_its_own(self, store, redis_url):
        def use(queue, barrier, number):
            barrier.wait()
            mine = open_store(redis_url)
            for _time in range(50):
                mine.write(f"{number:064}", record(host=str(number)))
                assert mine.read(f"{number:064}")["host"] == str(number)
            queue.put(True)

        with store.turn(KEY, "h1", 1, nobody_waits) as turn:
            processes(4, use)
        assert not turn.lost


def wait_until(reached):
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("url", ["redis://:hidden@host:port", "redis://:hidden@[host"])
def test_an_address_that_is_none_is_told_without_the_password(url):
    pytest.importorskip("redis")
    with pytest.raises(GateError, match="has no valid Redis URL") as error:
        open_store(url)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("scheme", ["Redis", "redis+sentinel", "valkey", "http"])
def test_an_address_of_another_kind_is_no_directory(scheme, tmp_path, monkeypatch):
    """It would be one of each controller, with the password in its name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GateError, match="neither a directory nor a URL that begins with redis://") as error:
        open_store(f"{scheme}://:hidden@127.0.0.1:1").secret()
    assert "hidden" not in str(error.value) and not list(tmp_path.iterdir())


def test_without_the_library_redis_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(GateError, match="the Python package redis"):
        open_store("redis://127.0.0.1")
