# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module fleet_report in playbook runs of its own; the playbook that looks first is an integration target."""

import json
import multiprocessing
import stat

import pytest
from ansible_collections.hsmops.primus.plugins.action.fleet_report import REPORT_ARGUMENTS, write_files
from example_fleet import FLEET, look

COUNT = 3


@pytest.fixture
def run(new_fleet):
    """Run the module on a play of three hosts: its result, and the files in its folder by name."""
    fleet = new_fleet(COUNT)

    def run_module(arguments=(), **options):
        dest = fleet.folder / "report"
        task = {"name": "report", "hsmops.primus.fleet_report": {"dest": str(dest), **options}, "run_once": True}
        results = fleet.run(task, arguments=arguments).results()
        assert len(results) == 1
        files = {path.name: path for path in dest.iterdir()} if dest.exists() else {}
        return results.popitem()[1], files

    return run_module


def test_what_is_written(run):
    result, files = run(clients=FLEET)
    assert result["changed"] and set(files) == {"primus_report.html", "primus_report.json", "primus_report.prom"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert stat.S_IMODE(files["primus_report.html"].parent.stat().st_mode) == 0o700
    assert result["files"] == {path.suffix[1:]: str(path) for path in files.values()}
    assert result["counts"] == json.loads(files["primus_report.json"].read_text())["counts"]
    assert result["summary"][0].startswith("Hosts: 14 (")


def test_check_mode(run):
    result, files = run(["--check"], clients=FLEET)
    assert result["changed"] and result["summary"][0].startswith("Hosts: 14 (")
    assert files == result["files"] == {}


@pytest.mark.parametrize(("mode", "expected"), [("0644", 0o644), (0o604, 0o604), ("u=rw,g=r", 0o640), ("g+r", 0o640)])
def test_mode(run, mode, expected):
    _result, files = run(clients={}, formats=["json"], mode=mode)
    assert stat.S_IMODE(files["primus_report.json"].stat().st_mode) == expected


@pytest.mark.parametrize(
    "options",
    [{"mode": "u=z"}, {"mode": "01777"}, {"mode": True}, {"formats": ["pdf"]}, {"clients": "all"}],
)
def test_wrong_options(run, options):
    result, files = run(**{"clients": {"h": look()}, **options})
    assert result["failed"] and result["msg"] and files == {}


def test_runs_that_write_at_once(tmp_path):
    """Such as one by a timer and one by hand."""
    path = tmp_path / "report" / "primus_report.json"

    def keep_writing(number):
        for _time in range(40):
            write_files({str(path): str(number) * 100000}, str(path.parent), {str(path): 0o600})
            assert len(set(path.read_text())) == 1

    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=keep_writing, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert list(path.parent.iterdir()) == [path]


def test_templates_in_what_a_host_tells_are_text(new_fleet):
    fleet = new_fleet(1)
    text = "{{ 7 * 7 }}{% raw %}{{ lookup('ansible.builtin.env', 'HOME') }}"
    (fleet.folder / "told").write_text(text)
    told = {
        "name": "told",
        "ansible.builtin.command": {"argv": ["cat", str(fleet.folder / "told")]},
        "register": "told",
    }
    clients = "{{ {'h': {'unreachable': true, 'msg': told.stdout}} }}"
    options = {"clients": clients, "dest": str(fleet.folder / "report"), "formats": ["json"]}
    fleet.run(told, {"name": "report", "hsmops.primus.fleet_report": options})
    (host,) = json.loads((fleet.folder / "report/primus_report.json").read_text())["hosts"]
    assert host["findings"][0]["details"] == [text]


def test_the_arguments_are_documented():
    import yaml
    from ansible_collections.hsmops.primus.plugins.modules import fleet_report

    documented = yaml.safe_load(fleet_report.DOCUMENTATION)["options"]
    assert documented.keys() == REPORT_ARGUMENTS.keys()
    for name, argument in REPORT_ARGUMENTS.items():
        for key in ("type", "required", "default", "choices", "elements"):
            assert documented[name].get(key) == argument.get(key), (name, key)
