"""The order of the checks: what is proven first, and what may be believed after it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from firmware.bundle import BUNDLE
from firmware.cache import content_digest, file_sha256
from firmware.console import Console
from firmware.image.disk import DISK
from firmware.layout import SLOTS
from firmware.publish import BLOCK_MAP_SUFFIX, BUNDLE_SUFFIX, DISK_SUFFIX, public_name
from firmware.recipe import ROOT, Image, read_image, recipe_names
from firmware.records.build_record import BUILD_RECORD
from firmware.records.checksums import CHECKSUMS, SIGNATURE, check_checksums
from firmware.records.inventory import LICENCE_TEXTS
from firmware.records.licences import MANIFEST as LICENCES
from firmware.sign import verify_file
from firmware.verify import bundle, disk
from firmware.verify.case import Case, blamed_on
from firmware.verify.disk import check_names
from firmware.verify.record import Record, read_record
from firmware.version import Source, read_source
from firmware.workspace import Tools
from mamori.formats.problems import MamoriError
from signing.anchors import Anchors, read_anchors
from signing.keyset import read_keyset


@dataclass(frozen=True)
class Check:
    """One thing that was looked at and found right: what, and the facts in it."""

    name: str
    detail: str


@dataclass(frozen=True)
class Trust:
    """Whom a checkout believes: the anchors of one keyset, `name` relative to the checkout, `db` one of its certificates."""

    name: str
    anchors: Anchors
    db: Path


def verify_release(tools: Tools, path: Path, console: Console, root: Path = ROOT) -> tuple[Check, ...]:
    """Check the release folder `path`, which may be a link such as `out/lab/latest`, against the checkout `root`.

    MamoriError names the first thing that is wrong. Takes about ten seconds, and disk space for disk image and bundle.
    """
    folder = path.resolve()
    if not folder.is_dir():
        raise MamoriError(f"{path}: no such folder", "`./inv build` makes one: out/RECIPE/VERSION")
    # Beside the tools tree: /tmp may be memory.
    with tempfile.TemporaryDirectory(prefix=".verify-", dir=tools.tree.parents[1]) as scratch:
        return tuple(_checks(tools, folder, console, root, Path(scratch)))


@dataclass(frozen=True)
class Releasable:
    """What is released of a folder: its bundle, and what the bundle's signed manifest says."""

    image: Image
    bundle: Path
    manifest_hash: str


def read_releasable(tools: Tools, path: Path, root: Path = ROOT) -> Releasable:
    """What a folder says of itself, with a signature over it: the first second of `verify_release`, which proves the rest."""
    folder = path.resolve()
    if not folder.is_dir():
        raise MamoriError(f"{path}: no such folder", "`./inv build` makes one: out/RECIPE/VERSION")
    with tempfile.TemporaryDirectory(prefix=".verify-", dir=tools.tree.parents[1]) as scratch:
        keyring = Path(scratch) / "keyring.pem"
        trust = check_signature(tools, folder, root, keyring)
        listed = check_checksums(folder)
        image = check_record(read_record(folder / BUILD_RECORD), trust, root)
        check_listing(image, listed)
        file = folder / public_name(image, BUNDLE_SUFFIX)
        manifest = bundle.read_manifest(Case(tools, image, trust.anchors, trust.db, keyring, Path(scratch)), file)
    said = (manifest.update.get("compatible"), manifest.update.get("version"))
    if said != (image.compatible, image.version):
        raise MamoriError(f"{file.name}: expected {image.compatible} {image.version}, got {said[0]} {said[1]}")
    return Releasable(image, file, manifest.hash)


def _checks(tools: Tools, folder: Path, console: Console, root: Path, scratch: Path) -> Iterator[Check]:
    keyring = scratch / "keyring.pem"
    with console.step("signature"):
        trust = check_signature(tools, folder, root, keyring)
        yield Check("signature", f"of {CHECKSUMS}, under the bundle CAs of {trust.name}")
    with console.step("checksums"):
        listed = check_checksums(folder)
        yield Check("checksums", f"{len(listed)} files, none missing, none added")
    with console.step("records"):
        record = read_record(folder / BUILD_RECORD)
        image = check_record(record, trust, root)
        check_listing(image, listed)
        yield Check("build record", f"{image.label} {image.version}, commit {record.source.commit[:10]}")
        yield Check("SBOM", check_sbom(folder, image))
    case = Case(tools, image, trust.anchors, trust.db, keyring, scratch)
    for name, checks in (("disk image", _check_disk), ("bundle", _check_bundle)):
        with console.step(name) as step:
            for check in checks(case, folder, record):
                step.note(check.name)
                yield check


def check_signature(tools: Tools, folder: Path, root: Path, keyring: Path) -> Trust:
    """Which keyset of the checkout's recipes signed the checksums; its CAs are left in `keyring`. MamoriError when none did.

    Nothing else in the folder is read to find out, since nothing in it can be believed yet.
    """
    for name in (CHECKSUMS, SIGNATURE):
        if not (folder / name).is_file():
            raise MamoriError(f"{folder / name}: missing", "without it, nothing says whose files these are")
    tried = _trusted(root)
    if not tried:
        hint = "signing/README.md says what a keyset is"
        raise MamoriError("no recipe's keyset is on this machine, so there is nobody whose signature counts", hint)
    names = " or ".join(trust.name for trust in tried)
    refusal: MamoriError | None = None
    for trust in tried:
        keyring.write_bytes(trust.anchors.rauc_keyring)
        try:
            with blamed_on(f"{folder / SIGNATURE}: not a signature of {CHECKSUMS} under the bundle CAs of {names}"):
                verify_file(tools, folder / CHECKSUMS, folder / SIGNATURE, keyring)
            return trust
        except MamoriError as error:
            refusal = error
    assert refusal is not None  # noqa: S101 - there was one to try, and it was refused
    raise refusal


