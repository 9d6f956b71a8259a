# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running emulator: its command line, its network, many clients at once."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import libconf
import pytest
from primus_emulator import client as installer
from primus_emulator import codes, protocol
from primus_emulator.admin import Admin, AdminError
from primus_emulator.behaviour import SWITCHES, Behaviour, load
from primus_emulator.codes import PpinError
from primus_emulator.config import HsmEntry
from primus_emulator.session import Session

EMULATOR = Path(__file__).resolve().parents[1]


class GivenPassword:
    value = "wrong"
    source = "terminal"


class Node:
    """A node or proxy of the emulator, to open sessions at."""

    def __init__(self, state, kind, number, proxy_user=None):
        endpoint = json.loads((state / "endpoint.json").read_text())
        slot = {"user_name": "HSM_USERNAME", "id": 0, "client_id": "tester"}
        if proxy_user:
            slot["proxy_user"] = proxy_user
        address = endpoint[kind][number]
        self._hsm = HsmEntry("hsm0", {"host": address["host"], "port": str(address["port"]), "slots": {"slot0": slot}})
        self._switches = Behaviour({"ca": endpoint["ca"], "timeout": 60})

    def open(self, proxy_password=None):
        return Session(self._hsm, self._hsm.slots[0], self._switches, proxy_password)


def code_of(action, *args, **kwargs):
    with pytest.raises(PpinError) as caught:
        action(*args, **kwargs)
    return caught.value.code


# Network


def test_network_down_and_up_again_at_the_same_port(state, admin):
    node = Node(state, "nodes", 0)
    session = node.open()
    admin.call("network", node="hsm0", state="down")
    assert admin.call("status")["nodes"] == [False, True]
    assert code_of(session.call, "hello") == codes.CONNECT_FAILED
    assert code_of(node.open) == codes.CONNECT_FAILED
    Node(state, "nodes", 1).open().call("hello")
    admin.call("network", state="up")
    assert node.open().firmware == "RP-2.10.0-T"


def test_the_proxy_judges_first_and_tells_that_its_node_is_down(state, admin):
    class Right(GivenPassword):
        value = "the proxy password"

    proxy = Node(state, "proxies", 0, "SERVICE_USER")
    admin.call("network", node=0, state="down")
    assert code_of(proxy.open, GivenPassword()) == codes.LOGIN_REJECTED
    assert code_of(proxy.open, Right()) == codes.CONNECT_FAILED
    admin.call("network", state="up")
    assert proxy.open(Right()).firmware
    admin.call("proxy", state="down")
    assert code_of(proxy.open, Right()) == codes.CONNECT_FAILED


def test_nothing_passes_a_proxy_without_its_password(state, admin):
    address = json.loads((state / "endpoint.json").read_text())["proxies"][0]
    tls = ssl.create_default_context(cafile=str(state / "ca.pem"))
    wrong = {"op": "proxy-login", "user": "SERVICE_USER", "password": "wrong", "source": "argv", "client": "tester"}
    verdicts = []
    with (
        socket.create_connection((address["host"], address["port"]), 10) as plain,
        tls.wrap_socket(plain, server_hostname=address["host"]) as connection,
        connection.makefile("rwb") as stream,
    ):
        for request in ({"op": "hello"}, wrong, {"op": "hello"}):
            stream.write(protocol.encode(request))
            stream.flush()
            verdicts.append(protocol.decode(stream.readline())["code"])
    assert verdicts == [codes.NOT_LOGGED_IN, codes.LOGIN_REJECTED, codes.NOT_LOGGED_IN]


def test_a_secret_needs_both_passwords(state, admin):
    class Setup(GivenPassword):
        value = "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3"

    session = Node(state, "nodes", 0).open()
    assert code_of(session.call, "fetch-secret") == codes.NOT_LOGGED_IN
    session.login("HSM_USERNAME", "setup", Setup())
    assert code_of(session.call, "fetch-secret") == codes.NOT_LOGGED_IN


def test_the_certificate_is_verified(cli, state, admin, tmp_path):
    served = cli("serve", "--state", tmp_path / "other", "--daemon")
    assert served.returncode == 0, served.stderr
    endpoint = json.loads((tmp_path / "other/endpoint.json").read_text())
    try:
        node = Node(state, "nodes", 0)
        node._switches.ca = endpoint["ca"]
        assert code_of(node.open) == codes.CONNECT_FAILED
        node._switches.ca = ""
        assert node.open().firmware
    finally:
        os.kill(endpoint["pid"], signal.SIGTERM)


def test_nonsense_ends_the_connection_and_nothing_else(state, admin):
    session = Node(state, "nodes", 0).open()
    session._connection.sendall(b"nonsense\n")
    assert session._stream.read() == b""
    assert Node(state, "nodes", 0).open().firmware


