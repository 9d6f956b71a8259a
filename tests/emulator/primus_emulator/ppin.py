# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ppin command, as its vendor documents it; what is not documented is chosen by the switches of behaviour.py.

It starts fast: ssl, cryptography and whatever else costs is imported where it is used.
"""

import os
import sys
import time

from . import behaviour, codes, config
from .codes import PpinError
from .dialogue import Dialogue, Output, Password
from .options import Language, Options, UsageError
from .secrets_file import SecretsFile, cipher, decipher
from .verdicts import ConnectionTest

DEFAULT_VERSION = "2.2.4"
# Nothing was evaluated: ppin tries the next node.
UNREACHABLE = (codes.CONNECT_FAILED, codes.CONNECT_TIMEOUT)


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
        self._hsms = config.read(self._config_path)
        if self._switches.default_log_file:
            self._log()
        if self._options.command == "t":
            return self._test()
        if self._options.command == "fortinet":
            self._fortinet()
            return True
        self._secrets = SecretsFile.load(self._secrets_path)
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
        if command not in changes:
            self._write_if_read()
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
        self._list(lie, slots=command != "x" or self._switches.proxy_remove_listing == "all")
        return True

    def _find(self, given, variable, name):
        primary = os.path.join(self._switches.system_etc, name)
        fallback = os.path.join(self._home, "etc", name)
        return given or os.environ.get(variable) or (primary if os.path.exists(primary) else fallback)

    def _log(self):
        """Append a line to the provider's log, unless primus.cfg turns it off."""
        log = config.read_settings(self._config_path).get("log", {})
        if log.get("write_log_file", True):
            try:
                with open(log.get("file") or self._switches.default_log_file, "a") as file:
                    file.write("%s ppin %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"), self._options.command))
            except OSError:
                pass  # an error of the log does not stop ppin

    def _list(self, lie, slots):
        # The three published listings differ in white space: after the slot id, and after the name, where the listing
        # of three partitions has one blank more for a slot that is configured.
        wide = self._switches.listing == "three"
        gap = " " if self._switches.listing == "add" else " " * 4
        self._output.header()
        all_slots = [slot for hsm in self._hsms for slot in hsm.slots]
        for number, slot in enumerate(all_slots if slots else (), 1):
            configured = lie or slot.user in self._secrets.users
            pad = " " * ((2 + configured) if wide else 1)
            state = "Configured" if configured else "MISSING"
            name = "slot-id %s:%suser '%s'" % (self._output.slot_id(slot.id), gap, slot.user)
            self._output.line("[%02d] %s%spermanent secret: %s" % (number, name, pad, state))
        for number, slot in enumerate((slot for slot in all_slots if slot.proxy_user), 1):
            pad = "  " if wide else " "
            state = "Configured" if lie or slot.proxy_user in self._secrets.proxies else "MISSING"
            name = "service/proxy user '%s'" % slot.proxy_user
            self._output.line("[%02d] %s%spermanent secret: %s" % (number, name, pad, state))

    # Changes of the secrets file

    def _write(self):
        def before_write(number):
            time.sleep(self._switches.write_delay_ms / 1000)
            if number == self._switches.kill_at_write:
                behaviour.kill()

        if self._switches.recipher or self._switches.recipher_reads:
            for entries in (self._secrets.users, self._secrets.proxies):
                entries.update({name: cipher(name, decipher(name, secret)) for name, secret in entries.items()})
        self._secrets.write(self._secrets_path, self._switches.chunk_bytes, before_write)

    def _write_if_read(self):
        if self._switches.recipher_reads and os.access(self._secrets_path, os.W_OK):
            self._write()

    def _add(self):
        user = self._options.user
        slots = self._slots_of(user)
        if user in self._secrets.users:
            raise PpinError(codes.DUPLICATE_ENTRY)
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
        rule = self._switches.proxy_existing
        if user in self._secrets.proxies and rule != "overwrite":
            raise PpinError(codes.DUPLICATE_ENTRY if rule == "duplicate" else codes.ALREADY_CONFIGURED)
        self._validate_proxy(user, slots, self._options.passwords)
        self._write()

    def _remove_proxy(self):
        self._slots_of_proxy(self._options.user)
        self._forget(self._secrets.proxies)

    def _forget(self, entries):
        if entries.pop(self._options.user, None) is None:
            raise PpinError(codes.REMOVE_FAILED)
        self._write()

    # Passwords

    def _fetch_secret(self, user, slots):
        """Fetch the permanent secret of a partition into the entries; nothing is written."""

        def attempt(passwords):
            def fetch(session):
                session.login(user, "setup", passwords["setup"])
                session.call("pkcs11-login", password=passwords["pkcs11"].value, source=passwords["pkcs11"].source)
                return session.call("fetch-secret")["secret"]

            secret = self._first_reachable(slots, fetch)
            self._switches.reached("after-login")
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
            self._switches.reached("after-login")
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
            self._switches.reached("before-prompt")
            if wanted:
                passwords.update(self._ask(wanted))
            self._switches.reached("after-prompt")
            if self._switches.echo_secrets:
                for password in passwords.values():
                    self._output.line("Password: %s" % password.value)
            self._switches.reached("after-password")
            try:
                return attempt(passwords)
            except PpinError as error:
                if error.code not in (codes.LOGIN_REJECTED, codes.WRONG_PKCS11_PASSWORD) or not left:
                    raise
                self._output.message(failure(error, self._switches, self._output))

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
        from .session import Session

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
        return Password(decipher(name, entries[name]), "file")

    def _first_reachable(self, slots, action, proxy_password=None):
        """Return action(session) at the first HSM that can be reached, by priority."""
        failed = PpinError(codes.CONNECT_FAILED)
        for hsm, slot in sorted(slots, key=lambda pair: pair[0].priority):
            try:
                session = self._session(hsm, slot, proxy_password)
            except PpinError as error:
                if error.code not in UNREACHABLE:
                    raise
                failed = error
                continue
            with session:
                return action(session)
        raise failed

    def _test(self):
        report = ConnectionTest(self._switches, self._output, self._config_path)
        self._secrets = SecretsFile.load(self._secrets_path)
        self._write_if_read()
        for hsm in self._hsms:
            slots = [slot for slot in hsm.slots if self._is_tested(slot)]
            if not slots or self._options.hsm not in (None, hsm.name, hsm.host):
                continue
            try:
                with self._session(hsm, slots[0]) as session:
                    report.hsm(hsm, session.firmware)
            except PpinError as error:
                report.hsm_failed(hsm, slots, error)
                continue
            for slot in slots:
                try:
                    self._test_slot(hsm, slot)
                except PpinError as error:
                    report.slot(slot, error)
                else:
                    report.slot(slot)
        return report.end()

    def _is_tested(self, slot):
        options = self._options
        return (
            options.user in (None, slot.user)
            and options.slot in (None, slot.name, slot.name.replace("slot", ""))
            and options.slotid in (None, str(slot.id))
        )

    def _test_slot(self, hsm, slot):
        secret = self._stored(self._secrets.users, slot.user)
        with self._session(hsm, slot) as session:
            session.login(slot.user, "permanent", secret)

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


