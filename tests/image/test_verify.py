"""`./inv verify` on a true release, and on everything that somebody may have done to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest

from firmware.build import Built
from firmware.console import Console
from firmware.image.boot import UNSIGNED_UKI
from firmware.image.disk import BOOT_FAT
from firmware.process import run
from firmware.records.build_record import BUILD_RECORD
from firmware.records.checksums import CHECKSUMS, SIGNATURE
from firmware.records.sbom import SBOM
from firmware.sign import Signer
from firmware.verify import verify_release
from mamori.formats import bootstate
from mamori.formats.problems import MamoriError
from signing.anchors import read_anchors
from signing.development import init_development
from signing.keyset import read_keyset
from tests.support.releases import ReleaseCopy, copy_release, flip, flipped

MIB = 1024 * 1024


@pytest.fixture
def release(built: Built, tmp_path: Path) -> ReleaseCopy:
    return copy_release(built, tmp_path)


@pytest.fixture(scope="module")
def foreign(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """Keys that look just like ours, made by somebody else."""
    keyset = read_keyset(init_development(tmp_path_factory.mktemp("foreign") / "keys", datetime.now(UTC)))
    return Signer(keyset, read_anchors(keyset), built.tools)


def refusal_of(release: ReleaseCopy) -> str:
    """What verification says, from which the words about the folder's place are taken out."""
    with pytest.raises(MamoriError) as refused:
        verify_release(release.built.tools, release.folder, Console(progress=StringIO()))
    return str(refused.value).replace(f"{release.folder}/", "")


def test_a_true_release_passes_every_check(built: Built) -> None:
    checks = verify_release(built.tools, built.folder, Console(progress=StringIO()))
    assert [check.name for check in checks] == [
        *("signature", "checksums", "build record", "SBOM"),
        *("block map", "partition table", "boot loader", "boot state", "slot a", "slot b", "data"),
        *("bundle", "root in the bundle", "same image"),
    ]
    facts = {check.name: check.detail for check in checks}
    assert "keys/development/keyset.toml" in facts["signature"]
    assert built.root.root_hash[:16] in facts["slot a"]
    assert built.root.root_hash[:16] in facts["slot b"]
    assert built.root.root_hash[:16] in facts["root in the bundle"]


def test_a_release_is_verified_without_any_private_key(built: Built, tmp_path: Path) -> None:
    """On another machine: a checkout in whose keyset every private key is missing."""
    checkout = tmp_path / "checkout"
    run(["git", "clone", "--quiet", "--shared", built.tools.tree.parents[2], checkout], explain="clone the checkout")
    origin = built.signer.keyset.path.parent
    for path in (path for path in origin.rglob("*") if path.is_file() and path.suffix != ".key"):
        copy = checkout / "keys" / "development" / path.relative_to(origin)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert not list(checkout.rglob("*.key"))
    assert verify_release(built.tools, built.folder, Console(progress=StringIO()), checkout)


def test_a_folder_that_does_not_exist_is_told_as_such(built: Built, tmp_path: Path) -> None:
    with pytest.raises(MamoriError, match="nowhere: no such folder"):
        verify_release(built.tools, tmp_path / "nowhere", Console(progress=StringIO()))


Attack = Callable[[ReleaseCopy], None]


def first_line_elsewhere(content: bytes) -> bytes:
    return b"0" + content[1:] if content[:1] != b"0" else b"1" + content[1:]


def become_a_link(release: ReleaseCopy) -> None:
    release.bundle.rename(release.work / "elsewhere")
    release.bundle.symlink_to(release.work / "elsewhere")


