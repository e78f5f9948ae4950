"""What is installed in a Debian tree, and the lock that says what ought to be.

Everything here is texts in, values out: dpkg's `status` says what is installed, the signed `Packages` indices say what
the archives of those very packages hash to. `debian.lock` keeps both for the tools tree and for each base, so that a
rebuild asks apt for the same versions (`render_pins`) and reports where the mirror no longer has them (`compare`).

Formats: Debian Policy, chapter 5 (control files and their fields); apt_preferences(5); Debian repository format.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from firmware.bases import Package
from mamori.formats.problems import BadInputError, MamoriError, Problem

LOCK = "debian.lock"

_SHOWN_NAMES = 5
"""How many packages an error or a report names; the lock's diff names the rest."""

_NAME = r"[a-z0-9][a-z0-9+.-]+"  # Policy 5.6.7
_VERSION = r"[0-9][A-Za-z0-9.+:~-]*"  # Policy 5.6.12
_ARCHITECTURE = r"[a-z0-9][a-z0-9-]*"  # Policy 5.6.8
_SHA256 = r"[0-9a-f]{64}"

_GAP = re.compile(r"\n(?:[ \t]*\n)+")
_PACKAGE_LINE = re.compile(r"^Package:[ \t]*(\S+)", re.MULTILINE | re.IGNORECASE)
_SOURCE = re.compile(rf"({_NAME})(?: \(({_VERSION})\))?")
_SECTION = re.compile(r"\[([a-z][a-z0-9_-]*(?: [a-z][a-z0-9_-]*)?)\]")
_ENTRY = re.compile(rf"({_NAME}) ({_VERSION}) ({_ARCHITECTURE}) ({_SHA256})")

_LOCK_HEADER = """\
# The Debian packages that the tools tree and each base are made of: name, version, architecture, SHA-256 of the archive.
# Written by the build; a rebuild asks for these versions and reports where the mirror has others.
"""

_INSTALLED = "installed"
_ABSENT = ("not-installed", "config-files")


@dataclass(frozen=True, order=True)
class LockedPackage:
    """One line of the lock; `sha256` is that of the .deb."""

    name: str
    version: str
    architecture: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.architecture} {self.sha256}"


@dataclass(frozen=True, order=True)
class Change:
    """One package on which lock and tree disagree."""

    locked: LockedPackage
    actual: LockedPackage

    def __str__(self) -> str:
        return f"{self.actual.name} {self.locked.version} -> {self.actual.version}"


@dataclass(frozen=True)
class Drift:
    """How a tree differs from its lock, each part sorted by name."""

    added: tuple[LockedPackage, ...] = ()
    removed: tuple[LockedPackage, ...] = ()
    changed_version: tuple[Change, ...] = ()
    changed_hash: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.changed_version, self.changed_hash))

    def __str__(self) -> str:
        """One line for people: `2 added (a, b); 1 with another version (openssl 3.5.1-1 -> 3.5.2-1)`."""
        parts = (
            ("added", [package.name for package in self.added]),
            ("removed", [package.name for package in self.removed]),
            ("with another version", [str(change) for change in self.changed_version]),
            ("with another hash", [change.actual.name for change in self.changed_hash]),
        )
        return "; ".join(f"{len(names)} {what} ({_some(names)})" for what, names in parts if names) or "none"

    def check_hashes(self, section: str) -> None:
        """MamoriError when an archive changed and its version did not: no archive may do that, so it is an attack or damage."""
        if not self.changed_hash:
            return
        first = self.changed_hash[0]
        raise MamoriError(
            f"{LOCK}: [{section}]: {first.actual.name} {first.actual.version} is locked with SHA-256 {first.locked.sha256}, "
            f"and the mirror signs {first.actual.sha256} for the same version "
            f"({len(self.changed_hash)} such: {_some([change.actual.name for change in self.changed_hash])})",
            "a version's archive never changes: find out who is wrong before you remove the line from the lock",
        )


