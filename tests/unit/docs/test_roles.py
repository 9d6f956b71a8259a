# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Defaults, argument specification and README of a role describe the same variables; all of them are used."""

import re

import pytest
import yaml
from emulated_hsm import COLLECTION

ROLES = sorted(COLLECTION.glob("roles/*"))
EACH = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
PLACES = ("roles/**/*.yml", "playbooks/*.yml")
YAML = "".join(path.read_text() for pattern in PLACES for path in COLLECTION.glob(pattern))


def load(path):
    return yaml.safe_load(path.read_text())


@EACH
def test_defaults_are_specified(role):
    options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert load(role / "defaults/main.yml") == {name: option.get("default") for name, option in options.items()}


@EACH
def test_readme_has_a_row_for_each(role):
    """Names after the first of a row are shortened: `…_home` is that of the role."""
    cells = re.findall(r"^\| (`\w.*?) \|", (role / "README.md").read_text(), re.M)
    names = [name.replace("…", role.name) for cell in cells for name in re.findall(r"`(.+?)`", cell)]
    assert sorted(names) == sorted(load(role / "defaults/main.yml"))


@EACH
def test_variables_are_used(role):
    """Somewhere beside where they are defined, and specified."""
    private = {name for path in role.glob("vars/*.yml") for name in load(path)}
    for name in {*private, *load(role / "defaults/main.yml")}:
        definitions = len(re.findall(rf"^ *{name}:", YAML, re.M))
        assert len(re.findall(rf"\b{name}\b", YAML)) > definitions, name


def test_private_names_are_defined():
    """What begins with `__` is what tasks and roles hand each other, so one of them registers or sets it."""
    text = "".join(path.read_text() for path in COLLECTION.glob("roles/**/*.yml"))
    defined = re.findall(r"(?:register: |loop_var: |^ *)(__primus_\w+)(?::|$)", text, re.M)
    assert set(re.findall(r"\b__primus_\w+", text)) == set(defined)
