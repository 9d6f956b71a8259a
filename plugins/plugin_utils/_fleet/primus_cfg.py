# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Makes primus.cfg from data, and tells what is wrong with the data.

One table per dictionary says which keys there are and what each takes. No password ever becomes part of a primus.cfg or
of a sentence: values are shown only where they are numbers or names.
"""

from __future__ import annotations

import re
import typing as t
import unicodedata
from collections.abc import Mapping, Sequence

from ansible.module_utils.common.collections import is_string
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.hsmops.primus.plugins.module_utils._client.primus_cfg import (
    MANAGED,
    NAME_LIMIT,
    name_problem,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.passwords import (
    SETUP_FORM,
    has_setup_password_form,
    password_problem,
)

DEFAULT_PORT = "2310"
INT_MAX = 2**31 - 1
"""libconfig's integers have 32 bits."""
STATES = ("present", "updated", "absent")

HEADER = MANAGED + '\nversion = "1.0";\n'

Found = t.List[str]
Reader = t.Callable[[t.Any], t.Any]


class Settings(t.NamedTuple):
    """What a primus.cfg is made of, checked and with every value in its own type.

    :ivar primus: the integers and booleans of the group C(primus).
    :ivar hsms: key, host, port (a string) and, if given, priority.
    :ivar partitions: user_name, slot_id (a list), on (the places of its HSMs in hsms), state, proxy_users (the names of
        all of its service users), and, if given, client_id and proxy_user, each a dictionary from the place of an HSM
        to the value there.
    """

    primus: t.Dict[str, t.Any]
    hsms: t.List[t.Dict[str, t.Any]]
    partitions: t.List[t.Dict[str, t.Any]]
    log: t.Dict[str, t.Any]


# What a value may be. Each returns the value in its own type or raises ValueError with the end of a sentence.


def _text(value: t.Any) -> str:
    if not is_string(value):  # vaulted strings are no str in every version of Ansible
        raise ValueError("is not a string")
    text = str(value)
    if any(char == "\0" or unicodedata.category(char) == "Cs" for char in text):
        raise ValueError("has a character in it that libconfig cannot hold")
    return text


def _name(value: t.Any) -> str:
    name = _text(value)
    problem = name_problem(name)
    if problem:
        raise ValueError(problem)
    return name


def _host(value: t.Any) -> str:
    host = _name(value)
    if any(char.isspace() for char in host):
        raise ValueError("has white space in it")
    return host


def _key(value: t.Any) -> str:
    key = _text(value)
    if not re.fullmatch(r"hsm(0|[1-9][0-9]{0,5})", key, re.A):
        raise ValueError("is not hsm and a number, such as hsm3")
    return key


def _integer(low: int, high: int) -> t.Callable[[t.Any], int]:
    def read(value: t.Any) -> int:
        # Templates make strings of numbers, depending on the version of Ansible.
        text = str(value) if is_string(value) or isinstance(value, int) else ""
        if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,20}|0[xX][0-9A-Fa-f]{1,8}", text, re.A):
            raise ValueError("is not an integer")
        number = int(text, 16 if text[1:2] in ("x", "X") else 10)
        if not low <= number <= high:
            raise ValueError("is %d, which is not in %d to %d" % (number, low, high))
        return number

    return read


def _port(value: t.Any) -> str:
    return str(_integer(1, 65535)(value))


def _flag(value: t.Any) -> bool:
    try:
        return bool(boolean(value))
    except TypeError:
        raise ValueError("is not a boolean") from None


def _state(value: t.Any) -> str:
    if value not in STATES:
        raise ValueError("is none of %s" % ", ".join(STATES))
    return str(value)


def _list(value: t.Any) -> t.List[t.Any]:
    if is_string(value) or not isinstance(value, Sequence):
        raise ValueError("is not a list")
    return list(value)


def _dictionary(value: t.Any) -> t.Dict[t.Any, t.Any]:
    if not isinstance(value, Mapping):
        raise ValueError("is not a dictionary")
    return dict(value)


