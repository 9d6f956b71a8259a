# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ppin is qualified: what is found, what it costs, what is left; and a ppin that lies, hangs or dies."""

import json
import os
import signal

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._qualify.findings import BY_NAME
from emulated_hsm import (
    CONFIG,
    LIMITS,
    PINS,
    PROXY_PASSWORD,
    REJECTED,
    SETUP,
    WRONG_SETUP,
    wait_for,
    working_copies,
    wrap_ppin,
)
from find_secrets import all_forms
from primus_emulator.client import install
from softhsm import LIBRARY, make_token

NOT_ON_THE_EMULATOR = {"library_login", "token_flags", "token_label"}
ONLY_OF_A_USER = {"read_only_file"}
ONLY_WRONG = {"failed_update", "failed_update_code", "reprompt"}
PROXY = {"proxy_user": "svc1", "proxy_password": PROXY_PASSWORD}


def qualify(client, partition="P1", check=False, **options):
    given = {"user_name": partition, "setup_password": SETUP[partition], "pkcs11_password": PINS[partition]}
    return client.run("ppin_qualify", check, **{**given, **options})


def verdicts(result, verdict):
    return {name for name, found in result["profile"]["findings"].items() if found["verdict"] == verdict}


def seen(result, name):
    return result["profile"]["findings"][name]["seen"]


def test_the_emulator_by_default(configured):
    before = configured.state()
    result = qualify(configured, accept=True, wrong_attempt=True, wrong_setup_password=WRONG_SETUP, **PROXY)
    assert verdicts(result, "differs") == set()
    root = ONLY_OF_A_USER if os.geteuid() == 0 else set()
    assert verdicts(result, "not tried") == NOT_ON_THE_EMULATOR | root
    assert list(result["profile"]["findings"]) == list(BY_NAME)
    assert "host by host" in result["profile"]["rotation"]
    made = [login["kind"] for login in configured.hsm.logins()]
    assert result["logins"] == len(result["planned"]) == len(result["profile"]["logins"]["made"]) == 8
    assert made.count("setup") == 4 and made.count("permanent") == 3  # the PINs go with the setup passwords
    assert configured.hsm.trials("P1") == result["wrong_attempts"] == 1
    assert configured.state() == before and working_copies(configured.secrets) == []


def test_an_update_that_ends_the_secret_before(configured):
    configured.hsm.reset({**CONFIG, "limits": {**LIMITS, "fetch_renews_secret": True}})
    result = qualify(configured, "P2", accept=True)
    assert seen(result, "update_secret") == "another" and seen(result, "before_update") == REJECTED
    assert "rotate all hosts of a partition in one window" in result["profile"]["rotation"]
    assert configured.hsm.trials("P2") == result["wrong_attempts"] == 1


def test_the_library(configured, tmp_path, monkeypatch):
    pytest.importorskip("pkcs11")
    make_token(tmp_path, monkeypatch)
    result = qualify(configured, "P2", accept=True, library=LIBRARY)
    assert seen(result, "library_login") == "does not" and "LOGIN_REQUIRED" in seen(result, "token_flags")
    assert seen(result, "token_label") == "other"


def test_check_mode_says_which_logins(configured):
    wrap_ppin(configured.ppin, f'touch "{configured.home}/ran"')
    result = qualify(configured, check=True, accept=True, **PROXY)
    assert len(result["planned"]) == 7 and "profile" not in result and not result["changed"]
    assert not (configured.home / "ran").exists()


def test_without_accept_there_is_no_login(configured):
    configured.set(exit_success=3, listing="three")
    result = qualify(configured, **PROXY)
    assert result["planned"] == [] and result["logins"] == 0 and configured.hsm.logins() == []
    assert verdicts(result, "differs") == {"exit_success", "listing_spaces"}
    assert result["profile"]["findings"]["add"]["note"] == "It costs a login, and accept is false"


def test_a_rejected_credential_is_not_tried_again(configured):
    result = qualify(configured, "P2", setup_password=WRONG_SETUP, accept=True)
    assert result["failed"] and result["error"]["class"] == "rejected" and result["logins"] == 1
    assert [login["kind"] for login in configured.hsm.logins()] == ["setup"]
    assert seen(result, "add") == "0x80005017" and "setup_twice" in verdicts(result, "not tried")


def test_a_primus_cfg_that_includes_another(configured):
    configured.config.rename(configured.etc / "hsms.cfg")
    configured.config.write_text('@include "hsms.cfg"\n')
    before = configured.state()
    result = qualify(configured, "P2")
    assert verdicts(result, "differs") == set() and seen(result, "listing") == "complete"
    assert configured.state() == before


def test_files_that_ppin_does_not_read_are_not_held_against_it(configured):
    configured.secrets.write_bytes(b"")
    result = qualify(configured, "P2", accept=True)
    assert verdicts(result, "differs") == set() and result["logins"] == 0
    assert "fails with the copies of both files: 0x80005006" in result["profile"]["stopped"]


