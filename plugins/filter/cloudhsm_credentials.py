# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter cloudhsm_credentials."""

from __future__ import annotations

import re
import typing as t

DOCUMENTATION = r"""
name: cloudhsm_credentials
short_description: Read service users and partitions from the credential files of CloudHSM
version_added: 1.0.0
author:
  - The hsmops.primus authors (@hsmops)
description:
  - Reads the text files with credentials that a customer of CloudHSM gets, as they are, and returns what the role
    P(hsmops.primus.primus_client#role) takes.
  - >-
    The file of the service user, C(<company>_<svc>_service_<user>_<date>.txt), has the lines C(Service User Name),
    C(Service User Password) and C(HSM User Name), which is the partition.
  - >-
    The file of the technical user, C(<company>_<svc>_hsm_<user>_<date>.txt), has the lines C(HSM User Name),
    C(HSM User Setup Password) and, if PKCS#11 was ordered, C(PKCS#11 password).
  - >-
    The file of the Cloud Console, C(<organization>_<svc>_credentials_<user>_<date>.txt), has the lines of both, with
    headings, indented, and with C(Service (Proxy) User) for C(Service User).
  - In labels, case and white space do not matter. C(HSM) and C(User) are optional in front of C(Setup Password) and
    C(PKCS#11 password). The latter may be C(PKCS#11 PIN), or have no C(#). A value is the text after the first colon,
    without the white space around it. A label without a value counts as not given. A value that contains one of the
    labels and a colon is an error, because line breaks are missing.
  - The filter ignores headings (lines that begin with C(-) or C(=)), the JSON Web Token of the REST API (on the line of
    its label or on the lines after it), API keys, addresses (a label that ends in C(Endpoint), C(URL), C(Host) or
    C(Port)) and links. Any other line is an error.
  - Files of several service users and partitions can be given at once. Credentials of the same partition are merged.
    One text has the credentials of one partition. It may consist of several of these files, and lines may be repeated;
    a different value for the same label is an error.
  - An error names the text and the line, and never shows the content of the line.
positional: _input
options:
  _input:
    description:
      - The content of a file, or of several. Keep the files encrypted with Ansible Vault, each as a whole.
        P(ansible.builtin.file#lookup) decrypts them.
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
service: "{{ lookup('ansible.builtin.file', directory ~ '/acme_eco_service_svc_example_20260131.txt') }}"
technical: "{{ lookup('ansible.builtin.file', directory ~ '/acme_eco_hsm_partition1_20260131.txt') }}"
directory: "{{ inventory_dir }}/credentials"
primus_client_service_users: "{{ credentials.service_users }}"
primus_client_partitions: "{{ credentials.partitions | map('ansible.builtin.combine', {'slot_id': 0}) }}"

# The one file of the Cloud Console; then, credentials are "{{ console | hsmops.primus.cloudhsm_credentials }}"
console: "{{ lookup('ansible.builtin.file', directory ~ '/acme_sbx_credentials_partition1_20260131.txt') }}"
"""

