# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which package is the one for a host: by distribution, release, architecture and what there is."""

import itertools
import re

import pytest
from ansible_collections.hsmops.primus.plugins.module_utils._client.package_choice import (
    RELEASE_MAPS,
    RULES,
    PackageError,
    System,
    check_package,
    check_url,
    form_of,
    parse_name,
    pick_package,
    platform_release,
    system_from_facts,
    version_key,
    version_of,
)
from hypothesis import given
from hypothesis import strategies as st

ZIP = "PrimusAPI_PKCS11-v2.2.4.zip"


def host(family, distribution, version, architecture="x86_64"):
    facts = {"os_family": family, "distribution": distribution, "distribution_version": version}
    return system_from_facts({**facts, "architecture": architecture})


def packages(*wanted, version="2.2.4"):
    """Names in short: "debian10-x86_64.deb"."""
    return [f"PrimusAPI_PKCS11-X-{version}-{name}" for name in wanted]


BOTH = ("x86_64", "aarch64")
VENDOR = packages(
    *(f"debian10-{machine}.{form}" for machine in BOTH for form in ("deb", "tar.gz")),
    *(f"rhel{release}-{machine}.{form}" for release in (7, 8) for machine in BOTH for form in ("rpm", "tar.gz")),
)
NOISE = ["PrimusAPI_PKCS11-X-2.2.4-win64.msi", "PrimusAPI_PKCS11-X-9.9.9-win32.msi", "Release notes.pdf", ".DS_Store"]
DEB, RPM7, RPM8 = "debian10-x86_64.deb", "rhel7-x86_64.rpm", "rhel8-x86_64.rpm"

D = "Debian"
R = "RedHat"
S = "Suse"


@pytest.mark.parametrize(
    ("family", "distribution", "version", "architecture", "expected"),
    [
        (D, "Debian", "8.11", "x86_64", DEB),
        (D, "Debian", "9.13", "x86_64", DEB),
        (D, "Debian", "10.3", "x86_64", DEB),
        (D, "Debian", "12", "x86_64", DEB),
        (D, "Debian", "12.5", "aarch64", "debian10-aarch64.deb"),
        (D, "Debian", "12.5", "arm64", "debian10-aarch64.deb"),
        (D, "Debian", "12.5", "AMD64", DEB),
        (D, "Debian", "trixie/sid", "x86_64", DEB),
        (D, "Debian", None, "x86_64", DEB),
        (D, "Raspbian", "11", "aarch64", "debian10-aarch64.deb"),
        (D, "Ubuntu", "16.04", "x86_64", DEB),
        (D, "Ubuntu", "22.04", "aarch64", "debian10-aarch64.deb"),
        (D, "Ubuntu", "24.04", "x86_64", DEB),
        (D, "Ubuntu", "32.04", "x86_64", DEB),
        (D, "Linux Mint", "21.3", "x86_64", DEB),
        (D, "Kali", "2026.1", "x86_64", DEB),
        (R, "RedHat", "7.9", "x86_64", RPM7),
        (R, "RedHat", "8.10", "x86_64", RPM8),
        (R, "RedHat", "9.4", "x86_64", RPM8),
        (R, "RedHat", "10.0", "aarch64", "rhel8-aarch64.rpm"),
        (R, "CentOS", "7.9.2009", "aarch64", "rhel7-aarch64.rpm"),
        (R, "CentOS", "9", "x86_64", RPM8),
        (R, "Rocky", "9.4", "aarch64", "rhel8-aarch64.rpm"),
        (R, "AlmaLinux", "8.9", "x86_64", RPM8),
        (R, "OracleLinux", "7.6", "x86_64", RPM7),
        (R, "Fedora", "41", "x86_64", RPM8),
        (R, "Amazon", "2", "x86_64", RPM7),
        (R, "Amazon", "2023", "aarch64", "rhel8-aarch64.rpm"),
        (R, "Amazon", "2026", "x86_64", RPM8),
        (S, "SLES", "12.5", "x86_64", RPM7),
        (S, "SLES", "15.6", "x86_64", RPM8),
        (S, "SLES", "16.0", "x86_64", RPM8),
        (S, "SLES_SAP", "15.4", "x86_64", RPM8),
        (S, "openSUSE Leap", "15.5", "aarch64", "rhel8-aarch64.rpm"),
        (S, "openSUSE Leap", "42.3", "x86_64", RPM7),
        (S, "openSUSE Leap", "16.0", "x86_64", RPM8),
        (S, "openSUSE Tumbleweed", "20260101", "x86_64", RPM8),
    ],
)
def test_hosts_and_the_vendors_archive(family, distribution, version, architecture, expected):
    """In whatever order the names come, and whatever else is there."""
    system = host(family, distribution, version, architecture)
    for names in (VENDOR + NOISE, NOISE + VENDOR[::-1], VENDOR * 2):
        choice = pick_package(names, system, ZIP)
        assert [choice.package.name] == packages(expected)
        assert choice.why.startswith(f"{choice.package.name} was chosen for {distribution}")


