# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real ppin against a running emulator: each command, each documented output, each switch."""

import base64
import json
import os
import re
import signal
import stat
import subprocess
import time

import libconf
import pexpect
import pytest
from primus_emulator import codes
from primus_emulator.secrets_file import SecretsFile

# The credentials of conftest.py's emulator.
SETUP = "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3"
PKCS11 = "the PKCS#11 password"
PROXY = "the proxy password"

STARS = "*" * 20
HEADER = "%s\nPrimus Permanent PIN\n%s\n" % (STARS, STARS)
ADD = ("-a", "-e", "HSM_USERNAME")
ADD_GIVEN = (*ADD, SETUP, PKCS11)
UPDATE_GIVEN = ("-u", "-e", "HSM_USERNAME", SETUP, PKCS11)
ANSWERS = [SETUP, PKCS11]

# As published.
TRANSCRIPT_ADD = (
    HEADER
    + "Provide setup password for 'HSM_USERNAME': \n"
    + "Provide PKCS11 password for 'HSM_USERNAME': \n"
    + HEADER
    + "[01] slot-id 0: user 'HSM_USERNAME' permanent secret: Configured\n"
)
TRANSCRIPT_REMOVE = HEADER + "[01] slot-id 0: user 'HSM_USERNAME' permanent secret: MISSING\n"
TRANSCRIPT_PROXY_ADD = (
    HEADER
    + "Provide proxy password for 'SERVICE_USER' : \n\n"
    + HEADER
    + "[01] slot-id 0:    user 'HSM_USERNAME' permanent secret: MISSING\n"
    + "[01] service/proxy user 'SERVICE_USER' permanent secret: Configured\n"
)
TRANSCRIPT_THREE = (
    HEADER
    + "[01] slot-id 0:    user 'Partition-1'   permanent secret: Configured\n"
    + "[02] slot-id 1:    user 'Partition-2'   permanent secret: Configured\n"
    + "[03] slot-id 5:    user 'CLOUDHSMPAR'  permanent secret: MISSING\n"
    + "[04] slot-id 0:    user 'Partition-1'   permanent secret: Configured\n"
    + "[05] slot-id 1:    user 'Partition-2'   permanent secret: Configured\n"
    + "[06] slot-id 5:    user 'CLOUDHSMPAR'  permanent secret: MISSING\n"
    + "[01] service/proxy user 'eqabxrfnqqos'  permanent secret: MISSING\n"
    + "[02] service/proxy user 'eqabxrfnqqos'  permanent secret: MISSING\n"
)
TRANSCRIPT_PROXY_REMOVE = HEADER + "[01] service/proxy user 'SERVICE_USER' permanent secret: MISSING\n"
TRANSCRIPT_TEST_PLAIN = (
    "Load config file: '%s'\n"
    "\n"
    "hsm0: Connect to %s port %s, firmware: RP-2.10.0-T\n"
    "          slot0 (id=0), user=HSM_USERNAME: OK\n"
    "          slot1 (id=1), user=OTHER: CKR_TOKEN_NOT_PRESENT\n"
)
TRANSCRIPT_TEST = (
    "Load config file: '%s'\n"
    "\n"
    "hsm0: Connect to '%s' on port %s, firmware: RP-2.10.0-T \n"
    "    slot0 (id=2), user=HSM_USERNAME: OK\n"
    "\n"
    "Number of tested HSMs: 1 (number of partitions: 1)\n"
    "Number of failures: 0\n"
)


def one_node(client):
    """Keep hsm0 alone in primus.cfg, as the transcripts have it."""
    config = libconf.loads(client.config.read_text())
    hsms = config["primus"]["hsms"]
    for name in list(hsms)[1:]:
        del hsms[name]
    client.config.write_text(libconf.dumps(config))
    return hsms["hsm0"]


def states(client):
    """The state words of the listing."""
    listed = client.run("-l")
    assert listed.returncode == 0, listed
    return re.findall(rb"secret: (\w+)", listed.stdout)


def sources(admin):
    return [(entry["kind"], entry["verdict"], entry["source"]) for entry in admin.call("report")]


@pytest.fixture
def client(make_client):
    return make_client()


@pytest.fixture
def configured(client):
    assert client.run(*ADD_GIVEN).returncode == 0
    return client


@pytest.fixture
def set_limits(admin, state, tmp_path):
    """Reset the emulator with other limits: set_limits(name=value, …)."""
    config = json.loads((state / "config.json").read_text())

    def change(**limits):
        (tmp_path / "config.json").write_text(json.dumps({**config, "limits": limits}))
        admin.call("reset", config=str(tmp_path / "config.json"))

    yield change
    admin.call("reset", config=str(state / "config.json"))


@pytest.fixture
def both_secrets(make_client):
    """The text of a secrets file with the permanent secrets of both partitions."""
    client = make_client("HSM_USERNAME", "OTHER")
    for partition in ("HSM_USERNAME", "OTHER"):
        assert client.run("-a", "-e", partition, SETUP, PKCS11).returncode == 0
    return client.secrets.read_text()


# Documented outputs


def test_add_as_published(client):
    one_node(client)
    assert client.converse(*ADD, answers=ANSWERS) == (TRANSCRIPT_ADD, 0)


def test_update_as_published(configured):
    one_node(configured)
    before = SecretsFile.load(configured.secrets).users
    assert configured.converse("-u", "-e", "HSM_USERNAME", answers=ANSWERS) == (TRANSCRIPT_ADD, 0)
    assert SecretsFile.load(configured.secrets).users != before


