# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ppin_config: a primus.cfg takes the place of the old one only after ppin has listed what is in it."""

import os

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.primus_cfg import render

HSMS = [{"host": "192.0.2.1"}, {"host": "192.0.2.2"}]


def config(*names, state="present"):
    partitions = [
        {"user_name": name, "slot_id": i, "proxy_user": "svc1", "state": state} for i, name in enumerate(names)
    ]
    return render({"hsms": HSMS, "partitions": partitions})


NEW = config("P1", "Zürich 'x'")
BROKEN = NEW.replace("};", "", 1)
EMPTY = 'version = "1.0"; primus : { hsms : { hsm0 : { host = "a"; port = "1"; slots : { } } } };'

BEHAVIOURS = [
    {},
    {"exit_success": 7, "exit_failure": 0},
    {"output_stream": "stderr", "message_stream": "stdout", "crlf": "on", "escape_sequences": "on"},
]


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_good_file_is_put_in_place_once(new_client, behaviour):
    client = new_client(**behaviour)
    mode = client.config.stat().st_mode
    result = client.run("ppin_config", content=NEW)
    assert result["changed"] and result["path"] == str(client.config)
    assert client.config.read_text() == NEW
    assert client.config.stat().st_mode == mode
    assert {partition["user_name"] for partition in client.info()["partitions"]} == {"P1", "Zürich 'x'"}
    assert not client.run("ppin_config", content=NEW)["changed"]


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("check", [True, False])
def test_a_bad_file_is_refused_and_the_old_one_stays(new_client, behaviour, check):
    client = new_client(**behaviour)
    before = client.state()
    result = client.run("ppin_config", content=BROKEN, check=check)
    assert result["failed"] and result["error"]["code"] == "0x80005005"
    assert "was not installed" in result["msg"] and "The existing file, if any, was not changed" in result["msg"]
    assert client.state() == before


def test_a_ppin_that_lists_something_else_is_believed(client):
    before = client.state()
    client.ppin.write_text(
        "#!/bin/sh\necho 'Primus Permanent PIN'\necho \"[01] slot-id 0: user 'P9' permanent secret: MISSING\"\n"
    )
    result = client.run("ppin_config", content=NEW)
    assert result["failed"]
    assert "it lists P9 instead of P1, Zürich 'x', service user svc1" in result["msg"]
    assert client.state() == before


def test_without_validation_ppin_is_not_asked(client):
    client.ppin.write_text("#!/bin/sh\necho 0x80005005\n")
    assert client.run("ppin_config", content=NEW)["failed"]
    assert client.run("ppin_config", content=NEW, validate=False)["changed"]
    assert client.config.read_text() == NEW


@pytest.mark.parametrize("content", [config("P1", state="absent"), EMPTY])
def test_a_file_without_slots_is_good_when_ppin_lists_none(client, content):
    assert client.run("ppin_config", content=content)["changed"]
    assert client.config.read_text() == content


def test_a_file_without_slots_is_not_good_when_ppin_cannot_run(client):
    client.ppin.write_text("no program")
    assert client.run("ppin_config", content=EMPTY)["failed"]


def test_the_template_of_the_secrets_serves_while_there_are_none(client, tmp_path):
    etc = tmp_path / "other"
    etc.mkdir()
    paths = {"config_path": str(etc / "primus.cfg"), "secrets_path": str(etc / ".secrets.cfg")}
    result = client.run("ppin_config", content=NEW, mode="0640", **paths)
    assert result["changed"]
    assert [path.name for path in etc.iterdir()] == ["primus.cfg"]
    assert oct((etc / "primus.cfg").stat().st_mode)[-4:] == "0640"


def test_check_mode_changes_nothing(client):
    before = client.state()
    result = client.run("ppin_config", content=NEW, mode="0600", check=True)
    assert result["changed"]
    assert result["diff"]["after"] == NEW
    assert client.state() == before


def test_check_mode_on_a_bare_client(client, tmp_path):
    paths = {"primus_home": str(tmp_path / "none"), "config_path": str(tmp_path / "none/primus.cfg")}
    result = client.run("ppin_config", content=NEW, owner="root", group="no-such-group", check=True, **paths)
    assert result["changed"] and not (tmp_path / "none").exists()


def test_a_mode_alone_is_a_change(client):
    client.run("ppin_config", content=NEW)
    assert client.run("ppin_config", content=NEW, mode="0600", check=True)["changed"]
    assert client.run("ppin_config", content=NEW, mode="0600")["changed"]
    assert oct(client.config.stat().st_mode)[-4:] == "0600"
    assert not client.run("ppin_config", content=NEW, mode="0600")["changed"]


def test_backup(client):
    old = client.config.read_bytes()
    result = client.run("ppin_config", content=NEW, backup=True)
    with open(result["backup_file"], "rb") as backup:
        assert backup.read() == old