DEBIAN9 = host(D, "Debian", "9.4")
DEBIAN12 = host(D, "Debian", "12.5")
UBUNTU18 = host(D, "Ubuntu", "18.04")
UBUNTU22 = host(D, "Ubuntu", "22.04")
MINT = host(D, "Linux Mint", "21")
RHEL7 = host(R, "RedHat", "7.9")
RHEL9 = host(R, "Rocky", "9.4")
FEDORA = host(R, "Fedora", "41")
SLES15 = host(S, "SLES", "15.5")


@pytest.mark.parametrize(
    ("names", "system", "expected"),
    [
        # The highest that is not above the host's, else the lowest, for Debian's family.
        (["debian10-x86_64.deb", "debian12-x86_64.deb", "debian13-x86_64.deb"], DEBIAN12, "debian12-x86_64.deb"),
        (["debian10-x86_64.deb", "debian13-x86_64.deb"], DEBIAN12, "debian10-x86_64.deb"),
        (["debian10-x86_64.deb", "debian13-x86_64.deb"], UBUNTU18, "debian10-x86_64.deb"),
        (["debian10-x86_64.deb", "debian13-x86_64.deb"], UBUNTU22, "debian10-x86_64.deb"),
        (["debian10-x86_64.deb", "debian13-x86_64.deb"], MINT, "debian13-x86_64.deb"),
        (["debian12-x86_64.deb", "debian11-x86_64.deb"], DEBIAN9, "debian11-x86_64.deb"),
        (["debian9-x86_64.deb", "debian10-x86_64.deb"], DEBIAN12, "debian10-x86_64.deb"),
        # One for a release that is newer than the host only when there is no other.
        (["debian13-x86_64.deb", "debian10-x86_64.tar.gz"], DEBIAN12, "debian10-x86_64.tar.gz"),
        # The packages of package managers come first.
        (["debian10-x86_64.deb", "debian11-x86_64.tar.gz"], DEBIAN12, "debian10-x86_64.deb"),
        (["debian10-x86_64.tar.gz", "rhel8-x86_64.rpm"], DEBIAN12, "debian10-x86_64.tar.gz"),
        (["rhel7-x86_64.rpm", "rhel8-x86_64.tar.gz"], RHEL9, "rhel7-x86_64.rpm"),
        (["rhel8-x86_64.rpm", "rhel7-x86_64.tar.gz"], RHEL7, "rhel7-x86_64.tar.gz"),
        (["rhel8-x86_64.rpm", "rhel10-x86_64.rpm"], RHEL9, "rhel8-x86_64.rpm"),
        (["rhel8-x86_64.rpm", "rhel10-x86_64.rpm"], FEDORA, "rhel10-x86_64.rpm"),
        (["rhel7-x86_64.rpm", "debian10-x86_64.deb"], SLES15, "rhel7-x86_64.rpm"),
        (["rhel9-x86_64.rpm", "rhel8-x86_64.rpm"], SLES15, "rhel8-x86_64.rpm"),
        # As others write them.
        (["debian10-x86_64.DEB", "RHEL8-x86_64.rpm"], DEBIAN12, "debian10-x86_64.DEB"),
        (["Debian10-AMD64.deb"], DEBIAN12, "Debian10-AMD64.deb"),
        (["rhel8-arm64.rpm"], host(R, "RedHat", "9", "aarch64"), "rhel8-arm64.rpm"),
        # Other platforms than those known.
        (["ubuntu22-x86_64.deb", "debian10-x86_64.deb"], UBUNTU22, "debian10-x86_64.deb"),
    ],
)
def test_packages_that_there_are(names, system, expected):
    choice = pick_package(packages(*names), system, "packages")
    assert [choice.package.name] == packages(expected)
    assert choice.package.file_name == packages(expected)[0].replace(".DEB", ".deb")


