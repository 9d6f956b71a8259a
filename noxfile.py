# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""All checks of the project, as sessions. `make` makes what they need and runs them; `nox --list` lists them.

Those without a version in their name run in .venv, with its ansible-core; the environment chooses what they run:
TARGETS, SCENARIOS and BENCH are words for them, and ANSIBLE_COLLECTIONS_PATH is where they find the collection.

The others, the matrix, have environments of their own. `-- WORD ...` is for pytest or ansible-test:
units-X         the unit tests with ansible-core X, on a Python that it supports
ansible-units-X the same by `ansible-test units`, which has a process for each test and takes three times as long
functional-X    the same for the functional tests
integration-X   the same for the integration targets; `-- TARGET ...` chooses some
audit-X         the integration targets, watched for secrets by strace
sanity-X        ansible-test sanity with ansible-core X, all tests; `-- --test NAME` chooses one
galaxy          what Ansible Galaxy says of the artifact
target-X        the integration targets with a client of Python X; `-- TARGET ...` chooses some

A Python is looked for on PATH, then among those of pyenv; a session without its Python fails.
"""

import functools
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tests/support"))
from isolated import copy_collection  # noqa: E402

CORES = {"2.16": "3.11", "2.17": "3.12", "2.18": "3.13", "2.19": "3.11", "2.20": "3.12", "2.21": "3.13"}
# The newest ansible-core that runs modules on such a Python, of those that run on Python 3.11 and later.
TARGETS = {"3.6": "2.16", "3.7": "2.17", "3.8": "2.19"}
TARGETS.update(dict.fromkeys(("3.9", "3.10", "3.11", "3.12", "3.13"), "2.21"))
# PKCS#11 needs a package that is compiled.
CLIENT_TARGETS = sorted(
    path.parent.parent.name
    for path in ROOT.glob("tests/integration/targets/*/tasks/main.yml")
    if path.parent.parent.name not in ("pkcs11_token_info", "setup_emulator")
)

FUNCTIONAL = ("tests/functional", "tests/emulator/tests", "tests/benchmarks")
UNIT_PACKAGES = ("pytest", "pytest-xdist", "-r", "tests/unit/requirements.txt")
INTEGRATION_PACKAGES = ("pytest", "pytest-xdist", "python-pkcs11", "-r", "tests/integration/requirements.txt")

nox.options.default_venv_backend = "venv"
nox.options.envdir = "build/nox"
nox.options.error_on_missing_interpreters = True

os.environ.setdefault("ANSIBLE_COLLECTIONS_PATH", str(ROOT / "build"))


here = functools.partial(nox.session, python=False, default=False)  # with what is on PATH: .venv, when make runs it


def words_of(variable: str) -> list[str]:
    return os.environ.get(variable, "").split()


def run_pytest(session: nox.Session, name: str, *words: str, before: tuple[str, ...] = (), **env: str) -> None:
    """Run pytest, and keep the results, from which the session `skipped` reports what was not run."""
    session.run(*before, "python", "-m", "pytest", f"--junitxml=build/results/{name}.xml", *words, env=env)


def chosen(module: str, function: str, names: list[str] | tuple[str, ...]) -> list[str]:
    """Words for pytest: the tests of these names, or all, one at a time for each processor, with their durations."""
    tests = [f"{module}::{function}[{name}]" for name in names] or [module]
    return ["--verbose", "--durations=0", "--durations-min=1", "--maxschedchunk=1", *tests]


def targets(names: list[str] | tuple[str, ...]) -> list[str]:
    return chosen("tests/integration/test_targets.py", "test_target", names)


def scenarios(names: list[str]) -> list[str]:
    return chosen("extensions/molecule/test_scenarios.py", "test_scenario", names)


@here()
def lint(session: nox.Session) -> None:
    """what can be judged without running anything"""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("yamllint", "--strict", ".")
    session.run("ansible-lint", "--strict")
    session.run("antsibull-changelog", "lint")
    session.run("reuse", "lint", "--lines")
    words = ["--plugin-docs", "--check-extra-docs-refs", "--validate-collection-refs", "dependent"]
    with session.chdir("build/ansible_collections/hsmops/primus"):
        session.run("antsibull-docs", "lint-collection-docs", *words, "--disallow-unknown-collection-refs", ".")


@here()
def unit(session: nox.Session) -> None:
    """what needs no emulator and no playbook"""
    run_pytest(session, "unit", *(session.posargs or ["tests/unit"]))


@here()
def functional(session: nox.Session) -> None:
    """modules and playbooks against the emulator, and the emulator itself"""
    run_pytest(session, "functional", *(session.posargs or FUNCTIONAL))


@here()
def integration(session: nox.Session) -> None:
    """the modules and roles in real playbook runs against the emulator: `ansible-test integration`"""
    run_pytest(session, "integration", *targets(words_of("TARGETS")))


@here()
def molecule(session: nox.Session) -> None:
    """the playbooks on hosts over ssh; needs root, see extensions/molecule/README.md"""
    run_pytest(session, "molecule", *scenarios(words_of("SCENARIOS")))


@here()
def skipped(session: nox.Session) -> None:
    """which tests of the last runs were skipped and why, with what to install"""
    for path in sorted((ROOT / "build/results").glob("*.xml")):
        results = ElementTree.parse(path)  # noqa: S314 - pytest wrote it
        found = Counter(e.get("message") for e in results.iter("skipped") if e.get("type") == "pytest.skip")
        for message, number in sorted(found.items()):
            print(f"{path.stem}: {number} skipped: {message}")
        if not found:
            print(f"{path.stem}: nothing was skipped")


@here()
def coverage(session: nox.Session) -> None:
    """lines of the plugins that unit and integration tests run, in all their processes"""
    shutil.rmtree(ROOT / "build/coverage", ignore_errors=True)
    (ROOT / "build/coverage").mkdir(parents=True)
    for words in ([], targets([])):
        session.run("coverage", "run", "-m", "pytest", *words)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


AUDIT = ("python", "tests/integration/audit.py")


@here(name="audit-secrets")
def audit_secrets(session: nox.Session) -> None:
    """integration once more, watched for secrets by strace; all of it as root"""
    run_pytest(session, "audit-secrets", *targets(words_of("TARGETS")), before=AUDIT)


@here(name="audit-molecule")
def audit_molecule(session: nox.Session) -> None:
    """the same for molecule, but for the scenario sudo"""
    # strace has the kernel filter calls, which sets "no new privileges", with which there is no sudo.
    names = sorted(path.parent.name for path in (ROOT / "extensions/molecule").glob("*/molecule.yml"))
    names = words_of("SCENARIOS") or [name for name in names if name != "sudo"]
    run_pytest(session, "audit-molecule", *scenarios(names), before=AUDIT, ANSIBLE_CALLBACKS_ENABLED="record")


@here()
def bench(session: nox.Session) -> None:
    """what runs cost, against the bare command, plain playbooks and ping"""
    session.run("python", "tests/benchmarks/module.py")
    session.run("python", "tests/benchmarks/compare.py", *words_of("BENCH"))


@here()
def scale(session: nox.Session) -> None:
    """what the attempt gate promises, on 200 hosts, and 1,000 hosts with nothing to do"""
    session.run("python", "tests/scale/scale.py")


@here()
def crash(session: nox.Session) -> None:
    """runs killed everywhere, and what that leaves; needs strace and takes an hour"""
    session.run("python", "tests/crash/crash.py")


@here()
def docs(session: nox.Session) -> None:
    """the documentation's site, in build/docs/html"""
    # Sphinx gets the files in their places, so that the links between them are right here and on the repository's page.
    shutil.rmtree(ROOT / "build/docs", ignore_errors=True)
    source = ROOT / "build/docs/source"
    (source / "collections").mkdir(parents=True)
    (source / "collections").chmod(0o755)  # whatever the umask: antsibull-docs refuses one that others can write
    for name in ("docs", "playbooks", "roles", "tests", "extensions", "LICENSES"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("output"))
    for path in [*ROOT.glob("*.md"), ROOT / "COPYING"]:
        shutil.copy(path, source)
    (source / "docs/docsite/index.md").rename(source / "index.md")
    words = ["--use-current", "--squash-hierarchy", "--fail-on-error", "--dest-dir", str(source / "collections")]
    session.run(
        "antsibull-docs", "--config-file", "docs/docsite/antsibull-docs.cfg", "collection", *words, "hsmops.primus"
    )
    words = ["--fail-on-warning", "--keep-going", "--quiet", "-c", "docs/docsite"]
    session.run("sphinx-build", *words, str(source), "build/docs/html")