def failure(error, switches, output):
    """Return the message of a failure in the wording that the switches choose."""
    if error.code is None or switches.fail_without_code:
        return "Error: %s" % error.text
    wording = {
        "code": "Error: {code}",
        "meaning": "Error {code}: {text}",
        "paren": "Operation failed: {text} ({code})",
        "trailing": "ppin: {text}, error code {code}",
    }[switches.error_text]
    return wording.format(code=output.code(error.code), text=error.text)


def provider_version(switches, home):
    if switches.version:
        return switches.version
    try:
        with open(os.path.join(home, "share", "VERSION")) as file:
            return file.read().strip()
    except FileNotFoundError:
        return DEFAULT_VERSION


def make_noise(switches, output):
    for _megabyte in range(switches.print_mb):
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
    version = provider_version(switches, home)
    language = Language(version, switches.fortinet_proxy_option)
    try:
        options = Options(argv, language)
        switches.reached("start")
        make_noise(switches, output)
        if options.command == "h":
            output.raw(language.usage.encode())
            return switches.exit_success
        if options.command == "v":
            output.line("Primus HSM PKCS#11 %s" % version)
            return switches.exit_success
        succeeded = Ppin(options, switches, output, home).run()
    except UsageError as error:
        output.message("ppin: %s\n%s" % (error, language.usage))
        return switches.exit_failure
    except PpinError as error:
        output.message(failure(error, switches, output))
        return switches.exit_failure
    except KeyboardInterrupt:
        return 130
    return switches.exit_success if succeeded else switches.exit_failure
