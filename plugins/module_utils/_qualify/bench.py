# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""The ppin that is qualified, on copies of both files, and what has been found of it so far."""

import contextlib
import os
import re
import time
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._client.leftovers import RunDirectory
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.dialogue import Answers, DialoguePpin
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError, find_code
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import Listing, parse_listing
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import Paths
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.findings import (
    ASKS,
    BY_NAME,
    FINDINGS,
    KNOWN,
    LISTS,
    NO_CODE,
    SUCCEEDS,
)
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.own_file import OwnFile
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.redacted import Redaction
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.terminal import (
    ENDED,
    PIPES,
    TIMED_OUT,
    TOO_MUCH,
    UNKNOWN_PROMPT,
    Seen,
    watch,
)

TIMEOUTS = 2
"""After so many commands that hang, no other is run: each would take as long."""

HOLDS, DIFFERS, NOT_TRIED = "holds", "differs", "not tried"


class Stop(Exception):
    """Why no other command is run."""


class Bench(DialoguePpin):
    """A ppin whose every command is recorded, and after which the client's own files are compared.

    :arg paths: those of the client; both files are replaced by copies, but not a primus.cfg that includes another.
    :arg total: seconds for all commands together.
    :ivar findings: by name, as in the profile.
    :ivar stopped: why no other command is run, or None.
    """

    def __init__(
        self,
        paths: Paths,
        timeout: int,
        total: int,
        place: RunDirectory,
        own: t.Sequence[OwnFile],
        redaction: Redaction,
    ) -> None:
        config, secrets = (place.write(name, file.content) for name, file in zip(("primus.cfg", ".secrets.cfg"), own))
        if re.search(rb"^\s*@include\b", own[0].content, re.M):
            config = own[0].path  # a copy would not find what it includes
        super().__init__(paths._replace(config=config, secrets=secrets), timeout)
        self.place, self.redaction = place, redaction
        self.none = place.write("none.cfg", b"this is no file of ppin {\n")
        self.findings: t.Dict[str, t.Dict[str, t.Any]] = {}
        self.outputs: t.List[t.Dict[str, t.Any]] = []
        self.made: t.List[str] = []
        self.stopped: t.Optional[str] = None
        self.unknown_prompt = False
        self.screen = ""
        self._own, self._limit = own, timeout
        self._deadline = time.monotonic() + total
        self._ends = "by themselves"
        self._timeouts = 0

    # What is found

    def find(self, name: str, seen: str, note: str = "") -> None:
        """Note what was seen, the first time. note: what ppin said of it."""
        finding = BY_NAME[name]
        if self.findings.get(name, {}).get("verdict", NOT_TRIED) != NOT_TRIED:
            return
        if seen not in finding.values:
            named = self.redaction.names(seen)
            seen = named if named in finding.values else self.redaction.text(seen)
        verdict = HOLDS if finding.expected in (None, seen) else DIFFERS
        self._note(name, verdict, seen, self.redaction.text(note) or finding.cannot.get(seen, ""))

    def skip(self, why: str, *names: str) -> None:
        """Note why these were not tried, where nothing was seen."""
        for name in names:
            if name not in self.findings:
                self._note(name, NOT_TRIED, None, why)

    def seen(self, name: str) -> t.Optional[str]:
        found: t.Optional[str] = self.findings.get(name, {}).get("seen")
        return found

    def _note(self, name: str, verdict: str, seen: t.Optional[str], note: str) -> None:
        found = {"verdict": verdict, "expected": BY_NAME[name].expected, "seen": seen}
        self.findings[name] = dict(found, command=BY_NAME[name].how, note=note)

    def close(self) -> None:
        """Note what all commands together have shown, and what none has."""
        if self.outputs:
            self.find("commands_end", self._ends)
            self.find("output_size", "bounded")
            self.find("own_file", "unchanged")
        self.skip(self.stopped or "Nothing was seen of it", *BY_NAME)
        version = self.seen("version") or ""
        for known in KNOWN:
            if re.fullmatch(known.pattern, version) and self.seen(known.finding) == known.seen:
                self.findings[known.finding]["note"] = "%s (%s)" % (known.message, known.source)
        self.findings = {finding.name: self.findings[finding.name] for finding in FINDINGS}

    # What is run

    def watch(self, *args: str, way: str = PIPES, env_secrets: t.Optional[str] = None) -> Seen:
        """Run a command that is not given any password. :raises Stop:"""
        argv, env = self._argv(args)
        if env_secrets is not None:
            env["SECUROSYS_SECRETS_CONF"] = env_secrets
        seen = watch(argv, env, self.time_left(), way)
        self._record(args, seen.streams, seen.status, seen.ended)
        if seen.ended == UNKNOWN_PROMPT:
            self.unknown_prompt = True
        elif seen.ended == TOO_MUCH:
            self.find("output_size", "too much")
            self.stop("ppin %s printed too much" % args[0])
        elif seen.ended == TIMED_OUT or seen.ended.startswith("signal"):
            self._bad_end(seen.ended)
        self.check_own()
        return seen

    def run(self, *args: str) -> str:
        """The same for what the collection's own code runs and reads. :raises PpinError, Stop:"""
        seen = self.watch(*args)
        if seen.ended != ENDED:
            cls = "timeout" if seen.ended == TIMED_OUT else None
            raise PpinError("ppin %s ended otherwise (%s)" % (args[0], seen.ended), cls=cls)
        return seen.text()

    @contextlib.contextmanager
    def using(self, secrets: t.Optional[str] = None, config: t.Optional[str] = None) -> t.Iterator[None]:
        """Work on other files meanwhile."""
        before = self.paths, self.secrets_path
        self.paths = self.paths._replace(config=config or self.paths.config)
        self.secrets_path = secrets or self.secrets_path
        try:
            yield
        finally:
            self.paths, self.secrets_path = before

    def dialogue(
        self, args: t.Sequence[str], answers: Answers, operation: str, read: t.Optional[t.Callable[[str], t.Any]] = None
    ) -> t.Any:
        """As of DialoguePpin; here it is recorded. :raises PpinError, Stop:"""
        self.timeout, self.screen = int(self.time_left()), ""
        ended, logins = ENDED, self.logins
        try:
            return super().dialogue(args, answers, operation, read)
        except PpinError as exc:
            killed = re.search(r"terminated by (signal \d+)", exc.msg)
            if killed or exc.cls == "timeout":
                ended = killed.group(1) if killed else TIMED_OUT
                self._bad_end(ended)
            elif exc.cls == "dialogue":
                ended = UNKNOWN_PROMPT if self.unknown_prompt else exc.msg
            raise
        finally:
            if self.logins > logins:
                self.made.append("ppin %s" % " ".join(args))
            screen = {"stdout": b"", "stderr": b"", "terminal": self.screen.encode("utf-8")}
            self._record(args, screen, None, ended)
            self.check_own()

    def _answer_prompts(self, child: t.Any, answers: Answers, answered: t.List[str], operation: str) -> str:
        child.logfile_read = self  # so that the screen is known however it ends
        return super()._answer_prompts(child, answers, answered, operation)

    def write(self, text: str) -> None:
        self.screen += text

    def flush(self) -> None:
        """As of a file."""

    def _dialogue_error(self, what: str, operation: str, screen: str, answered: t.List[str]) -> PpinError:
        self.unknown_prompt = self.unknown_prompt or "unknown prompt" in what or "another password" in what
        return super()._dialogue_error(what, operation, screen, answered)

    def time_left(self) -> float:
        left = self._deadline - time.monotonic()
        if left < 1:
            self.stop("total_timeout is over")
        return min(self._limit, left)

    def _bad_end(self, how: str) -> None:
        self._ends = how
        if how == TIMED_OUT:
            self._timeouts += 1
            if self._timeouts >= TIMEOUTS:
                self.stop("%d commands have timed out" % TIMEOUTS)
        else:  # and what it was writing may be half there
            self.stop("ppin was terminated by %s" % how)

    def stop(self, why: str) -> None:
        self.stopped = self.stopped or why
        raise Stop(why)

    def check_own(self) -> None:
        """:raises Stop: when the client's own files are not as they were; they are then put back."""
        changed = [file for file in self._own if not file.is_as_it_was()]
        if not changed:
            return
        self.find("own_file", "changed")
        try:
            for file in changed:
                file.put_back()
        except PpinError as exc:
            self.stop(exc.msg)
        names = " and ".join(os.path.basename(file.path) for file in changed)
        self.stop("This ppin has changed %s, which it was not given. The file was put back as it was" % names)

    def _record(
        self, args: t.Sequence[str], streams: t.Mapping[str, bytes], status: t.Optional[int], ended: str
    ) -> None:
        self.redaction.secrets |= values_of(self.content)
        output: t.Dict[str, t.Any] = {"command": self.redaction.text("ppin %s" % " ".join(args))}
        output.update(exit=status, ended=self.redaction.text(ended))
        output.update({name: self.redaction.output(text.decode("utf-8", "replace")) for name, text in streams.items()})
        self.outputs.append(output)

    # The copy of the secrets file

    @property
    def content(self) -> bytes:
        try:
            with open(self.secrets_path, "rb") as file:
                return file.read()
        except OSError:
            return b""

    @content.setter
    def content(self, content: bytes) -> None:
        with open(self.secrets_path, "wb") as file:
            file.write(content)

    @contextlib.contextmanager
    def throw_away(self) -> t.Iterator[None]:
        """Give the copy back its content afterwards."""
        before = self.content
        try:
            yield
        finally:
            self.content = before

    # What a command says

    @staticmethod
    def listing_of(seen: Seen) -> t.Optional[Listing]:
        try:
            return parse_listing(seen.text())
        except PpinError:
            return None

    def outcome(self, seen: Seen, kind: str, name: str) -> str:
        """A code, or what there is in place of one, of a command for one entry."""
        if seen.prompt:
            return ASKS
        code = find_code(seen.text())
        listing = self.listing_of(seen)
        if code or listing is None:
            return code or NO_CODE
        entries = getattr(listing, kind).get(name)
        return LISTS if entries and all(entry.configured for entry in entries) else SUCCEEDS


def values_of(content: bytes) -> t.Set[str]:
    """What may be a secret in a secrets file."""
    settings = re.findall(r'(\w+)\s*[=:]\s*"([^"]{16,})"', content.decode("utf-8", "replace"))
    return {value for key, value in settings if key != "name"}