# Done by somebody who has no key: the signature, or a checksum under it, gives it away.
BY_A_STRANGER: dict[str, tuple[Attack, str]] = {
    "a digit in the checksums": (
        lambda r: r.edit(CHECKSUMS, first_line_elsewhere),
        f"{SIGNATURE}: not a signature of {CHECKSUMS}",
    ),
    "a bit in the signature": (
        lambda r: r.edit(SIGNATURE, lambda content: flipped(content, -8)),
        f"{SIGNATURE}: not a signature of {CHECKSUMS}",
    ),
    "no signature": (lambda r: (r.folder / SIGNATURE).unlink(), f"{SIGNATURE}: missing"),
    "no checksums": (lambda r: (r.folder / CHECKSUMS).unlink(), f"{CHECKSUMS}: missing"),
    "a bit in the disk image": (lambda r: r.edit(r.disk.name, flipped), ".img.zst: damaged"),
    "a bit in the block map": (lambda r: r.edit(r.block_map.name, flipped), ".img.bmap: damaged"),
    "a bit in the bundle": (lambda r: r.edit(r.bundle.name, flipped), ".raucb: damaged"),
    "a bit in the SBOM": (lambda r: r.edit(SBOM, flipped), f"{SBOM}: damaged"),
    "a bit in the licence manifest": (lambda r: r.edit("licences.csv", flipped), "licences.csv: damaged"),
    "a bit in the licence texts": (lambda r: r.edit("licences.tar.zst", flipped), "licences.tar.zst: damaged"),
    "another version in the build record": (
        lambda r: r.edit_json(BUILD_RECORD, lambda table: table["image"].update(version="2099.1.0")),
        f"{BUILD_RECORD}: damaged",
    ),
    "a build record that is no longer JSON": (lambda r: r.edit(BUILD_RECORD, lambda _: b"\xff"), f"{BUILD_RECORD}: damaged"),
    "a missing bundle": (lambda r: r.bundle.unlink(), ".raucb: missing"),
    "a missing SBOM": (lambda r: (r.folder / SBOM).unlink(), f"{SBOM}: missing"),
    "an extra file": (lambda r: (r.folder / "autorun.sh").touch(), f"autorun.sh: not in {CHECKSUMS}"),
    "a hidden file": (lambda r: (r.folder / ".hidden").touch(), f".hidden: not in {CHECKSUMS}"),
    "a file that became a link": (
        become_a_link,
        ".raucb: not a regular file",
    ),
}


@pytest.mark.parametrize("attack", BY_A_STRANGER)
def test_a_change_by_somebody_without_keys_is_refused(release: ReleaseCopy, attack: str) -> None:
    change, told = BY_A_STRANGER[attack]
    change(release)
    assert told in refusal_of(release)


def test_everything_signed_anew_with_foreign_keys_is_refused(release: ReleaseCopy, foreign: Signer) -> None:
    """The attacker repacks the disk, sums it up and signs it, with a PKI that says the same names as ours."""
    release.edit_disk(lambda raw: flip(raw, release.partition("root-a").start_bytes + 40 * MIB))
    release.sign(foreign)
    assert f"{SIGNATURE}: not a signature of {CHECKSUMS} under the bundle CAs of keys/development/keyset.toml" in refusal_of(
        release
    )


def flip_in(partition: str, offset: int) -> Attack:
    """Flip one bit of a partition of the disk image."""
    return lambda r: r.edit_disk(lambda raw: flip(raw, r.partition(partition).start_bytes + offset))


def other_kernel(release: ReleaseCopy, *, signed: bool) -> bytes:
    """The true kernel image with another root hash in its command lines."""
    hashed, other = release.built.root.root_hash.encode(), b"0" * 64
    unsigned, result = release.work / "other.efi", release.work / "other.signed.efi"
    unsigned.write_bytes((release.built.uki / UNSIGNED_UKI).read_bytes().replace(hashed, other))
    if signed:
        release.built.signer.sign_pe(unsigned, result)
    return (result if signed else unsigned).read_bytes()


def put_kernel(partition: str, *, signed: bool) -> Attack:
    return lambda r: r.edit_disk(lambda raw: r.put_file(raw, partition, "/mamori.efi", other_kernel(r, signed=signed)))


def put_state(name: str, block: bytes) -> Attack:
    return lambda r: r.edit_disk(lambda raw: r.put_file(raw, "bootstate", f"/{name}", block))


def rename_partition(release: ReleaseCopy) -> None:
    def change(raw: Path) -> None:
        argv: list[str | Path] = ["sfdisk", "--quiet", "--part-label", raw, "6", "root-c"]
        release.built.tools.run(argv, writes=[release.work], explain="rename a partition")

    release.edit_disk(change)


TRIAL = bootstate.encode(bootstate.BootState(bootstate.Slot.A, trial=bootstate.Slot.B, tries=3))

