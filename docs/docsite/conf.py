# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation's site, which `make docs` builds.

Its pages are the Markdown files of the repository as they are, and those that antsibull-docs makes of the documentation
of modules, roles and filters. Nothing is asked of the network.
"""

import re
from pathlib import Path

import sphinx_antsibull_ext
import yaml
from docutils import nodes

project = "hsmops.primus"
author = copyright = "The hsmops.primus authors"
release = yaml.safe_load((Path(__file__).parents[2] / "galaxy.yml").read_text())["version"]

extensions = ["myst_parser", "sphinx_antsibull_ext"]
myst_heading_anchors = 3  # as on the repository's web page

html_theme = "furo"
html_title = f"{project} {release}"
# The theme's own switch between light and dark must switch the tables of antsibull-docs, too.
dark = (Path(sphinx_antsibull_ext.__file__).parent / "colors-default-dark.css").read_text()
html_theme_options = {"dark_css_variables": dict(re.findall(r"--(antsibull-[a-z-]+):([^;}]+)", dark))}
html_copy_source = False
html_show_sphinx = False

# What the pages of antsibull-docs refer to in Ansible's own documentation. intersphinx would have to download an
# inventory of it at each build.
ANSIBLE = "https://docs.ansible.com/projects/ansible/latest/"
LABELS = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def link_to_ansible(app, env, node, text):
    label = node.get("reftarget", "")
    plugin = re.fullmatch(r"ansible_collections\.ansible\.builtin\.(\w+)", label)
    page = f"collections/ansible/builtin/{plugin[1]}.html" if plugin else LABELS.get(label)
    return nodes.reference("", "", text, internal=False, refuri=ANSIBLE + page) if page else None


def without_contents(app, page):
    """The theme has the table of contents at the side of every page."""
    for topic in list(page.findall(nodes.topic)):
        if "contents" in topic["classes"]:
            topic.parent.remove(topic)


def setup(app):
    app.connect("missing-reference", link_to_ansible)
    app.connect("doctree-read", without_contents)
