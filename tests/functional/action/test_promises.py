# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the attempt gate promises, in real playbook runs: a situation, what it costs at the HSM, who fails, who goes on.

The emulated HSM locks a partition after five rejected logins.
"""

import re
from types import SimpleNamespace

import pytest
from emulated_hsm import PINS, PROXY_PASSWORD, REJECTED, SETUP, WRONG_SETUP, wrap_ppin
from primus_emulator.client import set_behaviour

HOSTS = 4
PIN_REJECTED = "0x8000000B"


@pytest.fixture
def fleet(new_fleet):
    return new_fleet(HOSTS, partitions=("P2:1",))


@pytest.fixture
def behind_proxy(new_fleet):
    return new_fleet(HOSTS, partitions=("P1:0:svc1",))


def secrets_of(fleet, host):
    return fleet.folder / host / "etc/.secrets.cfg"


def spent(fleet, run, before=0):
    """What it cost, and which hosts failed or have a secret that is not accepted."""
    rejected = sum(login["verdict"] != "ok" for login in fleet.hsm.logins()[before:])
    bad = {host for host, result in run.results().items() if result["failed"] or result.get("ok") is False}
    return SimpleNamespace(rejected=rejected, failed=bad)


def connectivity(fleet, **options):
    return fleet.ppin("ppin_connectivity_info", hsm="hsm0", **options)


def lie(fleet, *hosts):
    """Have the ppin of these hosts say that their permanent secrets are rejected, without a login."""
    line = "[hsm0] localhost:2310 connected.\\n  slot0 (id=1): P2: FAILED (0x80005017)"
    for host in hosts:
        path = fleet.folder / host / "bin/ppin"
        real = '"$0.real" "$@" | sed "s/P2: OK/P2: FAILED (0x80005017)/"'
        wrap_ppin(path, f'case "$*" in *--test*) {real};; *) exec "$0.real" "$@";; esac # {line!r}')


def age_proxy(fleet, *hosts):
    """Let it be long ago that the service proxy accepted the password of these hosts."""
    for host in hosts:
        ledger = fleet.folder / host / "etc/.secrets.cfg.ledger"
        old = re.sub(r'("accepted": )"[^"]*"', r'\1"2026-01-31T12:00:00Z"', ledger.read_text())
        ledger.write_text(old)


@pytest.mark.parametrize("forks", [1, 50])
def test_a_wrong_setup_password(fleet, forks):
    cost = spent(fleet, fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP), forks=forks))
    assert (cost.rejected, cost.failed) == (1, set(fleet.hosts))


@pytest.mark.parametrize("forks", [1, 4])
@pytest.mark.parametrize("module", ["connectivity", "verify"])
def test_a_stale_secret(fleet, forks, module):
    fleet.fetch("P2")
    fleet.hsm("rotate-secret", partition="P2")
    before = len(fleet.hsm.logins())
    task = connectivity(fleet) if module == "connectivity" else fleet.secret("P2", verify="always")
    cost = spent(fleet, fleet.run(task, forks=forks), before)
    assert (cost.rejected, cost.failed) == (2, set(fleet.hosts))
    again = spent(fleet, fleet.run(connectivity(fleet)), before)
    assert (again.rejected, again.failed) == (2, set(fleet.hosts)), "whichever module found it"


def test_a_stale_secret_and_a_new_setup_password(fleet):
    fleet.fetch("P2")
    fleet.hsm("rotate-secret", partition="P2")
    new = fleet.hsm.new_setup_password("P2")
    before = len(fleet.hsm.logins())
    run = fleet.run(fleet.secret("P2", verify="always", setup_password=new))
    assert {result["action"] for result in run.results().values()} == {"updated"}
    assert (spent(fleet, run, before).rejected, run.failures()) == (2, {})
    assert spent(fleet, fleet.run(connectivity(fleet)), before).failed == set()


def test_a_host_whose_secrets_are_from_an_old_backup(fleet):
    fleet.fetch("P2")
    odd, *others = fleet.hosts
    backup = secrets_of(fleet, odd).read_bytes()
    fleet.hsm("rotate-secret", partition="P2")
    new = fleet.hsm.new_setup_password("P2")
    assert fleet.run(fleet.secret("P2", state="updated", setup_password=new)).failures() == {}
    secrets_of(fleet, odd).write_bytes(backup)
    for task in (connectivity(fleet), fleet.secret("P2", verify="always", setup_password=None, pkcs11_password=None)):
        before = len(fleet.hsm.logins())
        cost = spent(fleet, fleet.run(task, forks=1), before)
        assert (cost.rejected <= 1, cost.failed) == (True, {odd})
    run = fleet.run(fleet.secret("P2", state="updated", setup_password=new))
    changed = {host for host, result in run.results().items() if result["changed"]}
    assert (changed, run.failures()) == ({odd}, {}), "what is there is not what the password has made"
    assert spent(fleet, fleet.run(connectivity(fleet))).failed == set()


def test_a_lying_host_spends_nobodys_setup_password(fleet):
    fleet.fetch("P2")
    lie(fleet, fleet.hosts[0])
    new = fleet.hsm.new_setup_password("P2")
    before = len(fleet.hsm.logins("setup"))
    run = fleet.run(fleet.secret("P2", verify="always", setup_password=new), forks=1)
    assert {host for host, result in run.results().items() if result["changed"]} <= {fleet.hosts[0]}
    assert len(fleet.hsm.logins("setup")) - before <= 1 and set(run.failures()) <= {fleet.hosts[0]}


def test_what_two_lying_hosts_can_do_is_bounded(fleet):
    """They make the others fetch anew with a password that these were given for that, which harms no other secret."""
    fleet.fetch("P2")
    lie(fleet, *fleet.hosts[:2])
    run = fleet.run(fleet.secret("P2", verify="always", setup_password=None, pkcs11_password=None), forks=1)
    assert set(run.failures()) == set(fleet.hosts)
    assert fleet.verdicts("setup", "permanent")[REJECTED] == 0
    assert "host0000 and host0001 that found out" in run.failures()[fleet.hosts[-1]]


def test_a_host_whose_service_proxy_password_is_outdated(behind_proxy):
    fleet = behind_proxy
    fleet.run(fleet.ppin("ppin_proxy", service_user="svc1", password=PROXY_PASSWORD))
    odd, *others = fleet.hosts
    age_proxy(fleet, odd)
    fleet.hsm("set-proxy-password", user="svc1", value="another")
    update = fleet.ppin("ppin_proxy", service_user="svc1", password="another", state="updated")
    assert fleet.run(update, arguments=["--limit", ",".join(others)]).failures() == {}
    before = len(fleet.hsm.logins("setup"))
    run = fleet.run(fleet.secret("P1"), forks=1)
    assert set(run.failures()) == {odd}
    assert len(fleet.hsm.logins("setup")) - before == len(others), "the HSM saw nothing of the one that failed"


@pytest.mark.parametrize("vouched", [True, False])
def test_a_wrong_setup_password_behind_a_service_proxy(behind_proxy, vouched):
    """Where the proxy's verdict on its password is old, a rejection may be of that one: it takes a second host."""
    fleet = behind_proxy
    fleet.run(fleet.ppin("ppin_proxy", service_user="svc1", password=PROXY_PASSWORD))
    if not vouched:
        age_proxy(fleet, *fleet.hosts)
    run = fleet.run(fleet.secret("P1", setup_password=WRONG_SETUP))
    assert (fleet.verdicts("setup"), set(run.failures())) == ({REJECTED: 1 if vouched else 2}, set(fleet.hosts))


