# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates and removes the hosts of the scenarios: Debian hosts without a container engine.

debootstrap creates a base tree once and keeps it in ${XDG_CACHE_HOME:-~/.cache}/hsmops-primus. A host is an overlay
over that tree with namespaces of its own (mount, process, host name, IPC, network) in which sshd is the first process:
when that process ends, the kernel ends the others and removes the mounts and the network. All hosts of a scenario are
connected to one bridge, and the emulator listens on the bridge's address; no host has a route to anywhere else.

    hosts.py create DIR --emulator CONFIG < PLATFORMS    starts the hosts that do not run, lists all
    hosts.py destroy DIR                                 removes everything, also after a failed create

DIR belongs to one scenario; its last component (at most 8 characters) names the bridge. PLATFORMS is molecule's list as
JSON: `[{"name": "host1", "packages": ["dnf"]}, …]`, packages (optional) being what the host has beyond PACKAGES. Both
commands print JSON: `{"changed": bool}`, and create also "instances", a list in the form of molecule's instance_config:
`{"instance", "address", "user", "port", "identity_file"}` each.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

# What Ansible and the roles' tasks need of a host, and what the emulated provider package depends on: hosts cannot
# download. python3-cffi-backend is named because debootstrap does not follow dependencies on virtual packages.
PACKAGES = [
    "ca-certificates",
    "iproute2",
    "logrotate",
    "openssh-server",
    "python3",
    "python3-apt",
    "python3-pexpect",
    "rsyslog",
    "python3-cffi-backend",
    "python3-cryptography",
    "python3-libconf",
    "softhsm2",
]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hsmops-primus"
EMULATOR = Path(__file__).resolve().parents[3] / "tests" / "emulator"
EMULATOR_PORT = 2310
NETWORK = ipaddress.ip_network("10.77.0.0/16")  # each scenario takes a /24 of it
PATIENCE = 60  # seconds until a host that does not answer, or does not end, is a failure

# Runs as the first process of a host, with BASE, DIR and NAME as $1 to $3, and ends as its sshd.
BOOT = """
set -e
hostname "$3"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
echo "$3" >etc/hostname
cp "$2/hosts" etc/hosts
install -d -m 700 root/.ssh
install -m 600 "$2/../key.pub" root/.ssh/authorized_keys
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/sshd run/lock
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,gid=5,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
printf '%s\\n' 'module(load="imuxsock")' '*.* /var/log/syslog' >etc/rsyslog.conf
pivot_root . .
umount -l .
cd /
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin rsyslogd
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /usr/sbin/sshd -D -e -o UsePAM=no -o UseDNS=no -o MaxStartups=100 -o MaxSessions=100
"""


def run(*argv: str) -> str:
    """Runs a command and returns what it prints; ends the program with the command's own words when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"`{' '.join(argv)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def wait_for(what: str, condition):
    """Returns the first true result of `condition()`, or ends the program saying `what` did not happen."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"After {PATIENCE} seconds, {what}.")
        time.sleep(0.05)
    return result


@contextlib.contextmanager
def locked():
    """One at a time on this machine: two scenarios must neither build the same tree nor take the same network."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# Processes: known by pid and start time, so that a pid that was given to somebody else since is never taken for ours.


def started(pid: int) -> str | None:
    """The start time of a process in clock ticks since boot, None when there is no such process or it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else fields[18]


def record(pid_file: Path, pid: int) -> None:
    pid_file.write_text(f"{pid} {started(pid)}\n")


def recorded(pid_file: Path) -> int | None:
    """The pid in a file when that process still runs, None otherwise."""
    if not pid_file.exists():
        return None
    pid, _blank, start = pid_file.read_text().strip().partition(" ")
    return int(pid) if pid and started(int(pid)) == start else None


def end(pid_file: Path, with_signal: signal.Signals) -> None:
    pid = recorded(pid_file)
    if pid:
        os.kill(pid, with_signal)
        wait_for(f"process {pid} ({pid_file}) has not ended", lambda: recorded(pid_file) is None)