def parse_stanzas(text: str) -> Iterator[Mapping[str, str]]:
    """The paragraphs of a control file: field name in lower case to value, its lines joined by newlines.

    Forgiving: a line that is neither a field, nor the continuation of one, nor a comment is passed over.
    """
    for stanza in _GAP.split(text):
        fields = _fields(stanza)
        if fields:
            yield fields


def parse_packages(status: str, *indices: str) -> tuple[Package, ...]:
    """The packages that dpkg's `status` has as installed, with the hashes that the `Packages` texts in `indices` give.

    Sorted. MamoriError when a package is only half installed, or is not (or twice, and not the same) in the indices;
    licences are not known here and stay empty.
    """
    installed = [_package(fields) for fields in parse_stanzas(status) if _is_installed(fields)]
    hashes = _archive_hashes({package.name for package in installed}, indices)
    return _with_hashes(installed, hashes)


def parse_index(index: str) -> tuple[Package, ...]:
    """Every package of a `Packages` text, or of what `apt-cache show` prints: for archives that are fetched, not installed."""
    packages = [_package(fields) for fields in parse_stanzas(index)]
    hashes = _archive_hashes({package.name for package in packages}, [index])
    return _with_hashes(packages, hashes)


def lock_packages(packages: Iterable[Package]) -> tuple[LockedPackage, ...]:
    """What the lock keeps of packages, sorted."""
    return tuple(sorted(LockedPackage(p.name, p.version, p.architecture, p.sha256) for p in packages))


def parse_lock(text: str, source: str = LOCK) -> Mapping[str, tuple[LockedPackage, ...]]:
    """The lock's sections by the name of their tree (`tools`, `base lab`), each sorted; BadInputError names every bad line."""
    sections: dict[str, dict[tuple[str, str], LockedPackage]] = {}
    problems: list[Problem] = []
    section: dict[tuple[str, str], LockedPackage] | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        at = f"line {number}"
        if not line or line.startswith("#"):
            continue
        if title := _SECTION.fullmatch(line):
            if title[1] in sections:
                problems.append(Problem(source, at, "each section once", f"a second {line}"))
            section = sections.setdefault(title[1], {})
        elif (entry := _ENTRY.fullmatch(line)) is None:
            problems.append(Problem(source, at, "NAME VERSION ARCHITECTURE SHA256, or [TREE]", repr(line[:60])))
        elif section is None:
            problems.append(Problem(source, at, "[TREE] before the first package", repr(entry[1])))
        elif (entry[1], entry[3]) in section:
            problems.append(Problem(source, at, "each package once in a section", f"a second {entry[1]}"))
        else:
            section[entry[1], entry[3]] = LockedPackage(*entry.groups())
    if problems:
        raise BadInputError(problems)
    return MappingProxyType({name: tuple(sorted(found.values())) for name, found in sections.items()})


def render_lock(sections: Mapping[str, Iterable[LockedPackage]]) -> str:
    """The lock's text: sections and packages sorted, one package a line, so that a diff reads as a list of upgrades.

    The inverse of `parse_lock`; BadInputError when a value would not be read back.
    """
    bodies = (f"\n[{name}]\n" + "".join(f"{package}\n" for package in sorted(sections[name])) for name in sorted(sections))
    text = _LOCK_HEADER + "".join(bodies)
    parse_lock(text)
    return text


def compare(locked: Iterable[LockedPackage], actual: Iterable[LockedPackage]) -> Drift:
    """How `actual` differs from `locked`. A package that changes its architecture is one removed and one added."""
    before = {(package.name, package.architecture): package for package in locked}
    after = {(package.name, package.architecture): package for package in actual}
    changes = [Change(before[key], after[key]) for key in sorted(before.keys() & after.keys()) if before[key] != after[key]]
    return Drift(
        added=tuple(after[key] for key in sorted(after.keys() - before.keys())),
        removed=tuple(before[key] for key in sorted(before.keys() - after.keys())),
        changed_version=tuple(change for change in changes if change.locked.version != change.actual.version),
        changed_hash=tuple(change for change in changes if change.locked.version == change.actual.version),
    )