def _several(read: Reader) -> t.Callable[[t.Any], t.List[t.Any]]:
    def read_all(value: t.Any) -> t.List[t.Any]:
        values = [read(item) for item in _list(value)]
        if not values:
            raise ValueError("is an empty list")
        if len(set(values)) < len(values):
            raise ValueError("has the same value twice")
        return values

    return read_all


def _by_hsm(read: Reader) -> Reader:
    """A value, or a dictionary from HSMs to such values, of which those that are null are left out."""

    def read_each(value: t.Any) -> t.Any:
        if not isinstance(value, Mapping):
            return read(value)
        if not value:
            raise ValueError("is an empty dictionary")
        values, problems = {}, []
        for name, item in value.items():
            try:
                _name(name)
            except ValueError as exc:
                problems.append("has a name of an HSM that %s" % exc)
                continue
            try:
                values[str(name)] = None if item is None else read(item)
            except ValueError as exc:
                problems.append("of %r %s" % (str(name), exc))
        if problems:
            raise ValueError(*problems)
        return values

    return read_each


_slot_id = _integer(0, INT_MAX)


def _slot_ids(value: t.Any) -> t.List[int]:
    if is_string(value) or not isinstance(value, Sequence):
        return [_slot_id(value)]
    return _several(_slot_id)(value)


def _password(value: t.Any) -> t.Any:
    """The value as it is: str() of a vaulted one decrypts it, which _judge_passwords does where it is needed."""
    if not is_string(value):
        raise ValueError("is not a string")
    return value


# Which keys there are.

_PRIMUS: t.Dict[str, Reader] = {
    "wait_delay": _integer(0, INT_MAX),
    "wait_max_tries": _integer(0, INT_MAX),
    "connect_on_init": _flag,
}
_TOP: t.Dict[str, Reader] = {**_PRIMUS, "hsms": _list, "partitions": _list, "log": _dictionary}
_HSM: t.Dict[str, Reader] = {"key": _key, "host": _host, "port": _port, "priority": _integer(0, 127)}
_PARTITION: t.Dict[str, Reader] = {
    "user_name": _name,
    "slot_id": _slot_ids,
    "client_id": _by_hsm(_text),
    "proxy_user": _by_hsm(_name),
    "hsms": _several(_name),
    "state": _state,
    "setup_password": _password,
    "pkcs11_password": _password,
}
_SERVICE_USER: t.Dict[str, Reader] = {"name": _name, "password": _password, "state": _state}
_LOG: t.Dict[str, Reader] = {
    "file": _text,
    "write_log_file": _flag,
    "write_syslog": _flag,
    "trace_linenumber": _flag,
    "trace_timestamp": _flag,
    "trace_function": _flag,
    "trace_inout": _flag,
    "trace_pid": _flag,
    "trace_filename": _flag,
    "trace_mask": _integer(0, 7),
    "trace_level": _integer(0, 7),
}
_IN_CLEAR = {
    "pin": "give the setup password as setup_password of the partition, it goes to .secrets.cfg",
    "proxy_password": "give it as password of the service user, it goes to .secrets.cfg",
}


def _read(found: Found, where: str, value: t.Any, table: t.Mapping[str, Reader]) -> t.Dict[str, t.Any]:
    """The good values of a dictionary, those that are null left out. Adds a sentence for each that is not good."""
    good: t.Dict[str, t.Any] = {}
    if not isinstance(value, Mapping):
        found.append("%s is not a dictionary." % where)
        return good
    for key, item in value.items():
        if key in table:
            try:
                if item is not None:
                    good[key] = table[key](item)
            except ValueError as exc:
                found.extend("%s: %s %s." % (where, key, problem) for problem in exc.args)
        elif key in _IN_CLEAR:
            found.append("%s: %s in clear is never written to primus.cfg; %s." % (where, key, _IN_CLEAR[key]))
        else:
            known = ", ".join(table)
            found.append("%s: there is no setting %r; there are %s." % (where, str(key)[:NAME_LIMIT], known))
    return good


def _need(found: Found, where: str, value: t.Any, *keys: str) -> None:
    if isinstance(value, Mapping):
        found.extend("%s: %s is missing." % (where, key) for key in keys if value.get(key) is None)


