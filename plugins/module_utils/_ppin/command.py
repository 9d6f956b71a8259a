# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Runs ppin. With login.py and dialogue.py, the one place that knows its command line.

What the vendor does not document (exit statuses, which stream, white space) is not relied on. Without a secret, ppin
runs with its output in a pipe; with one, see dialogue.py.
"""

import os
import re
import select
import signal
import subprocess
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    check_file,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.libconfig import SIZE_LIMIT, NotUnderstood
from ansible_collections.hsmops.primus.plugins.module_utils._client.primus_cfg import (
    Slot,
    find_passwords,
    read_slots,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError, find_code, from_code
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import (
    Listing,
    parse_listing,
    printable,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import INSTALL_HINT, Paths, check_timeout
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.redaction import without

OUTPUT_LIMIT = 1024 * 1024
"""Characters that are read from one ppin. A listing of a thousand slots has some 100,000."""

SHOWN_LIMIT = 1000
"""Characters of ppin's output that an error message shows."""

POLL = 0.5
"""Seconds between two looks at whether a ppin that prints nothing may go on."""


LOGINS = ("--test", "--fetchlog")
"""What uses a credential without asking for one: see login.py."""


class ConfigProblem(t.NamedTuple):
    """Why primus.cfg is not understood. line is None when file cannot be read at all."""

    file: str
    line: t.Optional[int]
    reason: str

    def __str__(self) -> str:
        return "%s%s: %s" % (self.file, "" if self.line is None else ", line %d" % self.line, self.reason)


