# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""What is tried with a ppin, in the order of what it may cost: what is safe first, logins last."""

import os
import re
import socket
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import Slot, secret_entries
from ansible_collections.hsmops.primus.plugins.module_utils._client.pkcs11 import Request, query_library
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.connectivity_test import parse_connectivity_test
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.dialogue import PROMPT
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import (
    CODES,
    DUPLICATE_CODES,
    NOT_ACCEPTED,
    PpinError,
    error_from_os_error,
    find_code,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import printable
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.log import parse_log
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.bench import Bench, Stop
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.findings import BY_NAME, LISTS, NO_CODE, OTHER
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.terminal import APART, ENDED, TERMINAL, Seen

COMMANDS = ("a", "fetchlog", "fortinet", "l", "p", "r", "test", "u", "x")

NO_SERVICE_USER = "No service user was given, and none is in front of the partition"
NO_LOGINS = "It costs a login, and accept is false"

CODE = r"0x[0-9A-F]{8}"
_ERRORS = (
    ("code", r"Error: %s" % CODE),
    ("meaning", r"Error %s: .+" % CODE),
    ("paren", r".*\(%s\)" % CODE),
    ("trailing", r".*error code %s" % CODE),
)
_SLOT_FAILURES = (
    ("paren", r"FAILED \(%s\)" % CODE),
    ("colon", r"ERROR: %s" % CODE),
    ("text", r"login failed, error %s" % CODE),
    ("token_not_present", r"CKR_TOKEN_NOT_PRESENT"),
    ("ckr", r"CKR_\w+"),
)
_HSM_FAILURES = (
    ("colon_code", r" failed: %s" % CODE),
    ("code_paren", r" failed \(%s\)" % CODE),
    ("bare", r" failed"),
    ("name", r": CKR_\w+"),
    ("firmware_unknown", r", firmware: unknown"),
    ("firmware_none", r""),
)
_GAPS = {(1, 1): "add", (4, 1): "proxy_add", (4, 2): "three"}  # one more for a slot that is configured in the last
_LISTED = re.compile(r"slot-id\s*(\w+)\s*:(\s*)user '.*'(\s*)permanent secret: (\w+)")


class Wanted(t.NamedTuple):
    """What is to be tried. A password that is None costs no login.

    :ivar slot: of the partition, at the HSM that is logged in to.
    :ivar service_user: whose password is set, or which is in front of the partition.
    """

    slot: Slot
    service_user: t.Optional[str]
    setup_password: t.Optional[str]
    pkcs11_password: t.Optional[str]
    proxy_password: t.Optional[str]
    wrong_setup_password: t.Optional[str]
    library: t.Optional[str]
    accept: bool

    @property
    def user_name(self) -> str:
        return self.slot.user_name

    def logins(self) -> t.List[str]:
        """Those that are planned, in their order."""
        if not self.accept:
            return []
        setup = self.setup_password is not None and self.pkcs11_password is not None
        name, user, at = self.user_name, self.service_user, "'%s' at %s" % (self.user_name, self.slot.hsm)
        planned = [
            (self.proxy_password, "service proxy password of '%s': ppin -p" % user),
            (setup, "setup password and PKCS#11 password of '%s': ppin -a" % name),
            (setup, "permanent secret of %s: ppin --test" % at),
            (setup, "permanent secret of %s: ppin --fetchlog" % at),
            (setup, "setup password and PKCS#11 password of '%s', again: ppin -u" % name),
            (
                setup,
                "permanent secret of %s from before ppin -u: ppin --test; rejected, and a wrong attempt, if an update "
                "ends the secrets from before" % at,
            ),
            (setup, "setup password and PKCS#11 password of '%s', a third time: ppin --fortinet" % name),
            (
                setup and self.wrong_setup_password,
                "a wrong setup password for '%s', which is a wrong attempt: ppin -u" % name,
            ),
            (setup and self.library, "permanent secret of %s, if loading the PKCS#11 library logs in" % at),
        ]
        return [text for needed, text in planned if needed]


class Probes:
    """Tries everything. Each method is a few findings that are seen together.

    :ivar failure: why a credential that was given is not accepted, or None.
    """

    def __init__(self, bench: Bench, wanted: Wanted) -> None:
        self.bench, self.wanted = bench, wanted
        self.name = wanted.user_name
        self.failure: t.Optional[PpinError] = None
        self.fetched = b""  # the copy with the permanent secret
        self.rejected = 0  # logins that were not announced, or not evaluated for sure

    def run(self) -> None:
        bench = self.bench
        try:
            self.basics()
            self.flags()
            self.listing()
            self.missing()
            self.without_credentials()
            self.fortinet_option()
            if self.asks():
                self.with_logins()
            else:
                bench.skip("ppin asked for no password that is known, and none was given to it", *_WITH_LOGINS)
        except Stop:
            pass
        except (OSError, PpinError) as exc:  # such as a copy that ppin has removed
            self.failure = self.failure or (exc if isinstance(exc, PpinError) else error_from_os_error(exc))
            bench.stopped = bench.stopped or self.failure.msg
        finally:
            bench.close()

    def has(self, command: str) -> bool:
        """Whether this ppin has a command, as far as its usage text tells."""
        usage = self.bench.seen("usage")
        return not usage or command in usage.split()

    # Without a login

    def basics(self) -> None:
        found = self.bench.watch("-v")
        version = re.search(r"PKCS#?11\s+v?(\d+(?:\.\d+)+\S{0,40})", printable(found.text()))
        if version:
            self.bench.find("version", version.group(1))
        usage = printable(self.bench.watch("-h").text())
        words = {name: "-" + name if len(name) == 1 else "--" + name for name in COMMANDS}
        known = [name for name, word in words.items() if re.search(r"(?<![\w-])%s(?![\w-])" % word, usage)]
        self.bench.find("usage", " ".join(known))

    def flags(self) -> None:
        """Before all else that reads a file: this ppin must not work on the client's own. :raises Stop:"""
        bench, name = self.bench, self.name
        copy = bench.secrets_path
        with bench.using(secrets=bench.none):
            ignored = bench.listing_of(bench.watch("-l")) is not None
            bench.find("secrets_flag", "ignored" if ignored else "honoured")
            if ignored:
                bench.stop("This ppin ignores -s and SECUROSYS_SECRETS_CONF: it would work on the client's own file")
        with bench.using(config=bench.none):
            ignored = bench.listing_of(bench.watch("-l")) is not None
            bench.find("config_flag", "ignored" if ignored else "honoured")
        with bench.using(secrets=copy):
            wins = bench.listing_of(bench.watch("-l", env_secrets=bench.none)) is not None
            code = None if wins else find_code(bench.watch("-l").text())
            if code:
                bench.stop("ppin -l fails with the copies of both files: %s %s" % (code, CODES.get(code, ("",))[0]))
            bench.find("flags_or_environment", "flags" if wins else "environment")
        asked = self._flags_of((("-a", name), ("-u", name), ("-p", self.wanted.service_user)))
        # One that asks before it reads the file does so with each; and where the client has the entry, -a would not
        # ask, and where it has not, -u would not.
        there = name in secret_entries(bench.content)
        self._ignores(
            "-a" in asked and "-u" not in asked and not there and "-a",
            "-u" in asked and "-a" not in asked and there and "-u",
            "-p" in asked and not asked & {"-a", "-u"} and "-p",
        )
        self._flags_of((("-r", name), ("-x", self.wanted.service_user), ("--test", name), ("--fetchlog", name)))
        bench.find("secrets_flag_commands", "all")

    def _flags_of(self, commands: t.Sequence[t.Tuple[str, t.Optional[str]]]) -> t.Set[str]:
        """Which of the commands ask, with a secrets file that is none. :raises Stop: when one works nevertheless."""
        bench, asked = self.bench, set()
        for flag, entry in commands:
            if entry is None:
                continue
            at = ("--user", entry, "--hsm", self.wanted.slot.hsm) if flag.startswith("--") else ("-e", entry)
            with bench.using(secrets=bench.none):
                seen = bench.watch(flag, *at, way=TERMINAL)
            if seen.prompt:
                asked.add(flag)
            logged_in = self._logged_in(seen)
            self._ignores((bench.listing_of(seen) or logged_in or find_code(seen.text()) in DUPLICATE_CODES) and flag)
        return asked

    def _ignores(self, *flags: t.Any) -> None:
        """:raises Stop: when one of them ignores -s."""
        ignoring = [flag for flag in flags if flag]
        if ignoring:
            self.bench.find("secrets_flag_commands", " ".join(flag.strip("-") for flag in ignoring))
            self.bench.stop("This ppin ignores -s with %s: it would work on the client's own file" % ignoring[0])

    def _logged_in(self, seen: Seen) -> bool:
        """Whether the secret of the client's own file was tried. It is counted."""
        slots = parse_connectivity_test(seen.text(), [self.name]).slots
        tried = [slot for slot in slots if slot.counts_as_login]
        rejected = _is_not_accepted(find_code(seen.text()))
        logins = len(tried) or int(rejected or bool(parse_log(seen.text())[0]))
        self.bench.logins += logins
        self.rejected += rejected
        return logins > 0

    def listing(self) -> None:
        bench = self.bench
        seen = bench.watch("-l")
        listing = bench.listing_of(seen)
        bench.find("output_text", "text" if _is_text(seen.text()) else "bytes")
        if listing is None:
            bench.find("listing", "none")
            bench.stop("ppin -l printed no listing that is understood")
            return
        names = {slot.user_name for slot in bench.slots()}
        users = {slot.proxy_user for slot in bench.slots() if slot.proxy_user}
        complete = names <= set(listing.partitions) and users <= set(listing.service_users)
        bench.find("listing", "complete" if complete else "incomplete")
        stream = "stdout" if "secret:" in seen.text("stdout") else "stderr"
        raw = seen.text(stream)
        line = [line for line in raw.split("\n") if "secret:" in line][-1]
        bench.find("output_stream", stream)
        bench.find("exit_success", str(seen.status))
        bench.find("line_ends", "CR LF" if line.endswith("\r") else "LF")
        bench.find("escape_sequences", "used" if "\x1b[" in line else "none")
        plain = printable(line)
        bench.find("trailing_spaces", str(len(plain) - len(plain.rstrip(" "))))
        first = _LISTED.search(printable(raw))
        if first:
            number, gap, pad, state = first.groups()
            bench.find("slot_ids", "hex" if number.lower().startswith("0x") else "decimal")
            wide = len(gap) == 4 and len(pad) > 1
            pads = len(pad) - int(wide and state == "Configured")
            bench.find("listing_spaces", _GAPS.get((len(gap), pads), OTHER))

    def missing(self) -> None:
        """From here on the partition is missing in the copy: this is the first that is written, if it was there."""
        bench, name = self.bench, self.name
        bench.watch("-r", "-e", name)  # whether it was there is not known: this ppin may lie
        listing = bench.listing_of(bench.watch("-l"))
        entries = listing.partitions.get(name, []) if listing else []
        lies = any(entry.configured for entry in entries)
        bench.find("listing_true", "lies" if lies else "true")
        seen = bench.watch("-r", "-e", name)
        bench.find("remove_missing", bench.outcome(seen, "partitions", name))
        self._error_output(seen)
        other = self.name + "-hsmops"
        unknown = bench.outcome(bench.watch("-r", "-e", other), "partitions", other)
        bench.find("unknown_partition", unknown)
        joined = bench.watch("-re", name)
        same = _squeezed(joined) == _squeezed(seen)
        bench.find("joined_flags", "understood" if same else "refused")
        seen = bench.watch("-u", "-e", name, way=TERMINAL)
        bench.find("update_missing", bench.outcome(seen, "partitions", name))

    def _error_output(self, seen: Seen) -> None:
        bench = self.bench
        streams = [name for name in ("stderr", "stdout") if find_code(seen.text(name)) or "rror" in seen.text(name)]
        if not streams:
            return
        bench.find("message_stream", streams[0])
        bench.find("exit_failure", str(seen.status))
        lines = [line.strip() for line in printable(seen.text(streams[0])).splitlines() if line.strip()]
        coded = [line for line in lines if find_code(line)]
        bench.find("error_text", _first(_ERRORS, coded[0]) if coded else NO_CODE)

    def without_credentials(self) -> None:
        """What would log in if the copy had a credential."""
        bench = self.bench
        with bench.throw_away():
            self.service_user()
            if self.name in secret_entries(bench.content):
                bench.skip("ppin -r has not removed the permanent secret, so it would log in", *_WITHOUT_SECRET)
            else:
                self.errors()
            self.unreachable()

    def errors(self, behind_proxy: bool = False) -> None:
        """What is said of a partition that has no secret. behind_proxy: the service proxy lets the test through."""
        bench, at = self.bench, ("--user", self.name, "--hsm", self.wanted.slot.hsm)
        letters = re.search(r"0[xX](?=\d*[A-Fa-f])[0-9A-Fa-f]{8}", bench.watch("--fetchlog", *at).text())
        if letters:
            bench.find("error_digits", "upper" if letters.group()[2:].isupper() else "lower")
        if not self.has("test"):
            bench.skip("This ppin has no --test", *_WITH_TEST)
            return
        seen = bench.watch("--test", *at)
        self._test_output(seen)
        failed = [slot.message for slot in parse_connectivity_test(seen.text(), [self.name]).slots if not slot.ok]
        if failed and (behind_proxy or not self.wanted.service_user):  # else it may be of the HSM, which is not reached
            bench.find("test_failure", _first(_SLOT_FAILURES, failed[0]))

    def _test_output(self, seen: Seen) -> None:
        text = printable(seen.text())
        connect = re.search(r"Connect to (.*)", text)
        if connect:
            forms = (("quoted", r"'[^']*' on port \d+.*"), ("plain", r"[^\s']+ port \d+.*"))
            self.bench.find("test_form", _first(forms, connect.group(1)))
            self.bench.find("test_counters", "on" if "Number of" in text else "off")

    def unreachable(self) -> None:
        bench = self.bench
        if not self.has("test"):
            return
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # and nobody listens there
            config = bench.place.write(
                "closed.cfg", self._config("127.0.0.1", str(closed.getsockname()[1]), proxy=False)
            )
            with bench.using(config=config):
                seen = bench.watch("--test")
        text = printable(seen.text())
        self._test_output(seen)
        lines = [line.strip() for line in text.splitlines() if re.match(r"\s*hsm0\s*:", line)]
        if not lines:
            bench.find("test_hsm_failure", OTHER if find_code(text) or seen.ended != ENDED else "no_line")
            return
        rest = re.search(r"port\s*\d+(.*)$", lines[0])
        bench.find("test_hsm_failure", _first(_HSM_FAILURES, rest.group(1)) if rest else OTHER)

    def _config(self, host: str, port: str, proxy: bool) -> bytes:
        """A primus.cfg with the partition at one HSM only."""
        slot = self.wanted.slot
        user = 'proxy_user = "%s"; ' % _quoted(slot.proxy_user) if proxy and slot.proxy_user else ""
        one = 'client_id = "qualify"; user_name = "%s"; %sid = %d;' % (_quoted(self.name), user, slot.slot_id or 0)
        hsm = 'host = "%s"; port = "%s"; priority = 0; slots : { slot0 : { %s }; };' % (_quoted(host), port, one)
        text = (
            'version = "1.0";\nprimus : { wait_delay = 250; wait_max_tries = 5; hsms : { hsm0 : { %s }; }; };\n' % hsm
        )
        return text.encode("utf-8", "surrogateescape")

    def service_user(self) -> None:
        bench, user = self.bench, self.wanted.service_user
        if not user:
            bench.skip(NO_SERVICE_USER, "proxy_remove_missing", *_WITH_SERVICE_USER)
            return
        self._remove_service_user(user)
        bench.find("proxy_remove_missing", bench.outcome(bench.watch("-x", "-e", user), "service_users", user))

    def _remove_service_user(self, user: str) -> None:
        """A listing of a success ends with the lines of service users only, or with all."""
        seen = self.bench.watch("-x", "-e", user)
        listing = None if find_code(seen.text()) else self.bench.listing_of(seen)
        if listing is not None:
            form = "all" if listing.partitions else "proxies"
            self.bench.find("proxy_remove_listing", form if listing.service_users else OTHER)

    def fortinet_option(self) -> None:
        bench = self.bench
        if not self.has("fortinet"):
            bench.skip("This ppin has no --fortinet", "fortinet_proxy_option", "fortinet")
            return
        unknown = _squeezed(bench.watch("--fortinet", "--hsmopsno"), "hsmopsno")
        options = ("proxypwd", "proxypassword")
        known = [option for option in options if _squeezed(bench.watch("--fortinet", "--" + option), option) != unknown]
        bench.find("fortinet_proxy_option", "both" if len(known) == 2 else "".join(known) or "none")

    # Prompts, none of which is answered

    def asks(self) -> bool:
        """Whether ppin asks for a password that is known."""
        bench, add = self.bench, ("-a", "-e", self.name)
        seen = bench.watch(*add, way=TERMINAL)
        if bench.unknown_prompt:
            bench.find("questions", "before")
        if not seen.prompt:
            bench.skip("ppin ended before it asked, or asked something else", *_AT_PROMPT)
            return False
        self._note_prompts(seen.text())
        first = seen.prompt.group(1).lower()
        bench.find("prompt_order", "setup-first" if first == "setup" else "pkcs11-first")
        bench.find("prompt_line", "next" if seen.prompt_ends_line else "same")
        bench.find("echo_off", seen.echo)
        bench.find("typeahead", "dropped" if seen.dropped else "kept")
        apart = bench.watch(*add, way=APART)
        if apart.prompt:
            bench.find("prompt_source", "tty" if apart.on_terminal else "stdin")
        if self.wanted.service_user:
            with bench.throw_away():
                bench.watch("-x", "-e", self.wanted.service_user)
                asked = bench.watch("-p", "-e", self.wanted.service_user, way=TERMINAL)
                self._note_prompts(asked.text())
        return seen.echo != "never"

    def _note_prompts(self, text: str) -> None:
        for line in printable(text).splitlines():
            prompt = PROMPT.search(line)
            if prompt:
                kind = prompt.group(1).lower().replace(" ", "").replace("#", "")
                self.bench.find("prompt_" + kind, line[: prompt.end()].strip())

    # With logins

    def with_logins(self) -> None:
        wanted, bench = self.wanted, self.bench
        if not wanted.accept:
            bench.skip(NO_LOGINS, *_WITH_LOGINS)
            return
        if wanted.service_user and wanted.proxy_password is not None:
            self.add_proxy(wanted.service_user, wanted.proxy_password)
            if not self.failure:
                self.errors(behind_proxy=True)
        else:
            bench.skip("No service proxy password was given", *_WITH_SERVICE_USER)
        if wanted.setup_password is None or wanted.pkcs11_password is None:
            bench.skip("No setup password and PKCS#11 password were given", *_WITH_SETUP)
        elif self.failure:
            bench.skip("The service proxy password was not accepted", *_WITH_SETUP)
        elif self.add(wanted.setup_password, wanted.pkcs11_password):
            self.use()
            self.update(wanted.setup_password, wanted.pkcs11_password)
        if wanted.service_user and wanted.proxy_password is not None:
            self._remove_service_user(wanted.service_user)

    def _try(self, finding: str, do: t.Callable[[], t.Optional[str]]) -> t.Optional[PpinError]:
        """Do what may cost a login, once, and note what it returns. Whatever it ends with, it is not tried again."""
        try:
            worked = do()
        except PpinError as exc:
            if exc.code is None and exc.cls in ("dialogue", "timeout"):  # it was ended: other findings tell why
                self.bench.skip(self.bench.redaction.text(exc.msg), finding)
            else:
                self.bench.find(finding, exc.code or NO_CODE, exc.msg)
            return exc
        except Stop as exc:
            self.failure = PpinError("%s failed: %s" % (BY_NAME[finding].how, exc), cls="unknown")
            raise
        self.bench.find(finding, worked or BY_NAME[finding].values[0])
        return None

    def add_proxy(self, user: str, password: str) -> None:
        bench = self.bench
        with bench.throw_away():
            bench.watch("-x", "-e", user)
            without = bench.content
        bench.content = without
        self.failure = self._try("proxy_add", lambda: bench.add_proxy(user, password))
        self._note_dialogue()
        if not self.failure:
            seen = bench.watch("-p", "-e", user, way=TERMINAL)
            bench.find("proxy_existing", bench.outcome(seen, "service_users", user))

    def _note_dialogue(self) -> None:
        self._note_prompts(self.bench.screen)
        if self.bench.unknown_prompt:
            self.bench.find("questions", "after")

    def add(self, setup: str, pin: str) -> bool:
        """Whether the copy has a permanent secret then."""
        bench = self.bench
        os.chmod(bench.secrets_path, 0o640)  # noqa: S103 # in a private directory
        before, entries, names = (
            os.stat(bench.secrets_path),
            secret_entries(bench.content),
            bench.place.directory.names(),
        )
        self.failure = self._try("add", lambda: bench.add(self.name, setup, pin))
        self._note_dialogue()
        bench.find("secrets_shown", "yes" if setup in bench.screen or pin in bench.screen else "no")
        if self.failure:
            bench.skip("The permanent secret was not fetched", *_WITH_SETUP)
            return False
        bench.find("questions", "none")
        after = os.stat(bench.secrets_path)
        bench.find("secrets_write", "in place" if after.st_ino == before.st_ino else "renamed")
        kept = (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
        mode = "%04o" % (after.st_mode & 0o7777)
        bench.find("secrets_mode", ("kept" if mode == "0640" else mode) if kept else "owner")
        left = len(set(bench.place.directory.names()) - set(names))
        bench.find("secrets_leftovers", str(left) if left else "none")
        now = secret_entries(bench.content)
        same = all(now.get(name) == entry for name, entry in entries.items())
        if entries:
            bench.find("other_entries", "same" if same else "ciphered anew")
        else:
            bench.skip("The copy has no other entry", "other_entries")
        self.fetched = bench.content
        return True

    def use(self) -> None:
        """The permanent secret."""
        bench, name = self.bench, self.name
        bench.watch("-l")
        if self.has("test"):
            self._try("login", self._log_in)
        bench.find("reads_change_file", "no" if bench.content == self.fetched else "yes")
        if self._is_rejected("login"):
            bench.skip("The permanent secret was not accepted", "log")
        else:
            self._try("log", self._fetch_log)
        seen = bench.watch("-a", "-e", name, way=TERMINAL)
        bench.find("add_present", bench.outcome(seen, "partitions", name))
        if os.geteuid() == 0:
            bench.skip("Root can write to each file", "read_only_file")
            return
        with bench.throw_away():
            os.chmod(bench.secrets_path, 0o400)
            seen = bench.watch("-r", "-e", name)
            os.chmod(bench.secrets_path, 0o600)
        bench.find("read_only_file", bench.outcome(seen, "partitions", name))

    def _log_in(self) -> None:
        """:raises PpinError:"""
        slot, logins = self.wanted.slot, self.bench.logins
        same = [each for each in self.bench.slots() if (each.hsm, each.user_name) == (slot.hsm, slot.user_name)]
        failure = self.bench.login(self.name, slot.hsm, slot.slot_id if len(same) > 1 else None)
        self._made(logins, "--test")
        if failure:
            raise failure

    def _fetch_log(self) -> str:
        """:raises OSError, PpinError:"""
        bench, slot, logins = self.bench, self.wanted.slot, self.bench.logins
        out = bench.place.path_of("log")
        try:
            bench.fetch_log(self.name, slot.hsm, None, False, out)
        finally:
            self._made(logins, "--fetchlog")
        with open(out, "rb") as file:
            entries, others = parse_log(file.read().decode("utf-8", "replace"))
        return "incomplete" if others else "complete" if entries else "empty"

    def _made(self, logins: int, command: str) -> None:
        if self.bench.logins > logins:
            self.bench.made.append("ppin %s --user %s --hsm %s" % (command, self.name, self.wanted.slot.hsm))

    def update(self, setup: str, pin: str) -> None:
        bench, name, first = self.bench, self.name, self.fetched
        failed = self._try("setup_twice", lambda: bench.update(name, setup, pin))
        if failed:
            why = "The setup password was not accepted twice"
            bench.skip(why, "update_secret", "before_update", "fortinet")
        else:
            second = bench.content
            entries = [secret_entries(content).get(name) for content in (first, second)]
            bench.content = first
            rejected = None
            if self._is_rejected("login", "log"):
                bench.skip("The permanent secret from before was not accepted before", "before_update")
            elif self.has("test"):
                rejected = self._try("before_update", self._log_in)
            if entries[0] == entries[1]:
                bench.find("update_secret", "same")
            elif rejected and rejected.is_rejection:
                bench.find("update_secret", "another")
            else:
                bench.find("update_secret", "not known", "The entries differ, and so may two of one secret")
            bench.content = second
            self.fortinet(setup, pin)
        if failed is None or failed.is_rejection:
            bench.content = first if failed else second
            self.wrong(pin)
        bench.content = first if failed else second
        self.library()

    def wrong_attempts(self) -> int:
        """How many logins were, or may have been, counted against the partition, but for the first one."""
        return self.rejected + sum(map(self._is_rejected, ("login", "log", "setup_twice", "before_update", "fortinet")))

    def _is_rejected(self, *findings: str) -> bool:
        return any(_is_not_accepted(self.bench.seen(name)) for name in findings)

    def fortinet(self, setup: str, pin: str) -> None:
        wanted, bench = self.wanted, self.bench
        user = wanted.service_user if wanted.proxy_password is not None else None
        if bench.findings.get("fortinet"):
            return

        def fetch() -> None:
            made = bench.fortinet(self.name, setup, pin, user, wanted.proxy_password)
            if self.name not in made.users:
                raise PpinError("The string has no secret of the partition")

        self._try("fortinet", fetch)

    def wrong(self, pin: str) -> None:
        bench, password = self.bench, self.wanted.wrong_setup_password
        if password is None:
            bench.skip("It costs a wrong attempt, and wrong_attempt is false", *_WRONG)
            return
        logins = bench.logins
        try:
            bench.update(self.name, password, pin)
            code, again = LISTS, False
        except PpinError as exc:
            code, again = exc.code or NO_CODE, "asked twice" in exc.msg
        finally:
            self.rejected += bench.logins > logins
        if bench.logins == logins:
            bench.skip("The HSM evaluated no password", *_WRONG)
            return
        bench.find("reprompt", "yes" if again else "no")
        if again:
            bench.skip("It asked again, and was ended", *_WRONG)
            return
        bench.find("failed_update_code", code)
        there = self.name in secret_entries(bench.content)
        bench.find("failed_update", "kept" if there else "removed")

    def library(self) -> None:
        bench, slot, path = self.bench, self.wanted.slot, self.wanted.library
        names = ("library_login", "token_flags", "token_label")
        if path is None:
            bench.skip("No library was given", *names)
            return
        config = bench.place.write("library.cfg", self._config(slot.host, slot.port, proxy=True))
        found = []
        with bench.throw_away():
            fetched = bench.content
            bench.watch("-r", "-e", self.name)
            without = bench.content
            for content in (without, fetched):
                bench.content = content
                facts: t.Dict[str, t.Any] = {}
                environment = {"SECUROSYS_PKCS11_CONF": config, "SECUROSYS_SECRETS_CONF": bench.secrets_path}
                try:
                    query_library(Request(path, environment, False, None), int(bench.time_left()), facts)
                except PpinError as exc:
                    bench.skip(bench.redaction.text(exc.msg), *names)
                bench.check_own()
                found.append([each["token"] for each in facts.get("slots", []) if each["token"]])
        bench.made.append("the PKCS#11 library was loaded with a permanent secret, which may have logged in")
        if found[1]:
            bench.find("library_login", "does not" if found[0] else "logs in")
            bench.find("token_flags", " ".join(sorted(found[1][0]["flags"])))
            bench.find("token_label", "partition" if found[1][0]["label"] == self.name else OTHER)


_WITH_SERVICE_USER = ("prompt_proxy", "proxy_add", "proxy_existing", "proxy_remove_listing")
_WITH_TEST = ("test_form", "test_counters", "test_failure", "test_hsm_failure", "login", "before_update")
_WITHOUT_SECRET = ("error_digits", "test_failure")
_WRONG = ("failed_update", "failed_update_code", "reprompt")
_WITH_SETUP = (
    "secrets_shown",
    "add",
    "secrets_write",
    "secrets_mode",
    "secrets_leftovers",
    "other_entries",
    "login",
    "reads_change_file",
    "log",
    "add_present",
    "read_only_file",
    "setup_twice",
    "update_secret",
    "before_update",
    "fortinet",
    "library_login",
    "token_flags",
    "token_label",
    *_WRONG,
)
_WITH_LOGINS = ("proxy_add", "proxy_existing", "questions", "prompt_pkcs11", *_WITH_SETUP)
_AT_PROMPT = ("prompt_order", "prompt_setup", "prompt_line", "echo_off", "typeahead", "prompt_source")


def _is_not_accepted(code: t.Optional[str]) -> bool:
    return CODES.get(code or "", ("", ""))[1] in NOT_ACCEPTED


def rotation(seen: t.Optional[str]) -> str:
    """The way of rotation that follows from what was seen as before_update."""
    if seen == "logs in":
        return "Clients keep their access while others are updated: rotate host by host, at any time."
    if _is_not_accepted(seen):
        return (
            "An update ends the access of every client that has the secret from before: rotate all hosts of a "
            "partition in one window."
        )
    return "Not known: nothing was logged in to with a secret from before an update."


def _first(forms: t.Sequence[t.Tuple[str, str]], text: str) -> str:
    """The first form that the whole text has, white space at its ends aside."""
    for name, pattern in forms:
        if re.fullmatch(pattern.lstrip(), text.strip(), re.I):
            return name
    return OTHER


def _squeezed(seen: Seen, word: str = "") -> str:
    text = " ".join(printable(seen.text()).split())
    return text.replace(word, "") if word else text


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _is_text(text: str) -> bool:
    return "\ufffd" not in text and not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f]", text)
