# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of ppin before it runs: where its files are, and which passwords can be given to it at all."""

import os
import resource

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._ppin import command, dialogue, paths
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.paths import (
    PPIN_ARGUMENTS,
    Paths,
    check_password,
    check_setup_password,
    find_paths,
)

OPTIONS = ("executable", "primus_home", "config_path", "secrets_path")


def make(path, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    path.chmod(mode)
    return str(path)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder in place of /, with no provider. find(...) is find_paths with options; PATH has what path_has says."""
    for variable in ("PRIMUS_HOME", "SECUROSYS_PKCS11_CONF", "SECUROSYS_SECRETS_CONF"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(paths, "ETC", str(tmp_path / "etc/primus"))
    monkeypatch.setattr(paths, "PRIMUS_HOME", str(tmp_path / "usr/local/primus"))
    return tmp_path


def find(path_has=None, **options):
    asked = []

    def find_in_path(name):
        asked.append(name)
        return path_has

    paths = find_paths(dict(dict.fromkeys(OPTIONS), **options), find_in_path)
    assert asked in ([], ["ppin"])
    return paths


def test_the_default_places_are_the_vendors():
    assert (paths.ETC, paths.PRIMUS_HOME) == ("/etc/primus", "/usr/local/primus")


def test_the_options_are_those_that_are_looked_at():
    assert set(PPIN_ARGUMENTS) == {*OPTIONS, "timeout"}


def test_nothing_is_installed(machine):
    etc = machine / "etc/primus"
    assert find() == Paths(None, str(machine / "usr/local/primus"), str(etc / "primus.cfg"), str(etc / ".secrets.cfg"))


# What is there, from the one that wins to the one that is looked at last.
PLACES = ["option", "environment", "etc", "home"]


@pytest.mark.parametrize("first", range(len(PLACES)))
@pytest.mark.parametrize("home", ["default", "PRIMUS_HOME", "primus_home"])
@pytest.mark.parametrize(
    ("option", "variable", "name", "field"),
    [
        ("config_path", "SECUROSYS_PKCS11_CONF", "primus.cfg", "config"),
        ("secrets_path", "SECUROSYS_SECRETS_CONF", ".secrets.cfg", "secrets"),
    ],
)
def test_order_of_the_places_of_a_file(machine, monkeypatch, option, variable, name, field, home, first):
    options = {}
    homes = {
        "default": machine / "usr/local/primus",
        "PRIMUS_HOME": machine / "from environment",
        "primus_home": machine / "from option",
    }
    if home != "default":
        monkeypatch.setenv("PRIMUS_HOME", str(homes["PRIMUS_HOME"]))
    if home == "primus_home":
        options["primus_home"] = str(homes["primus_home"])
    files = {
        "option": machine / "option" / name,
        "environment": machine / "environment" / name,
        "etc": machine / "etc/primus" / name,
        "home": homes[home] / "etc" / name,
    }
    for other in homes.values():
        if other != homes[home]:
            make(other / "etc" / name)
    for place in PLACES[first:]:
        make(files[place])
    if first == PLACES.index("option"):
        options[option] = str(files["option"])
    if first <= PLACES.index("environment"):
        monkeypatch.setenv(variable, str(files["environment"]))
    paths = find(**options)
    assert getattr(paths, field) == str(files[PLACES[first]])
    assert paths.home == str(homes[home])


@pytest.mark.parametrize("option", ["config_path", "secrets_path", None])
def test_what_is_named_wins_even_when_it_is_not_there(machine, monkeypatch, option):
    for name in ("primus.cfg", ".secrets.cfg"):
        make(machine / "etc/primus" / name)
        make(machine / "usr/local/primus/etc" / name)
    missing = str(machine / "not there")
    if option:
        paths = find(**{option: missing})
        assert [paths.config, paths.secrets].count(missing) == 1
    else:
        monkeypatch.setenv("SECUROSYS_PKCS11_CONF", missing)
        monkeypatch.setenv("SECUROSYS_SECRETS_CONF", missing)
        assert find()[2:4] == (missing, missing)


def test_an_empty_variable_names_nothing(machine, monkeypatch):
    for variable in ("PRIMUS_HOME", "SECUROSYS_PKCS11_CONF", "SECUROSYS_SECRETS_CONF"):
        monkeypatch.setenv(variable, "")
    config = make(machine / "usr/local/primus/etc/primus.cfg")
    secrets = make(machine / "etc/primus/.secrets.cfg")
    assert find() == Paths(None, str(machine / "usr/local/primus"), config, secrets)


def test_the_two_files_are_looked_for_one_by_one(machine):
    config = make(machine / "etc/primus/primus.cfg")
    secrets = make(machine / "usr/local/primus/etc/.secrets.cfg")
    assert find()[2:4] == (config, secrets)


def test_links_to_the_secrets_file_are_followed(machine):
    target = make(machine / "srv/secrets")
    (machine / "etc/primus").mkdir(parents=True)
    (machine / "etc/primus/.secrets.cfg").symlink_to("../../srv/link")
    (machine / "srv/link").symlink_to("secrets")
    assert find().secrets == target
    assert find(secrets_path=str(machine / "etc/primus/.secrets.cfg")).secrets == target


def test_executable_of_the_home(machine):
    ppin = make(machine / "usr/local/primus/bin/ppin", 0o750)
    assert find(path_has="/bin/true").executable == ppin


def test_executable_of_another_home(machine, monkeypatch):
    make(machine / "usr/local/primus/bin/ppin", 0o750)
    ppin, other = (make(machine / home / "bin/ppin", 0o750) for home in ("one", "other"))
    monkeypatch.setenv("PRIMUS_HOME", str(machine / "one"))
    assert find(path_has="/bin/true").executable == ppin
    assert find(path_has="/bin/true", primus_home=str(machine / "other")).executable == other


def test_executable_of_path(machine):
    ppin = make(machine / "elsewhere/ppin", 0o750)
    assert find(path_has=ppin).executable == ppin


def test_executable_of_the_option(machine):
    make(machine / "usr/local/primus/bin/ppin", 0o750)
    mine = make(machine / "mine", 0o700)
    assert find(path_has="/bin/true", executable=mine).executable == mine


def test_the_named_executable_is_not_there(machine):
    make(machine / "usr/local/primus/bin/ppin", 0o750)
    missing = str(machine / "missing")
    with pytest.raises(PpinError) as caught:
        find(executable=missing)
    assert caught.value.cls == "config"
    assert missing in caught.value.msg


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_executable_cannot_be_executed(machine, kind, named):
    ppin = machine / "usr/local/primus/bin/ppin"
    if kind == "file":
        make(ppin, 0o644)
    else:
        ppin.mkdir(parents=True)
    paths = find(executable=str(ppin) if named else None)
    with pytest.raises(PpinError) as caught:
        command.Ppin(paths, timeout=1).check_files()
    assert caught.value.cls == "config"
    assert str(ppin) in caught.value.msg


SECRETS = [
    None,
    "x",
    "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3",
    " at the ends ",
    "with blanks",
    "'quotes' \"and\" `ticks`",
    "$HOME ; rm * \\n %s {{ x }}",
    "pässwörd",
    "\u65e5\u672c\U0001f511",
    "e\u0301",
    "\u2028",
    "x" * 1024,
    "ü" * 512,
    "\U0001f511" * 256,
]


@pytest.mark.parametrize("secret", SECRETS, ids=ascii)
def test_a_password_that_a_terminal_delivers(secret):
    assert check_password("pkcs11_password", secret) is None


@pytest.mark.parametrize("place", ["%s", "%sx", "x%s", "x%sx"])
@pytest.mark.parametrize("number", [*range(0x20), *range(0x7F, 0xA0), 0xD800, 0xDCFF, 0xDFFF], ids=hex)
def test_a_password_with_a_control_character(number, place):
    secret = place % chr(number)
    with pytest.raises(PpinError) as caught:
        check_password("pkcs11_password", secret)
    assert caught.value.cls == "config"
    assert "pkcs11_password" in caught.value.msg


@pytest.mark.parametrize(
    "secret",
    ["", "SECRET\n", "SECRET\r\n", "\tSECRET", "SECRET\0", "SECRET" * 171, "ü" * 513, "\U0001f511" * 257],
    ids=lambda secret: ascii(secret[:12]),
)
def test_a_password_that_is_refused_is_not_told(secret):
    with pytest.raises(PpinError) as caught:
        check_password("setup_password", secret)
    assert caught.value.cls == "config"
    told = " ".join([caught.value.msg, *filter(None, caught.value.result().values())])
    assert "setup_password" in told
    assert "SECRET" not in told and "ü" not in told and "\U0001f511" not in told


@pytest.mark.parametrize(
    "setup_password",
    [
        None,
        "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3",
        "bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG",
        "fxajx-xwvq3-dc0o5-3slqf-lj9l3",
        "aaaaa-zzzzz-AAAAA-ZZZZZ-azAZ0",
        "00000-11111-22222-33333-44444",
        "56789-56789-56789-56789-56789",
    ],
)
def test_a_setup_password(setup_password):
    assert check_setup_password(setup_password) is None


@pytest.mark.parametrize(
    "setup_password",
    [
        "",
        "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L",
        "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L33",
        "FXAJX-XWVQ3-DC0O5-3SLQF",
        "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3-LJ9L3",
        "FXAJXXWVQ3DC0O53SLQFLJ9L3",
        "FXAJXX-WVQ3-DC0O5-3SLQF-LJ9L3",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn",
        "bHocQ-bdLVz-d53Cq-xP2qq-7ZdnGG",
        "bHocQ-bdLVz-d53Cq-xP2qq-",
        "-bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG",
        "bHoc-QbdLVz-d53Cq-xP2qq-7ZdnG",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn\u00df",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn\u017f",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn\u212a",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn\uff21",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn\u0430",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn\u00b2",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn\uff11",
        "bHocQ-bdLVz-d53Cq-xP2qq-7Zdn_",
        "bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG\r\n",
        "bHocQ-bdLVz- d53C-xP2qq-7ZdnG",
        "bHocQ -bdLVz-d53Cq-xP2qq-7ZdnG",
        "bHocQ-bdLVz-d53Cq-xP2qq-7ZdnG\u00a0",
        "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3\n",
        "\nFXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3",
        " FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3",
        "FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3 ",
        '"FXAJX-XWVQ3-DC0O5-3SLQF-LJ9L3"',
        "FXAJX XWVQ3 DC0O5 3SLQF LJ9L3",
        "FXAJX_XWVQ3_DC0O5_3SLQF_LJ9L3",
        "FXAJX\u2013XWVQ3\u2013DC0O5\u20133SLQF\u2013LJ9L3",
        "FXÄJX-XWVQ3-DC0O5-3SLQF-LJ9L3",
        "\u0661\u0661\u0661\u0661\u0661-XWVQ3-DC0O5-3SLQF-LJ9L3",
        "FXAJ*-XWVQ3-DC0O5-3SLQF-LJ9L3",
    ],
    ids=ascii,
)
def test_not_a_setup_password(setup_password):
    with pytest.raises(PpinError) as caught:
        check_setup_password(setup_password)
    assert caught.value.cls == "config"
    told = " ".join([caught.value.msg, *filter(None, caught.value.result().values())])
    assert "setup_password" in told
    assert not setup_password or setup_password not in told


# The limit of open files


@pytest.mark.parametrize("limit", [1000, 64])
def test_few_files_may_be_open_while_a_process_is_started(limit):
    """An old pexpect closes each that there may be. The process that is started has its own limit again."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            limits = (limit, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            with dialogue._low_descriptor_limit() as restore:
                few = resource.getrlimit(resource.RLIMIT_NOFILE)
                restore()
                own = resource.getrlimit(resource.RLIMIT_NOFILE)
            status = not (few == (min(limit, 256), limits[1]) and own == limits)
        finally:
            os._exit(int(status))
    assert os.waitpid(pid, 0)[1] == 0
