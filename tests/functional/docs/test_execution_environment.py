# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-builder makes of the collection and of the example. No image is built: that needs a network."""

import subprocess
import sys
from pathlib import Path

import yaml
from emulated_hsm import COLLECTIONS
from examples import EXAMPLES

BUILDER = Path(sys.executable).with_name("ansible-builder")


def test_dependencies_of_the_collection(tmp_path):
    """As ansible-builder finds them in a collection that is installed."""
    pip, bindep = tmp_path / "pip", tmp_path / "bindep"
    subprocess.run(
        [BUILDER, "introspect", "--write-pip", pip, "--write-bindep", bindep, COLLECTIONS],
        check=True,
        stdout=subprocess.PIPE,
    )
    assert [line.partition("  #")[0] for line in pip.read_text().splitlines()] == ["redis>=5.0"]
    found = {line.partition("  #")[0] for line in bindep.read_text().splitlines()}
    found = {line for line in found if "[test" not in line}  # bindep leaves these out unless it is asked for them
    assert found == {"openssh-clients [platform:rpm]", "openssh-client [platform:dpkg]"}


def test_context(tmp_path):
    definition = EXAMPLES / "execution_environment/execution-environment.yml"
    context = tmp_path / "context"
    command = [BUILDER, "create", "--file", definition, "--context", context, "--output-filename", "Containerfile"]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    image = yaml.safe_load(definition.read_text())["images"]["base_image"]["name"]
    assert f'ARG EE_BASE_IMAGE="{image}"' in (context / "Containerfile").read_text()
    (collection,) = yaml.safe_load((context / "_build/requirements.yml").read_text())["collections"]
    assert collection["name"].endswith("/hsmops.primus.git")
