#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-FileCopyrightText: The hsmops.primus authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: ppin_connectivity_info
short_description: Test whether a Primus HSM client reaches its HSMs and can log in
version_added: 1.0.0
description:
  - Runs the vendor's connectivity test, C(ppin --test), on all or some HSMs and slots of C(primus.cfg), and returns for
    each whether it succeeded, and if not, why.
  - B(Every slot of every HSM that is tested is one login) with the permanent secret of its partition. Wrong attempts
    lock a partition for all its clients, so the module first makes a single login to a partition with several
    slots or HSMs. If this login is rejected, or its result is unclear, it makes no other login with that secret.
  - To check only whether the secret is accepted, select one HSM with O(hsm).
  - A failed login does not fail the module. Check RV(ok) instead.
  - Needs provider 1.8.1 or later.
author:
  - The hsmops.primus authors (@hsmops)
extends_documentation_fragment:
  - hsmops.primus.attributes
  - hsmops.primus.attributes.actiongroup_ppin_gate
  - hsmops.primus.attributes.managed_node
  - hsmops.primus.ppin
  - hsmops.primus.ppin.login
  - hsmops.primus.ppin.gate
  - hsmops.primus.ppin.gate_findings
options:
  user_name:
    description:
      - Only this partition, the vendor's C(user_name) in C(primus.cfg). By default all.
    type: str
    aliases: [partition, name]
  hsm:
    description:
      - Only this HSM, C(hsm0) and so on as in C(primus.cfg), or its host name. By default all.
    type: str
  slot:
    description:
      - Only slots with this key in C(primus.cfg), C(slot0) and so on. By default all.
    type: str
  slot_id:
    description:
      - Only slots with this PKCS#11 slot id. By default all.
    type: int
attributes:
  check_mode:
    support: full
    details: Does the same in any mode, including the logins, but records nothing in the ledger in check mode.
  diff_mode:
    support: N/A
    details: Changes nothing.
seealso:
  - module: hsmops.primus.ppin_info
    description: Gathers information about a client without a login.
  - module: hsmops.primus.ppin_secret
"""

EXAMPLES = r"""
- name: Test all HSMs and partitions of the client
  hsmops.primus.ppin_connectivity_info:
  register: connectivity

- name: Check that all logins succeeded
  ansible.builtin.assert:
    that: connectivity.ok

- name: Check that the first HSM accepts the permanent secret of PARTITION1
  hsmops.primus.ppin_connectivity_info:
    user_name: PARTITION1
    hsm: hsm0
  register: connectivity
  failed_when: connectivity is failed or not connectivity.ok
"""

RETURN = r"""
ok:
  description:
    - Whether all selected HSMs were reached and all logins worked.
    - It is V(false) as well when the output of C(ppin) lacks a selected HSM or slot of C(primus.cfg), or has a line
      about an HSM that cannot be parsed. See RV(unseen).
  returned: always
  type: bool
hsms:
  description: The HSMs that were tried.
  returned: always
  type: list
  elements: dict
  contains:
    hsm:
      description: Key of the HSM in C(primus.cfg), such as C(hsm0).
      type: str
    host:
      description: Its name or address.
      type: str
    port:
      description: Its port.
      type: int
    connected:
      description: Whether it was reached.
      type: bool
    firmware:
      description: Version of its firmware, or null.
      type: str
    error:
      description: Why it was not reached, or null. The keys are those of RV(error). Without a code, C(name) is what
        C(ppin) printed.
      type: dict
    slots:
      description: The slots that were logged in to.
      type: list
      elements: dict
      contains:
        slot:
          description: Key of the slot in C(primus.cfg).
          type: str
        slot_id:
          description: PKCS#11 slot id.
          type: int
        user_name:
          description: The partition.
          type: str
        ok:
          description: Whether the login worked.
          type: bool
        error:
          description: Why it failed, or null. The keys are those of the HSM.
          type: dict
  sample:
    - hsm: hsm0
      host: hsm1.example.com
      port: 2310
      connected: true
      firmware: RP-2.10.0-T
      error: null
      slots: [{"slot": "slot0", "slot_id": 0, "user_name": "PARTITION1", "ok": true, "error": null}]
