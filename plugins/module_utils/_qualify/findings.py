# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""What the collection relies on, or would have to know, of a ppin: the one list of it, FINDINGS.

Most of it is not documented by the vendor. The emulator has a switch for each question that can be answered in more
than one way; the module ppin_qualify answers them for a real ppin, and its result and the emulator use these names.

The profile, C(primus_qualification.json), is an object of

- C(format): 1. It changes when a reader of this format could not read another.
- C(collection), C(provider): versions, as text; provider is null when ppin does not tell.
- C(platform): C(system), C(machine), C(python), C(libc), C(user) (C(root) or C(other)), all text.
- C(findings): by name, in the order of FINDINGS, each an object of
  - C(verdict): C(holds) (what was seen is what was expected, or nothing is expected), C(differs), C(not tried);
  - C(expected): text, or null when the value is only recorded;
  - C(seen): text, or null with C(not tried). One of the finding's values, C(other), or where FREE is among them any;
  - C(command): what was run, without passwords;
  - C(note): why it was not tried, or what follows for the collection from what was seen; possibly empty.
- C(rotation): the way of rotation that follows, a sentence.
- C(stopped): why the run ended early, or null.
- C(logins): C(planned) and C(made), lists of texts.
- C(outputs): a list of what ppin printed, in the order of the commands, each an object of C(command), C(exit) (a
  number, or null when it was terminated), C(ended) (C(by itself), C(terminated at a prompt), C(timed out), C(printed
  too much), C(signal N)), C(stdout), C(stderr), C(terminal).

