"""Keys in a real PKCS #11 token: the real tools sign with them, the public half verifies, and a wrong key is refused.

SoftHSM stands in for the HSM; module, PIN file and token reach the tools exactly as a release engineer's would, through
the keyset file. Every test also runs with the same keys in files, so that the two kinds are shown to do the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from mamori.formats.problems import MamoriError
from signing.anchors import read_anchors
from signing.check import check_keyset
from signing.commands import (
    RaucVerb,
    ToolCommand,
    plan_cms_signature,
    plan_cms_verification,
    plan_rauc,
    plan_secure_boot_signature,
    plan_secure_boot_verification,
)
from signing.development import init_development
from signing.keyset import Keyset, read_keyset
from signing.unlocked import start_unlocked
from signing.uri import FileKey

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
SIGNED_AT_S = 1_700_000_000
PIN = "271828"


class Tools(Protocol):
    """The tools tree, from tests/conftest.py."""

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str] = ..., reads: Sequence[Path] = ..., writes: Sequence[Path] = ...
    ) -> str: ...


def execute(tools: Tools, command: ToolCommand) -> str:
    return tools.run(command.argv, env=command.env, reads=command.reads, writes=command.writes)


@pytest.fixture(scope="module")
def in_files(tmp_path_factory: pytest.TempPathFactory) -> Keyset:
    """A development PKI in a folder whose name needs escaping."""
    return read_keyset(init_development(tmp_path_factory.mktemp("pki") / "with a space & more", datetime.now(UTC)))


@pytest.fixture(scope="module")
def in_token(tools: Tools, in_files: Keyset, tmp_path_factory: pytest.TempPathFactory) -> Keyset:
    """The same certificates, with db and the bundle signer imported into a token: their files are not in this folder at all."""
    folder = tmp_path_factory.mktemp("hsm") / "with a space & more"
    (folder / "tokens").mkdir(parents=True)
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    (folder / "pin").write_text(PIN)
    origin = in_files.path.parent
    hsm = {"env": {"SOFTHSM2_CONF": str(config)}, "reads": (config, origin), "writes": (folder / "tokens",)}
    token = ("--token", "lab; token", "--pin", PIN)
    tools.run(["softhsm2-util", "--init-token", "--free", "--label", "lab; token", "--pin", PIN, "--so-pin", PIN], **hsm)
    for number, (name, label) in enumerate({"secure-boot/db": "db", "bundle/ca1-signer": "bundle signer"}.items(), start=1):
        source = str(origin / f"{name}.key")
        tools.run(["softhsm2-util", "--import", source, *token, "--label", label, "--id", f"0{number}"], **hsm)
    _generate(tools, "generated", hsm)
    uri = f"pkcs11:token=lab%3B%20token;%s?module-path={MODULE}&pin-source=file:pin"
    toml = in_files.path.read_text()
    toml = toml.replace('"file:secure-boot/db.key"', f'"{uri.replace("%s", "object=db")}"')
    toml = toml.replace('"file:bundle/ca1-signer.key"', f'"{uri.replace("%s", "id=%02")}"')
    kept = [line.replace('"file:', f'"file:{origin}/').replace('= "bundle', f'= "{origin}/bundle') for line in toml.splitlines()]
    kept = [line.replace('= "secure', f'= "{origin}/secure').replace('= "tuf', f'= "{origin}/tuf') for line in kept]
    kept = [line.replace('= "ssh', f'= "{origin}/ssh') for line in kept]
    surroundings = f'[hsm]\nenvironment = {{ SOFTHSM2_CONF = "{config}" }}\nreads = ["softhsm2.conf"]\nwrites = ["tokens"]\n'
    (folder / "keyset.toml").write_text("\n".join([*kept, surroundings]))
    keyset = read_keyset(folder / "keyset.toml")
    check_keyset(keyset, release=False, now=datetime.now(UTC), environment={})
    return keyset


def _generate(tools: Tools, label: str, hsm: Mapping[str, object]) -> None:
    """A key that the token made itself: nobody ever had it in a file, and no certificate of ours belongs to it."""
    argv = ["pkcs11-tool", "--module", MODULE, "--token-label", "lab; token", "--login", "--pin", PIN]
    tools.run([*argv, "--keypairgen", "--key-type", "rsa:2048", "--label", label, "--id", "0f"], **hsm)


@pytest.fixture(params=["keys in files", "keys in a token"])
def keyset(request: pytest.FixtureRequest, in_files: Keyset, in_token: Keyset) -> Keyset:
    return in_files if request.param == "keys in files" else in_token


@pytest.fixture
def keyring(keyset: Keyset, tmp_path: Path) -> Path:
    path = tmp_path / "keyring.pem"
    path.write_bytes(read_anchors(keyset).rauc_keyring)
    return path


@pytest.fixture
def stub(tools: Tools, tmp_path: Path) -> Path:
    """systemd's UEFI stub, out of the tools tree: a real PE file of the kind that gets signed."""
    folder = tmp_path / "pe"
    folder.mkdir()
    tools.run(["cp", str(STUB), str(folder / "stub.efi")], writes=(folder,))
    return folder / "stub.efi"