OLD_AND_NEW = packages(DEB, version="2.2.4") + packages(DEB, version="2.10.0") + packages(RPM8, version="2.9")


@pytest.mark.parametrize(
    ("names", "version", "expected"),
    [
        (OLD_AND_NEW, "", "2.10.0"),
        (OLD_AND_NEW, "2.2.4", "2.2.4"),
        (packages(DEB, version="2.2.4-beta") + packages(DEB, version="2.2.4.1"), "", "2.2.4.1"),
        (packages(DEB, version="2.2.4-beta") + packages(DEB, version="2.2.4"), "", "2.2.4"),
        (packages(DEB, version="2.2.4-beta1") + packages(DEB, version="2.2.4-beta2"), "", "2.2.4-beta2"),
        (packages(DEB, version="2.2.4-beta"), "2.2.4-beta", "2.2.4-beta"),
    ],
)
def test_versions(names, version, expected):
    assert pick_package(names, DEBIAN12, "packages", version).package.version == expected


ALPINE = host("Alpine", "Alpine", "3.19")


@pytest.mark.parametrize(
    ("names", "system", "version", "told"),
    [
        (
            packages("debian10-x86_64.deb", "debian10-aarch64.deb", "rhel8-x86_64.rpm"),
            ALPINE,
            "",
            f"{ZIP} has packages for debian10 (x86_64, aarch64) and rhel8 (x86_64); this host is Alpine 3.19 on x86_64",
        ),
        (
            packages("debian10-x86_64.deb", "rhel7-x86_64.rpm", "rhel8-x86_64.rpm"),
            host(D, "Ubuntu", "22.04", "aarch64"),
            "",
            f"{ZIP} has packages for debian10 (x86_64), rhel7 (x86_64) and rhel8 (x86_64)"
            "; this host is Ubuntu 22.04 on aarch64",
        ),
        (
            packages("rhel8-x86_64.rpm"),
            RHEL7,
            "",
            f"{ZIP} has packages for rhel8 (x86_64); this host is RedHat 7.9 on x86_64, which counts as rhel7 and is"
            " older than they are",
        ),
        (packages("rhel7-x86_64.rpm"), host(R, "Amazon", "2018.03"), "", "counts as rhel6"),
        (packages("rhel8-x86_64.rpm"), host(S, "SLES", "12.5"), "", "counts as rhel7"),
        (
            packages("rhel8-x86_64.rpm"),
            host(R, "openEuler", "22.03"),
            "",
            "it is not known which of them is for openEu",
        ),
        (packages("rhel8-x86_64.rpm"), host(S, "SLES", "11.4"), "", "it is not known which of them is for SLES"),
        (packages("rhel8-x86_64.deb"), RHEL9, "", "has packages for rhel8 (x86_64); this host is Rocky 9.4"),
        (OLD_AND_NEW, RHEL9, "", f"{ZIP} has packages of version 2.10.0 for debian10 (x86_64); this host is Rocky"),
        (OLD_AND_NEW, RHEL9, "2.3", f"{ZIP} has no package of version 2.3, but of 2.2.4, 2.9 and 2.10.0"),
        (NOISE, RHEL9, "", f"{ZIP} has no package of the provider, which is named PrimusAPI_PKCS11-X-VERSION-"),
    ],
)
def test_no_package_for_a_host(names, system, version, told):
    with pytest.raises(PackageError, match=re.escape(told)):
        pick_package(names, system, ZIP, version)


