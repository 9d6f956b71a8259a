# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switches of ppin: what the vendor's documentation leaves open, and ways to fail.

A client keeps them in `etc/emulator.json`, an object from name to value; what it does not name has its default.
"""

import json
import os
import time

FOREVER = "forever"

# Name: (default, allowed values or the type, meaning).
SWITCHES = {
    # paths
    "ca": ("", str, "CA file of the HSM's certificate; empty: not verified"),
    "system_etc": ("/etc/primus", str, "folder of the primary primus.cfg and .secrets.cfg"),
    "version": ("", str, "of the provider, decides what ppin knows; empty: share/VERSION of PRIMUS_HOME, else 2.2.4"),
    "default_log_file": ("", str, "the provider's log where primus.cfg has no log.file; empty: no log at all"),
    "timeout": (10.0, float, "seconds without an answer of the HSM until 0x8000003B"),
    # output
    "output_stream": ("stdout", ("stdout", "stderr"), "where headers, listings and prompts on stdin go"),
    "message_stream": ("stderr", ("stdout", "stderr"), "where error messages go"),
    "error_text": ("code", ("code", "meaning", "paren", "trailing"), "wording around an error code"),
    "error_hex": ("upper", ("upper", "lower"), "digits of an error code: 0x8000000B or 0x8000000b"),
    "test_form": ("quoted", ("quoted", "plain"), "which of the published forms --test prints"),
    "test_failure": (
        "form",
        ("form", "paren", "colon", "text", "ckr", "token_not_present"),
        "wording of a failed slot of --test; form: paren in the quoted one, ckr in the plain one",
    ),
    "test_hsm_failure": (
        "colon_code",
        ("colon_code", "bare", "code_paren", "name", "no_line", "firmware_none", "firmware_unknown"),
        "what --test prints of an HSM without a connection",
    ),
    "test_counters": ("form", ("form", "on", "off"), "counts at the end of --test; form: only the quoted one has them"),
    "exit_success": (0, int, "exit status of success"),
    "exit_failure": (1, int, "exit status of failure"),
    "listing": ("add", ("add", "proxy_add", "three"), "white space of a listing, as in the transcript of this name"),
    "slot_id_format": ("decimal", ("decimal", "hex"), "slot ids of a listing and of --test: 1 or 0x00000001"),
    "proxy_remove_listing": ("proxies", ("proxies", "all"), "what -x lists at its end"),
    "trailing_spaces": (0, int, "number of spaces at the end of each line"),
    "crlf": (False, bool, "lines end with CR LF"),
    "escape_sequences": (False, bool, "lines and prompts are bold, by terminal escape sequences"),
    # the dialogue
    "input": ("stdin", ("stdin", "tty"), "prompts on output_stream and answers from stdin, or both on /dev/tty"),
    "echo_off_late_ms": (0, int, "milliseconds from the prompt until echo is off; 0: off before the prompt"),
    "echo_off_once": (False, bool, "echo goes off once for all prompts, not for each"),
    "flush_typeahead": (True, bool, "what was typed before echo went off is dropped"),
    "prompt_newline": (False, bool, "a new line follows each prompt"),
    "prompt_order": ("setup-first", ("setup-first", "pkcs11-first"), "which of the two passwords is asked first"),
    "reprompt": (0, int, "how often a rejected password is asked for again"),
    "extra_question": ("", str, "text of a question that nobody knows"),
    "extra_question_at": ("before", ("before", "after"), "before or after the passwords"),
    # the command line
    "fortinet_proxy_option": (
        "both",
        ("both", "proxypwd", "proxypassword"),
        "the option of --fortinet for the service proxy password; the usage text has proxypwd, another page the other",
    ),
    # what the documentation leaves open about the secrets file
    "proxy_existing": (
        "overwrite",
        ("overwrite", "duplicate", "duplicate_config"),
        "-p of a present entry: replaces it, fails with 0x80000003, or with 0x80005002",
    ),
    "keep_entry_on_failed_update": (False, bool, "a failed -u keeps the entry (documented: it removes it)"),
    "recipher": (False, bool, "each write ciphers the other entries anew, too"),
    "recipher_reads": (False, bool, "-l and --test write .secrets.cfg, too, with all entries ciphered anew"),
    "chunk_bytes": (64, int, "bytes of one write to .secrets.cfg"),
    "write_delay_ms": (0, int, "milliseconds before each of these writes"),
    # failures
    "hang_at": ("", ("", "start", "prompt", "after-password"), "where ppin hangs"),
    "hang_seconds": (FOREVER, str, "for how long: seconds or forever"),
    "kill_at": ("", ("", "before-prompt", "after-prompt", "after-login"), "where ppin kills itself"),
    "kill_at_write": (0, int, "ppin kills itself before this write to .secrets.cfg; 1: the file is empty then"),
    "print_mb": (0, int, "megabytes of noise on output_stream at the start"),
    "binary_noise": (False, bool, "bytes that are no text on output_stream at the start"),
    "echo_secrets": (False, bool, "prints each password that it is given"),
    "fail_without_code": (False, bool, "error messages without an error code"),
    "lie_configured": (
        "",
        ("", "always", "changes"),
        "says Configured when it is not: in every listing, or in the one at the end of a -a, -u or -p that failed",
    ),
}


class Behaviour:
    """The switches of one client, as attributes. values: an object as in emulator.json. Raises ValueError."""

    def __init__(self, values):
        for name, (default, _kind, _meaning) in SWITCHES.items():
            setattr(self, name, default)
        for name, value in values.items():
            setattr(self, name, parse(name, value))

    def reached(self, place):
        """Hang or die at a place of the run, where the switches say so."""
        if self.hang_at == place:
            time.sleep(1e9 if self.hang_seconds == FOREVER else float(self.hang_seconds))
        if self.kill_at == place:
            kill()


def kill():
    """End this process as a power cut would."""
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def parse(name, value):
    """Return the value of a switch in its type, from that type or from text. Raises ValueError."""
    if name not in SWITCHES:
        raise ValueError("unknown switch %s" % name)
    kind = SWITCHES[name][1]
    if isinstance(kind, tuple):
        if value in kind:
            return value
    elif kind is bool:
        words = {
            "on": True,
            "true": True,
            "yes": True,
            "1": True,
            "off": False,
            "false": False,
            "no": False,
            "0": False,
        }
        if str(value).lower() in words:
            return words[str(value).lower()]
        kind = ("on", "off")
    else:
        return kind(value)
    raise ValueError("%s: %r is not one of %s" % (name, value, ", ".join(kind)))


def load(path):
    """Read the switches of a file; without one, the defaults. Raises ValueError."""
    try:
        with open(path) as file:
            return Behaviour(json.load(file))
    except FileNotFoundError:
        return Behaviour({})
