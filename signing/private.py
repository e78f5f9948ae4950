"""Private keys in files: read with or without a passphrase, and never kept longer than a question about them takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from mamori.formats.problems import BadInputError, Problem

PASSPHRASE_VARIABLE = "MAMORI_KEY_PASSPHRASE"  # noqa: S105, the name of a variable, not a passphrase
"""The environment variable with the passphrase of every encrypted key file of a keyset."""

_SSH_HEADER = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_MAX_KEY_BYTES = 64 * 1024


@dataclass(frozen=True)
class PrivateKey:
    """A private key that was read from a file, and whether that file was encrypted."""

    key: PrivateKeyTypes
    encrypted: bool

    def public_spki(self) -> bytes:
        """The public half as DER SubjectPublicKeyInfo: equal bytes, equal keys."""
        return public_spki(self.key.public_key())

    def plain_pem(self) -> bytes:
        """The private key as unencrypted PKCS #8 PEM."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_private_key(path: Path, environment: Mapping[str, str], source: str, key: str) -> PrivateKey:
    """The key in a PEM or OpenSSH file. BadInputError at `source: key` says what is missing: file, passphrase, or sense."""

    def bad(expected: str, got: str, hint: str = "") -> BadInputError:
        return BadInputError([Problem(source, key, expected, got, hint)])

    try:
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise bad("a private key file", f"{path}: {error.strerror}") from None
    load = load_ssh_private_key if _SSH_HEADER in content else load_pem_private_key
    try:
        return PrivateKey(load(content, None), encrypted=False)
    except TypeError:  # the libraries' way to say that a passphrase is needed
        passphrase = environment.get(PASSPHRASE_VARIABLE, "")
    except (ValueError, UnsupportedAlgorithm):
        raise bad("a private key in PEM", f"something else in {path}") from None
    if not passphrase:
        raise bad("its passphrase", f"nothing in {PASSPHRASE_VARIABLE}", f"{path} is encrypted")
    try:
        return PrivateKey(load(content, passphrase.encode()), encrypted=True)
    except ValueError:
        raise bad("its passphrase", f"a wrong one in {PASSPHRASE_VARIABLE}", f"{path} does not decrypt with it") from None