def test_remove_as_published(configured):
    one_node(configured)
    assert configured.converse("-r", "-e", "HSM_USERNAME", answers=[]) == (TRANSCRIPT_REMOVE, 0)
    assert SecretsFile.load(configured.secrets).users == {}


def test_proxy_add_as_published(make_client):
    client = make_client("HSM_USERNAME:0:SERVICE_USER", listing="proxy_add")
    one_node(client)
    assert client.converse("-p", "-e", "SERVICE_USER", answers=[PROXY]) == (TRANSCRIPT_PROXY_ADD, 0)


def test_proxy_remove_as_published(make_client):
    client = make_client("HSM_USERNAME:0:SERVICE_USER")
    one_node(client)
    assert client.run("-p", "-e", "SERVICE_USER", PROXY).returncode == 0
    assert client.converse("-x", "-e", "SERVICE_USER", answers=[]) == (TRANSCRIPT_PROXY_REMOVE, 0)


def test_list_three_partitions_as_published(make_client):
    client = make_client("Partition-1:0", "Partition-2:1", listing="three")
    config = libconf.loads(client.config.read_text())
    for hsm in config["primus"]["hsms"].values():
        hsm["slots"]["slot2"] = {"user_name": "CLOUDHSMPAR", "id": 5, "proxy_user": "eqabxrfnqqos"}
    client.config.write_text(libconf.dumps(config))
    entries = SecretsFile()
    entries.users = dict.fromkeys(["Partition-1", "Partition-2"], base64.b64encode(bytes(64)).decode())
    client.secrets.write_text(entries.text())
    assert client.run("-l").stdout.decode() == TRANSCRIPT_THREE


def test_test_as_published(make_client):
    client = make_client("HSM_USERNAME:2")
    assert client.run(*ADD_GIVEN).returncode == 0
    hsm = one_node(client)
    tested = client.run("--test")
    assert tested.stdout.decode() == TRANSCRIPT_TEST % (client.config, hsm["host"], hsm["port"])
    assert tested.returncode == 0


def test_test_as_published_in_the_plain_form(make_client):
    client = make_client("HSM_USERNAME", "OTHER", test_form="plain", test_failure="token_not_present")
    assert client.run(*ADD_GIVEN).returncode == 0
    hsm = one_node(client)
    tested = client.run("--test")
    assert tested.stdout.decode() == TRANSCRIPT_TEST_PLAIN % (client.config, hsm["host"], hsm["port"])


def test_fetch_log_has_the_published_form(configured, tmp_path):
    fetch = ("--fetchlog", "--user", "HSM_USERNAME", "--hsm", "hsm0")
    lines = configured.run(*fetch, "--since", "2021-04-01").stdout.decode().splitlines()
    assert lines[:3] == [
        "Dump log starting from 2021-04-01 00:00 UTC",
        "Fetching log from HSM.",
        "Number of slots: 1",
    ]
    line = r"\d{4} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d UTC NUFENEN (notice|info|err) \w+ Process: .+"
    assert all(re.fullmatch(line, text) for text in lines[3:])
    assert "with setup password" in lines[3]
    assert "with permanent secret" in lines[-2]

    out = tmp_path / "log.txt"
    assert len(configured.run(*fetch, "--reverse", "--out", str(out)).stdout.splitlines()) == 2
    assert "with setup password" in out.read_text().splitlines()[-1]


def test_fetch_log_knows_an_hsm_by_its_host(configured):
    fetch = ("--fetchlog", "--user", "HSM_USERNAME", "--hsm")
    assert configured.run(*fetch, "127.0.0.1").returncode == 0
    assert configured.run(*fetch, "hsm7").returncode == 1
    assert configured.run(*fetch, "hsm0", "--since", "yesterday").returncode == 1


@pytest.mark.parametrize("way", ["refused", "empty"])
def test_a_log_that_clients_may_not_fetch(configured, set_limits, way):
    set_limits(client_log=False, client_log_off=way)
    ended = configured.run("--fetchlog", "--user", "HSM_USERNAME", "--hsm", "hsm0")
    if way == "refused":
        assert code_of(ended) == 0x80000069
    else:
        assert (ended.stdout, ended.returncode) == (b"Fetching log from HSM.\nNumber of slots: 1\n", 0)


def test_a_one_time_setup_password_serves_one_client(make_client, set_limits):
    set_limits(lifespan_setup_pwd=0)
    first, second = make_client(), make_client()
    assert code_of(first.run(*ADD, SETUP, "wrong")) == codes.WRONG_PKCS11_PASSWORD
    assert first.run(*ADD_GIVEN).returncode == 0
    assert code_of(second.run(*ADD_GIVEN)) == codes.SETUP_PASSWORD_EXPIRED
    assert first.run("--test").returncode == 0


def test_version_and_usage(client):
    assert client.run("-v").stdout == b"Primus HSM PKCS#11 2.2.4\n"
    usage = client.run("-h").stdout
    assert usage.startswith(b"Usage: ppin")
    assert b" --fortinet --user U [SETUP [PIN]] [--proxyuser P [--proxypwd W]]\n" in usage
    client.set(version="1.8.1")
    assert client.run("-v").stdout == b"Primus HSM PKCS#11 1.8.1\n"