def _where(kind: str, number: int, value: t.Any, naming: str, read: Reader = _name) -> str:
    """How sentences call an entry of a list: by its place, and by its name where it has one."""
    try:
        return "%s[%d] %r" % (kind, number, read(value[naming]))
    except (ValueError, KeyError, TypeError, IndexError):
        return "%s[%d]" % (kind, number)


def _twice(found: Found, places: t.Iterable[t.Tuple[t.Any, str]], what: str) -> None:
    """Adds a sentence for each value that stands at several places."""
    by_value: t.Dict[t.Any, t.List[str]] = {}
    for value, where in places:
        by_value.setdefault(value, []).append(where)
    for value, wheres in by_value.items():
        if len(wheres) > 1:
            found.append("%s %r is used by %s." % (what, value, " and ".join(wheres)))


def read_settings(settings: t.Any) -> t.Tuple[Settings, t.List[str]]:
    """The settings, and a sentence for everything that is wrong with them. They are usable only without sentences."""
    found: Found = []
    top = _read(found, "settings", settings, _TOP)
    hsms = _read_hsms(found, top.get("hsms", []))
    partitions = _read_partitions(found, top.get("partitions", []), hsms)
    for key, what in (("hsms", "HSM"), ("partitions", "partition")):
        if isinstance(settings, Mapping) and not settings.get(key):
            found.append("%s: there is no %s." % (key, what))
    if partitions and all("on" in partition for partition in partitions):
        used = set().union(*(partition["on"] for partition in partitions))
        found.extend("hsms[%d]: no partition is on it." % i for i in range(len(hsms)) if i not in used)
    primus = {key: top[key] for key in _PRIMUS if key in top}
    log = _read(found, "log", top.get("log", {}), _LOG)
    return Settings(primus, hsms, partitions, log), found


def _read_hsms(found: Found, values: t.List[t.Any]) -> t.List[t.Dict[str, t.Any]]:
    hsms = []
    places = []
    keys = []
    for i, value in enumerate(values):
        where = _where("hsms", i, value, "host", _host)
        hsm = _read(found, where, value, _HSM)
        _need(found, where, value, "host")
        if isinstance(value, Mapping) and value.get("port") is None:
            hsm["port"] = DEFAULT_PORT
        if "host" in hsm and "port" in hsm:
            places.append((_address(hsm).lower(), "hsms[%d]" % i))
        if not isinstance(value, Mapping) or value.get("key") is None:
            hsm["key"] = "hsm%d" % i
        if "key" in hsm:
            keys.append((hsm["key"], "hsms[%d]" % i))
        hsms.append(hsm)
    _twice(found, places, "The address")
    _twice(found, keys, "The key")
    return hsms


def _address(hsm: t.Mapping[str, t.Any]) -> str:
    """Host and port, or what is good of them."""
    return ":".join(hsm[key] for key in ("host", "port") if key in hsm)


def _read_partitions(
    found: Found, values: t.List[t.Any], hsms: t.List[t.Dict[str, t.Any]]
) -> t.List[t.Dict[str, t.Any]]:
    partitions = []
    names = []
    slot_ids: t.List[t.Tuple[int, str]] = []
    for i, value in enumerate(values):
        where = _where("partitions", i, value, "user_name")
        partition = _read(found, where, value, _PARTITION)
        partition.setdefault("state", "present")
        absent = partition["state"] == "absent"
        _need(found, where, value, "user_name", *([] if absent else ["slot_id"]))
        partition.setdefault("slot_id", [])
        if "user_name" in partition:
            names.append((partition["user_name"], "partitions[%d]" % i))
        if not absent:
            slot_ids.extend((slot_id, where) for slot_id in partition["slot_id"])
        if "hsms" in partition:
            named = _places(found, where, partition["hsms"], hsms)
            partition["on"] = set().union(*named.values())
        elif not isinstance(value, Mapping) or value.get("hsms") is None:
            partition["on"] = set(range(len(hsms)))
        partition["proxy_users"] = proxy_users(partition)
        for key in ("client_id", "proxy_user"):
            if key in partition:
                on = partition.get("on", set(range(len(hsms))))
                partition[key] = _at(found, "%s: %s" % (where, key), partition[key], on, hsms)
        partitions.append(partition)
    _twice(found, names, "The partition")
    _twice(found, slot_ids, "The slot id")
    return partitions


