"""What an image may know of a keyset: public certificates and public keys, nothing private."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mamori.formats.problems import BadInputError, Problem
from signing.certificates import Certificate, is_development, read_certificate
from signing.keyset import Authority, Keyset, Published


@dataclass(frozen=True)
class Anchors:
    """`tuf` maps a role to its public keys (PEM, SubjectPublicKeyInfo); `ssh` is a line for authorized_keys, or empty."""

    pk: Certificate
    kek: Certificate
    db: Certificate
    bundle: tuple[Certificate, Certificate]
    tuf: Mapping[str, tuple[bytes, ...]]
    ssh: str

    @property
    def rauc_keyring(self) -> bytes:
        """Both bundle CAs in one PEM file, as RAUC's keyring and `openssl -CAfile` take it."""
        return b"".join(certificate.pem for certificate in self.bundle)

    @property
    def development(self) -> bool:
        """Whether an image with these anchors trusts any development certificate."""
        return any(is_development(certificate) for certificate in (self.pk, self.kek, self.db, *self.bundle))


def read_anchors(keyset: Keyset) -> Anchors:
    """The public half of a keyset, without any private key; BadInputError when a file is missing or no certificate."""
    problems: list[Problem] = []
    certificates: dict[str, Certificate] = {}
    ca1, ca2 = (keyset.authorities[authority].ca for authority in Authority)
    for certified in (keyset.pk, keyset.kek, keyset.db, ca1, ca2):
        try:
            name = f"{certified.name}.certificate"
            certificates[certified.name] = read_certificate(certified.certificate, str(keyset.path), name)
        except BadInputError as error:
            problems.extend(error.problems)
    tuf = {role: tuple(_public(keyset.path, key, problems) for key in keys) for role, keys in keyset.tuf.items()}
    ssh = _public(keyset.path, keyset.ssh, problems).decode("ascii", "replace").strip() if keyset.ssh else ""
    if problems:
        raise BadInputError(problems)
    pk, kek, db, *bundle = certificates.values()
    return Anchors(pk, kek, db, (bundle[0], bundle[1]), MappingProxyType(tuf), ssh)


def _public(source: Path, published: Published, problems: list[Problem]) -> bytes:
    try:
        return published.public.read_bytes()
    except OSError as error:
        got = f"{published.public}: {error.strerror}"
        problems.append(Problem(str(source), f"{published.name}.public", "a public key file", got))
        return b""