@pytest.mark.parametrize(
    ("version", "has_test", "has_fortinet"),
    [
        ("1.7.36", False, False),
        ("1.8.0", False, False),
        ("1.8.1", True, False),
        ("1.8.10", True, False),
        ("1.10.0", True, False),
        ("2.2.3", True, False),
        ("2.2.4", True, True),
        ("2.2.10", True, True),
        ("10.0", True, True),
    ],
)
def test_commands_of_a_version(configured, version, has_test, has_fortinet):
    configured.set(version=version)
    usage = configured.run("-h").stdout
    fortinet = ("--fortinet", "--user", "HSM_USERNAME", SETUP, PKCS11)
    commands = (
        (b"--test", ("--test",), has_test),
        (b"-t,", ("-t",), has_test),
        (b"--fortinet", fortinet, has_fortinet),
    )
    for word, command, known in commands:
        assert (word in usage) == known
        ended = configured.run(*command)
        assert (ended.returncode == 0) == known
        assert (b"ppin: unknown option %s\nUsage: ppin" % command[0].encode() in ended.stderr) == (not known)


# A wrong command line


@pytest.mark.parametrize(
    "arguments",
    [(), ("-q",), ("--user",), ("-a",), ("-l", "-a", "-e", "X"), ("-l", "word"), ("--fetchlog", "--user", "X")],
)
def test_wrong_command_line(client, arguments):
    ended = client.run(*arguments)
    assert ended.returncode == 1
    assert b"Usage: ppin" in ended.stderr


# Commands


def test_joined_flags_and_passwords_as_arguments(client, admin):
    assert client.run("-ae", "HSM_USERNAME", SETUP, PKCS11).returncode == 0
    assert states(client) == [b"Configured"] * 2
    assert sources(admin) == [("setup", "ok", "argv"), ("pkcs11", "ok", "argv")]


def test_passwords_typed_at_a_terminal(client, admin):
    screen, status = client.converse(*ADD, answers=ANSWERS)
    assert status == 0
    assert SETUP not in screen
    assert sources(admin) == [("setup", "ok", "terminal"), ("pkcs11", "ok", "terminal")]


def test_passwords_from_a_pipe(client, admin):
    assert client.run(*ADD, input=("%s\n%s\n" % (SETUP, PKCS11)).encode()).returncode == 0
    assert sources(admin) == [("setup", "ok", "stdin"), ("pkcs11", "ok", "stdin")]


def test_setup_password_given_and_the_other_asked(client, admin):
    assert client.run(*ADD, SETUP, input=PKCS11.encode() + b"\n").returncode == 0
    assert sources(admin) == [("setup", "ok", "argv"), ("pkcs11", "ok", "stdin")]


def test_files_are_found_in_the_documented_order(client, tmp_path):
    primary = tmp_path / "primary"
    primary.mkdir()
    client.set(system_etc=str(primary))

    def partition_listed(*flags, **environment):
        listed = client.run(*flags, "-l", env={**os.environ, **environment})
        return re.search(rb"user '(\w+)'", listed.stdout).group(1).decode()

    def write(path, name):
        path.write_text(client.config.read_text().replace("HSM_USERNAME", name))
        return str(path)

    assert partition_listed() == "HSM_USERNAME"
    write(primary / "primus.cfg", "PRIMARY")
    assert partition_listed() == "PRIMARY"
    environment = {"SECUROSYS_PKCS11_CONF": write(tmp_path / "environment.cfg", "ENVIRONMENT")}
    assert partition_listed(**environment) == "ENVIRONMENT"
    assert partition_listed("-c", write(tmp_path / "flag.cfg", "FLAG"), **environment) == "FLAG"


def test_secrets_file_of_the_environment(client, tmp_path):
    elsewhere = tmp_path / "elsewhere.cfg"
    elsewhere.write_bytes(client.secrets.read_bytes())
    assert client.run(*ADD_GIVEN, env={**os.environ, "SECUROSYS_SECRETS_CONF": str(elsewhere)}).returncode == 0
    assert list(SecretsFile.load(elsewhere).users) == ["HSM_USERNAME"]
    assert SecretsFile.load(client.secrets).users == {}


def test_rewriting_keeps_mode_owner_and_inode(client):
    client.secrets.chmod(0o660)
    before = client.secrets.stat()
    assert client.run(*ADD_GIVEN).returncode == 0
    after = client.secrets.stat()
    assert stat.S_IMODE(after.st_mode) == 0o660
    assert (after.st_ino, after.st_uid, after.st_gid) == (before.st_ino, before.st_uid, before.st_gid)


def test_secrets_are_ciphered_and_work_on_another_machine(configured, make_client):
    carried = configured.secrets.read_bytes()
    assert SETUP.encode() not in carried
    elsewhere = make_client()
    assert elsewhere.prefix != configured.prefix
    elsewhere.secrets.write_bytes(carried)
    assert elsewhere.run("--test").returncode == 0


def test_a_partition_behind_the_proxy(make_client, admin):
    client = make_client("HSM_USERNAME:7:SERVICE_USER")
    assert b"0x8000000A" in client.run(*ADD_GIVEN).stderr
    assert sources(admin) == []
    assert b"0x80005017" in client.run("-p", "-e", "SERVICE_USER", "wrong").stderr
    assert states(client) == [b"MISSING"] * 4
    assert client.run("-p", "-e", "SERVICE_USER", PROXY).returncode == 0
    assert client.run(*ADD_GIVEN).returncode == 0
    assert states(client) == [b"Configured"] * 4
    assert client.run("--test").returncode == 0
    admin.call("set-proxy-password", user="SERVICE_USER", value="changed")
    assert client.run("--test").stdout.count(b"failed: 0x80005017") == 2
    assert client.run("-x", "-e", "SERVICE_USER").returncode == 0
    assert states(client) == [b"Configured"] * 2 + [b"MISSING"] * 2


