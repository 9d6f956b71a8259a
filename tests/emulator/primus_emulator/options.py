# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of ppin."""

import re

# The version of the provider that brought a command.
SINCE = {"t": (1, 8, 1), "fortinet": (2, 2, 4)}

# (command, or "" for all; text)
_USAGE = (
    (
        "",
        """\
Usage: ppin [-c FILE] [-s FILE] COMMAND
  -h                                    this text
  -v                                    version of the provider
  -l                                    list slots and service proxies
  -a -e USER [SETUP PIN]                add a permanent secret
  -u -e USER [SETUP PIN]                update a permanent secret
  -r -e USER                            remove a permanent secret
  -p -e SERVICE_USER [PASSWORD]         add a service proxy password
  -x -e SERVICE_USER                    remove a service proxy password
""",
    ),
    (
        "t",
        """\
  -t, --test [--user U] [--hsm H] [--slot S] [--slotid N]
                                        log in to every HSM and partition
""",
    ),
    (
        "",
        """\
  --fetchlog --user U --hsm H [--reverse] [--since YYYY-MM-DD] [--out FILE]
                                        dump the log of a partition
""",
    ),
    (
        "fortinet",
        """\
  --fortinet --user U [SETUP [PIN]] [--proxyuser P [--proxypwd W]]
                                        print the secrets file in base64
""",
    ),
    (
        "",
        """\
  -c FILE                               primus.cfg
  -s FILE                               .secrets.cfg
""",
    ),
)
PROXY_OPTIONS = ("proxypwd", "proxypassword")

COMMANDS = "hvlaurpxt"


class UsageError(Exception):
    """A command line that ppin does not understand."""


class Language:
    """What one ppin understands. version: of the provider; proxy_option: one of PROXY_OPTIONS, or both."""

    def __init__(self, version, proxy_option):
        numbers = tuple(map(int, re.findall(r"\d+", version)))
        self._unknown = {command for command, since in SINCE.items() if numbers < since}
        self.proxy_options = PROXY_OPTIONS if proxy_option == "both" else (proxy_option,)

    def knows(self, command):
        return command not in self._unknown

    @property
    def usage(self):
        text = "".join(text for command, text in _USAGE if self.knows(command))
        return text.replace(PROXY_OPTIONS[0], self.proxy_options[0])


class Options:
    """A command line: `command` is a letter of COMMANDS, fetchlog or fortinet. Raises UsageError."""

    VALUES = ("user", "hsm", "slot", "slotid", "since", "out", "proxyuser")

    def __init__(self, argv, language):
        self._language = language
        self.command = None
        self.proxypwd = None
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
            self._set_command("t" if name == "test" else name, "--" + name)
        elif name == "reverse":
            self.reverse = True
        elif name in self.VALUES:
            setattr(self, name, self._value("--" + name))
        elif name in self._language.proxy_options:
            self.proxypwd = self._value("--" + name)
        else:
            raise UsageError("unknown option --%s" % name)

    def _short(self, letter):
        names = {"e": "user", "c": "config", "s": "secrets"}
        if letter in names:
            setattr(self, names[letter], self._value("-" + letter))
        elif letter in COMMANDS:
            self._set_command(letter, "-" + letter)
        else:
            raise UsageError("unknown option -%s" % letter)

    def _value(self, option):
        if not self._rest:
            raise UsageError("%s needs a value" % option)
        return self._rest.pop(0)

    def _set_command(self, command, option):
        if not self._language.knows(command):
            raise UsageError("unknown option %s" % option)
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
