# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: it knows a password again without keeping it, and nothing in its file can make a run fail."""

import base64
import calendar
import codecs
import hashlib
import json
import os
import stat
import time
import urllib.parse
from pathlib import Path

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client.ledger import Ledger

KINDS = ["partitions", "service_users"]
PASSWORD = "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3"
OTHER = "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L4"


@pytest.fixture
def secrets_path(tmp_path):
    return str(tmp_path / ".secrets.cfg")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["P1", "O'Brien", "Zürich", "\u65e5\u672c", 'a"b\\c', "", "version"])
@pytest.mark.parametrize("password", [PASSWORD, "pässwörd \u65e5\U0001f511", "x" * 1024])
def test_the_same_password_is_known_again(secrets_path, kind, name, password):
    Ledger(secrets_path).remember(kind, name, password)
    ledger = Ledger(secrets_path)
    assert ledger.problem is None
    assert ledger.is_same_password(kind, name, password)
    assert not ledger.is_same_password(kind, name, password + "x")
    assert not ledger.is_same_password(kind, name, password[:-1])


@pytest.mark.parametrize(
    ("kind", "name", "password", "same"),
    [
        ("partitions", "P1", PASSWORD, True),
        ("partitions", "P1", OTHER, False),
        ("partitions", "P1", PASSWORD.lower(), False),
        ("partitions", "P1", PASSWORD + " ", False),
        ("partitions", "P1", "", False),
        ("partitions", "P2", PASSWORD, False),
        ("partitions", "p1", PASSWORD, False),
        ("service_users", "P1", PASSWORD, False),
    ],
)
def test_same_other_none(secrets_path, kind, name, password, same):
    Ledger(secrets_path).remember("partitions", "P1", PASSWORD)
    assert Ledger(secrets_path).is_same_password(kind, name, password) is same


def test_what_is_remembered_counts_at_once_and_replaces_what_was(secrets_path):
    ledger = Ledger(secrets_path)
    ledger.remember("partitions", "P1", PASSWORD)
    assert ledger.is_same_password("partitions", "P1", PASSWORD)
    ledger.remember("partitions", "P1", OTHER)
    for seen in (ledger, Ledger(secrets_path)):
        assert seen.is_same_password("partitions", "P1", OTHER)
        assert not seen.is_same_password("partitions", "P1", PASSWORD)


def test_no_file(secrets_path):
    ledger = Ledger(secrets_path)
    assert ledger.problem is None
    assert not ledger.is_same_password("partitions", "P1", PASSWORD)
    assert ledger.since("partitions", "P1") is None
    ledger.forget("partitions", "P1")
    assert not os.path.exists(ledger.path)


def test_no_folder(tmp_path):
    ledger = Ledger(str(tmp_path / "no" / ".secrets.cfg"))
    assert ledger.problem is None
    with pytest.raises(OSError):
        ledger.remember("partitions", "P1", PASSWORD)


def test_forget(secrets_path):
    ledger = Ledger(secrets_path)
    for kind in KINDS:
        for name in ("P1", "P2"):
            ledger.remember(kind, name, PASSWORD)
    ledger.forget("partitions", "P1")
    for seen in (ledger, Ledger(secrets_path)):
        assert not seen.is_same_password("partitions", "P1", PASSWORD)
        assert seen.since("partitions", "P1") is None
        for kind, name in (("partitions", "P2"), ("service_users", "P1"), ("service_users", "P2")):
            assert seen.is_same_password(kind, name, PASSWORD)
    with open(ledger.path) as file:
        assert list(json.load(file)["partitions"]) == ["P2"]


