# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locks that `make lock` writes: complete, pinned, hashed, and the same wherever they are used."""

import itertools
import re

import pytest
from emulated_hsm import COLLECTION
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = ["requirements-dev", "tests/demo/requirements"]
ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": python + ".9",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for python, machine in itertools.product(["3.11", "3.12", "3.13"], ["x86_64", "aarch64"])
]


def wanted(name):
    """The names in a file that a person wrote, and in those that it includes."""
    for line in (COLLECTION / f"{name}.in").read_text().splitlines():
        if line.startswith("-r "):
            yield from wanted(line[3:].removesuffix(".in"))
        elif line and not line.startswith("#"):
            yield canonicalize_name(Requirement(line).name)


def pins(name):
    """The requirements of a lock, with the number of hashes of each."""
    text = (COLLECTION / f"{name}.txt").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=sha256:", line.strip())
            assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes)
            yield Requirement(requirement), len(hashes)


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_is_a_version_with_hashes(name):
    """A line of another kind, such as the address of an index, does not read as a requirement."""
    for requirement, hashes in pins(name):
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(requirement.specifier)), requirement
        assert not requirement.url and hashes, requirement


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: f"{e['python_version']} {e['platform_machine']}")
@pytest.mark.parametrize("name", LOCKS)
def test_each_package_has_one_version(name, environment):
    here = [pin.name for pin, _hashes in pins(name) if pin.marker is None or pin.marker.evaluate(environment)]
    assert len(here) == len(set(here))
    assert set(wanted(name)) <= set(here)


def test_the_demo_has_the_versions_of_the_rest():
    everything = {str(pin) for pin, _hashes in pins("requirements-dev")}
    demo = [pin for pin, _hashes in pins("tests/demo/requirements")]
    assert {f"{pin.name}{pin.specifier}" for pin in demo} <= {re.sub(" *;.*", "", pin) for pin in everything}