def sign_pe(tools: Tools, keyset: Keyset, image: Path, folder: Path) -> Path:
    folder.mkdir()
    execute(tools, plan_secure_boot_signature(keyset, image, folder / "signed.efi", SIGNED_AT_S))
    return folder / "signed.efi"


def test_a_pe_file_is_signed_and_verifies_with_the_public_certificate_only(
    tools: Tools, keyset: Keyset, stub: Path, tmp_path: Path
) -> None:
    signed = sign_pe(tools, keyset, stub, tmp_path / "out")
    assert "Signature verification OK" in execute(tools, plan_secure_boot_verification(keyset.db.certificate, signed))
    with pytest.raises(MamoriError, match="Signature verification failed"):
        execute(tools, plan_secure_boot_verification(keyset.kek.certificate, signed))
    with pytest.raises(MamoriError, match="No signature table present"):
        execute(tools, plan_secure_boot_verification(keyset.db.certificate, stub))


def test_encrypted_key_files_sign_while_they_are_unlocked(tools: Tools, in_files: Keyset, stub: Path, tmp_path: Path) -> None:
    plain, encrypted = in_files.path.parent / "secure-boot" / "db.key", tmp_path / "keys" / "db.key"
    encrypted.parent.mkdir()
    argv = ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "env:P", "-in", str(plain), "-out", str(encrypted)]
    tools.run(argv, env={"P": "correct horse"}, reads=(plain,), writes=(encrypted.parent,))
    locked = dataclasses.replace(in_files, db=dataclasses.replace(in_files.db, key=FileKey(encrypted)))
    with start_unlocked(locked, {"MAMORI_KEY_PASSPHRASE": "correct horse"}) as unlocked:
        signed = sign_pe(tools, unlocked, stub, tmp_path / "out")
    assert signed.read_bytes() == sign_pe(tools, in_files, stub, tmp_path / "plain").read_bytes()
    with pytest.raises(MamoriError, match="Failed to read key or certificates"):
        sign_pe(tools, locked, stub, tmp_path / "locked")


def test_one_flipped_bit_in_a_signed_pe_file_is_refused(tools: Tools, keyset: Keyset, stub: Path, tmp_path: Path) -> None:
    signed = sign_pe(tools, keyset, stub, tmp_path / "out")
    content = bytearray(signed.read_bytes())
    content[len(content) // 2] ^= 1
    signed.write_bytes(content)
    with pytest.raises(MamoriError, match=r"Signature verification failed|Hash doesn't match"):
        execute(tools, plan_secure_boot_verification(keyset.db.certificate, signed))


def test_file_and_token_give_the_same_pe_signature_at_any_time(
    tools: Tools, in_files: Keyset, in_token: Keyset, stub: Path, tmp_path: Path
) -> None:
    signed = [sign_pe(tools, keys, stub, tmp_path / str(turn)) for turn, keys in enumerate([in_files, in_token, in_files])]
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in signed}) == 1
    later = plan_secure_boot_signature(in_files, stub, tmp_path / "0" / "later.efi", SIGNED_AT_S + 1)
    execute(tools, later)
    assert (tmp_path / "0" / "later.efi").read_bytes() != signed[0].read_bytes()


