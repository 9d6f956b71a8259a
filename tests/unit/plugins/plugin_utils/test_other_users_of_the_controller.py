# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other users of the control node try to read, change or take away what root's runs have there.

Each attack is made in a process of that user.
"""

import fcntl
import hashlib
import hmac
import json
import os
import stat
import tempfile
from pathlib import Path

import pytest
from ansible_collections.hsmops.primus.plugins.action import fleet_report
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import UntrustedFile
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.open_store import open_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError
from find_secrets import all_forms
from other_users import ALICE, EVE, GROUP, as_user, somebody, swap

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

OUTSIDE = 54399  # a group that is not the one that shares something
SECRET = b"what only root may read"
PASSWORD = "summer-2026"
KEY = "a" * 64
RECORD = {"verdict": "rejected", "kind": "secret", "name": "P1", "host": "h", "time": 1.0}


@pytest.fixture
def place():
    """A directory that everybody can reach; in it a file for root only."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 # that is the point
        (Path(folder) / "root-only").write_bytes(SECRET)
        (Path(folder) / "root-only").chmod(0o600)
        yield Path(folder)


@pytest.fixture
def untouched(place):
    def is_untouched():
        status = (place / "root-only").stat()
        facts = status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
        return (place / "root-only").read_bytes() == SECRET and facts == (0, 0, 0o600)

    return is_untouched


def directory(path, mode, owner=0, group=GROUP):
    path.mkdir()
    os.chown(path, owner, group)
    path.chmod(mode)
    return path


# The attempt gate, where it is for one user


@pytest.fixture
def default(place, monkeypatch):
    """The store of root's where it is by default, used before; its directory."""
    monkeypatch.setenv("ANSIBLE_HOME", str(place / "ansible"))
    store = open_store(None)
    store.secret()
    store.write(KEY, RECORD)
    assert Path(store.path) == place / "ansible/hsmops-primus-gate"
    return store


def test_the_default_store_is_closed(default, place):
    """Also where all above it is open to everybody."""
    (place / "ansible").chmod(0o755)
    path = Path(default.path)
    with default.turn(KEY, "h", 0, print):
        files = [path / "key", path / f"{KEY}.json", path / f"{KEY}.lock"]
        assert sorted(path.iterdir()) == sorted(files)
        attacks = [lambda: os.listdir(path), (path / "planted").touch, lambda: swap(path, place)]
        for file in files:
            attacks += [
                lambda file=file: file.read_bytes(),
                lambda file=file: file.write_bytes(b""),
                lambda file=file: file.unlink(),
                lambda file=file: fcntl.flock(os.open(file, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB),
                lambda file=file: os.link(file, place / "mine"),
            ]
        for attack in attacks:
            assert not as_user(attack)
    assert default.read(KEY) == RECORD


@pytest.mark.parametrize("plant", ["directory", "link", "dangling"])
@pytest.mark.parametrize("above", [False, True], ids=["its place", "above it"])
def test_what_is_planted_before_the_store_is_made(place, untouched, plant, above):
    """In a directory such as /tmp."""
    directory(place / "public", 0o1777)
    store = open_store(str(place / "public/ansible/gate" if above else place / "public/gate"))
    planted, target = place / "public" / ("ansible" if above else "gate"), directory(place / "target", 0o700)

    def attack():
        if plant == "directory":
            planted.mkdir(0o700)
        else:
            planted.symlink_to(target if plant == "link" else place / "target/none")

    assert as_user(attack)
    for use in (store.secret, store.items, lambda: store.write(KEY, RECORD)):
        with pytest.raises(GateError, match=r"belongs to|is a symbolic link|No such file") as caught:
            use()
    assert str(planted) in str(caught.value)
    assert list(target.iterdir()) == []
    assert plant != "directory" or list(planted.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "owner", "who"),
    [(0o770, 0, "the group 54323"), (0o777, 0, "everybody"), (0o755, EVE, "the user 54321, to whom it belongs,")],
)
def test_a_store_that_others_can_take_away_is_not_used(place, mode, owner, who):
    """With an empty one in its place, what was rejected would be tried again."""
    above = directory(place / "above", 0o700)
    store = open_store(str(above / "gate"))
    store.secret()
    store.write(KEY, RECORD)
    os.chown(above, owner, GROUP)
    above.chmod(mode)
    assert as_user(lambda: (above / "gate").rename(above / "aside")), "it can be taken away"
    for use in (store.secret, lambda: store.read(KEY), lambda: store.write(KEY, RECORD)):
        with pytest.raises(GateError, match=f"above on the way to the attempt gate's can be written by {who}"):
            use()
    assert [path.name for path in above.iterdir()] == ["aside"]


def test_the_users_own_group_may_write_above_the_store(place):
    """With a umask of 002, which distributions give to users with a group of their own, it is so."""
    home = directory(place / "home", 0o775, ALICE, ALICE)

    def use():
        store = open_store(str(home / "gate"))
        store.secret()
        store.write(KEY, RECORD)
        return store.read(KEY) == RECORD

    assert as_user(use, ALICE, ALICE)
    assert not as_user(lambda: os.listdir(home / "gate"))


# The attempt gate, where a group shares it


@pytest.fixture
def shared(place):
    store = open_store(str(directory(place / "gate", 0o2770)))
    store.secret()
    store.write(KEY, RECORD)
    return store


def test_the_shared_store_is_closed_to_others(shared):
    path = Path(shared.path)
    for attack in (
        lambda: os.listdir(path),
        (path / "key").read_bytes,
        (path / f"{KEY}.json").unlink,
        (path / f"{KEY}.lock").touch,
        lambda: shared.read(KEY),
    ):
        assert not as_user(attack, group=OUTSIDE)


