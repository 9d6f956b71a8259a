# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Runs ppin. The one place that knows its command line, its prompts and where its files are.

What the vendor does not document (exit statuses, which stream, white space, whether prompts are read from stdin or from
the controlling terminal) is not relied on. Without a secret ppin runs with its output in a pipe; with one, in a
pseudo-terminal that is its controlling terminal, stdin, stdout and stderr at once.
"""

import base64
import contextlib
import json
import os
import re
import resource
import select
import signal
import stat
import subprocess
import termios
import time
import typing as t
import unicodedata
import urllib.parse

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.hsmops.primus.plugins.module_utils._errors import (
    CONNECTION_FAILED,
    NO_ANSWER,
    PpinError,
    find_code,
    from_code,
)
from ansible_collections.hsmops.primus.plugins.module_utils._files import check_file, group_name, native, user_name
from ansible_collections.hsmops.primus.plugins.module_utils._libconfig import SIZE_LIMIT, NotUnderstood
from ansible_collections.hsmops.primus.plugins.module_utils._listing import (
    Listing,
    Tested,
    parse_listing,
    parse_test,
    printable,
)
from ansible_collections.hsmops.primus.plugins.module_utils._passwords import (
    SETUP_FORM,
    has_setup_password_form,
    password_problem,
)
from ansible_collections.hsmops.primus.plugins.module_utils._primus_cfg import (
    SecretsString,
    Slot,
    find_passwords,
    find_secrets_string,
    name_problem,
    read_slots,
)

PRIMUS_HOME = "/usr/local/primus"
ETC = "/etc/primus"

OUTPUT_LIMIT = 1024 * 1024
"""Characters that are read from one ppin. A listing of a thousand slots has some 100,000."""

SHOWN_LIMIT = 1000
"""Characters of ppin's output that an error message shows."""

PROMPT_LIMIT = 4096
"""Characters at the end of the screen in which a prompt is looked for."""

POLL = 0.5
"""Seconds between two looks at whether a ppin that prints nothing may go on."""

FEW_FILES = 256
"""Descriptors that a ppin in a terminal may have inherited, and are closed. All of Python's close on their own."""

ECHO_TIMEOUT = 10
"""Seconds that a prompt may stand before its echo is off."""

Answers = t.Dict[str, t.Tuple[str, str]]
"""By kind of prompt, C(setup), C(pkcs11) or C(proxy): the name that the prompt must show, and the password."""

ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "executable": {"type": "path"},
    "primus_home": {"type": "path"},
    "config_path": {"type": "path"},
    "secrets_path": {"type": "path"},
    "timeout": {"type": "int", "default": 60},
}
"""The options of the doc fragment C(ppin)."""

PARTITION_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "user_name": {"type": "str", "required": True, "aliases": ["partition", "name"]},
}
"""The option of the doc fragment C(ppin.partition)."""

SETUP_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "setup_password": {"type": "str", "no_log": True},
    "pkcs11_password": {"type": "str", "no_log": True},
    "setup_password_format_check": {"type": "bool", "default": True, "no_log": False},
}
"""The options of the doc fragment C(ppin.setup)."""


class ConfigProblem(t.NamedTuple):
    """Why primus.cfg is not understood. line is None when file cannot be read at all."""

    file: str
    line: t.Optional[int]
    reason: str

    def __str__(self) -> str:
        return "%s%s: %s" % (self.file, "" if self.line is None else ", line %d" % self.line, self.reason)


class Paths(t.NamedTuple):
    """Where things are on this client.

    executable: None when there is no ppin.
    secrets: never a symbolic link.
    secrets_by: the path by which secrets was found, where links on it lead there; or empty.
    """

    executable: t.Optional[str]
    home: str
    config: str
    secrets: str
    secrets_by: str = ""


def find_paths(params: t.Mapping[str, t.Any], find_in_path: t.Callable[[str], t.Optional[str]]) -> Paths:
    """Look where ppin looks: the option, the environment variable, /etc/primus, then PRIMUS_HOME/etc.

    :arg params: the module's parameters, with those of ARGUMENTS.
    :arg find_in_path: C(AnsibleModule.get_bin_path).
    :raises PpinError: when the executable that was named is not there, or a path can be none.
    """
    for option in ("executable", "primus_home", "config_path", "secrets_path"):
        if any(char == "\0" or unicodedata.category(char) == "Cs" for char in params[option] or ""):
            raise PpinError("%s has a NUL or a character in it that is no UTF-8" % option, cls="config")
    params = {option: native(params[option]) if params[option] else None for option in ARGUMENTS if option != "timeout"}
    home = params["primus_home"] or os.environ.get("PRIMUS_HOME") or PRIMUS_HOME

    def find(option: str, variable: str, name: str) -> str:
        named = params[option] or os.environ.get(variable)
        if named:
            return str(named)
        places = [os.path.join(ETC, name), os.path.join(home, "etc", name)]
        return next((place for place in places if os.path.exists(place)), places[0])

    executable = params["executable"] or None
    if executable is None:
        executable = os.path.join(home, "bin", "ppin")
        if not os.path.exists(executable):
            executable = find_in_path("ppin")
    elif not os.path.exists(executable):
        raise PpinError("There is no %s" % executable, cls="config", hint=_INSTALL_HINT)
    secrets = find("secrets_path", "SECUROSYS_SECRETS_CONF", ".secrets.cfg")
    return Paths(
        executable,
        home,
        find("config_path", "SECUROSYS_PKCS11_CONF", "primus.cfg"),
        os.path.realpath(secrets),
        "" if os.path.realpath(secrets) == secrets else secrets,
    )