def _places(
    found: Found, where: str, names: t.Iterable[str], hsms: t.List[t.Dict[str, t.Any]]
) -> t.Dict[str, t.Set[int]]:
    """By name, the places of the HSMs that it means: those with this host, else with this host:port, else this key."""
    places: t.Dict[str, t.Set[int]] = {}
    for name in names:
        for called in (lambda hsm: hsm.get("host"), _address, lambda hsm: hsm.get("key")):
            places[name] = {i for i, hsm in enumerate(hsms) if called(hsm) == name}
            if places[name]:
                break
        else:
            keys = [" (%s)" % hsm["key"] if "key" in hsm else "" for hsm in hsms]
            known = ", ".join("%r%s" % (_address(hsm), key) for hsm, key in zip(hsms, keys) if "host" in hsm)
            found.append("%s: there is no HSM %r; there are %s." % (where, name, known or "none"))
    return places


def _at(
    found: Found, where: str, value: t.Any, on: t.Set[int], hsms: t.List[t.Dict[str, t.Any]]
) -> t.Dict[int, t.Optional[str]]:
    """A setting of a partition by the place of the HSM, of one value or a dictionary from names of HSMs to values."""
    if not isinstance(value, dict):
        return dict.fromkeys(on, value)
    values: t.Dict[int, t.Optional[str]] = {}
    names: t.Dict[int, t.List[str]] = {}
    for name, places in _places(found, where, value, hsms).items():
        if not places <= on:
            found.append("%s: the partition is not on the HSM %r." % (where, name))
        for place in places:
            values[place] = value[name]
            names.setdefault(place, []).append(name)
    for place, several in names.items():
        if len(several) > 1:
            called = " and ".join("%r" % name for name in several)
            found.append("%s: %s are the same HSM, hsms[%d]." % (where, called, place))
    return {place: item for place, item in values.items() if item is not None}


def proxy_users(partition: t.Mapping[str, t.Any]) -> t.List[str]:
    """The service users before a partition, whose proxy_user is a name or a dictionary from HSMs to names."""
    value = partition.get("proxy_user")
    names = value.values() if isinstance(value, Mapping) else [value]
    return list(dict.fromkeys(name for name in names if name))


def _judge_passwords(found: Found, where: str, entry: t.Mapping[str, t.Any], format_check: bool) -> None:
    """Adds a sentence for each password that cannot be used. What is absent needs none."""
    if entry.get("state") == "absent":
        return
    for key in ("setup_password", "pkcs11_password", "password"):
        if key not in entry:
            continue
        password = str(entry[key])
        problem = password_problem(password)
        if problem:
            found.append("%s: %s %s." % (where, key, problem))
        elif key == "setup_password" and format_check and not has_setup_password_form(password):
            found.append(
                "%s: setup_password does not have the form of a setup password (%s). If your device makes others, set "
                "setup_password_format_check to false." % (where, SETUP_FORM)
            )


def violations(
    settings: t.Any,
    service_users: t.Optional[t.Any] = None,
    require_passwords: bool = True,
    setup_password_format_check: bool = True,
) -> t.List[str]:
    """What is wrong with the settings, in sentences without secrets; empty when nothing is.

    :arg service_users: a list of name, password and state; None: nothing is known of them.
    :arg require_passwords: whether a service user that stands before a partition needs its password.
    :arg setup_password_format_check: whether a setup password must have the documented form.
    """
    read, found = read_settings(settings)
    for i, partition in enumerate(read.partitions):
        where = _where("partitions", i, partition, "user_name")
        _judge_passwords(found, where, partition, setup_password_format_check)
    if service_users is None:
        return found
    try:
        values = _list(service_users)
    except ValueError as exc:
        return [*found, "service_users %s." % exc]
    users: t.Dict[str, t.Dict[str, t.Any]] = {}
    names = []
    for i, value in enumerate(values):
        where = _where("service_users", i, value, "name")
        user = _read(found, where, value, _SERVICE_USER)
        _need(found, where, value, "name")
        _judge_passwords(found, where, user, False)
        if "name" in user:
            user["given"] = value.get("password") is not None
            users[user["name"]] = user
            names.append((user["name"], "service_users[%d]" % i))
    _twice(found, names, "The service user")
    for partition in read.partitions:
        for name in partition["proxy_users"] if partition["state"] != "absent" else []:
            before = "The service user %r, who stands before the partition %r," % (name, partition.get("user_name"))
            if name not in users:
                found.append("%s is not in service_users." % before)
            elif users[name].get("state") == "absent":
                found.append("%s is absent in service_users." % before)
            elif require_passwords and not users[name]["given"]:
                found.append("%s has no password in service_users." % before)
    return found


