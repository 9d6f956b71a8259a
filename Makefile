# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

# PYTHON chooses the interpreter of the virtual environments: `make test PYTHON=python3.12`.
PYTHON ?= python3
# TARGETS chooses integration targets: `make integration TARGETS="ppin_info ppin_secret"`; without it, all.
TARGETS ?=
# SCENARIOS chooses molecule scenarios: `make molecule SCENARIOS="default upgrade"`; without it, all.
SCENARIOS ?=
# MATRIX chooses sessions: `make matrix MATRIX="--session integration-2.16 sanity-2.16"`; without it, all.
MATRIX ?=
# BENCH is for the comparison: `make bench BENCH="--hosts 50 --sizes 10 100 1000"`, or `--parts lookups` for one part;
# with --docs, docs/benchmarks.md is written; --help tells the rest.
BENCH ?=

# UPGRADE chooses what `make lock` takes newer versions of: `make lock UPGRADE=--upgrade-package=ruff`; by default, all.
UPGRADE ?= --upgrade

# The name of the interpreter is part of the stamp's, so that another PYTHON makes the environment anew.
STAMP := made-by-$(subst /,_,$(PYTHON))
VENV := .venv
# The demo needs few packages and has a small environment of its own, unless the large one is there.
VENV_DEMO := $(if $(wildcard $(VENV)/$(STAMP)),$(VENV),.venv-demo)
# The tools start each other (ansible-lint ansible-playbook, for one), so they must be found on PATH.
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"

# Ansible and Python find a collection by its full name only.
COLLECTION := build/ansible_collections/hsmops/primus
# COLLECTIONS is where the tests find it: `make molecule COLLECTIONS=build/installed` tests what `make installed` has put
# there, which is what users get.
COLLECTIONS ?= build
export ANSIBLE_COLLECTIONS_PATH := $(abspath $(COLLECTIONS))

.DEFAULT_GOAL := help
.PHONY: help demo test lint format unit functional integration audit-secrets molecule bench scale crash docs build collection venv lock
.PHONY: audit-packages matrix coverage installed audit-molecule clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV_DEMO)/$(STAMP) $(COLLECTION) ## three emulated clients get their credentials, before your eyes
	PATH="$(CURDIR)/$(VENV_DEMO)/bin:$$PATH" python tests/demo/demo.py

test: lint unit functional integration ## all of the four that follow

lint: $(VENV)/$(STAMP) $(COLLECTION) ## what can be judged without running anything
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) yamllint --strict .
	$(RUN) ansible-lint --strict
	$(RUN) antsibull-changelog lint
	cd $(COLLECTION) && $(RUN) antsibull-docs lint-collection-docs --plugin-docs --check-extra-docs-refs \
	  --validate-collection-refs dependent --disallow-unknown-collection-refs .
	$(RUN) reuse lint --lines

unit: $(VENV)/$(STAMP) $(COLLECTION) ## what needs no emulator and no playbook, in half a minute
	$(RUN) pytest tests/unit

functional: $(VENV)/$(STAMP) $(COLLECTION) ## modules and playbooks against the emulator, and the emulator itself
	$(RUN) pytest tests/functional tests/emulator/tests tests/benchmarks

coverage: $(VENV)/$(STAMP) $(COLLECTION) ## lines of the plugins that unit and integration tests run, in all their processes
	rm -rf build/coverage
	mkdir -p build/coverage
	$(RUN) coverage run -m pytest
	$(RUN) coverage run tests/integration/run.py
	$(RUN) coverage combine --quiet
	$(RUN) coverage report

integration: $(VENV)/$(STAMP) $(COLLECTION) ## the modules and roles in real playbook runs against the emulator
	$(RUN) python tests/integration/run.py $(TARGETS)

AUDIT := python tests/integration/audit.py

audit-secrets: $(VENV)/$(STAMP) $(COLLECTION) ## integration once more, watched for secrets by strace; all of it as root
	$(RUN) $(AUDIT) python tests/integration/run.py $(TARGETS)