Names are replaced in it: C(P1), C(SU1), C(HOST1), C(ADDR1), C(CLIENT1), C(DIR1) … ; passwords and what looks like a
secret or a serial number is C(********).
"""

import typing as t

FORMAT = 1

FREE = "…"
"""Among the values of a finding: any other text, such as a number, a code of ppin or a prompt."""

OTHER = "other"
"""What was seen is none of the values; the outputs show it."""

NO_CODE, LISTS, ASKS, SUCCEEDS = "no code", "lists Configured", "asks", "succeeds"
"""In place of an error code: ppin printed something else, lists the entry as set, asks for a password, or succeeds."""

_MODULES = "ppin_secret, ppin_proxy and ppin_credentials"


class Finding(t.NamedTuple):
    """One thing to know of a ppin.

    :ivar relies: what the collection relies on or does about it, a sentence.
    :ivar where: the file that does, in plugins/; or empty.
    :ivar how: the command that shows it. -c and -s, which are always given, are left out.
    :ivar expected: what the documentation says, or the emulator does by default; None: it is only recorded.
    :ivar values: what may be seen.
    :ivar cannot: what follows for who uses this ppin, by the value seen. With all other values the collection works.
    """

    name: str
    relies: str
    where: str
    how: str
    expected: t.Optional[str]
    values: t.Tuple[str, ...]
    cannot: t.Mapping[str, str] = {}  # noqa: RUF012 (never changed)


_COMMAND = "module_utils/_ppin/command.py"
_DIALOGUE = "module_utils/_ppin/dialogue.py"
_ERRORS = "module_utils/_ppin/errors.py"
_LISTING = "module_utils/_ppin/listing.py"
_LOGIN = "module_utils/_ppin/login.py"
_TESTED = "module_utils/_ppin/connectivity_test.py"
_CONVERGE = "module_utils/_client/converge.py"
_SECRETS_FILE = "module_utils/_client/secrets_file.py"
_LEDGER = "module_utils/_client/ledger.py"

_NO_COPY = "%s would change .secrets.cfg itself, where a failed update removes the entry; do not use them" % (_MODULES)
_NO_DIALOGUE = "%s would stop before the first password, or after it; do not use them" % _MODULES
_NO_LISTING = "no module would know which credentials a client has; do not use the collection"

FINDINGS = (
    # The files
    Finding(
        "secrets_flag",
        "-s names the secrets file, so that ppin can be given a copy.",
        _COMMAND,
        "ppin -l, with -s and SECUROSYS_SECRETS_CONF at a file that is no secrets file",
        "honoured",
        ("honoured", "ignored"),
        {"ignored": _NO_COPY},
    ),
    Finding(
        "secrets_flag_commands",
        "Each command honours -s.",
        _COMMAND,
        "each command, with -s and SECUROSYS_SECRETS_CONF at a file that is no secrets file",
        "all",
        ("all", FREE),  # else those that ignore it
    ),
    Finding(
        "own_file",
        "A ppin that works on a copy leaves the client's own .secrets.cfg as it is.",
        _SECRETS_FILE,
        "all of the commands",
        "unchanged",
        ("unchanged", "changed"),
        {"changed": _NO_COPY},
    ),
    Finding(
        "config_flag",
        "-c names primus.cfg.",
        _COMMAND,
        "ppin -l, with -c and SECUROSYS_PKCS11_CONF at a file that is no primus.cfg",
        "honoured",
        ("honoured", "ignored"),
        {"ignored": "config_path would have no effect; keep primus.cfg where ppin looks for it"},
    ),
    Finding(
        "flags_or_environment",
        "Nothing: flags and environment always name the same files.",
        _COMMAND,
        "ppin -l, with -s at a secrets file and SECUROSYS_SECRETS_CONF at one that is none",
        "flags",
        ("flags", "environment"),
    ),
    # The output
    Finding("version", "ppin -v tells the version.", _COMMAND, "ppin -v", None, (FREE,)),
    Finding(
        "usage",
        "The commands are those of the documentation.",
        _COMMAND,
        "ppin -h",
        "a fetchlog fortinet l p r test u x",
        ("a fetchlog fortinet l p r test u x", FREE),
    ),
    Finding(
        "commands_end",
        "A command ends by itself, in time.",
        _COMMAND,
        "all of the commands",
        "by themselves",
        ("by themselves", "timed out", FREE),
    ),
    Finding(
        "output_size",
        "No output is longer than 1 MB.",
        _COMMAND,
        "all of the commands",
        "bounded",
        ("bounded", "too much"),
        {"too much": "each module would end it and fail; do not use the collection"},
    ),
    Finding("output_text", "The output is text.", _COMMAND, "ppin -l", "text", ("text", "bytes")),
    Finding(
        "output_stream",
        "Nothing: both streams are read.",
        _COMMAND,
        "ppin -l",
        "stdout",
        ("stdout", "stderr"),
    ),
    Finding(
        "message_stream",
        "Nothing: both streams are read.",
        _COMMAND,
        "ppin -r -e PARTITION, which is missing",
        "stderr",
        ("stderr", "stdout"),
    ),
    Finding("exit_success", "Nothing: exit statuses are not used.", _COMMAND, "ppin -l", "0", ("0", FREE)),
    Finding(
        "exit_failure",
        "Nothing: exit statuses are not used.",
        _COMMAND,
        "ppin -r -e PARTITION, which is missing",
        "1",
        ("1", FREE),
    ),
    Finding("line_ends", "Carriage returns are ignored.", _LISTING, "ppin -l", "LF", ("LF", "CR LF")),
    Finding("trailing_spaces", "White space is ignored.", _LISTING, "ppin -l", "0", ("0", FREE)),
    Finding("escape_sequences", "Escape sequences are ignored.", _LISTING, "ppin -l", "none", ("none", "used")),
    Finding(
        "error_text",
        "An error has its code somewhere in its text.",
        _ERRORS,
        "ppin -r -e PARTITION, which is missing",
        "code",
        ("code", "meaning", "paren", "trailing", "no code", OTHER),
        {"no code": "no module could tell a rejected credential from other failures; do not use the collection"},
    ),
    Finding(
        "error_digits",
        "Digits of a code may be upper or lower case.",
        _ERRORS,
        "ppin --fetchlog --user PARTITION --hsm HSM, which has no secret",
        "upper",
        ("upper", "lower"),
    ),
    # The listing
    Finding(
        "listing",
        "ppin -l lists each slot and each service user of primus.cfg.",
        _LISTING,
        "ppin -l",
        "complete",
        ("complete", "incomplete", "none"),
        {"incomplete": _NO_LISTING, "none": _NO_LISTING},
    ),
    Finding(
        "listing_true",
        "A credential that is not in the secrets file is listed as MISSING.",
        _CONVERGE,
        "ppin -l, with an empty secrets file",
        "true",
        ("true", "lies"),
        {"lies": "no module would set a credential, as each is said to be there; do not use the collection"},
    ),
    Finding(
        "listing_spaces",
        "White space of a listing may be any: the published ones differ.",
        _LISTING,
        "ppin -l",
        "add",
        ("add", "proxy_add", "three", OTHER),
    ),
    Finding("slot_ids", "Slot ids are decimal or hexadecimal.", _LISTING, "ppin -l", "decimal", ("decimal", "hex")),
    Finding(
        "proxy_remove_listing",
        "A service proxy password is removed when a listing follows that has no error code.",
        _COMMAND,
        "ppin -x -e SERVICE_USER",
        "proxies",
        ("proxies", "all", OTHER),
    ),
    # The command line
    Finding(
        "joined_flags",
        "Nothing: each flag is given on its own.",
        _COMMAND,
        "ppin -re PARTITION, which is missing",
        "understood",
        ("understood", "refused"),
    ),
    Finding(
        "fortinet_proxy_option",
        "Nothing: a password is never an argument.",
        "",
        "ppin --fortinet with each of the published options and one that nobody has, without a user",
        "both",
        ("both", "proxypwd", "proxypassword", "none"),
    ),
    # What is there already, or is not
    Finding(
        "unknown_partition",
        "A name that is not in primus.cfg is refused.",
        _ERRORS,
        "ppin -r -e NAME, which is not in primus.cfg",
        "0x80005012",
        ("0x80005012", NO_CODE, SUCCEEDS, FREE),
    ),
    Finding(
        "remove_missing",
        "Nothing: a missing entry is not removed.",
        _CONVERGE,
        "ppin -r -e PARTITION, which is missing",
        "0x80005011",
        ("0x80005011", NO_CODE, SUCCEEDS, FREE),
    ),
    Finding(
        "proxy_remove_missing",
        "Nothing: a missing entry is not removed.",
        _CONVERGE,
        "ppin -x -e SERVICE_USER, which is missing",
        "0x80005011",
        ("0x80005011", NO_CODE, SUCCEEDS, FREE),
    ),
    Finding(
        "update_missing",
        "Nothing: a missing entry is added, not updated.",
        _CONVERGE,
        "ppin -u -e PARTITION, which is missing; ended where it asks for a password",
        "0x80005010",
        ("0x80005010", NO_CODE, ASKS, LISTS, FREE),
        {LISTS: "a failure would be taken for a success where it prints no code; do not use %s" % _MODULES},
    ),
    Finding(
        "add_present",
        "Nothing: a present entry is updated, not added.",
        _CONVERGE,
        "ppin -a -e PARTITION, which is present; ended where it asks for a password",
        "0x80000003",
        ("0x80000003", NO_CODE, ASKS, LISTS, FREE),
    ),
    Finding(
        "proxy_existing",
        "A present service proxy password is replaced by -p, or removed first where that is a duplicate.",
        _CONVERGE,
        "ppin -p -e SERVICE_USER, which is present; ended where it asks for a password",
        ASKS,
        (ASKS, "0x80000003", "0x80005002", NO_CODE, LISTS, FREE),
    ),
    # The connection test and the log
    Finding(
        "test_form",
        "Both published forms of --test are read.",
        _TESTED,
        "ppin --test --user PARTITION --hsm HSM",
        "quoted",
        ("quoted", "plain", OTHER),
    ),
    Finding(
        "test_counters",
        "Nothing: the counters may be there or not.",
        _TESTED,
        "ppin --test --user PARTITION --hsm HSM",
        "on",
        ("on", "off"),
    ),
    Finding(
        "test_failure",
        "A slot whose login failed has a code or a name of PKCS#11.",
        _TESTED,
        "ppin --test --user PARTITION --hsm HSM, which has no secret",
        "paren",
        ("paren", "colon", "text", "ckr", "token_not_present", OTHER),
    ),
    Finding(
        "test_hsm_failure",
        "An HSM that cannot be reached is never taken for a rejected credential.",
        _TESTED,
        "ppin --test, with a primus.cfg whose only HSM is a closed port of this host",
        "colon_code",
        ("colon_code", "bare", "code_paren", "name", "no_line", "firmware_none", "firmware_unknown", OTHER),
    ),
    Finding(
        "login",
        "--test logs in with the permanent secret, and says OK.",
        _LOGIN,
        "ppin --test --user PARTITION --hsm HSM",
        "OK",
        ("OK", NO_CODE, FREE),
        {NO_CODE: "a good secret would be reported as not verified: set verify to never"},
    ),
    Finding(
        "log",
        "--fetchlog writes the log of a partition to a file, of which each line is understood.",
        "module_utils/_ppin/log.py",
        "ppin --fetchlog --user PARTITION --hsm HSM --out FILE",
        "complete",
        ("complete", "incomplete", "empty", NO_CODE, FREE),
    ),
    # The dialogue
    Finding(
        "questions",
        "ppin asks for nothing but the passwords that it is to be given.",
        _DIALOGUE,
        "ppin -a -e PARTITION",
        "none",
        ("none", "before", "after"),
        {"before": _NO_DIALOGUE, "after": _NO_DIALOGUE},
    ),
    Finding(
        "prompt_source",
        "Prompts are answered wherever they are read from: the terminal is stdin, too.",
        _DIALOGUE,
        "ppin -a -e PARTITION, with pipes and a controlling terminal; ended at the first prompt",
        "stdin",
        ("stdin", "tty", OTHER),
    ),
    Finding(
        "prompt_order",
        "Passwords may be asked for in any order.",
        _DIALOGUE,
        "ppin -a -e PARTITION; ended at the first prompt",
        "setup-first",
        ("setup-first", "pkcs11-first"),
    ),
    Finding(
        "prompt_setup",
        "A prompt names the password and the partition.",
        _DIALOGUE,
        "ppin -a -e PARTITION",
        "Provide setup password for 'P1':",
        ("Provide setup password for 'P1':", FREE),
    ),
    Finding(
        "prompt_pkcs11",
        "A prompt names the password and the partition.",
        _DIALOGUE,
        "ppin -a -e PARTITION",
        "Provide PKCS11 password for 'P1':",
        ("Provide PKCS11 password for 'P1':", FREE),
    ),
    Finding(
        "prompt_proxy",
        "A prompt names the password and the service user.",
        _DIALOGUE,
        "ppin -p -e SERVICE_USER",
        "Provide proxy password for 'SU1' :",
        ("Provide proxy password for 'SU1' :", FREE),
    ),
    Finding(
        "prompt_line",
        "An answer may be typed on the line of the prompt or the one after.",
        _DIALOGUE,
        "ppin -a -e PARTITION; ended at the first prompt",
        "same",
        ("same", "next"),
    ),
    Finding(
        "echo_off",
        "The echo is off before a password is typed; it is waited for.",
        _DIALOGUE,
        "ppin -a -e PARTITION; ended at the first prompt",
        "before the prompt",
        ("before the prompt", "after the prompt", "never"),
        {"never": _NO_DIALOGUE},
    ),
    Finding(
        "typeahead",
        "Nothing is typed before the prompt is there and the echo is off.",
        _DIALOGUE,
        "ppin -a -e PARTITION; ended at the first prompt",
        "dropped",
        ("dropped", "kept"),
    ),
    Finding(
        "secrets_shown",
        "ppin does not print passwords; they are cut out of messages all the same.",
        "module_utils/_ppin/redaction.py",
        "ppin -a -e PARTITION",
        "no",
        ("no", "yes"),
    ),
    # The secrets file
    Finding(
        "proxy_add",
        "-p sets the service proxy password, and ends with a listing.",
        _CONVERGE,
        "ppin -p -e SERVICE_USER",
        "works",
        ("works", NO_CODE, FREE),
    ),
    Finding(
        "add",
        "-a fetches the permanent secret, and ends with a listing.",
        _CONVERGE,
        "ppin -a -e PARTITION",
        "works",
        ("works", NO_CODE, FREE),
    ),
    Finding(
        "secrets_write",
        "The secrets file may be written in place, or replaced.",
        _SECRETS_FILE,
        "ppin -a -e PARTITION",
        "in place",
        ("in place", "renamed"),
    ),
    Finding(
        "secrets_mode",
        "The copy takes the owner and permissions of the file, whatever ppin gives it.",
        _SECRETS_FILE,
        "ppin -a -e PARTITION, with a file of mode 0640",
        "kept",
        ("kept", FREE),  # else mode, or owner
    ),
    Finding(
        "secrets_leftovers",
        "What ppin leaves beside the secrets file is in the private directory, and removed with it.",
        "module_utils/_client/leftovers.py",
        "ppin -a -e PARTITION",
        "none",
        ("none", FREE),  # else the number of files
    ),
    Finding(
        "other_entries",
        "Other entries that were ciphered anew are still known as the same.",
        _LEDGER,
        "ppin -a -e PARTITION, beside another entry",
        "same",
        ("same", "ciphered anew"),
    ),
    Finding(
        "reads_change_file",
        "-l and --test do not write to the secrets file.",
        _LEDGER,
        "ppin -l and ppin --test",
        "no",
        ("no", "yes"),
    ),
    Finding(
        "read_only_file",
        "A secrets file that cannot be written stays as it is.",
        _SECRETS_FILE,
        "ppin -r -e PARTITION, which is present, with a file of mode 0400; not as root",
        "0x80005007",
        ("0x80005007", NO_CODE, SUCCEEDS, FREE),
    ),
    # The credentials
    Finding(
        "setup_twice",
        "A setup password is not spent twice on the same client: the ledger knows it.",
        _LEDGER,
        "ppin -u -e PARTITION, with the setup password that -a was given",
        "accepted",
        ("accepted", NO_CODE, FREE),
    ),
    Finding(
        "update_secret",
        "Nothing: an update brings the secret that is valid now.",
        "",
        "ppin -u -e PARTITION, and both entries compared",
        None,
        ("same", "another", "not known"),
    ),
    Finding(
        "before_update",
        "Other clients keep their access while a fleet is rotated.",
        "",
        "ppin --test --user PARTITION --hsm HSM, with the entry from before ppin -u",
        "logs in",
        ("logs in", NO_CODE, FREE),
    ),
    Finding(
        "fortinet",
        "--fortinet prints a secrets file in base64.",
        "modules/ppin_fortinet.py",
        "ppin --fortinet --user PARTITION",
        "complete",
        ("complete", NO_CODE, FREE),
    ),
    Finding(
        "failed_update",
        "A failed update removes the entry, so ppin works on a copy.",
        _SECRETS_FILE,
        "ppin -u -e PARTITION, with a wrong setup password",
        "removed",
        ("removed", "kept"),
    ),
    Finding(
        "failed_update_code",
        "A rejected setup password has a code of class rejected.",
        _ERRORS,
        "ppin -u -e PARTITION, with a wrong setup password",
        "0x80005017",
        ("0x80005017", NO_CODE, LISTS, FREE),
        {LISTS: "a rejected password would be taken for a good one; do not use %s" % _MODULES},
    ),
    Finding(
        "reprompt",
        "A password is typed once: ppin is ended when it asks for it again.",
        _DIALOGUE,
        "ppin -u -e PARTITION, with a wrong setup password",
        "no",
        ("no", "yes"),
    ),
    # The library
    Finding(
        "library_login",
        "Nothing: loading the library may cost a login.",
        "modules/pkcs11_token_info.py",
        "C_Initialize, without and with the permanent secret",
        None,
        ("logs in", "does not"),
    ),
    Finding(
        "token_flags", "Flags tell of wrong PINs.", "module_utils/_client/pkcs11.py", "C_GetTokenInfo", None, (FREE,)
    ),
    Finding(
        "token_label",
        "Nothing: the label of a token may be any.",
        "module_utils/_client/pkcs11.py",
        "C_GetTokenInfo",
        None,
        ("partition", OTHER),
    ),
)

BY_NAME = {finding.name: finding for finding in FINDINGS}


class Known(t.NamedTuple):
    """What is known of a version of the provider. pattern: a regular expression that its whole version matches."""

    pattern: str
    finding: str
    seen: str
    message: str
    source: str


KNOWN: t.Tuple[Known, ...] = ()
"""What users have found, with its source (the address of the issue). Nothing is known of any real version yet."""
