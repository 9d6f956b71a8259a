# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each module, killed at its writes, and where on the whole host its secrets are then.

The names and passwords of the client are random, so whatever has one of them in it was made by these runs.
"""

import contextlib
import json
import os
import random
import re
import shutil
import string
import subprocess
import sys
from pathlib import Path

from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import leftovers
from crashes import PRIVATE, command
from emulated_hsm import COLLECTION, COLLECTIONS, LIMITS, wait_for
from find_secrets import all_forms
from primus_emulator.client import install

PLACES = ("/tmp", "/run", "/var/tmp", "/dev/shm")  # noqa: S108 # looked through only
"""Where a run could write, apart from the client's own directories, which are below one of them."""

WRITES = (
    "openat,write,pwrite64,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,symlink,symlinkat,mkdir,"
    "mkdirat,rmdir,fsync,fchown,fchmod"
)

SIZE_LIMIT = 10**6
"""Bytes of the largest file that is searched; those of a client have some thousand."""


CASES = (
    "ppin_secret",
    "ppin_secret in place",
    "ppin_secret of an orphan",
    "ppin_proxy",
    "ppin_fortinet",
    "ppin_config",
    "config_files",
    "ppin_log_info",
    "client_removal",
    "ppin_qualify",
)
"""What is killed; Host.case has the options."""


def _word(length):
    return "".join(random.SystemRandom().choices(string.ascii_letters + string.digits, k=length))


