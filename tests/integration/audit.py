# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a command and look for secrets in all that it and its children do: audit.py [--secret TEXT ...] COMMAND ...

It sees, by way of strace, the arguments and the environment of every program that is started, every write to a file
however short its life, and all that goes over sockets; as root, in a mount namespace of its own, also what is sent to
syslog. Ansible is made to say and to keep the most that it can: -vvvv, log, results as JSON, fact cache, retry files.

Secrets are those of the emulated HSM and whatever is typed into a pseudo-terminal, which is where passwords go. Each is
looked for as it is and in the forms of find_secrets.py. Pipes and terminals are not looked at: they are how a password
travels, and no one but the two at their ends can read them. Not seen are files that are written by way of mmap and gone
at the end. Modules run with pipelining, without which Ansible itself writes their passwords to the remote temporary
directory; that nothing lies there while a host waits for its turn is a test in tests/functional/action/test_gate.py.

Exits with 1 when a secret was found outside of EXPECTED, or when nothing was typed and so nothing tested.
"""

import argparse
import codecs
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from find_secrets import forms  # noqa: E402

OUTPUT = ROOT / "build/audit"
DEFAULTS = ROOT / "tests/integration/targets/setup_emulator/defaults/main.yml"
MOLECULE = ROOT / "extensions/molecule/config.yml"

# What may hold secrets, and why: who does it, and to what, as expressions for the whole of each.
EXPECTED = [
    (r".*\bprimus_emulator (serve|client)\b.*", r".*", "the emulated HSM knows them"),
    (r".*\bprimus_emulator admin\b.*", r".*", "the test changes them in the emulated HSM"),
    (r".*ansible-playbook \w+-\w+\.yml -i inventory\b.*",
     r".*/(ansible-local-\w+/[.\w]+|ansible-tmp-[-.\d]+/\.source\.\w+)",
     "the test writes the configuration of the emulated HSM and the variables of its playbooks"),
    (r".*", r".*/tests/(integration/targets/setup_emulator/defaults/main\.yml|support/\w+\.py)",
     "the test is copied, with the passwords that it is written with"),
    (r".*", r".*/output_dir/(config|variables|wrong)\.json", "these are they"),
    (r".*", r".*/output_dir/bad/etc/primus\.cfg", "the test is what happens with such a file"),
    (r".*", r".*/molecule\.[-\w]+\.\w+/(inventory/group_vars/all|molecule\.yml)", "molecule keeps its variables there"),
    (r".*", r"/run/hsmops-primus/\w+/emulator.*|UNIX.*/admin\.sock.*", "the emulated HSM knows them"),
    (r".*", r".*/molecule\.[-\w]+\.\w+/run_variables\.json", "these are they"),
    (r".*ansible-playbook --inventory \S+/molecule\..*",
     r".*/(ansible-local-\w+/[.\w]+|ansible-tmp-[-.\d]+/\.source\.\w+)", "the scenario writes the variables of a run"),
    (r".*", r".*/plugins/filter/__pycache__/\w+\.cpython-\d+\.pyc(\.\d+)?", "its examples have this made-up password"),
]  # fmt: skip

CALLS = "execve execveat clone clone3 fork vfork write pwrite64 writev pwritev pwritev2 sendto sendmsg sendmmsg"
STRACE = ["strace", "--follow-forks", "--seccomp-bpf", "--decode-fds=all", "--no-abbrev", "--pidns-translation"]
STRACE += ["--quiet=attach,path-resolution,personality,thread-execve", "--string-limit=16777216", "--signal=none"]
STRACE += ["--trace=" + CALLS.replace(" ", ",")]

LINE = re.compile(rb"(\d+) +(.*)", re.S)
CALL = re.compile(rb"(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)", re.S)
STRING = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"')
TARGET = re.compile(rb"\d+<((?:->|[^>])*)>")
# In a namespace of its own, a process is told another number than strace writes in front of its lines.
STARTED = re.compile(
    rb"(?:<\.\.\. )?(?:clone3?|v?fork)\b.* = (?:\d+ /\* )?(\d+)(?:<[^>]*>)?(?: in strace's PID NS \*/)?\n"
)
ENDED = (b"+++ exited ", b"+++ killed ")


def environment(folder):
    """Ansible says and keeps the most that it can, beside the callbacks that the environment names already."""
    callbacks = [name for name in ["ansible.builtin.tree", os.environ.get("ANSIBLE_CALLBACKS_ENABLED")] if name]
    places = {"HOME": "home", "REMOTE_TMP": "remote", "LOG_PATH": "ansible.log", "CALLBACK_TREE_DIR": "results",
              "CACHE_PLUGIN_CONNECTION": "facts", "RETRY_FILES_SAVE_PATH": "retry"}  # fmt: skip
    switches = {"LOG_VERBOSITY": "4", "DIFF_ALWAYS": "true", "INJECT_INVOCATION": "true", "PIPELINING": "true",
                "CALLBACKS_ENABLED": ",".join(callbacks), "CACHE_PLUGIN": "ansible.builtin.jsonfile",
                "RETRY_FILES_ENABLED": "true"}  # fmt: skip
    switches.update({name: str(folder / place) for name, place in places.items()})
    return {"TMPDIR": str(folder), **{f"ANSIBLE_{name}": value for name, value in switches.items()}}


@contextlib.contextmanager
def syslog():
    """What is sent to /dev/log, as a list that grows; None when there can be no socket of our own."""
    if os.geteuid() != 0 or os.environ.get("AUDIT_NAMESPACE") != "own":
        yield None
        return
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        # Nothing can be mounted where nothing is, so that /dev becomes a copy of itself, with our socket.
        subprocess.run(["mount", "--rbind", "/dev", folder], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev"], check=True)
        for path in Path(folder).iterdir():
            copy = Path("/dev", path.name)
            if path.is_symlink():
                copy.symlink_to(os.readlink(path))
            elif path.name == "ptmx":
                copy.symlink_to("pts/ptmx")  # which must stand beside its pts
            elif path.name != "log":
                copy.mkdir() if path.is_dir() else copy.touch()
                subprocess.run(["mount", "--rbind", str(path), str(copy)], check=True)
        received = []
        log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        log.bind("/dev/log")
        threading.Thread(
            target=lambda: [received.append(log.recv(1 << 20)) for _time in iter(int, 1)], daemon=True
        ).start()
        yield received
        subprocess.run(["umount", "--recursive", "--lazy", folder], check=True)


def read_trace(path):
    """Lines of strace, each as the process that it is of and what it did.

    A process is its pid and how many had this pid before, as a machine uses a pid again when it has used all.
    """
    ended = Counter()
    with open(path, "rb") as lines:
        for pid, rest in (match.groups() for match in map(LINE.match, lines) if match):
            if rest.startswith(ENDED):
                ended[pid] += 1
            else:
                yield (pid, ended[pid]), rest


class Trace:
    """What strace saw: by program and target, the bytes that went there, and what was typed into terminals."""

    def __init__(self, path):
        self.parents = defaultdict(list)  # of all processes that had a pid, in order
        self.program = {}
        self.bytes = defaultdict(bytearray)
        self.typed = set()
        self.programs = 0
        for process, line in read_trace(path):  # children may do something before strace writes whose they are
            if match := STARTED.match(line):
                self.parents[match[1]].append(process)
        for process, line in read_trace(path):
            if match := CALL.match(line):
                self.see(process, (match[1] or match[2]).decode(), match[3])

    def who(self, process):
        while process not in self.program:
            pid, before = process
            if before >= len(self.parents[pid]):
                return "?"
            process = self.parents[pid][before]
        return self.program[process]

    def see(self, process, call, rest):
        words = [codecs.escape_decode(word)[0] for word in STRING.findall(rest)]
        if call.startswith("exec"):
            # A call that failed, such as on the way through PATH, shows what it was to start as well.
            if not words:
                return
            arguments, _bracket, variables = rest.partition(b"], ")
            count = len(STRING.findall(arguments))
            before = self.who(process)
            if b" = -1 " not in rest:
                self.program[process] = b" ".join(words[1:count]).decode(errors="replace")
                self.programs += 1
            who = self.program.get(process, before)
            self.bytes[who, "its arguments"] += b"\0".join(words[:count]) + b"\0"
            self.bytes[who, "its environment"] += b"\0".join(words[count:]) + b"\0"
        elif words and not call.startswith(("clone", "fork", "vfork")):
            target = TARGET.match(rest)
            target = target[1].decode(errors="replace") if target else "?"
            if "/ptmx" in target:
                typed = (word.decode(errors="replace").rstrip("\r\n") for word in words)
                self.typed.update(word for word in typed if word and word.isprintable())
            elif not target.startswith(("pipe:", "/dev/pts/", "/dev/tty", "/dev/null")):
                self.bytes[self.who(process), target] += b"".join(words)


def audit(command, secrets):
    """Run the command; its exit status and what was found: (who, where, why it is expected or None), sorted."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    started = time.time()
    with tempfile.TemporaryDirectory(dir=OUTPUT) as folder, syslog() as messages:
        trace_path = Path(folder, "trace")
        own = Path(folder, "own")
        own.mkdir()
        traced = [*STRACE, "--output", str(trace_path), *command]
        status = subprocess.call(traced, env={**os.environ, **environment(own)})
        trace = Trace(trace_path)
        trace_path.unlink()
        contents = dict(trace.bytes)
        if messages is not None:
            contents["?", "syslog"] = b"\n".join(messages)
        for path in [*own.rglob("*"), *(ROOT / "build/integration").rglob("*"), *(ROOT / "build/molecule").rglob("*")]:
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= started:
                    contents["left behind", str(path)] = path.read_bytes()
    secrets = {*secrets, *trace.typed}
    wanted = {form: secret for secret in secrets for form in forms(secret) if len(form) >= 4}
    found = set()
    for (who, where), content in contents.items():
        for form in wanted:
            if form in content:
                why = next(
                    (why for a, b, why in EXPECTED if re.fullmatch(a, who, re.S) and re.fullmatch(b, where)), None
                )
                found.add((who, where, why))
    print(
        "%d programs started, %d places written to, %s messages to syslog; %d secrets, %d of them typed"
        % (
            trace.programs,
            len(contents),
            "unknown" if messages is None else len(messages),
            len(secrets),
            len(trace.typed),
        )
    )
    return status, trace, sorted(found, key=str)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secret", action="append", default=[], metavar="TEXT", help="look for this one, too")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        parser.error("strace is not installed")
    if os.geteuid() == 0 and "AUDIT_NAMESPACE" not in os.environ:
        own = ["unshare", "--mount", sys.executable, *sys.argv]
        return subprocess.call(own, env={**os.environ, "AUDIT_NAMESPACE": "own"})
    known = yaml.safe_load(DEFAULTS.read_text())
    secrets = [*known["setup_emulator_setup_passwords"], *options.secret]
    secrets += [known[f"setup_emulator_{name}_password"] for name in ("wrong_setup", "pkcs11", "proxy")]
    known = yaml.safe_load(MOLECULE.read_text())["provisioner"]["inventory"]["group_vars"]["all"]
    secrets += [user["password"] for user in known["primus_client_service_users"]]
    for partition in known["primus_client_partitions"]:
        secrets += [partition["setup_password"], partition["pkcs11_password"]]
    status, trace, found = audit(options.command, secrets)
    unexpected = [place for place in found if not place[2]]
    for who, where, _why in unexpected:
        print(f"FOUND  {where}\n    by {who[:300]}")
    for why, count in Counter(why for _who, _where, why in found if why).items():
        print(f"{count} are expected to, as {why}")
    print(f"{len(unexpected)} places hold a secret that should not")
    return 1 if status or unexpected or not trace.typed else 0


if __name__ == "__main__":
    sys.exit(main())