RETURN = r"""
_value:
  description: The service users and the partitions, in the order of the files. What the files do not have is left out.
    If it is needed, the role or module that needs it reports that it is missing.
  type: dict
  contains:
    service_users:
      description: The service users, each with C(name) and, if the files have it, C(password).
      type: list
      elements: dict
    partitions:
      description: The partitions, each with C(user_name) and, if the files have them, C(proxy_user), C(setup_password)
        and C(pkcs11_password). Add C(slot_id) yourself.
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

USER = {"name": "Service User Name", "password": "Service User Password"}
PARTITION = {
    "user_name": "HSM User Name",
    "setup_password": "HSM User Setup Password",
    "pkcs11_password": "PKCS#11 password",
}
LABELS = {**USER, **PARTITION}

# Labels in lower case, without white space. https://docs.securosys.com/cloudhsm/GettingStarted/activation_process has
# those of the service user and of the technical user, the credential file of the Cloud Console those with (Proxy).
# "PKCS#11 PIN" was seen in a file in use.
_LABELS = {
    "name": re.compile(r"service(\(proxy\)|proxy)?username"),
    "password": re.compile(r"service(\(proxy\)|proxy)?userpassword"),
    "user_name": re.compile(r"hsmusername"),
    "setup_password": re.compile(r"(hsm)?(user)?setuppassword"),
    "pkcs11_password": re.compile(r"(hsm)?(user)?pkcs#?11(password|pin)"),
}

# Lines that are ignored, with single blanks for white space. They match no label of _LABELS. They are strict, because a
# password whose label or line break is not the documented one must not be ignored.
_IGNORED_LINES = [
    re.compile(r"[- ]*jwt[- ]?token[^:]*:?", re.I),
    # The Cloud Console: "- Details  for Native-API (JCE, PKCS#11, MS CNG) ", and rules between parts of a text.
    re.compile(r"[-=]+( [^:]*:?| details\b.*)?", re.I),
    # That the file has the REST API's address is documented: https://docs.securosys.com/tsb/quickstart. What its line
    # looks like is not.
    re.compile(r"([^:]*[ -])?(end ?point|url|host|host ?name|port)s? ?\d* ?:.*", re.I),
    re.compile(r"[^:]*:? ?https?://\S+", re.I),
    # The other credential of that API, not seen in a file:
    # https://docs.securosys.com/AuthorizationApp/Installation/auth-user-register
    re.compile(r"([^:]* )?api[ -]?key[^:]*:.*", re.I),
]
# The Cloud Console: "JWT-TOKEN for Restful-API & Transaction Security Broker: eyJ...", also "JWT Token:". The token may
# be on the lines that follow. It is base64url with dots (RFC 7519), and begins with "{" and a quote, encoded.
_TOKEN = re.compile(r"[- ]*jwt[- ]?token[^:]*:.+|eyJ[A-Z0-9_.=-]*", re.I)
_TOKEN_CONTINUATION = re.compile(r"[A-Z0-9_.=-]+", re.I | re.A)

# After a label without a value, these lines could be its value: a heading of unknown wording, a token.
_POSSIBLE_VALUE = re.compile(r"[-=]+ (?!details\b).*|eyJ.*", re.I)
# A label that may announce a password, whatever else is in it, such as "- Details of the password" or "PIN port".
_POSSIBLE_PASSWORD = re.compile(r"[^:]*(pass|secret|pin\b)[^:]*:(?! ?$)(?! ?//).*", re.I)
# A known label within a value: the line breaks were lost, as in a folded block of YAML.
_LABEL_WITHIN = re.compile("(%s):|jwttoken[^:]*:" % "|".join(form.pattern for form in _LABELS.values()))


def cloudhsm_credentials(content: t.Any) -> t.Dict[str, t.List[t.Dict[str, str]]]:
    """See DOCUMENTATION."""
    texts = content if isinstance(content, (list, tuple)) else [content]
    users: t.Dict[str, t.Dict[str, str]] = {}
    partitions: t.Dict[str, t.Dict[str, str]] = {}
    for number, text in enumerate(texts, 1):
        where = f"Credentials {number} of {len(texts)}"
        if text is None or isinstance(text, (bool, int, float, bytes, dict, list, tuple)):
            raise AnsibleFilterError(f"{where} are not the text of a file")
        found = _read(str(text), where)
        partition = {key: found[key] for key in PARTITION if key in found}
        if "name" in found:
            user = {key: found[key] for key in USER if key in found}
            _merge(users, found["name"], user, "the service user", where)
            partition["proxy_user"] = found["name"]
        _merge(partitions, found["user_name"], partition, "the partition", where)
    return {"service_users": list(users.values()), "partitions": list(partitions.values())}


def _read(text: str, where: str) -> t.Dict[str, str]:
    """Return the values of one text, by the keys of LABELS. Each password has a name, and all are of one partition."""
    found: t.Dict[str, str] = {}
    lines: t.Dict[str, int] = {}
    in_token = False  # whether the line before was a part of a JSON Web Token
    value_expected = False  # whether the last line that is not empty is a label without a value
    # Not splitlines(), which also splits at characters that a password may contain.
    for number, raw_line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = raw_line.strip().lstrip("\ufeff").strip()
        label, colon, value = line.partition(":")
        key = _label_key(label) if colon else None
        if key is None:
            blanks = " ".join(line.split())
            in_token = bool(_TOKEN.fullmatch(blanks) or (in_token and _TOKEN_CONTINUATION.fullmatch(blanks)))
            ignored = in_token or any(kind.fullmatch(blanks) for kind in _IGNORED_LINES)
            doubtful = _POSSIBLE_PASSWORD.fullmatch(blanks) or (value_expected and _POSSIBLE_VALUE.fullmatch(blanks))
            value_expected = value_expected and not line
            if line and (doubtful or not ignored):
                raise AnsibleFilterError(
                    f"{where}: line {number} is not understood. Remove it if it is no credential. The labels that are "
                    f"read: {', '.join(LABELS.values())}"
                )
            continue
        in_token = False
        value = value.strip()
        value_expected = not value
        if _LABEL_WITHIN.search(_compact(value)):
            raise AnsibleFilterError(
                f"{where}: the {LABELS[key]} in line {number} has another label in it. Keep the line breaks of the file"
            )
        if value and found.setdefault(key, value) != value:
            raise AnsibleFilterError(
                f"{where}: line {number} has another {LABELS[key]} than line {lines[key]}. Give the credentials of "
                f"another partition as a text of their own"
            )
        if value:
            lines.setdefault(key, number)
    if "user_name" not in found:
        raise AnsibleFilterError(
            f"{where}: there is no {PARTITION['user_name']}, which says whose credentials they are"
        )
    if "password" in found and "name" not in found:
        raise AnsibleFilterError(
            f"{where}: there is no {USER['name']} for the {USER['password']} in line {lines['password']}"
        )
    return found


def _label_key(label: str) -> t.Optional[str]:
    """Return the key of LABELS for a label, or None when it has another form. It may follow a dash, as headings do."""
    return next((key for key, form in _LABELS.items() if form.fullmatch(_compact(label))), None)


def _compact(text: str) -> str:
    return re.sub(r"[\s-]", "", text).lower()


def _merge(known: t.Dict[str, t.Dict[str, str]], name: str, values: t.Dict[str, str], what: str, where: str) -> None:
    """Merge the values of the same name. They must not differ."""
    entry = known.setdefault(name, {})
    for key, value in values.items():
        if entry.setdefault(key, value) != value:
            raise AnsibleFilterError(f"{where}: another {key} of {what} '{name}' was given before")


class FilterModule:
    """The entry point for Ansible."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"cloudhsm_credentials": cloudhsm_credentials}
