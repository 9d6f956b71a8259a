# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the attempt gate takes from the result of a host, which may be anything."""

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import LAST_TIME
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.verdicts import (
    PresentSecret,
    present_secret,
    sanitized_error,
    verdict_on_credential,
    verdict_on_secret,
)

OK = {"failed": False, "logins": 1}
WRONG = {"failed": True, "logins": 1, "error": {"code": "0x80005017", "name": "login failed", "class": "rejected"}}
LATE = {"failed": True, "logins": 1, "error": {"code": None, "name": "it was late", "class": "timeout"}}
AWAY = {"failed": True, "logins": 0, "error": {"code": "0x80005015", "name": "no network", "class": "transient"}}
BROKEN = {"failed": True, "msg": "MODULE FAILURE"}


@pytest.mark.parametrize(
    "result, verdict",
    [
        (OK, "accepted"),
        ({"failed": False, "logins": 0}, None),
        (WRONG, "rejected"),
        ({**WRONG, "error": {"class": "expired"}}, "rejected"),
        ({**WRONG, "logins": 0}, None),
        (LATE, "unclear"),
        ({**LATE, "error": {"class": "unknown"}}, "unclear"),
        ({**LATE, "error": {"class": "dialogue"}}, "unclear"),
        ({**LATE, "error": {"class": "permission"}}, None),
        (AWAY, None),
        (BROKEN, "unclear"),
        *(({"failed": False, "logins": value}, "unclear") for value in ("x", "1", [1], {}, None, True, -1, 1.0)),
        ({}, None),
        ({**WRONG, "logins": "0"}, "rejected"),
        ({**AWAY, "logins": "x"}, None),
        ({**LATE, "error": None}, "unclear"),
        ({**LATE, "error": "text"}, "unclear"),
        ({**LATE, "error": ["rejected"]}, "unclear"),
        ({**LATE, "error": {"class": ["rejected"]}}, "unclear"),
        ({**LATE, "error": {"class": {}}}, "unclear"),
    ],
    ids=str,
)
def test_judge(result, verdict):
    assert verdict_on_credential(result).value == verdict


@pytest.mark.parametrize(
    "error, code, cls, meaning",
    [
        (WRONG["error"], "0x80005017", "rejected", "login failed"),
        ({"code": "0xc000001f", "class": "bug", "name": "ümlaut"}, "0xc000001f", "bug", "ümlaut"),
        *(({"code": code}, None, "unknown", "") for code in (5, [5], {}, None, True, "", "0x8000", "80005017")),
        *(({"code": "0x80005017" + end}, None, "unknown", "") for end in ("0", "\n", " rejected", "0x80005017")),
        *(({"class": cls}, None, "unknown", "") for cls in ("", "good", "Rejected", ["rejected"], {}, 1, None)),
        *(({"name": name}, None, "unknown", "") for name in (None, 5, ["n"], {"n": 1}, "")),
        ({"name": "red \x1b[31mtext\r\n\u202eend\ud800"}, None, "unknown", "red  [31mtext   end "),
        ({"name": "n" * 5_000_000}, None, "unknown", "n" * 200),
        ("text", None, "unknown", "text"),
        *((error, None, "unknown", "") for error in (None, 5, True, [], ["code"], {}, [{"code": "0x80005017"}])),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bounded(error, code, cls, meaning):
    assert sanitized_error(error) == {"code": code, "class": cls, "meaning": meaning}


@pytest.mark.parametrize(
    "result, unreachable",
    [
        (AWAY, True),
        ({**AWAY, "error": {"code": None, "class": "transient"}}, True),
        ({**AWAY, "logins": None}, True),
        ({**AWAY, "error": {"code": "0x80000018", "class": "transient"}}, False),
        ({**AWAY, "error": {"code": "0x000000B1", "class": "transient"}}, False),
        ({**AWAY, "error": {"class": "config"}}, False),
        (WRONG, False),
        (OK, False),
    ],
    ids=str,
)
def test_whether_no_hsm_was_reached(result, unreachable):
    assert verdict_on_credential(result).unreachable is unreachable


@pytest.mark.parametrize(
    "result, verdict",
    [
        ({"logins": 1, "verified": True}, "accepted"),
        ({"logins": 1, "verified": False, "error": WRONG["error"]}, "rejected"),
        ({"logins": 1, "verified": False}, "rejected"),
        ({"logins": 0, "verified": False, "error": WRONG["error"]}, None),
        ({"logins": "1", "verified": True}, None),
        ({"verified": True}, None),
        ({}, None),
        *(({"logins": 1, "verified": value}, "unclear") for value in (None, 0, 1, "true", [True], {})),
        *(({"logins": 1, "verified": True, "error": error}, "accepted") for error in (None, 5, "text", [1])),
        *(({"logins": 1, "error": error}, "unclear") for error in (None, 5, "text", [1], {"class": "rejected"})),
    ],
    ids=str,
)
def test_judge_login(result, verdict):
    found = verdict_on_secret(result)
    assert found.value == verdict and not found.unreachable
    if verdict == "unclear":
        assert found.error["meaning"] == "text" or found.error["class"] in ("unknown", "rejected")


def test_a_login_at_an_hsm_that_is_not_reached():
    assert verdict_on_secret({"logins": 0, "error": AWAY["error"]}).unreachable


@pytest.mark.parametrize(
    "origin", [None, 5, "", "a" * 63, "a" * 65, "A" * 64, "a" * 64 + "\n", ["a" * 64], {}, "g" * 64], ids=str
)
def test_an_origin_of_another_form_is_not_known(origin):
    assert present_secret({"origin": origin, "since": "2026-01-31T12:00:00Z"}) == PresentSecret(None, 1769860800.0)


@pytest.mark.parametrize(
    "since, moment",
    [
        ("1970-01-01T00:00:10Z", 10),
        ("9999-12-31T23:59:59Z", LAST_TIME),
        *(
            (value, 0)
            for value in ("1960-01-01T00:00:00Z", "now", "", None, 5, 1e400, ["x"], {}, "2026-13-01T00:00:00Z")
        ),
    ],
    ids=str,
)
def test_since_when_a_client_has_an_entry(since, moment):
    assert present_secret({"origin": "a" * 64, "since": since}) == PresentSecret("a" * 64, float(moment))
    assert present_secret({}) == PresentSecret()
