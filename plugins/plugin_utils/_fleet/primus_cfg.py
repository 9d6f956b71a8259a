# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Validate the settings of a client, and render primus.cfg.

A table for each dictionary has its keys and the reader of each value. No password is ever written to primus.cfg or to a
violation: only numbers and names are shown.
"""

from __future__ import annotations

import datetime
import re
import typing as t
import unicodedata
from collections.abc import Mapping, Sequence

from ansible.errors import AnsibleError
from ansible.module_utils.common.collections import is_string
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import (
    MANAGED_COMMENT,
    NAME_LIMIT,
    invalid_name_reason,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.passwords import (
    SETUP_FORM,
    has_setup_password_form,
    invalid_password_reason,
)

DEFAULT_PORT = "2310"
INT_MAX = 2**31 - 1
"""The largest integer of libconfig, which has 32 bits."""
STATES = ("present", "updated", "absent")

HEADER = MANAGED_COMMENT + '\nversion = "1.0";\n'

Reader = t.Callable[[t.Any], t.Any]
Data = t.Dict[str, t.Any]

PASSWORDS = ("setup_password", "pkcs11_password", "password")


class Violation(t.NamedTuple):
    """An invalid value in a variable. str() returns a sentence.

    :ivar where: the variable and the place in it, such as `primus_client_partitions[0].slot_id ('PARTITION1')`.
    :ivar what: the reason, such as `is missing`.
    :ivar fix: what to do, such as `put it in quotes`; may be empty.
    """

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return "%s %s%s." % (self.where, self.what, self.fix and "; " + self.fix)


Violations = t.List[Violation]


class Settings(t.NamedTuple):
    """The settings of a primus.cfg, validated, with every value in its type.

    :ivar primus: the integers and booleans of the group `primus`.
    :ivar hsms: key, host, port (a string) and, if given, priority.
    :ivar partitions: user_name, slot_id (a list), on (the indexes of its HSMs in hsms), state, proxy_users (the names
        of all of its service users), given (the validated values as the user wrote them), and, if given, client_id and
        proxy_user, each a dictionary from the index of an HSM to the value there.
    """

    primus: Data
    hsms: t.List[Data]
    partitions: t.List[Data]
    log: Data


class Checked(t.NamedTuple):
    """The validated data of a client, in the form in which users write them.

    :ivar settings: of primus.cfg, without passwords.
    :ivar partitions: those of settings, with a boolean in place of each password: whether it is given.
    :ivar service_users: name, state and password (a boolean). None: the service users are not known.
    """

    settings: Data
    partitions: t.List[Data]
    service_users: t.Optional[t.List[Data]]
    violations: t.List[Violation]


# Readers. Each returns a value in its type, or raises InvalidValue or InvalidValues.


class InvalidValue(ValueError):
    """A value is invalid. what, fix: as in Violation; inner: the place in the value, such as `[2]`."""

    def __init__(self, what: str, fix: str = "", inner: str = "") -> None:
        super().__init__(what)
        self.what, self.fix, self.inner = what, fix, inner


class InvalidValues(ValueError):
    def __init__(self, errors: t.Sequence[InvalidValue]) -> None:
        super().__init__(*errors)
        self.errors = errors


_QUOTES = "put it in quotes, or use | string"


def _not_a_string(value: t.Any) -> InvalidValue:
    """Return the error for a value that YAML without quotes, or native Jinja, has converted to another type."""
    for kind, what in ((bool, "a boolean"), ((int, float), "a number"), (datetime.date, "a date")):
        if isinstance(value, kind):
            return InvalidValue("is %s" % what, _QUOTES)
    return InvalidValue("is not a string")


def _decrypted(value: t.Any) -> str:
    """Return a string that may be encrypted with Ansible Vault."""
    try:
        return str(value)
    except AnsibleError:  # its message is not shown, as it may have the path of a file
        raise InvalidValue("cannot be decrypted", "give the password of its vault") from None


def read_text(value: t.Any) -> str:
    """Read a text. An integer becomes its digits, because a name may consist of digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(int(value))
    if not is_string(value):  # in some versions of Ansible, a vaulted string is not a str
        raise _not_a_string(value)
    text = _decrypted(value)
    if any(char == "\0" or unicodedata.category(char) == "Cs" for char in text):
        raise InvalidValue("has a character in it that libconfig cannot hold")
    return text


