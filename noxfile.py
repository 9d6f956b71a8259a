# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The matrix: `nox --list` tells its sessions, `nox --session integration-2.16` runs one.

units-X         the unit tests with ansible-core X, on a Python that it supports; `-- WORD ...` is for pytest
integration-X   the same for the integration targets; `-- TARGET ...` chooses some
sanity-X        ansible-test sanity with ansible-core X, all tests; `-- --test NAME` chooses one
galaxy          what Ansible Galaxy says of the artifact
target-X        the modules that run on clients, on one with Python X; `-- TARGET ...` chooses other targets

A Python is looked for on PATH, then among those of pyenv; a session without its Python fails.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
CORES = {"2.16": "3.11", "2.17": "3.12", "2.18": "3.13", "2.19": "3.11", "2.20": "3.12", "2.21": "3.13"}
# The newest ansible-core that runs modules on such a Python, of those that run on Python 3.11 and later.
TARGETS = {"3.6": "2.16", "3.7": "2.17", "3.8": "2.19"}
TARGETS.update(dict.fromkeys(("3.9", "3.10", "3.11", "3.12", "3.13"), "2.21"))
# All that is done on a client; primus_client writes its primus.cfg too. PKCS#11 needs a package with compiled parts.
CLIENT_TARGETS = ("ppin_connectivity_info", "ppin_fortinet", "ppin_info", "ppin_log_info", "ppin_proxy", "ppin_secret")
CLIENT_TARGETS += ("primus_client", "provider_package")

nox.options.default_venv_backend = "venv"
nox.options.envdir = "build/nox"
nox.options.error_on_missing_interpreters = True


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


def run_python(session: nox.Session, *words: str) -> None:
    session.run("python", *words, env={"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build")})


def core_sessions(core: str, python: str) -> None:
    @nox.session(name=f"units-{core}", python=find_python(python))
    def session_of_units(session: nox.Session) -> None:
        install(session, core, "-r", "tests/requirements.in")
        run_python(session, "-m", "pytest", "--quiet", *session.posargs)

    @nox.session(name=f"integration-{core}", python=find_python(python))
    def session_of_integration(session: nox.Session) -> None:
        install(session, core, "-r", "tests/requirements.in")
        run_python(session, "tests/integration/run.py", *session.posargs)


def sanity_session(core: str, python: str) -> None:
    @nox.session(name=f"sanity-{core}", python=find_python(python))
    def session_of_sanity(session: nox.Session) -> None:
        install(session, core)
        folder = ROOT / f"build/sanity-{core}"
        shutil.rmtree(folder, ignore_errors=True)
        collection = folder / "ansible_collections/hsmops/primus"
        # ansible-test wants to be in a folder of this name, and git to tell what belongs to the collection.
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in filter(None, subprocess.check_output(listing, cwd=ROOT, text=True).split("\0")):
            if (ROOT / name).is_file():
                (collection / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, collection / name)
        session.chdir(collection)
        for words in (["init", "--quiet"], ["add", "--all"]):
            session.run("git", *words, external=True)
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
    def session_of_target(session: nox.Session) -> None:
        found = find_python(python)
        if not shutil.which(found):
            leave = session.skip if "--no-error-on-missing-interpreters" in sys.argv else session.error
            leave(f"Python {python}, for the client, is not there")
        install(session, core, "-r", "tests/requirements.in")
        client = ROOT / session.create_tmp() / "client"
        session.run(found, "-m", "venv", "--clear", str(client), external=True)
        session.run(str(client / "bin/python"), "-m", "pip", "install", "--quiet", "pexpect", external=True)
        words = ["--target-python", str(client / "bin/python"), *(session.posargs or CLIENT_TARGETS)]
        run_python(session, "tests/integration/run.py", *words)


@nox.session(name="galaxy", python=find_python("3.11"))
def session_of_galaxy(session: nox.Session) -> None:
    """The artifact, as Ansible Galaxy judges it when it is published."""
    session.install("--quiet", "ansible-core", "galaxy-importer")
    for old in (ROOT / "build").glob("hsmops-primus-*.tar.gz"):
        old.unlink()
    session.run("ansible-galaxy", "collection", "build", "--output-path", "build")
    (artifact,) = (ROOT / "build").glob("hsmops-primus-*.tar.gz")
    session.chdir("build")  # where the importer leaves a file
    output = str(session.run("python", "-m", "galaxy_importer.main", str(artifact), silent=True))
    session.log(output)
    if "WARNING" in output or "ERROR" in output or "completed successfully" not in output:
        session.error("galaxy-importer is not content")


for core, python in CORES.items():
    core_sessions(core, python)
    sanity_session(core, python)
for python, core in TARGETS.items():
    target_session(python, core)
