# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider packages that are made of the emulator: what is in them, and who may use it."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[1] / "packages/build.py"
LIBRARY = b"stands in for the PKCS#11 library"
# Path under /usr/local/primus: permissions in the .deb and the .rpm, as ls shows them.
CONTENT = {
    "bin/ppin": "-rwxr-x---",
    "etc/.secrets.cfg": "-rw-rw----",
    "etc/primus.cfg": "-rw-r-----",
    "lib/libprimusP11.so": "-rwxr-x---",
    "include/README": "-rw-r-----",
}
FORMS = {
    "deb": ("dpkg-deb", "PrimusAPI_PKCS11-X-2.1.7-debian10-", ["dpkg-deb", "--contents"]),
    "rpm": ("rpmbuild", "PrimusAPI_PKCS11-X-2.1.7-rhel8-", ["rpm", "-qlvp"]),
    "tar.gz": ("tar", "PrimusAPI_PKCS11-X-2.1.7-debian10-", ["tar", "-tvzf"]),
}


def run(*argv) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.parametrize("form", FORMS)
def test_what_is_in_a_package(form, tmp_path):
    tool, name, listing = FORMS[form]
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    library = tmp_path / "library.so"
    library.write_bytes(LIBRARY)
    options = ["--version", "2.1.7", "--library", library, "--form", form]
    package = Path(run(sys.executable, BUILD, tmp_path, *options).strip())
    assert package.name.startswith(name) and package.name.endswith(f".{form}")

    lines = run(*listing, package).splitlines()
    content = {re.sub(r"^.*?(?=usr/local/|primus/)(usr/local/)?primus/?", "", line): line.split()[0] for line in lines}
    assert CONTENT.keys() <= content.keys()
    if form != "tar.gz":  # the role is what takes rights from others there
        assert {path: content[path] for path in CONTENT} == CONTENT
        assert [line for line in lines if "/primus" in line and line.split()[0][7:] != "---"] == []


def test_the_archive_that_customers_download(tmp_path):
    library = tmp_path / "library.so"
    library.write_bytes(LIBRARY)
    archives = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        options = ["--version", "2.1.7", "--library", library, "--form", "tar.gz", "--zip"]
        package, archive = map(Path, run(sys.executable, BUILD, folder, *options).split())
        archives.append(archive.read_bytes())
        with zipfile.ZipFile(archive) as file:
            assert file.read(f"PrimusAPI_PKCS11-v2.1.7/Linux/{package.name}") == package.read_bytes()
            assert {Path(name).suffix for name in file.namelist() if not name.endswith("/")} == {".gz", ".msi", ".pdf"}
    assert archive.name == "PrimusAPI_PKCS11-v2.1.7.zip"
    assert archives[0] == archives[1]
