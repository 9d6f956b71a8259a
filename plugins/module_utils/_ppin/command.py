# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Run ppin. Only this file, login.py and dialogue.py know its command line.

The vendor does not document exit statuses, on which stream a message is, or white space. Nothing here relies on them.
Commands that need no password run here, with their output in a pipe. Those that ask for one run in dialogue.py.
"""

import os
import re
import select
import signal
import subprocess
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import (
    Slot,
    find_passwords,
    read_slots,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import (
    check_file,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.libconfig import SIZE_LIMIT, LibconfigError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError, error_from_code, find_code
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import (
    Listing,
    parse_listing,
    printable,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import INSTALL_HINT, Paths, check_timeout
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.redaction import redact

OUTPUT_LIMIT = 1024 * 1024
"""Characters after which a ppin is terminated. A listing of a thousand slots has some 100,000."""

EXCERPT_LIMIT = 1000
"""Characters of ppin's output that an error message shows."""

POLL_INTERVAL = 0.5
"""Seconds between two checks of the timeout and of signals, while ppin prints nothing."""

LOGIN_COMMANDS = ("--test", "--fetchlog")
"""The commands that log in with the permanent secrets of the client: see login.py."""


class ConfigProblem(t.NamedTuple):
    """Why primus.cfg cannot be parsed. `line` is None when the file cannot be read at all."""

    file: str
    line: t.Optional[int]
    reason: str

    def __str__(self) -> str:
        return "%s%s: %s" % (self.file, "" if self.line is None else ", line %d" % self.line, self.reason)


