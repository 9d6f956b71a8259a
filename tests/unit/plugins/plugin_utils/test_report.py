# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: what is found, and how it is written, also of what a host tells to do harm."""

import base64
import copy
import hashlib
import html.parser
import json
import re

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet import report as _report
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.report import (
    build_report,
    to_html,
    to_json,
    to_lines,
    to_prometheus,
)
from example_fleet import FLEET, NOW, days_ago, file, look, partition, service_user
from hypothesis import given
from hypothesis import strategies as st


def login(rejection=None, user_name="P1", **hsm):
    """What ppin_connectivity_info tells of one slot of one HSM; hsm: what differs of the HSM."""
    slot = {"slot": "slot0", "slot_id": 0, "user_name": user_name, "ok": rejection is None, "error": rejection}
    result = {"hsm": "hsm0", "host": "hsm.example.com", "port": 2310, "connected": True, "firmware": "RP-2.10.0-T"}
    return {"ok": rejection is None, "hsms": [{**result, "error": None, "slots": [slot], **hsm}]}


def found(client, **options):
    """What is found on one host: details by kind."""
    (host,) = build_report({"h": client}, now=NOW, **options)["hosts"]
    return {finding["kind"]: finding["details"] for finding in host["findings"]}


# What is found

REJECTED = {"code": "0x80005017", "name": "login to the HSM failed", "class": "rejected", "hint": "Check it."}
UNREACHED = {"code": None, "name": "refused", "class": "transient", "hint": "Check it."}
ERROR = {"code": "0x80005006", "class": "config", "msg": ".secrets.cfg invalid", "hint": "Correct it."}
BROKEN_LEDGER = {"path": "/l", "exists": False, "problem": "The ledger /l is damaged"}
GONE = {"path": "/c", "exists": False}
BARE = look(installed=False, version=None, config=GONE, secrets=GONE, passwords_in_plaintext=None, error=ERROR)