@pytest.mark.parametrize(
    ("system", "why"),
    [
        (UBUNTU22, f"it counts as debian12, and debian10 is the newest platform in {ZIP} up to that."),
        (DEBIAN9, f"it counts as debian9, and debian10 is the oldest platform in {ZIP}."),
        (FEDORA, f": rhel8 is the newest platform in {ZIP}."),
    ],
)
def test_it_is_told_why(system, why):
    assert pick_package(VENDOR, system, ZIP).why.endswith(why)


@pytest.mark.parametrize(
    ("name", "system"),
    [
        (*packages(DEB), DEBIAN12),
        (*packages("debian13-x86_64.deb"), DEBIAN9),
        (*packages("rhel7-x86_64.rpm"), RHEL9),
        (*packages("rhel9-x86_64.rpm"), RHEL7),
        (*packages("rhel8-x86_64.RPM"), SLES15),
        (*packages("rhel8-x86_64.rpm"), host(R, "openEuler", "22.03")),
        (*packages("ubuntu22-x86_64.deb"), UBUNTU22),
        ("provider.deb", DEBIAN12),
        ("PrimusAPI_PKCS11-X-2.2.4-x.deb", UBUNTU22),
        ("provider.tar.gz", SLES15),
    ],
)
def test_a_package_that_is_given_alone(name, system):
    choice = check_package(name, system)
    assert choice.package.name == name
    assert ("does not tell" in choice.why) == (parse_name(name) is None)


@pytest.mark.parametrize(
    ("name", "system", "told"),
    [
        (*packages("debian10-aarch64.deb"), DEBIAN12, "is for debian10 (aarch64); this host is Debian 12.5 on x86_64"),
        (*packages("debian10-x86_64.tar.gz"), RHEL9, "is for debian10 (x86_64); this host is Rocky 9.4 on x86_64"),
        (*packages("rhel8-x86_64.tar.gz"), UBUNTU22, "is for rhel8 (x86_64); this host is Ubuntu 22.04"),
        (*packages("ubuntu22-aarch64.deb"), UBUNTU22, "is for ubuntu22 (aarch64)"),
        (*packages("rhel8-x86_64.deb"), RHEL9, "is no .rpm or .tar.gz"),
        ("provider.rpm", DEBIAN12, "provider.rpm is no .deb or .tar.gz; this host is Debian 12.5 on x86_64"),
        ("provider.tar.gz", ALPINE, "is for systems of Debian, RedHat and Suse; this host is Alpine 3.19 on x86_64"),
    ],
)
def test_a_package_that_is_given_alone_and_is_for_others(name, system, told):
    with pytest.raises(PackageError, match=re.escape(told)):
        check_package(name, system)


@pytest.mark.parametrize(
    ("url", "package"),
    [
        (f"https://example.com/{packages(DEB)[0]}?token=a#b", packages(DEB)[0]),
        (f"https://example.com/a/{ZIP}", None),
        ("https://example.com/a/provider.deb", "provider.deb"),
    ],
)
def test_a_download_is_judged_by_its_name(url, package):
    result = check_url(url, DEBIAN12)
    assert (result["package"], result["path"], result["os_family"]) == (package, None, "Debian")