def test_a_proxy_password_in_primus_cfg(make_client):
    client = make_client("HSM_USERNAME:7:SERVICE_USER")
    config = libconf.loads(client.config.read_text())
    for hsm in config["primus"]["hsms"].values():
        hsm["slots"]["slot0"]["proxy_password"] = PROXY
    client.config.write_text(libconf.dumps(config))
    assert client.run(*ADD_GIVEN).returncode == 0


def test_direct_and_proxied_partitions_in_one_config(make_client):
    client = make_client("HSM_USERNAME", "OTHER:5:SERVICE_USER")
    listed = client.run("-l").stdout.decode().splitlines()[3:]
    assert [line.split(" permanent")[0] for line in listed] == [
        "[01] slot-id 0: user 'HSM_USERNAME'",
        "[02] slot-id 0: user 'HSM_USERNAME'",
        "[03] slot-id 5: user 'OTHER'",
        "[04] slot-id 5: user 'OTHER'",
        "[01] service/proxy user 'SERVICE_USER'",
        "[02] service/proxy user 'SERVICE_USER'",
    ]


@pytest.mark.parametrize(
    ("switch", "known"),
    [("both", ["proxypwd", "proxypassword"]), ("proxypwd", ["proxypwd"]), ("proxypassword", ["proxypassword"])],
)
def test_fortinet_knows_its_option_by_either_name(make_client, switch, known):
    client = make_client("HSM_USERNAME:0:SERVICE_USER", fortinet_proxy_option=switch)
    command = ("--fortinet", "--user", "HSM_USERNAME", SETUP, PKCS11, "--proxyuser", "SERVICE_USER")
    for name in ("proxypwd", "proxypassword"):
        ended = client.run(*command, "--" + name, PROXY)
        assert (ended.returncode == 0) == (name in known)
        assert (b"unknown option --%s" % name.encode() in ended.stderr) == (name not in known)
    assert "[--proxyuser P [--%s W]]" % known[0] in client.run("-h").stdout.decode()


def test_fortinet_prints_a_secrets_file(make_client, tmp_path):
    client = make_client("HSM_USERNAME:0:SERVICE_USER")
    before = client.secrets.read_bytes()
    arguments = ("--fortinet", "--user", "HSM_USERNAME", SETUP, PKCS11, "--proxyuser", "SERVICE_USER")
    printed = client.run(*arguments, "--proxypwd", PROXY)
    file = tmp_path / "secrets"
    file.write_bytes(base64.b64decode(printed.stdout, validate=False))
    entries = SecretsFile.load(file)
    assert (list(entries.users), list(entries.proxies)) == (["HSM_USERNAME"], ["SERVICE_USER"])
    assert client.secrets.read_bytes() == before


# Failures


def code_of(ended):
    """The code in a failure's message."""
    assert ended.returncode == 1, ended
    return int(re.search(rb"0x[0-9A-Fa-f]{8}", ended.stderr).group(), 16)


def configuration(settings):
    return 'primus = { hsms = { hsm0 = { host = "h"; port = "1"; slots = { slot0 = { %s } } } } }' % settings


# primus.cfg and other files, and the slot id and the user that are listed, as libconfig 1.8.2 reads them.
SYNTAX = {
    "binary": ({"primus.cfg": configuration('user_name = "U"; id = 0b101L; a0b1 = 2;')}, "slot-id 5: user 'U'"),
    "octal": ({"primus.cfg": configuration('user_name = "U", id = 0o17')}, "slot-id 15: user 'U'"),
    "octal with q": ({"primus.cfg": configuration('user_name = "U"; id = 0Q17LL;')}, "slot-id 15: user 'U'"),
    "a leading zero": (
        {"primus.cfg": configuration('user_name = "U"; id = +010; f = -01.5e-07;')},
        "slot-id 10: user 'U'",
    ),
    "backslashes": (
        {"primus.cfg": configuration(r'user_name = "EXAMPLE\user\\\"\xC3\XbC"; id = 0;')},
        "slot-id 0: user 'EXAMPLE\\user\\\"ü'",
    ),
    "what looks like it": (
        {"primus.cfg": '/* \n@include "x" */\n' + configuration('user_name = "0b1 # 0o7 // 010"; id = 0; # 010\n')},
        "slot-id 0: user '0b1 # 0o7 // 010'",
    ),
    "included": (
        {
            "primus.cfg": configuration('\n \t@include\t"more/slot.cfg" // more\r\n'),
            "more/slot.cfg": 'user_name =\n@include "user \\"1\\".cfg"\nid = 3 // no line end',
            'more/user "1".cfg': '"U"',
        },
        "slot-id 3: user 'U'",
    ),
    "byte order marks": (
        {"primus.cfg": '\ufeff@include "x"', "x": "\ufeff" + configuration('user_name = "U"; id = 3')},
        "slot-id 3: user 'U'",
    ),
    "ten deep": (
        {
            "primus.cfg": '@include "1"',
            **{str(i): '@include "%d"' % (i + 1) for i in range(1, 10)},
            "10": configuration('user_name = "U"; id = 3'),
        },
        "slot-id 3: user 'U'",
    ),
}
GOOD = configuration('user_name = "U"; id = 3')
BAD_SYNTAX = {
    "a byte order mark within": {"primus.cfg": GOOD + "\ufeff"},
    "a file that is missing": {"primus.cfg": '@include "x"\n' + GOOD},
    "a file that includes itself": {"primus.cfg": '@include "primus.cfg"\n' + GOOD},
    "a digit too large": {"primus.cfg": GOOD.replace("3", "0b2")},
}