# Summed up and signed again with the true keys: a mistake of ours, or of a tool. What is inside gives it away.
IN_THE_DISK: dict[str, tuple[Attack, str]] = {
    "a bit in the root of slot a": (flip_in("root-a", 40 * MIB), "partition root-a: does not verify against the root hash"),
    "a bit in the root of slot b": (flip_in("root-b", 40 * MIB), "partition root-b: does not verify against the root hash"),
    "a bit in the kernel of slot a": (
        flip_in("boot-a", 8 * MIB),
        "partition boot-a: mamori.efi: not signed with the Secure Boot db key",
    ),
    "an unsigned kernel in slot b": (put_kernel("boot-b", signed=False), "partition boot-b: mamori.efi: not signed"),
    "a signed kernel for another root in slot b": (put_kernel("boot-b", signed=True), "partition root-b: does not verify"),
    "an unsigned boot loader": (
        lambda r: r.edit_disk(lambda raw: r.put_file(raw, "esp", "/EFI/BOOT/grubx64.efi", other_kernel(r, signed=False))),
        "partition esp: EFI/BOOT/grubx64.efi: not signed",
    ),
    "a configuration file on the ESP": (
        lambda r: r.edit_disk(lambda raw: r.put_file(raw, "esp", "/EFI/BOOT/grub.cfg", b"set debug=all\n")),
        "partition esp: EFI/BOOT/grub.cfg does not belong there",
    ),
    "a damaged boot state": (put_state("bootstate-2", b"#" * 1024), "partition bootstate: bootstate-2: boot state: no signature"),
    "a boot state with a trial": (put_state("bootstate-1", TRIAL), "bootstate-1: expected slot a confirmed and no trial"),
    "a third boot state": (put_state("bootstate-3", TRIAL), "partition bootstate: bootstate-3 does not belong there"),
    "a damaged data file system": (flip_in("data", 1024 + 4), "partition data: its file system is damaged"),
    "a damaged partition table": (lambda r: r.edit_disk(lambda raw: flip(raw, 2 * 512 + 60)), "its partition table is damaged"),
    "a partition with another name": (rename_partition, "partition root-b is not where and what board/qemu-x86_64/board.toml says"),
    "something where no partition is": (
        lambda r: r.edit_disk(lambda raw: flip(raw, 3 * MIB)),
        f"expected what step disk of {BUILD_RECORD} made",
    ),
    "a block map of another image": (
        lambda r: r.edit_disk(lambda raw: flip(raw, r.partition("root-a").start_bytes), map_again=False),
        "cannot be flashed with",
    ),
}


@pytest.mark.parametrize("mistake", IN_THE_DISK)
def test_a_wrong_disk_image_under_a_true_signature_is_refused(release: ReleaseCopy, mistake: str) -> None:
    change, told = IN_THE_DISK[mistake]
    change(release)
    release.sign()
    assert told in refusal_of(release)


def edit_manifest(old: str, new: str) -> Callable[[Path], None]:
    def change(content: Path) -> None:
        text = (content / "manifest.raucm").read_text()
        assert old in text
        (content / "manifest.raucm").write_text(text.replace(old, new))

    return change


def other_boot_slot(release: ReleaseCopy) -> None:
    """A bundle whose kernel, truly signed, starts another root than the one beside it."""

    def change(content: Path) -> None:
        kernel = release.work / "kernel.efi"
        kernel.write_bytes(other_kernel(release, signed=True))
        argv: list[str | Path] = ["mcopy", "-o", "-i", content / BOOT_FAT, kernel, "::/mamori.efi"]
        release.built.tools.run(argv, writes=[release.work], explain="put another kernel into the bundle")

    release.make_bundle(change)


IN_THE_BUNDLE: dict[str, tuple[Attack, str]] = {
    "a bit in the payload": (lambda r: r.edit(r.bundle.name, flipped), "its payload is not what its signed manifest promises"),
    "a bit in the hash tree": (
        lambda r: r.edit(r.bundle.name, lambda content: flipped(content, -8 * 1024)),
        "its payload is not what its signed manifest promises",
    ),
    "a bit in the signature": (lambda r: r.edit(r.bundle.name, lambda content: flipped(content, -16)), "RAUC does not accept it"),
    "an older bundle": (
        lambda r: r.make_bundle(edit_manifest(f"version={r.built.image.version}", "version=2025.1.0")),
        "version: expected",
    ),
    "a bundle for another board": (
        lambda r: r.make_bundle(edit_manifest("compatible=mamori-qemu-x86_64-lab", "compatible=mamori-utm-x86_64-lab")),
        "compatible: expected mamori-qemu-x86_64-lab, got mamori-utm-x86_64-lab",
    ),
    "a bundle without an index": (
        lambda r: r.make_bundle(edit_manifest("rootfs.img\nadaptive=block-hash-index\n", "rootfs.img\n")),
        "rootfs.img.block-hash-index is missing",
    ),
    "a kernel for another root": (other_boot_slot, "rootfs.img: does not verify against the root hash"),
    "the same bundle, signed a second time": (
        lambda r: r.make_bundle(lambda _: None),
        f"expected what step bundle of {BUILD_RECORD} made",
    ),
}


