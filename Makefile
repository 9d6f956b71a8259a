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
export TARGETS SCENARIOS BENCH
# Ansible does not start where the encoding of the locale is another.
export LC_ALL := C.UTF-8

# What each of these does is a session of this name in noxfile.py.
NOX := $(RUN) nox --session
READY := $(VENV)/$(STAMP) $(COLLECTION)

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit functional integration audit-secrets molecule bench scale crash docs build installed ci
.PHONY: audit-molecule matrix coverage skipped format collection venv lock audit-packages clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV_DEMO)/$(STAMP) $(COLLECTION) ## three emulated clients get their credentials, before your eyes
	PATH="$(CURDIR)/$(VENV_DEMO)/bin:$$PATH" python tests/demo/demo.py

TEST := lint unit functional integration

test: $(READY) ## all of the four that follow, and which tests were skipped and why
	rm -rf build/results
	$(NOX) $(TEST) skipped

lint: FORCE ## what can be judged without running anything
unit: FORCE ## what needs no emulator and no playbook, in half a minute
functional: FORCE ## modules and playbooks against the emulator, and the emulator itself
integration: FORCE ## the modules and roles in real playbook runs against the emulator, by ansible-test
skipped: FORCE ## which tests of the last runs were skipped and why
coverage: FORCE ## lines of the plugins that unit and integration tests run, in all their processes
audit-secrets: FORCE ## integration once more, watched for secrets by strace; all of it as root
audit-molecule: FORCE ## the same for molecule, but for the scenario sudo
molecule: FORCE ## the playbooks on hosts over ssh; needs root, see extensions/molecule/README.md
bench: FORCE ## what runs cost, against the bare command, plain playbooks and ping
scale: FORCE ## what the attempt gate promises, on 200 hosts, and 1,000 hosts with nothing to do
crash: FORCE ## runs killed everywhere, and what that leaves; needs strace and takes an hour
docs: FORCE ## the documentation's site, in build/docs/html
build: FORCE ## the collection's artifact, in build/
installed: FORCE ## the artifact, installed in build/installed

SESSIONS := $(TEST) skipped coverage audit-secrets audit-molecule molecule bench scale crash docs build installed

$(SESSIONS): $(READY)
	$(NOX) $@

matrix: $(READY) ## ansible-core 2.16 to 2.21 and Python 3.6 to 3.13; `nox --list` tells its sessions
	$(RUN) nox $(MATRIX)

# Of the matrix: the unit tests with every ansible-core, the newest by ansible-test, and the rest with the oldest and the
# newest: target-3.6 has the oldest, with a client of the oldest Python. The audits are runs of the integration targets
# and of molecule, with what is shipped: the artifact, installed. A Python that this machine lacks is left out, and nox
# says so. nox ends with what each session took.
CI := lint unit units-2.16 units-2.17 units-2.18 units-2.20 ansible-units-2.21 functional docs
CI += target-3.6 sanity-2.16 sanity-2.21 galaxy installed
CI_INSTALLED := audit-2.21 $(if $(filter 0,$(shell id -u)),audit-molecule)

ci: $(READY) ## what .ci/run runs, once the system has what it needs
	rm -rf build/results
	$(RUN) nox --no-error-on-missing-interpreters --session $(CI)
	$(MAKE) matrix COLLECTIONS=build/installed MATRIX="--no-error-on-missing-interpreters --session $(CI_INSTALLED)"
	$(MAKE) demo COLLECTIONS=build/installed
	$(NOX) skipped

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

FORCE:

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