def changeable(paths: Paths) -> t.Optional[str]:
    """Who else than root and this user may change what they run, ppin and its library, or None.

    What an ACL allows shows in the permissions of the group. A directory with the sticky bit protects what is in it.
    """
    programs = [paths.executable] if paths.executable else []
    for path in programs + [os.path.join(paths.home, "lib", "libprimusP11.so")]:
        place = os.path.realpath(path)
        while os.path.exists(place):
            status = os.stat(place)
            if status.st_uid not in (0, os.geteuid()):
                return "%s belongs to the user %s" % (place, user_name(status.st_uid))
            if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
                others = "every user" if status.st_mode & 0o002 else "the group %s" % group_name(status.st_gid)
                return "%s can be written by %s" % (place, others)
            if place == os.path.dirname(place):
                break
            place = os.path.dirname(place)
    return None


_INSTALL_HINT = "Install the Primus PKCS#11 provider, or say where ppin is with executable or primus_home."


def check_name(option: str, name: str) -> None:
    """Refuse what can be no name of a partition or service user. :raises PpinError:"""
    problem = name_problem(name)
    if problem:
        raise PpinError("%s %s" % (option, problem), cls="config", hint="Use the name that stands in primus.cfg.")


def check_secret(option: str, secret: t.Optional[str]) -> None:
    """Refuse what a terminal would not deliver as it is. :raises PpinError:"""
    problem = None if secret is None else password_problem(secret)
    if problem:
        raise PpinError(
            "%s %s" % (option, problem),
            cls="config",
            hint="A terminal would not deliver it as it is. Check where it comes from: a line break at the end often "
            "comes from a file, and | trim removes it.",
        )


def check_timeout(timeout: int) -> None:
    """:raises PpinError: when nothing could be done in time."""
    if timeout < 1:
        raise PpinError("timeout must be at least 1", cls="config", hint="Give the option timeout more seconds.")