def write(client, files):
    for name, text in files.items():
        path = client.config.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")


@pytest.mark.parametrize(("files", "listed"), SYNTAX.values(), ids=SYNTAX)
def test_the_syntax_of_primus_cfg(client, files, listed):
    write(client, files)
    assert listed in re.sub(" +", " ", client.run("-l").stdout.decode())


@pytest.mark.parametrize("files", BAD_SYNTAX.values(), ids=BAD_SYNTAX)
def test_what_is_no_primus_cfg(client, files):
    write(client, files)
    assert code_of(client.run("-l")) == codes.CONFIG_INVALID


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-a", "-e", "HSM_USERNAME", "wrong", PKCS11), codes.LOGIN_REJECTED),
        (("-a", "-e", "HSM_USERNAME", SETUP, "wrong"), codes.WRONG_PKCS11_PASSWORD),
        (("-a", "-e", "NOBODY", SETUP, PKCS11), codes.USER_NOT_CONFIGURED),
        (("-r", "-e", "NOBODY"), codes.USER_NOT_CONFIGURED),
        (("-p", "-e", "NOBODY", PROXY), codes.USER_NOT_CONFIGURED),
        (("-r", "-e", "HSM_USERNAME"), codes.REMOVE_FAILED),
        (UPDATE_GIVEN, codes.UPDATE_FAILED),
        (("-c", "/nowhere", "-l"), codes.CONFIG_NOT_FOUND),
        (("-s", "/nowhere", "-l"), codes.SECRETS_NOT_FOUND),
        (("-c", "/dev/null", "-l"), codes.CONFIG_INVALID),
        (("-s", "/dev/null", "-l"), codes.SECRETS_INVALID),
    ],
)
def test_failures(client, arguments, code):
    assert code_of(client.run(*arguments)) == code
    assert states(client) == [b"MISSING"] * 2


@pytest.mark.parametrize(
    ("command", "args", "code"),
    [
        ("lock", {"partition": "HSM_USERNAME"}, codes.LOGIN_REJECTED),
        ("disable", {"partition": "HSM_USERNAME"}, codes.PARTITION_DISABLED),
        ("disable-during", {"partition": "HSM_USERNAME"}, codes.PARTITION_DISABLED),
        ("expire", {"partition": "HSM_USERNAME"}, codes.SETUP_PASSWORD_EXPIRED),
        ("expire-during", {"partition": "HSM_USERNAME"}, codes.SETUP_PASSWORD_EXPIRED),
        ("busy", {"count": 1}, codes.TOO_MANY_CONNECTIONS),
        ("network", {"state": "down"}, codes.CONNECT_FAILED),
    ],
)
def test_what_the_hsm_refuses(client, admin, command, args, code):
    admin.call(command, **args)
    assert code_of(client.run(*ADD_GIVEN)) == code


def test_a_partition_that_the_hsm_does_not_have(make_client):
    client = make_client("STRANGER")
    assert code_of(client.run("-a", "-e", "STRANGER", SETUP, PKCS11)) == codes.USER_NOT_FOUND


def test_a_failed_update_removes_the_entry(configured):
    assert code_of(configured.run("-u", "-e", "HSM_USERNAME", "wrong", PKCS11)) == codes.LOGIN_REJECTED
    assert states(configured) == [b"MISSING"] * 2
    assert code_of(configured.run(*UPDATE_GIVEN)) == codes.UPDATE_FAILED
    assert configured.run(*ADD_GIVEN).returncode == 0


def test_a_failed_update_may_keep_the_entry(configured):
    configured.set(keep_entry_on_failed_update=True)
    assert code_of(configured.run("-u", "-e", "HSM_USERNAME", "wrong", PKCS11)) == codes.LOGIN_REJECTED
    assert states(configured) == [b"Configured"] * 2


