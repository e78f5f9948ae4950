"""The software bill of materials: what is in a firmware, in CycloneDX 1.6 (JSON), the same bytes for the same firmware.

Every package is one component, known by its package URL, with the hash of the archive that it came from, its licences
and its source package. Which part of the firmware it is in (root file system, boot chain …) is the property
`mamori:part`; a package in two parts is one component with two such properties.

Formats: CycloneDX 1.6 (ECMA-424); package URL specification, types deb, pypi and generic.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from cyclonedx.exception.model import InvalidUriException
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_expression, is_supported_id
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from firmware.bases import Package
from firmware.layout import NAMESPACE
from mamori.formats.problems import MamoriError

SBOM = "sbom.cdx.json"

DEBIAN_RELEASE = "debian-13"
"""The package URL qualifier `distro` of every Debian package that we use."""

_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d{1,5})?(?:[/?#][A-Za-z0-9._~:/?#@!$&()*+,;=%-]*)?")


class Part(enum.Enum):
    """Where in the firmware a package is."""

    ROOT = "root"
    APP = "app"
    KERNEL = "kernel"
    INITRAMFS = "initramfs"
    BOOT = "boot"


_COMPONENT_TYPES = {
    Part.ROOT: ComponentType.LIBRARY,  # what CycloneDX asks for where nobody knows whether it is an application
    Part.APP: ComponentType.APPLICATION,
    Part.KERNEL: ComponentType.OPERATING_SYSTEM,
    Part.INITRAMFS: ComponentType.LIBRARY,
    Part.BOOT: ComponentType.FIRMWARE,
}


@dataclass(frozen=True)
class Subject:
    """The firmware that is described; `epoch` is its commit's time in Unix seconds."""

    name: str
    version: str
    compatible: str
    epoch: int


def render_sbom(subject: Subject, parts: Mapping[Part, Sequence[Package]]) -> str:
    """The SBOM as JSON text, checked against the strict schema of CycloneDX 1.6.

    MamoriError when two parts have the same package from different archives. ValueError names the place that breaks the
    schema: that is a bug here, whatever the packages say.
    """
    whole = Component(
        name=subject.name,
        version=subject.version,
        type=ComponentType.FIRMWARE,
        bom_ref="firmware",
        properties=[Property(name="mamori:compatible", value=subject.compatible)],
    )
    components = [_component(package, where) for package, where in _places(parts).items()]  # the library sorts them
    bom = Bom(
        serial_number=_serial_number(subject, parts),
        metadata=BomMetaData(component=whole, timestamp=datetime.fromtimestamp(subject.epoch, UTC)),
        components=components,
    )
    bom.register_dependency(whole, components)
    text = JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        raise ValueError(f"{SBOM} breaks the CycloneDX 1.6 schema at {error.data.json_path}: {error.data.message}")
    return text


def package_url(package: Package) -> PackageURL:
    """Which package this is, for anyone who keeps a database of them."""
    if package.ecosystem == "deb":
        qualifiers = {"arch": package.architecture, "distro": DEBIAN_RELEASE}
        return PackageURL("deb", "debian", package.name, package.version, qualifiers)
    return PackageURL(package.ecosystem, None, package.name, package.version)


def _places(parts: Mapping[Part, Sequence[Package]]) -> Mapping[Package, tuple[Part, ...]]:
    """Each package once, by its package URL, with the parts that it is in."""
    first: dict[str, Package] = {}
    places: dict[str, list[Part]] = {}
    for part in Part:
        for package in sorted(parts.get(part, ())):
            purl = package_url(package).to_string()
            if first.setdefault(purl, package).sha256 != package.sha256:
                raise MamoriError(f"{purl} is in the firmware from two archives: {first[purl].sha256} and {package.sha256}")
            if part not in places.setdefault(purl, []):
                places[purl].append(part)
    return {first[purl]: tuple(where) for purl, where in places.items()}


def _component(package: Package, where: tuple[Part, ...]) -> Component:
    purl = package_url(package)
    properties = [Property(name="mamori:part", value=part.value) for part in where]
    if package.source:
        properties.append(Property(name="mamori:source", value=f"{package.source} {package.source_version}".strip()))
    return Component(
        name=package.name,
        version=package.version,
        type=_COMPONENT_TYPES[where[-1]],
        bom_ref=purl.to_string(),
        purl=purl,
        description=package.description or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)] if package.sha256 else [],
        licenses=_licences(package.licences),
        external_references=_references(package.homepage),
        properties=properties,
    )


def _licences(names: Iterable[str]) -> list[License]:
    """One expression when all names are SPDX, else a list: CycloneDX allows either, but no mixture."""
    names = sorted(set(filter(None, names)))
    if names and all(_is_spdx(name) for name in names):
        if len(names) == 1 and is_supported_id(names[0]):
            return [DisjunctiveLicense(id=names[0])]
        return [LicenseExpression(" AND ".join(f"({name})" if " OR " in name and len(names) > 1 else name for name in names))]
    return [DisjunctiveLicense(id=name) if is_supported_id(name) else DisjunctiveLicense(name=name) for name in names]


def _is_spdx(name: str) -> bool:
    return is_expression(_REFERENCE.sub("MIT", name))  # the library refuses references, which SPDX allows


def _references(homepage: str) -> list[ExternalReference]:
    """The home page, unless packagers wrote something that is no address."""
    if not _WEB_ADDRESS.fullmatch(homepage):
        return []
    try:
        return [ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(homepage))]
    except InvalidUriException:
        return []


def _serial_number(subject: Subject, parts: Mapping[Part, Sequence[Package]]) -> uuid.UUID:
    """Derived from everything that the document says: the same content has the same number, other content never."""
    content = [asdict(subject), {part.value: [asdict(package) for package in sorted(parts[part])] for part in parts}]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return uuid.uuid5(NAMESPACE, f"sbom/{digest}")