def test_forgetting_what_is_not_known_writes_nothing(secrets_path):
    ledger = Ledger(secrets_path)
    ledger.remember("partitions", "P1", PASSWORD)
    before = os.stat(ledger.path)
    ledger.forget("partitions", "P2")
    ledger.forget("service_users", "P1")
    assert os.stat(ledger.path).st_ino == before.st_ino


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_since_is_the_time_in_utc(secrets_path, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        before = int(time.time())
        Ledger(secrets_path).remember("partitions", "P1", PASSWORD)
        after = time.time()
    finally:
        monkeypatch.undo()
        time.tzset()
    since = Ledger(secrets_path).since("partitions", "P1")
    assert before <= calendar.timegm(time.strptime(since, "%Y-%m-%dT%H:%M:%SZ")) <= after
    assert Ledger(secrets_path).since("partitions", "P2") is None
    assert Ledger(secrets_path).since("service_users", "P1") is None


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_only_its_owner_may_read_it(secrets_path, umask):
    old = os.umask(umask)
    try:
        Ledger(secrets_path).remember("partitions", "P1", PASSWORD)
    finally:
        os.umask(old)
    ledger = Ledger(secrets_path)
    assert stat.S_IMODE(os.stat(ledger.path).st_mode) & 0o177 == 0
    if umask != 0o777:
        assert stat.S_IMODE(os.stat(ledger.path).st_mode) == 0o600
    os.chmod(ledger.path, 0o644)
    ledger.remember("partitions", "P2", PASSWORD)
    assert stat.S_IMODE(os.stat(ledger.path).st_mode) == 0o600


def test_it_is_beside_the_secrets_file_and_alone(secrets_path):
    ledger = Ledger(secrets_path)
    ledger.remember("partitions", "P1", PASSWORD)
    ledger.forget("partitions", "P1")
    assert ledger.path == secrets_path + ".ledger"
    assert os.listdir(os.path.dirname(secrets_path)) == [".secrets.cfg.ledger"]


def encodings(password):
    """What a password may look like in a file."""
    for raw in (password, password.lower(), password[::-1], password.replace("-", "")):
        for charset in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le"):
            plain = raw.encode(charset)
            yield plain
            yield base64.b32encode(plain).rstrip(b"=")
            yield base64.b85encode(plain)
            yield plain.hex().encode()
            for shift in range(3):  # inside of a longer base64, it looks different at each of three places
                yield base64.b64encode(b"\0" * shift + plain)[4 if shift else 0 : -4]
            for algorithm in sorted(hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}):
                digest = hashlib.new(algorithm, plain).digest()
                yield digest
                yield digest.hex().encode()
                yield base64.b64encode(digest).rstrip(b"=")
        yield codecs.encode(raw, "rot13").encode()
        yield urllib.parse.quote(raw).encode()
        yield json.dumps(raw)[1:-1].encode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("password", [PASSWORD, "pässwörd-württemberg"])
def test_no_password_is_in_it(secrets_path, kind, password):
    ledger = Ledger(secrets_path)
    ledger.remember(kind, "P1", password)
    with open(ledger.path, "rb") as file:
        content = file.read()
    found = [form for form in encodings(password) if form in content or form.upper() in content.upper()]
    assert found == []
    assert not any(group.encode() in content for group in password.split("-"))


def test_fingerprints_of_one_password_have_nothing_in_common(secrets_path):
    ledger = Ledger(secrets_path)
    for kind in KINDS:
        for name in ("P1", "P2"):
            ledger.remember(kind, name, PASSWORD)
    with open(ledger.path) as file:
        content = json.load(file)
    entries = [entry for kind in KINDS for entry in content[kind].values()]
    for part in ("salt", "hash"):
        assert len({entry[part] for entry in entries}) == len(entries)
    assert all(len(base64.b64decode(entry["salt"])) >= 16 for entry in entries)


def test_the_fingerprint_is_pbkdf2(secrets_path):
    ledger = Ledger(secrets_path)
    ledger.remember("partitions", "P1", PASSWORD)
    with open(ledger.path) as file:
        entry = json.load(file)["partitions"]["P1"]
    salt = base64.b64decode(entry["salt"])
    fingerprint = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, entry["iterations"])
    assert base64.b64decode(entry["hash"]) == fingerprint
    assert entry["iterations"] >= 100000


GOOD = {
    "salt": base64.b64encode(b"0123456789abcdef").decode(),
    "iterations": 1000,
    "hash": base64.b64encode(hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"0123456789abcdef", 1000)).decode(),
    "since": "2026-01-31T12:00:00Z",
}


