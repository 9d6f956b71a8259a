# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Makes of what a ppin printed what can be shown to everybody."""

import re
import typing as t

from ansible_collections.hsmops.primus.plugins.module_utils._ppin.redaction import NOT_SHOWN, redact

PASSWORDS = ("setup_password", "pkcs11_password", "proxy_password", "wrong_setup_password")
"""The options of ppin_qualify whose values are never shown."""

OUTPUT_LIMIT = 8000
"""Characters of one output that a profile has."""

_HIDDEN = "********"
_ADDRESS = re.compile(
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)|"
    r"(?<![\w:])(?=[0-9a-f]*:[0-9a-f]*:)[0-9a-f:]{3,39}(?![\w:])|"
    r"[\w.+-]+@[\w-]+\.[\w.-]+",
    re.I,
)
_TIME = re.compile(r"\d\d:\d\d:\d\d\Z")
_SERIAL = re.compile(r"(?<![\w.])(?!0x)(?=\w*\d)(?:\d{6,}|[0-9A-F]{10,})(?![\w.])", re.I)
_UNSEEN = re.compile(r"[^\t\n\x1b\r -~\u00a0-\ud7ff\ue000-\ufffd]")


class Redaction:
    """Replaces names by stand-ins that are the same each time, and cuts out what may be secret.

    :arg secrets: passwords, and values of a secrets file.
    """

    def __init__(self, secrets: t.Iterable[t.Optional[str]]) -> None:
        self.secrets = {secret for secret in secrets if secret}
        self._names: t.Dict[str, str] = {}

    def name(self, kind: str, names: t.Iterable[t.Optional[str]]) -> None:
        """Give each name a stand-in, in this order: the kind and a number."""
        for name in names:
            if not name or not name.strip():
                continue
            name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # as outputs are decoded
            if name not in self._names:
                same = [found for known, found in self._names.items() if known.lower() == name.lower()]
                number = len({found for found in self._names.values() if found.rstrip("0123456789") == kind})
                self._names[name] = same[0] if same else "%s%d" % (kind, number + 1)

    def text(self, text: str) -> str:
        """A text without names, addresses, secrets and what looks like a serial number."""
        if redact(self.secrets, text) == NOT_SHOWN:
            return NOT_SHOWN
        # Together, as a password may be part of a name, and a name part of a password.
        text = redact(self.secrets, self._replace(text, {**self._names, **dict.fromkeys(self.secrets, _HIDDEN)}))
        text = _ADDRESS.sub(self._address, text)
        return _UNSEEN.sub("\ufffd", _SERIAL.sub(_HIDDEN, text))

    def names(self, text: str) -> str:
        """A text with the stand-ins of all names."""
        return self._replace(text, self._names)

    @staticmethod
    def _replace(text: str, known: t.Mapping[str, str]) -> str:
        """Replace what is known, the longest first. The group that has matched tells which it is."""
        longest = sorted(known, key=len, reverse=True)
        # One of a letter or two would be found everywhere.
        parts = [
            re.escape(word) if len(word) > 2 or known[word] == _HIDDEN else r"(?<!\w)%s(?!\w)" % re.escape(word)
            for word in longest
        ]
        # A host is replaced with its domain.
        parts = [
            part + r"(?:\.[\w-]+)*" if known[word].startswith(("HOST", "NODE")) else part
            for word, part in zip(longest, parts)
        ]
        pattern = re.compile("|".join("(%s)" % part for part in parts) or r"(?!)", re.I)
        return pattern.sub(lambda found: known[longest[(found.lastindex or 1) - 1]], text)

    def _address(self, found: t.Match[str]) -> str:
        if _TIME.match(found.group()):
            return found.group()
        self.name("ADDR", [found.group()])
        return self._names[found.group()]

    def output(self, text: str) -> str:
        """The same for a whole output, without the lines after the first OUTPUT_LIMIT characters."""
        if len(text) > OUTPUT_LIMIT:
            text = text[:OUTPUT_LIMIT].rpartition("\n")[0] + "\n[…]\n"
        return self.text(text)

    def all(self, value: t.Any) -> t.Any:
        """The same for each string in lists and in the values of dictionaries."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.all(inner) for key, inner in value.items()}
        return [self.all(inner) for inner in value] if isinstance(value, list) else value
