# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ppin_info: the one look, at clients in all states; it never logs in and never writes."""

import getpass
import hashlib
import os
import re

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.pexpect_check import pexpect_facts
from emulated_hsm import PROXY_PASSWORD


def test_a_client_as_it_is(configured):
    before, logins = configured.state(), configured.hsm.logins()
    info = configured.info()
    assert info["changed"] is False
    assert (info["installed"], info["version"], info["error"], info["interrupted"]) == (True, "2.2.4", None, False)
    assert info["config"]["checksum"] == hashlib.sha256(configured.config.read_bytes()).hexdigest()
    assert info["secrets"]["mode"] == "0600" and info["secrets"]["owner"] == getpass.getuser()
    partitions = {partition["user_name"]: partition for partition in info["partitions"]}
    assert partitions["P1"]["configured"] and partitions["P1"]["proxy_users"] == ["svc1"]
    assert partitions["P1"]["hsms"] == ["hsm2", "hsm3"]
    assert partitions["P2"]["proxy_users"] == [] and partitions["P2"]["since"].startswith("20")
    assert [partition["rejected"] for partition in info["partitions"]] == [None, None]
    assert [(user["name"], user["configured"]) for user in info["service_users"]] == [("svc1", True)]
    assert configured.state() == before and configured.hsm.logins() == logins


def test_a_secret_that_was_rejected(configured):
    configured.hsm("rotate-secret", partition="P2")
    assert not configured.run("ppin_connectivity_info", user_name="P2", hsm="hsm0")["ok"]
    rejected = {partition["user_name"]: partition["rejected"] for partition in configured.info()["partitions"]}
    assert rejected["P1"] is None and rejected["P2"].startswith("20")


def test_passwords_in_plaintext_are_told_by_their_place_alone(client):
    assert client.info()["passwords_in_plaintext"] == []
    text = client.config.read_text()
    client.config.write_text(text.replace("proxy_user", 'proxy_password = "%s"; proxy_user' % PROXY_PASSWORD, 1))
    (place,) = client.info()["passwords_in_plaintext"]  # the client sees to it that the password is nowhere
    assert re.fullmatch(r"primus\.hsms\.hsm2\.slots\.slot\d\.proxy_password", place)
    client.config.write_text('@include "more.cfg"\n' + text)
    assert client.info()["passwords_in_plaintext"] is None
    client.config.with_name("more.cfg").write_text('more : { pin = "%s"; };' % PROXY_PASSWORD)
    assert client.info()["passwords_in_plaintext"] == ["more.pin"]
    client.config.unlink()
    assert client.info()["passwords_in_plaintext"] is None


def test_a_primus_cfg_that_is_not_understood(configured):
    assert configured.info()["config"]["problem"] is None
    more = configured.etc / "more.cfg"
    more.write_text('// more\n  a = "b";\n  a = "c";\n')
    configured.config.write_text('@include "more.cfg"\n' + configured.config.read_text())
    info = configured.info()
    assert info["config"]["problem"] == {
        "file": str(more),
        "line": 3,
        "reason": "a setting is there for the second time",
    }
    assert (info["error"], info["passwords_in_plaintext"]) == (None, None)
    assert [(each["configured"], each["hsms"], each["proxy_users"]) for each in info["partitions"]] == [
        (True, [], [])
    ] * 2


def test_a_primus_cfg_that_is_no_file(client):
    client.config.unlink()
    client.config.mkdir()
    problem = client.info()["config"]["problem"]
    assert problem == {"file": str(client.config), "line": None, "reason": "it cannot be read: Is a directory"}