def test_a_rejected_permanent_secret_is_not_tried_again(configured):
    configured.before_test("rotate-secret", "P2")
    result = qualify(configured, "P2", accept=True)
    assert seen(result, "login") == REJECTED and {"log", "before_update"} <= verdicts(result, "not tried")
    assert configured.hsm.trials("P2") == result["wrong_attempts"] == len(configured.hsm.logins("permanent")) == 1


def test_a_stored_service_proxy_password_is_used_with_the_logins_only(configured):
    assert qualify(configured)["logins"] == 0 and configured.hsm("report") == []
    configured.hsm("set-proxy-password", user="svc1", value="changed")
    result = qualify(configured, accept=True)
    assert result["failed"] and result["logins"] == 1
    assert [login["verdict"] for login in configured.hsm("report")] == [REJECTED]


def test_a_wrong_attempt_of_a_ppin_that_dies_is_counted(configured):
    counts = f'n=$(cat "{configured.home}/n" || echo 0); n=$((n + 1)); echo $n > "{configured.home}/n"'
    dies = 'if [ $n = 4 ]; then "$0.real" "$@"; kill -9 $$; fi'  # two are ended before, and the third works
    wrap_ppin(configured.ppin, f'case "$5" in -u) {counts}; {dies};; esac\nexec "$0.real" "$@"')
    result = qualify(configured, "P2", accept=True, wrong_attempt=True, wrong_setup_password=WRONG_SETUP)
    assert result["profile"]["stopped"] == "ppin was terminated by signal 9"
    assert configured.hsm.trials("P2") == result["wrong_attempts"] == 1


@pytest.mark.parametrize("pin", ["1", "ok", "Holds"])
def test_a_password_that_would_show_by_its_absence_is_refused(configured, pin):
    configured.hsm("set-pkcs11-password", partition="P2", value=pin)
    process = configured.start("ppin_qualify", user_name="P2", setup_password=SETUP["P2"], pkcs11_password=pin)
    text = process.communicate(timeout=60)[0].decode()
    assert "pkcs11_password is shorter than 4 characters, or a word" in text.replace("********", pin)
    assert configured.hsm.logins() == []


def test_a_setup_password_that_is_for_one_client(configured):
    """Which is spent with the first use, and is not tried a third time."""
    configured.hsm.reset(
        {
            "partitions": {"P2": {"setup_password": SETUP["P2"], "pkcs11_password": PINS["P2"]}},
            "limits": {"lifespan_setup_pwd": 0},
        }
    )
    result = qualify(configured, "P2", accept=True)
    assert verdicts(result, "differs") == {"setup_twice"}
    assert {"before_update", "fortinet"} <= verdicts(result, "not tried")
    assert len(configured.hsm.logins("setup")) == 2


# A ppin that cannot be trusted

WITHOUT_S = 'unset SECUROSYS_SECRETS_CONF; shift 4; exec "$0.real" -s "%(own)s" -c "%(config)s" "$@"'
"""It was called with -c FILE -s FILE first."""


def test_a_ppin_that_ignores_s_changes_nothing(configured):
    before = configured.state()
    wrap_ppin(configured.ppin, WITHOUT_S % {"own": configured.secrets, "config": configured.config})
    result = qualify(configured, accept=True, **PROXY)
    assert seen(result, "secrets_flag") == "ignored" and "ignores -s" in result["profile"]["stopped"]
    assert "do not use them" in result["profile"]["findings"]["secrets_flag"]["note"]
    assert "secrets_flag: this ppin 2.2.4: ppin_secret" in str(result["warnings"])
    assert result["logins"] == 0 and "add" in verdicts(result, "not tried")
    assert [output["command"].split()[1] for output in result["profile"]["outputs"]] == ["-v", "-h", "-l"]
    assert configured.state() == before


@pytest.mark.parametrize(("flag", "logins"), [("-u", 0), ("-a", 0), ("-p", 0), ("--test", 1)])
def test_a_ppin_that_ignores_s_with_one_command_is_found_before_it_changes_anything(configured, flag, logins):
    before = configured.state()
    does = WITHOUT_S % {"own": configured.secrets, "config": configured.config}
    wrap_ppin(configured.ppin, f'case "$5" in {flag}) {does};; esac\nexec "$0.real" "$@"')
    result = qualify(configured, accept=True, **PROXY)
    assert seen(result, "secrets_flag_commands") == flag.strip("-") and seen(result, "own_file") == "unchanged"
    assert f"ignores -s with {flag}" in result["profile"]["stopped"]
    assert result["logins"] == len(configured.hsm.logins()) == logins
    assert configured.state() == before


def test_a_ppin_that_removes_the_copy(configured):
    wrap_ppin(configured.ppin, 'case "$5" in -v) rm -f "$4";; esac\nexec "$0.real" "$@"')
    result = qualify(configured, "P2", accept=True)
    assert set(result["profile"]["findings"]) == set(BY_NAME) and result["logins"] == 0


