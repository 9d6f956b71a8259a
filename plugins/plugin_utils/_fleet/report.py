# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hsmops.primus: may change without notice.
"""Build the report on a fleet from the results of modules: as data, an HTML page, metrics and lines of text.

The results are not trusted: only known keys and types become part of the data, every string is sanitized, and the HTML
page is rendered with automatic escaping.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import typing as t
import unicodedata
from pathlib import Path

import jinja2
from ansible_collections.hsmops.primus.plugins.module_utils._client.package_choice import version_key
from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import TIME_FORMAT, parse_time
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import printable
from markupsafe import Markup

SHOWN_LIMIT = 400
"""Characters of a string that are shown, so that no host can fill the page."""
LISTED_LIMIT = 5
"""Hosts that a line of the summary names."""
DAY = 24 * 60 * 60

PROBLEM, ATTENTION, OK, UNKNOWN = "problem", "attention", "ok", "not inspected"
STATES = (UNKNOWN, PROBLEM, ATTENTION, OK)
"""The worst first."""

Data = t.Dict[str, t.Any]


class FindingKind(t.NamedTuple):
    """A kind of finding. `label` is shown in the table, `title` and `advice` in the summary."""

    severity: str
    label: str
    title: str
    advice: str


FINDING_KINDS = {
    "unreachable": FindingKind(
        UNKNOWN,
        "unreachable",
        "Hosts that could not be reached",
        "Their state is unknown. Check that they are running and that Ansible can log in, then run the report again.",
    ),
    "not_inspected": FindingKind(
        UNKNOWN,
        "inspection failed",
        "Hosts that could not be inspected",
        "Their state is unknown. Ansible's message is shown with each host below.",
    ),
    "provider_missing": FindingKind(
        PROBLEM, "no provider", "Hosts without ppin", "Provision them, or take them out of the inventory."
    ),
    "client_error": FindingKind(
        PROBLEM,
        "ppin fails",
        "Clients whose credentials ppin cannot list",
        "Its message and what to do are shown with each host below.",
    ),
    "hsm_unreachable": FindingKind(
        PROBLEM,
        "HSM not reached",
        "HSMs that a client did not reach",
        "Check the address, the port, the firewall and that the HSM is running.",
    ),
    "secret_rejected": FindingKind(
        PROBLEM,
        "secret rejected",
        "Permanent secrets that the HSM has rejected",
        "Do not try them again. Get new setup passwords, and rotate.",
    ),
    "login_failed": FindingKind(
        PROBLEM,
        "login failed",
        "Logins that failed",
        "Read the error code before the next attempt: a rejected login counts towards the lock-out of the partition "
        "for "
        "all its clients.",
    ),
    "secret_missing": FindingKind(
        PROBLEM,
        "secret missing",
        "Permanent secrets that are missing",
        "Provision these clients; it takes a valid setup password of the partition.",
    ),
    "proxy_password_missing": FindingKind(
        PROBLEM,
        "proxy password missing",
        "Service proxy passwords that are missing",
        "Provision these clients; without it no partition behind the service proxy can be reached.",
    ),
    "password_in_plaintext": FindingKind(
        PROBLEM,
        "password in plaintext",
        "Passwords in plaintext in primus.cfg",
        "Remove them from the file, and have them changed: anyone who could read the file knows them.",
    ),
    "file_permissions": FindingKind(
        PROBLEM,
        "permissions too wide",
        "Files that every user of the host may read or write",
        "Remove the permissions of others (chmod o=), and find out who had access.",
    ),
    "file_refused": FindingKind(
        PROBLEM,
        "file not trusted",
        "Files and directories that other users could have put in place",
        "The modules refuse to use them. Find out who created each; if it is correct, change its owner to root.",
    ),
    "file_acl": FindingKind(
        PROBLEM,
        "access by ACL",
        "Files with secrets that an access control list opens",
        "Check whether those users should have access (getfacl), and remove the entries if not (setfacl --remove-all).",
    ),
    "file_hard_links": FindingKind(
        PROBLEM,
        "hard links",
        "Files with secrets that have other names (hard links)",
        "Find the other names (find / -xdev -samefile FILE), find out who created them, and remove them.",
    ),
    "file_mounted": FindingKind(
        ATTENTION,
        "file is mounted",
        "Secrets files that are mounted as one file",
        "They cannot be replaced. Mount their directory, change them where they come from, or set in_place.",
    ),
    "directory_permissions": FindingKind(
        ATTENTION,
        "directory writable",
        "Directories of .secrets.cfg in which other users can replace files",
        "Remove the write permission of the group and of others (chmod go-w), and ACL entries.",
    ),
    "provider_changeable": FindingKind(
        PROBLEM,
        "provider can be changed",
        "Providers that others than root may change, though root runs them",
        "Anyone who can change ppin or its library can become root there. Change their owner to root and remove the "
        "write permission of the group, as SECURITY.md describes.",
    ),
    "logins_unknown": FindingKind(
        ATTENTION,
        "logins not tried",
        "Clients whose logins could not be tried",
        "The reason is shown with each host below.",
    ),
    "orphan": FindingKind(
        ATTENTION,
        "secret left behind",
        "Permanent secrets of partitions that primus.cfg does not name",
        "Whoever has the file can use them. List the partitions with state: absent and provision these clients.",
    ),
    "interrupted": FindingKind(
        ATTENTION,
        "write interrupted",
        "Clients on which a run was interrupted while it worked on a copy of .secrets.cfg",
        "The file itself is complete. Provision these clients, which removes the copy.",
    ),
    "ledger_problem": FindingKind(
        ATTENTION,
        "ledger damaged",
        "Ledgers that cannot be read",
        "A run with state: updated may spend a setup password twice there. Remove the ledger, which is named with the "
        "host below.",
    ),
    "config_unread": FindingKind(
        ATTENTION,
        "primus.cfg not understood",
        "primus.cfg that this collection does not understand",
        "ppin may read it all the same. Passwords in it are not found, and the HSMs and service users of its "
        "partitions are not known. The file and the line are shown with each host below.",
    ),
    "secret_old": FindingKind(
        ATTENTION,
        "too old",
        "Credentials that are older than they should be",
        "Get new setup passwords, and rotate.",
    ),
    "provider_older": FindingKind(
        ATTENTION,
        "older provider",
        "Providers that are older than the newest of the fleet",
        "Provision these clients with the newest package.",
    ),
}
"""In the order in which they should be dealt with."""


# Data


def build_report(
    clients: t.Mapping[str, t.Any],
    logins: t.Optional[t.Mapping[str, t.Any]] = None,
    now: t.Optional[float] = None,
    max_age_days: t.Optional[int] = None,
    limit: t.Optional[str] = None,
) -> Data:
    """Return the report, as data.

    :arg clients: the results of ppin_info by host, also failed ones; {} for a host without a result.
    :arg logins: the results of ppin_connectivity_info by host; None: no logins were made.
    :arg now: seconds since 1970.
    :arg max_age_days: credentials that are older are a finding; None: none are.
    :arg limit: the limit of the play.
    """
    now = time.time() if now is None else now
    hosts = [
        _host(str(name), facts, None if logins is None else logins.get(name, {}), now, max_age_days)
        for name, facts in clients.items()
    ]
    versions = {host["version"] for host in hosts if host["version"]}
    newest = max(versions, key=version_key, default=None)
    for host in hosts:
        if host["version"] and version_key(host["version"]) < version_key(newest or ""):
            _add_finding(host, "provider_older", "%s; the newest is %s" % (host["version"], newest))
        order = list(FINDING_KINDS)
        host["findings"].sort(key=lambda finding: order.index(finding["kind"]))
        severities = {finding["severity"] for finding in host["findings"]}
        host["state"] = next((state for state in STATES if state in severities), OK)
    hosts.sort(key=lambda host: (STATES.index(host["state"]), _natural_sort_key(host["name"])))
    return {
        "created": time.strftime(TIME_FORMAT, time.gmtime(now)),
        "limit": _sanitize(limit) if limit else None,
        "logins_tried": logins is not None,
        "max_age_days": max_age_days,
        "counts": _counts(hosts),
        "findings": _findings(hosts),
        "hosts": hosts,
    }


def _host(name: str, facts: t.Any, connectivity: t.Any, now: float, max_age_days: t.Optional[int]) -> Data:
    host = _unknown_host(name)
    try:
        if facts.get("unreachable"):
            _add_finding(host, "unreachable", _sanitize(facts.get("msg")))
        elif "installed" not in facts:
            _add_finding(host, "not_inspected", _sanitize(facts.get("msg") or "there is no result"))
        else:
            _read_facts(host, facts, now)
            if connectivity is not None and host["installed"]:
                _read_logins(host, connectivity)
            _add_findings(host, max_age_days)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        host = _unknown_host(name)
        _add_finding(host, "not_inspected", "its answer does not have the form of a result of ppin_info")
    return host


def _unknown_host(name: str) -> Data:
    return {
        "name": _sanitize(name),
        "installed": None,
        "version": None,
        "config": None,
        "secrets": None,
        "ledger": None,
        "directory": None,
        "partitions": [],
        "service_users": [],
        "passwords_in_plaintext": None,
        "hsms": None,
        "logins": None,
        "findings": [],
    }


def _read_facts(host: Data, facts: t.Mapping[str, t.Any], now: float) -> None:
    host["installed"] = bool(facts["installed"])
    host["version"] = _sanitize(facts["version"]) if facts["version"] else None
    for key in ("config", "secrets", "ledger", "directory"):
        host[key] = _file(facts[key])
    host["partitions"] = [
        {
            **_credential(partition, partition["user_name"], now),
            "slot_ids": sorted({int(entry["slot_id"]) for entry in partition["entries"]}),
            "hsms": [_sanitize(hsm) for hsm in partition["hsms"]],
            "service_users": [_sanitize(user) for user in partition["proxy_users"]],
            "rejected": _time(partition["rejected"]),
            "setup_password_validity": _validity(partition["setup_password_validity"]),
        }
        for partition in facts["partitions"]
    ]
    host["service_users"] = [_credential(user, user["name"], now) for user in facts["service_users"]]
    if facts["passwords_in_plaintext"] is not None:
        host["passwords_in_plaintext"] = [_sanitize(place) for place in facts["passwords_in_plaintext"]]
    if not host["installed"]:
        _add_finding(host, "provider_missing", "")
    elif facts["error"]:
        _add_finding(
            host, "client_error", _sanitize("%s. %s" % (facts["error"]["msg"], facts["error"].get("hint") or ""))
        )
    if facts["changeable"]:
        _add_finding(host, "provider_changeable", _sanitize(facts["changeable"]))
    for name in facts["orphans"] or []:
        _add_finding(host, "orphan", _sanitize(name))
    if facts["interrupted"]:
        _add_finding(host, "interrupted", "")
    problem = facts["config"].get("problem")
    if problem:
        line = "" if problem["line"] is None else ", line %d" % int(problem["line"])
        _add_finding(host, "config_unread", _sanitize("%s%s: %s" % (problem["file"], line, problem["reason"])))
    if facts["ledger"]["problem"]:
        _add_finding(host, "ledger_problem", _sanitize(facts["ledger"]["problem"]))


def _file(facts: t.Mapping[str, t.Any]) -> Data:
    keys = ("path", "mode", "owner", "group") if facts["exists"] else ("path",)
    file: Data = {"exists": bool(facts["exists"]), **{key: _sanitize(facts[key]) for key in keys}}
    if facts["exists"]:
        file["link"] = _sanitize(facts["link"]) if facts["link"] else None
        file["refused"] = _sanitize(facts["refused"]) if facts["refused"] else None
        file["mount"] = facts["mount"] is True
        file["hard_links"] = None if facts["hard_links"] is None else int(facts["hard_links"])
        file["acl"] = [_sanitize(entry) for entry in facts["acl"]]
    return file


def _credential(credential: t.Mapping[str, t.Any], name: t.Any, now: float) -> Data:
    """Return what is known of a credential. `since`: when it was set."""
    configured = bool(credential["configured"])
    since = _time(credential["since"]) if configured else None
    moment = parse_time(since)
    return {
        "name": _sanitize(name),
        "configured": configured,
        "since": since,
        # The clocks of the client and the control node may differ, so the age could be negative.
        "age_days": None if moment is None else max(0, int(now - moment) // DAY),
    }


def _validity(facts: t.Optional[t.Mapping[str, t.Any]]) -> t.Optional[Data]:
    until = _time(facts["valid_until"]) if facts else None
    return {"valid_until": until, "assumption": _sanitize(facts["assumption"])} if facts and until else None


def _time(text: t.Any) -> t.Optional[str]:
    moment = parse_time(text)
    return None if moment is None else time.strftime(TIME_FORMAT, time.gmtime(moment))


def _read_logins(host: Data, connectivity: t.Mapping[str, t.Any]) -> None:
    refused = [_sanitize(name) for name in connectivity.get("refused") or []]
    for partition in host["partitions"]:
        if partition["configured"] and partition["name"] in refused:
            _add_finding(host, "secret_rejected", partition["name"])
    if connectivity.get("failed") or "hsms" not in connectivity:
        _add_finding(host, "logins_unknown", _sanitize(connectivity.get("msg") or "there is no result"))
        return
    host["hsms"] = [
        {
            "name": _sanitize(hsm["hsm"]),
            "address": _sanitize("%s:%s" % (hsm["host"], hsm["port"])),
            "firmware": _sanitize(hsm["firmware"]) if hsm["firmware"] else None,
            "connected": hsm["connected"] is True,
            **_error(hsm["error"]),
        }
        for hsm in connectivity["hsms"]
    ]
    host["logins"] = [
        {
            "hsm": _sanitize(hsm["hsm"]),
            "address": _sanitize("%s:%s" % (hsm["host"], hsm["port"])),
            "slot_id": int(slot["slot_id"]),
            "partition": _sanitize(slot["user_name"]),
            "ok": slot["ok"] is True,
            **_error(slot["error"]),
        }
        for hsm in connectivity["hsms"]
        for slot in hsm["slots"]
    ]


def _error(error: t.Optional[t.Mapping[str, t.Any]]) -> Data:
    return {key: _sanitize(error[name]) if error and error[name] else None for key, name in _ERROR_KEYS}


_ERROR_KEYS = (("code", "code"), ("meaning", "name"))


def _add_findings(host: Data, max_age_days: t.Optional[int]) -> None:
    kinds = (("partitions", "secret_missing"), ("service_users", "proxy_password_missing"))
    for partition in host["partitions"]:
        if partition["rejected"]:
            _add_finding(host, "secret_rejected", partition["name"])
    for credential, missing in ((item, kind) for key, kind in kinds for item in host[key]):
        if not credential["configured"]:
            _add_finding(host, missing, credential["name"])
        elif max_age_days is not None and (credential["age_days"] or 0) > max_age_days:
            _add_finding(host, "secret_old", "%s: %d days" % (credential["name"], credential["age_days"]))
    for place in host["passwords_in_plaintext"] or []:
        _add_finding(host, "password_in_plaintext", place)
    # primus.cfg may be readable for everybody, if it has no password.
    too_wide = ((host["secrets"], 0o007), (host["config"], 0o007 if host["passwords_in_plaintext"] else 0o002))
    for file, bits in too_wide:
        if file["exists"] and int(file["mode"], 8) & bits:
            _add_finding(host, "file_permissions", "%s %s" % (file["path"], file["mode"]))
    for file in (host["secrets"], host["ledger"], host["config"], host["directory"]):
        if file.get("refused"):
            _add_finding(host, "file_refused", file["refused"])
    for file in (host["secrets"], host["ledger"]) + ((host["config"],) if host["passwords_in_plaintext"] else ()):
        if file.get("acl"):
            _add_finding(host, "file_acl", "%s %s" % (file["path"], " ".join(file["acl"])))
        if (file.get("hard_links") or 1) > 1:
            _add_finding(host, "file_hard_links", "%s: %d" % (file["path"], file["hard_links"]))
    if host["secrets"].get("mount"):
        _add_finding(host, "file_mounted", host["secrets"]["path"])
    directory = host["directory"]
    if directory["exists"] and (int(directory["mode"], 8) & 0o022 or directory["acl"]):
        details = [directory["path"], directory["mode"], *directory["acl"]]
        _add_finding(host, "directory_permissions", " ".join(details))
    for hsm in host["hsms"] or []:
        if not hsm["connected"]:
            _add_finding(host, "hsm_unreachable", "%s at %s%s" % (hsm["name"], hsm["address"], _reason(hsm)))
    for login in host["logins"] or []:
        if not login["ok"]:
            _add_finding(host, "login_failed", "%s at %s%s" % (login["partition"], login["hsm"], _reason(login)))


def _reason(failed: Data) -> str:
    return ": " + " ".join(filter(None, (failed["code"], failed["meaning"]))) if failed["meaning"] else ""


def _add_finding(host: Data, kind: str, detail: str) -> None:
    """Add a finding. A host has one finding of each kind, with a list of details. detail: may be empty."""
    finding: t.Optional[Data] = next((finding for finding in host["findings"] if finding["kind"] == kind), None)
    if finding is None:
        finding = {
            "kind": kind,
            "severity": FINDING_KINDS[kind].severity,
            "label": FINDING_KINDS[kind].label,
            "details": [],
        }
        host["findings"].append(finding)
    if detail not in finding["details"]:
        finding["details"].append(detail)


def _findings(hosts: t.List[Data]) -> t.List[Data]:
    findings = []
    for name, kind in FINDING_KINDS.items():
        found = [(host["name"], finding) for host in hosts for finding in host["findings"] if finding["kind"] == name]
        if found:
            places = sum(len(finding["details"]) for _host_name, finding in found)
            names = [host_name for host_name, _finding in found]
            findings.append({"kind": name, **kind._asdict(), "places": places, "hosts": names})
    return findings


def _counts(hosts: t.List[Data]) -> Data:
    counts: Data = {"hosts": len(hosts), "states": dict.fromkeys(STATES, 0), "versions": {}}
    for host in hosts:
        counts["states"][host["state"]] += 1
        if host["version"]:
            counts["versions"][host["version"]] = counts["versions"].get(host["version"], 0) + 1
    for key, good in (("partitions", "configured"), ("service_users", "configured"), ("logins", "ok")):
        items = [item for host in hosts for item in host[key] or []]
        counts[key] = {"all": len(items), good: sum(item[good] for item in items)}
    counts["passwords_in_plaintext"] = sum(len(host["passwords_in_plaintext"] or []) for host in hosts)
    return counts


def _sanitize(value: t.Any) -> str:
    """Return a string on one line, of at most SHOWN_LIMIT characters, without invisible and direction characters."""
    text = printable(str(value)[: 4 * SHOWN_LIMIT])
    text = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in _HIDDEN_CATEGORIES else char for char in text
    )
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_LIMIT else text[: SHOWN_LIMIT - 1] + "\N{HORIZONTAL ELLIPSIS}"


_HIDDEN_CATEGORIES = ("Cf", "Cs", "Co", "Cn")


def _natural_sort_key(name: str) -> t.List[t.Tuple[int, str]]:
    """Return a sort key that puts host2 before host10."""
    return [(int(part[:18]), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


# Formats


def to_json(data: Data) -> str:
    return json.dumps(data, indent=1) + "\n"


def to_html(data: Data) -> str:
    return render("report.html.j2", data)


def render(template: str, data: Data) -> str:
    """Return one page without external files. Its content security policy permits only its own style and script."""
    directory = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(directory),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = {"style": "report.css", "script": "report.js"}
    parts = {name: (directory / file).read_text("utf-8") for name, file in files.items()}
    policy = "; ".join(
        ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "img-src data:"]
        + ["%s-src 'sha256-%s'" % (name, _digest(text)) for name, text in parts.items()]
    )
    # These two files of this collection are the only text that is not escaped.
    safe = {name: Markup(text) for name, text in parts.items()}  # noqa: S704
    return environment.get_template(template).render(data, policy=policy, **safe)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def to_prometheus(data: Data) -> str:
    """Return metrics in the text format of Prometheus, for the textfile collector of its node exporter."""
    metrics = _Metrics()
    add = metrics.add
    add("report_timestamp_seconds", "When the fleet was inspected.", parse_time(data["created"]) or 0)
    for kind in FINDING_KINDS:
        places = sum(finding["places"] for finding in data["findings"] if finding["kind"] == kind)
        labels = {"kind": kind, "severity": FINDING_KINDS[kind].severity.replace(" ", "_")}
        add("findings", "What was found in the fleet, by kind.", places, **labels)
    for host in data["hosts"]:
        on = {"host": host["name"]}
        add("client_inspected", "Whether the host could be inspected.", host["state"] != UNKNOWN, **on)
        if host["state"] == UNKNOWN:
            continue
        places = sum(len(finding["details"]) for finding in host["findings"])
        add("client_findings", "What was found on the host.", places, **on)
        add("client_provider_installed", "Whether ppin is there.", host["installed"], **on)
        if host["version"]:
            add("client_provider_info", "The provider's version; always 1.", 1, version=host["version"], **on)
        if host["passwords_in_plaintext"] is not None:
            number = len(host["passwords_in_plaintext"])
            add(
                "client_passwords_in_plaintext",
                "Settings of primus.cfg that hold a password in plaintext.",
                number,
                **on,
            )
        for partition in host["partitions"]:
            which = {"partition": partition["name"], **on}
            add("partition_configured", "Whether the permanent secret is there.", partition["configured"], **which)
            add("partition_rejected", "Whether a login was rejected.", partition["rejected"] is not None, **which)
            since = parse_time(partition["since"])
            if since is not None:
                add("partition_secret_timestamp_seconds", "When the permanent secret was fetched.", since, **which)
            until = parse_time((partition["setup_password_validity"] or {}).get("valid_until"))
            if until is not None:
                help_text = "Until when the setup password that fetched the secret may be valid at most."
                add("partition_setup_password_valid_until_timestamp_seconds", help_text, until, **which)
        for user in host["service_users"]:
            which = {"service_user": user["name"], **on}
            add("service_user_configured", "Whether the service proxy password is there.", user["configured"], **which)
            since = parse_time(user["since"])
            if since is not None:
                help_text = "When the service proxy password was set."
                add("service_user_password_timestamp_seconds", help_text, since, **which)
        for hsm in host["hsms"] or []:
            which = {"hsm": hsm["name"], "address": hsm["address"], **on}
            add("hsm_reached", "Whether the client reached the HSM.", hsm["connected"], **which)
        for login in host["logins"] or []:
            which = {"partition": login["partition"], "hsm": login["hsm"], "slot_id": login["slot_id"], **on}
            add("login_ok", "Whether the login worked.", login["ok"], **which)
    return metrics.text()


class _Metrics:
    """Gauges with their samples by labels. A sample with the same labels twice would make the whole file invalid."""

    def __init__(self) -> None:
        self.metrics: t.Dict[str, t.Tuple[str, t.Dict[str, int]]] = {}

    def add(self, name: str, help_text: str, value: t.Union[int, bool], **labels: t.Any) -> None:
        samples = self.metrics.setdefault("hsmops_primus_" + name, (help_text, {}))[1]
        shown = ",".join('%s="%s"' % (key, _label(str(labels[key]))) for key in sorted(labels))
        samples["{%s}" % shown if shown else ""] = int(value)

    def text(self) -> str:
        lines = []
        for name, (help_text, samples) in self.metrics.items():
            lines += ["# HELP %s %s" % (name, help_text), "# TYPE %s gauge" % name]
            lines += ["%s%s %d" % (name, labels, value) for labels, value in samples.items()]
        return "\n".join(lines) + "\n"


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def to_lines(data: Data) -> t.List[str]:
    """Return the summary, as lines for a terminal."""
    counts = data["counts"]
    states = ", ".join("%d %s" % (number, state) for state, number in reversed(counts["states"].items()) if number)
    secrets = counts["partitions"]
    lines = ["Hosts: %d%s." % (counts["hosts"], states and " (%s)" % states)]
    lines.append("Permanent secrets: %d of %d are there." % (secrets["configured"], secrets["all"]))
    if data["logins_tried"]:
        lines.append("Logins: %d of %d worked." % (counts["logins"]["ok"], counts["logins"]["all"]))
    for finding in data["findings"]:
        names = finding["hosts"][:LISTED_LIMIT]
        more = len(finding["hosts"]) - len(names)
        where = ", ".join(names) + (" and %d more" % more if more else "")
        lines.append("%s: %s: %d, on %s." % (finding["severity"].upper(), finding["title"], finding["places"], where))
    return lines