class Ppin:
    """The ppin of one client.

    :raises PpinError: when the timeout is less than a second.
    :ivar logins: number of credentials that the HSM or the service proxy has evaluated so far, or may have.
    :ivar secrets_path: the secrets file that ppin is given.
    :ivar config_problem: why slots() could not parse primus.cfg, or None.
    """

    def __init__(self, paths: Paths, timeout: int) -> None:
        check_timeout(timeout)
        self.paths = paths
        self.timeout = timeout
        self.logins = 0
        self.secrets_path = paths.secrets
        self.config_problem: t.Optional[ConfigProblem] = None
        self._signal = 0  # number of the signal that on_signal() was called with
        self._secrets: t.Set[str] = set()  # passwords given to ppin, to be removed from what is shown

    def on_signal(self, number: int, frame: t.Any = None) -> None:
        """Handle a signal: terminate the ppin that runs, or the next one, which then raises a PpinError.

        For signal.signal(), so that context managers remove the working copy before the module ends.
        """
        self._signal = number

    def _check_running(self, operation: str, deadline: float, output: t.Sized) -> None:
        """Check whether ppin may continue to run.

        :raises PpinError: after a signal, or when ppin has printed more than OUTPUT_LIMIT.
        :raises TimeoutError: after the deadline.
        """
        if self._signal:
            raise PpinError("%s was terminated by signal %d" % (operation, self._signal), hint="Run again.")
        if len(output) > OUTPUT_LIMIT:
            raise PpinError(
                "%s was terminated: ppin printed more than %d characters" % (operation, OUTPUT_LIMIT),
                cls="dialogue",
                hint="Run ppin by hand to see what it prints. Is this the vendor's ppin?",
            )
        if time.monotonic() > deadline:
            raise TimeoutError

    def check_files(self) -> None:
        """Check that ppin can be run, and that the files that it needs exist and are safe to use. :raises PpinError:"""
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
            if not os.access(path, os.R_OK):  # ppin would report it as invalid
                raise PpinError("%s cannot be read" % path, cls="permission")
            check_file(
                self.paths.secrets_as_given if path == self.paths.secrets and self.paths.secrets_as_given else path
            )

    def slots(self) -> t.List[Slot]:
        """Return the slots of primus.cfg. When it cannot be parsed, return [] and set config_problem.

        This is not an error, because ppin may be able to read a file that this collection cannot parse.
        """
        path = self.paths.config
        self.config_problem = None
        try:
            return read_slots(self._config(), path)
        except LibconfigError as exc:
            self.config_problem = ConfigProblem(exc.file or path, exc.line, exc.reason)
        except OSError as exc:
            self.config_problem = ConfigProblem(path, None, "it cannot be read: %s" % exc.strerror)
        return []

    def passwords_in_plaintext(self) -> t.Optional[t.List[str]]:
        """Return the settings of primus.cfg that hold a password, or None when it cannot be read or parsed."""
        try:
            return find_passwords(self._config(), self.paths.config)
        except (OSError, LibconfigError):
            return None

    def _config(self) -> str:
        with open(self.paths.config, "rb") as config:
            return config.read(SIZE_LIMIT + 1).decode("utf-8", "replace")

    # Commands

    def version(self) -> t.Optional[str]:
        """Return the provider's version, such as `2.2.4`, or None when ppin does not report it."""
        match = re.search(r"PKCS#?11\s+v?(\d+(?:\.\d+)+\S{0,40})", printable(self.run("-v")))
        return match.group(1) if match else None

    def listing(self) -> Listing:
        """Run `ppin -l`. :raises PpinError: when it prints no listing."""
        output = self.run("-l")
        listing = self._parse(output)
        if listing is None:
            raise self._error_from_output(output, "Listing the credentials (ppin -l)")
        return listing

    def _parse(self, output: str) -> t.Optional[Listing]:
        try:
            return parse_listing(output)
        except PpinError as exc:  # its message has a line of the output in it
            raise PpinError(redact(self._secrets, exc.msg), cls=exc.cls, hint=exc.hint) from None

    def remove(self, user_name: str) -> None:
        self._remove("-r", user_name, "Removing the permanent secret of '%s'" % user_name)

    def remove_proxy(self, service_user: str) -> None:
        self._remove("-x", service_user, "Removing the service proxy password of '%s'" % service_user)

    def _remove(self, flag: str, name: str, operation: str) -> None:
        output = self.run(flag, "-e", name)
        if find_code(output) or self._parse(output) is None:
            raise self._error_from_output(output, operation)

    # Process

    def _argv(self, args: t.Sequence[str]) -> t.Tuple[t.List[str], t.Dict[str, str]]:
        config, secrets = self.paths.config, self.secrets_path
        # Flags and environment name the same files, as which of them wins is not documented.
        env = dict(os.environ, LC_ALL="C", SECUROSYS_PKCS11_CONF=config, SECUROSYS_SECRETS_CONF=secrets)
        return [self.paths.executable or "ppin", "-c", config, "-s", secrets] + list(args), env

    def run(self, *args: str) -> str:
        """Run ppin and return what it prints on both streams. No password may be in args: every user can read them.

        :raises PpinError: when it cannot be run, times out or prints more than OUTPUT_LIMIT. After a timeout, the
            attribute `output` of the error has what was printed until then.
        """
        argv, env = self._argv(args)
        name = "ppin %s" % args[0]
        output = b""
        deadline = time.monotonic() + self.timeout
        try:
            # Not run_command, which cannot limit time and output. The arguments are a list, and no shell is used.
            # pylint: disable-next=ansible-bad-function
            process = subprocess.Popen(  # noqa: S603
                # In the locale C, Python 3.6 would encode them as ASCII.
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
                    self._check_running(name, deadline, output)
                    if select.select([stream], [], [], POLL_INTERVAL)[0]:
                        block = os.read(stream, 65536)
                        output += block
                        if not block:
                            process.wait(max(POLL_INTERVAL, deadline - time.monotonic()))
                            return output.decode("utf-8", "replace")
            except (TimeoutError, subprocess.TimeoutExpired):
                timeout_error = self._timeout_error(name, output.decode("utf-8", "replace"), args[0] in LOGIN_COMMANDS)
                timeout_error.output = output.decode("utf-8", "replace")
                raise timeout_error from None
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)

    # Errors

    def _error_from_output(self, output: str, operation: str) -> PpinError:
        code = find_code(output)
        return (
            error_from_code(code, operation) if code else PpinError("%s failed%s" % (operation, self._excerpt(output)))
        )

    def _timeout_error(self, operation: str, output: str, used_credential: bool) -> PpinError:
        used_credential = used_credential or self.logins > 0  # by this process or by an earlier one
        return PpinError(
            "%s timed out after %d seconds%s" % (operation, self.timeout, self._excerpt(output)),
            cls="timeout",
            hint=None if used_credential else "Run ppin by hand to see whether it hangs. No credential was used.",
        )

    def _dialogue_error(self, what: str, operation: str, screen: str, answered: t.List[str]) -> PpinError:
        return PpinError(
            "%s stopped: %s%s" % (operation, what, self._excerpt(screen)),
            cls="dialogue",
            hint="The HSM may have evaluated what was typed before: check that password before the next run."
            if answered
            else None,
        )

    def _excerpt(self, output: str) -> str:
        """Return the end of what ppin printed, for an error message, without passwords and control characters."""
        text = redact(self._secrets, printable(output))
        text = " | ".join(line.strip() for line in text.splitlines() if line.strip())
        text = "".join(char if char.isprintable() else "?" for char in text)
        if not text:
            return "; it printed nothing"
        return "; it printed: %s" % (text if len(text) <= EXCERPT_LIMIT else "..." + text[-EXCERPT_LIMIT:])
