# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attempt gate with two control nodes, with workers that are killed at each step, and with a store that fails."""

import copy
import re
from types import SimpleNamespace

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.hsmops.primus.plugins.action import pkcs11_token_info, ppin_connectivity_info, ppin_secret
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import gated_action as _gate_action
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.open_store import open_store
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import FIRST_PERMITS, RUNNING
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.store import GateError
from emulated_hsm import REJECTED, WRONG_SETUP, wait_for, working_copies, wrap_ppin
from fleet import CALLBACK

BUDGET = 3


# Two control nodes


@pytest.mark.parametrize("kind", ["directory", "redis"])
@pytest.mark.parametrize("cause", ["a stale secret", "a wrong setup password"])
def test_two_controllers_that_share_a_store(new_fleet, kind, cause, request):
    fleet = new_fleet(6, partitions=("P2:1",))
    store = request.getfixturevalue("redis_url") if kind == "redis" else str(fleet.store)
    if cause == "a stale secret":
        fleet.fetch("P2")
        fleet.hsm("rotate-secret", partition="P2")
        task, cost = fleet.ppin("ppin_connectivity_info", hsm="hsm0", gate_store=store), 2
    else:
        task, cost = fleet.secret("P2", setup_password=WRONG_SETUP, gate_store=store), 1
    before = fleet.hsm.trials("P2")
    slices = [",".join(fleet.hosts[:3]), ",".join(fleet.hosts[3:])]
    runs = [fleet.start(task, arguments=["--limit", hosts]) for hosts in slices]
    for run in runs:
        output = run.communicate()[0]
        assert cause == "a stale secret" or output.count("failed=1") == 3
    assert fleet.hsm.trials("P2") - before == cost


# A worker that is killed

KILL = """
import os, signal, threading, time
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.credential_action import CredentialAction
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate import rules
from ansible_collections.hsmops.primus.plugins.plugin_utils._gate.rules import Gate

class DeadlyTime:
    def __getattr__(self, name):
        return getattr(time, name)

    def sleep(self, seconds):
        die()
        time.sleep(seconds)

def die():
    try:
        os.close(os.open("killed", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

def die_during_the_module():
    def wait():
        while not os.path.exists("started"):
            time.sleep(0.005)
        die()
    threading.Thread(target=wait, daemon=True).start()

def first(owner, name, what):
    original = getattr(owner, name)
    def patched(self, *args, **how):
        what()
        return original(self, *args, **how)
    setattr(owner, name, patched)

"""

STEPS = {
    "waiting": 'first(Gate, "_report_wait", die); rules.time = DeadlyTime()',
    "having the turn": 'first(Gate, "_take_slot", die)',
    "before the module": 'first(CredentialAction, "_run_and_record", die)',
    "during the module": 'first(CredentialAction, "_run_and_record", die_during_the_module)',
    "after the module": 'first(Gate, "record_verdict", die)',
    "while the verdict is noted": 'first(Gate, "_record_reachability", die)',
}


def kill_a_worker(fleet, step, task):
    """Run a task, and kill the first worker that gets there."""
    (fleet.folder / "callbacks/results.py").write_text(CALLBACK + KILL + STEPS[step])
    for host in fleet.hosts:
        note = f'case "$*" in *-l*|*--test*) ;; *) touch "{fleet.folder}/started";; esac'
        wrap_ppin(fleet.folder / host / "bin/ppin", f'{note}\nexec "$0.real" "$@"')
    fleet.run(task, forks=3)
    assert (fleet.folder / "killed").exists()
    (fleet.folder / "callbacks/results.py").write_text(CALLBACK)


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_with_a_wrong_setup_password(new_fleet, step):
    fleet = new_fleet(3, partitions=("P2:1",))
    wrong = fleet.secret("P2", setup_password=WRONG_SETUP)
    kill_a_worker(fleet, step, wrong)
    run = fleet.run(wrong)
    assert set(run.failures()) == set(fleet.hosts)
    assert all(result["error"]["class"] == "rejected" for result in run.results().values())
    assert 1 <= fleet.verdicts("setup")[REJECTED] <= 2
    assert fleet.run(fleet.secret("P2")).failures() == {}


