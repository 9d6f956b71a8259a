# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ppin command, as its vendor documents it; what is not documented is chosen by the switches of behaviour.py.

It starts fast: ssl, cryptography and whatever else costs is imported where it is used.
"""

import os
import sys
import time

import libconf

from . import behaviour, codes
from .secrets_file import SecretsFile, SecretsFileError, cipher, decipher

USAGE = """\
Usage: ppin [-c FILE] [-s FILE] COMMAND
  -h                                    this text
  -v                                    version of the provider
  -l                                    list slots and service proxies
  -a -e USER [SETUP PIN]                add a permanent secret
  -u -e USER [SETUP PIN]                update a permanent secret
  -r -e USER                            remove a permanent secret
  -p -e SERVICE_USER [PASSWORD]         add a service proxy password
  -x -e SERVICE_USER                    remove a service proxy password
  -t, --test [--user U] [--hsm H] [--slot S] [--slotid N]
                                        log in to every HSM and partition
  --fetchlog --user U --hsm H [--reverse] [--since YYYY-MM-DD] [--out FILE]
                                        dump the log of a partition
  --fortinet --user U [SETUP [PIN]] [--proxyuser P [--proxypwd W]]
                                        print the secrets file in base64
  -c FILE                               primus.cfg
  -s FILE                               .secrets.cfg
