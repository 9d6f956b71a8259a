# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter cloudhsm_credentials."""

from __future__ import annotations

import re
import typing as t

DOCUMENTATION = r"""
name: cloudhsm_credentials
short_description: Service users and partitions, from the credential files of CloudHSM
version_added: 1.0.0
author:
  - The hsmops.primus authors (@hsmops)
description:
  - Reads the text files with credentials that a customer of CloudHSM gets, and makes of them what the role
    P(hsmops.primus.primus_client#role) wants.
  - The file of the service user has the lines C(Service User Name), C(Service User Password) and C(HSM User Name),
    which is the partition. The file of the technical user has C(HSM User Name), the partition's setup password and its
    PKCS#11 password. How these two lines are called is not documented. Read are C(Setup Password) and
    C(PKCS#11 Password), also with C(HSM), C(User) or both before, with C(PIN) for C(Password) or without C(#).
  - Files of several service users and partitions can be given at once. What they say of the same partition is put
    together.
  - A line that is not one of these is an error, which tells where it is and never what it says.
positional: _input
options:
  _input:
    description:
      - The content of a file, or of several. Keep them encrypted with Ansible Vault, which
        P(ansible.builtin.file#lookup) decrypts.
    type: raw
    required: true
seealso:
  - plugin: hsmops.primus.primus_cfg
    plugin_type: filter
"""

EXAMPLES = r"""
# In an inventory. The files beside it are encrypted: ansible-vault encrypt credentials/*.txt
primus_client_hsms:
  - host: proxy1.example.com
credentials: "{{ [service, technical] | hsmops.primus.cloudhsm_credentials }}"
service: "{{ lookup('ansible.builtin.file', folder ~ '/acme_eco_service_svc_example_20260131.txt') }}"
technical: "{{ lookup('ansible.builtin.file', folder ~ '/acme_eco_technical_20260131.txt') }}"
folder: "{{ inventory_dir }}/credentials"
primus_client_service_users: "{{ credentials.service_users }}"
primus_client_partitions: "{{ credentials.partitions | map('ansible.builtin.combine', {'slot_id': 0}) }}"
"""

RETURN = r"""
_value:
  description: The service users and the partitions, in the order in which they come. What the files do not say is left
    out.
  type: dict
  contains:
    service_users:
      description: The service users, each with C(name) and C(password).
      type: list
      elements: dict
    partitions:
      description: The partitions, each with C(user_name), and as far as known C(proxy_user), C(setup_password) and
        C(pkcs11_password). C(slot_id) is yours to add.
      type: list
      elements: dict
  sample:
    service_users: [{"name": "svc_example", "password": "the service proxy password"}]
    partitions:
      - user_name: PARTITION1
        proxy_user: svc_example
        setup_password: FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3
        pkcs11_password: the PKCS#11 password
"""

from ansible.errors import AnsibleFilterError

SERVICE = {"name": "Service User Name", "password": "Service User Password"}
PARTITION = {"setup_password": "Setup Password", "pkcs11_password": "PKCS#11 Password"}
USER = {"user_name": "HSM User Name"}
LABELS = {**SERVICE, **PARTITION, **USER}

_FORMS = {
    "name": r"service user name",
    "password": r"service user password",
    "user_name": r"hsm user name",
    "setup_password": r"(hsm )?(user )?setup password",
    "pkcs11_password": r"(hsm )?(user )?pkcs ?#?11 (password|pin)",
}
_LINE = re.compile("|".join(r"(?P<%s>^%s)" % item for item in _FORMS.items()), re.I)


def cloudhsm_credentials(content: t.Any) -> t.Dict[str, t.List[t.Dict[str, str]]]:
    """See DOCUMENTATION."""
    texts = content if isinstance(content, (list, tuple)) else [content]
    users: t.Dict[str, t.Dict[str, str]] = {}
    partitions: t.Dict[str, t.Dict[str, str]] = {}
    for number, text in enumerate(texts, 1):
        where = "Credentials %d of %d" % (number, len(texts))
        if text is None or isinstance(text, (bool, int, float, bytes, dict, list, tuple)):
            raise AnsibleFilterError("%s are not the text of a file" % where)
        found = _read(str(text), where)
        partition = {"user_name": found["user_name"]}
        if "name" in found:
            _add(users, found["name"], {key: found[key] for key in SERVICE}, "the service user", where)
            partition["proxy_user"] = found["name"]
        partition.update({key: found[key] for key in PARTITION if key in found})
        _add(partitions, found["user_name"], partition, "the partition", where)
    return {"service_users": list(users.values()), "partitions": list(partitions.values())}


def _read(text: str, where: str) -> t.Dict[str, str]:
    """The values of one file by the keys of LABELS, all that belong together."""
    found: t.Dict[str, str] = {}
    for number, raw_line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        label, colon, value = raw_line.strip().partition(":")
        match = _LINE.fullmatch(" ".join(label.split()))
        if not label and not colon:
            continue
        if match is None or not value.strip():
            raise AnsibleFilterError(
                "%s: line %d is not understood; a line is one of %s, a colon and a value"
                % (where, number, ", ".join(LABELS.values()))
            )
        key = next(key for key in _FORMS if match[key])
        if key in found:
            raise AnsibleFilterError("%s: line %d is the second %s" % (where, number, LABELS[key]))
        found[key] = value.strip()
    wanted = dict(USER)
    for group in (SERVICE, PARTITION):
        wanted.update(group if any(key in found for key in group) else {})
    missing = [label for key, label in wanted.items() if key not in found]
    if missing or len(wanted) == len(USER):
        raise AnsibleFilterError(
            "%s: there is no %s" % (where, " and no ".join(missing) or "password of a service user or a partition")
        )
    return found


def _add(known: t.Dict[str, t.Dict[str, str]], name: str, values: t.Dict[str, str], what: str, where: str) -> None:
    """Put together what files say of the same name; they must agree."""
    entry = known.setdefault(name, {})
    for key, value in values.items():
        if entry.setdefault(key, value) != value:
            raise AnsibleFilterError("%s: another %s of %s '%s' was given before" % (where, key, what, name))


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"cloudhsm_credentials": cloudhsm_credentials}