FOUND = {
    "nothing": (look(), {}, {}),
    "unreachable": ({"unreachable": True, "msg": "No route"}, {}, {"unreachable": ["No route"]}),
    "failed": ({"failed": True, "msg": "no python"}, {}, {"not_inspected": ["no python"]}),
    "no result": ({}, {}, {"not_inspected": ["there is no result"]}),
    "no provider": (BARE | {"partitions": [], "service_users": []}, {}, {"provider_missing": [""]}),
    "error": (look(error=ERROR), {}, {"client_error": [".secrets.cfg invalid. Correct it."]}),
    "secrets": (
        look(partitions=[partition("P1", configured=False), partition("P2"), partition("P3", configured=False)]),
        {},
        {"secret_missing": ["P1", "P3"]},
    ),
    "proxy password": (
        look(service_users=[service_user("svc1", configured=False)]),
        {},
        {"proxy_password_missing": ["svc1"]},
    ),
    "refused": (
        look(secrets=file("/s", "0660", refused="The link /s belongs to eve")),
        {},
        {"file_refused": ["The link /s belongs to eve"]},
    ),
    "ACL": (look(ledger=file("/l", "0600", acl=["user:eve:r--"], problem=None)), {}, {"file_acl": ["/l user:eve:r--"]}),
    "ACL of a file without a password": (look(config=file("/c", "0640", acl=["user:eve:r--"])), {}, {}),
    "hard links": (look(secrets=file("/s", "0660", hard_links=2)), {}, {"file_hard_links": ["/s: 2"]}),
    "mounted": (look(secrets=file("/s", "0660", mount=True)), {}, {"file_mounted": ["/s"]}),
    "directory": (look(directory=file("/d", "0770", hard_links=None)), {}, {"directory_permissions": ["/d 0770"]}),
    "default ACL": (
        look(directory=file("/d", "0750", acl=["default:user:eve:r--"])),
        {},
        {"directory_permissions": ["/d 0750 default:user:eve:r--"]},
    ),
    "in clear": (look(passwords_in_plaintext=["a.pin", "b.pin"]), {}, {"password_in_plaintext": ["a.pin", "b.pin"]}),
    "not understood": (
        look(
            passwords_in_plaintext=None,
            config={**file("/c", "0640"), "problem": {"file": "/i", "line": 3, "reason": "r"}},
        ),
        {},
        {"config_unread": ["/i, line 3: r"]},
    ),
    "not read": (
        look(
            passwords_in_plaintext=None,
            config={**file("/c", "0640"), "problem": {"file": "/c", "line": None, "reason": "r"}},
        ),
        {},
        {"config_unread": ["/c: r"]},
    ),
    "orphans": (look(orphans=["P8", "P9"]), {}, {"orphan": ["P8", "P9"]}),
    "orphans not known": (look(orphans=None), {}, {}),
    "changeable": (
        look(changeable="/p belongs to the user q"),
        {},
        {"provider_changeable": ["/p belongs to the user q"]},
    ),
    "interrupted": (look(interrupted=True), {}, {"interrupted": [""]}),
    "ledger": (look(ledger=BROKEN_LEDGER), {}, {"ledger_problem": ["The ledger /l is damaged"]}),
    "secrets for all": (look(secrets=file("/s", "0604")), {}, {"file_permissions": ["/s 0604"]}),
    "primus.cfg for all": (look(config=file("/c", "0644")), {}, {}),
    "primus.cfg writable for all": (look(config=file("/c", "0642")), {}, {"file_permissions": ["/c 0642"]}),
    "primus.cfg with a password for all": (
        look(config=file("/c", "0644"), passwords_in_plaintext=["a.pin"]),
        {},
        {"password_in_plaintext": ["a.pin"], "file_permissions": ["/c 0644"]},
    ),
    "old": (
        look(partitions=[partition("P1", since=days_ago(31)), partition("P2", since=days_ago(30))]),
        {"max_age_days": 30},
        {"secret_old": ["P1: 31 days", "svc_example: 203 days"]},
    ),
    "login": (look(), {"logins": {"h": login()}}, {}),
    "login failed": (
        look(),
        {"logins": {"h": login(REJECTED)}},
        {"login_failed": ["P1 at hsm0: 0x80005017 login to the HSM failed"]},
    ),
    "login failed without a code": (
        look(),
        {"logins": {"h": login({**REJECTED, "code": None, "name": ""})}},
        {"login_failed": ["P1 at hsm0"]},
    ),
    "HSM not reached": (
        look(),
        {"logins": {"h": login(connected=False, firmware=None, error=UNREACHED, slots=[])}},
        {"hsm_unreachable": ["hsm0 at hsm.example.com:2310: refused"]},
    ),
    "login not tried": (
        look(),
        {"logins": {"h": {"failed": True, "msg": "why", "hsms": []}}},
        {"logins_unknown": ["why"]},
    ),
    "rejected before": (
        look(partitions=[{**partition("P1"), "rejected": days_ago(1)}, partition("P2")]),
        {"logins": {"h": {"failed": True, "msg": "why", "hsms": [], "refused": ["P1", "P2"]}}},
        {"secret_rejected": ["P1", "P2"], "logins_unknown": ["why"]},
    ),
    "not reached for logins": (
        look(),
        {"logins": {"h": {"unreachable": True, "msg": "why"}}},
        {"logins_unknown": ["why"]},
    ),
    "login without a result": (look(), {"logins": {}}, {"logins_unknown": ["there is no result"]}),
    "login without a provider": (
        BARE | {"partitions": [], "service_users": []},
        {"logins": {}},
        {"provider_missing": [""]},
    ),
}


@pytest.mark.parametrize(("client", "options", "expected"), FOUND.values(), ids=FOUND)
def test_found(client, options, expected):
    assert found(client, **options) == expected


def test_every_kind_is_tried():
    assert {kind for row in FOUND.values() for kind in row[2]} == set(_report.FINDING_KINDS) - {"provider_older"}


def test_no_label_is_part_of_another():
    """As the page shows the hosts of a finding by filtering with its label."""
    labels = [kind.label for kind in _report.FINDING_KINDS.values()]
    assert not [(one, other) for one in labels for other in labels if one in other and one is not other]


def test_older_providers():
    versions = {"a": "2.10.1", "b": "2.9.4", "c": "2.10", "d": None}
    data = build_report({name: look(version=version) for name, version in versions.items()}, now=NOW)
    (finding,) = data["findings"]
    assert (finding["kind"], finding["hosts"]) == ("provider_older", ["b", "c"])
    assert data["counts"]["versions"] == {"2.10.1": 1, "2.9.4": 1, "2.10": 1}


@pytest.mark.parametrize(
    ("since", "configured", "expected"),
    [
        (days_ago(12), True, (days_ago(12), 12)),
        (days_ago(0), True, (days_ago(0), 0)),
        ("2099-01-01T00:00:00Z", True, ("2099-01-01T00:00:00Z", 0)),  # the clock of the client is ahead
        (None, True, (None, None)),
        ("yesterday", True, (None, None)),
        (days_ago(12), False, (None, None)),
    ],
)
def test_age(since, configured, expected):
    (host,) = build_report({"h": look(partitions=[partition("P1", 0, configured, since)])}, now=NOW)["hosts"]
    assert (host["partitions"][0]["since"], host["partitions"][0]["age_days"]) == expected


