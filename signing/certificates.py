"""X.509 certificates as plain values, for code that may not import a cryptography library."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mamori.formats.problems import BadInputError, Problem

DEVELOPMENT_ORGANIZATION = "Mamori DEVELOPMENT, never trust in the field"
"""The subject's organization of every development certificate: it is known by its content, wherever its file lies."""

MAX_CERTIFICATE_BYTES = 64 * 1024
"""A certificate has a few KiB; a larger file was named by mistake."""


@dataclass(frozen=True)
class Certificate:
    """A parsed certificate, in both encodings, with what people ask of it. Times are UTC, the fingerprint is SHA-256 in hex."""

    pem: bytes
    der: bytes
    subject: str
    issuer: str
    organization: str
    not_before: datetime
    not_after: datetime
    fingerprint: str


def parse_certificate(pem: bytes, source: str, key: str = "(certificate)") -> Certificate:
    """The one PEM certificate in `pem`; BadInputError at `source: key`. Text around it is dropped from the value."""
    expected = "one X.509 certificate in PEM"
    try:
        parsed = x509.load_pem_x509_certificates(pem)
        if len(parsed) != 1:
            raise BadInputError([Problem(source, key, expected, f"{len(parsed)} certificates")])
        (certificate,) = parsed
        certificate.extensions  # noqa: B018, parsed lazily: broken ones are to be refused here, and not where they are used
        certificate.public_key()
        organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        return Certificate(
            pem=certificate.public_bytes(Encoding.PEM),
            der=certificate.public_bytes(Encoding.DER),
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            organization=str(organizations[0].value) if organizations else "",
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            fingerprint=certificate.fingerprint(SHA256()).hex(),
        )
    except (ValueError, UnsupportedAlgorithm):
        raise BadInputError([Problem(source, key, expected, "something else")]) from None


def read_certificate(path: Path, source: str | None = None, key: str = "(certificate)") -> Certificate:
    """The certificate in a PEM file; BadInputError when there is no such file or it holds no certificate."""
    source = source or str(path)
    try:
        with path.open("rb") as file:
            return parse_certificate(file.read(MAX_CERTIFICATE_BYTES), source, key)
    except OSError as error:
        raise BadInputError([Problem(source, key, "a certificate file", f"{path}: {error.strerror}")]) from None


def is_development(certificate: Certificate) -> bool:
    """Whether the certificate says of itself that nobody may trust it in the field."""
    return certificate.organization == DEVELOPMENT_ORGANIZATION


def describe(certificate: Certificate) -> str:
    """One line for people: who, until when, which."""
    return f"{certificate.subject}, valid until {certificate.not_after:%Y-%m-%d}, SHA-256 {certificate.fingerprint[:16]}…"