# The file


def render(settings: t.Any, absent: t.Optional[t.Collection[str]] = ()) -> str:
    """The text of primus.cfg.

    :arg absent: the partitions to list though their state is absent, as ppin needs that to remove their secret; None
        for all of them.
    :raises ValueError: with all that is wrong with the settings.
    """
    read, found = read_settings(settings)
    if found:
        raise ValueError(" ".join(found))
    slots = [(p, i) for p in read.partitions if p["state"] != "absent" for i in p["slot_id"]]
    kept = [p for p in read.partitions if p["state"] == "absent" and (absent is None or p["user_name"] in absent)]
    slots += _absent_slots(kept, {slot_id for _partition, slot_id in slots})
    hsms = {hsm["key"]: _hsm(hsm, i, [slot for slot in slots if i in slot[0]["on"]]) for i, hsm in enumerate(read.hsms)}
    log = {key: read.log[key] for key in _LOG if key in read.log}
    if "trace_mask" in log:
        log["trace_mask"] = _Hex(log["trace_mask"])
    primus = {**read.primus, "hsms": hsms, **({"log": log} if log else {})}
    return "%s\nprimus : {\n%s};\n" % (HEADER, _group(primus, "  "))


_Slots = t.List[t.Tuple[t.Dict[str, t.Any], int]]


def _absent_slots(partitions: t.List[t.Dict[str, t.Any]], taken: t.Set[int]) -> _Slots:
    """The slots of what is to be removed: their ids may have been left out or given to others by now."""
    slots: _Slots = []
    for partition in partitions:
        free = next(i for i in range(len(taken) + 1) if i not in taken)
        for slot_id in [i for i in partition["slot_id"] if i not in taken] or [free]:
            slots.append((partition, slot_id))
            taken.add(slot_id)
    return slots


def _hsm(hsm: t.Dict[str, t.Any], place: int, slots: _Slots) -> t.Dict[str, t.Any]:
    return {
        **{key: hsm[key] for key in ("host", "port", "priority") if key in hsm},
        "slots": {"slot%d" % i: _slot(partition, place, slot_id) for i, (partition, slot_id) in enumerate(slots)},
    }


def _slot(partition: t.Dict[str, t.Any], place: int, slot_id: int) -> t.Dict[str, t.Any]:
    slot = {
        "client_id": partition.get("client_id", {}).get(place),
        "user_name": partition["user_name"],
        "proxy_user": partition.get("proxy_user", {}).get(place),
        "id": slot_id,
    }
    return {key: value for key, value in slot.items() if value is not None}


class _Hex(int):
    """An integer that is written in hexadecimal digits."""


def _group(settings: t.Mapping[str, t.Any], indent: str) -> str:
    lines = []
    for key, value in settings.items():
        if isinstance(value, dict):
            lines.append("%s%s : {\n%s%s};\n" % (indent, key, _group(value, indent + "  "), indent))
        else:
            lines.append("%s%s = %s;\n" % (indent, key, _scalar(value)))
    return "".join(lines)


def _scalar(value: t.Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Hex):
        return "0x%02X" % value
    return str(value) if isinstance(value, int) else quote(value)


def quote(text: str) -> str:
    """A libconfig string. Control characters are written as C(\\xHH), everything else as it is, in UTF-8 in the end."""
    return '"%s"' % re.sub(r'[\\"\x00-\x1f\x7f]', _escape, text)


def _escape(match: t.Match[str]) -> str:
    char = match.group()
    return "\\" + char if char in '\\"' else "\\x%02X" % ord(char)