# strace has the kernel filter calls, which sets "no new privileges", with which there is no sudo.
AUDITED := $(filter-out sudo,$(patsubst extensions/molecule/%/molecule.yml,%,$(wildcard extensions/molecule/*/molecule.yml)))

audit-molecule: $(VENV)/$(STAMP) $(COLLECTION) ## the same for molecule, but for the scenario sudo
	$(RUN) ANSIBLE_CALLBACKS_ENABLED=record $(AUDIT) python extensions/molecule/run.py $(or $(SCENARIOS),$(AUDITED))

matrix: $(VENV)/$(STAMP) $(COLLECTION) ## ansible-core 2.16 to 2.21 and Python 3.6 to 3.13; `nox --list` tells its sessions
	$(RUN) nox $(MATRIX)

molecule: $(VENV)/$(STAMP) $(COLLECTION) ## the playbooks on hosts over ssh; needs root, see extensions/molecule/README.md
	$(RUN) python extensions/molecule/run.py $(SCENARIOS)

bench: $(VENV)/$(STAMP) $(COLLECTION) ## what runs cost, against the bare command, plain playbooks and ping
	$(RUN) python tests/benchmarks/module.py
	$(RUN) python tests/benchmarks/compare.py $(BENCH)

scale: $(VENV)/$(STAMP) $(COLLECTION) ## what the attempt gate promises, on 200 hosts, and 1,000 hosts with nothing to do
	$(RUN) python tests/scale/scale.py

crash: $(VENV)/$(STAMP) $(COLLECTION) ## runs killed everywhere, and what that leaves; needs strace and takes an hour
	$(RUN) python tests/crash/crash.py

# Sphinx gets the files in their places, so that the links between them are right here and on the repository's page.
docs: $(VENV)/$(STAMP) $(COLLECTION) ## the documentation's site, in build/docs/html
	rm -rf build/docs
	mkdir -p build/docs/source/collections
	cp -r *.md COPYING LICENSES docs playbooks roles tests extensions build/docs/source
	mv build/docs/source/docs/docsite/index.md build/docs/source
	chmod go-w build/docs/source/collections
	$(RUN) antsibull-docs --config-file docs/docsite/antsibull-docs.cfg collection --use-current --squash-hierarchy \
	  --fail-on-error --dest-dir build/docs/source/collections hsmops.primus
	$(RUN) sphinx-build --fail-on-warning --keep-going --quiet -c docs/docsite build/docs/source build/docs/html

build: $(VENV)/$(STAMP) ## the collection's artifact, in build/
	rm -f build/hsmops-primus-*.tar.gz
	$(RUN) ansible-galaxy collection build --force --output-path build

installed: build ## the artifact, installed in build/installed
	rm -rf build/installed
	$(RUN) ansible-galaxy collection install --force --collections-path build/installed build/hsmops-primus-*.tar.gz

format: $(VENV)/$(STAMP) ## lay out the Python code as lint wants it
	$(RUN) ruff check --fix
	$(RUN) ruff format

collection: $(COLLECTION) ## make this tree findable as a collection, under build/

venv: $(VENV)/$(STAMP) ## the virtual environment .venv with all tools

# One lock serves each Python from 3.11 on and each kind of machine: it has markers and the hashes of all files.
lock: $(VENV)/$(STAMP) ## choose the newest versions of all packages of .venv and .venv-demo, with their hashes
	$(RUN) $(LOCK) requirements-dev.in --output-file requirements-dev.txt $(UPGRADE)
	$(RUN) $(LOCK) tests/demo/requirements.in --output-file tests/demo/requirements.txt --constraints requirements-dev.txt

audit-packages: $(VENV)/$(STAMP) ## whether a package of .venv has a known vulnerability; asks PyPI
	$(RUN) pip-audit --strict --require-hashes --disable-pip --requirement requirements-dev.txt

clean: ## remove all that make has made
	rm -rf build .venv .venv-demo .ansible .mypy_cache .hypothesis .pytest_cache .ruff_cache

$(COLLECTION):
	mkdir -p $(@D)
	ln -sfn ../../.. $@

define make_venv
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	touch $@
endef

$(VENV)/$(STAMP): requirements-dev.txt
	$(make_venv)

.venv-demo/$(STAMP): tests/demo/requirements.txt
	$(make_venv)