def test_a_bare_host(client, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    files = {name: str(tmp_path / "none" / name) for name in ("config_path", "secrets_path")}
    info = client.info(primus_home=str(tmp_path), **files)
    assert (info["installed"], info["executable"], info["version"], info["partitions"]) == (False, None, None, [])
    assert info["config"] == {"path": files["config_path"], "exists": False}
    assert "ppin was not found" in info["error"]["msg"] and info["error"]["hint"]


def test_a_broken_client_is_described(client):
    client.secrets.write_text("{")
    info = client.info()
    assert not info.get("failed")
    assert (info["error"]["code"], info["error"]["class"]) == ("0x80005006", "config")
    assert info["version"] == "2.2.4" and info["partitions"] == []


def test_a_ppin_that_hangs(client):
    client.set(hang_at="start")
    info = client.info(timeout=1)
    assert info["error"]["class"] == "timeout" and "No credential was used" in info["error"]["hint"]


def test_other_files_and_the_group(client, tmp_path):
    there, gone = client.home / "etc", tmp_path / "gone"
    info = client.info(files=[str(there), str(client.config), str(gone)], group="no-such-group")
    assert info["files"][str(there)]["mode"] == "%04o" % (there.stat().st_mode & 0o7777)
    assert info["files"][str(there)]["checksum"] is None
    assert {**info["files"][str(client.config)], "problem": None} == info["config"]
    assert info["files"][str(gone)] == {"path": str(gone), "exists": False}
    assert info["group"] == {"name": "no-such-group", "exists": False, "gid": None, "members": []}
    assert info["home"] == str(client.home)
    assert client.info(group="root")["group"]["exists"]
    assert client.info(group="0")["group"] == {**client.info(group=0)["group"], "name": "root", "gid": 0}
    assert (info["secrets"]["uid"], info["secrets"]["gid"]) == (os.getuid(), client.secrets.stat().st_gid)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("__version__ = '4.9.0'\n", {"installed": True, "version": "4.9.0", "usable": True}),
        ('x = 1\n__version__="3.3"\n', {"installed": True, "version": "3.3", "usable": False}),
        ("", {"installed": True, "version": None, "usable": False}),
    ],
)
def test_whether_pexpect_can_be_used_without_loading_it(client, tmp_path, text, facts):
    package = tmp_path / "python/pexpect"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text + "raise SystemExit('it was loaded')\n")
    client.python_path = [str(package.parent)]
    assert client.info()["pexpect"] == facts


def test_a_python_without_pexpect(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert pexpect_facts() == {"installed": False, "version": None, "usable": False}


def test_a_ppin_that_is_not_executable(client):
    client.ppin.chmod(0o644)
    info = client.info()
    assert not info.get("failed") and info["version"] is None
    assert "cannot be" in info["error"]["msg"] and info["error"]["hint"]


def test_until_when_the_setup_password_may_be_valid(configured, client, hsm):
    def validity(**options):
        partitions = client.info(**options)["partitions"]
        return {entry["user_name"]: entry["setup_password_validity"] for entry in partitions}

    known = validity()
    assert known["P1"]["assumption"].startswith("7 days from the first use (CloudHSM)")
    assert known["P2"]["assumption"].startswith("72 hours from the first use")
    assert known["P1"]["valid_until"] > known["P2"]["valid_until"] > known["P2"]["first_used"]
    assert {fact["assumption"] for fact in validity(setup_password_lifespan=24).values()} == {
        "24 hours from the first use (setup_password_lifespan)"
    }
    assert client.secret(state="updated", force=True)["changed"]
    assert validity()["P2"] == known["P2"], "it was used before"
    assert client.secret(state="updated", setup_password=hsm.new_setup_password("P2"))["changed"]
    assert validity()["P2"]["first_used"] >= known["P2"]["first_used"]
    client.ledger.unlink()
    assert set(validity().values()) == {None}
    assert "not in 0 to 87600 hours" in client.info(setup_password_lifespan=-1)["msg"]


def test_secrets_of_partitions_that_primus_cfg_does_not_name(configured):
    assert configured.info()["orphans"] == []
    configured.config.write_text(configured.config.read_text().replace('"P2"', '"P7"'))
    assert configured.info()["orphans"] == ["P2"]
    configured.config.unlink()
    assert configured.info()["orphans"] == ["P1", "P2"]
    configured.secrets.write_text('version = "1.0";')  # as a template may be
    assert configured.info()["orphans"] == []
    configured.secrets.write_text("{")
    assert configured.info()["orphans"] is None


def test_whether_it_ran_in_check_mode(client):
    assert (client.info()["check_mode"], client.info(check=True)["check_mode"]) == (False, True)


def test_who_else_may_change_what_is_run(client, tmp_path):
    """The folders above belong to root and the user that runs the tests, as pytest makes them."""
    assert client.info()["changeable"] is None
    (client.home / "bin").chmod(0o777)
    assert client.info()["changeable"] == f"{client.home}/bin can be written by every user"
    (client.home / "bin").chmod(0o755)
    library = client.home / "lib/libprimusP11.so"
    library.parent.mkdir(exist_ok=True)
    library.touch(0o644)
    library.chmod(0o664)
    assert client.info()["changeable"].startswith(f"{library} can be written by the group ")
    if os.geteuid() == 0:
        library.chmod(0o644)
        os.chown(client.ppin, 65534, -1)
        assert client.info()["changeable"].startswith(f"{client.ppin} belongs to the user ")


def test_a_version_that_is_not_told(client):
    client.ppin.write_text("#!/bin/sh\n")
    info = client.info()
    assert info["version"] is None
    assert f"{client.ppin} does not report its version. The roles replace it only" in str(info["warnings"])