# The base tree


def archive(apt: Path = Path("/etc/apt")) -> tuple[str, str, str]:
    """URI, suite and components (separated by commas) of the first archive among apt's own sources."""
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.*"))]:
        if path.suffix == ".sources":
            for stanza in path.read_text().split("\n\n"):
                lines = (line.partition(":") for line in stanza.splitlines() if not line.startswith((" ", "#")))
                fields = {name.lower(): value.split() for name, _colon, value in lines}
                if "deb" in fields.get("types", []):
                    return fields["uris"][0], fields["suites"][0], ",".join(fields["components"])
        elif path.suffix == ".list" and path.exists():
            for line in path.read_text().splitlines():
                # deb [option=value …] URI suite component …
                if found := re.match(r"deb\s+(?:\[.*?\]\s*)?(\S+)\s+(\S+)\s+([^#]+)", line):
                    return found[1], found[2], ",".join(found[3].split())
    sys.exit("No Debian archive is among apt's sources (/etc/apt/sources.list, /etc/apt/sources.list.d).")


def base_tree(extra_packages: list[str]) -> Path:
    """The tree of a Debian host with these packages, made unless it is in the cache."""
    uri, suite, components = archive()
    packages = ",".join(sorted({*PACKAGES, *extra_packages}))
    name = f"{suite}-{hashlib.sha256(packages.encode()).hexdigest()[:12]}"
    tree, partial, log = CACHE / name, CACHE / f"{name}.partial", CACHE / f"{name}.log"
    if tree.is_dir():
        return tree
    shutil.rmtree(partial, ignore_errors=True)
    options = ["--variant=minbase", f"--components={components}", f"--include={packages}"]
    # In a mount namespace of its own: what debootstrap mounts in the tree goes with it, even when it is killed.
    command = ["unshare", "--mount", "debootstrap", *options, suite, str(partial), uri]
    with log.open("w") as output:
        failed = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    if failed:
        sys.exit(f"debootstrap could not make the hosts' tree ({log}): {' '.join(log.read_text().splitlines()[-3:])}")
    for package in (partial / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    partial.rename(tree)
    return tree


# The network


def addresses() -> dict[str, ipaddress.IPv4Interface]:
    """The IPv4 addresses of this machine's interfaces, one for each interface's name."""
    return {
        link["ifname"]: ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}")
        for link in json.loads(run("ip", "-json", "-4", "addr", "show"))
        for info in link["addr_info"]
    }


def bridge(name: str) -> ipaddress.IPv4Interface:
    """The address of the scenario's bridge, which is made when there is none."""
    taken = addresses()
    if name in taken:
        return taken[name]
    remove_link(name)  # left without an address by a create that was interrupted
    free = next(n for n in NETWORK.subnets(new_prefix=24) if not any(n.overlaps(a.network) for a in taken.values()))
    address = ipaddress.ip_interface(f"{free[1]}/24")
    run("ip", "link", "add", name, "type", "bridge")
    run("ip", "addr", "add", str(address), "dev", name)
    run("ip", "link", "set", name, "up")
    return address


def remove_link(name: str) -> None:
    """Removes a link if it is there; it may also go by itself in this moment, with the namespace of its other end."""
    subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
    if Path("/sys/class/net", name).exists():
        sys.exit(f"The network link {name} cannot be removed.")


