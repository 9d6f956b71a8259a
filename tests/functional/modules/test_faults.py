# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of docs/faults.md: each fault is made, and what is seen and left must be what the row says."""

import contextlib
import fcntl
import os
import re
import shutil
import socket
import socketserver
import subprocess
import threading

import libconf
import pytest
from emulated_hsm import COLLECTION, SETUP, WRONG_SETUP, fill, wrap_ppin

DOCUMENT = COLLECTION / "docs/faults.md"

FAULTS = {}


def fault(name):
    """A generator that makes a fault and yields the options of the run that meets it; it may unmake it afterwards.

    Without others, the run updates the secret of P2 with a new setup password.
    """

    def register(function):
        FAULTS[name] = contextlib.contextmanager(function)
        return function

    return register


# The HSM


@fault("No HSM can be reached")
def unreachable(client):
    client.hsm("network", state="down")
    yield {"retries": 1}


@fault("One HSM of the cluster is down")
def one_down(client):
    client.hsm("network", node="0", state="down")
    yield {}


@fault("The HSM is slower than `timeout`")
def slow(client):
    client.hsm("slow", seconds=10)
    yield {"timeout": 3, "retries": 2}
    client.hsm("slow", seconds=0)


class Forwarder(socketserver.ThreadingTCPServer):
    """Stands between ppin and a node of the HSM, and lets nothing more of its answers through once it has judged."""

    daemon_threads = True

    def __init__(self, address, judged, close):
        super().__init__(("127.0.0.1", 0), None)
        self.address, self.judged, self.close = address, judged, close
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def finish_request(self, request, client_address):
        with socket.create_connection(self.address) as node:
            threading.Thread(target=self.forward, args=(request, node), daemon=True).start()
            judged = self.judged()
            while True:
                block = node.recv(65536)
                if not block or (self.close and self.judged() > judged):
                    break
                if self.judged() == judged:
                    request.sendall(block)

    @staticmethod
    def forward(source, target):
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def answers_lost(client, kind, close=False):
    """The answers to logins of a kind are lost, in silence or with the connection."""
    before = client.config.read_text()
    config = libconf.loads(before)
    servers = []
    for hsm in config["primus"]["hsms"].values():
        address = hsm["host"], int(hsm["port"])
        servers.append(Forwarder(address, lambda: len(client.hsm.logins(kind)), close))
        hsm["port"] = str(servers[-1].server_address[1])
    client.config.write_text(libconf.dumps(config))
    yield
    client.config.write_text(before)
    for server in servers:
        server.shutdown()
        server.server_close()


@fault("The answer to the login is lost, and the setup password is wrong")
def answer_lost(client):
    client.set(timeout=3)
    with answers_lost(client, "setup"):
        yield {"setup_password": WRONG_SETUP, "retries": 2}


@fault("The connection breaks before the answer to the login, and the setup password is wrong")
def connection_lost(client):
    with answers_lost(client, "setup", close=True):
        yield {"setup_password": WRONG_SETUP, "retries": 1}


@fault("The answer to the login that verifies is lost, and the secret is no longer accepted")
def answer_to_test_lost(client):
    client.set(timeout=3)
    client.hsm("rotate-secret", partition="P2")
    with answers_lost(client, "permanent"):
        yield {"state": "present", "verify": "always"}


@fault("The connection breaks before the answer to the login that verifies, and the secret is no longer accepted")
def connection_of_test_lost(client):
    client.hsm("rotate-secret", partition="P2")
    with answers_lost(client, "permanent", close=True):
        yield {"state": "present", "verify": "always"}


@fault("No HSM can be reached between the fetch and the login that verifies it")
def unreachable_afterwards(client):
    client.before_test("network", "down")
    yield {"retries": 0}


@fault("The setup password is wrong")
def wrong(client):
    yield {"setup_password": WRONG_SETUP}


@fault("The setup password has expired")
def expired(client):
    client.hsm("expire", partition="P2")
    yield {}


@fault("The setup password expires between prompt and answer")
def expires(client):
    client.hsm("expire-during", partition="P2")
    yield {}


@fault("The HSM's clock jumps beyond the validity of a setup password that was used")
def hsm_clock(client):
    client.secret(state="updated", force=True)
    client.hsm("advance", seconds=4 * 86400)
    yield {"setup_password": SETUP["P2"], "force": True}


@fault("The partition is disabled")
def disabled(client):
    client.hsm("disable", partition="P2")
    yield {}


@fault("The partition is disabled between prompt and answer")
def is_disabled(client):
    client.hsm("disable-during", partition="P2")
    yield {}


