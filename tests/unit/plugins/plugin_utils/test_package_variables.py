# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a package before a client is reached: its version, and what is wrong."""

import zipfile

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.package_variables import describe_package

DEB = "PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb"
ZIP = "PrimusAPI_PKCS11-v2.2.4.zip"
URL = "https://example.com/download"
SUM = "sha256:00ff"


@pytest.fixture
def known(tmp_path):
    """Describe a package of a control node that has some of each kind."""
    for folder in ("several", "PrimusAPI_PKCS11-v2.2.4", "empty"):
        (tmp_path / folder).mkdir()
    for name in (DEB, "several/" + DEB, "several/" + DEB.replace("2.2.4", "2.10.0"), "my.deb", "text.txt"):
        (tmp_path / name).write_bytes(b"package")
    for name, member in (("my.zip", f"a/{DEB}"), ("none.zip", "a"), (ZIP, "not inspected")):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.writestr(member, b"package")
    (tmp_path / "broken.zip").write_bytes(b"no zip")

    def find(name):
        path = tmp_path / name
        return str(path) if path.exists() else None

    return lambda package, remote_src=False, version="", checksum="": describe_package(
        package, find, remote_src, version, checksum, "primus_provider_"
    )


@pytest.mark.parametrize(
    ("package", "options", "version"),
    [
        (DEB, {}, "2.2.4"),
        ("my.deb", {"version": "2.3"}, "2.3"),
        (DEB, {"version": "2.2.4.1"}, "2.2.4.1"),
        (ZIP, {}, "2.2.4"),
        (ZIP, {"version": "2.2"}, "2.2"),
        ("my.zip", {}, "2.2.4"),
        ("several", {}, "2.10.0"),
        ("several/", {}, "2.10.0"),
        ("several", {"version": "2.2.4"}, "2.2.4"),
        ("PrimusAPI_PKCS11-v2.2.4", {}, "2.2.4"),
        (f"/srv/{ZIP}", {"remote_src": True}, "2.2.4"),
        ("/srv/PrimusAPI_PKCS11-X-2.2.4/", {"remote_src": True}, "2.2.4"),
        ("/srv/packages", {"remote_src": True, "version": "2.2.4"}, "2.2.4"),
        ("/srv/my.zip", {"remote_src": True, "version": "2.2.4"}, "2.2.4"),
        (f"{URL}/{ZIP}", {"checksum": SUM}, "2.2.4"),
        (f"{URL}/{DEB}?a=b.txt#c", {"checksum": SUM}, "2.2.4"),
        (f"{URL}/my.zip", {"checksum": SUM, "version": "2.2.4"}, "2.2.4"),
        ("", {"version": "2.2.4"}, ""),
    ],
)
def test_the_version_is_known(known, package, options, version):
    found = known(package, **options)
    assert (found.version, found.violations) == (version, [])


@pytest.mark.parametrize(
    ("package", "options", "told"),
    [
        ("none.deb", {}, ["primus_provider_package is none.deb, which is not on the control node; a relative"]),
        ("/srv/none.zip", {}, ["primus_provider_package is /srv/none.zip, which is not on the control node"]),
        ("missing", {}, ["primus_provider_package is missing, which is not on the control node"]),
        ("text.txt", {}, ["primus_provider_package has a name that does not end in .deb, .rpm, .tar.gz or .zip."]),
        ("my.deb", {}, ["primus_provider_version is missing, and the package is not named PrimusAPI_PKCS11-X-VERS"]),
        (
            "none.zip",
            {},
            ["primus_provider_package is none.zip, which has no package named PrimusAPI_PKCS11-X-VERSION-"],
        ),
        ("empty", {}, ["primus_provider_package is empty, which has no package named PrimusAPI_PKCS11-X-VERSION-"]),
        ("broken.zip", {}, ["primus_provider_package cannot be used: /"]),
        ("/srv/my.deb", {"remote_src": True}, ["primus_provider_version is missing, and the package is not named"]),
        ("/srv/my.zip", {"remote_src": True}, ["primus_provider_version is missing, and the name my.zip does not te"]),
        ("/srv/pkgs/", {"remote_src": True}, ["primus_provider_version is missing, and the name pkgs does not tell"]),
        (f"{URL}/{ZIP}", {}, ["primus_provider_package_checksum is needed for a download"]),
        (f"{URL}/{ZIP}", {"checksum": "md5:00ff"}, ["primus_provider_package_checksum is needed for a download"]),
        (
            f"{URL}/my.zip",
            {},
            ["primus_provider_version is missing, and the name my.zip", "primus_provider_package_checksum is"],
        ),
        (
            f"{URL}/a",
            {"checksum": SUM},
            ["primus_provider_package has a name that does not end in .deb, .rpm, .tar.gz or"],
        ),
    ],
)
def test_it_is_told_what_is_wrong(known, package, options, told):
    violations = [str(violation) for violation in known(package, **options).violations]
    assert [violation[: len(start)] for violation, start in zip(violations, told, strict=True)] == told
    assert "my.zip has packages" not in violations
