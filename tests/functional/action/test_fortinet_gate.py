# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ppin_fortinet passes the attempt gate as ppin_secret does, in real playbook runs."""

from emulated_hsm import PINS, PROXY_PASSWORD, REJECTED, SETUP, WRONG_SETUP


def fortinet(fleet, partition="P2", **options):
    passwords = {"setup_password": SETUP[partition], "pkcs11_password": PINS[partition]}
    dest = str(fleet.folder) + "/{{ inventory_hostname }}/string"
    return fleet.ppin("ppin_fortinet", user_name=partition, **{**passwords, "dest": dest, **options})


def test_a_wrong_setup_password_costs_one_login_for_both_modules(new_fleet):
    fleet = new_fleet(3)
    assert set(fleet.run(fortinet(fleet, setup_password=WRONG_SETUP)).failures()) == set(fleet.hosts)
    assert set(fleet.run(fleet.secret("P2", setup_password=WRONG_SETUP)).failures()) == set(fleet.hosts)
    assert fleet.verdicts("setup") == {REJECTED: 1}
    run = fleet.run(fortinet(fleet))
    assert run.failures() == {} and all(result["changed"] for result in run.results().values())
    assert not any(result["changed"] for result in fleet.run(fortinet(fleet)).results().values())
    assert fleet.verdicts("setup") == {REJECTED: 1, "ok": 3}


def test_a_wrong_service_proxy_password_is_not_held_against_the_others(new_fleet):
    fleet = new_fleet(3, partitions=("P1:0:svc1",))
    proxy = {"proxy_user": "svc1", "proxy_password": "wrong"}
    assert set(fleet.run(fortinet(fleet, "P1", **proxy)).failures()) == set(fleet.hosts)
    assert fleet.verdicts("proxy") == {REJECTED: 1} and fleet.verdicts("setup") == {}
    proxy["proxy_password"] = PROXY_PASSWORD
    assert fleet.run(fortinet(fleet, "P1", **proxy)).failures() == {}