@fault("The partition is locked already")
def locked(client):
    client.hsm("lock", partition="P2")
    yield {}


# The service proxy


@fault("The service proxy is down")
def proxy_down(client):
    client.hsm("proxy", state="down")
    yield {"partition": "P1", "retries": 0}


@fault("The service proxy password was changed at the proxy")
def proxy_password(client):
    client.hsm("set-proxy-password", user="svc1", value="another")
    yield {"partition": "P1"}


# ppin and other runs


@fault("`ppin` is killed after the login")
def ppin_killed(client):
    client.set(kill_at="after-login")
    yield {}


@fault("`ppin` is killed while it writes")
def ppin_killed_writing(client):
    client.set(kill_at_write=2)
    yield {}


@fault("`ppin` hangs")
def ppin_hangs(client):
    client.set(hang_at="after-password")
    yield {"timeout": 3}


@fault("Another run works on the client for longer than `timeout`")
def other_run(client):
    folder = os.open(client.etc, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    yield {"timeout": 1}
    os.close(folder)


@fault("Somebody changes `.secrets.cfg` during the run")
def by_hand(client):
    wrap_ppin(client.ppin, f'case "$*" in *-u*) echo >> {client.secrets};; esac\nexec "$0.real" "$@"')
    yield {}


# The files


@contextlib.contextmanager
def mounted(*arguments):
    if subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(arguments[-1])], check=True)


@contextlib.contextmanager
def small_disk(client, free):
    """The client's folder becomes a file system with that many free pages."""
    etc = client.etc
    copy = client.home / "copy"
    shutil.copytree(etc, copy)
    with mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs", etc):
        for path in copy.iterdir():
            shutil.copy2(path, etc)
        fill(etc)
        os.truncate(etc / "filler", (etc / "filler").stat().st_size - free * 4096)
        yield


@fault("The disk is full")
def disk_full(client):
    with small_disk(client, 0):
        yield {}


@fault("The disk gets full while `ppin` runs")
def disk_fills(client):
    fills = f"dd if=/dev/zero of={client.etc}/more bs=4096 2>/dev/null"
    with small_disk(client, 10):
        wrap_ppin(client.ppin, f'case "$*" in *-u*) {fills};; esac\nexec "$0.real" "$@"')
        yield {}
        (client.etc / "more").unlink()


@fault("The file system is read-only")
def read_only(client):
    with mounted("--bind", client.etc, client.etc):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(client.etc)], check=True)
        yield {}
    assert client.hsm.logins() == []


@fault("`.secrets.cfg` is a symbolic link")
def symbolic_link(client):
    target = client.home / "elsewhere"
    target.mkdir()
    shutil.move(client.secrets, target)
    client.secrets.symlink_to(target / client.secrets.name)
    yield {}
    assert client.secrets.is_symlink()


@fault("`.secrets.cfg` has another name (hard link)")
def hard_link(client):
    os.link(client.secrets, client.home / "another")
    yield {}


@fault("`.secrets.cfg` is mounted (bind mount)")
def bind_mount(client):
    shutil.copy2(client.secrets, client.home / "another")
    with mounted("--bind", client.home / "another", client.secrets):
        yield {}


@fault("`.secrets.cfg` is immutable (`chattr +i`)")
def immutable(client):
    if subprocess.run(["chattr", "+i", str(client.secrets)], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files, or they are not for this user")
    yield {}
    subprocess.run(["chattr", "-i", str(client.secrets)], check=True)


@fault("`.secrets.cfg` belongs to another user, and root runs the task")
def of_another(client):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(client.secrets, 4711, 4712)
    client.secrets.chmod(0o640)
    yield {}
    status = client.secrets.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (4711, 4712, 0o640)


@contextlib.contextmanager
def without_rights(client):
    """The module runs without the rights that root has on all files, as where SELinux forbids it."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can give files and rights away")
    client.prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
    yield
    client.prefix = []


@fault("`.secrets.cfg` may not be read")
def unreadable(client):
    with without_rights(client):
        os.chown(client.secrets, 4711, 4712)
        yield {}


@fault("The directory of `.secrets.cfg` may not be written")
def folder_of_another(client):
    with without_rights(client):
        os.chown(client.etc, 4711, 4712)
        yield {}


@fault("`.secrets.cfg` is only half there")
def half(client):
    client.secrets.write_bytes(client.secrets.read_bytes()[:200])
    yield {}


@fault("The ledger is damaged")
def ledger(client):
    client.ledger.write_text('{"version": 99}')
    yield {}


# The client's clock

CLOCK = """
import random, time
real, jump = time.time, %s
time.time = lambda: real() + jump()
gmtime, localtime, strftime = time.gmtime, time.localtime, time.strftime
time.gmtime = lambda seconds=None: gmtime(time.time() if seconds is None else seconds)
time.localtime = lambda seconds=None: localtime(time.time() if seconds is None else seconds)
time.strftime = lambda form, when=None: strftime(form, when or time.localtime())
"""


@contextlib.contextmanager
def clock(client, jump):
    """The module's clock goes wrong; that of ppin does not, which would be a matter of its certificates."""
    folder = client.home / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CLOCK % jump)
    client.python_path.append(str(folder))
    yield
    client.python_path.remove(str(folder))