def speaks_ssh(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


# The whole


def start_host(directory: Path, name: str, base: Path, link: str, address: str, hosts: str) -> None:
    host = directory / name
    shutil.rmtree(host, ignore_errors=True)
    for part in ("upper", "work", "root"):
        (host / part).mkdir(parents=True)
    (host / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
    namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork"]
    with (host / "log").open("w") as log:
        outer = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", BOOT, "boot", str(base), str(host), name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    pid = wait_for(
        f"host {name} has not started, see {host / 'log'}", lambda: children.exists() and children.read_text().split()
    )[0]
    record(host / "pid", int(pid))
    remove_link(link)
    run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pid)
    run("ip", "link", "set", link, "master", f"pt{directory.name}", "up")
    for command in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
        run("nsenter", "--target", pid, "--net", "ip", *command.split())
    wait_for(f"sshd of {name} does not answer, see {host / 'log'}", lambda: speaks_ssh(address))


def start_emulator(directory: Path, config: Path, bind: str) -> None:
    state = directory / "emulator"
    command = [sys.executable, "-m", "primus_emulator", "serve", "--daemon", "--state", state, "--config", config]
    done = subprocess.run(
        [*command, "--bind", bind, "--ports", str(EMULATOR_PORT)],
        env={**os.environ, "PYTHONPATH": str(EMULATOR)},
        stdin=subprocess.DEVNULL,
        stdout=(directory / "emulator.log").open("w"),
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        sys.exit(f"The emulator did not start: {(directory / 'emulator.log').read_text().strip()}")
    record(directory / "emulator.pid", json.loads((state / "endpoint.json").read_text())["pid"])


def create(directory: Path, platforms: list[dict], emulator_config: Path) -> dict:
    changed = False
    directory.mkdir(parents=True, exist_ok=True)
    # Memory, not disk: an overlay's upper layer may not lie on an overlay, and a machine's disk may be one.
    if not directory.is_mount():
        run("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(directory))
    key = directory / "key"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test hosts", "-f", str(key))
    own = bridge(f"pt{directory.name}")
    address = {platform["name"]: str(own.network[10 + i]) for i, platform in enumerate(platforms)}
    hosts = "".join(f"{ip} {name}\n" for name, ip in address.items())
    for i, platform in enumerate(platforms):
        name = platform["name"]
        if not recorded(directory / name / "pid"):
            base = base_tree(platform.get("packages", []))
            start_host(directory, name, base, f"pt{directory.name}-{i}", address[name], hosts)
            changed = True
    if not recorded(directory / "emulator.pid"):
        start_emulator(directory, emulator_config, str(own.ip))
        changed = True
    return {
        "changed": changed,
        "instances": [
            {"instance": name, "address": ip, "user": "root", "port": 22, "identity_file": str(key)}
            for name, ip in address.items()
        ],
    }


def destroy(directory: Path) -> dict:
    changed = directory.exists()
    for pid_file in directory.glob("*/pid"):
        end(pid_file, signal.SIGKILL)  # the first process of its namespace: with it go all others
    end(directory / "emulator.pid", signal.SIGTERM)
    # A connection that was still open holds a dead host's network for minutes, and with it the link.
    for link in Path("/sys/class/net").glob(f"pt{directory.name}*"):
        remove_link(link.name)
    if directory.is_mount():
        run("umount", str(directory))
    if changed:
        shutil.rmtree(directory)
    return {"changed": changed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    creating = commands.add_parser("create")
    creating.add_argument("directory", type=Path)
    creating.add_argument("--emulator", type=Path, required=True, metavar="CONFIG", help="the emulator's configuration")
    commands.add_parser("destroy").add_argument("directory", type=Path)
    args = parser.parse_args()
    if os.geteuid():
        sys.exit("Test hosts are made of mounts and network namespaces, so this must be run as root.")
    missing = [
        tool for tool in ("debootstrap", "ip", "nsenter", "ssh", "ssh-keygen", "unshare") if not shutil.which(tool)
    ]
    if missing:
        sys.exit(f"Not installed: {', '.join(missing)} (Debian: debootstrap iproute2 openssh-client util-linux).")
    with locked():
        if args.command == "create":
            print(json.dumps(create(args.directory, json.load(sys.stdin), args.emulator)))
        else:
            print(json.dumps(destroy(args.directory)))


if __name__ == "__main__":
    main()