class Ppin:
    """The ppin of one client.

    :raises PpinError: when the timeout can be none.
    :ivar logins: how many credentials the HSM or the proxy may have judged so far.
    :ivar secrets_path: the secrets file that it works on.
    :ivar config_problem: why slots() could not read primus.cfg, or None.
    """

    def __init__(self, paths: Paths, timeout: int) -> None:
        check_timeout(timeout)
        self.paths = paths
        self.timeout = timeout
        self.logins = 0
        self.secrets_path = paths.secrets
        self.config_problem: t.Optional[ConfigProblem] = None
        self._ended_by = 0
        self._secrets: t.Set[str] = set()  # what was to be typed so far, and may show nowhere

    def end(self, number: int, frame: t.Any = None) -> None:
        """A signal handler: the ppin that runs, or the next one, is ended, and that raises a PpinError."""
        self._ended_by = number

    def _check(self, doing: str, deadline: float, output: t.Sized) -> None:
        """Whether a ppin that runs may go on. :raises PpinError: if not, but for the deadline: TimeoutError."""
        if self._ended_by:
            raise PpinError("%s was terminated by signal %d" % (doing, self._ended_by), hint="Run again.")
        if len(output) > OUTPUT_LIMIT:
            raise PpinError(
                "%s was terminated: ppin printed more than %d characters" % (doing, OUTPUT_LIMIT),
                cls="dialogue",
                hint="Run ppin by hand to see what it prints. Is this the vendor's ppin?",
            )
        if time.monotonic() > deadline:
            raise TimeoutError

    def check_files(self) -> None:
        """:raises PpinError: when ppin cannot be run or a file that it needs is not there."""
        if self.paths.executable is None:
            raise PpinError("ppin was not found in %s/bin or PATH" % self.paths.home, cls="config", hint=INSTALL_HINT)
        executable = self.paths.executable
        if not (os.path.isfile(executable) and os.access(executable, os.X_OK)):
            raise PpinError(
                "%s cannot be executed" % executable, cls="config", hint="Make it an executable file (mode 0750)."
            )
        for path, code in ((self.paths.config, "0x80005003"), (self.paths.secrets, "0x80005004")):
            if not os.path.exists(path):
                raise PpinError("There is no %s" % path, code)
            if not os.access(path, os.R_OK):  # ppin would call it invalid
                raise PpinError("%s cannot be read" % path, cls="permission")
            check_file(self.paths.secrets_by if path == self.paths.secrets and self.paths.secrets_by else path)

    def slots(self) -> t.List[Slot]:
        """The slots of primus.cfg. None when it is not understood, of which config_problem is the reason then.

        It is no error, as ppin is the judge of primus.cfg.
        """
        path = self.paths.config
        self.config_problem = None
        try:
            return read_slots(self._config(), path)
        except NotUnderstood as exc:
            self.config_problem = ConfigProblem(exc.file or path, exc.line, exc.reason)
        except OSError as exc:
            self.config_problem = ConfigProblem(path, None, "it cannot be read: %s" % exc.strerror)
        return []

    def passwords_in_plaintext(self) -> t.Optional[t.List[str]]:
        """The settings of primus.cfg that hold a password; None when it cannot be read."""
        try:
            return find_passwords(self._config(), self.paths.config)
        except (OSError, NotUnderstood):
            return None

    def _config(self) -> str:
        with open(self.paths.config, "rb") as config:
            return config.read(SIZE_LIMIT + 1).decode("utf-8", "replace")

    # What ppin does

    def version(self) -> t.Optional[str]:
        """The provider's version, such as C(2.2.4), or None when ppin does not tell."""
        match = re.search(r"PKCS#?11\s+v?(\d+(?:\.\d+)+\S{0,40})", printable(self.run("-v")))
        return match.group(1) if match else None

    def listing(self) -> Listing:
        """:raises PpinError: when there is none."""
        output = self.run("-l")
        listing = self._parse(output)
        if listing is None:
            raise self._failure(output, "Listing the credentials (ppin -l)")
        return listing

    def _parse(self, output: str) -> t.Optional[Listing]:
        try:
            return parse_listing(output)
        except PpinError as exc:  # it shows a line of the output
            raise PpinError(without(self._secrets, exc.msg), cls=exc.cls, hint=exc.hint) from None

    def remove(self, user_name: str) -> None:
        self._remove("-r", user_name, "Removing the permanent secret of '%s'" % user_name)

    def remove_proxy(self, service_user: str) -> None:
        self._remove("-x", service_user, "Removing the service proxy password of '%s'" % service_user)

    def _remove(self, flag: str, name: str, doing: str) -> None:
        output = self.run(flag, "-e", name)
        if find_code(output) or self._parse(output) is None:
            raise self._failure(output, doing)

    # How it is run

    def _argv(self, args: t.Sequence[str]) -> t.Tuple[t.List[str], t.Dict[str, str]]:
        config, secrets = self.paths.config, self.secrets_path
        # Flags and environment name the same files, as which of them wins is not documented.
        env = dict(os.environ, LC_ALL="C", SECUROSYS_PKCS11_CONF=config, SECUROSYS_SECRETS_CONF=secrets)
        return [self.paths.executable or "ppin", "-c", config, "-s", secrets] + list(args), env

    def run(self, *args: str) -> str:
        """What ppin prints on both streams. Nothing secret may be in args.

        :raises PpinError: when it cannot be run, does not end in time or prints without end.
        """
        argv, env = self._argv(args)
        name = "ppin %s" % args[0]
        output = b""
        deadline = time.monotonic() + self.timeout
        try:
            # Not run_command, which has no limit to time and output. Starting ppin is its purpose: words, and no shell.
            # pylint: disable-next=ansible-bad-function
            process = subprocess.Popen(  # noqa: S603
                # In the locale C, Python 3.6 would make ASCII of them.
                [word.encode("utf-8", "surrogateescape") for word in argv],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as exc:
            raise PpinError("%s cannot be run: %s" % (argv[0], exc.strerror), cls="config", hint=INSTALL_HINT) from exc
        with process, process.stdout:  # type: ignore[union-attr]
            try:
                stream = process.stdout.fileno()  # type: ignore[union-attr]
                while True:
                    self._check(name, deadline, output)
                    if select.select([stream], [], [], POLL)[0]:
                        block = os.read(stream, 65536)
                        output += block
                        if not block:
                            process.wait(max(POLL, deadline - time.monotonic()))
                            return output.decode("utf-8", "replace")
            except (TimeoutError, subprocess.TimeoutExpired):
                late = self._late(name, output.decode("utf-8", "replace"), args[0] in LOGINS)
                late.output = output.decode("utf-8", "replace")
                raise late from None
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)

    # What went wrong

    def _failure(self, output: str, doing: str) -> PpinError:
        code = find_code(output)
        return from_code(code, doing) if code else PpinError("%s failed%s" % (doing, self._shown(output)))

    def _late(self, doing: str, output: str, used_credential: bool) -> PpinError:
        used_credential = used_credential or self.logins > 0  # by this ppin, or by one before it
        return PpinError(
            "%s timed out after %d seconds%s" % (doing, self.timeout, self._shown(output)),
            cls="timeout",
            hint=None if used_credential else "Run ppin by hand to see whether it hangs. No credential was used.",
        )

    def _unexpected(self, what: str, doing: str, screen: str, given: t.List[str]) -> PpinError:
        return PpinError(
            "%s stopped: %s%s" % (doing, what, self._shown(screen)),
            cls="dialogue",
            hint="The HSM may have evaluated what was typed before: check that password before the next run."
            if given
            else None,
        )

    def _shown(self, output: str) -> str:
        """The end of what ppin printed, for an error message: no secret, no control characters."""
        text = without(self._secrets, printable(output))
        text = " | ".join(line.strip() for line in text.splitlines() if line.strip())
        text = "".join(char if char.isprintable() else "?" for char in text)
        if not text:
            return "; it printed nothing"
        return "; it printed: %s" % (text if len(text) <= SHOWN_LIMIT else "..." + text[-SHOWN_LIMIT:])
