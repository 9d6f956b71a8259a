# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients whose primus.cfg includes other files or has what only ppin understands: provisioned, rotated, verified."""

import re

import libconf
import pytest
from emulated_hsm import wrap_ppin


def split(client):
    """The HSMs go to a file of their own, and the last of them to another."""
    hsms = libconf.loads(client.config.read_text())["primus"]["hsms"]
    last = {"hsm3": hsms.pop("hsm3")}
    client.config.write_text('version = "1.0";\nprimus : {\n@include "hsms/all.cfg"\n};\n')
    (client.etc / "hsms").mkdir()
    (client.etc / "hsms/all.cfg").write_text('hsms : {\n%s\n@include "last.cfg"\n};\n' % libconf.dumps(hsms))
    (client.etc / "hsms/last.cfg").write_text("// the last\n" + libconf.dumps(last))


def spoil(client):
    """A setting twice: refused by libconfig unless an application takes the last one, as the emulated ppin does."""
    client.config.write_text(client.config.read_text().replace("wait_delay", "wait_delay = 1;\nwait_delay", 1))


def test_included_files(client):
    split(client)
    info = client.info()
    assert info["config"]["problem"] is None and info["error"] is None
    assert [(each["hsms"], each["proxy_users"]) for each in info["partitions"]] == [
        (["hsm0", "hsm1"], []),
        (["hsm2", "hsm3"], ["svc1"]),
    ]
    missing = client.secret("P1")
    assert missing["failed"] and "The service proxy password of 'svc1'" in missing["msg"]
    assert client.proxy()["action"] == "added"
    for partition in ("P1", "P2"):
        life(client, partition, logins=1)


def life(client, partition, logins):
    """Provisioned, verified, rotated and verified; logins: what one verification costs. The warnings of each step."""
    results = [client.secret(partition), client.secret(partition, verify="always")]
    new = client.hsm.new_setup_password(partition)
    results.append(client.secret(partition, setup_password=new, state="updated"))
    results.append(client.secret(partition, setup_password=new, state="updated"))
    assert [result["action"] for result in results] == ["added", "none", "updated", "none"]
    assert [result["verified"] for result in results] == [True, True, True, None]
    assert [result["logins"] for result in results] == [1 + logins, logins, 1 + logins, 0]
    return [result.get("warnings", []) for result in results]


def test_a_file_that_only_ppin_understands(client):
    spoil(client)
    line = [line.split() for line in client.config.read_text().splitlines()].index(["wait_delay", "=", "1;"]) + 2
    for partition in ("P2", "P1"):
        warnings = life(client, partition, logins=2)
        expected = (
            f"primus.cfg is not understood: {client.config}, line {line}: a setting is there for the second time. "
            f"Service proxy passwords that '{partition}' needs are therefore not checked, and the login is tried at "
            "each of its HSMs."
        )
        assert [len(each) for each in warnings] == [1, 1, 1, 0]
        assert all(expected in str(each) for each in warnings[:3])  # its form depends on the version of Ansible
        assert client.proxy()["changed"] is (partition == "P2")


def test_a_stale_secret_costs_one_attempt_at_each_hsm(configured):
    """Not one for each of its slots."""
    text = configured.config.read_text()
    slot = re.search(r'slot\d+\s*[:=]\s*\{[^}]*"P2"[^}]*\};?', text).group()
    another = re.sub(r"id = 1;", "id = 7;", re.sub(r"slot\d+", "slot9", slot))
    configured.config.write_text(text.replace(slot, slot + "\n" + another))
    spoil(configured)
    assert {entry["slot_id"] for entry in configured.secret()["entries"]} == {1, 7}
    configured.hsm("rotate-secret", partition="P2")
    new = configured.hsm.new_setup_password("P2")
    result = configured.secret(setup_password=new, verify="always")
    assert (result["action"], result["verified"], result["logins"]) == ("updated", True, 2 + 1 + 2)
    assert configured.hsm.trials("P2") in (0, 2)  # what was accepted since may have reset them
    rejected = [login for login in configured.hsm.logins("permanent") if login["verdict"] != "ok"]
    assert len(rejected) == 2


@pytest.mark.parametrize(("down", "verified"), [([0], True), ([1], True), ([0, 1], None)])
def test_hsms_that_cannot_be_reached(configured, down, verified):
    spoil(configured)
    for node in down:
        configured.hsm("network", state="down", node=node)
    result = configured.secret(verify="always")
    assert (result["verified"], result.get("failed", False)) == (verified, verified is None)
    assert verified or (result["error"]["class"], result["logins"]) == ("transient", 0)


def test_a_rejection_counts_where_another_hsm_is_not_reached(configured):
    spoil(configured)
    configured.hsm("network", state="down", node=0)
    configured.hsm("rotate-secret", partition="P2")
    result = configured.secret(verify="always")
    assert result["failed"] and result["error"]["class"] == "rejected" and result["verified"] is False


@pytest.mark.parametrize("options", [{}, {"verify": "always"}, {"check": True}])
def test_a_partition_that_is_nowhere_fails_before_a_password_is_spent(client, options):
    """primus.cfg is understood, and ppin lists what is not in it."""
    wrap_ppin(client.ppin, """"$0.real" "$@" | sed "s/user 'P2'/user 'P9'/" """)
    result = client.secret(user_name="P9", **options)
    assert result["failed"] and result["logins"] == 0 and client.hsm.logins() == []
    assert "primus.cfg names no HSM for 'P9', which ppin lists" in result["msg"]
    assert str(client.config) in result["error"]["hint"] and result["error"]["class"] == "config"