partitions:
  description: The result of the test for each partition's permanent secret.
  returned: always
  type: list
  elements: dict
  contains:
    user_name:
      description: The partition.
      type: str
    verified:
      description: Whether the HSM accepts the secret. Null when it was not evaluated or the result is unclear.
      type: bool
    logins:
      description: How many logins of the test may have been evaluated. The single login before the test is only in
        RV(logins).
      type: int
    error:
      description: Error of the first HSM that rejected it, or null.
      type: dict
counts:
  description: Numbers of HSMs and slots that were tried, and of failures.
  returned: always
  type: dict
  contains:
    hsms:
      description: HSMs that were tried.
      type: int
    slots:
      description: Slots that were tried.
      type: int
    failures:
      description: HSMs that were not reached, and logins that failed.
      type: int
  sample: {"hsms": 2, "slots": 4, "failures": 0}
logins:
  description: How many logins the HSMs may have evaluated.
  returned: always
  type: int
unseen:
  description:
    - The selected slots for which the output of C(ppin) shows neither success nor failure. Each has C(hsm),
      C(slot), C(slot_id) and C(user_name). C(hsm) and C(slot) are null when C(primus.cfg) cannot be parsed.
  returned: always
  type: list
  elements: dict
  sample: [{"hsm": "hsm1", "slot": "slot0", "slot_id": 0, "user_name": "PARTITION1"}]
refused:
  description: The partitions without a login, because their secret is known to be rejected.
  returned: always
  type: list
  elements: str
error:
  description: Why the module failed, with the keys of the same value of M(hsmops.primus.ppin_secret).
  returned: failure
  type: dict