def test_the_worst_hosts_come_first():
    clients = {"h10": look(), "h9": look(), "h3": look(interrupted=True), "h4": {}, "h5": look(error=ERROR)}
    data = build_report(clients, now=NOW)
    assert [host["name"] for host in data["hosts"]] == ["h4", "h5", "h3", "h9", "h10"]
    states = {"not inspected": 1, "problem": 1, "attention": 1, "ok": 2}
    assert data["counts"]["states"] == states


def test_a_plausible_fleet():
    data = build_report(FLEET, now=NOW, max_age_days=365)
    assert [(finding["kind"], finding["places"]) for finding in data["findings"]] == [
        ("unreachable", 1),
        ("secret_missing", 1),
        ("password_in_plaintext", 1),
        ("file_permissions", 1),
        ("secret_old", 1),
        ("provider_older", 1),
    ]
    assert data["counts"]["partitions"] == {"all": 22, "configured": 21}
    assert json.loads(to_json(data)) == data
    lines = to_lines(data)
    assert lines[0] == "Hosts: 14 (9 ok, 2 attention, 2 problem, 1 not inspected)."
    assert lines[2] == "NOT INSPECTED: Hosts that could not be reached: 1, on web07.example.com."


def test_an_empty_fleet():
    data = build_report({}, now=NOW)
    assert to_lines(data) == ["Hosts: 0.", "Permanent secrets: 0 of 0 are there."]
    assert "There is no host in this report." in to_html(data)
    assert json.loads(to_json(data))["hosts"] == []
    assert "hsmops_primus_client_inspected" not in to_prometheus(data)


def test_nothing_to_do():
    page = to_html(build_report({"h": look()}, now=NOW))
    assert "</i> Nothing.</p>" in page and "No login was made." in page


def test_many_hosts_are_named_in_part():
    data = build_report({"h%d" % number: {} for number in range(1, 8)}, now=NOW)
    assert to_lines(data)[2].endswith(": 7, on h1, h2, h3, h4, h5 and 2 more.")


# What it is written as


class Page(html.parser.HTMLParser):
    """The structure of a page: its tags with the names of their attributes, and its text but for style and script."""

    def __init__(self, text):
        super().__init__()
        self.structure, self.text, self.raw, self._in = [], "", {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.structure.append((tag, tuple(name for name, _value in attrs)))
        self._in = tag

    def handle_endtag(self, tag):
        self.structure.append(("/" + tag, ()))
        self._in = None

    def handle_data(self, data):
        if self._in in ("style", "script"):
            self.raw[self._in] = data
        else:
            self.text += data


def everywhere(text):
    """A host with the text in every place, and what was told of its logins."""
    client = look(
        version=text,
        config=file(text, "0644"),
        secrets={**file(text, "0604"), "owner": text, "group": text},
        passwords_in_plaintext=[text],
        partitions=[{**partition(text, proxy_users=[text]), "hsms": [text]}, partition(text + "2", configured=False)],
        service_users=[service_user(text, configured=False)],
        ledger=file(text, "0600", problem=text, refused=text, acl=[text]),
        error={"code": text, "msg": text, "hint": text},
    )
    error = {"code": text, "name": text, "class": text, "hint": text}
    tested = login(error, text, hsm=text, host=text, port=text, connected=False, firmware=text, error=error)
    data = build_report({text: client, "other": {"unreachable": True, "msg": text}}, {text: tested}, NOW, 1, limit=text)
    return data


HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></td></table><!--",
    "]]>--><svg/onload=alert(1)>",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt;&amp;",
    "javascript:alert(1)",
    "a\\nb\\",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text):
    page, harmless = Page(to_html(everywhere(text))), Page(to_html(everywhere("harmless")))
    assert page.structure == harmless.structure
    assert page.raw == harmless.raw
    assert page.text.count(text) == harmless.text.count("harmless") > 20


def test_the_policy_lets_only_the_pages_own_style_and_script_run():
    text = to_html(everywhere(HOSTILE[0]))
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag, content in Page(text).raw.items():
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://(?!www\.w3\.org)", text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x1b]0;title\x07c", "abc"),
        ("a\r\nb\tc\x00\x85d", "a b cd"),
        ("abc\u202edef\u200b\u2066", "abc\ufffddef\ufffd\ufffd"),
        ("\ud800x", "\ufffdx"),
        ("x" * 1000, "x" * 399 + "\u2026"),
    ],
)
def test_strings_are_cleaned(text, shown):
    data = build_report({text: {"failed": True, "msg": text}}, now=NOW)
    assert (data["hosts"][0]["name"], data["hosts"][0]["findings"][0]["details"]) == (shown, [shown])
    for write in (to_html, to_json, to_prometheus):
        write(data).encode()


