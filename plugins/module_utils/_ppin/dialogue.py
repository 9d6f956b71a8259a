# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Run the commands of ppin that ask for passwords, and answer their prompts.

ppin gets a pseudo-terminal as its controlling terminal, stdin, stdout and stderr, because the vendor does not document
from which of them it reads passwords. Passwords are never in its arguments or its environment.
"""

import contextlib
import re
import resource
import termios
import time
import typing as t

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import (
    SecretsString,
    find_secrets_string,
)
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import os_text
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.command import POLL_INTERVAL
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import NO_ANSWER, PpinError, find_code
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import printable
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.login import LoginPpin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import INSTALL_HINT
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.pexpect_check import PEXPECT_VERSION, is_new_enough

PROMPT_LIMIT = 4096
"""Characters at the end of the output in which a prompt is searched for."""

DESCRIPTOR_LIMIT = 256
"""Limit of open files while ppin is started: see _low_descriptor_limit. Python's own descriptors are not inherited."""

ECHO_TIMEOUT = 10
"""Seconds to wait, after a prompt has appeared, for the echo of the terminal to be off."""

Answers = t.Dict[str, t.Tuple[str, str]]
"""Maps the kind of prompt (`setup`, `pkcs11` or `proxy`) to the name that the prompt must show, and the password."""


class DialoguePpin(LoginPpin):
    """The commands of ppin that ask for passwords."""

    def add(self, user_name: str, setup_password: str, pkcs11_password: str) -> None:
        """Run `ppin -a`. :raises PpinError: when the permanent secret was not fetched."""
        self._fetch("-a", "Adding", user_name, setup_password, pkcs11_password)

    def update(self, user_name: str, setup_password: str, pkcs11_password: str) -> None:
        """Run `ppin -u`. :raises PpinError: when it was not fetched; ppin has then removed the present entry."""
        self._fetch("-u", "Updating", user_name, setup_password, pkcs11_password)

    def _fetch(self, flag: str, verb: str, user_name: str, setup_password: str, pkcs11_password: str) -> None:
        answers = {"setup": (user_name, setup_password), "pkcs11": (user_name, pkcs11_password)}
        self.dialogue([flag, "-e", user_name], answers, "%s the permanent secret of '%s'" % (verb, user_name))

    def add_proxy(self, service_user: str, password: str) -> None:
        operation = "Setting the service proxy password of '%s'" % service_user
        self.dialogue(["-p", "-e", service_user], {"proxy": (service_user, password)}, operation)

    def fortinet(
        self,
        user_name: str,
        setup_password: str,
        pkcs11_password: str,
        proxy_user: t.Optional[str],
        proxy_password: t.Optional[str],
    ) -> SecretsString:
        """Run `ppin --fortinet` and return the secrets string for FortiGate. :raises PpinError:"""
        operation = "Making the FortiGate secrets string of '%s'" % user_name
        args = ["--fortinet", "--user", user_name]
        answers = {"setup": (user_name, setup_password), "pkcs11": (user_name, pkcs11_password)}
        if proxy_user and proxy_password:
            args += ["--proxyuser", proxy_user]
            answers["proxy"] = (proxy_user, proxy_password)
        made: SecretsString = self.dialogue(
            args, answers, operation, lambda screen: find_secrets_string(PROMPT.sub("\n", screen))
        )
        return made

    def dialogue(
        self,
        args: t.Sequence[str],
        answers: Answers,
        operation: str,
        read: t.Optional[t.Callable[[str], t.Any]] = None,
    ) -> t.Any:
        """Run a command that asks for passwords, and answer each of its prompts once.

        :arg operation: what the command does, for messages, such as "Adding the permanent secret of 'P'".
        :arg read: parses the whole output and returns the result, or None when the command has failed. By default it
            parses the listing that ppin prints at the end.
        :raises PpinError: when the output has an error code or cannot be parsed, or the dialogue fails.
        """
        pexpect = import_pexpect()
        argv, env = self._argv(args)
        self._secrets.update(password for _name, password in answers.values())
        answered: t.List[str] = []
        try:
            words = [os_text(word) for word in argv]
            with _low_descriptor_limit() as restore:
                child = pexpect.spawn(
                    words[0],
                    words[1:],
                    env=env,
                    encoding="utf-8",
                    codec_errors="replace",
                    preexec_fn=restore,
                )
        except (pexpect.ExceptionPexpect, OSError) as exc:
            raise PpinError("%s cannot be run: %s" % (argv[0], exc), cls="config", hint=INSTALL_HINT) from exc
        try:
            screen = self._answer_prompts(child, answers, answered, operation)
        finally:
            child.close(force=True)
            self.logins += 1 if answered else 0
        if child.signalstatus is not None:
            raise PpinError(
                "%s failed: ppin was terminated by signal %d" % (operation, child.signalstatus),
                hint="Find out what terminated it (out of memory?), then run again.",
            )
        result = None if find_code(screen) else (read or self._parse)(screen)
        if result is None:
            failure = self._error_from_output(screen, operation)
            if answered and failure.code == NO_ANSWER:
                failure = PpinError(failure.msg, failure.code, "timeout")
            if answered and failure.cls == "transient":
                self.logins -= 1
            raise failure
        return result

    def _answer_prompts(self, child: t.Any, answers: Answers, answered: t.List[str], operation: str) -> str:
        """Answer the prompts until ppin ends. Return all that it printed.

        A password is typed only after its prompt has appeared and the terminal's echo is off.

        :arg given: the kinds of prompts answered so far are put in here, so that they are known however this ends.
        """
        pexpect = import_pexpect()
        deadline = time.monotonic() + self.timeout
        screen, seen = "", 0
        try:
            while True:
                self._check_running(operation, deadline, screen)
                try:
                    screen += child.read_nonblocking(65536, POLL_INTERVAL)
                except pexpect.TIMEOUT:
                    continue
                except pexpect.EOF:
                    break
                # Only the last line can be a prompt. Text above it could imitate one.
                prompt = PROMPT.search(last_line(screen[seen:][-PROMPT_LIMIT:]))
                if prompt:
                    seen = len(screen)
                    kind = prompt.group(1).lower().replace("#", "").replace(" ", "")
                    if kind in answered:
                        raise self._dialogue_error(
                            "ppin asked twice for the same password", operation, screen, answered
                        )
                    name, password = answers.get(kind, (None, ""))
                    if prompt.group(2) != name:
                        raise self._dialogue_error("ppin asked for another password", operation, screen, answered)
                    self._wait_for_echo_off(child, operation, deadline)
                    child.sendline(password)
                    answered.append(kind)
            while child.isalive() and time.monotonic() < deadline:  # closing the terminal too early would kill ppin
                time.sleep(0.01)
        except TimeoutError:
            if screen[seen:].rpartition("\n")[2].strip():
                unknown = "ppin waited at an unknown prompt"
                raise self._dialogue_error(unknown, operation, screen, answered) from None
            raise self._timeout_error(operation, screen, bool(answered)) from None
        except (OSError, termios.error) as exc:
            screen += "\n[its terminal was closed: %s]" % exc
        return screen

    @staticmethod
    def _wait_for_echo_off(child: t.Any, operation: str, deadline: float) -> None:
        until = min(deadline, time.monotonic() + ECHO_TIMEOUT)
        while child.getecho():
            if time.monotonic() > until:
                raise PpinError(
                    "%s stopped: ppin asked for a password with the echo on" % operation,
                    cls="dialogue",
                    hint="No password was given to it, as the terminal would have shown it. Is this the vendor's ppin?",
                )
            time.sleep(0.01)