def test_a_garbled_element(configured):
    content = configured.secrets.read_text()
    configured.secrets.write_text(re.sub(r'secret = "[^"]*"', 'secret = "AAAA"', content))
    assert code_of(configured.run("-l")) == codes.ELEMENT_INVALID
    configured.secrets.write_text(content[: len(content) // 2])
    assert code_of(configured.run("-l")) == codes.SECRETS_INVALID


def test_the_next_node_is_used_when_one_is_down(client, admin):
    admin.call("network", node="hsm0", state="down")
    assert client.run(*ADD_GIVEN).returncode == 0
    assert [entry["node"] for entry in admin.call("report")] == ["hsm1", "hsm1"]


def test_test_names_a_node_that_is_down(configured, admin):
    hsm = libconf.loads(configured.config.read_text())["primus"]["hsms"]["hsm1"]
    admin.call("network", node=1, state="down")
    tested = configured.run("--test")
    assert tested.returncode == 1
    assert "\nhsm1: Connect to '127.0.0.1' on port %s failed: 0x80005015\n" % hsm["port"] in tested.stdout.decode()
    assert tested.stdout.endswith(b"Number of tested HSMs: 2 (number of partitions: 1)\nNumber of failures: 1\n")


def test_test_tells_a_stale_secret_which_costs_a_trial_a_node(configured, admin):
    admin.call("rotate-secret", partition="HSM_USERNAME")
    tested = configured.run("--test")
    assert tested.returncode == 1
    assert tested.stdout.count(b"    slot0 (id=0), user=HSM_USERNAME: FAILED (0x80005017)\n") == 2
    assert admin.call("report-summary")["partitions"]["HSM_USERNAME"]["trials"] == 2


@pytest.mark.parametrize(
    ("filters", "hsms", "partitions"),
    [
        ((), 2, 4),
        (("--hsm", "hsm1"), 1, 2),
        (("--hsm", "127.0.0.1"), 2, 4),
        (("--hsm", "hsm9"), 0, 0),
        (("--user", "OTHER"), 2, 2),
        (("--user", "OTHER", "--hsm", "hsm0"), 1, 1),
        (("--slot", "slot0"), 2, 2),
        (("--slotid", "9"), 2, 2),
        (("--slotid", "10"), 0, 0),
    ],
)
def test_test_filters(make_client, filters, hsms, partitions):
    client = make_client("HSM_USERNAME:3", "OTHER:9")
    for partition in ("HSM_USERNAME", "OTHER"):
        assert client.run("-a", "-e", partition, SETUP, PKCS11).returncode == 0
    expected = "Number of tested HSMs: %d (number of partitions: %d)\nNumber of failures: 0\n" % (hsms, partitions)
    assert client.run("-t", *filters).stdout.decode().endswith(expected)


def test_an_hsm_that_hangs_is_a_timeout(client, admin):
    client.set(timeout=0.3)
    admin.call("hang", state="on")
    assert code_of(client.run(*ADD_GIVEN)) == codes.CONNECT_TIMEOUT
    admin.call("hang", state="off")
    client.set(timeout=60)
    assert client.run(*ADD_GIVEN).returncode == 0
    assert sources(admin) == [("setup", "ok", "argv"), ("pkcs11", "ok", "argv")]


def test_a_slow_hsm_answers(client, admin):
    admin.call("slow", seconds=0.01)
    assert client.run(*ADD_GIVEN).returncode == 0


# Switches of the output


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({}, "Error: 0x8000000B"),
        ({"error_hex": "lower"}, "Error: 0x8000000b"),
        ({"error_text": "meaning"}, "Error 0x8000000B: login failed, wrong PKCS#11 PIN"),
        ({"error_text": "paren"}, "Operation failed: login failed, wrong PKCS#11 PIN (0x8000000B)"),
        ({"error_text": "trailing"}, "ppin: login failed, wrong PKCS#11 PIN, error code 0x8000000B"),
        ({"fail_without_code": True}, "Error: login failed, wrong PKCS#11 PIN"),
    ],
)
def test_error_wording(client, switches, message):
    client.set(**switches)
    assert client.run("-a", "-e", "HSM_USERNAME", SETUP, "wrong").stderr.decode() == message + "\n"


@pytest.mark.parametrize(
    ("wording", "text"),
    [
        ("form", {"quoted": "FAILED (0x8000000A)", "plain": "CKR_USER_PIN_NOT_INITIALIZED"}),
        ("paren", "FAILED (0x8000000A)"),
        ("colon", "ERROR: 0x8000000A"),
        ("text", "login failed, error 0x8000000A"),
        ("ckr", "CKR_USER_PIN_NOT_INITIALIZED"),
        ("token_not_present", "CKR_TOKEN_NOT_PRESENT"),
    ],
)
@pytest.mark.parametrize("form", ["quoted", "plain"])
def test_failure_wording_of_test(client, form, wording, text):
    client.set(test_form=form, test_failure=wording)
    text = text if isinstance(text, str) else text[form]
    assert "user=HSM_USERNAME: %s\n" % text in client.run("--test").stdout.decode()


@pytest.mark.parametrize(
    ("command", "args", "name"),
    [
        ("rotate-secret", {"partition": "HSM_USERNAME"}, "CKR_PIN_INCORRECT"),
        ("disable", {"partition": "HSM_USERNAME"}, "CKR_DEVICE_ERROR"),
        ("busy", {"count": 1}, "CKR_DEVICE_ERROR"),
    ],
)
def test_pkcs11_names_of_test(configured, admin, command, args, name):
    configured.set(test_failure="ckr")
    one_node(configured)
    admin.call(command, **args)
    assert "user=HSM_USERNAME: %s\n" % name in configured.run("--test").stdout.decode()


# What is printed of hsm1, which is down, and the HSMs, partitions and failures that are counted.
UNREACHABLE = {
    "colon_code": ("{connect} failed: 0x80005015\n", (2, 2, 1)),
    "bare": ("{connect} failed\n", (2, 2, 1)),
    "code_paren": ("{connect} failed (0x80005015)\n", (2, 2, 1)),
    "name": ("{connect}: CKR_TOKEN_NOT_PRESENT\n", (2, 2, 1)),
    "no_line": (None, (1, 2, 0)),
    "firmware_none": ("{connect}\n{slots}", (2, 4, 2)),
    "firmware_unknown": ("{connect}, firmware: unknown{blank}\n{slots}", (2, 4, 2)),
}