def test_secrets_of_unknown_origin_concern_nobody_else(fleet):
    """Each host finds out for itself, within the budget."""
    fleet.fetch("P2")
    for host in fleet.hosts:
        (fleet.folder / host / "etc/.secrets.cfg.ledger").unlink()
    assert spent(fleet, fleet.run(connectivity(fleet))).failed == set()
    fleet.hsm("rotate-secret", partition="P2")
    before = len(fleet.hsm.logins())
    run = fleet.run(connectivity(fleet))
    cost = spent(fleet, run, before)
    assert (cost.rejected, cost.failed) == (3, set(fleet.hosts))
    assert len([msg for msg in run.failures().values() if "Attempt limit reached for 'P2': 3 of 3" in msg]) == 1


@pytest.mark.parametrize("switch", ["recipher", "recipher_reads"])
def test_a_ppin_that_ciphers_all_entries_anew(new_fleet, switch):
    fleet = new_fleet(2)
    for host in fleet.hosts:
        set_behaviour(str(fleet.folder / host), {switch: True})
    tasks = [fleet.secret(name, f"fetch {name}", state="updated") for name in ("P1", "P2")]
    for _run in range(3):
        run = fleet.run(*tasks, fleet.ppin("ppin_info"))
        assert run.failures() == {}
    assert fleet.verdicts("setup") == {"ok": 4}, "one for each secret"
    run = fleet.run(connectivity(fleet))
    assert spent(fleet, run).failed == set()