@pytest.mark.parametrize("step", [step for step in STEPS if step not in ("waiting", "having the turn")])
def test_a_worker_killed_that_has_a_permit(new_fleet, step):
    """The password was accepted, and is no longer. Who is killed with a permit leaves no trace: each run costs two."""
    fleet = new_fleet(3, partitions=("P2:1",))
    assert fleet.run(fleet.secret("P2"), arguments=["--limit", "host0000"]).failures() == {}
    new = fleet.hsm("new-setup-password", partition="P2")
    old = fleet.secret("P2", state="updated", force=True)
    kill_a_worker(fleet, step, old)
    assert set(fleet.run(old).failures()) == set(fleet.hosts)
    assert 1 <= fleet.verdicts("setup")[REJECTED] <= 2 * FIRST_PERMITS
    fleet.run({"name": "Clear", "hsmops.primus.attempt_gate": {"name": "P2", "state": "absent"}})
    run = fleet.run(fleet.secret("P2", state="updated", setup_password=new))
    assert run.failures() == {}


def test_killed_again_and_again(new_fleet):
    """Each time with the password of another try: no more than the budget is spent."""
    fleet = new_fleet(2, partitions=("P2:1",))
    for number in range(BUDGET + 2):
        (fleet.folder / "killed").unlink(missing_ok=True)
        (fleet.folder / "callbacks/results.py").write_text(CALLBACK + KILL + STEPS["after the module"])
        wrong = f"{WRONG_SETUP[:-1]}{number}"
        fleet.run(fleet.secret("P2", setup_password=wrong), arguments=["--limit", "host0000"])
        assert (fleet.folder / "killed").exists() == (number < BUDGET)
    (fleet.folder / "callbacks/results.py").write_text(CALLBACK)
    assert fleet.verdicts("setup")[REJECTED] == BUDGET
    failures = fleet.run(fleet.secret("P2")).failures()
    assert len(failures) == 2 and all("the run was interrupted" in msg for msg in failures.values())
    fleet.run({"name": "Clear", "hsmops.primus.attempt_gate": {"name": "P2", "state": "absent"}})
    assert fleet.run(fleet.secret("P2")).failures() == {}


# A store that fails

METHODS = ("read", "write", "remove", "items", "keys", "new_turn", "try_acquire", "now", "secret")


def fail(store, at, methods, forever):
    """Have a call of the store's methods fail, and those after it if forever: what is called then tells whether."""
    count = [0]

    def counted(original):
        def call(*args, **how):
            count[0] += 1
            if count[0] == at or (forever and count[0] > at):
                raise GateError("The store is away")
            return original(*args, **how)

        return call

    def new_turn(*args):
        turn = make_turn(*args)
        if "try_acquire" in methods:
            turn.try_acquire = counted(turn.try_acquire)
        return turn

    make_turn = counted(store.new_turn) if "new_turn" in methods else store.new_turn
    store.new_turn = new_turn
    for method in methods:
        if method not in ("new_turn", "try_acquire"):
            setattr(store, method, counted(getattr(store, method)))
    return lambda: count[0] >= at


class Client:
    """A client whose modules answer as they are told, with the action plugins in front."""

    def __init__(self, plugin, host, answers, **arguments):
        self.plugin, self.host, self.answers, self.arguments = plugin, host, answers, arguments
        self.tried = 0

    def run(self):
        action = object.__new__(self.plugin.ActionModule)
        action._task = SimpleNamespace(args=self.arguments, check_mode=False, async_val=0, delegate_to=None)
        action._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None), has_native_async=False)
        action._execute_module = lambda module_name, **how: self.execute(module_name, action._task.check_mode)
        self.tried = 0
        return action.run(None, {"inventory_hostname": self.host})

    def execute(self, module, check):
        look = check or module.endswith("ppin_info")
        self.tried += not look
        return copy.deepcopy(self.answers[0 if look else 1])


def rejected(**more):
    error = {"code": REJECTED, "name": "login failed", "class": "rejected", "hint": "Ask."}
    return {"failed": True, "changed": False, "msg": "It was rejected.", "logins": 1, "error": error, **more}


def stale(name):
    return {"user_name": name, "configured": True, "verified": False, "logins": 1, "error": rejected()["error"]}


