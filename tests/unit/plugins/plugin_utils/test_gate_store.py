# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stores of the attempt gate, with many processes at once."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils import _gate_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate_store import GateError, open_store
from emulated_hsm import fill

KEY, OTHER = "a" * 64, "b" * 64
FORK = multiprocessing.get_context("fork")


def record(**values):
    return {"verdict": "accepted", "kind": "secret", "name": "P1", "host": "h", "time": 1.0, **values}


def nobody_waits(holder):
    raise AssertionError(f"waited for {holder}")


@pytest.fixture
def where(tmp_path):
    """The folder of a store."""
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
        assert list(store.items()) == [(KEY, record(host="höst"))]
        store.write(KEY, record(host="other"))
        assert store.read(KEY)["host"] == "other"
        store.remove(KEY)
        store.remove(KEY)
        assert store.read(KEY) is None
        assert list(store.items()) == []

    def test_are_never_seen_half_written(self, address, store):
        def write(queue, barrier, number):
            mine = open_store(address)
            barrier.wait()
            for _time in range(50):
                mine.write(KEY, record(host=str(number) * 2000))
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
            queue.put(True)

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
        monkeypatch.setattr(_gate_store.RedisStore, "LEASE", 4)

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


def test_the_key_is_made_once(address):
    def ask(queue, barrier, number):
        barrier.wait()
        queue.put(open_store(address).secret())

    secrets = processes(16, ask)
    assert len(set(secrets)) == 1
    assert len(secrets[0]) == _gate_store.SECRET_BYTES


class TestFolder:
    @pytest.fixture
    def address(self, where):
        return where

    def test_is_for_its_owner_only(self, where, store, tmp_path):
        store.write(KEY, record())
        with store.turn(KEY, "h", 1, nobody_waits):
            pass
        assert os.stat(where).st_mode & 0o777 == 0o700
        assert {path.name for path in (tmp_path / "gate").iterdir()} == {"key", KEY + ".json", KEY + ".lock"}
        for path in (tmp_path / "gate").iterdir():
            assert path.stat().st_mode & 0o777 == 0o600

    def test_that_others_may_write_is_refused(self, where):
        os.mkdir(where)
        os.chmod(where, 0o770)  # noqa: S103 # what the store must refuse
        with pytest.raises(GateError, match="can be written by others: make its mode 0700"):
            open_store(where).secret()

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"verdict": "accepted"}', b"\xff"])
    def test_a_damaged_record_says_which_file_it_is(self, where, store, content):
        store.write(OTHER, record())
        with open(f"{where}/{KEY}.json", "wb") as stream:
            stream.write(content)
        with pytest.raises(GateError, match=f"record {where}/{KEY}.json is damaged. Remove the file"):
            store.read(KEY)
        assert [key for key, _record in store.items()] == [OTHER]
        store.remove(KEY)
        assert store.read(KEY) is None

    @pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64])
    def test_a_damaged_key_is_not_replaced(self, where, store, content):
        with open(f"{where}/key", "wb") as stream:
            stream.write(content)
        with pytest.raises(GateError, match="is damaged. Remove the folder"):
            store.secret()

    def test_a_full_disk_is_told_and_keeps_what_was_there(self, full_disk):
        (full_disk / "filler").unlink()
        store = open_store(str(full_disk / "gate"))
        store.secret()
        store.write(KEY, record())
        fill(full_disk)
        with pytest.raises(GateError, match="cannot write its folder .*: No space left on device"):
            store.write(KEY, record(verdict="rejected"))
        assert store.read(KEY) == record()
        assert not list((full_disk / "gate").glob(".new.*"))

    def test_a_place_that_is_no_folder_is_told(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(GateError, match="The attempt gate cannot use its folder"):
            open_store(str(tmp_path / "file")).secret()


class TestRedis:
    @pytest.fixture
    def address(self, redis_url):
        return redis_url

    def test_a_turn_outlasts_its_lease(self, store, redis_url, monkeypatch):
        monkeypatch.setattr(_gate_store.RedisStore, "LEASE", 4)
        with store.turn(KEY, "h1", 1, nobody_waits):
            late = pytest.raises(GateError, match="Waited for more than 6 seconds for h1")
            with late, open_store(redis_url).turn(KEY, "h2", 6, lambda holder: None):
                raise AssertionError("two have the turn")
        with store.turn(KEY, "h2", 1, nobody_waits):
            pass

    def test_a_damaged_record_says_which_it_is(self, store, redis_url):
        import redis

        redis.Redis.from_url(redis_url).set(f"hsmops.primus.gate:record:{KEY}", "{")
        with pytest.raises(GateError, match=f"hsmops.primus.gate:record:{KEY} in Redis at .* is damaged. Delete it"):
            store.read(KEY)
        assert list(store.items()) == []

    def test_that_is_not_there_is_told_without_the_password(self):
        with pytest.raises(GateError, match="The attempt gate cannot use Redis at 127.0.0.1: ") as told:
            open_store("redis://:hidden@127.0.0.1:1").secret()
        assert "hidden" not in str(told.value)


@pytest.mark.parametrize("url", ["redis://:hidden@host:port", "redis://:hidden@[host"])
def test_an_address_that_is_none_is_told_without_the_password(url):
    pytest.importorskip("redis")
    with pytest.raises(GateError, match="has no valid Redis URL") as told:
        open_store(url)
    assert "hidden" not in str(told.value)


@pytest.mark.parametrize("scheme", ["Redis", "redis+sentinel", "valkey", "http"])
def test_an_address_of_another_kind_is_no_folder(scheme, tmp_path, monkeypatch):
    """It would be one of each controller, with the password in its name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GateError, match="neither a folder nor a URL that begins with redis://") as told:
        open_store(f"{scheme}://:hidden@127.0.0.1:1").secret()
    assert "hidden" not in str(told.value) and not list(tmp_path.iterdir())


def test_without_the_library_redis_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(GateError, match="the Python package redis"):
        open_store("redis://127.0.0.1")