def read_name(value: t.Any) -> str:
    name = read_text(value)
    reason = invalid_name_reason(name)
    if reason:
        raise InvalidValue(reason)
    return name


def _host(value: t.Any) -> str:
    host = read_name(value)
    if any(char.isspace() for char in host):
        raise InvalidValue("has white space in it")
    return host


def _hsm_key(value: t.Any) -> str:
    key = read_text(value)
    if not re.fullmatch(r"hsm(0|[1-9][0-9]{0,5})", key, re.A):
        raise InvalidValue("is not hsm and a number, such as hsm3")
    return key


def read_integer(low: int, high: int) -> t.Callable[[t.Any], int]:
    def read(value: t.Any) -> int:
        # Depending on the version of Ansible, templates return numbers as strings.
        text = _decrypted(value) if is_string(value) or isinstance(value, int) else ""
        if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,20}|0[xX][0-9A-Fa-f]{1,8}", text, re.A):
            raise InvalidValue("is not an integer")
        number = int(text, 16 if text[1:2] in ("x", "X") else 10)
        if not low <= number <= high:
            raise InvalidValue("is %d, which is not in %d to %d" % (number, low, high))
        return number

    return read


def _port_number(value: t.Any) -> str:
    return str(read_integer(1, 65535)(value))


def read_flag(value: t.Any) -> bool:
    try:
        return bool(boolean(_decrypted(value) if is_string(value) else value))
    except TypeError:
        raise InvalidValue("is not a boolean") from None


def read_choice(*choices: str) -> Reader:
    def read(value: t.Any) -> str:
        text = _decrypted(value) if is_string(value) else ""
        if text not in choices:
            raise InvalidValue("is none of %s" % ", ".join(choices))
        return text

    return read


read_state = read_choice(*STATES)


def read_list(value: t.Any) -> t.List[t.Any]:
    if is_string(value) or not isinstance(value, Sequence):
        raise InvalidValue("is not a list")
    return list(value)


def read_dictionary(value: t.Any) -> t.Dict[t.Any, t.Any]:
    if not isinstance(value, Mapping):
        raise InvalidValue("is not a dictionary")
    return dict(value)


def read_several(read: Reader, empty: bool = False) -> t.Callable[[t.Any], t.List[t.Any]]:
    """Return a reader of a list of such values without duplicates. empty: whether the list may be empty."""

    def read_all(value: t.Any) -> t.List[t.Any]:
        values, errors = [], []
        for i, item in enumerate(read_list(value)):
            try:
                values.append(read(item))
            except InvalidValue as exc:
                errors.append(InvalidValue(exc.what, exc.fix, "[%d]%s" % (i, exc.inner)))
        if errors:
            raise InvalidValues(errors)
        if not values and not empty:
            raise InvalidValue("is an empty list")
        if len(set(values)) < len(values):
            raise InvalidValue("has the same value twice")
        return values

    return read_all


def _by_hsm(read: Reader) -> Reader:
    """Return a reader of a value, or of a dictionary from HSMs to such values, which may be null."""

    def read_each(value: t.Any) -> t.Any:
        if not isinstance(value, Mapping):
            return read(value)
        if not value:
            raise InvalidValue("is an empty dictionary")
        values, errors = {}, []
        for name, item in value.items():
            try:
                hsm = read_name(name)
            except InvalidValue as exc:
                errors.append(InvalidValue("has a name of an HSM that %s" % exc.what, exc.fix))
                continue
            try:
                values[hsm] = None if item is None else read(item)
            except InvalidValue as exc:
                errors.append(InvalidValue(exc.what, exc.fix, "[%r]" % hsm))
        if errors:
            raise InvalidValues(errors)
        return values

    return read_each


_slot_id = read_integer(0, INT_MAX)


def _slot_ids(value: t.Any) -> t.List[int]:
    if is_string(value) or not isinstance(value, Sequence):
        return [_slot_id(value)]
    return read_several(_slot_id)(value)


def _encrypted_password(value: t.Any) -> t.Any:
    """Return the value unchanged. str() would decrypt it, which _check_passwords does only where it is needed."""
    if not is_string(value):
        raise _not_a_string(value)
    return value


# Tables of keys.