def render_pins(locked: Iterable[LockedPackage]) -> str:
    """apt preferences that prefer the locked versions to all others, older ones too (hence more than 1000).

    A pin whose version the mirror has not is no error to apt: it falls back to the newest, and `compare` reports it.
    """
    return "\n".join(f"Package: {package.name}\nPin: version {package.version}\nPin-Priority: 1001\n" for package in sorted(locked))


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.split("\n"):
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            if name:
                fields[name] += f"\n{line[1:].rstrip()}"
            continue
        head, colon, value = line.partition(":")
        name = head.lower() if colon and head and not head[-1].isspace() else ""
        if name:
            fields[name] = value.strip()
    return fields


def _is_installed(fields: Mapping[str, str]) -> bool:
    state = fields.get("status", "").split()[-1:]
    if state == [_INSTALLED]:
        return True
    if state and state[0] in _ABSENT:
        return False
    raise MamoriError(f"dpkg status: {fields.get('package', 'a package without name')} is not installed whole: {state}")


def _package(fields: Mapping[str, str]) -> Package:
    """A stanza of `status` or of an index; BadInputError when it lacks what every Debian package has."""
    name = fields.get("package", "")
    rules = (("package", _NAME), ("version", _VERSION), ("architecture", _ARCHITECTURE))
    wrong = [key for key, rule in rules if not re.fullmatch(rule, fields.get(key, ""))]
    source = _SOURCE.fullmatch(fields.get("source", name))
    if wrong or source is None:
        title = f"Debian package {name!r}"
        raise BadInputError(
            Problem(title, key, "what Debian Policy 5.6 allows", repr(fields.get(key))) for key in wrong or ["source"]
        )
    return Package(
        name=name,
        version=fields["version"],
        ecosystem="deb",
        architecture=fields["architecture"],
        source=source[1],
        source_version=source[2] or fields["version"],
        homepage=fields.get("homepage", ""),
        description=fields.get("description", "").partition("\n")[0],
    )


def _archive_hashes(names: set[str], indices: Iterable[str]) -> Mapping[tuple[str, str, str], str]:
    """SHA-256 by name, version and architecture of the packages in `names`.

    An index has 60,000 stanzas, of which a few hundred matter: only those are taken apart.
    """
    hashes: dict[tuple[str, str, str], str] = {}
    for index in indices:
        for stanza in _GAP.split(index):
            title = _PACKAGE_LINE.search(stanza)
            if title is None or title[1] not in names:
                continue
            fields = _fields(stanza)
            key = (title[1], fields.get("version", ""), fields.get("architecture", ""))
            digest = fields.get("sha256", "")
            if not re.fullmatch(_SHA256, digest):
                continue  # apt-cache prints dpkg's own stanza for what no index has
            if hashes.setdefault(key, digest) != digest:
                raise MamoriError(f"the signed package indices disagree on {' '.join(key)}: SHA-256 {hashes[key]} and {digest}")
    return hashes


def _key(package: Package) -> tuple[str, str, str]:
    return package.name, package.version, package.architecture


def _with_hashes(packages: Sequence[Package], hashes: Mapping[tuple[str, str, str], str]) -> tuple[Package, ...]:
    unknown = sorted(package.name for package in packages if _key(package) not in hashes)
    if unknown:
        raise MamoriError(f"no signed package index has the SHA-256 of {len(unknown)} packages: {_some(unknown)}")
    return tuple(sorted(dataclasses.replace(package, sha256=hashes[_key(package)]) for package in packages))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN_NAMES]) + (", …" if len(names) > _SHOWN_NAMES else "")
