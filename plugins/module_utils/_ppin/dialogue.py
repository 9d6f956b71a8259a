# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Runs the commands of ppin that ask for passwords, and answers them.

They run in a pseudo-terminal that is their controlling terminal, stdin, stdout and stderr at once, as it is not
documented where prompts are read from.
"""

import contextlib
import re
import resource
import termios
import time
import typing as t

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.hsmops.primus.plugins.module_utils._client.files import native
from ansible_collections.hsmops.primus.plugins.module_utils._client.primus_cfg import SecretsString, find_secrets_string
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.command import POLL
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import NO_ANSWER, PpinError, find_code
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.expect import PEXPECT_VERSION, is_new_enough
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import printable
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.login import LoginPpin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import INSTALL_HINT

PROMPT_LIMIT = 4096
"""Characters at the end of the screen in which a prompt is looked for."""

FEW_FILES = 256
"""Descriptors that a ppin in a terminal may have inherited, and are closed. All of Python's close on their own."""

ECHO_TIMEOUT = 10
"""Seconds that a prompt may be there before its echo is off."""

Answers = t.Dict[str, t.Tuple[str, str]]
"""By kind of prompt, C(setup), C(pkcs11) or C(proxy): the name that the prompt must show, and the password."""


class TalkingPpin(LoginPpin):
    """A ppin that can be given passwords."""

    def add(self, user_name: str, setup_password: str, pkcs11_password: str) -> None:
        """:raises PpinError: when the permanent secret was not fetched."""
        self._fetch("-a", "Adding", user_name, setup_password, pkcs11_password)

    def update(self, user_name: str, setup_password: str, pkcs11_password: str) -> None:
        """:raises PpinError: when it was not fetched; ppin has then removed the present entry."""
        self._fetch("-u", "Updating", user_name, setup_password, pkcs11_password)

    def _fetch(self, flag: str, verb: str, user_name: str, setup_password: str, pkcs11_password: str) -> None:
        answers = {"setup": (user_name, setup_password), "pkcs11": (user_name, pkcs11_password)}
        self.dialogue([flag, "-e", user_name], answers, "%s the permanent secret of '%s'" % (verb, user_name))

    def add_proxy(self, service_user: str, password: str) -> None:
        doing = "Setting the service proxy password of '%s'" % service_user
        self.dialogue(["-p", "-e", service_user], {"proxy": (service_user, password)}, doing)

    def fortinet(
        self,
        user_name: str,
        setup_password: str,
        pkcs11_password: str,
        proxy_user: t.Optional[str],
        proxy_password: t.Optional[str],
    ) -> SecretsString:
        """The secrets string for FortiGate. :raises PpinError: when it was not made."""
        doing = "Making the FortiGate secrets string of '%s'" % user_name
        args = ["--fortinet", "--user", user_name]
        answers = {"setup": (user_name, setup_password), "pkcs11": (user_name, pkcs11_password)}
        if proxy_user and proxy_password:
            args += ["--proxyuser", proxy_user]
            answers["proxy"] = (proxy_user, proxy_password)
        made: SecretsString = self.dialogue(
            args, answers, doing, lambda screen: find_secrets_string(_PROMPT.sub("\n", screen))
        )
        return made

    def dialogue(
        self,
        args: t.Sequence[str],
        answers: Answers,
        doing: str,
        read: t.Optional[t.Callable[[str], t.Any]] = None,
    ) -> t.Any:
        """Run a command that asks for passwords, and answer each of its prompts once.

        :arg read: makes of what is on the screen at the end what is returned, or None when that is not what it must be;
            by default the listing.
        :raises PpinError: unless ppin ends with what can be read, and without an error code.
        """
        pexpect = import_pexpect()
        argv, env = self._argv(args)
        self._secrets.update(password for _name, password in answers.values())
        given: t.List[str] = []
        try:
            words = [native(word) for word in argv]
            with _few_files() as restore:
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
            screen = self._talk(child, answers, given, doing)
        finally:
            child.close(force=True)
            self.logins += 1 if given else 0
        if child.signalstatus is not None:
            raise PpinError(
                "%s failed: ppin was terminated by signal %d" % (doing, child.signalstatus),
                hint="Find out what terminated it (out of memory?), then run again.",
            )
        result = None if find_code(screen) else (read or self._parse)(screen)
        if result is None:
            failure = self._failure(screen, doing)
            if given and failure.code == NO_ANSWER:
                failure = PpinError(failure.msg, failure.code, "timeout")
            if given and failure.cls == "transient":
                self.logins -= 1
            raise failure
        return result

    def _talk(self, child: t.Any, answers: Answers, given: t.List[str], doing: str) -> str:
        """Answer the prompts until ppin ends; all that it printed.

        An answer is typed only after its prompt is there and the terminal's echo is off.

        :arg given: the kinds of prompts answered so far are put in here, so that they are known however this ends.
        """
        pexpect = import_pexpect()
        deadline = time.monotonic() + self.timeout
        screen, seen = "", 0
        try:
            while True:
                self._check(doing, deadline, screen)
                try:
                    screen += child.read_nonblocking(65536, POLL)
                except pexpect.TIMEOUT:
                    continue
                except pexpect.EOF:
                    break
                # Only the last line is being asked: what stands above may be there to mislead.
                prompt = _PROMPT.search(_last_line(screen[seen:][-PROMPT_LIMIT:]))
                if prompt:
                    seen = len(screen)
                    kind = prompt.group(1).lower().replace("#", "").replace(" ", "")
                    if kind in given:
                        raise self._unexpected("ppin asked twice for the same password", doing, screen, given)
                    name, password = answers.get(kind, (None, ""))
                    if prompt.group(2) != name:
                        raise self._unexpected("ppin asked for another password", doing, screen, given)
                    self._wait_for_echo_off(child, doing, deadline)
                    child.sendline(password)
                    given.append(kind)
            while child.isalive() and time.monotonic() < deadline:  # closing the terminal too early would end it
                time.sleep(0.01)
        except TimeoutError:
            if screen[seen:].rpartition("\n")[2].strip():
                unknown = "ppin waited at an unknown prompt"
                raise self._unexpected(unknown, doing, screen, given) from None
            raise self._late(doing, screen, bool(given)) from None
        except (OSError, termios.error) as exc:
            screen += "\n[its terminal was closed: %s]" % exc
        return screen

    @staticmethod
    def _wait_for_echo_off(child: t.Any, doing: str, deadline: float) -> None:
        until = min(deadline, time.monotonic() + ECHO_TIMEOUT)
        while child.getecho():
            if time.monotonic() > until:
                raise PpinError(
                    "%s stopped: ppin asked for a password with the echo on" % doing,
                    cls="dialogue",
                    hint="No password was given to it, as the terminal would have shown it. Is this the vendor's ppin?",
                )
            time.sleep(0.01)