def places(value, path=()):
    """The path to everything in a result."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


@given(st.sampled_from(list(places({"look": look(), "login": login()}))[1:]), anything)
def test_whatever_a_host_tells_becomes_a_report(path, value):
    told = copy.deepcopy({"look": look(), "login": login()})
    inner = told
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    data = build_report({"h": told["look"], "sound": look()}, {"h": told["login"]}, NOW, 30)
    assert len(data["hosts"]) == 2
    for write in (to_html, to_json, to_prometheus):
        assert "sound" in write(data)
    assert to_lines(data)


def test_a_thousand_hosts():
    clients = {"host%04d.payments.example.com" % number: look() for number in range(1000)}
    tested = login(REJECTED)
    tested["hsms"] *= 2
    usual, worst = build_report(clients, now=NOW), build_report(clients, dict.fromkeys(clients, tested), NOW, 1)
    assert len(Page(to_html(usual)).structure) > 20000
    assert len(to_html(usual).encode()) < 2_000_000
    assert len(to_html(worst).encode()) < 2_000_000
    assert to_prometheus(worst).count("\n") > 10000


def samples(data):
    parser = pytest.importorskip("prometheus_client.parser")
    families = list(parser.text_string_to_metric_families(to_prometheus(data)))
    assert all(family.type == "gauge" and family.documentation for family in families)
    found = [sample for family in families for sample in family.samples]
    assert all(sample.timestamp is None for sample in found)
    series = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(series) == len(found)
    return series


def test_metrics():
    clients = {"a": look(partitions=[partition("P1", since=days_ago(2)), partition("P2", 1, False)]), "b": {}}
    series = samples(build_report(clients, {"a": login()}, NOW))
    assert series["hsmops_primus_report_timestamp_seconds", ()] == NOW
    assert series["hsmops_primus_client_inspected", (("host", "a"),)] == 1
    assert series["hsmops_primus_client_inspected", (("host", "b"),)] == 0
    assert series["hsmops_primus_client_findings", (("host", "a"),)] == 1
    assert series["hsmops_primus_findings", (("kind", "secret_missing"), ("severity", "problem"))] == 1
    assert series["hsmops_primus_findings", (("kind", "interrupted"), ("severity", "attention"))] == 0
    assert series["hsmops_primus_partition_configured", (("host", "a"), ("partition", "P2"))] == 0
    on_p1 = (("host", "a"), ("partition", "P1"))
    fetched = series["hsmops_primus_partition_secret_timestamp_seconds", on_p1]
    assert series["hsmops_primus_partition_setup_password_valid_until_timestamp_seconds", on_p1] == fetched + 7 * 86400
    assert NOW - fetched == 2 * 24 * 3600 + 3600
    which = (("host", "a"), ("hsm", "hsm0"), ("partition", "P1"), ("slot_id", "0"))
    assert series["hsmops_primus_login_ok", which] == 1
    which = (("address", "hsm.example.com:2310"), ("host", "a"), ("hsm", "hsm0"))
    assert series["hsmops_primus_hsm_reached", which] == 1


@pytest.mark.parametrize("text", [*HOSTILE, 'a"} 1\nb 2', "\\", "ä\u2028\u3042"])
def test_metrics_of_hostile_names(text):
    data = everywhere(text)
    names = {dict(labels).get("partition") for _name, labels in samples(data)}
    assert names >= {partition["name"] for host in data["hosts"] for partition in host["partitions"]}


def test_a_partition_that_comes_twice_does_not_break_the_metrics():
    series = samples(build_report({"h": look(partitions=[partition("P1"), partition("P1")])}, now=NOW))
    assert ("hsmops_primus_partition_configured", (("host", "h"), ("partition", "P1"))) in series


def test_until_when_a_setup_password_may_be_valid():
    partitions = [
        partition("P1", since="2026-11-20T10:00:00Z"),
        partition("P2", since="2026-11-20T10:00:00Z", proxy_users=()),
        partition("P3", since=None),
        {**partition("P4"), "setup_password_validity": {"valid_until": "<b>soon", "assumption": "lie"}},
    ]
    data = build_report({"h": look(partitions=partitions)}, now=NOW)
    facts = [entry["setup_password_validity"] for entry in data["hosts"][0]["partitions"]]
    untils = [fact and fact["valid_until"] for fact in facts]
    assert untils == ["2026-11-27T10:00:00Z", "2026-11-23T10:00:00Z", None, None]
    page = to_html(data)
    assert "2026-11-27 10:00 UTC <small>7 days from the first use (CloudHSM)" in page
    assert "2026-11-23 10:00 UTC <small>72 hours from the first use (default of an HSM on premises)" in page
    assert "soon" not in page