LISTED = {"partitions": [{"user_name": name, "configured": True, "origin": "a" * 64} for name in ("P1", "P2")]}
PASSWORDS = {"user_name": "P1", "setup_password": "setup", "pkcs11_password": "pin"}
CASES = {
    "rejected": (ppin_secret, ({"changed": True, "logins": 0}, rejected()), PASSWORDS),
    "accepted": (ppin_secret, ({"changed": True, "logins": 0}, {"changed": True, "logins": 1}), PASSWORDS),
    "the PIN": (pkcs11_token_info, ({"logins": 0}, rejected()), {"user_name": "P1", "pin": "pin"}),
    "two stale": (
        ppin_connectivity_info,
        (LISTED, {"failed": True, "msg": "Stale.", "logins": 2, "partitions": [stale("P1"), stale("P2")]}),
        {},
    ),
}


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("methods", [*((method,) for method in METHODS), METHODS], ids=" ".join)
@pytest.mark.parametrize("case", CASES)
def test_a_store_that_fails_at_each_step(tmp_path, monkeypatch, case, methods, forever):
    """What was tried is shown, what was not tried is not counted, and the next host can go on."""
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    monkeypatch.setattr(_gate_action.display, "warning", lambda text: None)
    plugin, answers, arguments = CASES[case]
    step, failed = 0, True
    while failed:
        step += 1
        where = str(tmp_path / f"gate{step}")
        open_store(where).secret()
        store = open_store(where)
        failed = fail(store, step, methods, forever)
        monkeypatch.setattr(_gate_action, "open_store", lambda where, store=store: store)
        client = Client(plugin, "h1", answers, **arguments)
        result = client.run()
        failed = failed()
        if client.tried:
            assert (client.tried, result.get("msg"), result["logins"]) == (
                1,
                answers[1].get("msg"),
                answers[1]["logins"],
            )
        else:
            assert (result["failed"], result["logins"]) == (True, 0)
            assert result["msg"] == "The store is away. No credential was used."
        monkeypatch.setattr(_gate_action, "open_store", lambda where, path=where: open_store(path))
        after = open_store(where)
        assert len(after.items()) == len(after.keys()), "no record is damaged"
        wrong = [moment for _key, record in after.items() for moment in record.get("wrong", [])]
        assert len(wrong) <= answers[1]["logins"] * client.tried
        if client.tried and answers[1].get("failed"):
            noted = len(wrong) + sum(record["verdict"] == RUNNING for _key, record in after.items())
            assert noted >= answers[1]["logins"], "each login that went wrong counts"
        other = Client(plugin, "h2", answers, **arguments)
        second = other.run()
        assert other.tried or second["error"]["class"] == "rejected", second
        assert not [record for _key, record in open_store(where).items() if record["verdict"] == RUNNING]
    assert step > 1 or methods in (("remove",), ("keys",))


# A task that Ansible ends


def test_a_task_that_runs_into_its_timeout(new_fleet, tmp_path):
    """The keyword, not the option: the module is not told, goes on, and what it fetches is put in place."""
    fleet = new_fleet(2, partitions=("P2:1",))
    asked, go = tmp_path / "asked", tmp_path / "go"
    block = f"touch {asked}; while [ ! -e {go} ]; do sleep 0.1; done"
    wrap_ppin(
        fleet.folder / fleet.hosts[0] / "bin/ppin",
        f'case "$*" in *"-a -e"*) {block};; esac; exec "$0.real" "$@"',
    )
    first, other = (["--limit", host] for host in fleet.hosts)
    for seconds in (4, 16, 64):  # a slow machine may need more until ppin is there
        task = fleet.secret("P2", state="updated", task={"timeout": seconds}, gate_budget=BUDGET)
        run = fleet.run(task, arguments=first)
        if asked.exists():
            break
    assert re.search("Timed out after|expected time frame", str(run.failures())), run.output

    refused = fleet.run(fleet.secret("P2", gate_budget=1), arguments=other).failures()
    assert "Attempt limit reached" in str(refused) and "the run was interrupted" in str(refused)

    go.touch()
    secrets = fleet.folder / fleet.hosts[0] / "etc/.secrets.cfg"
    wait_for(lambda: secrets.with_name(".secrets.cfg.ledger").exists() and not working_copies(secrets))
    again = fleet.run(fleet.secret("P2", state="updated"), arguments=first).results()[fleet.hosts[0]]
    assert (again["changed"], again["interrupted"]) == (False, False), "the next run finds it"
    assert fleet.verdicts("setup") == {"ok": 1}