@contextlib.contextmanager
def _few_files() -> t.Iterator[t.Callable[[], None]]:
    """Start a process while few files may be open; what it calls to have its own limit again.

    An old pexpect (EL8) closes every descriptor that there may be, one by one, which takes a minute where the limit is
    as high as it is in containers.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = FEW_FILES if limits[1] == resource.RLIM_INFINITY else min(FEW_FILES, limits[1])

    def restore() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    if limits[0] == resource.RLIM_INFINITY or limits[0] > few:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
    try:
        yield restore
    finally:
        restore()


_PROMPT = re.compile(r"\b(setup|pkcs ?#?11|proxy)\s+password\s+for\s+'(.*)'\s*:", re.I)


def _last_line(text: str) -> str:
    """The last line of a text that has more than white space in it."""
    return printable(text).rstrip().rpartition("\n")[2]


def import_pexpect() -> t.Any:
    """pexpect, loaded only by the runs that set a credential. :raises PpinError: when it is missing or too old."""
    hint = "Install it on the client, for example python3-pexpect. No credential was used."
    try:
        import pexpect
    except ImportError:
        raise PpinError(missing_required_lib("pexpect"), cls="config", hint=hint) from None
    version = str(getattr(pexpect, "__version__", "0"))
    if not is_new_enough(version):
        problem = "pexpect %s is too old, as %d.0 or later is needed" % (version[:20], PEXPECT_VERSION)
        raise PpinError(problem, cls="config", hint=hint)
    return pexpect