def document(**changes):
    return dict({"version": 1, "partitions": {"P1": GOOD}, "service_users": {}}, **changes)


def test_a_file_of_another_number_of_iterations_is_read(secrets_path):
    ledger = Ledger(secrets_path)
    with open(ledger.path, "w") as file:
        json.dump(document(), file)
    ledger = Ledger(secrets_path)
    assert ledger.problem is None
    assert ledger.is_same_password("partitions", "P1", PASSWORD)
    assert not ledger.is_same_password("partitions", "P1", OTHER)
    assert ledger.since("partitions", "P1") == "2026-01-31T12:00:00Z"


def without(key):
    content = document()
    del content[key]
    return content


def entry_without(key):
    return document(partitions={"P1": {other: GOOD[other] for other in GOOD if other != key}})


def entry_with(**changes):
    return document(partitions={"P1": dict(GOOD, **changes)})


WHOLE = json.dumps(document()).encode()

DAMAGED = {
    "empty": b"",
    "blanks": b" \n",
    "cut off": WHOLE[:-1],
    "cut in the middle": WHOLE[: len(WHOLE) // 2],
    "twice": WHOLE + WHOLE,
    "zeros": b"\0" * len(WHOLE),
    "zeros at the end": WHOLE + b"\0" * 512,
    "not UTF-8": WHOLE.replace(b"P1", b"\xff\xfe"),
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "random bytes": hashlib.sha512(b"x").digest() * 10,
    "libconfig": b'version = "1.0";\n',
    "null": b"null",
    "number": b"1",
    "string": b'"partitions"',
    "list": b"[]",
    "list of a ledger": b"[" + WHOLE + b"]",
    "empty object": b"{}",
    "huge number": b'{"version": 1' + b"0" * 5000 + b"}",
    "version missing": without("version"),
    "version 0": document(version=0),
    "version 3": document(version=3),
    "version '1'": document(version="1"),
    "version null": document(version=None),
    "partitions missing": without("partitions"),
    "service_users missing": without("service_users"),
    "partitions null": document(partitions=None),
    "partitions list": document(partitions=[GOOD]),
    "partitions string": document(partitions="P1"),
    "partitions number": document(partitions=1),
    "service_users null": document(service_users=None),
    "service_users list": document(service_users=[]),
    "entry null": document(partitions={"P1": None}),
    "entry list": document(partitions={"P1": []}),
    "entry string": document(partitions={"P1": "salt"}),
    "entry number": document(partitions={"P1": 7}),
    "entry empty": document(partitions={"P1": {}}),
    "one good, one not": document(partitions={"P1": GOOD, "P2": {}}),
    "service user's entry": document(service_users={"S": {}}),
    "salt missing": entry_without("salt"),
    "hash missing": entry_without("hash"),
    "iterations missing": entry_without("iterations"),
    "since missing": entry_without("since"),
    "salt null": entry_with(salt=None),
    "salt number": entry_with(salt=5),
    "salt list": entry_with(salt=[GOOD["salt"]]),
    "salt not base64": entry_with(salt="A"),
    "salt not ASCII": entry_with(salt="ü"),
    "salt of half a character": entry_with(salt="\ud800"),
    "hash null": entry_with(hash=None),
    "hash object": entry_with(hash={}),
    "hash cut off": entry_with(hash=GOOD["hash"][:-2]),
    "hash not ASCII": entry_with(hash="ü"),
    "iterations null": entry_with(iterations=None),
    "iterations string": entry_with(iterations="1000"),
    "iterations list": entry_with(iterations=[1000]),
    "iterations 0": entry_with(iterations=0),
    "iterations negative": entry_with(iterations=-1),
    "iterations without end": entry_with(iterations=10**12),
    "iterations Infinity": entry_with(iterations=float("inf")),
    "iterations NaN": entry_with(iterations=float("nan")),
    "since null": entry_with(since=None),
    "since number": entry_with(since=1),
    "iterations 1000.5": entry_with(iterations=1000.5),
    "nested without end": b"[" * 200000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_counts_as_none_and_is_mended_by_the_next_write(secrets_path, content):
    path = secrets_path + ".ledger"
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else json.dumps(content).encode())
    ledger = Ledger(secrets_path)
    assert not ledger.is_same_password("partitions", "P1", PASSWORD)
    assert path in ledger.problem
    assert ledger.since("partitions", "P1") is None
    ledger.forget("partitions", "P1")
    ledger.remember("partitions", "P1", PASSWORD)
    mended = Ledger(secrets_path)
    assert mended.problem is None
    assert mended.is_same_password("partitions", "P1", PASSWORD)


@pytest.mark.parametrize("entry", [entry_with(salt=""), entry_with(hash=""), entry_with(hash="AAAA")])
def test_an_entry_that_fits_no_password(secrets_path, entry):
    with open(secrets_path + ".ledger", "w") as file:
        json.dump(entry, file)
    assert not Ledger(secrets_path).is_same_password("partitions", "P1", PASSWORD)


def test_not_a_file(secrets_path):
    os.mkdir(secrets_path + ".ledger")
    ledger = Ledger(secrets_path)
    assert ledger.path in ledger.problem
    assert not ledger.is_same_password("partitions", "P1", PASSWORD)
    ledger.remember("partitions", "P1", PASSWORD)
    assert Ledger(secrets_path).is_same_password("partitions", "P1", PASSWORD)
    assert [path.is_dir() for path in Path(secrets_path).parent.glob("*~")] == [True], "it is set aside"


@pytest.mark.parametrize("content", ['{"version": 3, "partitions": {}}', "{", "", '{"version": 1}'])
def test_what_is_not_understood_is_set_aside_once(secrets_path, content):
    """A newer version of this collection may still want it."""
    path = Path(secrets_path + ".ledger")
    path.write_text(content)
    ledger = Ledger(secrets_path)
    ledger.remember("partitions", "P1", PASSWORD)
    ledger.remember("partitions", "P2", OTHER)
    assert ledger.problem is None
    (aside,) = path.parent.glob(".secrets.cfg.ledger.*~")
    assert aside.read_text() == content
    assert Ledger(secrets_path).is_same_password("partitions", "P2", OTHER) and Ledger(secrets_path).is_same_password(
        "partitions", "P1", PASSWORD
    )


def test_passwords_that_a_fips_machine_refuses(secrets_path, monkeypatch):
    def refuse(*_arguments):
        raise ValueError("[digital envelope routines] invalid key length")

    Ledger(secrets_path).remember("partitions", "P1", PASSWORD)
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", refuse)
    assert not Ledger(secrets_path).is_same_password("partitions", "P1", PASSWORD)
    with pytest.raises(ValueError, match="invalid key length"):
        Ledger(secrets_path).remember("partitions", "P1", PASSWORD)
    monkeypatch.undo()
    assert Ledger(secrets_path).is_same_password("partitions", "P1", PASSWORD), "the file is as it was"


def test_a_link_to_nothing(secrets_path, tmp_path):
    (tmp_path / ".secrets.cfg.ledger").symlink_to(tmp_path / "nothing")
    ledger = Ledger(secrets_path)
    assert ledger.path in ledger.problem
    ledger.remember("partitions", "P1", PASSWORD)
    assert Ledger(secrets_path).is_same_password("partitions", "P1", PASSWORD)
    assert not (tmp_path / "nothing").exists()


def test_a_rejected_login_is_remembered_until_a_secret_is_fetched(secrets_path):
    ledger = Ledger(secrets_path)
    ledger.record_logins({"P1": False, "P2": True, "P3": False})
    assert json.loads(Path(ledger.path).read_text())["partitions"].keys() == {"P1", "P3"}
    ledger = Ledger(secrets_path)
    first = ledger.rejected("P1")
    assert first and ledger.rejected("P2") is None
    ledger.record_logins({"P1": False, "P3": True})
    assert (ledger.rejected("P1"), ledger.rejected("P3")) == (first, None)
    ledger.remember("service_users", "P1", PASSWORD)
    ledger.forget("service_users", "P1")
    assert Ledger(secrets_path).rejected("P1") == first
    ledger.remember("partitions", "P1", PASSWORD)
    assert Ledger(secrets_path).rejected("P1") is None
    ledger.record_logins({"P1": False})
    ledger.forget("partitions", "P1")
    assert Ledger(secrets_path).rejected("P1") is None


def test_an_accepted_login_writes_nothing(secrets_path):
    ledger = Ledger(secrets_path)
    ledger.record_logins({"P1": True})
    assert not os.path.exists(ledger.path)


@pytest.mark.parametrize("key", ["entry", "origin", "rejected", "accepted"])
@pytest.mark.parametrize("value", [[], {"P1": 1}, 7, None])
def test_damaged_facts(secrets_path, key, value):
    ledger = Ledger(secrets_path)
    ledger.remember("partitions", "P1", PASSWORD)
    content = json.loads(Path(ledger.path).read_text())
    content["partitions"]["P1"][key] = value
    Path(ledger.path).write_text(json.dumps(content))
    assert "is damaged" in Ledger(secrets_path).problem


SECRETS = """version = "1.0";
primus : { users : { user0 : { name = "P1"; secret = "%s"; }; user1 : { name = "P2"; secret = "%s"; }; };
proxies : { proxy0 : { name = "S"; secret = "%s"; }; }; };
"""


def write(secrets_path, *values, form=SECRETS):
    Path(secrets_path).write_text(form % values)


def known(secrets_path):
    """What a ledger says of each entry: who made it, and what the HSM said."""
    ledger = Ledger(secrets_path)
    made = {name for kind, name in ENTRIES if ledger.is_same_password(kind, name, PASSWORD)}
    assert made <= {name for kind, name in ENTRIES if ledger.since(kind, name)}
    assert not {name for name in ("P1", "P2") if ledger.origin(name) and not ledger.since("partitions", name)}
    return made


ENTRIES = [("partitions", "P1"), ("partitions", "P2"), ("service_users", "S")]


@pytest.fixture
def remembered(secrets_path):
    """A secrets file and a ledger that knows all of it."""
    write(secrets_path, "a", "b", "c")
    for kind, name in ENTRIES:
        Ledger(secrets_path).remember(kind, name, PASSWORD, "0123456789abcdef" * 4)
    assert known(secrets_path) == {"P1", "P2", "S"}
    return secrets_path


@pytest.mark.parametrize(
    ("values", "left"),
    [
        (("a", "b", "c"), {"P1", "P2", "S"}),
        (("A", "b", "c"), {"P2", "S"}),
        (("a", "B", "c"), {"P1", "S"}),
        (("a", "b", "C"), {"P1", "P2"}),
        (("b", "a", "c"), {"S"}),
        (("A", "B", "C"), set()),
    ],
)
def test_of_another_entry_nothing_is_known(remembered, values, left):
    """Such as of a restored backup, or after ppin by hand."""
    before = Path(remembered).read_bytes()
    write(remembered, *values)
    assert known(remembered) == left
    Path(remembered).write_bytes(before)
    assert known(remembered) == {"P1", "P2", "S"}, "the entry is what counts, not when it was written"


def test_the_place_of_an_entry_does_not_matter(remembered):
    other = SECRETS.replace("user0", "u").replace("user1", "user0").replace("version", "# a comment\nversion")
    write(remembered, "a", "b", "c", form=other.replace("; };", ";\n};"))
    assert known(remembered) == {"P1", "P2", "S"}


def test_what_ppin_ciphers_anew_with_our_change_stays_known(remembered):
    ledger = Ledger(remembered)
    write(remembered, "A", "B", "C")
    ledger.remember("partitions", "P1", OTHER)
    assert known(remembered) == {"P2", "S"} and Ledger(remembered).is_same_password("partitions", "P1", OTHER)
    ledger = Ledger(remembered)
    write(remembered, "A", "BB", "CC")
    ledger.forget("partitions", "P1")
    assert known(remembered) == {"P2", "S"}


def test_what_was_not_known_before_our_change_is_not_known_after_it(remembered):
    write(remembered, "a", "by hand", "c")
    ledger = Ledger(remembered)
    write(remembered, "A", "by hand", "c")
    ledger.remember("partitions", "P1", PASSWORD)
    assert known(remembered) == {"P1", "S"}


@pytest.mark.parametrize("content", ["no libconfig", "", "primus = { users = { x = { user = 'P1' } } };"])
def test_a_file_that_is_not_understood_counts_as_one_entry(secrets_path, content):
    Path(secrets_path).write_text(content)
    Ledger(secrets_path).remember("partitions", "P1", PASSWORD)
    assert known(secrets_path) == {"P1"}
    Path(secrets_path).write_text(content + " ")
    assert known(secrets_path) == set()


def test_a_rejection_of_what_was_set_by_hand(remembered):
    write(remembered, "by hand", "b", "c")
    Ledger(remembered).record_logins({"P1": False})
    ledger = Ledger(remembered)
    assert (
        ledger.rejected("P1") and not ledger.origin("P1") and not ledger.is_same_password("partitions", "P1", PASSWORD)
    )
    write(remembered, "by hand again", "b", "c")
    assert Ledger(remembered).rejected("P1") is None


def test_a_ledger_of_version_1_is_taken_for_what_is_there(remembered):
    content = json.loads(Path(remembered + ".ledger").read_text())
    content.update(version=1, rejected={"P2": "2026-01-31T12:00:00Z", "P9": "2026-01-31T12:00:00Z"})
    for kind, name in ENTRIES:
        for key in ("entry", "origin", "accepted"):
            content[kind][name].pop(key, None)
    Path(remembered + ".ledger").write_text(json.dumps(content))
    ledger = Ledger(remembered)
    assert ledger.problem is None and known(remembered) == {"P1", "P2", "S"}
    assert ledger.origin("P1") is None and ledger.rejected("P2") == ledger.rejected("P9") == "2026-01-31T12:00:00Z"
    ledger.record_logins({"P1": False})
    assert json.loads(Path(remembered + ".ledger").read_text())["version"] == 2


def test_an_accepted_service_proxy_password(remembered):
    ledger = Ledger(remembered)
    assert ledger.accepted_within("S", 60) and not ledger.accepted_within("S", -1)
    assert not ledger.accepted_within("T", 60)
    content = json.loads(Path(remembered + ".ledger").read_text())
    content["service_users"]["S"]["accepted"] = "2026-01-31T12:00:00Z"
    Path(remembered + ".ledger").write_text(json.dumps(content))
    assert not Ledger(remembered).accepted_within("S", 60)
    Ledger(remembered).remember("partitions", "P1", PASSWORD, accepted_users=["S", "T"])
    assert Ledger(remembered).accepted_within("S", 60) and not Ledger(remembered).accepted_within("T", 60)
    write(remembered, "a", "b", "by hand")
    assert not Ledger(remembered).accepted_within("S", 60)


def test_the_first_use_of_a_password_is_kept(secrets_path):
    """Its validity began then. Another password has a first use of its own."""
    ledger = Ledger(secrets_path)
    assert ledger.first_used("partitions", "P1") is None
    ledger.remember("partitions", "P1", PASSWORD)
    content = json.loads(Path(ledger.path).read_text())
    content["partitions"]["P1"]["since"] = "2026-01-31T12:00:00Z"
    Path(ledger.path).write_text(json.dumps(content))
    ledger = Ledger(secrets_path)
    for _time in range(2):
        ledger.remember("partitions", "P1", PASSWORD)
        assert Ledger(secrets_path).first_used("partitions", "P1") == "2026-01-31T12:00:00Z"
        assert Ledger(secrets_path).since("partitions", "P1") > "2026-02"
    ledger.remember("partitions", "P1", OTHER)
    ledger = Ledger(secrets_path)
    assert ledger.first_used("partitions", "P1") == ledger.since("partitions", "P1")