"""

DEFAULT_VERSION = "2.2.4"
COMMANDS = "hvlaurpxt"
STARS = "*" * 20
# No verdict was given: another node may be tried.
UNREACHABLE = (codes.CONNECT_FAILED, codes.CONNECT_TIMEOUT)


class PpinError(Exception):
    """A failure that ends ppin. code: a documented one, or None when there is none."""

    def __init__(self, code, text=""):
        super().__init__(text)
        self.code = code
        self.text = text or codes.MEANING.get(code, "failed")


class UsageError(Exception):
    """A command line that ppin does not understand."""


class Password:
    """A password and how it came: terminal, stdin, argv or file."""

    def __init__(self, value, source):
        self.value = value
        self.source = source


class Options:
    """A command line: ``command`` is a letter of COMMANDS, fetchlog or fortinet. Raises UsageError."""

    VALUES = ("user", "hsm", "slot", "slotid", "since", "out", "proxyuser", "proxypwd")

    def __init__(self, argv):
        self.command = None
        self.config = self.secrets = None
        self.reverse = False
        self.passwords = []
        for name in self.VALUES:
            setattr(self, name, None)
        self._rest = list(argv)
        while self._rest:
            word = self._rest.pop(0)
            if word.startswith("--"):
                self._long(word[2:])
            elif word.startswith("-") and len(word) > 1:
                for letter in word[1:]:
                    self._short(letter)
            else:
                self.passwords.append(word)
        self._check()

    def _long(self, name):
        if name in ("test", "fetchlog", "fortinet"):
            self._set_command("t" if name == "test" else name)
        elif name == "reverse":
            self.reverse = True
        elif name in self.VALUES:
            setattr(self, name, self._value("--" + name))
        else:
            raise UsageError("unknown option --%s" % name)

    def _short(self, letter):
        names = {"e": "user", "c": "config", "s": "secrets"}
        if letter in names:
            setattr(self, names[letter], self._value("-" + letter))
        elif letter in COMMANDS:
            self._set_command(letter)
        else:
            raise UsageError("unknown option -%s" % letter)

    def _value(self, option):
        if not self._rest:
            raise UsageError("%s needs a value" % option)
        return self._rest.pop(0)

    def _set_command(self, command):
        if self.command is not None:
            raise UsageError("more than one command")
        self.command = command

    def _check(self):
        if self.command is None:
            raise UsageError("no command")
        if self.user is None and self.command in ("a", "u", "r", "p", "x", "fetchlog", "fortinet"):
            raise UsageError("no user")
        if self.command == "fetchlog" and self.hsm is None:
            raise UsageError("no HSM")
        if len(self.passwords) > {"a": 2, "u": 2, "fortinet": 2, "p": 1}.get(self.command, 0):
            raise UsageError("too many arguments")


class Slot:
    """A slot of primus.cfg."""

    def __init__(self, name, settings):
        self.name = name
        self.id = int(settings["id"])
        self.user = str(settings["user_name"])
        self.client_id = str(settings.get("client_id", ""))
        self.proxy_user = settings.get("proxy_user")
        self.proxy_password = settings.get("proxy_password")


class HsmEntry:
    """An HSM of primus.cfg."""

    def __init__(self, name, settings):
        self.name = name
        self.host = str(settings["host"])
        self.port = int(settings["port"])
        self.priority = int(settings.get("priority", 0))
        self.slots = [Slot(*item) for item in settings.get("slots", {}).items()]


def read_config(path):
    """Return the HSM entries of a primus.cfg, in its order. Raises PpinError."""
    try:
        with open(path, encoding="utf-8") as file:
            hsms = libconf.loads(file.read())["primus"].get("hsms", {})
        entries = [HsmEntry(*item) for item in hsms.items()]
    except FileNotFoundError:
        raise PpinError(codes.CONFIG_NOT_FOUND) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, libconf.ConfigParseError):
        raise PpinError(codes.CONFIG_INVALID) from None
    if not any(entry.slots for entry in entries):
        raise PpinError(codes.NOTHING_CONFIGURED)
    return entries


class Output:
    """Writes lines and prompts in the way the switches choose."""

    def __init__(self, switches):
        self._switches = switches
        self._stream = getattr(sys, switches.output_stream).buffer
        self._messages = getattr(sys, switches.message_stream).buffer

    def line(self, text=""):
        self._write(self._stream, text)

    def message(self, text):
        self._write(self._messages, text)

    def prompt(self, text):
        """Return the bytes of a prompt, for the stream that the dialogue chooses."""
        text = self._bold(text) + ("\n" if self._switches.prompt_newline else "")
        return text.encode("utf-8", "surrogateescape")

    def raw(self, data):
        self._stream.write(data)
        self._stream.flush()

    def header(self):
        for text in (STARS, "Primus Permanent PIN", STARS):
            self.line(text)

    def _bold(self, text):
        return "\x1b[1m%s\x1b[0m" % text if self._switches.escape_sequences and text else text

    def _write(self, stream, text):
        text = self._bold(text) + " " * self._switches.trailing_spaces + ("\r\n" if self._switches.crlf else "\n")
        stream.write(text.encode("utf-8", "surrogateescape"))
        stream.flush()


class Dialogue:
    """Asks for passwords with no echo, on stdin or on the controlling terminal.

    A context: echo is restored at its end.
    """

    def __init__(self, switches, output):
        self._switches = switches
        self._output = output
        self._saved = None

    def __enter__(self):
        if self._switches.input == "tty":
            try:
                self._terminal = open("/dev/tty", "r+b", buffering=0)
            except OSError:
                raise PpinError(None, "no terminal to ask on") from None
        else:
            self._terminal = open(0, "rb", buffering=0, closefd=False)
        return self

    def __exit__(self, *exc):
        self._echo_on()
        self._terminal.close()

    def ask(self, prompt, end="\n"):
        """Return a Password. end: what is printed after it, as the new line that was typed is not seen."""
        late = self._switches.echo_off_late_ms
        if not late:
            self._echo_off()
        self._write(self._output.prompt(prompt))
        if late:
            time.sleep(late / 1000)
            self._echo_off()
        if self._switches.hang_at == "prompt":
            hang(self._switches)
        value = self._read()
        if not self._switches.echo_off_once:
            self._echo_on()
        self._write(end.encode())
        return Password(value, "terminal" if self._terminal.isatty() else "stdin")

    def ask_extra(self):
        """Ask the question that nobody knows; any answer will do."""
        self._write(self._output.prompt(self._switches.extra_question + " "))
        self._read()

    def _read(self):
        line = self._terminal.readline()
        if not line:
            raise PpinError(None, "no password given")
        return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")

    def _write(self, data):
        if self._switches.input == "tty":
            self._terminal.write(data)
        else:
            self._output.raw(data)

    def _echo_off(self):
        if self._saved is None and self._terminal.isatty():
            import termios

            self._saved = termios.tcgetattr(self._terminal)
            silent = list(self._saved)
            silent[3] &= ~termios.ECHO
            when = termios.TCSAFLUSH if self._switches.flush_typeahead else termios.TCSANOW
            termios.tcsetattr(self._terminal, when, silent)

    def _echo_on(self):
        if self._saved is not None:
            import termios

            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._saved)
            self._saved = None


class Session:
    """A connection to one HSM for one slot, through the proxy when the slot names one. Raises PpinError.

    proxy_password: a Password, for a slot with a proxy user.
    """

    def __init__(self, hsm, slot, switches, proxy_password=None):
        import socket

        from . import protocol

        self._protocol = protocol
        self.client_id = slot.client_id
        try:
            plain = socket.create_connection((hsm.host, hsm.port), timeout=switches.timeout)
            self._connection = _tls(switches.ca).wrap_socket(plain)
        except TimeoutError:
            raise PpinError(codes.CONNECT_TIMEOUT) from None
        except OSError as error:
            # Before Python 3.10 a socket's timeout is an error of its own.
            timeout = isinstance(error, socket.timeout)
            raise PpinError(codes.CONNECT_TIMEOUT if timeout else codes.CONNECT_FAILED) from None
        self._timeout = socket.timeout
        self._stream = self._connection.makefile("rb")
        if slot.proxy_user:
            self.call(
                "proxy-login",
                user=slot.proxy_user,
                password=proxy_password.value,
                source=proxy_password.source,
                client=slot.client_id,
            )

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._stream.close()
        self._connection.close()

    def call(self, op, **fields):
        """Send a request and return its answer. Raises PpinError with the code of the answer."""
        try:
            self._connection.sendall(self._protocol.encode({"op": op, **fields}))
            answer = self._protocol.decode(self._stream.readline())
        except self._timeout:
            raise PpinError(codes.CONNECT_TIMEOUT) from None
        except (OSError, ValueError):
            raise PpinError(codes.CONNECT_FAILED) from None
        if answer["code"] != codes.OK:
            raise PpinError(answer["code"])
        return answer

    def login(self, user, kind, password):
        self.call(
            "login",
            partition=user,
            kind=kind,
            password=password.value,
            source=password.source,
            client=self.client_id,
        )


def _tls(ca):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate is the emulator's own, its address any
    if ca:
        context.load_verify_locations(ca)
    else:
        context.verify_mode = ssl.CERT_NONE
    return context


class Ppin:
    """One run of ppin."""

    def __init__(self, options, switches, output, home):
        self._options = options
        self._switches = switches
        self._output = output
        self._home = home
        self._config_path = self._find(options.config, "SECUROSYS_PKCS11_CONF", "primus.cfg")
        self._secrets_path = self._find(options.secrets, "SECUROSYS_SECRETS_CONF", ".secrets.cfg")

    def run(self):
        """Run the command; returns whether it succeeded. Raises PpinError."""
        if self._options.command == "h":
            self._output.raw(USAGE.encode())
            return True
        if self._options.command == "v":
            self._output.line("Primus HSM PKCS#11 %s" % self._version())
            return True
        self._hsms = read_config(self._config_path)
        if self._options.command == "t":
            return self._test()
        if self._options.command == "fortinet":
            self._fortinet()
            return True
        self._secrets = self._load_secrets()
        command = self._options.command
        if command == "fetchlog":
            self._fetch_log()
            return True
        changes = {
            "a": self._add,
            "u": self._update,
            "r": self._remove,
            "p": self._add_proxy,
            "x": self._remove_proxy,
        }
        lie = self._switches.lie_configured == "always"
        if command in changes:
            try:
                if not os.access(self._secrets_path, os.W_OK):
                    raise PpinError(codes.SECRETS_NOT_WRITABLE)
                changes[command]()
            except PpinError:
                if self._switches.lie_configured != "changes" or command not in "aup":
                    raise
                lie = True
        self._list(lie)
        return True

    def _find(self, given, variable, name):
        primary = os.path.join(self._switches.system_etc, name)
        fallback = os.path.join(self._home, "etc", name)
        return given or os.environ.get(variable) or (primary if os.path.exists(primary) else fallback)

    def _version(self):
        try:
            with open(os.path.join(self._home, "share", "VERSION")) as file:
                packaged = file.read().strip()
        except FileNotFoundError:
            packaged = DEFAULT_VERSION
        return self._switches.version or packaged

    def _load_secrets(self):
        try:
            return SecretsFile.load(self._secrets_path)
        except SecretsFileError as error:
            raise PpinError(error.code) from None

    def _list(self, lie):
        # The three published listings differ in white space: after the slot id, and after the name, where the listing
        # of three partitions has one blank more for a slot that is configured.
        wide = self._switches.listing == "three"
        gap = " " if self._switches.listing == "add" else " " * 4
        self._output.header()
        slots = [slot for hsm in self._hsms for slot in hsm.slots]
        for number, slot in enumerate(slots, 1):
            configured = lie or slot.user in self._secrets.users
            pad = " " * ((2 + configured) if wide else 1)
            state = "Configured" if configured else "MISSING"
            name = "slot-id %d:%suser '%s'" % (slot.id, gap, slot.user)
            self._output.line("[%02d] %s%spermanent secret: %s" % (number, name, pad, state))
        for number, slot in enumerate((slot for slot in slots if slot.proxy_user), 1):
            pad = "  " if wide else " "
            state = "Configured" if lie or slot.proxy_user in self._secrets.proxies else "MISSING"
            name = "service/proxy user '%s'" % slot.proxy_user
            self._output.line("[%02d] %s%spermanent secret: %s" % (number, name, pad, state))

    # Changes of the secrets file

    def _write(self):
        def before_write(number):
            time.sleep(self._switches.write_delay_ms / 1000)
            if number == self._switches.kill_at_write:
                kill()

        try:
            self._secrets.write(self._secrets_path, self._switches.chunk_bytes, before_write)
        except SecretsFileError as error:
            raise PpinError(error.code) from None

    def _check_existing(self, entries, user, rule):
        if user in entries and rule != "overwrite":
            raise PpinError(codes.DUPLICATE_ENTRY if rule == "duplicate" else codes.ALREADY_CONFIGURED)

    def _add(self):
        user = self._options.user
        slots = self._slots_of(user)
        self._check_existing(self._secrets.users, user, self._switches.add_existing)
        self._fetch_secret(user, slots)
        self._write()

    def _update(self):
        user = self._options.user
        slots = self._slots_of(user)
        if user not in self._secrets.users:
            raise PpinError(codes.UPDATE_FAILED)
        try:
            self._fetch_secret(user, slots)
        except PpinError:
            if not self._switches.keep_entry_on_failed_update:
                del self._secrets.users[user]
                self._write()
            raise
        self._write()

    def _remove(self):
        self._slots_of(self._options.user)
        self._forget(self._secrets.users)

    def _add_proxy(self):
        user = self._options.user
        slots = self._slots_of_proxy(user)
        self._check_existing(self._secrets.proxies, user, self._switches.proxy_existing)
        self._validate_proxy(user, slots, self._options.passwords)
        self._write()

    def _remove_proxy(self):
        self._slots_of_proxy(self._options.user)
        self._forget(self._secrets.proxies)

    def _forget(self, entries):
        if entries.pop(self._options.user, None) is not None:
            self._write()
        elif self._switches.remove_missing == "fail":
            raise PpinError(codes.REMOVE_FAILED)

    # Passwords

    def _fetch_secret(self, user, slots):
        """Fetch the permanent secret of a partition into the entries; nothing is written."""

        def attempt(passwords):
            def fetch(session):
                session.login(user, "setup", passwords["setup"])
                session.call("pkcs11-login", password=passwords["pkcs11"].value, source=passwords["pkcs11"].source)
                return session.call("fetch-secret")["secret"]

            secret = self._first_reachable(slots, fetch)
            self._kill_at("after-login")
            self._secrets.users[user] = cipher(user, secret)

        prompts = [
            ("setup", "Provide setup password for '%s': " % user, "\n"),
            ("pkcs11", "Provide PKCS11 password for '%s': " % user, "\n"),
        ]
        self._with_passwords(prompts, self._options.passwords, attempt)

    def _validate_proxy(self, user, slots, given):
        """Log in at the proxy and put its password into the entries; nothing is written."""

        def attempt(passwords):
            self._first_reachable(slots, lambda session: None, passwords["proxy"])
            self._kill_at("after-login")
            self._secrets.proxies[user] = cipher(user, passwords["proxy"].value)

        self._with_passwords([("proxy", "Provide proxy password for '%s' : " % user, "\n\n")], given, attempt)

    def _with_passwords(self, prompts, given, attempt):
        """Call attempt with the passwords by name. prompts: (name, prompt, end), in the order of those given.

        A rejected one that was asked for is asked for again, as often as the switches say.
        """
        passwords = {}
        for (name, _prompt, _end), value in zip(prompts, given):
            passwords[name] = Password(value, "argv")
        wanted = prompts[len(given) :]
        tries = 1 + (self._switches.reprompt if wanted else 0)
        for left in reversed(range(tries)):
            self._kill_at("before-prompt")
            if wanted:
                passwords.update(self._ask(wanted))
            self._kill_at("after-prompt")
            if self._switches.echo_secrets:
                for password in passwords.values():
                    self._output.line("Password: %s" % password.value)
            if self._switches.hang_at == "after-password":
                hang(self._switches)
            try:
                return attempt(passwords)
            except PpinError as error:
                if error.code not in (codes.LOGIN_REJECTED, codes.WRONG_PKCS11_PASSWORD) or not left:
                    raise
                self._output.message(failure(error, self._switches))

    def _ask(self, prompts):
        if self._switches.prompt_order == "pkcs11-first":
            prompts = prompts[::-1]
        self._output.header()
        with Dialogue(self._switches, self._output) as dialogue:
            if self._switches.extra_question and self._switches.extra_question_at == "before":
                dialogue.ask_extra()
            passwords = {name: dialogue.ask(prompt, end) for name, prompt, end in prompts}
            if self._switches.extra_question and self._switches.extra_question_at == "after":
                dialogue.ask_extra()
        return passwords

    # HSMs

    def _slots_of(self, user):
        """Return (HSM, slot) for each HSM that has the partition. Raises PpinError when none has."""
        return self._select(lambda slot: slot.user == user)

    def _slots_of_proxy(self, user):
        return self._select(lambda slot: slot.proxy_user == user)

    def _select(self, wanted):
        found = [(hsm, next(filter(wanted, hsm.slots), None)) for hsm in self._hsms]
        found = [(hsm, slot) for hsm, slot in found if slot is not None]
        if not found:
            raise PpinError(codes.USER_NOT_CONFIGURED)
        return found

    def _session(self, hsm, slot, proxy_password=None):
        if slot.proxy_user and proxy_password is None:
            proxy_password = self._stored_proxy_password(slot)
        return Session(hsm, slot, self._switches, proxy_password)

    def _stored_proxy_password(self, slot):
        if slot.proxy_user in self._secrets.proxies:
            return self._stored(self._secrets.proxies, slot.proxy_user)
        if slot.proxy_password is not None:
            return Password(str(slot.proxy_password), "file")
        raise PpinError(codes.OBJECT_NOT_FOUND)

    @staticmethod
    def _stored(entries, name):
        if name not in entries:
            raise PpinError(codes.OBJECT_NOT_FOUND)
        try:
            return Password(decipher(name, entries[name]), "file")
        except SecretsFileError as error:
            raise PpinError(error.code) from None

    def _first_reachable(self, slots, action, proxy_password=None):
        """Return action(session) at the first HSM that can be reached, by priority."""
        failed = PpinError(codes.CONNECT_FAILED)
        for hsm, slot in sorted(slots, key=lambda pair: pair[0].priority):
            try:
                session = self._session(hsm, slot, proxy_password)
                with session:
                    session.call("hello")
                    return action(session)
            except PpinError as error:
                if error.code not in UNREACHABLE:
                    raise
                failed = error
        raise failed

    def _test(self):
        self._output.line("Load config file: '%s'" % self._config_path)
        self._output.line()
        self._secrets = self._load_secrets()
        hsms = partitions = failures = 0
        for hsm in self._hsms:
            slots = [slot for slot in hsm.slots if self._is_tested(slot)]
            if not slots or self._options.hsm not in (None, hsm.name, hsm.host):
                continue
            hsms += 1
            connect = "%s: Connect to '%s' on port %d" % (hsm.name, hsm.host, hsm.port)
            try:
                with self._session(hsm, slots[0]) as session:
                    firmware = session.call("hello")["firmware"]
            except PpinError as error:
                failures += 1
                self._output.line("%s failed: %s" % (connect, code_text(error.code, self._switches)))
                self._output.line()
                continue
            self._output.line("%s, firmware: %s " % (connect, firmware))
            for slot in slots:
                partitions += 1
                verdict = self._test_slot(hsm, slot)
                failures += verdict != "OK"
                self._output.line("    %s (id=%d), user=%s: %s" % (slot.name, slot.id, slot.user, verdict))
            self._output.line()
        self._output.line("Number of tested HSMs: %d (number of partitions: %d)" % (hsms, partitions))
        self._output.line("Number of failures: %d" % failures)
        return not failures

    def _is_tested(self, slot):
        options = self._options
        return (
            options.user in (None, slot.user)
            and options.slot in (None, slot.name, slot.name.replace("slot", ""))
            and options.slotid in (None, str(slot.id))
        )

    def _test_slot(self, hsm, slot):
        try:
            secret = self._stored(self._secrets.users, slot.user)
            with self._session(hsm, slot) as session:
                session.call("hello")
                session.login(slot.user, "permanent", secret)
        except PpinError as error:
            wording = {"paren": "FAILED (%s)", "colon": "ERROR: %s", "text": "login failed, error %s"}
            return wording[self._switches.test_failure] % code_text(error.code, self._switches)
        return "OK"

    def _fetch_log(self):
        options = self._options
        since = 0.0
        if options.since:
            from datetime import datetime, timezone

            try:
                since = datetime.strptime(options.since, "%Y-%m-%d").replace(tzinfo=timezone.utc).timestamp()
            except ValueError:
                raise UsageError("--since is not YYYY-MM-DD") from None
        slots = self._slots_of(options.user)
        found = [(hsm, slot) for hsm, slot in slots if options.hsm in (hsm.name, hsm.host)]
        if not found:
            raise PpinError(codes.NOTHING_CONFIGURED)
        secret = self._stored(self._secrets.users, options.user)
        if options.since:
            self._output.line("Dump log starting from %s 00:00 UTC" % options.since)
        self._output.line("Fetching log from HSM.")
        hsm, slot = found[0]
        with self._session(hsm, slot) as session:
            session.call("hello")
            session.login(options.user, "permanent", secret)
            lines = session.call("fetch-log", since=since, reverse=options.reverse)["lines"]
        self._output.line("Number of slots: 1")
        if options.out:
            with open(options.out, "w", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines)
        else:
            for line in lines:
                self._output.line(line)

    def _fortinet(self):
        import binascii

        options = self._options
        slots = self._slots_of(options.user)
        self._secrets = SecretsFile()
        if options.proxyuser:
            given = [] if options.proxypwd is None else [options.proxypwd]
            self._validate_proxy(options.proxyuser, self._slots_of_proxy(options.proxyuser), given)
        self._fetch_secret(options.user, slots)
        self._output.line(binascii.b2a_base64(self._secrets.text().encode(), newline=False).decode())

    def _kill_at(self, place):
        if self._switches.kill_at == place:
            kill()


def code_text(code, switches):
    text = codes.text(code)
    return text if switches.error_hex == "upper" else text.lower()


def failure(error, switches):
    """Return the message of a failure in the wording that the switches choose."""
    if error.code is None or switches.fail_without_code:
        return "Error: %s" % error.text
    wording = {
        "code": "Error: {code}",
        "meaning": "Error {code}: {text}",
        "paren": "Operation failed: {text} ({code})",
        "trailing": "ppin: {text}, error code {code}",
    }[switches.error_text]
    return wording.format(code=code_text(error.code, switches), text=error.text)


def kill():
    """End this process as a power cut would."""
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def hang(switches):
    time.sleep(1e9 if switches.hang_seconds == behaviour.FOREVER else float(switches.hang_seconds))


def make_noise(switches, output):
    if switches.hang_at == "start":
        hang(switches)
    for _ in range(switches.print_mb):
        output.raw((b"n" * 63 + b"\n") * (1024 * 1024 // 64))
    if switches.binary_noise:
        output.raw(bytes(range(256)) * 4)


def main(argv, home):
    """Run ppin. home: PRIMUS_HOME. Returns the exit status."""
    try:
        switches = behaviour.load(os.path.join(home, "etc", "emulator.json"))
    except ValueError as error:
        print("ppin: emulator.json: %s" % error, file=sys.stderr)
        return 1
    output = Output(switches)
    try:
        options = Options(argv)
        make_noise(switches, output)
        succeeded = Ppin(options, switches, output, home).run()
    except UsageError as error:
        output.message("ppin: %s\n%s" % (error, USAGE))
        return switches.exit_failure
    except PpinError as error:
        output.message(failure(error, switches))
        return switches.exit_failure
    except KeyboardInterrupt:
        return 130
    return switches.exit_success if succeeded else switches.exit_failure
