# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of a module that are killed, or cut off from power, and what is left of the client then.

A Trial is one client of an emulated HSM whose files can be put back to where a scenario starts. After each death it
looks at what is left, lets the next ordinary run come at once, and names whatever is worse than it was.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from emulated_hsm import COLLECTION, COLLECTIONS, PINS, PROXY_PASSWORD, SETUP, WRONG_SETUP, working_copies
from fleet import ansible_playbook
from primus_emulator.client import install, set_behaviour

NEW = "AAAAA-BBBBB-CCCCC-DDDDD-EEE22"
"""A second setup password of P2; the emulated HSM must be given it."""

ALL, NO_P2, NO_PROXY = "all", "without P2", "only P2"

_SETUP = {"user_name": "P2", "setup_password": SETUP["P2"], "pkcs11_password": PINS["P2"]}
_PROXY = {"service_user": "svc1", "password": PROXY_PASSWORD}

# Where it starts, the module, the options of the run that is killed, and those in which the next ordinary run differs.
SCENARIOS = {
    "secret added": (NO_P2, "ppin_secret", _SETUP, {}),
    "secret updated": (ALL, "ppin_secret", {**_SETUP, "setup_password": NEW, "state": "updated"}, {}),
    "secret update rejected": (
        ALL, "ppin_secret", {**_SETUP, "setup_password": WRONG_SETUP, "state": "updated"}, {"setup_password": NEW},
    ),
    "secret removed": (ALL, "ppin_secret", {"user_name": "P2", "state": "absent"}, {}),
    "proxy added": (NO_PROXY, "ppin_proxy", _PROXY, {}),
    "proxy updated": (ALL, "ppin_proxy", {**_PROXY, "state": "updated", "force": True}, {"force": False}),
    "proxy removed": (ALL, "ppin_proxy", {"service_user": "svc1", "state": "absent"}, {}),
}  # fmt: skip

COPY = "copy:"
"""What the names of working copies begin with, which are not in the client's directory."""

EXPECTED_FILES = {"primus.cfg", "emulator.json", ".secrets.cfg", ".secrets.cfg.ledger"}
"""What may be in the directory after the next ordinary run."""

PRIVATE = "/hsmops.primus-"
"""A part of the path of the private directories, where ppin's copy is."""

# System calls that change files or processes. Others (stat, read) need no kill: they change nothing.
SYSCALLS = (
    "openat,creat,write,pwrite64,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,symlink,symlinkat,mkdir,"
    "mkdirat,fsync,fremovexattr,"
    "fdatasync,fchown,chown,lchown,fchmod,chmod,fchmodat,sendfile,copy_file_range,rmdir,utimensat,setxattr,lsetxattr,fsetxattr,flock,clone,clone3,"
    "fork,vfork,execve,kill,wait4,close"
)
_PROCESS = ("clone", "clone3", "fork", "vfork", "execve", "kill", "wait4")