def check_setup_password(setup_password: t.Optional[str]) -> None:
    """Refuse what cannot be a setup password before it costs an attempt. :raises PpinError:"""
    if setup_password is not None and not has_setup_password_form(setup_password):
        raise PpinError(
            "setup_password does not have the form of a setup password",
            cls="config",
            hint="Such a password has 29 characters: %s. No attempt was spent. If your device makes others, set "
            "setup_password_format_check to false." % SETUP_FORM,
        )


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
            raise PpinError("%s was ended by signal %d" % (doing, self._ended_by), hint="Run again.")
        if len(output) > OUTPUT_LIMIT:
            raise PpinError(
                "%s was ended: ppin printed more than %d characters" % (doing, OUTPUT_LIMIT),
                cls="dialogue",
                hint="Run ppin by hand to see what it prints. Is this the vendor's ppin?",
            )
        if time.monotonic() > deadline:
            raise TimeoutError

    def check_files(self) -> None:
        """:raises PpinError: when ppin cannot be run or a file that it needs is not there."""
        if self.paths.executable is None:
            raise PpinError("There is no ppin in %s/bin or PATH" % self.paths.home, cls="config", hint=_INSTALL_HINT)
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

    def passwords_in_clear(self) -> t.Optional[t.List[str]]:
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
            raise PpinError(_without(self._secrets, exc.msg), cls=exc.cls, hint=exc.hint) from None

    def add(self, user_name: str, setup_password: str, pkcs11_password: str) -> None:
        """:raises PpinError: when the permanent secret was not fetched."""
        self._fetch("-a", "Adding", user_name, setup_password, pkcs11_password)

    def update(self, user_name: str, setup_password: str, pkcs11_password: str) -> None:
        """:raises PpinError: when it was not fetched; ppin has then removed the present entry."""
        self._fetch("-u", "Updating", user_name, setup_password, pkcs11_password)

    def _fetch(self, flag: str, verb: str, user_name: str, setup_password: str, pkcs11_password: str) -> None:
        answers = {"setup": (user_name, setup_password), "pkcs11": (user_name, pkcs11_password)}
        self.dialogue([flag, "-e", user_name], answers, "%s the permanent secret of '%s'" % (verb, user_name))

    def remove(self, user_name: str) -> None:
        self._remove("-r", user_name, "Removing the permanent secret of '%s'" % user_name)

    def add_proxy(self, service_user: str, password: str) -> None:
        doing = "Setting the service proxy password of '%s'" % service_user
        self.dialogue(["-p", "-e", service_user], {"proxy": (service_user, password)}, doing)

    def remove_proxy(self, service_user: str) -> None:
        self._remove("-x", service_user, "Removing the service proxy password of '%s'" % service_user)

    def _remove(self, flag: str, name: str, doing: str) -> None:
        output = self.run(flag, "-e", name)
        if find_code(output) or self._parse(output) is None:
            raise self._failure(output, doing)

    def login(self, user_name: str, hsm: t.Optional[str], slot_id: t.Optional[int] = None) -> t.Optional[PpinError]:
        """Log in once with the permanent secret. None when it worked, else what ppin said.

        :arg hsm: where; None: once at each HSM of the partition. It worked when all that judged the secret accepted it.
        :arg slot_id: to test this slot only; a partition with several would be logged in to once per slot.
        """
        args = ["--test", "--user", user_name] + ([] if hsm is None else ["--hsm", hsm])
        doing = "The login of '%s' at %s" % (user_name, hsm or "every HSM")
        output = self.run(*(args if slot_id is None else args + ["--slotid", str(slot_id)]))
        tested = parse_test(output, [user_name]).of(user_name)
        judged = [slot for slot in tested.slots if slot.may_be_spent]
        failure = None if judged and all(slot.ok for slot in judged) else self._login_failure(tested, output, doing)
        if failure and judged and failure.code in (NO_ANSWER, CONNECTION_FAILED):
            failure = PpinError(failure.msg, failure.code, "timeout")
        if failure is None or failure.cls != "transient":
            unclear = failure is not None and failure.may_be_judged
            self.logins += len(judged) + tested.logins_at_hsms or int(unclear)
        return failure

    def _login_failure(self, tested: Tested, output: str, doing: str) -> PpinError:
        """What went wrong with the logins of a test: a rejection before all else, then what is not known to be none."""
        failed = [slot.error for slot in tested.slots if slot.error]
        if not tested.slots and not any(hsm.connected for hsm in tested.hsms):
            failed = [hsm.error for hsm in tested.hsms if hsm.error]
        errors = sorted(failed, key=lambda error: (not error.rejects, not error.may_be_judged))
        if not errors:
            return self._failure(output, doing)
        error = errors[0]
        if error.code:
            return from_code(error.code, doing)
        return PpinError("%s failed%s" % (doing, self._shown(output)), cls=error.cls)

    def test(self, names: t.Collection[str], **filters: t.Optional[str]) -> Tested:
        """Log in once to each slot of each HSM that fits. :raises PpinError: when ppin does not tell of any.

        :arg names: the partitions that are listed.
        :arg filters: C(user), C(hsm), C(slot) and C(slotid), as ppin names them.
        """
        args = ["--test"]
        for name, value in filters.items():
            args += [] if value is None else ["--" + name, value]
        late = None
        try:
            output = self.run(*args)
        except PpinError as exc:
            late, output = exc, exc.output
        tested = parse_test(output, names)._replace(late=late)
        if late is not None and not tested.slots:
            raise late
        if not tested.hsms and tested.partitions == 0 and find_code(output) is None:
            raise PpinError("No slot of primus.cfg fits", cls="config")
        if not tested.hsms:
            raise self._failure(output, "Testing the connections (ppin --test)")
        self.logins += len([slot for slot in tested.slots if slot.may_be_spent])
        self.logins += tested.logins_at_hsms
        return tested

    def fetch_log(self, user_name: str, hsm: str, since: t.Optional[str], reverse: bool, out: str) -> None:
        """Log in and have the log of a partition written to a file. :raises PpinError: when it is not there then.

        :arg since: a day, C(YYYY-MM-DD).
        :arg out: a path at which nothing is. What ppin prints is thus not mixed with the log, where codes may stand.
        """
        args = ["--fetchlog", "--user", user_name, "--hsm", hsm, "--out", out]
        args += ["--since", since] if since else []
        args += ["--reverse"] if reverse else []
        output = self.run(*args)
        if find_code(output) or not os.path.exists(out):
            failure = self._failure(output, "Fetching the log of '%s' from %s" % (user_name, hsm))
            self.logins += 1 if failure.may_be_judged else 0
            raise failure
        self.logins += 1

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
            raise PpinError("%s cannot be run: %s" % (argv[0], exc.strerror), cls="config", hint=_INSTALL_HINT) from exc
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
                late = self._late(name, output.decode("utf-8", "replace"), args[0] in _LOGINS)
                late.output = output.decode("utf-8", "replace")
                raise late from None
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)

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
            raise PpinError("%s cannot be run: %s" % (argv[0], exc), cls="config", hint=_INSTALL_HINT) from exc
        try:
            screen = self._talk(child, answers, given, doing)
        finally:
            child.close(force=True)
            self.logins += 1 if given else 0
        if child.signalstatus is not None:
            raise PpinError(
                "%s failed: ppin was ended by signal %d" % (doing, child.signalstatus),
                hint="Look who ended it (out of memory?), then run again.",
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
                unknown = "ppin waited at something that is not known"
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

    # What went wrong

    def _failure(self, output: str, doing: str) -> PpinError:
        code = find_code(output)
        return from_code(code, doing) if code else PpinError("%s failed%s" % (doing, self._shown(output)))

    def _late(self, doing: str, output: str, used_credential: bool) -> PpinError:
        used_credential = used_credential or self.logins > 0  # by this ppin, or by one before it
        return PpinError(
            "%s was ended after %d seconds%s" % (doing, self.timeout, self._shown(output)),
            cls="timeout",
            hint=None if used_credential else "Look whether ppin hangs when it is run by hand. No credential was used.",
        )

    def _unexpected(self, what: str, doing: str, screen: str, given: t.List[str]) -> PpinError:
        return PpinError(
            "%s stopped: %s%s" % (doing, what, self._shown(screen)),
            cls="dialogue",
            hint="What was typed before may have been judged: check it before the next run." if given else None,
        )

    def _shown(self, output: str) -> str:
        """The end of what ppin printed, for an error message: no secret, no control characters."""
        text = _without(self._secrets, printable(output))
        text = " | ".join(line.strip() for line in text.splitlines() if line.strip())
        text = "".join(char if char.isprintable() else "?" for char in text)
        if not text:
            return "; it printed nothing"
        return "; it printed: %s" % (text if len(text) <= SHOWN_LIMIT else "..." + text[-SHOWN_LIMIT:])


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


# A secrets file in base64 on one line or several, or a ciphered value of one.
_ENCODED = re.compile(r"(?:[A-Za-z0-9+/]{60,}\s*)+[A-Za-z0-9+/]*={0,2}")

_LOGINS = ("--test", "--fetchlog")  # what uses a credential without asking for one

_PROMPT = re.compile(r"\b(setup|pkcs ?#?11|proxy)\s+password\s+for\s+'(.*)'\s*:", re.I)


def _last_line(text: str) -> str:
    """The last line of a text that has more than white space in it."""
    return printable(text).rstrip().rpartition("\n")[2]


def _without(secrets: t.Iterable[str], text: str) -> str:
    """The text with the secrets cut out, or none of it when one is there in another form, or in pieces."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "********")
    text = _ENCODED.sub("********", text)
    for between in (r"\s+", r"[\W_]+"):
        squeezed = re.sub(between, "", text).lower()
        for form in (re.sub(between, "", form).lower() for secret in secrets for form in _forms(secret)):
            length = max(8, len(form) // 2)
            pieces = [form[i : i + length] for i in range(max(1, len(form) - length + 1))]
            if len(form) >= 4 and any(piece in squeezed for piece in pieces):
                return "(not shown, as a password is in it)"
    return text


def _forms(secret: str) -> t.List[str]:
    """A secret and what is easily made of it."""
    raw = secret.encode("utf-8")
    # In base64 it looks different at each of three places in what was encoded with it.
    encoded = [base64.b64encode(b"\0" * i + raw)[(0, 2, 3)[i] : -4].decode("ascii") for i in range(3)]
    return [secret, secret[::-1], raw.hex(), urllib.parse.quote(secret, ""), json.dumps(secret)[1:-1]] + encoded


PEXPECT_VERSION = 4
"""The oldest pexpect: since 4.0 it can be given an encoding. EL8 has 4.3, Debian 9 has 4.2, CentOS 7 has 2.3."""


def import_pexpect() -> t.Any:
    """pexpect, loaded only by the runs that set a credential. :raises PpinError: when it is missing or too old."""
    hint = "Install it on the client, for example python3-pexpect. No credential was used."
    try:
        import pexpect
    except ImportError:
        raise PpinError(missing_required_lib("pexpect"), cls="config", hint=hint) from None
    version = str(getattr(pexpect, "__version__", "0"))
    major = re.match(r"\d+", version)
    if major is None or int(major.group()) < PEXPECT_VERSION:
        problem = "pexpect %s is too old, as %d.0 or later is needed" % (version[:20], PEXPECT_VERSION)
        raise PpinError(problem, cls="config", hint=hint)
    return pexpect