def test_two_hundred_clients_at_once(state, admin):
    """All connections are open at the same time; a hundred are judged wrong, and lock the partition for the rest."""
    count = 200
    everybody = threading.Barrier(count, timeout=120)
    verdicts = []

    def login(number):
        session = Node(state, "nodes", number % 2).open()
        everybody.wait()
        with session:
            verdicts.append(code_of(session.login, "HSM_USERNAME", "setup", GivenPassword()))

    threads = [threading.Thread(target=login, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [codes.LOGIN_REJECTED] * count
    summary = admin.call("report-summary")
    assert summary["counts"] == {"setup": {"0x80005017": count}}
    partition = summary["partitions"]["HSM_USERNAME"]
    assert (partition["trials"], partition["locked"]) == (100, True)


def test_who_leaves_a_hanging_hsm_is_not_judged(state, admin):
    session = Node(state, "nodes", 0).open()
    admin.call("hang", state="on")
    session._connection.settimeout(0.2)
    assert code_of(session.login, "HSM_USERNAME", "setup", GivenPassword()) == codes.CONNECT_TIMEOUT
    session.__exit__()
    admin.call("hang", state="off")
    assert admin.call("report") == []


# Admin


def test_reset_undoes_everything(admin):
    admin.call("slow", seconds=0.01)
    admin.call("hang", state="on")
    admin.call("busy", count=3)
    admin.call("network", state="down")
    admin.call("proxy", state="down")
    admin.call("advance", seconds=1e6)
    admin.call("disable", partition="OTHER")
    admin.call("log", partition="OTHER", text="x")
    admin.call("reset")
    status = admin.call("status")
    assert status.pop("time") < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 60))
    partition = {"disabled": False, "locked": False, "trials": 0, "pkcs11_locked": False, "pkcs11_trials": 0}
    assert status == {
        "busy": 0,
        "partitions": {"HSM_USERNAME": partition, "OTHER": partition},
        "nodes": [True, True],
        "proxies": [True, True],
        "slow": 0.0,
        "hang": False,
    }


def test_reset_with_another_config(state, admin, tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"partitions": {"NEW": {"setup_password": "a", "pkcs11_password": "b"}}}')
    admin.call("reset", config=str(config))
    try:
        assert list(admin.call("status")["partitions"]) == ["NEW"]
        admin.call("reset")
        assert list(admin.call("status")["partitions"]) == ["NEW"]
        config.write_text('{"nonsense": 1}')
        with pytest.raises(AdminError, match="nonsense"):
            admin.call("reset", config=str(config))
        assert list(admin.call("status")["partitions"]) == ["NEW"]
    finally:
        admin.call("reset", config=str(state / "config.json"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"command": "explode"}, "no such command"),
        ({"command": "lock", "partition": "NOBODY"}, "no partition 'NOBODY'"),
        ({"command": "network", "node": "hsm7", "state": "down"}, "no node hsm7"),
        ({"command": "hang", "state": "maybe"}, "neither on nor off"),
        ({"command": "lock"}, "partition"),
    ],
)
def test_what_admin_refuses(admin, arguments, reason):
    with pytest.raises(AdminError, match=reason):
        admin.call(arguments.pop("command"), **arguments)


def test_no_emulator(tmp_path):
    with pytest.raises(AdminError, match="no emulator"):
        Admin(tmp_path).call("status")
    with pytest.raises(AdminError, match="no emulator"):
        Admin(tmp_path / "nowhere").call("status")


def test_admin_command_line(cli, state, admin):
    command = ("admin", "--state", state)
    made = json.loads(cli(*command, "new-setup-password", "HSM_USERNAME").stdout)
    assert len(made) == 29
    assert [len(group) for group in made.split("-")] == [5] * 5
    assert json.loads(cli(*command, "new-setup-password", "HSM_USERNAME", "chosen", "--keep").stdout) == "chosen"
    assert cli(*command, "network", "hsm1", "down").stdout == "null\n"
    assert cli(*command, "slow", "0.5").returncode == 0
    assert cli(*command, "hang", "on").returncode == 0
    status = json.loads(cli(*command, "status").stdout)
    assert (status["nodes"], status["slow"], status["hang"]) == ([True, False], 0.5, True)
    refused = cli(*command, "lock", "NOBODY")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "admin: lock: no partition 'NOBODY'\n"


# Serve


def test_serve_ends_cleanly(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(EMULATOR)}
    command = [sys.executable, "-m", "primus_emulator", "serve", "--state", str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        Admin(tmp_path).call("hang", state="on")
        process.terminate()
        assert process.wait(60) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "key.pem"]


