# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Choose the vendor's package for a host, by its name and the facts of the host. No I/O.

The vendor names a package PrimusAPI_PKCS11-X-VERSION-PLATFORM-ARCHITECTURE.FORM, such as
PrimusAPI_PKCS11-X-2.2.4-debian10-x86_64.deb, and the download with those of all platforms PrimusAPI_PKCS11-v2.2.4.zip.
It publishes packages for debianN and rhelN, and names RHEL and relatives 7 to 9, Ubuntu 16 to 24, Debian 8 to 12 and
SLES 12 and 15 as supported. Which package another host gets is this collection's choice, in RULES, SAME_RELEASE and
RELEASE_MAPS.
"""

import re
import typing as t

VersionKey = t.Tuple[t.Tuple[int, int, str], ...]

FORMS = ("deb", "rpm", "tar.gz")
_FORM = re.compile(r"\.(deb|rpm|tar\.gz|zip)$", re.I)
_PACKAGE = re.compile(
    r"PrimusAPI_PKCS11-(?:X-)?v?(?P<version>\d[\w.+~-]*?)-(?P<platform>[a-z]+)(?P<release>\d+)"
    r"-(?P<architecture>\w+)\.(?P<form>deb|rpm|tar\.gz)",
    re.I | re.A,
)
# The version in another name, such as that of an archive, or of a copy of it, "… (1).zip".
_VERSION = re.compile(
    r"PrimusAPI_PKCS11-(?:X-)?v?(\d+(?:\.\d+)+(?:[-.~]?(?:alpha|beta|pre|rc)[-.]?\d*)?)(?!\w|\.\d)", re.I | re.A
)
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


class Rule(t.NamedTuple):
    forms: t.Tuple[str, ...]  # the preferred one first
    platform: str


RULES = {
    "Debian": Rule(("deb", "tar.gz"), "debian"),
    "RedHat": Rule(("rpm", "tar.gz"), "rhel"),
    "Suse": Rule(("rpm", "tar.gz"), "rhel"),
}
"""By the fact os_family. A host of the family Debian gets a package for a newer release when there is no other."""

SAME_RELEASE = frozenset(
    ["AlmaLinux", "Ascendos", "CentOS", "CloudLinux", "Debian", "EuroLinux", "MIRACLE", "OEL", "OracleLinux"]
    + ["Raspbian", "RedHat", "RHEL", "Rocky", "Scientific", "SLC", "Virtuozzo"]
)
"""Distributions whose major release is that of the platform."""

NEWEST = 10**6
_SLES = {12: 7, 15: 8}
RELEASE_MAPS: t.Dict[str, t.Dict[int, int]] = {
    # The Debian release that each is based on (/etc/debian_version), rounded down for interim releases.
    "Ubuntu": {year: year // 2 + 1 for year in range(14, 27)},
    "Amazon": {2: 7, 2017: 6, 2018: 6, 2023: 9},
    **dict.fromkeys(("SLES", "SLES_SAP", "SLED"), _SLES),
    **dict.fromkeys(("openSUSE", "openSUSE Leap"), {**_SLES, 16: NEWEST, 42: 7}),
}
"""The release of the platform, by the major release of the distribution. Later ones count as the newest."""

ALWAYS_NEWEST = frozenset(["Fedora", "openSUSE Tumbleweed"])
"""Distributions that count as the newest release, as do those of the family Debian that are in none of these tables."""


class PackageError(Exception):
    """There is no package for a host, or it cannot be read. The message has no full stop at its end."""


class Package(t.NamedTuple):
    """The parts of a package's name. If it does not have the vendor's form, only `name` and `form` are set."""

    name: str
    form: str  # one of FORMS
    version: str = ""
    platform: str = ""
    release: int = 0
    architecture: str = ""

    @property
    def system(self) -> str:
        return "%s%d" % (self.platform, self.release)

    @property
    def file_name(self) -> str:
        """The name with its extension in lower case, as package managers require it."""
        return self.name[: -len(self.form)] + self.form


class System(t.NamedTuple):
    """The operating system of a host, from Ansible's facts."""

    family: str
    distribution: str
    version: str
    architecture: str

    def __str__(self) -> str:
        return "%s on %s" % (" ".join(filter(None, self[1:3])), self.architecture)