def build_artifact(session: nox.Session) -> Path:
    for old in (ROOT / "build").glob("hsmops-primus-*.tar.gz"):
        old.unlink()
    session.run("ansible-galaxy", "collection", "build", "--output-path", "build")
    (artifact,) = (ROOT / "build").glob("hsmops-primus-*.tar.gz")
    return artifact


@here()
def build(session: nox.Session) -> None:
    """the collection's artifact, in build/"""
    build_artifact(session)


@here()
def installed(session: nox.Session) -> None:
    """the artifact, installed in build/installed"""
    artifact = build_artifact(session)
    shutil.rmtree(ROOT / "build/installed", ignore_errors=True)
    # By force, as ansible-galaxy finds this tree under build/ and would have nothing to do.
    words = ["--force", "--collections-path", "build/installed"]
    session.run("ansible-galaxy", "collection", "install", *words, str(artifact))


def find_python(version: str) -> str:
    """Path of an interpreter of this version; its bare name when there is none."""
    name = f"python{version}"
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [shutil.which(name), *map(str, versions.glob(f"{version}.*/bin/{name}"))]
    for path in filter(None, candidates):  # one of pyenv's on PATH may be a shim for a version that is not chosen
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return name


def install(session: nox.Session, core: str, *packages: str) -> None:
    session.install("--quiet", f"ansible-core~={core}.0", *packages)