_PRIMUS_KEYS: t.Dict[str, Reader] = {
    "wait_delay": read_integer(0, INT_MAX),
    "wait_max_tries": read_integer(0, INT_MAX),
    "connect_on_init": read_flag,
}
_TOP_KEYS: t.Dict[str, Reader] = {**_PRIMUS_KEYS, "hsms": read_list, "partitions": read_list, "log": read_dictionary}
_HSM_KEYS: t.Dict[str, Reader] = {
    "key": _hsm_key,
    "host": _host,
    "port": _port_number,
    "priority": read_integer(0, 127),
}
_PARTITION_KEYS: t.Dict[str, Reader] = {
    "user_name": read_name,
    "slot_id": _slot_ids,
    "client_id": _by_hsm(read_text),
    "proxy_user": _by_hsm(read_name),
    "hsms": read_several(read_name),
    "state": read_state,
    "setup_password": _encrypted_password,
    "pkcs11_password": _encrypted_password,
}
_SERVICE_USER_KEYS: t.Dict[str, Reader] = {"name": read_name, "password": _encrypted_password, "state": read_state}
_LOG_KEYS: t.Dict[str, Reader] = {
    "file": read_text,
    "write_log_file": read_flag,
    "write_syslog": read_flag,
    "trace_linenumber": read_flag,
    "trace_timestamp": read_flag,
    "trace_function": read_flag,
    "trace_inout": read_flag,
    "trace_pid": read_flag,
    "trace_filename": read_flag,
    "trace_mask": read_integer(0, 7),
    "trace_level": read_integer(0, 7),
}
_PASSWORD_SETTINGS = {
    "pin": "give the setup password as setup_password of the partition, it goes to .secrets.cfg",
    "proxy_password": "give it as password of the service user, it goes to .secrets.cfg",
}


class Place(t.NamedTuple):
    """The place of a dictionary in the variables, for violations: `path[0] ('NAME')`, `path[0].key ('NAME')`."""

    path: str
    name: str = ""
    root: bool = False  # the variables themselves: the path is the prefix of their names

    def __str__(self) -> str:
        return (self.path or "settings") + self._name_suffix

    @property
    def _name_suffix(self) -> str:
        return " (%r)" % self.name if self.name else ""

    def of(self, key: str, inner: str = "") -> str:
        return "%s%s%s%s%s" % (self.path, "" if self.root else ".", key, inner, self._name_suffix)


def _list_entry(path: str, number: int, value: t.Any, naming: str, read: Reader = read_name) -> Place:
    """Return the place of an entry of a list, with the name of the entry if it has a valid one."""
    try:
        return Place("%s[%d]" % (path, number), read(value[naming]))
    except (ValueError, KeyError, TypeError, IndexError):
        return Place("%s[%d]" % (path, number))


def read_table(violations: Violations, place: Place, value: t.Any, table: t.Mapping[str, Reader]) -> Data:
    """Return the valid values of a dictionary, without those that are null. Adds violations for the others."""
    good: Data = {}
    if not isinstance(value, Mapping):
        violations.append(Violation(str(place), "is not a dictionary"))
        return good
    for key, item in value.items():
        if key in table:
            try:
                if item is not None:
                    good[str(key)] = table[key](item)
            except InvalidValue as exc:
                violations.append(Violation(place.of(key, exc.inner), exc.what, exc.fix))
            except InvalidValues as exc:
                violations.extend(Violation(place.of(key, error.inner), error.what, error.fix) for error in exc.errors)
        elif key in _PASSWORD_SETTINGS:
            what = "is a password in plaintext, which is never written to primus.cfg"
            violations.append(Violation(place.of(key), what, _PASSWORD_SETTINGS[key]))
        else:
            known = "there are %s" % ", ".join(table)
            violations.append(Violation(str(place), "has no setting %r" % str(key)[:NAME_LIMIT], known))
    return good


def _require(violations: Violations, place: Place, value: t.Any, *keys: str) -> None:
    if isinstance(value, Mapping):
        violations.extend(Violation(place.of(key), "is missing") for key in keys if value.get(key) is None)


def _require_unique(violations: Violations, places: t.Iterable[t.Tuple[t.Any, Place]], key: str, what: str) -> None:
    """Add a violation for each place that has the same value as an earlier one."""
    first: t.Dict[t.Any, Place] = {}
    for value, place in places:
        if value in first:
            violations.append(Violation(place.of(key), "is %s%r, the same as that of %s" % (what, value, first[value])))
        first.setdefault(value, place)