@contextlib.contextmanager
def _low_descriptor_limit() -> t.Iterator[t.Callable[[], None]]:
    """Lower the limit of open files while a process is started. Yields a function for the process to restore it.

    An old pexpect (EL8) closes every possible descriptor, one by one. With the limit that is usual in containers, this
    takes a minute.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = DESCRIPTOR_LIMIT if limits[1] == resource.RLIM_INFINITY else min(DESCRIPTOR_LIMIT, limits[1])

    def restore() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    if limits[0] == resource.RLIM_INFINITY or limits[0] > few:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
    try:
        yield restore
    finally:
        restore()


PROMPT = re.compile(r"\b(setup|pkcs ?#?11|proxy)\s+password\s+for\s+'(.*)'\s*:", re.I)


def last_line(text: str) -> str:
    """Return the last line that is not blank."""
    return printable(text).rstrip().rpartition("\n")[2]


def import_pexpect() -> t.Any:
    """Import pexpect, which only runs that set a credential need. :raises PpinError: when it is missing or too old."""
    hint = "Install it on the client, for example python3-pexpect. No credential was used."
    try:
        import pexpect
    except ImportError:
        raise PpinError(missing_required_lib("pexpect"), cls="config", hint=hint) from None
    version = str(getattr(pexpect, "__version__", "0"))
    if not is_new_enough(version):
        msg = "pexpect %s is too old, as %d.0 or later is needed" % (version[:20], PEXPECT_VERSION)
        raise PpinError(msg, cls="config", hint=hint)
    return pexpect