@pytest.mark.parametrize("change", ["ppin", "mode", "another", "gone"])
def test_what_a_ppin_does_to_the_clients_own_file_is_undone(configured, change):
    configured.secrets.chmod(0o640)
    before = configured.state()
    own = configured.secrets
    does = {
        "ppin": WITHOUT_S % {"own": own, "config": configured.config},
        "mode": f'chmod 0644 "{own}"',
        "another": f'echo other > "{own}.x"; mv "{own}.x" "{own}"',
        "gone": f'rm -f "{own}"',
    }[change]
    wrap_ppin(configured.ppin, f'case "$5" in -r) {does};; esac\nexec "$0.real" "$@"')
    result = qualify(configured, accept=True, **PROXY)
    assert result["failed"] and seen(result, "own_file") == "changed" and result["logins"] == 0
    assert "has changed .secrets.cfg" in result["msg"] and "was put back" in result["msg"]
    assert configured.state() == before


HOSTILE = {
    "hangs": ({"hang_at": "start"}, "commands_end", "timed out", "have timed out"),
    "prints 10 MB": ({"print_mb": 10}, "output_size", "too much", "printed too much"),
    "asks something": ({"extra_question": "Really?"}, "questions", "before", None),
    "dies": ({"kill_at": "before-prompt"}, "commands_end", "signal 9", "signal 9"),
    "lies": ({"lie_configured": "always"}, "listing_true", "lies", None),
    "prints bytes": ({"binary_noise": True}, "output_text", "bytes", None),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_ppin(configured, case):
    switches, name, value, stopped = HOSTILE[case]
    configured.set(**switches)
    before = configured.state()
    result = qualify(configured, accept=case == "asks something", timeout=4, total_timeout=200, **PROXY)
    assert seen(result, name) == value and name in verdicts(result, "differs")
    assert result["logins"] == 0 and configured.hsm.logins() == []
    assert stopped in result["profile"]["stopped"] if stopped else not result["profile"]["stopped"]
    assert configured.state() == before and working_copies(configured.secrets) == []


def test_a_ppin_that_hangs_with_a_password(configured):
    configured.set(hang_at="after-password")
    result = qualify(configured, "P2", accept=True, timeout=5)
    assert result["failed"] and result["error"]["class"] == "timeout" and result["logins"] == 1
    assert "setup_twice" in verdicts(result, "not tried")


def test_a_question_after_a_password(configured):
    configured.set(extra_question="Really?", extra_question_at="after")
    result = qualify(configured, accept=True, timeout=5, **PROXY)
    assert result["failed"] and seen(result, "questions") == "after" and result["logins"] == 1
    assert [login["kind"] for login in configured.hsm.logins()] == []  # it was not answered, and ppin ended


def test_a_total_timeout(configured):
    configured.set(write_delay_ms=500)
    result = qualify(configured, total_timeout=3)
    assert result["profile"]["stopped"] == "total_timeout is over"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed(configured, number):
    before = configured.state()
    given = {"user_name": "P2", "setup_password": SETUP["P2"], "pkcs11_password": PINS["P2"]}
    process = configured.start("ppin_qualify", **given)
    (copy,) = wait_for(lambda: working_copies(configured.secrets), process)
    assert copy.parent.stat().st_mode & 0o077 == 0
    process.send_signal(number)
    process.communicate(timeout=60)
    assert configured.state() == before
    assert bool(working_copies(configured.secrets)) == (number == signal.SIGKILL)
    qualify(configured, "P2", total_timeout=1)
    assert working_copies(configured.secrets) == []


def test_nothing_of_the_run_is_in_the_profile(client, hsm, tmp_path):
    names = ["ALPHA-CENTAURI", "sirius", "betelgeuse-svc", "client-of-test"]
    setup, pin, proxy = "x7Kq2-Lm9Zp-4RtYw-8VbNc-1HjGf", "Zug-4711-pin", "Uri-8153-proxy"
    partition = {"setup_password": setup, "pkcs11_password": pin}
    hsm.reset({"partitions": dict.fromkeys(names[:2], partition), "service_users": {names[2]: proxy}})
    install(str(tmp_path / names[3]), str(hsm.state), [f"{names[0]}:0:{names[2]}", names[1]], {"echo_secrets": True})
    client.home, client.etc = tmp_path / names[3], tmp_path / names[3] / "etc"
    client.secrets, client.config = client.etc / ".secrets.cfg", client.etc / "primus.cfg"
    result = client.run(
        "ppin_qualify",
        user_name=names[0],
        setup_password=setup,
        pkcs11_password=pin,
        proxy_user=names[2],
        proxy_password=proxy,
        accept=True,
    )
    assert seen(result, "secrets_shown") == "yes" and seen(result, "fortinet") == "complete"
    assert seen(result, "prompt_setup") == "Provide setup password for 'P1':"
    profile = json.dumps(result["profile"], ensure_ascii=False)
    secrets = [setup, pin, proxy, *names, "127.0.0.1", str(tmp_path)]
    text = profile.encode()
    assert [form for form in all_forms(secrets) if form.lower() in text.lower()] == []
    assert os.uname().nodename not in [word.strip(".,:'\"") for word in profile.split()]