def read_settings(
    settings: t.Any, prefix: str = "", renders_config: bool = True
) -> t.Tuple[Settings, t.List[Violation]]:
    """Return the settings, and all violations. The settings are usable only if there are none.

    :arg prefix: the prefix of the variable names, for violations.
    :arg renders_config: whether primus.cfg is rendered from them. False: only names and passwords of partitions count.
    """
    violations: Violations = []
    top = read_table(violations, Place(prefix, root=True), settings, _TOP_KEYS)
    hsms = _read_hsms(violations, prefix + "hsms", top.get("hsms", []))
    partitions = _read_partitions(violations, prefix, top.get("partitions", []), hsms, renders_config)
    if renders_config and isinstance(settings, Mapping):
        violations.extend(
            Violation(prefix + key, "is empty") for key in ("hsms", "partitions") if not settings.get(key)
        )
    if renders_config and partitions and all("on" in partition for partition in partitions):
        used = set().union(*(partition["on"] for partition in partitions))
        unused = [_list_entry(prefix + "hsms", i, hsm, "host") for i, hsm in enumerate(hsms) if i not in used]
        violations.extend(Violation(str(place), "is an HSM that no partition is on") for place in unused)
    primus = {key: top[key] for key in _PRIMUS_KEYS if key in top}
    log = read_table(violations, Place(prefix + "log"), top.get("log", {}), _LOG_KEYS)
    return Settings(primus, hsms, partitions, log), violations


def _read_hsms(violations: Violations, path: str, values: t.List[t.Any]) -> t.List[Data]:
    hsms = []
    addresses = []
    keys = []
    for i, value in enumerate(values):
        place = _list_entry(path, i, value, "host", _host)
        hsm = read_table(violations, place, value, _HSM_KEYS)
        _require(violations, place, value, "host")
        if isinstance(value, Mapping) and value.get("port") is None:
            hsm["port"] = DEFAULT_PORT
        if "host" in hsm and "port" in hsm:
            addresses.append((_address(hsm).lower(), place))
        if not isinstance(value, Mapping) or value.get("key") is None:
            hsm["key"] = "hsm%d" % i
        if "key" in hsm:
            keys.append((hsm["key"], place))
        hsms.append(hsm)
    _require_unique(violations, addresses, "host", "the address ")
    _require_unique(violations, keys, "key", "")
    return hsms


def _address(hsm: t.Mapping[str, t.Any]) -> str:
    """Return host and port, as far as they are valid."""
    return ":".join(hsm[key] for key in ("host", "port") if key in hsm)


def _read_partitions(
    violations: Violations, prefix: str, values: t.List[t.Any], hsms: t.List[Data], renders_config: bool
) -> t.List[Data]:
    partitions = []
    names = []
    slot_ids: t.List[t.Tuple[int, Place]] = []
    for i, value in enumerate(values):
        place = _list_entry(prefix + "partitions", i, value, "user_name")
        partition = read_table(violations, place, value, _PARTITION_KEYS)
        partition.setdefault("state", "present")
        absent = partition["state"] == "absent"
        _require(violations, place, value, "user_name", *(["slot_id"] if renders_config and not absent else []))
        partition["given"] = dict(partition)
        partition.setdefault("slot_id", [])
        if "user_name" in partition:
            names.append((partition["user_name"], Place(place.path)))
        if not absent:
            slot_ids.extend((slot_id, place) for slot_id in partition["slot_id"])
        partition["proxy_users"] = proxy_users(partition)
        if renders_config:
            _place_partition(violations, prefix, place, value, partition, hsms)
        partitions.append(partition)
    _require_unique(violations, names, "user_name", "")
    _require_unique(violations, slot_ids, "slot_id", "")
    return partitions


def _place_partition(
    violations: Violations, prefix: str, place: Place, value: t.Any, partition: Data, hsms: t.List[Data]
) -> None:
    """Find the HSMs that a partition is on, and the values of client_id and proxy_user at each."""
    if "hsms" in partition:
        named = _find_hsms(violations, prefix, place.of("hsms"), partition["hsms"], hsms)
        partition["on"] = set().union(*named.values())
    elif not isinstance(value, Mapping) or value.get("hsms") is None:
        partition["on"] = set(range(len(hsms)))
    for key in ("client_id", "proxy_user"):
        if key in partition:
            on = partition.get("on", set(range(len(hsms))))
            partition[key] = _by_hsm_index(violations, prefix, place.of(key), partition[key], on, hsms)


