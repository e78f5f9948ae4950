"""The development PKI: everything that a laboratory image needs to be signed and trusted, and nothing that the field may.

Three separate trees, as for a release: Secure Boot (PK, KEK, db), bundles (two CAs from the first day, so that one can be
rotated), TUF roles; and an SSH key for the tests to log in with.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mamori.formats.problems import MamoriError
from signing.certificates import DEVELOPMENT_ORGANIZATION

KEYSET_NAME = "keyset.toml"

SECURE_BOOT_KEY_BITS = 2048
"""What every UEFI firmware verifies; larger RSA keys and elliptic curves are refused by some."""

BUNDLE_KEY_BITS = 3072
"""Until after 2030 (NIST SP 800-57 part 1, table 4); RSA rather than a curve, because every HSM has it."""

BACKDATED = timedelta(days=1)
"""A test machine's clock may run behind the one that made the keys."""

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=1095)

TUF_KEYS: Mapping[str, int] = {"root": 3, "firmware": 2, "feeds": 1, "snapshot": 1, "timestamp": 1}
"""How many keys each role has: root and firmware are signed by a threshold of people."""


def init_development(folder: Path, now: datetime) -> Path:
    """Make a development PKI in `folder`, which must not exist; `now` has a time zone. Returns the path of its keyset file.

    A power cut leaves either the whole folder or none; a hidden, partial sibling may stay behind and holds no keyset.
    """
    if os.path.lexists(folder):
        raise MamoriError(f"{folder}: there are keys already", "keys are never overwritten; move the folder away to start anew")
    write_folder(folder, make_development(now))
    return folder / KEYSET_NAME


def make_development(now: datetime) -> dict[str, bytes]:
    """The files of a new development PKI: contents by relative path, the keyset last."""
    now = now.astimezone(UTC).replace(microsecond=0)
    files = {**_secure_boot(now), **_bundle_authority("ca1", now), **_bundle_authority("ca2", now)}
    for role, count in TUF_KEYS.items():
        for number in range(1, count + 1):
            files.update(_tuf_key(f"tuf/{role}-{number}"))
    files.update(_ssh_key("ssh/lab"))
    files[KEYSET_NAME] = _keyset_toml().encode()
    return files


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a private folder durably and at once: a hidden sibling first, then a rename."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".partial", dir=folder.parent))
    except OSError as error:
        raise MamoriError(f"{folder}: cannot be made: {error.strerror}") from None
    try:
        for name, content in files.items():
            _write_private(partial / name, content)
        for inner in (*(path for path in partial.rglob("*") if path.is_dir()), partial):
            _sync(inner)
        partial.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        raise MamoriError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _secure_boot(now: datetime) -> dict[str, bytes]:
    """PK, KEK and db, each self-signed: firmware takes them as roots, and looks at neither validity nor usage."""
    files = {}
    for name in ("pk", "kek", "db"):
        key = _rsa(SECURE_BOOT_KEY_BITS)
        subject = _subject(f"Secure Boot {name if name == 'db' else name.upper()}")
        builder = _builder(subject, key.public_key(), now, CA_LIFE)
        certificate = _signing_leaf(builder).issuer_name(subject).sign(key, SHA256())
        files.update(_certified(f"secure-boot/{name}", key, certificate))
    return files


def _bundle_authority(name: str, now: datetime) -> dict[str, bytes]:
    """A bundle CA and its code-signing leaf, as RAUC's `check-purpose=codesign` and the CA/Browser Forum's profile demand."""
    ca_key, leaf_key = _rsa(BUNDLE_KEY_BITS), _rsa(BUNDLE_KEY_BITS)
    ca_subject = _subject(f"bundle {name}")
    ca = (
        _builder(ca_subject, ca_key.public_key(), now, CA_LIFE)
        .issuer_name(ca_subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(ca_key, SHA256())
    )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    leaf = (
        _signing_leaf(_builder(_subject(f"bundle {name} signer"), leaf_key.public_key(), now, LEAF_LIFE))
        .issuer_name(ca_subject)
        .add_extension(issuer, critical=False)
        .sign(ca_key, SHA256())
    )
    return {**_certified(f"bundle/{name}", ca_key, ca), **_certified(f"bundle/{name}-signer", leaf_key, leaf)}


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, DEVELOPMENT_ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Mamori development {name}"),
        ]
    )


def _rsa(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def _builder(subject: x509.Name, key: rsa.RSAPublicKey, now: datetime, life: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signing_leaf(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    """OpenSSL's purpose `codesign` wants exactly this: both usages, and the key usage critical."""
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=True)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _certified(name: str, key: rsa.RSAPrivateKey, certificate: x509.Certificate) -> dict[str, bytes]:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {f"{name}.key": private, f"{name}.crt": certificate.public_bytes(Encoding.PEM)}


def _tuf_key(name: str) -> dict[str, bytes]:
    """An ed25519 pair as securesystemslib's CryptoSigner reads it. The marker before the PEM is legal text (RFC 7468, 5.2)."""
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        f"{name}.key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        f"{name}.pub": f"{DEVELOPMENT_ORGANIZATION}\n".encode() + public,
    }


def _ssh_key(name: str) -> dict[str, bytes]:
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return {
        f"{name}.key": key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        f"{name}.pub": public + f" {DEVELOPMENT_ORGANIZATION}\n".encode(),
    }


def _keyset_toml() -> str:
    return "\n".join(_keyset_lines()) + "\n"


def _keyset_lines() -> Iterator[str]:
    yield f"# {DEVELOPMENT_ORGANIZATION}. Made by `./inv keys init`; signing/README.md explains every key."
    for name in ("pk", "kek", "db"):
        yield from _certified_lines(f"secure_boot.{name}", f"secure-boot/{name}")
    yield from ("", "[bundle]", 'signs_with = "ca1"')
    for name in ("ca1", "ca2"):
        yield from _certified_lines(f"bundle.{name}.ca", f"bundle/{name}")
        yield from _certified_lines(f"bundle.{name}.signer", f"bundle/{name}-signer")
    for role, count in TUF_KEYS.items():
        for number in range(1, count + 1):
            yield from _public_lines(f"[[tuf.{role}]]", f"tuf/{role}-{number}")
    yield from _public_lines("[ssh]", "ssh/lab")


def _certified_lines(table: str, name: str) -> Iterator[str]:
    yield from ("", f"[{table}]", f'certificate = "{name}.crt"', f'key = "file:{name}.key"')


def _public_lines(table: str, name: str) -> Iterator[str]:
    yield from ("", table, f'public = "{name}.pub"', f'key = "file:{name}.key"')
