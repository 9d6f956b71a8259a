# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of plays, tasks and handlers are imperative: a user sees them, searches for them and starts at them."""

import ast
import re

import pytest
import yaml
from emulated_hsm import COLLECTION

VERBS = re.findall(
    r"\w+",
    """
    Add Allow Apply Ask Break Bring Build Change Check Clear Compare Configure Continue Copy Correct Create
    Decommission Decrypt Describe Disable Download Enable Encrypt End Expect Expire Fail Fetch Fill Find Free Gather
    Ignore Include Inspect Install Keep Kill Leave Link List Load Log Make Measure Mount Move Name Pack Plan Prepare
    Provision Publish Put Qualify Query Read Record Remember Remove Rename Render Replace Report Reset Restart
    Restore Rotate Run Search Serve Set Show Start Stop Store Test Try Unmount Unpack Update Use Validate Verify
    Wait Write
    """,
)

DIRECTORIES = ("roles", "playbooks", "docs/examples", "extensions/molecule", "tests/integration/targets")

NESTED = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")


class Loader(yaml.SafeLoader):
    """Takes the tags of Ansible, such as !vault, for nothing."""


Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def names(entries):
    """Those of a list of plays or tasks, and of what is in them."""
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            if isinstance(entry.get("name"), str) and len(entry) > 1:
                yield entry["name"]
            for key in NESTED:
                yield from names(entry.get(key))


def files(directory):
    """The files of plays and tasks. A list of anything else, such as partitions, is in other places."""
    for path in sorted((COLLECTION / directory).rglob("*.yml")):
        if not {"defaults", "vars", "meta", "group_vars", "inventory", "awx"} & set(path.parts):
            yield path


def wrong_names(directory):
    for path in files(directory):
        for document in yaml.load_all(path.read_text(), Loader):  # noqa: S506 - a SafeLoader
            for name in names(document):
                if name.split()[0].rstrip(",") not in VERBS:
                    yield f"{path.relative_to(COLLECTION)}: {name}"


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_names_begin_with_a_verb(directory):
    assert list(wrong_names(directory)) == []


def examples():
    """The path and the EXAMPLES of each plugin whose examples are tasks."""
    for path in sorted((COLLECTION / "plugins").glob("*/*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXAMPLES":
                yield path, yaml.safe_load(ast.literal_eval(node.value))


def test_names_in_examples_of_plugins_begin_with_a_verb():
    found = [(path.name, name) for path, entries in examples() for name in names(entries)]
    assert ("ppin_info.py", "Inspect the client") in found
    assert [(path, name) for path, name in found if name.split()[0] not in VERBS] == []


def test_names_are_found():
    """In blocks, plays and handlers, too."""
    found = "".join(name for path in files("playbooks") for name in names(yaml.load(path.read_text(), Loader)))  # noqa: S506
    assert "Find the package of ppin" in found
    assert "Fetch the permanent secrets with new setup passwords" in found