def test_a_file_is_signed_and_verifies_with_the_ca_only(tools: Tools, keyset: Keyset, keyring: Path, tmp_path: Path) -> None:
    file, signature = tmp_path / "SHA256SUMS", tmp_path / "out" / "SHA256SUMS.p7s"
    signature.parent.mkdir()
    file.write_bytes(b"0000  a\r\n\n0001  b")
    execute(tools, plan_cms_signature(keyset, file, signature))
    execute(tools, plan_cms_verification(file, signature, keyring))
    with pytest.raises(MamoriError, match="verif"):
        execute(tools, plan_cms_verification(file, signature, keyset.db.certificate))
    file.write_bytes(b"0000  a\n\n0001  b")
    with pytest.raises(MamoriError, match="verif"):
        execute(tools, plan_cms_verification(file, signature, keyring))


def test_a_signature_is_judged_at_the_moment_that_is_asked_for(tools: Tools, keyset: Keyset, keyring: Path, tmp_path: Path) -> None:
    file, signature, now = tmp_path / "file", tmp_path / "out" / "file.p7s", datetime.now(UTC)
    signature.parent.mkdir()
    file.write_bytes(b"content")
    execute(tools, plan_cms_signature(keyset, file, signature))
    execute(tools, plan_cms_verification(file, signature, keyring, now + timedelta(days=1000)))
    with pytest.raises(MamoriError, match="expired"):
        execute(tools, plan_cms_verification(file, signature, keyring, now + timedelta(days=1200)))
    with pytest.raises(MamoriError, match="not yet valid"):
        execute(tools, plan_cms_verification(file, signature, keyring, datetime(1970, 1, 2, tzinfo=UTC)))


def test_a_signature_by_a_certificate_that_is_not_for_code_is_refused(tools: Tools, in_files: Keyset, tmp_path: Path) -> None:
    """The CA's own key may issue certificates, but a bundle or a list of checksums that it signs directly is not to be trusted."""
    ca = in_files.path.parent / "bundle" / "ca1"
    file, signature = tmp_path / "file", tmp_path / "out" / "file.p7s"
    signature.parent.mkdir()
    file.write_bytes(b"content")
    argv = ["openssl", "cms", "-sign", "-binary", "-outform", "DER", "-signer", f"{ca}.crt", "-inkey", f"{ca}.key"]
    tools.run([*argv, "-in", str(file), "-out", str(signature)], reads=(file, ca.parent), writes=(signature.parent,))
    with pytest.raises(MamoriError, match="unsuitable certificate purpose"):
        execute(tools, plan_cms_verification(file, signature, ca.with_suffix(".crt")))


def content_of_a_bundle(folder: Path) -> Path:
    folder.mkdir()
    # Too random to be compressed: rauc refuses a bundle of less than two blocks.
    (folder / "root.img").write_bytes(hashlib.shake_256(b"root").digest(100_000))
    (folder / "manifest.raucm").write_text(
        "[update]\ncompatible=mamori-test\nversion=2026.11.0\n[bundle]\nformat=verity\n[image.rootfs]\nfilename=root.img\n"
    )
    return folder


def rauc_info(tools: Tools, bundle: Path, keyring: Path, purpose: str = "codesign") -> str:
    """What the appliance would say. rauc 1.13 heeds a purpose only when it has a configuration file."""
    system = bundle.with_name(f"{bundle.stem}-{keyring.stem}-{purpose}.conf")
    system.write_text(f"[system]\ncompatible=mamori-test\nbootloader=noop\n[keyring]\npath={keyring}\ncheck-purpose={purpose}\n")
    return tools.run(["rauc", "info", f"--conf={system}", str(bundle)], reads=(bundle, keyring, system))


@pytest.mark.parametrize("purpose", ["codesign", "codesign-rauc"])
def test_a_bundle_verifies_with_the_public_ca_as_code(
    tools: Tools, keyset: Keyset, keyring: Path, tmp_path: Path, purpose: str
) -> None:
    bundle = tmp_path / "out" / "update.raucb"
    bundle.parent.mkdir()
    execute(tools, plan_rauc(keyset, RaucVerb.BUNDLE, content_of_a_bundle(tmp_path / "content"), bundle))
    info = rauc_info(tools, bundle, keyring, purpose)
    assert "2026.11.0" in info
    assert "Mamori development bundle ca1 signer" in info
    with pytest.raises(MamoriError, match="signature verification failed"):
        rauc_info(tools, bundle, keyset.db.certificate)