def _find_hsms(
    violations: Violations, prefix: str, where: str, names: t.Iterable[str], hsms: t.List[Data]
) -> t.Dict[str, t.Set[int]]:
    """Return the indexes of the HSMs that each name means: by host, otherwise by host:port, otherwise by key."""
    places: t.Dict[str, t.Set[int]] = {}
    for name in names:
        for called in (lambda hsm: hsm.get("host"), _address, lambda hsm: hsm.get("key")):
            places[name] = {i for i, hsm in enumerate(hsms) if called(hsm) == name}
            if places[name]:
                break
        else:
            keys = [" (%s)" % hsm["key"] if "key" in hsm else "" for hsm in hsms]
            known = ", ".join("%r%s" % (_address(hsm), key) for hsm, key in zip(hsms, keys) if "host" in hsm)
            what = "names the HSM %r, which is not in %shsms" % (name, prefix)
            violations.append(Violation(where, what, "there are %s" % known if known else ""))
    return places


def _by_hsm_index(
    violations: Violations, prefix: str, where: str, value: t.Any, on: t.Set[int], hsms: t.List[Data]
) -> t.Dict[int, t.Optional[str]]:
    """Return a setting of a partition by the index of the HSM. value: one value, or a dictionary by HSM names."""
    if not isinstance(value, dict):
        return dict.fromkeys(on, value)
    values: t.Dict[int, t.Optional[str]] = {}
    names: t.Dict[int, t.List[str]] = {}
    for name, places in _find_hsms(violations, prefix, where, value, hsms).items():
        if not places <= on:
            violations.append(Violation(where, "names the HSM %r, which the partition is not on" % name))
        for place in places:
            values[place] = value[name]
            names.setdefault(place, []).append(name)
    for place, several in names.items():
        if len(several) > 1:
            called = " and ".join("%r" % name for name in several)
            violations.append(Violation(where, "names %shsms[%d] twice, as %s" % (prefix, place, called)))
    return {place: item for place, item in values.items() if item is not None}


