# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Output and password prompts of ppin."""

import sys
import time

from . import codes
from .codes import PpinError

STARS = "*" * 20


class Password:
    """A password and how ppin got it: terminal, stdin, argv or file."""

    def __init__(self, value, source):
        self.value = value
        self.source = source


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

    def code(self, code):
        """Return the text of an error code."""
        text = codes.text(code)
        return text if self._switches.error_hex == "upper" else text.lower()

    def slot_id(self, number):
        """Return the text of a slot id."""
        return ("%d" if self._switches.slot_id_format == "decimal" else "0x%08x") % number

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
        self._switches.reached("prompt")
        value = self._read()
        if not self._switches.echo_off_once:
            self._echo_on()
        self._write(end.encode())
        return Password(value, "terminal" if self._terminal.isatty() else "stdin")

    def ask_extra(self):
        """Ask a question that is not documented; any answer is accepted."""
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