def set_again_with_a_right_clock(client):
    result = client.secret(state="updated", setup_password=client.new)
    assert (result["action"], result["changed"]) == ("none", False)


@fault("The client's clock is thirty years ahead")
def clock_ahead(client):
    with clock(client, "lambda: 30 * 365 * 86400"):
        yield {}
    assert "2056" not in client.info()["version"]
    set_again_with_a_right_clock(client)


@fault("The client's clock is thirty years behind")
def clock_behind(client):
    with clock(client, "lambda: -30 * 365 * 86400"):
        yield {}
    set_again_with_a_right_clock(client)


@fault("The client's clock jumps by years again and again during the run")
def clock_jumps(client):
    with clock(client, "lambda: random.randint(-10, 10) * 365 * 86400"):
        yield {}
    set_again_with_a_right_clock(client)


# The table


def secrets_of(client):
    return {path.name: path.read_bytes() for path in client.etc.iterdir() if path.is_file()}


def meet(client, name):
    """Let a run meet a fault; the row of the table that tells of it."""
    client.new = client.hsm.new_setup_password("P2")
    with FAULTS[name](client) as options:
        options = dict(options)
        partition = options.pop("partition", "P2")
        before, trials = secrets_of(client), client.hsm.trials(partition)
        new = client.new if partition == "P2" else client.hsm.new_setup_password(partition)
        result = client.secret(partition, **{"state": "updated", "setup_password": new, **options})
        after = secrets_of(client)
    assert not [path for path in client.etc.iterdir() if path.is_dir()]

    def plain(text):
        text = re.sub(r"[^ ]*/etc/(?=\.secrets|primus)", "/etc/primus/", text.replace(str(client.etc), "/etc"))
        return text.replace("|", "\\|").replace("/etc/primus/primus/", "/etc/primus/")

    if result.get("failed"):
        hint = result["error"]["hint"]
        assert result["msg"].endswith(" " + hint)
        sees = f"`{result['error']['class']}`: {plain(result['msg'][: -len(hint) - 1])}"
        by_others = {".secrets.cfg": before[".secrets.cfg"] + b"\n"} if "another process" in sees else {}
        assert {**before, **by_others} == after and result["changed"] is False
        left = "`.secrets.cfg` as it was"
    else:
        sees = "".join(f"; warning: {plain(warning)}" for warning in warnings_of(result))
        sees = f"{result['action']}{sees}"
        left = "the new secret"
        assert before[".secrets.cfg"] != after[".secrets.cfg"] or client.secrets.is_symlink()
    wrong = client.hsm.trials(partition) - trials
    return f"| {name} | {sees} | {left} | {wrong} |"


def warnings_of(result):
    warnings = result.get("warnings", [])
    return [w if isinstance(w, str) else w["event"]["msg"] for w in warnings]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_shows_and_leaves_what_the_row_says(configured, name):
    row = meet(configured, name)
    documented = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| {name} |")]
    assert documented == [row], f"ROW {row}"


def test_a_rejection_behind_a_service_proxy_names_the_other_suspect(configured):
    configured.hsm("set-proxy-password", user="svc1", value="another")
    result = configured.secret("P1", state="updated", setup_password=configured.hsm.new_setup_password("P1"))
    assert "the service proxy rejected the password of 'svc1'" in result["error"]["hint"]
    assert "svc1" not in configured.secret("P2", state="updated", setup_password=WRONG_SETUP)["msg"]


def test_the_document_has_no_other_rows():
    tables = DOCUMENT.read_text().split("| wrong attempts |\n| --- | --- | --- | --- |\n")[1:]
    rows = "\n".join(table.rstrip().split("\n\n", 1)[0] for table in tables)
    assert [line.split("|")[1].strip() for line in rows.splitlines()] == list(FAULTS)