@pytest.mark.parametrize("counters", ["form", "on", "off"])
@pytest.mark.parametrize("form", ["quoted", "plain"])
@pytest.mark.parametrize(("way", "printed", "counts"), [(way, *rest) for way, rest in UNREACHABLE.items()])
def test_an_hsm_that_is_down_in_both_forms(make_client, both_secrets, admin, form, counters, way, printed, counts):
    client = make_client("HSM_USERNAME:3", "OTHER:9", test_form=form, test_hsm_failure=way, test_counters=counters)
    client.secrets.write_text(both_secrets)
    hsms = libconf.loads(client.config.read_text())["primus"]["hsms"]
    admin.call("network", node=1, state="down")
    tested = client.run("--test")

    connects = ["%s: Connect to 127.0.0.1 port %s" % (name, hsm["port"]) for name, hsm in hsms.items()]
    indent, blank = " " * 10, ""
    if form == "quoted":
        connects = [line.replace("127.0.0.1", "'127.0.0.1' on") for line in connects]
        indent, blank = " " * 4, " "
    slots = [indent + text for text in ("slot0 (id=3), user=HSM_USERNAME: %s\n", "slot1 (id=9), user=OTHER: %s\n")]
    paragraphs = ["%s, firmware: RP-2.10.0-T%s\n%s" % (connects[0], blank, "".join(slots) % ("OK", "OK"))]
    if printed:
        failed = "".join(slots) % (("CKR_TOKEN_NOT_PRESENT",) * 2)
        paragraphs.append(printed.format(connect=connects[1], slots=failed, blank=blank))
    if counters == "on" or (counters == "form" and form == "quoted"):
        numbers = "Number of tested HSMs: %d (number of partitions: %d)\nNumber of failures: %d\n"
        paragraphs.append(numbers % counts)
    expected = "Load config file: '%s'\n\n%s" % (client.config, "\n".join(paragraphs))
    assert (tested.stdout.decode(), tested.returncode) == (expected, 1 if counts[2] else 0)


def test_slot_ids_in_hexadecimal(make_client):
    client = make_client("HSM_USERNAME:1", "OTHER:26", slot_id_format="hex")
    for command, form in (("-l", r"slot-id (\w+): "), ("--test", r"slot\d \(id=(\w+)\), ")):
        assert re.findall(form, client.run(command).stdout.decode()) == ["0x00000001", "0x0000001a"] * 2


def test_removing_a_proxy_password_may_list_everything(make_client):
    client = make_client("HSM_USERNAME:0:SERVICE_USER", proxy_remove_listing="all")
    one_node(client)
    assert client.run("-p", "-e", "SERVICE_USER", PROXY).returncode == 0
    removed = client.run("-x", "-e", "SERVICE_USER").stdout.decode()
    slot = "[01] slot-id 0: user 'HSM_USERNAME' permanent secret: MISSING\n"
    assert removed == TRANSCRIPT_PROXY_REMOVE.replace("[01] service", slot + "[01] service")


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        (None, "default.log"),
        ({}, "default.log"),
        ({"file": "own.log"}, "own.log"),
        ({"file": "own.log", "write_log_file": True}, "own.log"),
        ({"file": "own.log", "write_log_file": False}, None),
        ({"write_log_file": False}, None),
        ({"file": "nowhere/own.log"}, None),
    ],
)
def test_the_log_file_of_the_provider(client, tmp_path, settings, written):
    config = libconf.loads(client.config.read_text())
    del config["primus"]["log"]
    if settings is not None:
        if "file" in settings:
            settings = {**settings, "file": str(tmp_path / settings["file"])}
        config["primus"]["log"] = settings
    client.config.write_text(libconf.dumps(config))
    assert client.run("-l").returncode == 0
    assert list(tmp_path.glob("*.log")) == []
    client.set(default_log_file=str(tmp_path / "default.log"))
    for _time in range(2):
        assert client.run("-l").returncode == 0
    assert [path.name for path in tmp_path.glob("*.log")] == ([written] if written else [])
    assert not written or len((tmp_path / written).read_text().splitlines()) == 2


def test_streams(client):
    client.set(output_stream="stderr", message_stream="stdout")
    assert client.run("-l").stdout == b""
    assert client.run("-r", "-e", "HSM_USERNAME").stdout == b"Error: 0x80005011\n"


def test_exit_statuses(client):
    client.set(exit_success=3, exit_failure=0)
    assert client.run("-l").returncode == 3
    assert client.run("-r", "-e", "HSM_USERNAME").returncode == 0
    assert client.run("--test").returncode == 0


def test_line_ends(client):
    client.set(crlf=True, trailing_spaces=2)
    lines = client.run("-l").stdout.split(b"\n")
    assert len(lines) == 6
    assert all(line.endswith(b"  \r") for line in lines[:-1])


def test_escape_sequences(client):
    client.set(escape_sequences=True)
    assert b"\x1b[1m[01] slot-id 0: user 'HSM_USERNAME' permanent secret: MISSING\x1b[0m\n" in client.run("-l").stdout


def test_noise(client):
    client.set(print_mb=2, binary_noise=True)
    printed = client.run("-l").stdout
    assert len(printed) > 2 * 1024 * 1024
    assert bytes(range(256)) in printed


def test_a_ppin_that_prints_what_it_is_given(client):
    client.set(echo_secrets=True)
    assert SETUP in client.converse(*ADD, answers=ANSWERS)[0]


@pytest.mark.parametrize(
    ("lie", "before", "after_failure"),
    [("always", b"Configured", b"Configured"), ("changes", b"MISSING", b"Configured")],
)
def test_a_ppin_that_lies(client, lie, before, after_failure):
    client.set(lie_configured=lie)
    assert states(client) == [before] * 2
    ended = client.run("-a", "-e", "HSM_USERNAME", "wrong", PKCS11)
    assert (b"secret: " + after_failure in ended.stdout) == (lie == "changes")
    assert SecretsFile.load(client.secrets).users == {}


# Switches of the dialogue


def test_prompts_on_the_terminal_when_stdin_and_stdout_are_not(client, admin):
    client.set(input="tty")
    inner = "%s -a -e HSM_USERNAME </dev/null >%s" % (client.prefix / "bin/ppin", client.prefix / "out")
    child = pexpect.spawn("/bin/sh", ["-c", inner], timeout=60, encoding="utf-8")
    for answer in ANSWERS:
        child.expect(": ")
        assert child.waitnoecho(60)
        child.sendline(answer)
    child.expect(pexpect.EOF)
    assert sources(admin) == [("setup", "ok", "terminal"), ("pkcs11", "ok", "terminal")]
    assert "Provide" not in (client.prefix / "out").read_text()