@pytest.mark.parametrize(
    "old",
    [
        'pin = "hunter2";',
        'proxy_password : "hun\\"hunter2"\n  "hunter2";',
        'pin = /* the */ "hunter2";',
        'PIN="hunter2"',
        'setup_password = "hunter2";',
        '# pin = "\npin = "hunter2";',
        'host = "pin = \\""; pin = "hunter2"; # "',
        'pin = "hunter2',
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_diff_shows_no_password(client, old, turned):
    """Neither that of an older file nor that of the new one."""
    client.config.write_text(NEW if turned else old)
    result = client.run("ppin_config", content=old if turned else NEW, validate=False)
    assert result["changed"] and "hunter2" not in str(result)
    assert result["diff"]["before" if turned else "after"] == NEW


def test_a_password_in_the_content_is_in_no_output_and_no_log(client, tmp_path):
    """ppin says what it reads, and a module tells syslog its arguments."""
    content = NEW.replace("primus :", 'pin = "hunter2"; primus :')
    client.ppin.write_text('#!/bin/sh\nwhile [ "$1" != -c ]; do shift; done\ncat "$2"\n')
    logged = tmp_path / "logged"
    (tmp_path / "path").mkdir()
    (tmp_path / "path/syslog.py").write_text(SYSLOG % str(logged))
    client.python_path.append(str(tmp_path / "path"))
    for text in (content, content + "}"):
        result = client.run("ppin_config", content=text)
        assert result["failed"] and "hunter2" not in str(result)
    assert "content=NOT_LOGGING_PARAMETER" in logged.read_text() and "hunter2" not in logged.read_text()


SYSLOG = """\
LOG_USER = LOG_INFO = LOG_WARNING = LOG_NOTICE = LOG_DEBUG = LOG_ERR = 0
def openlog(*args): syslog(*args)
def syslog(*args): open(%r, "a").write(repr(args))
"""


@pytest.mark.parametrize("content", [NEW, "the same"])
def test_a_link_is_neither_followed_nor_replaced(client, tmp_path, content):
    """Whoever may write to the directory could have root print another's file, and take it over."""
    other = tmp_path / "other"
    other.write_text(SECRET_FILE)
    other.chmod(0o600)
    client.config.unlink()
    client.config.symlink_to(other)
    before = other.stat()
    content = SECRET_FILE if content == "the same" else content
    result = client.run("ppin_config", content=content, mode="0666", backup=True)
    assert result["failed"] and result["error"]["class"] == "config"
    assert f"{client.config} is a symbolic link, so it was neither read nor changed. " in result["msg"]
    assert "192.0.2.77" not in str(result) and other.read_text() == SECRET_FILE
    assert (other.stat().st_mode, other.stat().st_uid) == (before.st_mode, before.st_uid)
    assert client.config.is_symlink() and not list(client.etc.glob("primus.cfg?*"))


SECRET_FILE = 'host = "192.0.2.77";\n'


def test_a_hard_link_in_a_directory_of_others(client, tmp_path):
    os.link(client.config, tmp_path / "other")
    client.etc.chmod(0o770)
    result = client.run("ppin_config", content=NEW)
    assert result["failed"] and "has other names (hard links), so it was neither read nor changed" in result["msg"]


def test_a_link_to_the_directory_is_followed(client, tmp_path):
    (tmp_path / "link").symlink_to(client.etc)
    assert client.run("ppin_config", content=NEW, config_path=tmp_path / "link/primus.cfg")["changed"]
    assert client.config.read_text() == NEW


def test_a_partition_with_a_secret_is_not_dropped(configured):
    before = configured.state()
    for check in (True, False):
        result = configured.run("ppin_config", content=NEW, check=check)
        assert result["failed"] and result["error"]["class"] == "state"
        assert "it does not name 'P2', whose permanent secret is there" in result["msg"]
    assert configured.state() == before
    assert configured.run("ppin_config", content=NEW, check=True, removed=["P2"])["changed"]
    assert configured.run("ppin_config", content=NEW, removed=["P2"])["failed"]
    assert configured.secret("P2", state="absent")["changed"]
    assert configured.run("ppin_config", content=NEW)["changed"]


def test_without_validation_it_is_dropped(configured):
    assert configured.run("ppin_config", content=NEW, validate=False)["changed"]
    assert configured.info()["orphans"] == ["P2"]


def test_a_folder_that_is_not_there(client, tmp_path):
    result = client.run("ppin_config", content=NEW, config_path=str(tmp_path / "none/primus.cfg"))
    assert result["failed"] and "cannot be opened" in result["msg"]


def test_no_timeout(client):
    result = client.run("ppin_config", content=NEW, timeout=0)
    assert result["failed"] and result["msg"].startswith("timeout must be at least 1")


def test_a_folder_in_its_place(client, tmp_path):
    result = client.run("ppin_config", content=NEW, config_path=str(tmp_path))
    assert result["failed"] and "cannot be put in place: %s: Is a directory. " % tmp_path in result["msg"]
    assert result["error"]["class"] == "permission"