FACTS = ("os_family", "distribution", "distribution_version", "architecture")

PACKAGE_ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "src": {"type": "str", "required": True},
    "remote_src": {"type": "bool", "default": False},
    "dest": {"type": "path", "required": True},
    "version": {"type": "str", "default": ""},
    "facts": {"type": "dict"},
}
"""The options of provider_package, for the module and its action plugin."""


class Choice(t.NamedTuple):
    package: Package
    why: str  # the reason, in a sentence


def system_from_facts(facts: t.Mapping[str, t.Any]) -> System:
    """:raises PackageError: when one of FACTS is missing. Only Debian's testing and unstable may have no version."""
    missing = [name for name in FACTS if not facts.get(name) and name != "distribution_version"]
    if missing:
        raise PackageError("The facts of the host do not include its %s" % _join_words(missing))
    family, distribution, version, architecture = (str(facts.get(name) or "") for name in FACTS)
    return System(family, distribution, version, ARCHITECTURES.get(architecture.lower(), architecture.lower()))


def form_of(name: str) -> str:
    """Return one of FORMS, or "zip", or "" when the name has another extension."""
    match = _FORM.search(name)
    return match.group(1).lower() if match else ""


def parse_name(name: str) -> t.Optional[Package]:
    """Parse the name of a package. Return None when it does not have the vendor's form for Linux."""
    match = _PACKAGE.fullmatch(name)
    if match is None:
        return None
    architecture = match.group("architecture").lower()
    return Package(
        name,
        match.group("form").lower(),
        match.group("version"),
        match.group("platform").lower(),
        int(match.group("release")),
        ARCHITECTURES.get(architecture, architecture),
    )


def version_of(name: str) -> str:
    """Return the version in the name of a package, an archive or a directory, or ""."""
    package = parse_name(name)
    match = _VERSION.match(name)
    return package.version if package else match.group(1) if match else ""


def version_key(version: str) -> VersionKey:
    """Return a key to compare versions of any form: 2.2.4-beta < 2.2.4 < 2.2.4.1 < 2.10."""
    words = re.findall(r"\d+|[a-z]+", version.lower(), re.A)
    words = words[1:] if words[:1] == ["v"] else words
    return (*((2, int(word), "") if word.isdigit() else (0, 0, word) for word in words), (1, 0, ""))


def newest_version(names: t.Iterable[str]) -> str:
    """Return the newest version of the packages among these names, or "" when there is none."""
    packages = [package for package in map(parse_name, names) if package]
    return max((package.version for package in packages), key=version_key, default="")


def platform_release(system: System) -> t.Optional[int]:
    """Return the release of the platform that a host counts as, NEWEST, or None when it is not known."""
    digits = re.match(r"\d+", system.version)
    major = int(digits.group()) if digits else None  # Debian's testing and unstable have none
    if system.distribution in ALWAYS_NEWEST:
        return NEWEST
    if system.distribution in SAME_RELEASE:
        return NEWEST if major is None else major
    if system.distribution in RELEASE_MAPS:
        table = RELEASE_MAPS[system.distribution]
        return NEWEST if major is None or major > max(table) else table.get(major)
    return NEWEST if system.family == "Debian" else None


