# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs the emulated ppin as the vendor packs the PKCS#11 provider: the same names, layout and rights.

    python build.py FOLDER [--version 2.2.4] [--library FILE] [--form deb|rpm|tar.gz …] [--zip]

Prints the path of each package; without --form, all that this machine has the tools for. With --zip, there is also the
archive that the vendor's customers download, with the packages and what else is in it. lib/libprimusP11.so is a copy
of SoftHSM2's library, so a host also needs Debian's softhsm2 (the .deb depends on it). The same input gives the same
bytes.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

EMULATOR = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(EMULATOR))

import libconf  # noqa: E402
from primus_emulator import client  # noqa: E402
from primus_emulator.secrets_file import SecretsFile  # noqa: E402

MACHINE = platform.machine()
DEB_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = "1704067200"  # 2024-01-01: no file in a package is younger
TOOLS = {"deb": "dpkg-deb", "rpm": "rpmbuild", "tar.gz": "tar"}

ADD_GROUP = "getent group primus >/dev/null || groupadd --system primus\n"
# Python leaves compiled files beside its own, which no package manager knows of.
FORGET_COMPILED = "find /usr/local/primus/share -name __pycache__ -prune -exec rm -rf {} +\n"

CONTROL = """\
Package: primusapi-pkcs11
Version: {version}
Architecture: {architecture}
Maintainer: The hsmops.primus authors <noreply@example.com>
Depends: python3, python3-libconf, python3-cryptography, softhsm2
Section: misc
Priority: optional
Description: emulated Primus HSM PKCS#11 provider, for tests
"""

SPEC = """\
Name: primusapi-pkcs11
Version: {version}
Release: 1
Summary: Emulated Primus HSM PKCS#11 provider, for tests
License: GPL-3.0-or-later
AutoReqProv: no
Requires: python3, python3-libconf, python3-cryptography, softhsm
%description
%{{summary}}.
%install
cp -a {root}/. %{{buildroot}}
%pre
{add_group}
%preun
{forget_compiled}
%files
%defattr(-, root, primus, -)
/usr/local/primus
"""


def provider(home: Path, version: str, library: Path) -> None:
    """Lays out PRIMUS_HOME, with no rights for others."""
    for folder in ("bin", "etc", "include", "lib"):
        (home / folder).mkdir(parents=True)
    shutil.copytree(
        EMULATOR / "primus_emulator", home / "share" / "primus_emulator", ignore=shutil.ignore_patterns("__pycache__")
    )
    (home / "share/VERSION").write_text(f"{version}\n")
    (home / "bin/ppin").write_text(client.launcher("/usr/bin/python3"))
    shutil.copyfile(library, home / "lib/libprimusP11.so")
    (home / "include/README").write_text("The vendor's package has its PKCS#11 header files here.\n")
    example = {"nodes": [{"host": "hsm.example.com", "port": 2310}], "proxies": []}
    (home / "etc/primus.cfg").write_text(libconf.dumps(client.primus_cfg(example, ["PARTITION1"], "client")))
    (home / "etc/.secrets.cfg").write_text(SecretsFile().text())
    for path in [home, *home.rglob("*")]:
        path.chmod(0o750 if path.is_dir() or path.suffix == ".so" else 0o640)
    (home / "bin/ppin").chmod(0o750)
    (home / "etc/.secrets.cfg").chmod(0o660)


