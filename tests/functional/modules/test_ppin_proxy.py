# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ppin_proxy: the three states, and a failure at each."""

import pytest

MISSING = "service proxy password of svc1: MISSING\n"
CONFIGURED = "service proxy password of svc1: Configured\n"


def test_present(client):
    before = client.state()
    assert client.proxy(check=True)["diff"] == {"before": MISSING, "after": CONFIGURED}
    assert client.state() == before
    result = client.proxy()
    assert (result["changed"], result["action"], result["logins"]) == (True, "added", 1)
    assert result["diff"] == {"before": MISSING, "after": CONFIGURED}
    assert result["entries"] == [{"index": 1, "configured": True}, {"index": 2, "configured": True}]
    again = client.proxy()
    assert (again["changed"], again["action"], again["logins"]) == (False, "none", 0)


def test_updated(configured):
    assert configured.proxy(state="updated")["changed"] is False
    configured.hsm("set-proxy-password", user="svc1", value="password-of-svc1-now")
    assert configured.proxy(state="updated", password="password-of-svc1-now", check=True)["action"] == "updated"
    result = configured.proxy(state="updated", password="password-of-svc1-now")
    assert result["action"] == "updated" and "since 20" in result["diff"]["before"]
    again = configured.proxy(state="updated", password="password-of-svc1-now")
    assert (again["changed"], again["logins"]) == (False, 0)
    assert configured.proxy(state="updated", password="password-of-svc1-now", force=True)["action"] == "updated"


def test_absent(configured):
    assert configured.proxy(state="absent", password=None, check=True)["changed"] is True
    assert configured.proxy(state="absent", password=None)["action"] == "removed"
    assert configured.proxy(state="absent", password=None)["action"] == "none"
    assert configured.proxy()["action"] == "added"


@pytest.mark.parametrize("behaviour", [{}, {"proxy_existing": "duplicate"}, {"kill_at_write": 1}, {"kill_at_write": 2}])
def test_a_failed_update_leaves_everything_as_it_was(configured, behaviour):
    configured.set(**behaviour)
    before = configured.state()
    result = configured.proxy(state="updated", password="not-the-password", retries=0)
    assert result["failed"] and result["rolled_back"] and not result["changed"]
    assert configured.state() == before


def test_the_proxy_is_down(client):
    client.hsm("proxy", state="down")
    before = client.state()
    result = client.proxy(retries=0)
    assert result["failed"] and result["error"]["class"] == "transient" and result["logins"] == 0
    assert client.state() == before


def test_not_in_primus_cfg(client):
    result = client.run("ppin_proxy", name="svc9", password="a-password")
    assert result["failed"] and "'svc9' is not in primus.cfg; it has 'svc1'" in result["msg"]


def test_no_password(client):
    result = client.proxy(password=None)
    assert result["failed"] and "needs password" in result["msg"]
