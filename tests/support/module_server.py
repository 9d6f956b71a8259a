# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run modules as processes of their own, forked from one that has imported what all of them need.

A module is started by the thousand here, and most of what each start costs are its imports.
"""

import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from importlib import import_module

from ansible_collections.hsmops.primus.plugins import module_utils


class ModuleServer:
    """The process to fork from, for a with statement; environment: of itself."""

    def __init__(self, environment):
        self.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            command = [sys.executable, __file__, str(other.fileno())]
            self.process = subprocess.Popen(command, env=environment, pass_fds=[other.fileno()])

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.socket.close()
        self.process.wait(30)

    def run(self, script, stdin, environment, timeout=300):
        """Run a script to its end; its exit status, output and errors. stdin: bytes."""
        files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        done, status = os.pipe()
        try:
            os.write(files[0], stdin)
            os.lseek(files[0], 0, os.SEEK_SET)
            umask = os.umask(0)
            os.umask(umask)
            request = {"script": str(script), "environment": environment, "directory": os.getcwd(), "umask": umask}
            socket.send_fds(self.socket, [json.dumps(request).encode()], [*files, status])
            os.close(status)
            if not select.select([done], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(script, timeout)
            code = os.read(done, 16)
            out, err = (os.pread(file, os.fstat(file).st_size, 0) for file in files[1:])
            return int(code or -signal.SIGKILL), out, err
        finally:
            for file in [*files, done]:
                os.close(file)


def fork(request, files):
    """Run the script of a request in a child. files: its standard streams, and where its exit status goes."""
    if os.fork():
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        for number, file in enumerate(files[:3]):
            os.dup2(file, number)
            os.close(file)
        os.chdir(request["directory"])
        os.umask(request["umask"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = [request["script"]]
        runpy.run_path(request["script"], run_name="__main__")
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(files[3], str(code).encode())
        os._exit(code)


def serve(requests):
    import_module("ansible.module_utils.basic")
    import_module("pexpect")
    for module in pkgutil.walk_packages(module_utils.__path__, module_utils.__name__ + "."):
        import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    while True:
        request, files, _flags, _address = socket.recv_fds(requests, 1 << 20, 4)
        if not request:
            return
        fork(json.loads(request), files)
        for file in files:
            os.close(file)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