def test_no_terminal_to_ask_on(client):
    client.set(input="tty")
    assert client.run(*ADD, input=b"x\ny\n").stderr == b"Error: no terminal to ask on\n"


def test_end_of_file_at_a_prompt(client):
    assert client.run(*ADD, stdin=subprocess.DEVNULL).stderr == b"Error: no password given\n"


def test_echo_goes_off_before_the_prompt(client):
    child = client.spawn(*ADD)
    child.expect(": ")
    assert not child.getecho()


def test_echo_goes_off_late_and_drops_what_came_before(client, admin):
    client.set(echo_off_late_ms=3000)
    child = client.spawn(*ADD)
    child.expect("'HSM_USERNAME': ")
    assert child.getecho()
    child.sendline("too early")
    assert child.waitnoecho(60)
    child.sendline(SETUP)
    child.expect("'HSM_USERNAME': ")
    assert child.waitnoecho(60)
    child.sendline(PKCS11)
    child.expect(pexpect.EOF)
    assert [verdict for _kind, verdict, _source in sources(admin)] == ["ok", "ok"]


def test_type_ahead_may_be_kept(client, admin):
    client.set(echo_off_late_ms=300, flush_typeahead=False)
    child = client.spawn(*ADD)
    child.expect("'HSM_USERNAME': ")
    child.sendline(SETUP)
    child.sendline(PKCS11)
    child.expect(pexpect.EOF)
    assert [verdict for _kind, verdict, _source in sources(admin)] == ["ok", "ok"]


def test_echo_goes_off_once_for_all_prompts(client):
    client.set(echo_off_once=True, extra_question="And?", extra_question_at="after")
    child = client.spawn(*ADD)
    for answer in ANSWERS:
        child.expect("'HSM_USERNAME': ")
        child.sendline(answer)
    child.expect("And\\? ")
    assert not child.getecho()
    child.sendline("yes")
    child.expect("Configured")


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_question_that_nobody_knows(client, place):
    client.set(extra_question="Continue (y/n)?", extra_question_at=place)
    child = client.spawn(*ADD)
    prompts = ["'HSM_USERNAME': ", "'HSM_USERNAME': "]
    prompts.insert(0 if place == "before" else 2, r"Continue \(y/n\)\? ")
    answers = list(ANSWERS)
    answers.insert(0 if place == "before" else 2, "y")
    for prompt, answer in zip(prompts, answers):
        child.expect(prompt)
        child.sendline(answer)
    child.expect("Configured")


def test_prompt_order_and_new_lines(client):
    client.set(prompt_order="pkcs11-first", prompt_newline=True)
    child = client.spawn(*ADD)
    child.expect("PKCS11 password for 'HSM_USERNAME': \r\n")
    child.sendline(PKCS11)
    child.expect("setup password for 'HSM_USERNAME': \r\n")
    child.sendline(SETUP)
    child.expect("Configured")


def test_a_rejected_password_is_asked_for_again(client, admin):
    client.set(reprompt=1)
    screen, status = client.converse(*ADD, answers=["wrong", PKCS11, SETUP, PKCS11])
    assert status == 0
    assert screen.count("Provide setup password") == 2
    assert [verdict for _kind, verdict, _source in sources(admin)] == ["0x80005017", "ok", "ok"]


@pytest.mark.parametrize("place", ["start", "prompt", "after-password"])
def test_hanging_for_a_while(client, place):
    client.set(hang_at=place, hang_seconds="0.2")
    started = time.monotonic()
    assert client.converse(*ADD, answers=ANSWERS)[1] == 0
    assert time.monotonic() - started >= 0.2


# Switches of the secrets file, and sudden ends


def test_adding_what_is_there(configured):
    assert code_of(configured.run(*ADD_GIVEN)) == codes.DUPLICATE_ENTRY
    assert states(configured) == [b"Configured"] * 2


def test_adding_a_proxy_password_that_is_there(make_client):
    client = make_client("HSM_USERNAME:0:SERVICE_USER")
    add = ("-p", "-e", "SERVICE_USER", PROXY)
    assert client.run(*add).returncode == 0
    assert client.run(*add).returncode == 0
    for rule, code in (("duplicate", codes.DUPLICATE_ENTRY), ("duplicate_config", codes.ALREADY_CONFIGURED)):
        client.set(proxy_existing=rule)
        assert code_of(client.run(*add)) == code


@pytest.mark.parametrize(("write", "size"), [(1, 0), (2, 64), (3, 128)])
def test_killed_at_a_write(client, write, size):
    client.set(kill_at_write=write)
    assert client.run(*ADD_GIVEN).returncode == -signal.SIGKILL
    assert client.secrets.stat().st_size == size
    assert code_of(client.run("-l")) == codes.SECRETS_INVALID


@pytest.mark.parametrize(("place", "logins"), [("before-prompt", 0), ("after-prompt", 0), ("after-login", 2)])
def test_killed_at_a_place(configured, admin, place, logins):
    before = configured.secrets.read_bytes()
    configured.set(kill_at=place)
    done = len(admin.call("report"))
    assert configured.run(*UPDATE_GIVEN).returncode == -signal.SIGKILL
    assert len(admin.call("report")) - done == logins
    assert configured.secrets.read_bytes() == before