def test_a_dead_hsm_fails_all_together(fleet):
    fleet.hsm("network", state="down")
    calls = fleet.count_ppin()
    run = fleet.run(fleet.secret("P2"), forks=HOSTS)
    assert set(run.failures()) == set(fleet.hosts)
    waited = [msg for msg in run.failures().values() if "did not contact it" in msg]
    assert len(waited) == HOSTS - 2 and all("was not reached by host" in msg for msg in waited)
    assert max(sum(calls()), HOSTS) <= HOSTS + 3 * 2 * 2
    fleet.hsm("network", state="up")
    assert fleet.run(fleet.secret("P2")).failures() == {}, "the next run finds out anew"


def test_the_same_wrong_pin_with_two_setup_passwords(fleet):
    for setup in (SETUP["P2"], fleet.hsm.new_setup_password("P2")):
        run = fleet.run(fleet.secret("P2", setup_password=setup, pkcs11_password="wrong-pin"))
        assert set(run.failures()) == set(fleet.hosts)
    assert fleet.verdicts("pkcs11") == {PIN_REJECTED: 1}
    assert all("The PKCS#11 password of 'P2' was rejected" in msg for msg in run.failures().values())
    run = fleet.run(fleet.secret("P2", setup_password=setup))
    assert run.failures() == {}, "with the right one, the same setup password is used"


def test_the_same_wrong_setup_password_through_another_module(behind_proxy):
    fleet = behind_proxy
    fleet.run(fleet.ppin("ppin_proxy", service_user="svc1", password=PROXY_PASSWORD))
    fleet.run(fleet.secret("P1", setup_password=WRONG_SETUP))
    options = {
        "user_name": "P1",
        "setup_password": WRONG_SETUP,
        "pkcs11_password": PINS["P1"],
        "proxy_user": "svc1",
        "proxy_password": PROXY_PASSWORD,
        "return_content": True,
    }
    run = fleet.run(fleet.ppin("ppin_fortinet", **options))
    assert (fleet.verdicts("setup"), set(run.failures())) == ({REJECTED: 1}, set(fleet.hosts))


def test_what_went_wrong_never_exceeds_the_budget(fleet):
    """Different wrong passwords, secrets of unknown origin, and answers that are lost, at once."""
    fleet.fetch("P2")
    for host in fleet.hosts:
        (fleet.folder / host / "etc/.secrets.cfg.ledger").unlink()
    fleet.hsm("rotate-secret", partition="P2")
    before = fleet.hsm.trials("P2")
    wrong = "ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-Z{{ inventory_hostname[-4:] }}"
    tasks = [fleet.secret("P2", "update", verify="always", setup_password=wrong), connectivity(fleet)]
    for task in tasks:
        fleet.run(task, forks=50)
    assert fleet.hsm.trials("P2") - before == 3


def test_a_copied_client_is_of_the_same_origin(new_fleet):
    fleet = new_fleet(3, partitions=("P2:1",))
    fleet.fetch("P2")
    run = fleet.run(fleet.ppin("ppin_info"))
    origins = {result["partitions"][0]["origin"] for result in run.results().values()}
    assert len(origins) == 1 and re.fullmatch("[0-9a-f]{64}", origins.pop())