@pytest.mark.parametrize("mistake", IN_THE_BUNDLE)
def test_a_wrong_bundle_under_a_true_signature_is_refused(release: ReleaseCopy, mistake: str) -> None:
    change, told = IN_THE_BUNDLE[mistake]
    change(release)
    release.sign()
    said = refusal_of(release)
    assert said.startswith(f"{release.bundle.name}: ")
    assert told in said


def test_a_bundle_with_a_foreign_signature_is_refused(release: ReleaseCopy, foreign: Signer) -> None:
    release.make_bundle(lambda _: None, foreign)
    release.sign()
    assert "RAUC does not accept it under the bundle CAs of this keyset" in refusal_of(release)


IN_THE_RECORDS: dict[str, tuple[Attack, str]] = {
    "a build record of another format": (
        lambda r: r.edit_json(BUILD_RECORD, lambda table: table.update(format=2)),
        f"{BUILD_RECORD}: format: expected 1",
    ),
    "a build record without its steps": (
        lambda r: r.edit_json(BUILD_RECORD, lambda table: table.pop("steps")),
        "steps: expected an array, got nothing",
    ),
    "a build record with a word too many": (
        lambda r: r.edit_json(BUILD_RECORD, lambda table: table["image"].update(colour="red")),
        "image.colour: expected one of",
    ),
    "a build record of another version": (
        lambda r: r.edit_json(BUILD_RECORD, lambda table: table["image"].update(version="2099.1.0")),
        f"{CHECKSUMS}: mamori-lab-2099.1.0.img.bmap is missing",
    ),
    "a build record for another appliance": (
        lambda r: r.edit_json(BUILD_RECORD, lambda table: table["image"].update(compatible="mamori-utm-x86_64-release")),
        "image.compatible: expected mamori-qemu-x86_64-lab, as recipe lab has it, got mamori-utm-x86_64-release",
    ),
    "a build record of a recipe that nobody knows": (
        lambda r: r.edit_json(BUILD_RECORD, lambda table: table["image"].update(name="lap")),
        "recipe: expected one of appliance, appliance-qemu, lab, got 'lap'",
    ),
    "a build record with other certificates": (
        lambda r: r.edit_json(BUILD_RECORD, lambda table: table["certificates"]["secure boot"].update(sha256="0" * 64)),
        "certificates: expected those of keys/development/keyset.toml",
    ),
    "a build record of another commit": (
        lambda r: r.edit_json(BUILD_RECORD, lambda table: table["source"].update(commit="0" * 40)),
        "release.json: source_commit: expected 0000000000",
    ),
    "an SBOM that breaks its schema": (
        lambda r: r.edit_json(SBOM, lambda table: table.update(specVersion="1.6", components={})),
        f"{SBOM}: not valid CycloneDX 1.6",
    ),
    "the SBOM of another version": (
        lambda r: r.edit_json(SBOM, lambda table: table["metadata"]["component"].update(version="2025.1.0")),
        f"{SBOM}: expected the parts of mamori-lab",
    ),
    "one file more": (lambda r: (r.folder / "notes.txt").touch(), f"{CHECKSUMS}: notes.txt does not belong there"),
}


@pytest.mark.parametrize("mistake", IN_THE_RECORDS)
def test_a_wrong_record_under_a_true_signature_is_refused(release: ReleaseCopy, mistake: str) -> None:
    change, told = IN_THE_RECORDS[mistake]
    change(release)
    release.sign()
    assert told in refusal_of(release)


def test_development_keys_do_not_make_a_release_of_an_appliance(release: ReleaseCopy) -> None:
    """Whoever has the laboratory's keys says that this is the product."""
    said = {
        "name": "appliance",
        "board": "utm-x86_64",
        "base": "buildroot",
        "variant": "release",
        "compatible": "mamori-utm-x86_64-release",
    }
    release.edit_json(BUILD_RECORD, lambda table: table["image"].update(said))
    release.sign()
    assert "recipe appliance is to be signed with keys/release/keyset.toml, and keys/development/keyset.toml signed" in refusal_of(
        release
    )