def pick_package(names: t.Iterable[str], system: System, where: str, version: str = "") -> Choice:
    """Choose the package for a host.

    :arg names: the files of the directory or archive.
    :arg where: the name of the directory or archive, for messages.
    :arg version: "": the newest.
    :raises PackageError: when there is none. The message says which packages there are, and what the host is.
    """
    packages = [package for package in map(parse_name, sorted(set(names))) if package]
    if not packages:
        raise PackageError(
            "%s has no package of the provider, which is named PrimusAPI_PKCS11-X-VERSION-PLATFORM-ARCHITECTURE and "
            "ends in .deb, .rpm or .tar.gz" % where
        )
    wanted = version_key(version or newest_version(names))
    offered = [package for package in packages if version_key(package.version) == wanted]
    if not offered:
        there = sorted({package.version for package in packages}, key=version_key)
        raise PackageError("%s has no package of version %s, but of %s" % (where, version, _join_words(there)))

    several = len({version_key(package.version) for package in packages}) > 1
    has = "%s has packages %sfor %s; this host is %s" % (
        where,
        "of version %s " % offered[0].version if several else "",
        _platforms(offered),
        system,
    )
    rule = RULES.get(system.family)
    fitting = [package for package in offered if rule and _fits(package, system, rule)]
    if rule is None or not fitting:
        raise PackageError(has)
    counted = platform_release(system)
    if counted is None:
        raise PackageError(
            "%s, and it is not known which of them is for %s. Choose a package yourself, and give it alone"
            % (has, system.distribution)
        )
    old_enough = [package for package in fitting if package.release <= counted]
    if old_enough:
        best = min(old_enough, key=lambda package: (rule.forms.index(package.form), -package.release))
        reason = "%s is the newest platform in %s" % (best.system, where)
        if counted != NEWEST:
            reason = "it counts as %s%d, and %s up to that" % (rule.platform, counted, reason)
    elif system.family == "Debian":
        best = min(fitting, key=lambda package: (rule.forms.index(package.form), package.release))
        reason = "it counts as debian%d, and %s is the oldest platform in %s" % (counted, best.system, where)
    else:
        raise PackageError("%s, which counts as %s%d and is older than they are" % (has, rule.platform, counted))
    return Choice(best, "%s was chosen for %s: %s." % (best.name, system, reason))


def check_package(name: str, system: System) -> Choice:
    """Check, by its name, that a single package is for the host.

    It may be for another release than pick_package() would choose, because the user has chosen it.
    :raises PackageError: when it is for another system.
    """
    package = parse_name(name) or Package(name, form_of(name))
    rule = RULES.get(system.family)
    if rule is None:
        raise PackageError("%s is for systems of %s; this host is %s" % (name, _join_words(sorted(RULES)), system))
    if package.platform:
        for_others = package.platform in {rule.platform for rule in RULES.values()} - {rule.platform}
        if for_others or package.architecture != system.architecture:
            raise PackageError("%s is for %s; this host is %s" % (name, _platforms([package]), system))
    if package.form not in rule.forms:
        raise PackageError("%s is no .%s; this host is %s" % (name, " or .".join(rule.forms), system))
    unknown = "" if package.platform else "; its name does not tell which systems it is for"
    return Choice(package, "%s was given for %s%s." % (name, system, unknown))


def check_url(url: str, system: System) -> t.Dict[str, t.Any]:
    """Return the result for a package that is not downloaded. :raises PackageError: when it is for another system."""
    name = name_in_url(url)
    if form_of(name) == "zip":
        why = "Which package of %s is the one for %s is known after the download." % (name, system)
        return dict(package_result(Choice(Package("", ""), why), system, None), package=None)
    if not form_of(name):
        raise PackageError("%s does not end in .deb, .rpm, .tar.gz or .zip" % name)
    return package_result(check_package(name, system), system, None)


def name_in_url(url: str) -> str:
    """Return the file name in a URL."""
    return re.sub("[?#].*", "", url).rpartition("/")[2]


def package_result(choice: Choice, system: System, path: t.Optional[str]) -> t.Dict[str, t.Any]:
    """Return the result of the module provider_package. path: of the package on the host, or None."""
    package = choice.package
    return {
        "package": package.name,
        "path": path,
        "version": package.version,
        "form": package.form,
        "why": choice.why,
        "os_family": system.family,
    }


def _fits(package: Package, system: System, rule: Rule) -> bool:
    return (
        package.platform == rule.platform and package.architecture == system.architecture and package.form in rule.forms
    )


def _platforms(packages: t.Iterable[Package]) -> str:
    """Return a phrase such as "debian10 (x86_64, aarch64) and rhel8 (x86_64)"."""
    architectures: t.Dict[t.Tuple[str, int], t.Set[str]] = {}
    for package in packages:
        architectures.setdefault((package.platform, package.release), set()).add(package.architecture)
    return _join_words(
        [
            "%s%d (%s)" % (platform, release, ", ".join(sorted(names, key=lambda name: (name != "x86_64", name))))
            for (platform, release), names in sorted(architectures.items())
        ]
    )


def _join_words(words: t.Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