class Trial:
    """One client, with P1 behind the service proxy svc1 and P2 not, and the scenarios on it."""

    def __init__(self, hsm, home: Path):
        self.hsm, self.home, self.etc = hsm, home, home / "etc"
        self.secrets = self.etc / ".secrets.cfg"
        install(str(home), str(hsm.state), ["P1:0:svc1", "P2:1"], {})
        hsm("new-setup-password", partition="P2", value=NEW, keep=True)
        self._configured = {}  # by content of the secrets file: what logs in with it
        self.starts = {}
        self._must(self.run("ppin_proxy", _PROXY))
        self._must(self.run("ppin_secret", {**_SETUP, "user_name": "P1", "setup_password": SETUP["P1"],
                                            "pkcs11_password": PINS["P1"]}))  # fmt: skip
        self.starts[NO_P2] = self.files()
        self._must(self.run("ppin_secret", _SETUP))
        self.starts[ALL] = self.files()
        self._must(self.run("ppin_secret", {"user_name": "P1", "state": "absent"}))
        self._must(self.run("ppin_proxy", {"service_user": "svc1", "state": "absent"}))
        self.starts[NO_PROXY] = self.files()

    @staticmethod
    def _must(result):
        assert not result.get("failed") and result["changed"], result

    # The client's files

    def files(self):
        """Name to (content, mode, owner) of what may differ between two runs. Names and modes include the directory's.

        The name of a directory ends with a slash, its content is empty. The mode is what others than the owner can do.
        """
        found = {}

        def look(folder, prefix, mask):
            for path in folder.iterdir():
                if prefix or path.name not in ("primus.cfg", "emulator.json"):
                    with contextlib.suppress(FileNotFoundError):  # a process that still runs removed it
                        status = path.lstat()
                        mode = status.st_mode & mask
                        if path.is_dir():
                            found[f"{prefix}{path.name}/"] = b"", mode & 0o777, status.st_uid
                            look(path, f"{prefix}{path.name}/", mode | 0o700)
                        else:
                            found[prefix + path.name] = path.read_bytes(), mode & 0o7777, status.st_uid

        look(self.etc, "", 0o7777)
        for copy in working_copies(self.secrets):
            with contextlib.suppress(FileNotFoundError):
                status = copy.stat()
                mode = status.st_mode & copy.parent.stat().st_mode & 0o7777
                found[f"{COPY}{copy.parent.name}"] = copy.read_bytes(), mode, status.st_uid
        return found

    def put(self, files):
        for path in self.etc.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in ("primus.cfg", "emulator.json"):
                path.unlink()
        for copy in working_copies(self.secrets):
            shutil.rmtree(copy.parent, ignore_errors=True)
        for name, (content, mode, _owner) in files.items():
            if name.startswith(COPY):
                continue
            path = self.etc / name
            path.parent.mkdir(0o700, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(0o700, exist_ok=True)
            else:
                path.write_bytes(content)
                path.chmod(mode)

    def begin(self, scenario, **behaviour):
        """Put the client and the HSM to where the scenario starts."""
        self.hsm("unlock", partition="P2")
        set_behaviour(str(self.home), behaviour, clear=True)
        self.put(self.starts[SCENARIOS[scenario][0]])

    # Runs

    def options(self, options):
        paths = {"primus_home": self.home, "config_path": self.etc / "primus.cfg", "secrets_path": self.secrets}
        return {**{name: str(path) for name, path in paths.items()}, **options}

    def start(self, module, options, prefix=()):
        """Start a module as Ansible does, with what is before it on the command line."""
        process = subprocess.Popen(
            [*prefix, sys.executable, str(COLLECTION / f"plugins/modules/{module}.py")],
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": self.options(options)}).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, module, options):
        out = self.start(module, options).communicate(timeout=120)[0]
        try:
            return json.loads(out)
        except ValueError:
            return {"failed": True, "msg": out.decode(errors="replace")}

    def start_scenario(self, scenario, prefix=()):
        _start, module, options, _next = SCENARIOS[scenario]
        return self.start(module, options, prefix)

    # Checks

    def logs_in(self, content):
        """What a client with this secrets file can do: the partitions that log in at every HSM, by real logins.

        P1 logs in only through the service proxy, so it tells of the proxy password too. None: ppin cannot read it.
        """
        if content not in self._configured:
            copy = self.home / "looked-at"
            copy.write_bytes(content)
            argv = [str(self.home / "bin/ppin"), "-c", str(self.etc / "primus.cfg"), "-s", str(copy)]
            behaviour = (self.etc / "emulator.json").read_text()
            set_behaviour(str(self.home), {}, clear=True)
            listing = subprocess.run([*argv, "-l"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            tested = subprocess.run([*argv, "--test"], stdout=subprocess.PIPE, check=False).stdout
            logging_in = {name for name in SETUP if tested.count(b"user=%s: OK\n" % name.encode()) == 2}
            self.hsm("unlock", partition="P1")
            self.hsm("unlock", partition="P2")
            (self.etc / "emulator.json").write_text(behaviour)
            readable = listing.returncode == 0
            states = re.findall(rb"'(\w+)' *permanent secret: (\w+)", listing.stdout)
            listed = {name.decode() for name, state in states if state == b"Configured"}
            self._configured[content] = (logging_in, listed) if readable else None
        return self._configured[content]

    def judge(self, scenario, left):
        """Let the next ordinary run come, and name all that is worse than before. left: by the interrupted run."""
        start, module, options, differs = SCENARIOS[scenario]
        before = self.logs_in(self.starts[start][".secrets.cfg"][0])
        options = {**options, **differs}
        set_behaviour(str(self.home), {}, clear=True)
        result = self.run(module, options)
        after = self.files()
        subject = options.get("user_name") or options["service_user"]
        absent = options.get("state") == "absent"

        faults = []
        # Until the next run, which may be days away, the applications of this client work with what is left.
        now = self.logs_in(left[".secrets.cfg"][0]) if ".secrets.cfg" in left else None
        if now is None:
            faults.append("at rest: .secrets.cfg is broken or gone")
        else:
            lost = before[1] - now[1] - ({subject} if absent else set())
            if lost:
                faults.append(f"at rest: no credential of {sorted(lost)}")
            gone = {subject, "P1"} if subject == "svc1" else {subject}  # P1 logs in through the service proxy
            dead = before[0] - now[0] - lost - (gone if absent else set())
            if dead:
                faults.append(f"at rest: no login of {sorted(dead)}")
        for name, (content, mode, owner) in left.items():
            allowed = self.starts[start][".secrets.cfg"]
            if mode & 0o077 & ~allowed[1] or owner != allowed[2]:
                faults.append(f"at rest: {name} has mode {mode:o} and owner {owner}, {len(content)} bytes")

        if result.get("failed"):
            faults.append(f"the next run fails: {result['msg']}")
        if result.get("warnings"):
            faults.append(f"the next run warns: {result['warnings']}")
        then = self.logs_in(after[".secrets.cfg"][0]) if ".secrets.cfg" in after else None
        wanted = (before[1] - {subject}) if absent else (before[1] | {subject})
        if then is None:
            faults.append("after the next run: .secrets.cfg is broken or gone")
        else:
            if then[1] != wanted:
                faults.append(f"after the next run: {sorted(then[1])} instead of {sorted(wanted)}")
            logins = {name for name in wanted if name in SETUP and (name != "P1" or "svc1" in wanted)}
            if then[0] != logins:
                faults.append(f"after the next run: {sorted(then[0])} log in instead of {sorted(logins)}")
        if set(after) - EXPECTED_FILES:
            faults.append(f"after the next run: {sorted(set(after) - EXPECTED_FILES)} is left")
        if ".secrets.cfg" in after and after[".secrets.cfg"][1:] != self.starts[start][".secrets.cfg"][1:]:
            faults.append("after the next run: mode or owner of .secrets.cfg differ")
        return faults


# Every system call of the module


def syscalls(trial, scenario, log):
    """The points of a scenario: (name of a system call, which of that name), in order, of those that count.

    These are the calls from the lock on that touch the client's directory or a terminal, or start or end a process.
    """
    trial.begin(scenario)
    process = trial.start_scenario(scenario, ["strace", "-y", "-o", str(log), "-e", f"trace={SYSCALLS}"])
    out = process.communicate(timeout=120)[0]
    assert json.loads(out)["changed"] or b"rejected" in out, out
    counts, points, locked = {}, [], False
    for line in log.read_text(errors="replace").splitlines():
        name = line.split("(", 1)[0]
        if not name.isidentifier():
            continue
        counts[name] = counts.get(name, 0) + 1
        locked = locked or name == "flock"
        if locked and (str(trial.etc) in line or PRIVATE in line or "/dev/pt" in line or name in _PROCESS):
            points.append((name, counts[name]))
    return points


def kill_at_syscall(trial, scenario, point, log):
    """Kill the module as it enters a system call. Returns what it left, and whether it was really killed there."""
    name, number = point
    trial.begin(scenario)
    options = ["-o", str(log), "-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={number}"]
    process = trial.start_scenario(scenario, ["strace", *options])
    process.communicate(timeout=120)
    return trial.files(), "+++ killed by SIGKILL +++" in log.read_text(errors="replace")


# ppin


def writes(trial):
    """How many writes, of 64 bytes each, the largest secrets file of a start takes."""
    return max(len(files[".secrets.cfg"][0]) for files in trial.starts.values()) // 64 + 1


def kill_ppin(trial, scenario, behaviour):
    trial.begin(scenario, **behaviour)
    trial.start_scenario(scenario).communicate(timeout=120)
    return trial.files()


# At some time


def children(pid):
    """The processes that a process has started and that have not ended."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def descendants(pid):
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def command(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def end(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_module_at(trial, scenario, seconds):
    """Kill the module after some time; returns what it left, and whether it still ran."""
    trial.begin(scenario)
    process = trial.start_scenario(scenario)
    time.sleep(seconds)
    alive = process.poll() is None
    end(process.pid)
    process.wait()
    left = trial.files()
    process.stdout.close()
    return left, alive


def kill_ppin_at(trial, scenario, seconds):
    """Kill the ppin that runs after some time, or the next one; what is left, and whether there was one."""
    trial.begin(scenario)
    process = trial.start_scenario(scenario)
    time.sleep(seconds)
    killed = False
    while process.poll() is None and not killed:
        for child in children(process.pid):
            end(child)
            killed = True
        time.sleep(0.001)
    process.communicate(timeout=120)
    return trial.files(), killed


class Playbook:
    """A scenario as a task of ansible-playbook, over the local connection, or over ssh to an sshd of our own."""

    def __init__(self, trial, folder):
        self.trial, self.folder, self.sshd = trial, folder, None
        folder.mkdir(exist_ok=True)
        self.variables = {"ansible_python_interpreter": sys.executable, "ansible_connection": "local"}

    @contextlib.contextmanager
    def over_ssh(self, port):
        """Have the runs go over ssh, as the present user. sshd is started on the loopback address, and ended."""
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", self.folder / name], check=True)
        (self.folder / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {self.folder}/user.pub\nPermitRootLogin yes\nUsePAM no\n"
            "Subsystem sftp internal-sftp\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd wants it
        self.sshd = subprocess.Popen([shutil.which("sshd"), "-D", "-e", "-f", self.folder / "sshd_config"],
                                     stderr=subprocess.DEVNULL)  # fmt: skip
        self.variables.update(
            ansible_connection="ssh",
            ansible_host="127.0.0.1",
            ansible_port=port,
            ansible_ssh_private_key_file=str(self.folder / "user"),
            ansible_ssh_common_args="-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlMaster=no",
        )
        try:
            yield self
        finally:
            self.sshd.terminate()
            self.sshd.wait(10)

    def start(self, scenario, pipelining):
        _start, module, options, _next = SCENARIOS[scenario]
        task = {"name": "The run that dies", f"hsmops.primus.{module}": {**self.trial.options(options), "gate": False}}
        (self.folder / "play.json").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
        (self.folder / "inventory.json").write_text(json.dumps({"all": {"hosts": {"client": self.variables}}}))
        environment = {"ANSIBLE_PIPELINING": str(int(pipelining))}
        return ansible_playbook(self.folder, environment, "-i", "inventory.json", "play.json", start_new_session=True)

    def kill_at(self, scenario, seconds, victims, pipelining=True):
        """Kill some time after the module has started its first ppin.

        :arg victims: what to kill, of the processes below ansible-playbook or sshd: a function of all their ids.
        Returns what is left, and whether the module still ran.
        """
        self.trial.begin(scenario)
        process = self.start(scenario, pipelining)
        root = self.sshd or process
        while process.poll() is None and not self.ppin_below(root.pid):
            time.sleep(0.005)
        time.sleep(seconds)
        below = descendants(root.pid)
        alive = any(b"ppin" in command(pid) or b"python" in command(pid) for pid in below)
        for pid in victims(process.pid, below):
            end(pid)
        if not self.sshd:
            end(process.pid)
        process.communicate(timeout=120)
        return self.trial.files(), alive and bool(below)

    @staticmethod
    def ppin_below(pid):
        return any(b"/bin/ppin\0" in command(child) for child in descendants(pid))


def the_worker(playbook, below):
    """The worker of ansible-playbook alone; the module goes on."""
    return children(playbook)


def all_but_ppin(playbook, below):
    """The whole process tree of ansible-playbook, down to the module. A ppin that runs is left alone."""
    return [playbook, *(pid for pid in below if b"/bin/ppin\0" not in command(pid))]


def the_session(playbook, below):
    """The processes of sshd for the session."""
    return [pid for pid in below if command(pid).startswith(b"sshd")]


# Power


class Disk:
    """Files of one directory as a power cut may leave them: what was synced, and what else may have got to the disk."""

    def __init__(self, files):
        self.inodes = {number: {"now": content, "synced": content, "cut": False} for number, content in
                       enumerate(files.values())}  # fmt: skip
        self.now = {name: number for number, name in enumerate(files)}
        self.synced = dict(self.now)

    def act(self, event):
        kind, name, *rest = event
        if kind == "sync folder":
            others = {path: number for path, number in self.synced.items() if os.path.dirname(path.rstrip("/")) != name}
            here = {path: number for path, number in self.now.items() if os.path.dirname(path.rstrip("/")) == name}
            self.synced = {**others, **here}
        elif kind == "create":
            self.inodes[len(self.inodes)] = {"now": b"", "synced": None, "cut": False}
            self.now[name] = len(self.inodes) - 1
        elif kind == "create or truncate":
            self.act(("truncate", name, 0) if name in self.now else ("create", name))
        elif kind == "copy":
            self.act(("write", name, 0, self.inodes[self.now[rest[0]]]["now"]))
        elif kind == "rename":
            self.now[rest[0]] = self.now.pop(name)
        elif kind == "unlink":
            del self.now[name]
        else:
            inode = self.inodes[self.now[name]]
            if kind == "sync":
                inode.update(synced=inode["now"], cut=False)
            elif kind == "truncate":
                inode.update(now=inode["now"][: rest[0]], cut=True)
            elif kind == "write":
                place, data = rest
                now = inode["now"].ljust(place, b"\0")
                inode["now"] = now[:place] + data + now[place + len(data) :]

    def cuts(self):
        """By kind, the files that a power cut now may leave: what was not synced is lost, whole, in part, or not."""

        def content(inode, variant):
            now, synced = inode["now"], inode["synced"] or b""
            if now == synced and not inode["cut"]:
                return now
            return {
                "lost": synced,
                "empty": b"" if inode["cut"] or inode["synced"] is None else synced,
                "zeros": b"\0" * len(now),
                "half": now[: len(now) // 2],
                "mixed": now[: len(now) // 2] + synced[len(now) // 2 :],
                "kept": now,
            }[variant]

        for names_kind, names in (("names lost", self.synced), ("names kept", self.now)):
            for variant in ("lost", "empty", "zeros", "half", "mixed", "kept"):
                yield (
                    f"{names_kind}, data {variant}",
                    {name: content(self.inodes[number], variant) for name, number in names.items()},
                )


_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def record(trial, scenario, log):
    """What a run does to the files of the client's directory, in order, the module and ppin alike: events of Disk."""
    trial.begin(scenario)
    calls = "openat,write,pwrite64,ftruncate,truncate,lseek,rename,renameat,renameat2,unlink,unlinkat,link,linkat,"
    calls += "mkdir,mkdirat,rmdir,sendfile,copy_file_range,fsync,fdatasync,close"
    argv = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-o", str(log), "-e", f"trace={calls}"]
    out = trial.start_scenario(scenario, argv).communicate(timeout=300)[0]
    assert json.loads(out)["changed"] or b"rejected" in out, out
    return list(events(log.read_text(errors="replace"), str(trial.etc)))


def _plain(text):
    return bytes.fromhex(text.replace("\\x", ""))


def events(log, folder):
    """Read strace's log. A call that was suspended while another process ran counts where it ended."""
    started, places = {}, {}
    for line in log.splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            started[pid] = line[: -len("<unfinished ...>")].rstrip()
            continue
        if "resumed>" in line:
            line = started.pop(pid) + line.split("resumed>", 1)[1]
        match = _LINE.match(line)
        if not match or int(match[4]) < 0:
            continue
        name, args, value = match[2], match[3], int(match[4])
        # With -xx strace writes the paths of file descriptors in hexadecimal too.
        paths = [_plain(text).decode(errors="replace") for text in re.findall(r"<((?:\\x[0-9a-f]{2})+)>", args)]
        texts = [_plain(text) for text in _TEXT.findall(args)]
        key = pid, args.split("<", 1)[0].split(",", 1)[0]

        def inside(path, folder=folder):
            """The path in the client's directory, or None; that directory itself is the empty string."""
            path = path.decode(errors="replace") if isinstance(path, bytes) else path
            return "" if path == folder else path[len(folder) + 1 :] if path.startswith(folder + "/") else None

        def at(number, paths=paths, texts=texts, inside=inside):
            """The file that a name stands for, in the directory before it."""
            base = paths[number] if number < len(paths) else ""
            return inside(os.path.join(base, texts[number].decode(errors="replace")))

        if name == "openat":
            file = at(0)
            if file:
                places[pid, str(value)] = 0
                if "O_CREAT" in args:
                    assert "O_EXCL" in args or "O_TRUNC" in args, line
                    yield "create or truncate", file
                elif "O_TRUNC" in args:
                    yield "truncate", file, 0
        elif name in ("rename", "renameat", "renameat2"):
            old, new = at(0), at(1)
            if old or new:
                yield "rename", old, new
        elif name in ("unlink", "unlinkat", "rmdir"):
            file = at(0)
            if file:
                yield "unlink", file + ("/" if name == "rmdir" or "AT_REMOVEDIR" in args else "")
        elif name in ("mkdir", "mkdirat"):
            if at(0):
                yield "create", at(0) + "/"
        elif name in ("link", "linkat", "truncate", "pwrite64", "copy_file_range"):
            assert not any(inside(path) for path in [*texts, *paths]), line  # not needed so far
        elif paths and inside(paths[0]) is not None and not paths[0].endswith("(deleted)"):
            file = inside(paths[0])
            if name in ("fsync", "fdatasync"):
                yield ("sync folder" if "O_DIRECTORY" in args or file == "" else "sync"), file
            elif name == "ftruncate":
                yield "truncate", file, int(args.rsplit(",", 1)[1])
            elif name == "lseek":
                places[key] = value
            elif name == "sendfile":
                if value:
                    yield "copy", file, inside(paths[1])
            elif name == "write":
                yield "write", file, places.get(key, 0), texts[0]
                places[key] = places.get(key, 0) + value


def cuts(trial, scenario, done):
    """Every different client that a power cut may leave, after any number of steps: (step, event, kind, files).

    :arg done: what the run did, from record.
    """
    seen = set()
    start = trial.starts[SCENARIOS[scenario][0]]
    disk = Disk({name: content for name, (content, _mode, _owner) in start.items()})
    for step, event in enumerate([None, *done]):
        if event:
            disk.act(event)
        for kind, files in disk.cuts():
            key = frozenset(files.items())
            if key not in seen:
                seen.add(key)
                yield step, event and event[:2], kind, files


def lasting(trial, scenario, done):
    """What may be left of the secrets file when the power fails after the run has ended."""
    start = trial.starts[SCENARIOS[scenario][0]]
    disk = Disk({name: content for name, (content, _mode, _owner) in start.items()})
    for event in done:
        disk.act(event)
    return {files.get(".secrets.cfg") for _kind, files in disk.cuts()}