def core_sessions(core: str, python: str) -> None:
    @nox.session(name=f"units-{core}", python=find_python(python))
    def units(session: nox.Session) -> None:
        install(session, core, *UNIT_PACKAGES)
        run_pytest(session, session.name, *(session.posargs or ["tests/unit"]))

    @nox.session(name=f"ansible-units-{core}", python=find_python(python), default=False)
    def ansible_units(session: nox.Session) -> None:
        install(session, core, *UNIT_PACKAGES)
        session.chdir(copy_collection(ROOT / f"build/units-{core}"))
        session.run("ansible-test", "units", "--python", python, "--color", "no", *session.posargs)

    @nox.session(name=f"functional-{core}", python=find_python(python))
    def functional(session: nox.Session) -> None:
        install(session, core, "-r", "tests/requirements.in")
        run_pytest(session, session.name, *(session.posargs or FUNCTIONAL))

    @nox.session(name=f"integration-{core}", python=find_python(python))
    def integration(session: nox.Session) -> None:
        install(session, core, *INTEGRATION_PACKAGES)
        run_pytest(session, session.name, *targets(session.posargs))

    @nox.session(name=f"audit-{core}", python=find_python(python), default=False)
    def audit(session: nox.Session) -> None:
        install(session, core, *INTEGRATION_PACKAGES)
        run_pytest(session, session.name, *targets(session.posargs), before=AUDIT)

    @nox.session(name=f"sanity-{core}", python=find_python(python))
    def sanity(session: nox.Session) -> None:
        install(session, core)
        folder = ROOT / f"build/sanity-{core}"
        session.chdir(copy_collection(folder))
        prepare_pip(folder)
        words = ["sanity", "--python", python, "--requirements", "--color", "no", *session.posargs]
        session.run("ansible-test", *words, env={"HOME": str(folder)})


def prepare_pip(home: Path) -> None:
    """Have ansible-test make its environments with the pip that Python brings, instead of one that it downloads.

    The versions are those in the file names that ansible-test of ansible-core 2.16 to 2.21 looks for.
    """
    cache = home / ".ansible/test/cache"
    cache.mkdir(parents=True)
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    script = f"""
import os, subprocess, sys
import ensurepip
ensurepip.bootstrap(upgrade=True)
wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
trust = ["--cert", {certificates!r}] if os.path.exists({certificates!r}) else []
subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *trust, *wanted])
"""
    for version in ("20_3_4", "21_3_1", "23_1_2", "24_2", "25_2"):
        (cache / f"get_pip_{version}.py").write_text(script)


def target_session(python: str, core: str) -> None:
    @nox.session(name=f"target-{python}", python=find_python(CORES[core]))
    def target(session: nox.Session) -> None:
        found = find_python(python)
        if not shutil.which(found):
            leave = session.skip if "--no-error-on-missing-interpreters" in sys.argv else session.error
            leave(f"Python {python}, for the client, is not there")
        install(session, core, *INTEGRATION_PACKAGES)
        client = ROOT / session.create_tmp() / "client"
        session.run(found, "-m", "venv", "--clear", str(client), external=True)
        session.run(str(client / "bin/python"), "-m", "pip", "install", "--quiet", "pexpect", external=True)
        words = targets(session.posargs or CLIENT_TARGETS)
        run_pytest(session, session.name, *words, TARGET_PYTHON=str(client / "bin/python"))


@nox.session(python=find_python("3.11"))
def galaxy(session: nox.Session) -> None:
    """The artifact, as Ansible Galaxy judges it when it is published."""
    session.install("--quiet", "ansible-core", "galaxy-importer")
    artifact = build_artifact(session)
    session.chdir("build")  # where the importer leaves a file
    output = str(session.run("python", "-m", "galaxy_importer.main", str(artifact), silent=True))
    session.log(output)
    if "WARNING" in output or "ERROR" in output or "completed successfully" not in output:
        session.error("galaxy-importer is not content")


for core, python in CORES.items():
    core_sessions(core, python)
for python, core in TARGETS.items():
    target_session(python, core)
