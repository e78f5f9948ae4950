"""The software bill of materials: complete, valid, and the same bytes for the same firmware."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.bases import Package
from firmware.records.sbom import Part, Subject, package_url, render_sbom
from mamori.formats.problems import MamoriError

SUBJECT = Subject("mamori-lab", "2026.11.0+g0123456789", "mamori-qemu-x86_64-lab", 1_763_878_000)
SSL = Package(
    *("libssl3t64", "3.5.1-1", "deb", "amd64", "openssl", "3.5.1-1", "a" * 64),
    licences=("Apache-2.0", "Artistic-1.0-Perl OR GPL-1.0-or-later", "LicenseRef-debian"),
    homepage="https://openssl-library.org/",
    description="shared libraries",
)
SHIM = Package("shim-unsigned", "16.1-2~deb13u1", "deb", "amd64", "shim", "16.1-2~deb13u1", "b" * 64)
APP = Package("mamori", "2026.11.0", "pypi", licences=("Apache-2.0",))
GPL = Package("nftables", "1.1.6", "generic", licences=("GPL-2 (see text)", "MIT"))
PARTS = {Part.ROOT: [SSL, GPL, SHIM], Part.BOOT: [SHIM], Part.APP: [APP]}


def components(parts: dict[Part, list[Package]]) -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in json.loads(render_sbom(SUBJECT, parts))["components"]}


def test_the_document_is_about_the_firmware_at_its_commits_time() -> None:
    document = json.loads(render_sbom(SUBJECT, PARTS))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"] == {
        "timestamp": "2025-11-23T06:06:40+00:00",
        "component": {
            "bom-ref": "firmware",
            "type": "firmware",
            "name": "mamori-lab",
            "version": "2026.11.0+g0123456789",
            "properties": [{"name": "mamori:compatible", "value": "mamori-qemu-x86_64-lab"}],
        },
    }


def test_a_debian_package_has_its_address_hash_licences_and_source() -> None:
    purl = "pkg:deb/debian/libssl3t64@3.5.1-1?arch=amd64&distro=debian-13"
    assert components(PARTS)["libssl3t64"] == {
        "bom-ref": purl,
        "purl": purl,
        "type": "library",
        "name": "libssl3t64",
        "version": "3.5.1-1",
        "description": "shared libraries",
        "hashes": [{"alg": "SHA-256", "content": "a" * 64}],
        "licenses": [{"expression": "Apache-2.0 AND (Artistic-1.0-Perl OR GPL-1.0-or-later) AND LicenseRef-debian"}],
        "externalReferences": [{"type": "website", "url": "https://openssl-library.org/"}],
        "properties": [{"name": "mamori:part", "value": "root"}, {"name": "mamori:source", "value": "openssl 3.5.1-1"}],
    }


def test_a_package_in_two_parts_is_one_component() -> None:
    shim = components(PARTS)["shim-unsigned"]
    assert [entry["value"] for entry in shim["properties"] if entry["name"] == "mamori:part"] == ["boot", "root"]
    assert shim["type"] == "firmware"


def test_the_same_package_from_two_archives_is_refused() -> None:
    with pytest.raises(MamoriError, match=f"from two archives: {'b' * 64} and {'c' * 64}"):
        render_sbom(SUBJECT, {Part.ROOT: [SHIM], Part.BOOT: [dataclasses.replace(SHIM, sha256="c" * 64)]})


@pytest.mark.parametrize(
    ("names", "licences"),
    [
        pytest.param((), None, id="none"),
        pytest.param(("MIT",), [{"license": {"id": "MIT"}}], id="an SPDX identifier"),
        pytest.param(("MIT", "MIT OR ISC"), [{"expression": "MIT AND (MIT OR ISC)"}], id="SPDX expressions"),
        pytest.param(("MIT OR ISC",), [{"expression": "MIT OR ISC"}], id="one expression"),
        pytest.param(
            ("see text", "MIT"), [{"license": {"id": "MIT"}}, {"license": {"name": "see text"}}], id="a name that is not SPDX"
        ),
        pytest.param(
            ("MIT OR ISC", "BSD License"), [{"license": {"name": n}} for n in ("BSD License", "MIT OR ISC")], id="a mixture"
        ),
    ],
)
def test_licences_are_one_expression_or_a_list_of_names(names: tuple[str, ...], licences: list[Any] | None) -> None:
    assert components({Part.ROOT: [Package("x", "1", licences=names)]})["x"].get("licenses") == licences


@pytest.mark.parametrize("package", [SSL, SHIM, APP, GPL], ids=lambda package: package.ecosystem + " " + package.name)
def test_the_firmware_depends_on_every_package(package: Package) -> None:
    dependencies = {entry["ref"]: entry for entry in json.loads(render_sbom(SUBJECT, PARTS))["dependencies"]}
    assert package_url(package).to_string() in dependencies["firmware"]["dependsOn"]
    assert len(dependencies["firmware"]["dependsOn"]) == 4


def test_the_order_in_which_packages_come_does_not_matter() -> None:
    shuffled = {part: list(reversed(packages)) for part, packages in reversed(PARTS.items())}
    assert render_sbom(SUBJECT, shuffled) == render_sbom(SUBJECT, PARTS)


def test_of_two_descriptions_of_one_package_always_the_same_is_taken() -> None:
    twice = [APP, dataclasses.replace(APP, description="x")]
    assert components({Part.APP: twice}) == components({Part.APP: twice[::-1]})


@pytest.mark.parametrize(
    ("subject", "parts"),
    [
        pytest.param(dataclasses.replace(SUBJECT, epoch=SUBJECT.epoch + 1), PARTS, id="a later commit"),
        pytest.param(SUBJECT, {**PARTS, Part.APP: [dataclasses.replace(APP, description="x")]}, id="another description"),
        pytest.param(SUBJECT, {**PARTS, Part.KERNEL: [APP]}, id="one more part"),
    ],
)
def test_another_content_has_another_serial_number(subject: Subject, parts: dict[Part, list[Package]]) -> None:
    serials = {json.loads(render_sbom(*content))["serialNumber"] for content in ((SUBJECT, PARTS), (subject, parts))}
    assert len(serials) == 2
    assert all(serial.startswith("urn:uuid:") for serial in serials)


def test_a_document_that_breaks_the_schema_is_not_handed_out() -> None:
    with pytest.raises(ValueError, match=r"at \$\.components\[0\]\.hashes\[0\]\.content: 'xyz' does not match"):
        render_sbom(SUBJECT, {Part.ROOT: [dataclasses.replace(APP, sha256="xyz")]})


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9+._-]*", fullmatch=True)  # the ecosystems see to that; the rest is free text


@settings(max_examples=50, deadline=None)  # each example loads and checks the whole schema
@given(st.builds(Package, names, st.text(), licences=st.tuples(st.text(), st.text()), homepage=st.text(), description=st.text()))
def test_whatever_packagers_write_the_document_is_valid(package: Package) -> None:
    assert json.loads(render_sbom(SUBJECT, {Part.ROOT: [package]}))["components"]


@pytest.mark.parametrize("homepage", ["http://a b", "ftp://x", "http://x/%zz", "http://x/#a#b", "https://[", "http://x:y/", "x"])
def test_a_home_page_that_is_no_address_is_left_out(homepage: str) -> None:
    assert "externalReferences" not in components({Part.ROOT: [dataclasses.replace(APP, homepage=homepage)]})["mamori"]