"""

import typing as t
from collections import Counter

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hsmops.primus.plugins.module_utils._client.config_reader import Slot
from ansible_collections.hsmops.primus.plugins.module_utils._client.ledger import Ledger
from ansible_collections.hsmops.primus.plugins.module_utils._client.login_module import (
    LOGIN_ARGUMENTS,
    check_not_rejected,
    record_logins,
    run_login_module,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.connectivity_test import (
    ConnectivityTest,
    HsmResult,
    SlotResult,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.listing import (
    CONFIGURED,
    Entry,
    entry_state,
    quoted,
)
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.login import LoginPpin


def test_connectivity(module: AnsibleModule, ppin: LoginPpin, ledger: Ledger, result: t.Dict[str, t.Any]) -> None:
    params = module.params
    listed = ppin.listing().partitions
    names = _selected_partitions(params, listed)
    check_not_rejected(module, ledger, [name for name in names if entry_state(listed[name]) == CONFIGURED])
    slots = ppin.slots()
    selected = _selected_slots(slots, params, names)
    not_accepted = {}
    for name in names:
        first = _first_login(ppin, name, [slot for slot in selected if slot.user_name == name])
        if first is not None and _may_have_logged_in(first) and not any(slot.ok for slot in first.slots):
            not_accepted[name] = first
    if not_accepted:
        others = [_run_test(ppin, params, listed, name) for name in names if name not in not_accepted]
        tested = _merge([*not_accepted.values(), *others])
    else:
        tested = _run_test(ppin, params, listed, params["user_name"])
    result.update(_result_of(tested))
    record_logins(module, ledger, {entry["user_name"]: entry["verified"] for entry in result["partitions"]})
    if tested.timeout_error is not None:
        raise tested.timeout_error
    rest = {name: listed[name] for name in names if name not in not_accepted}
    unseen = _unseen_slots(tested, params, slots, rest)
    result["unseen"] = unseen or []
    counted = tested.failures is not None and tested.slots
    if unseen or (unseen is None and not counted):
        result["ok"] = False
    matches_counts = _matches_counts(tested, result["counts"])
    if unseen and matches_counts:
        module.warn(
            "ppin --test reports no success for %s: ok is false." % ", ".join(_describe_slot(entry) for entry in unseen)
        )
    elif unseen is None and not counted:
        module.warn(
            "ppin --test printed no counts or no slot, and the slots that it must have tested cannot be read from "
            "primus.cfg: ok is false, even if each login that is shown worked."
        )
    if not matches_counts and (unseen != [] or tested.failures):
        raise PpinError(
            "ppin --test counts %s partitions and %s failures, but the collection found %d and %d in its output"
            % (tested.partitions, tested.failures, result["counts"]["slots"], result["counts"]["failures"]),
            cls="dialogue",
            hint="This version of the collection does not understand your provider's output: report it with the "
            "output of ppin --test.",
        )


def _selected_partitions(params: t.Mapping[str, t.Any], listed: t.Mapping[str, t.Sequence[Entry]]) -> t.List[str]:
    """Return the listed partitions that the options select. :raises PpinError: when there is none."""
    selected, slot_id = params["user_name"], params["slot_id"]
    names = [
        name
        for name, entries in listed.items()
        if selected in (None, name) and (slot_id is None or slot_id in [entry.slot_id for entry in entries])
    ]
    if not names and selected in (None, *listed):
        raise PpinError("No slot of primus.cfg has this partition and slot id", cls="config")
    if not names:
        raise PpinError("primus.cfg has no such partition; it has %s" % quoted(listed), "0x80005012")
    return names


def _selected_slots(slots: t.Sequence[Slot], params: t.Mapping[str, t.Any], names: t.Collection[str]) -> t.List[Slot]:
    """Return the slots of primus.cfg that the options select; [] when it cannot be parsed."""
    return [
        slot
        for slot in slots
        if slot.user_name in names
        and params["hsm"] in (None, slot.hsm, slot.host)
        and params["slot"] in (None, slot.slot, slot.slot.replace("slot", ""))
        and params["slot_id"] in (None, slot.slot_id)
    ]


def _first_login(ppin: LoginPpin, name: str, slots: t.Sequence[Slot]) -> t.Optional[ConnectivityTest]:
    """Log in once to a partition, at the first HSM that is reached. None when the whole test is only one login."""
    if len(slots) < 2:
        return None
    first_slots = {slot.hsm: slot for slot in reversed(slots)}
    tested = None
    for hsm in dict.fromkeys(slot.hsm for slot in slots):
        several = [slot.hsm for slot in slots].count(hsm) > 1
        slot_id = first_slots[hsm].slot_id if several else None
        try:
            tested = ppin.test([name], user=name, hsm=hsm, slotid=None if slot_id is None else str(slot_id))
        except PpinError as exc:
            if exc.code is None and exc.cls in ("config", "unknown"):  # ppin printed nothing about this HSM
                continue
            raise
        if _may_have_logged_in(tested) or tested.timeout_error:
            break
    return tested


def _may_have_logged_in(tested: ConnectivityTest) -> bool:
    """Whether an HSM has evaluated a secret, or may have."""
    return any(slot.counts_as_login for slot in tested.slots) or tested.logins_without_slot > 0


def _run_test(
    ppin: LoginPpin, params: t.Mapping[str, t.Any], listed: t.Collection[str], name: t.Optional[str]
) -> ConnectivityTest:
    slot_id = None if params["slot_id"] is None else str(params["slot_id"])
    return ppin.test(listed, user=name, hsm=params["hsm"], slot=params["slot"], slotid=slot_id)


def _merge(tests: t.Sequence[ConnectivityTest]) -> ConnectivityTest:
    """Merge several tests into one, without the counts of ppin, which cannot be added."""
    hsms: t.Dict[str, HsmResult] = {}
    for hsm in (hsm for tested in tests for hsm in tested.hsms):
        known = hsms.get(hsm.hsm, hsm)
        better = hsm if hsm.connected and not known.connected else known
        slots = known.slots + hsm.slots if known is not hsm else hsm.slots
        hsms[hsm.hsm] = better._replace(slots=sorted(slots, key=lambda slot: (len(slot.slot), slot.slot)))
    timeout_error = next((tested.timeout_error for tested in tests if tested.timeout_error), None)
    return ConnectivityTest(
        [hsms[key] for key in sorted(hsms, key=lambda key: (len(key), key))], None, None, timeout_error
    )


def _unseen_slots(
    tested: ConnectivityTest,
    params: t.Mapping[str, t.Any],
    slots: t.Sequence[Slot],
    listed: t.Mapping[str, t.Sequence[Entry]],
) -> t.Optional[t.List[t.Dict[str, t.Any]]]:
    """Return the selected slots that the output shows neither as success nor as failure; None when they are not known.

    :arg slots: those of primus.cfg; [] when it cannot be parsed. Then the listing has the number of slots.
    :arg listed: the partitions that were tested completely.
    """
    if not listed:
        return []
    if not slots:
        if params["hsm"] or params["slot"]:
            return None
        wanted = Counter((name, entry.slot_id) for name, entries in listed.items() for entry in entries)
        wanted -= Counter((slot.user_name, slot.slot_id) for slot in tested.slots)
        keys = ((name, slot_id) for name, slot_id in wanted if params["slot_id"] in (None, slot_id))
        return [{"hsm": None, "slot": None, "slot_id": slot_id, "user_name": name} for name, slot_id in keys]
    selected = _selected_slots(slots, params, listed)
    if not selected:  # ppin has tested something, so it selects in another way
        return None
    places = [(hsm, key) for hsm in tested.hsms for key in _hsm_keys(hsm, slots)]
    failed = {key for hsm, key in places if hsm.error}
    seen = {
        (key, slot.user_name, slot_id) for hsm, key in places for slot in hsm.slots for slot_id in (slot.slot_id, None)
    }
    return [
        {"hsm": slot.hsm, "slot": slot.slot, "slot_id": slot.slot_id, "user_name": slot.user_name}
        for slot in selected
        if slot.hsm not in failed and (slot.hsm, slot.user_name, slot.slot_id) not in seen
    ]


def _hsm_keys(hsm: HsmResult, slots: t.Sequence[Slot]) -> t.Set[str]:
    """Return the possible keys in primus.cfg of an HSM in the output.

    The vendor does not document that ppin shows the same keys, so address and port take precedence over the key.
    """
    address = (hsm.host.lower(), str(hsm.port))
    same_address = {slot.hsm for slot in slots if hsm.port and (slot.host.lower(), slot.port) == address}
    return same_address & {hsm.hsm} or same_address or {hsm.hsm}


def _describe_slot(entry: t.Mapping[str, t.Any]) -> str:
    return "'%s' in slot %s of %s" % (entry["user_name"], entry["slot_id"], entry["hsm"] or "one HSM")


def _result_of(tested: ConnectivityTest) -> t.Dict[str, t.Any]:
    hsms = [
        {
            "hsm": hsm.hsm,
            "host": hsm.host,
            "port": hsm.port,
            "connected": hsm.connected,
            "firmware": hsm.firmware,
            "error": hsm.error and hsm.error.result(),
            "slots": [
                {
                    "slot": slot.slot,
                    "slot_id": slot.slot_id,
                    "user_name": slot.user_name,
                    "ok": slot.ok,
                    "error": slot.error and slot.error.result(),
                }
                for slot in hsm.slots
            ],
        }
        for hsm in tested.hsms
    ]
    failures = [item for item in list(tested.hsms) + list(tested.slots) if item.error]
    by_name: t.Dict[str, t.List[SlotResult]] = {}
    for slot in tested.slots:
        by_name.setdefault(slot.user_name, []).append(slot)
    return {
        "ok": not failures and tested.timeout_error is None,
        "hsms": hsms,
        "partitions": [_partition_result(name, slots) for name, slots in by_name.items()],
        "counts": {"hsms": len(tested.hsms), "slots": len(tested.slots), "failures": len(failures)},
    }


def _partition_result(name: str, slots: t.Sequence[SlotResult]) -> t.Dict[str, t.Any]:
    rejections = [slot.error for slot in slots if slot.error and slot.error.is_rejection]
    accepted = [slot for slot in slots if slot.ok]
    return {
        "user_name": name,
        # If one HSM accepts the secret and another rejects it, it is not known whether the secret is valid.
        "verified": None if bool(rejections) == bool(accepted) else bool(accepted),
        "logins": len([slot for slot in slots if slot.counts_as_login]),
        "error": rejections[0].result() if rejections else None,
    }


def _matches_counts(tested: ConnectivityTest, counts: t.Mapping[str, int]) -> bool:
    """Whether the parsed results match the counts that ppin printed, so that no line was overlooked.

    The vendor does not document whether ppin counts a partition once, per HSM or per slot, or also if not tested.
    """
    least = len({slot.user_name for slot in tested.slots})
    most = counts["slots"] if all(hsm.connected for hsm in tested.hsms) else tested.partitions
    return (tested.partitions is None or least <= tested.partitions <= (most or 0)) and (
        tested.failures is None or bool(tested.failures) == bool(counts["failures"])
    )


def main() -> None:
    run_login_module(
        AnsibleModule(
            argument_spec=dict(
                LOGIN_ARGUMENTS,
                user_name={"type": "str", "aliases": ["partition", "name"]},
                hsm={"type": "str"},
                slot={"type": "str"},
                slot_id={"type": "int"},
            ),
            supports_check_mode=True,
        ),
        test_connectivity,
        {"ok": False, "hsms": [], "partitions": [], "unseen": [], "counts": {"hsms": 0, "slots": 0, "failures": 0}},
    )


if __name__ == "__main__":
    main()
