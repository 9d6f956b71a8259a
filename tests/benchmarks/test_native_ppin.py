# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The native ppin of the benchmarks says what the emulator's says, and keeps files that the collection understands."""

import shutil
import subprocess
from pathlib import Path

import pexpect
import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import (
    read_secret_users,
    secret_entries,
)
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import render
from emulated_hsm import CONFIG, PINS, PROXY_PASSWORD, SETUP, WRONG_SETUP, Hsm
from native import NoCompiler, compile_ppin
from primus_emulator.client import install

FETCHED = [SETUP["P1"], PINS["P1"]]


class Client:
    """A client's prefix, and its ppin."""

    def __init__(self, prefix: Path):
        self.prefix = prefix
        self.secrets = prefix / "etc/.secrets.cfg"
        self.files = ["-c", str(prefix / "etc/primus.cfg"), "-s", str(self.secrets)]

    def run(self, *words: str) -> tuple[int, str]:
        """Run ppin: its exit status, and what it says, without its own paths."""
        done = subprocess.run(
            [self.prefix / "bin/ppin", *self.files, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.replace(str(self.prefix), "")

    def talk(self, words: list[str], answers: list[str]) -> tuple[int, str]:
        """The same in a terminal, where each password is typed after its prompt, once echo is off."""
        child = pexpect.spawn(str(self.prefix / "bin/ppin"), [*self.files, *words], encoding="utf-8", timeout=30)
        said = ""
        for answer in answers:
            child.expect("' ?: $")
            said += child.before + child.after
            assert child.waitnoecho(10)
            child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        said = (said + child.before).replace("\r\n", "\n")
        assert not any(answer in said for answer in answers)
        return child.exitstatus, said


@pytest.fixture(scope="module")
def hsm(tmp_path_factory):
    with Hsm(tmp_path_factory.mktemp("hsm"), {**CONFIG, "limits": {}}) as hsm:
        yield hsm


@pytest.fixture(scope="module")
def ppin(tmp_path_factory):
    try:
        return compile_ppin(tmp_path_factory.mktemp("native") / "ppin")
    except NoCompiler as reason:
        pytest.skip(str(reason))


@pytest.fixture
def clients(tmp_path, hsm, ppin):
    """Two clients with the same primus.cfg, P1 behind a proxy and P2 not: with the native ppin and the emulator's."""
    pair = []
    for name in ("native", "emulated"):
        install(str(tmp_path / name), str(hsm.state), ["P1:3:svc1", "P2:1"], {"input": "tty"})
        pair.append(Client(tmp_path / name))
    shutil.copy2(ppin, pair[0].prefix / "bin/ppin")
    shutil.copy2(pair[1].prefix / "etc/primus.cfg", pair[0].prefix / "etc/primus.cfg")
    return pair


def both(clients, words: list[str], answers: list[str] | None = None) -> tuple[int, str]:
    """Run the same on both clients: what both of them say."""
    said = [client.talk(words, answers) if answers else client.run(*words) for client in clients]
    assert said[0] == said[1]
    return said[0]


def test_native_ppin_says_what_the_emulated_one_says(clients):
    first = clients[0]
    assert both(clients, ["-v"])[0] == 0
    assert both(clients, ["-l"])[1].count("MISSING") == 6
    assert both(clients, ["--test"])[0] == 1
    assert both(clients, ["-r", "-e", "P1"])[0] == 1
    assert both(clients, ["-a", "-e", "P1"], FETCHED)[0] == 1  # its proxy password is missing
    assert both(clients, ["-pe", "svc1"], [PROXY_PASSWORD])[0] == 0
    assert both(clients, ["-ae", "P1"], FETCHED)[0] == 0
    assert both(clients, ["-ae", "P2"], [SETUP["P2"], PINS["P2"]])[1].count("MISSING") == 0
    assert both(clients, ["-ue", "P2"], [SETUP["P2"], PINS["P2"]])[0] == 0
    assert both(clients, ["--test"])[0] == 0
    assert both(clients, ["--test", "--user", "P1", "--hsm", "hsm2", "--slotid", "3"])[1].count("OK") == 1
    assert both(clients, ["--test", "--user", "nobody"])[0] == 0
    for wrong in (["-a", "-e", "nobody"], ["-r", "-e", "nobody"], ["-x", "-e", "nobody"], ["-a", "-e", "P1"]):
        assert both(clients, wrong)[0] == 1
    assert not (first.prefix / "etc/rejected-logins").exists()
    assert both(clients, ["-u", "-e", "P2"], [WRONG_SETUP, PINS["P2"]])[0] == 1
    assert (first.prefix / "etc/rejected-logins").read_text() == "setup P2\n"
    assert read_secret_users(first.secrets.read_text()) == ["P1"]
    assert both(clients, ["-r", "-e", "P1"])[0] == 0
    assert both(clients, ["-x", "-e", "svc1"])[0] == 0
    assert both(clients, ["-l"])[1].count("MISSING") == 6


def test_secrets_file_of_native_ppin_has_an_identity_for_each_entry(clients):
    client = clients[0]
    client.talk(["-p", "-e", "svc1"], [PROXY_PASSWORD])
    client.talk(["-a", "-e", "P1"], FETCHED)
    first = secret_entries(client.secrets.read_bytes())
    client.talk(["-a", "-e", "P2"], FETCHED)
    client.talk(["-u", "-e", "P1"], FETCHED)
    second = secret_entries(client.secrets.read_bytes())
    assert set(second) == {"svc1", "P1", "P2"}
    assert second["svc1"] == first["svc1"] and second["P1"] != first["P1"]


def test_native_ppin_reads_what_the_filter_renders(clients):
    client = clients[0]
    hsms = [{"host": "one.example.com", "port": "2310"}, {"host": "two.example.com", "port": "2311", "priority": 1}]
    partitions = [
        {"user_name": 'a "quoted" \\ name', "slot_id": 7, "client_id": "# no comment; {", "proxy_user": "svc 1"},
        {"user_name": "P2", "slot_id": [8, 9]},
    ]
    log = {"file": "/var/log/primus.log", "trace_mask": 4, "write_log_file": True}
    config = client.prefix / "etc/primus.cfg"
    config.write_text(render({"hsms": hsms, "partitions": partitions, "log": log, "wait_delay": 100}))
    status, said = client.run("-l")
    assert status == 0
    assert said.splitlines()[3:] == [
        "[01] slot-id 7: user 'a \"quoted\" \\ name' permanent secret: MISSING",
        "[02] slot-id 8: user 'P2' permanent secret: MISSING",
        "[03] slot-id 9: user 'P2' permanent secret: MISSING",
        "[04] slot-id 7: user 'a \"quoted\" \\ name' permanent secret: MISSING",
        "[05] slot-id 8: user 'P2' permanent secret: MISSING",
        "[06] slot-id 9: user 'P2' permanent secret: MISSING",
        "[01] service/proxy user 'svc 1' permanent secret: MISSING",
        "[02] service/proxy user 'svc 1' permanent secret: MISSING",
    ]
    config.write_text(config.read_text().replace("{", "(", 1))
    assert client.run("-l") == (1, "Error: 0x80005005\n")


def test_native_ppin_asks_nowhere_but_on_a_terminal(clients):
    done = subprocess.run(
        [clients[0].prefix / "bin/ppin", *clients[0].files, "-pe", "svc1"],
        input=PROXY_PASSWORD.encode(),
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 1
    assert PROXY_PASSWORD.encode() not in done.stdout