def _trusted(root: Path) -> list[Trust]:
    """The keysets that recipes name and this machine has, each once."""
    source = read_source(root)
    names = sorted({read_image(recipe, source, root=root).recipe.signing.keyset for recipe in recipe_names(root)})
    keysets = {name: read_keyset(root / name) for name in names if (root / name).is_file()}
    return [Trust(name, read_anchors(keyset), keyset.db.certificate) for name, keyset in keysets.items()]


def check_record(record: Record, trust: Trust, root: Path) -> Image:
    """The image that the record tells of, as this checkout knows it; MamoriError where the two disagree."""
    said = record.image
    source = Source(said.version, record.source.commit, record.source.dirty, record.source.epoch)
    image = read_image(said.name, source, said.board, root)
    known = {"base": image.recipe.base, "variant": image.recipe.variant, "compatible": image.compatible}
    for name, expected in known.items():
        if getattr(said, name) != expected:
            want, got = _word(expected), _word(getattr(said, name))
            raise MamoriError(f"{BUILD_RECORD}: image.{name}: expected {want}, as recipe {image.name} has it, got {got}")
    keyset = image.recipe.signing.keyset
    if keyset != trust.name:
        raise MamoriError(f"{BUILD_RECORD}: recipe {image.name} is to be signed with {keyset}, and {trust.name} signed")
    trusted = {certificate.fingerprint for certificate in (trust.anchors.db, *trust.anchors.bundle)}
    if {entry.sha256 for entry in record.certificates.values()} != trusted:
        raise MamoriError(f"{BUILD_RECORD}: certificates: expected those of {trust.name}, got others")
    return image


def check_listing(image: Image, listed: Iterable[str]) -> None:
    """MamoriError unless the release has exactly the files that a release has."""
    from firmware.records.sbom import SBOM  # slow to import

    artefacts = {public_name(image, suffix) for suffix in (DISK_SUFFIX, BLOCK_MAP_SUFFIX, BUNDLE_SUFFIX)}
    expected = {*artefacts, BUILD_RECORD, SBOM, LICENCES, LICENCE_TEXTS}
    check_names({name: Path(name) for name in listed}, expected, CHECKSUMS)


def check_sbom(folder: Path, image: Image) -> str:
    """MamoriError unless the SBOM is valid CycloneDX 1.6 and about this image."""
    from cyclonedx.schema import SchemaVersion  # slow to import
    from cyclonedx.validation.json import JsonStrictValidator

    from firmware.records.sbom import SBOM

    text = (folder / SBOM).read_text()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        raise MamoriError(f"{SBOM}: not valid CycloneDX 1.6: {str(error.data)[:200]}")
    document = json.loads(text)
    subject = document["metadata"]["component"]
    if (subject["name"], subject["version"]) != (f"mamori-{image.label}", image.version):
        got = f"{subject['name']} {subject['version']}"
        raise MamoriError(f"{SBOM}: expected the parts of mamori-{image.label} {image.version}, got those of {got}")
    return f"CycloneDX 1.6, {len(document['components'])} components"


def _check_disk(case: Case, folder: Path, record: Record) -> Iterator[Check]:
    compressed, block_map = (folder / public_name(case.image, suffix) for suffix in (DISK_SUFFIX, BLOCK_MAP_SUFFIX))
    what, flashed = compressed.name, case.scratch / DISK
    disk.flash(case, compressed, block_map, flashed)
    yield Check("block map", "the disk image can be flashed with it, every range has its checksum")
    yield Check("partition table", disk.check_table(case, flashed, what))
    yield Check("boot loader", disk.check_boot_loader(case, flashed, what))
    yield Check("boot state", disk.check_boot_state(case, flashed, what))
    for slot in SLOTS:
        kernel = disk.check_slot(case, flashed, slot, what)
        yield Check(f"slot {slot}", f"kernel signed, {kernel.blocks} blocks of root verify against {kernel.root_hash[:16]}…")
    yield Check("data", disk.check_data(case, flashed, what))
    _check_made(record, "disk", DISK, content_digest(flashed), what)
    flashed.unlink()


def _check_bundle(case: Case, folder: Path, record: Record) -> Iterator[Check]:
    file, content = folder / public_name(case.image, BUNDLE_SUFFIX), case.scratch / "bundle"
    yield Check("bundle", bundle.unpack_bundle(case, file, content))
    kernel = bundle.check_bundle_slot(case, content, file.name)
    yield Check("root in the bundle", f"kernel signed, {kernel.blocks} blocks verify against {kernel.root_hash[:16]}…")
    kernels = {file_sha256(path) for path in case.scratch.glob(f"*.files/{disk.KERNEL_FILE}")}
    if len(kernels) != 1:
        raise MamoriError(f"{file.name}: expected the kernel image of both slots of the disk, got another one")
    yield Check("same image", "the bundle brings what both slots of the disk hold")
    _check_made(record, "bundle", BUNDLE, content_digest(file), file.name)


def _check_made(record: Record, step: str, file: str, digest: str, what: str) -> None:
    made = record.made(step, file)
    if made != digest:
        raise MamoriError(f"{what}: expected what step {step} of {BUILD_RECORD} made ({made}), got {digest}")


def _word(value: object) -> str:
    return str(getattr(value, "value", value))