def run(*argv: str | Path) -> None:
    done = subprocess.run(
        argv, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{argv[0]} failed: {done.stderr.strip() or done.stdout.strip()}")


def deb(root: Path, version: str, package: Path) -> None:
    control = root / "DEBIAN"
    control.mkdir()
    control.chmod(0o755)
    (control / "control").write_text(CONTROL.format(version=version, architecture=DEB_ARCHITECTURE[MACHINE]))
    for name, script in (("postinst", f"{ADD_GROUP}chgrp -R primus /usr/local/primus\n"), ("prerm", FORGET_COMPILED)):
        (control / name).write_text(f"#!/bin/sh\nset -e\n{script}")
        (control / name).chmod(0o755)
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", root, package)


def rpm(root: Path, version: str, package: Path) -> None:
    top = root.parent
    spec = top / "provider.spec"
    spec.write_text(SPEC.format(version=version, root=root, add_group=ADD_GROUP, forget_compiled=FORGET_COMPILED))
    reproducible = {
        "_topdir": top,
        "_rpmdir": package.parent,
        "_build_name_fmt": package.name,
        "_buildhost": "localhost",
        "_binary_payload": "w6.gzdio",
        "_build_id_links": "none",
        "__os_install_post": "%{nil}",
        "use_source_date_epoch_as_buildtime": 1,
        "clamp_mtime_to_source_date_epoch": 1,
    }
    defines = [word for name, value in reproducible.items() for word in ("--define", f"{name} {value}")]
    run("rpmbuild", "-bb", *defines, spec)


def tarball(root: Path, version: str, package: Path) -> None:
    # Everybody may read: whoever installs by hand is told to take these rights away.
    rights = ["--owner=root:0", "--group=root:0", "--mode=u=rwX,go=rX"]
    options = ["--sort=name", f"--mtime=@{EPOCH}", "--use-compress-program=gzip -n"]
    run("tar", "--create", *rights, *options, f"--file={package}", f"--directory={root}/usr/local", "primus")


def build(folder: Path, version: str, library: Path, forms: list[str]) -> list[Path]:
    """Builds the given forms ("deb", "rpm", "tar.gz") of a version in a folder; returns their paths."""
    pack = {"deb": deb, "rpm": rpm, "tar.gz": tarball}
    system = {"deb": "debian10", "rpm": "rhel8", "tar.gz": "debian10"}
    folder.mkdir(parents=True, exist_ok=True)
    packages = []
    for form in forms:
        package = folder.resolve() / f"PrimusAPI_PKCS11-X-{version}-{system[form]}-{MACHINE}.{form}"
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary, "root")
            root.mkdir()
            provider(root / "usr/local/primus", version, library)
            for parent in (root, root / "usr", root / "usr/local"):
                parent.chmod(0o755)
            pack[form](root, version, package)
        packages.append(package)
    return packages


def pack(folder: Path, version: str, packages: list[Path]) -> Path:
    """Packs packages as the vendor's download, with files for others beside them; returns its path."""
    archive = folder.resolve() / f"PrimusAPI_PKCS11-v{version}.zip"
    top = f"PrimusAPI_PKCS11-v{version}"
    others = {
        f"{top}/Windows/PrimusAPI_PKCS11-X-{version}-win64.msi": b"The vendor has a package for Windows here.\n",
        f"{top}/ReleaseNotes.pdf": b"%PDF-1.4\n% The vendor has a document here.\n",
    }
    members = {**others, **{f"{top}/Linux/{package.name}": package.read_bytes() for package in packages}}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for folder_name in (f"{top}/", f"{top}/Linux/", f"{top}/Windows/"):
            file.writestr(zipfile.ZipInfo(folder_name, (2024, 1, 1, 0, 0, 0)), b"")
        for name, content in sorted(members.items()):
            file.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return archive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", default="2.2.4")
    parser.add_argument("--library", type=Path, default=Path("/usr/lib/softhsm/libsofthsm2.so"))
    parser.add_argument("--form", action="append", choices=TOOLS)
    parser.add_argument("--zip", action="store_true")
    args = parser.parse_args()
    if not args.library.exists():
        sys.exit(f"{args.library} is not there: install libsofthsm2, or name SoftHSM2's library with --library.")
    forms = args.form or [form for form, tool in TOOLS.items() if shutil.which(tool)]
    packages = build(args.folder, args.version, args.library, forms)
    print(*packages, *([pack(args.folder, args.version, packages)] if args.zip else []), sep="\n")


if __name__ == "__main__":
    main()