@pytest.mark.parametrize("plant", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["key", f"{KEY}.json", f"{KEY}.lock"])
def test_a_member_leads_root_to_no_other_file(shared, place, untouched, plant, name):
    path = Path(shared.path, name)
    assert as_user(lambda: path.unlink(missing_ok=True))
    if not as_user(lambda: plant(place / "root-only", path)):
        assert Path("/proc/sys/fs/protected_hardlinks").read_text() == "1\n" and plant is os.link
        os.link(place / "root-only", path)  # as a kernel without that protection lets the member do
    told = []

    def use():
        with shared.turn(KEY, "a host", 0, told.append):
            pass
        told.append(shared.secret())
        told.append(shared.read(KEY))

    if name == f"{KEY}.lock" and plant is os.link:
        use()  # the link is a lock like another
    else:
        with pytest.raises(GateError) as caught:
            use()
        told.append(str(caught.value))
    assert untouched() and SECRET.decode() not in repr(told)


def test_a_member_keeps_others_waiting_no_longer_than_they_wait(shared):
    """They can: whoever shares the store may hold a turn. No credential is used then."""

    def hold():
        turn = shared.new_turn(KEY, "eve")
        assert turn.try_acquire() is None
        return turn

    refused = pytest.raises(GateError, match="Waited for more than 0 seconds for eve")
    with somebody(hold), refused, shared.turn(KEY, "h", 0, lambda holder: None):
        pytest.fail("two have the turn")


def test_the_records_without_the_key_are_of_no_use(place):
    """To somebody who gets a backup of them, for example: no password that they guess can be recognised in it."""
    store = open_store(str(place / "gate"))
    gate = rules.Gate(store, rules.GateOptions(3, 3600, 16), "h", print)
    subject = gate.password_subject(rules.SECRET, "P1", PASSWORD)
    store.write(subject.key, RECORD)
    secret = (place / "gate/key").read_bytes()
    (place / "gate/key").unlink()
    content = b"".join(path.name.encode() + path.read_bytes() for path in (place / "gate").iterdir())
    assert not [form for form in all_forms([PASSWORD]) if form in content]

    def guess(key):
        text = json.dumps(["record", "P1", rules.SECRET, PASSWORD]).encode()
        return hmac.new(key, text, hashlib.sha256).hexdigest()[rules.PREFIX_DIGITS :].encode() in content

    assert not any(map(guess, (b"", bytes(32), b"P1", hashlib.sha256(b"P1").digest())))
    assert guess(bytes.fromhex(secret.decode())), "with the key it can be"


# The report


@pytest.fixture
def report(place, monkeypatch):
    """Where root writes a report, in a directory that members of the group may write to."""
    monkeypatch.setattr(fleet_report, "LOCK_TIMEOUT", 0)
    return directory(place / "reports", 0o770) / "primus_report.html"


def write(path, mode="0600"):
    fleet_report.write_files(
        {str(path): "the report"}, str(path.parent), {str(path): fleet_report._numeric_mode(mode, path)}
    )


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("target", ["root-only", "none"])
def test_a_link_in_the_place_of_the_report_is_replaced(report, place, untouched, target):
    assert as_user(lambda: report.symlink_to(place / target))
    write(report, "g+r")
    assert report.read_text() == "the report" and not report.is_symlink() and mode_of(report) == 0o640
    assert untouched() and not (place / "none").exists()


def test_what_is_planted_does_not_open_the_report(report):
    """Where a symbolic mode begins with that of the file that is there."""
    assert as_user(lambda: (report.touch(), report.chmod(0o666)))
    write(report, "g+r")
    assert report.stat().st_uid == 0 and mode_of(report) == 0o640
    write(report, "o+r")
    assert mode_of(report) == 0o644, "it adds to what is root's"


def test_others_cannot_read_a_report(report):
    write(report)
    for attack in (report.read_bytes, lambda: report.write_bytes(b""), lambda: os.link(report, report.parent / "mine")):
        assert not as_user(attack)


def test_a_directory_in_the_place_of_the_report(report):
    """It could be one of somebody else's that the member has moved there. Nothing is removed."""
    inner = directory(directory(report.parent / "of alice", 0o770, ALICE) / "inner", 0o700, ALICE)
    (inner / "file").write_bytes(SECRET)
    for name in (report.name, f"{report.name}.new-0123456789abcdef"):
        assert as_user(lambda name=name, inner=inner: inner.parent.rename(report.with_name(name)))
        inner = report.with_name(name) / "inner"
        if name == report.name:
            with pytest.raises(OSError, match="Is a directory"):
                write(report)
        else:
            write(report)
        assert (inner / "file").read_bytes() == SECRET


@pytest.mark.parametrize("plant", ["directory", "link", "dangling"])
def test_a_directory_for_reports_that_somebody_else_has_made(place, report, plant):
    """In a directory such as /tmp."""
    public, target = directory(place / "public", 0o1777), directory(place / "target", 0o755)
    dest = public / "reports"

    def attack():
        if plant == "directory":
            dest.mkdir()
        else:
            dest.symlink_to(target if plant == "link" else target / "none")

    assert as_user(attack)
    for where in (dest / report.name, dest / "deeper" / report.name):
        with pytest.raises(UntrustedFile, match=f"{dest} belongs to {EVE}"):
            write(where)
    assert list(target.iterdir()) == [] and (plant != "directory" or list(dest.iterdir()) == [])


def test_whoever_can_read_the_directory_of_the_report_can_lock_it_and_is_named(report):
    def hold():
        handle = os.open(report.parent, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        return handle

    with somebody(hold) as pid, pytest.raises(PpinError) as caught:
        write(report)
    assert f"held by process {pid} (" in caught.value.hint and f"of {EVE}" in caught.value.hint
    write(report)