@pytest.mark.parametrize("name", ["provider", "provider.msi", packages("debian10-aarch64.deb")[0]])
def test_a_download_for_others(name):
    with pytest.raises(PackageError, match=r"does not end in|is for debian10 \(aarch64\)"):
        check_url(f"https://user:password@example.com/{name}", DEBIAN12)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("PrimusAPI_PKCS11-v2.2.4.zip", "2.2.4"),
        ("PrimusAPI_PKCS11-X-2.2.4.zip", "2.2.4"),
        ("PrimusAPI_PKCS11-X-v2.10.0.ZIP", "2.10.0"),
        ("PrimusAPI_PKCS11-v2.2.4 (1).zip", "2.2.4"),
        ("PrimusAPI_PKCS11-v2.2.4-linux.zip", "2.2.4"),
        ("PrimusAPI_PKCS11-v2.2.4-beta.zip", "2.2.4-beta"),
        ("PrimusAPI_PKCS11-v2.2.4-rc1.zip", "2.2.4-rc1"),
        ("PrimusAPI_PKCS11-v2.2.4", "2.2.4"),
        ("PrimusAPI_PKCS11-X-2.2.4-x.deb", "2.2.4"),
        ("PrimusAPI_PKCS11-X-2.2.4.1-rhel8-x86_64.rpm", "2.2.4.1"),
        ("PrimusAPI_PKCS11-X-2.2.4-beta-debian10-x86_64.tar.gz", "2.2.4-beta"),
        ("PrimusAPI_PKCS11-v2.zip", ""),
        ("PrimusAPI_PKCS11-v2.2.4b.zip", ""),
        ("provider-2.2.4.zip", ""),
        ("packages", ""),
    ],
)
def test_a_name_tells_the_version(name, version):
    assert version_of(name) == version


@pytest.mark.parametrize(
    "name",
    [*NOISE, "PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb.sig", "a PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb", "",
     "PrimusAPI_PKCS11-X--debian10-x86_64.deb", "PrimusAPI_PKCS11-X-2.2.4-debian-x86_64.deb",
     "PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb\n", "PrimusAPI_PKCS11-X-2.2.4/../-debian10-x86_64.deb"],
)  # fmt: skip
def test_other_files_are_no_packages(name):
    assert parse_name(name) is None


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.deb", "deb"),
        ("a.Tar.GZ", "tar.gz"),
        ("a.RPM", "rpm"),
        ("a.zip", "zip"),
        ("a.gz", ""),
        ("adeb", ""),
        ("", ""),
    ],
)
def test_forms(name, form):
    assert form_of(name) == form


def test_versions_have_one_order():
    order = ["2.2-alpha", "2.2", "2.2.4-beta", "2.2.4-rc1", "2.2.4-rc2", "2.2.4", "2.2.4-1", "2.2.5", "2.2.10", "10"]
    for (i, left), (k, right) in itertools.product(enumerate(order), repeat=2):
        assert (version_key(left) < version_key(right)) == (i < k)
    assert version_key("v2.2.4") == version_key("2.2.4")


@given(st.lists(st.text(), max_size=5))
def test_any_versions_can_be_compared(versions):
    assert len(sorted(versions, key=version_key)) == len(versions)


@given(
    st.lists(st.sampled_from(VENDOR + NOISE + packages("debian12-x86_64.deb", "rhel10-aarch64.rpm", version="2.3.4"))),
    st.sampled_from([*RULES, "Alpine"]),
    st.sampled_from([*RELEASE_MAPS, "Debian", "Rocky", "openEuler", "Fedora", "Kali"]),
    st.one_of(st.text(max_size=9), st.integers(0, 50).map(str)),
    st.sampled_from([*BOTH, "i686"]),
)
def test_what_is_picked_is_for_the_host(names, family, distribution, version, architecture):
    system = System(family, distribution, version, architecture)
    try:
        package = pick_package(names, system, ZIP).package
    except PackageError:
        return
    rule = RULES[family]
    assert package.name in names
    assert (package.platform, package.architecture) == (rule.platform, architecture)
    assert package.form in rule.forms
    assert family == "Debian" or package.release <= platform_release(system)
    assert check_package(package.name, system).package == package


@pytest.mark.parametrize("missing", ["os_family", "distribution", "architecture"])
def test_facts_that_are_missing(missing):
    facts = {"os_family": "Debian", "distribution": "Debian", "architecture": "x86_64", missing: None}
    with pytest.raises(PackageError, match=f"do not include its {missing}"):
        system_from_facts(facts)