class Host:
    """A client with random names and passwords, whose configuration can be put back to where a run starts.

    make_hsm: gives an emulated HSM that knows of a config, as for Hsm.
    """

    def __init__(self, make_hsm, folder: Path):
        self.partitions, self.proxy, self.proxy_password = [f"P{_word(8)}", f"Q{_word(8)}"], f"s{_word(8)}", _word(16)
        self.setup, self.pin = "-".join(_word(5) for _group in range(5)), _word(16)
        passwords = {"setup_password": self.setup, "pkcs11_password": self.pin}
        self.hsm = make_hsm(
            {
                "partitions": dict.fromkeys(self.partitions, passwords),
                "service_users": {self.proxy: self.proxy_password},
                "limits": LIMITS,
            }
        )
        self.forms = all_forms([*self.partitions, self.setup, self.pin, self.proxy, self.proxy_password])
        self.folder = folder / "host"
        self.home, self.own, self.dest = (self.folder / name for name in ("home", "own", "dest"))
        self.home_folder = self.folder / "user"  # of the user of the run
        self.log, self.start_state = folder / "log", folder / "start"
        for directory in (self.own, self.dest, self.home_folder):
            directory.mkdir(parents=True)
        install(
            str(self.home), str(self.hsm.state), [f"{self.partitions[0]}:0:{self.proxy}", f"{self.partitions[1]}:1"]
        )
        self.secrets, self.config = self.home / "etc/.secrets.cfg", self.home / "etc/primus.cfg"
        for module, options in (("ppin_proxy", self.proxy_options()), ("ppin_secret", self.secret_options(0))):
            assert self.run(module, options)["changed"]
        shutil.copytree(self.folder, self.start_state, symlinks=True)

    # Runs

    def secret_options(self, number, **options):
        passwords = {"setup_password": self.setup, "pkcs11_password": self.pin, "verify": "never"}
        return {**self.paths(), "user_name": self.partitions[number], **passwords, **options}

    def proxy_options(self, **options):
        return {**self.paths(), "service_user": self.proxy, "password": self.proxy_password, **options}

    def paths(self):
        return {"primus_home": self.home, "config_path": self.config, "secrets_path": self.secrets}

    def case(self, name):
        """The module that is killed and its options."""
        setup = {
            **self.paths(),
            "user_name": self.partitions[0],
            "setup_password": self.setup,
            "pkcs11_password": self.pin,
        }
        proxy = {"proxy_user": self.proxy, "proxy_password": self.proxy_password}
        names = [".secrets.cfg.ledger", ".secrets.cfg", "primus.cfg"]
        content = (self.start_state / "home/etc/primus.cfg").read_text() + "# new\n"
        log = {**self.paths(), "user_name": self.partitions[0], "hsm": self.hsms()[-1], "dest": self.dest / "log"}
        return {
            "ppin_secret": ("ppin_secret", self.secret_options(1, backup=True)),
            "ppin_secret in place": ("ppin_secret", self.secret_options(1, in_place=True)),
            "ppin_secret of an orphan": ("ppin_secret", {**self.secret_options(0), "state": "absent", "orphan": True}),
            "ppin_proxy": ("ppin_proxy", self.proxy_options(state="updated", force=True)),
            "ppin_fortinet": ("ppin_fortinet", {**setup, **proxy, "dest": self.dest / "string"}),
            "ppin_config": ("ppin_config", {**self.paths(), "content": content, "backup": True}),
            "config_files": (
                "config_files",
                {"state": "moved", "names": names, "src": self.home / "etc", "dest": self.own},
            ),
            "ppin_log_info": ("ppin_log_info", log),
            "ppin_qualify": ("ppin_qualify", {**setup, **proxy, "accept": True}),
            "client_removal": ("client_removal", {"primus_home": self.home, "etc": self.own, "provider": True}),
        }[name]

    def hsms(self):
        return re.findall(r"(hsm\d+) *[:=]", (self.start_state / "home/etc/primus.cfg").read_text())

    def next_runs(self):
        """Some run of each module, which finds that all is as it should be, or removes the orphan."""
        named = self.partitions[0] in self.config.read_text()
        return [
            ("ppin_proxy", self.proxy_options()),
            ("ppin_secret", self.secret_options(0, state="present" if named else "absent")),
            ("ppin_config", {**self.paths(), "content": self.config.read_text()}),
            ("config_files", {"names": [self.secrets.name], "dest": self.secrets.parent}),
        ]

    def begin(self, case):
        """Put the client to where a run starts; the module and the options of that run."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.start_state, self.folder, symlinks=True)
        self.secrets, self.config = self.home / "etc/.secrets.cfg", self.home / "etc/primus.cfg"
        module, options = self.case(case)
        if options.pop("orphan", False):
            self.config.write_text(self.config.read_text().replace(self.partitions[0], "Other"))
        return module, options

    def start(self, module, options, prefix=()):
        arguments = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
        process = subprocess.Popen(
            [*prefix, sys.executable, str(COLLECTION / f"plugins/modules/{module}.py")],
            env={
                **os.environ,
                "HOME": str(self.home_folder),
                "PYTHONPATH": str(COLLECTIONS),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, module, options, prefix=()):
        """The result of a module that must not fail, nor warn."""
        result = json.loads(self.start(module, options, prefix).communicate(timeout=120)[0])
        assert not self.problem(result), (module, result)
        return result

    @staticmethod
    def problem(result):
        return [result["msg"]] if result.get("failed") else result.get("warnings")

    # Kills

    def writes(self, case):
        """The points of a case: (name of a system call, which of that name), of those that change a file."""
        module, options = self.begin(case)
        self.run(module, options, ["strace", "-y", "-s", "0", "-o", str(self.log), "-e", f"trace={WRITES}"])
        counts, points = {}, []
        for line in self.log.read_text(errors="replace").splitlines():
            name = line.split("(", 1)[0]
            if name.isidentifier():
                counts[name] = counts.get(name, 0) + 1
                ours = str(self.folder) in line or PRIVATE in line
                if ours and (name != "openat" or "O_CREAT" in line):
                    points.append((name, counts[name]))
        return points

    def kill(self, case, point):
        """Kill the run at a point, and wait until its ppin has ended, if one runs; whether it was killed there."""
        name, number = point
        module, options = self.begin(case)
        inject = ["-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={number}"]
        self.start(module, options, ["strace", "-s", "0", "-o", str(self.log), *inject]).communicate(timeout=120)
        wait_for(lambda: not self.ppin_runs())
        # After a move, the next runs find the file where it is now.
        if not self.secrets.exists() and (self.own / self.secrets.name).exists():
            self.secrets = self.own / self.secrets.name
        if not self.config.exists() and (self.own / self.config.name).exists():
            self.config = self.own / self.config.name
        return "+++ killed by SIGKILL +++" in self.log.read_text(errors="replace")

    def ppin_runs(self):
        ppin = str(self.home / "bin/ppin").encode()
        return any(ppin in command(pid) for pid in filter(str.isdecimal, os.listdir("/proc")))

    # What is left

    def found(self):
        """All files of this host that have a name or password of this client in them and that were made since."""
        began = self.start_state.stat().st_ctime
        kept_out = {str(self.start_state), str(self.hsm.state.parent), str(self.log)}
        above = set(map(str, self.folder.parents)) - {
            *PLACES,
            "/",
        }  # beside what is in them are other tests' directories
        found, folders = set(), [*PLACES, str(self.folder)]
        while folders:
            folder = folders.pop()
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.path in kept_out or entry.is_symlink():
                        continue
                    if folder in above and entry.path not in above and entry.path != str(self.folder):
                        continue
                    if entry.is_dir():
                        folders.append(entry.path)
                    elif entry.is_file() and self._has_a_secret(entry, began):
                        found.add(entry.path)
        return found

    def _has_a_secret(self, entry, began):
        with contextlib.suppress(OSError):
            status = entry.stat()
            if status.st_ctime >= began and status.st_size < SIZE_LIMIT:
                content = Path(entry.path).read_bytes()
                return any(form in content for form in self.forms)
        return False

    def in_its_place(self, path):
        """Whether a file is where a client has it, or where the run was to put it."""
        files = [self.secrets, self.config, self.dest / "string", self.dest / "log"]
        files += [folder / name for folder in (self.own, self.home / "etc") for name in (".secrets.cfg", "primus.cfg")]
        files += [Path(f"{file}.ledger") for file in files]
        backup = re.fullmatch(r"(\.secrets|primus)\.cfg\.\d+\.[\d-]+@[\d:]+~", os.path.basename(path))
        return path in map(str, files) or bool(backup)

    def astray(self):
        return {path for path in self.found() if not self.in_its_place(path)}

    def most_at_stake(self, case):
        """Two points of a case at which something is written and not yet in its place, or not yet removed."""
        points = [point for point in self.writes(case) if point[0].startswith(("rename", "unlink"))]
        return points[0], points[len(points) // 2]

    def judge(self, case, after):
        """After a kill: let another run come, and name what of the secrets is where it should not be.

        after: "removal" for client_removal, or which of next_runs.
        """
        faults = []
        known = tuple(leftovers(*map(str, (self.secrets, self.config))))
        known += tuple(leftovers(str(self.own / ".secrets.cfg"), str(self.own / "primus.cfg")))
        unknown = {path for path in self.astray() if not path.startswith(known)}
        if unknown and case != "client_removal":
            faults.append(f"not on the list: {sorted(unknown)}")
        if after == "removal" or case == "client_removal":
            module, options = "client_removal", {"primus_home": self.home, "etc": self.own, "provider": True}
        else:
            module, options = self.next_runs()[after % len(self.next_runs())]
        problem = self.problem(json.loads(self.start(module, options).communicate(timeout=120)[0]))
        if problem:
            faults.append(f"the next run, {module}: {problem}")
        fetched = {str(self.dest / "string"), str(self.dest / "log")}
        left = self.found() - fetched if module == "client_removal" else self.astray()
        return faults + ([f"after {module}: {sorted(left)}"] if left else [])
