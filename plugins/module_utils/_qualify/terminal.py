# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Runs a ppin and watches how it prints and asks. It types nothing: a ppin that asks for a password is ended.

So nothing that is run here can use a password. Those that are given one run in `_ppin/dialogue.py`, as always.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import termios
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.command import OUTPUT_LIMIT
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.dialogue import ECHO_TIMEOUT, PROMPT, last_line
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import INSTALL_HINT

PIPES, TERMINAL, APART = "pipes", "terminal", "apart"
"""Ways to run it: no terminal and nothing on stdin; all streams on a terminal; pipes, and a controlling terminal."""

ENDED, AT_PROMPT, UNKNOWN_PROMPT = "by itself", "terminated at a prompt", "waited at an unknown prompt"
TIMED_OUT, TOO_MUCH = "timed out", "printed too much"
"""How it ended; or C(signal N)."""

_POLL = 0.02

_ECHO_TIMEOUTS = {TERMINAL: float(ECHO_TIMEOUT), APART: 1.0}
"""Seconds to wait at a prompt for the echo to go off. It stays on where ppin reads from a pipe. With PIPES no prompt is
waited for."""


class Seen:
    """What one run has shown.

    :ivar streams: what it printed, as bytes, by C(stdout), C(stderr) and C(terminal).
    :ivar status: its exit status, or None when it was ended.
    :ivar prompt: the line that it asked on, or None.
    :ivar echo, dropped, on_terminal: at the prompt: when the echo went off, whether what was typed before is dropped,
        and whether it reads from the controlling terminal.
    """

    def __init__(self) -> None:
        self.streams = {"stdout": b"", "stderr": b"", "terminal": b""}
        self.status: t.Optional[int] = None
        self.ended = ""
        self.prompt: t.Optional[t.Match[str]] = None
        self.prompt_ends_line = False
        self.echo = "never"
        self.dropped = False
        self.on_terminal = False

    def text(self, *streams: str) -> str:
        """What it printed on these streams, by default on all."""
        return "".join(self.streams[name].decode("utf-8", "replace") for name in streams or self.streams)


def watch(argv: t.Sequence[str], env: t.Mapping[str, str], timeout: float, way: str = PIPES) -> Seen:
    """Run a command until it ends, asks for a password, prints too much, or its time is over. :raises PpinError:"""
    seen = Seen()
    master, slave = os.openpty()
    readable = {master: "terminal"}
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, master)
        stack.callback(os.close, slave)
        fcntl.ioctl(master, termios.TIOCPKT, b"\1\0\0\0")  # a flush of what was typed is told as well
        pipe, end = subprocess.PIPE, slave
        try:
            # pylint: disable-next=ansible-bad-function
            process = subprocess.Popen(  # noqa: S603
                [word.encode("utf-8", "surrogateescape") for word in argv],
                env=dict(env),
                stdin={PIPES: subprocess.DEVNULL, TERMINAL: end, APART: pipe}[way],
                stdout=end if way == TERMINAL else pipe,
                stderr=end if way == TERMINAL else pipe,
                start_new_session=True,
                # Nothing but one call of the kernel, and no thread is there.
                preexec_fn=None if way == PIPES else lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            )
        except (OSError, subprocess.SubprocessError) as exc:
            said = getattr(exc, "strerror", None) or exc
            raise PpinError("%s cannot be run: %s" % (argv[0], said), cls="config", hint=INSTALL_HINT) from exc
        stack.enter_context(process)
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            if stream is not None:
                readable[stream.fileno()] = name
        try:
            _follow(seen, process, readable, master, slave, time.monotonic() + timeout, way)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # those that it has started, too
    return seen


def _follow(
    seen: Seen,
    process: "subprocess.Popen[bytes]",
    readable: t.Dict[int, str],
    master: int,
    slave: int,
    deadline: float,
    way: str,
) -> None:
    over, may_ask = False, way != PIPES
    while True:
        ready = select.select(list(readable), [], [], 0 if over else _POLL)[0]
        for stream in ready:
            if not _read(seen, stream, readable[stream]):
                del readable[stream]
        if sum(map(len, seen.streams.values())) > OUTPUT_LIMIT:
            seen.ended = TOO_MUCH
            return
        if may_ask and not over and _asks(seen):
            _look_at_prompt(seen, process.pid, master, slave, min(deadline, time.monotonic() + _ECHO_TIMEOUTS[way]))
            seen.ended = AT_PROMPT
            return
        if over and not ready:
            break
        if time.monotonic() > deadline:
            asked = may_ask and any(text.rpartition("\n")[2].strip() for text in map(seen.text, seen.streams))
            seen.ended = UNKNOWN_PROMPT if asked else TIMED_OUT
            return
        over = process.poll() is not None  # and what it has printed is read to the end
    seen.status = process.returncode
    seen.ended = ENDED if process.returncode >= 0 else "signal %d" % -process.returncode


def _read(seen: Seen, stream: int, name: str) -> bool:
    """Read what is there; False when there will be no more."""
    block = os.read(stream, 65536)
    if name == "terminal" and block:
        control, block = block[0], block[1:]
        seen.dropped = seen.dropped or bool(control & termios.TIOCPKT_FLUSHREAD)
        seen.streams[name] += block
        return True
    seen.streams[name] += block
    return bool(block)


def _asks(seen: Seen) -> bool:
    for name in seen.streams:
        text = seen.text(name)
        prompt = PROMPT.search(last_line(text[-4096:]))
        if prompt:
            seen.prompt, seen.on_terminal = prompt, name == "terminal"
            seen.prompt_ends_line = text.endswith("\n")
            return True
    return False


def _look_at_prompt(seen: Seen, pid: int, master: int, slave: int, until: float) -> None:
    seen.echo = "before the prompt"
    while termios.tcgetattr(master)[3] & termios.ECHO:
        seen.echo = "after the prompt"
        if time.monotonic() > until:
            seen.echo = "never"
            break
        time.sleep(0.01)
    if select.select([master], [], [], 0)[0]:
        _read(seen, master, "terminal")
    places = ("/dev/tty", os.ttyname(slave))
    with contextlib.suppress(OSError):
        files = ["/proc/%d/fd/%s" % (pid, number) for number in os.listdir("/proc/%d/fd" % pid)]
        seen.on_terminal = seen.on_terminal or any(os.readlink(file) in places for file in files)
