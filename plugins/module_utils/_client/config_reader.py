# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Read primus.cfg (HSMs, partitions, their service users, passwords in plaintext) and .secrets.cfg (its partitions).

ppin does not list the HSMs and service users of a partition. Whether a file is valid, only ppin decides.
"""

import base64
import json
import re
import typing as t
import unicodedata

from ansible_collections.hsmops.primus.plugins.module_utils._client.libconfig import (
    AMBIGUOUS,
    Group,
    LibconfigError,
    pieces,
    read,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import find_code
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import printable

NAME_LIMIT = 255
"""Bytes of a name. The vendor documents no limit. This one refuses what is no name, such as the content of a file."""

MANAGED_COMMENT = "# Managed by Ansible (hsmops.primus): changes made here are lost."
"""The comment at the start of files of this collection, without a line break."""

SHOWN_SETTINGS = frozenset(
    ["version", "wait_delay", "wait_max_tries", "connect_on_init", "host", "port", "priority"]
    + ["client_id", "user_name", "proxy_user", "id", "file", "write_log_file", "write_syslog"]
    + ["trace_linenumber", "trace_timestamp", "trace_function", "trace_inout", "trace_pid", "trace_filename"]
    + ["trace_mask", "trace_level"]
)
"""The settings that the vendor documents and that hold no password, so that a diff may show their values."""

HIDDEN_VALUE = b'"********"'

_HIDDEN_COMMENTS = {b"/*": b"/* ******** */", b"//": b"// ********"}
_GROUPS = re.compile(r"primus|hsms|hsm\d+|slots|slot\d+|log", re.A)
_PASSWORD = re.compile(r"pin|.*password.*", re.I)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")


def invalid_name_reason(name: str) -> t.Optional[str]:
    """Return why this cannot be the name of a partition or service user, such as `is empty`, or None."""
    if not name.strip():
        return "is empty"
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name):
        return "has a line break or another control character in it"
    if len(name.encode("utf-8")) > NAME_LIMIT:
        return "is longer than %d bytes" % NAME_LIMIT
    if find_code(name):
        return "has an error code in it, which could not be told from one that ppin prints"
    return None


class Slot(t.NamedTuple):
    """A slot of an HSM. `hsm` and `slot` are the keys in primus.cfg, such as hsm0 and slot0; host and port as there."""

    hsm: str
    user_name: str
    slot_id: t.Optional[int]
    proxy_user: t.Optional[str]
    slot: str = ""
    host: str = ""
    port: str = ""


def read_slots(text: str, path: t.Optional[str] = None) -> t.List[Slot]:
    """Return the slots of a primus.cfg, in its order.

    :arg path: the file that the text is in, for files that it includes.
    :raises LibconfigError: when it cannot be parsed, or a slot depends on the version of libconfig.
    """
    slots = []
    hsms = _setting(_setting(read(text, path), "primus", Group), "hsms", Group)
    for key in hsms:
        hsm = _typed_value(hsms, key, Group, "an HSM")
        host, port = str(hsm.get("host", "")), str(hsm.get("port", ""))  # only to be compared with what ppin prints
        slots_there = _setting(hsm, "slots", Group, Group(hsm.location))
        for name in slots_there:
            settings = _typed_value(slots_there, name, Group, "a slot")
            user_name, slot_id = _setting(settings, "user_name", str), _setting(settings, "id", int, None)
            proxy_user = _setting(settings, "proxy_user", str, None)
            slots.append(Slot(key, user_name, slot_id, proxy_user or None, name, host, port))
    return slots


_REQUIRED = object()
_TYPE_NAMES = {Group: "a group", str: "a string", int: "an integer"}


def _setting(group: Group, name: str, kind: t.Type[t.Any], default: t.Any = _REQUIRED) -> t.Any:
    if name not in group:
        if default is _REQUIRED:
            raise LibconfigError(group.location, "there is no setting %s in this group" % name)
        return default
    return _typed_value(group, name, kind, name)


def _typed_value(group: Group, name: str, kind: t.Type[t.Any], what: str) -> t.Any:
    value = group[name]
    if value is AMBIGUOUS:
        raise LibconfigError(group.locations[name], "the value of %s depends on the version of libconfig" % what)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise LibconfigError(group.locations[name], "%s is not %s" % (what, _TYPE_NAMES[kind]))
    return value


def find_passwords(text: str, path: t.Optional[str] = None) -> t.List[str]:
    """Return the settings of a primus.cfg that hold a password, such as `primus.hsms.hsm0.pin`, without their values.

    These are the vendor's, and any other setting with "password" in its name. Included files count.

    :arg path: as for read_slots.
    :raises LibconfigError: when it cannot be parsed.
    """
    return [place for place, _value in _passwords_in(read(text, path), "")]


def password_values(text: str, path: t.Optional[str] = None) -> t.Set[str]:
    """Return the values of these settings, for redaction. :raises LibconfigError: when it cannot be parsed."""
    return {str(value) for _place, value in _passwords_in(read(text, path), "") if not isinstance(value, bool)}


def _passwords_in(value: t.Any, path: str) -> t.Iterator[t.Tuple[str, t.Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            place = (path + "." if path else "") + name
            if not isinstance(inner, (dict, list)) and inner != "" and _PASSWORD.fullmatch(name):
                yield place, inner
            yield from _passwords_in(inner, place)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _passwords_in(inner, "%s[%d]" % (path, number))


def hide_passwords(text: str) -> t.Optional[str]:
    """Return the text of a primus.cfg with passwords hidden, for a diff, or None when it cannot be parsed.

    Only the values of SHOWN_SETTINGS are kept. All other values, and comments, may hold a password.
    """
    try:
        found = pieces(text)
    except LibconfigError:
        return None
    tokens = [piece.text for piece in found if piece.kind not in ("comment", "space", "include")]
    following = iter(tokens[1:] + [b""])
    shown = []
    name, documented = "", [True]  # the last setting, and for each open group or list whether it is documented
    for kind, content in found:
        if kind == "comment":
            content = (
                content
                if content == MANAGED_COMMENT.encode("ascii")
                else _HIDDEN_COMMENTS.get(content[:2], b"# ********")
            )
        elif kind not in ("space", "include"):
            after = next(following)
            if kind == "name" and after in (b"=", b":"):
                name = content.decode("ascii")
            elif kind != "sign":
                content = content if documented[-1] and name in SHOWN_SETTINGS else HIDDEN_VALUE
            elif content in (b"{", b"(", b"["):
                documented.append(documented[-1] and content == b"{" and bool(_GROUPS.fullmatch(name)))
            elif content in (b"}", b")", b"]"):
                documented.pop()
        shown.append(content)
    return b"".join(shown).decode("utf-8", "replace")


def read_secret_users(text: str) -> t.List[str]:
    """Return the partitions whose permanent secrets are in a secrets file.

    :raises LibconfigError: when it cannot be parsed.
    """
    settings = read(text)
    primus = _setting(settings, "primus", Group, Group(settings.location))
    users = _setting(primus, "users", Group, Group(settings.location))
    return [_setting(_typed_value(users, key, Group, "a user"), "name", str) for key in users]


def secret_entries(content: bytes) -> t.Dict[str, bytes]:
    """Return the entries of a secrets file by name, in a canonical form to compare. {} when it cannot be parsed.

    Only the group `users` is documented, so every group that has a `name` counts.
    """
    found: t.Dict[str, t.List[str]] = {}
    try:
        _collect_entries(read(content.decode("utf-8")), found)
        entries = {name: json.dumps(sorted(groups)) for name, groups in found.items()}
    except (ValueError, TypeError):  # TypeError: an AMBIGUOUS value
        return {}
    # Bytes that are not UTF-8 were replaced, so such entries cannot be compared.
    return {name: entry.encode("ascii") for name, entry in entries.items() if "\\ufffd" not in entry}


def _collect_entries(value: t.Any, found: t.Dict[str, t.List[str]]) -> None:
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        found.setdefault(value["name"], []).append(json.dumps(value, sort_keys=True))
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            _collect_entries(inner, found)


class SecretsString(t.NamedTuple):
    """A secrets file in base64, on one line, and the partitions that have a permanent secret in it."""

    text: str
    users: t.List[str]


def find_secrets_string(text: str) -> t.Optional[SecretsString]:
    """Find a secrets string in a text, on one line or several. Return None when there is none."""
    runs = [""]
    for raw_line in printable(text).splitlines():
        line = raw_line.strip()
        if _BASE64.match(line):
            runs[-1] += line
        elif runs[-1]:
            runs.append("")
    for run in sorted(runs, key=len, reverse=True):
        try:
            users = read_secret_users(base64.b64decode(run, validate=True).decode("utf-8"))
        except ValueError:
            continue
        if users:
            return SecretsString(run, users)
    return None