def test_serve_says_why_it_does_not_start(cli, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        served = cli("serve", "--state", tmp_path, "--ports", taken.getsockname()[1], "--daemon")
    assert (served.returncode, served.stdout) == (1, "")
    assert "Address already in use" in served.stderr
    (tmp_path / "config.json").write_text('{"nonsense": {}}')
    served = cli("serve", "--state", tmp_path, "--config", tmp_path / "config.json", "--daemon")
    assert (served.returncode, served.stderr) == (1, "serve: unknown setting: nonsense\n")
    assert not (tmp_path / "endpoint.json").exists()


def test_a_state_folder_has_one_emulator(cli, state, admin):
    before = (state / "endpoint.json").read_text()
    served = cli("serve", "--state", state, "--daemon")
    assert served.returncode == 1
    assert "already" in served.stderr
    assert (state / "endpoint.json").read_text() == before


# Clients


def test_client_command_line(cli, state, admin, tmp_path):
    prefix = tmp_path / "client"
    installed = cli(
        *("client", prefix, "--state", state, "--partition", "HSM_USERNAME:3", "--partition", "OTHER:5:SERVICE_USER"),
        *("--behaviour", "crlf=on", "--behaviour", "reprompt=2"),
    )
    assert installed.returncode == 0, installed.stderr
    endpoint = json.loads((state / "endpoint.json").read_text())
    hsms = libconf.loads((prefix / "etc/primus.cfg").read_text())["primus"]["hsms"]
    addresses = endpoint["nodes"] + endpoint["proxies"]
    assert [(hsm["host"], hsm["port"]) for hsm in hsms.values()] == [(a["host"], str(a["port"])) for a in addresses]
    direct = {"client_id": "client", "user_name": "HSM_USERNAME", "id": 3}
    proxied = {"client_id": "client", "user_name": "OTHER", "id": 5, "proxy_user": "SERVICE_USER"}
    slots = [dict(hsm["slots"]["slot0"]) for hsm in hsms.values()]
    assert slots == [direct, direct, proxied, proxied]

    switches = load(prefix / "etc/emulator.json")
    assert (switches.crlf, switches.reprompt, switches.ca) == (True, 2, endpoint["ca"])
    assert cli("client", prefix, "--set", "reprompt=1", "--set", "error_text=paren").returncode == 0
    switches = load(prefix / "etc/emulator.json")
    assert (switches.crlf, switches.reprompt, switches.error_text) == (True, 1, "paren")
    assert cli("client", prefix, "--clear").returncode == 0
    assert json.loads((prefix / "etc/emulator.json").read_text()) == {"ca": endpoint["ca"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [("crlf=maybe", "crlf"), ("nonsense=1", "unknown switch"), ("crlf", "KEY=VALUE"), ("reprompt=x", "invalid")],
)
def test_wrong_switches(cli, state, admin, tmp_path, text, reason):
    installer.install(str(tmp_path), str(state), ["HSM_USERNAME"])
    before = (tmp_path / "etc/emulator.json").read_text()
    refused = cli("client", tmp_path, "--set", text)
    assert refused.returncode == 1
    assert reason in refused.stderr
    assert (tmp_path / "etc/emulator.json").read_text() == before


def test_the_readme_has_every_command_switch_and_limit():
    from primus_emulator.admin import COMMANDS
    from primus_emulator.hsm import DEFAULT_LIMITS

    readme = (EMULATOR / "README.md").read_text()
    missing = [name for name in [*COMMANDS, *SWITCHES, *DEFAULT_LIMITS] if "`%s" % name not in readme]
    assert missing == []


def test_a_client_in_the_layout_of_the_provider_package(state, admin, tmp_path):
    """PRIMUS_HOME with the Python files in share, no emulator.json, and ppin called through a symbolic link."""
    home = tmp_path / "primus"
    installer.install(str(home), str(state), ["HSM_USERNAME"])
    (home / "etc/emulator.json").unlink()
    (home / "share").mkdir()
    (home / "share/primus_emulator").symlink_to(EMULATOR / "primus_emulator")
    (home / "share/VERSION").write_text("2.3.0\n")
    (home / "bin/ppin").write_text(installer.launcher(sys.executable))
    link = tmp_path / "ppin"
    link.symlink_to(home / "bin/ppin")
    environment = {**os.environ, "SECUROSYS_PKCS11_CONF": str(home / "etc/primus.cfg")}
    environment["SECUROSYS_SECRETS_CONF"] = str(home / "etc/.secrets.cfg")

    def ppin(*args):
        return subprocess.run([link, *args], env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ppin("-v").stdout == "Primus HSM PKCS#11 2.3.0\n"
    setup = "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3"
    assert ppin("-ae", "HSM_USERNAME", setup, "the PKCS#11 password").returncode == 0
    assert ppin("--test").returncode == 0