def proxy_users(partition: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return the service users in front of a partition. proxy_user is a name, or a dictionary from HSMs to names."""
    value = partition.get("proxy_user")
    names = value.values() if isinstance(value, Mapping) else [value]
    return list(dict.fromkeys(name for name in names if name))


def _check_passwords(violations: Violations, place: Place, entry: t.Mapping[str, t.Any], format_check: str) -> None:
    """Add a violation for each password that cannot be used. Absent entries need no password.

    :arg format_check: the name of the variable that turns the check of the setup password's form off; "": no check.
    """
    if entry.get("state") == "absent":
        return
    for key in PASSWORDS:
        if key not in entry:
            continue
        try:
            password = _decrypted(entry[key])
        except InvalidValue as exc:
            violations.append(Violation(place.of(key), exc.what, exc.fix))
            continue
        reason = invalid_password_reason(password)
        if reason:
            violations.append(Violation(place.of(key), reason))
        elif key == "setup_password" and format_check and not has_setup_password_form(password):
            what = "does not have the form of a setup password (%s)" % SETUP_FORM
            fix = "if your HSM generates others, set %s to false" % format_check
            violations.append(Violation(place.of(key), what, fix))


def check_client(
    settings: t.Any,
    service_users: t.Optional[t.Any] = None,
    prefix: str = "",
    renders_config: bool = True,
    require_passwords: bool = True,
    setup_password_format_check: bool = True,
) -> Checked:
    """Validate the data of a client. Return them without passwords, with all violations.

    :arg service_users: a list of name, password and state; None: they are not known.
    :arg prefix: the prefix of the variable names, for violations.
    :arg renders_config: see read_settings.
    :arg require_passwords: whether a service user in front of a partition must have a password.
    :arg setup_password_format_check: whether a setup password must have the documented form.
    """
    read, violations = read_settings(settings, prefix, renders_config)
    format_check = prefix + "setup_password_format_check" if setup_password_format_check else ""
    for i, partition in enumerate(read.partitions):
        place = _list_entry(prefix + "partitions", i, partition, "user_name")
        _check_passwords(violations, place, partition, format_check)
    users = None
    if service_users is not None:
        users = _read_service_users(violations, prefix + "service_users", service_users)
        if renders_config and users is not None:
            _check_service_users(violations, prefix, read.partitions, users, require_passwords)
    partitions = [partition["given"] for partition in read.partitions]
    good = {
        **read.primus,
        "hsms": read.hsms,
        "partitions": [{k: v for k, v in each.items() if k not in PASSWORDS} for each in partitions],
        "log": read.log,
    }
    return Checked(good, [_without_passwords(each, *PASSWORDS[:2]) for each in partitions], users, violations)


def _without_passwords(entry: t.Mapping[str, t.Any], *passwords: str) -> Data:
    return {**entry, **{key: key in entry for key in passwords}}


def _read_service_users(violations: Violations, path: str, values: t.Any) -> t.Optional[t.List[Data]]:
    users = []
    names = []
    try:
        values = read_list(values)
    except InvalidValue as exc:
        violations.append(Violation(path, exc.what))
        return None
    for i, value in enumerate(values):
        place = _list_entry(path, i, value, "name")
        user = read_table(violations, place, value, _SERVICE_USER_KEYS)
        _require(violations, place, value, "name")
        _check_passwords(violations, place, user, "")
        if "name" in user:
            names.append((user["name"], Place(place.path)))
        given = isinstance(value, Mapping) and value.get("password") is not None
        users.append({"state": "present", **user, "password": given})
    _require_unique(violations, names, "name", "")
    return users


def _check_service_users(
    violations: Violations, prefix: str, partitions: t.List[Data], users: t.List[Data], require_passwords: bool
) -> None:
    """Add a violation for each service user in front of a partition that is unknown, absent or has no password."""
    path = prefix + "service_users"
    by_name = {user["name"]: (i, user) for i, user in enumerate(users) if "name" in user}
    for i, partition in enumerate(partitions):
        where = _list_entry(prefix + "partitions", i, partition, "user_name").of("proxy_user")
        for name in partition["proxy_users"] if partition["state"] != "absent" else []:
            number, user = by_name.get(name, (0, None))
            if user is None:
                violations.append(Violation(where, "names the service user %r, who is not in %s" % (name, path)))
            elif user["state"] == "absent":
                violations.append(Violation(where, "names the service user %r, who is absent in %s" % (name, path)))
            elif require_passwords and not user["password"]:
                missing = Violation(Place("%s[%d]" % (path, number), name).of("password"), "is missing")
                violations += [] if missing in violations else [missing]


# Rendering


def render(settings: t.Any, absent: t.Optional[t.Collection[str]] = ()) -> str:
    """Return the text of primus.cfg.

    :arg absent: the absent partitions to include, so that ppin can remove their secrets; None: all of them.
    :raises ValueError: with all violations.
    """
    read, violations = read_settings(settings)
    if violations:
        raise ValueError(" ".join(map(str, violations)))
    slots = [(p, i) for p in read.partitions if p["state"] != "absent" for i in p["slot_id"]]
    kept = [p for p in read.partitions if p["state"] == "absent" and (absent is None or p["user_name"] in absent)]
    slots += _absent_slots(kept, {slot_id for _partition, slot_id in slots})
    hsms = {hsm["key"]: _hsm(hsm, i, [slot for slot in slots if i in slot[0]["on"]]) for i, hsm in enumerate(read.hsms)}
    log = {key: read.log[key] for key in _LOG_KEYS if key in read.log}
    if "trace_mask" in log:
        log["trace_mask"] = _Hex(log["trace_mask"])
    primus = {**read.primus, "hsms": hsms, **({"log": log} if log else {})}
    return "%s\nprimus : {\n%s};\n" % (HEADER, _group(primus, "  "))


_Slots = t.List[t.Tuple[t.Dict[str, t.Any], int]]


def _absent_slots(partitions: t.List[t.Dict[str, t.Any]], taken: t.Set[int]) -> _Slots:
    """Return slots for absent partitions. If their slot ids are missing or taken by others, they get free ones."""
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
    """An integer that is rendered in hexadecimal digits."""


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
    """Return a libconfig string. Control characters become `\\xHH`, all other characters stay."""
    return '"%s"' % re.sub(r'[\\"\x00-\x1f\x7f]', _escape, text)


def _escape(match: t.Match[str]) -> str:
    char = match.group()
    return "\\" + char if char in '\\"' else "\\x%02X" % ord(char)