def test_a_bundle_is_signed_again_by_the_other_ca(
    tools: Tools, keyset: Keyset, in_files: Keyset, keyring: Path, tmp_path: Path
) -> None:
    """A rotation: CA 2 signed, CA 1 (in a file or in the token) signs the same payload anew, and either alone is enough."""
    second = tmp_path / "ca2.pem"
    second.write_bytes(read_anchors(in_files).bundle[1].pem)
    first = tmp_path / "ca1.pem"
    first.write_bytes(read_anchors(in_files).bundle[0].pem)
    turned = tmp_path / "turned.toml"
    turned.write_text(_absolute(in_files).replace('signs_with = "ca1"', 'signs_with = "ca2"'))
    old, new = tmp_path / "out" / "old.raucb", tmp_path / "out" / "new.raucb"
    old.parent.mkdir()
    execute(tools, plan_rauc(read_keyset(turned), RaucVerb.BUNDLE, content_of_a_bundle(tmp_path / "content"), old))
    assert "2026.11.0" in rauc_info(tools, old, second)
    execute(tools, plan_rauc(keyset, RaucVerb.RESIGN, old, new, ["--no-verify"]))
    assert "2026.11.0" in rauc_info(tools, new, first)
    assert "2026.11.0" in rauc_info(tools, new, keyring)
    for bundle, wrong in ((old, first), (new, second)):
        with pytest.raises(MamoriError, match="signature verification failed"):
            rauc_info(tools, bundle, wrong)


def _absolute(keyset: Keyset) -> str:
    folder = keyset.path.parent
    text = keyset.path.read_text().replace('"file:', f'"file:{folder}/')
    for name in ("bundle", "secure-boot", "tuf", "ssh"):
        text = text.replace(f'= "{name}/', f'= "{folder}/{name}/')
    return text


@pytest.mark.parametrize(
    ("key", "told"),
    [
        pytest.param("object=generated", "key values mismatch", id="a key in the token that does not belong to the certificate"),
        pytest.param("object=nobody", "object not found", id="a key that the token does not have"),
    ],
)
def test_signing_with_a_wrong_key_fails(tools: Tools, in_token: Keyset, stub: Path, tmp_path: Path, key: str, told: str) -> None:
    toml = in_token.path.read_text()
    wrong = in_token.path.with_name(f"{tmp_path.name}.toml")
    wrong.write_text(toml.replace("object=db", key).replace("id=%02", key))
    keyset = read_keyset(wrong)
    file, out = tmp_path / "file", tmp_path / "out"
    out.mkdir()
    file.write_bytes(b"content")
    for plan in (
        plan_secure_boot_signature(keyset, stub, out / "signed.efi", SIGNED_AT_S),
        plan_cms_signature(keyset, file, out / "file.p7s"),
        plan_rauc(keyset, RaucVerb.BUNDLE, content_of_a_bundle(tmp_path / "content"), out / "update.raucb"),
    ):
        with pytest.raises(MamoriError, match=told):
            execute(tools, plan)
    assert not (out / "file.p7s").exists() or not (out / "file.p7s").read_bytes()
    assert not (out / "signed.efi").exists()
    assert not (out / "update.raucb").exists()


def test_a_wrong_pin_opens_nothing(tools: Tools, in_token: Keyset, stub: Path, tmp_path: Path) -> None:
    wrong = in_token.path.with_name("wrong-pin.toml")
    wrong.write_text(in_token.path.read_text().replace("file:pin", "file:wrong-pin"))
    wrong.with_name("wrong-pin").write_text("314159")
    with pytest.raises(MamoriError, match="PIN incorrect"):
        sign_pe(tools, read_keyset(wrong), stub, tmp_path / "out")
    sign_pe(tools, in_token, stub, tmp_path / "again")
