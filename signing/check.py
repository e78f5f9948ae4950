"""Whether a keyset can be trusted with a build: every reason why not, by name, before anything is signed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from mamori.formats.problems import BadInputError, Problem
from signing.certificates import DEVELOPMENT_ORGANIZATION, Certificate, is_development, read_certificate
from signing.keyset import BundleAuthority, Certified, Keyset, Published
from signing.private import PASSPHRASE_VARIABLE, PrivateKey, public_spki, read_private_key
from signing.uri import FileKey, KeyUri, TokenKey


def check_keyset(keyset: Keyset, *, release: bool, now: datetime, environment: Mapping[str, str] = os.environ) -> None:
    """BadInputError with everything that is wrong with the keyset's files at `now` (with a time zone).

    A release also refuses development certificates and keys, and private keys in unencrypted files. A key behind PKCS #11
    is not looked at: the tools compare it with its certificate when they sign.
    """
    problems = _Checker(keyset, release, now, environment).run()
    if problems:
        raise BadInputError(problems)


class _Checker:
    """Walks the keyset and collects problems. Certificates that cannot be read are told once and checked no further."""

    def __init__(self, keyset: Keyset, release: bool, now: datetime, environment: Mapping[str, str]) -> None:
        self.keyset = keyset
        self.release = release
        self.now = now
        self.environment = environment
        self.problems: list[Problem] = []
        self.certificates: dict[Path, Certificate] = {}

    def run(self) -> list[Problem]:
        for certified in self.keyset.certified:
            self._check_certified(certified)
        for published in self.keyset.published:
            self._check_published(published)
        for authority in self.keyset.authorities.values():
            self._check_chain(authority)
        self._check_two_authorities()
        if self.release and self.keyset.ssh:
            self._complain("ssh", "no such table: a release has no log-in for tests", "one")
        return self.problems

    def _complain(self, key: str, expected: str, got: str, hint: str = "") -> None:
        self.problems.append(Problem(str(self.keyset.path), key, expected, got, hint))

    def _check_certified(self, certified: Certified) -> None:
        spki = self._certificate_spki(f"{certified.name}.certificate", certified.certificate)
        if certified.intermediate:
            self._certificate_spki(f"{certified.name}.intermediate", certified.intermediate)
        self._check_key(f"{certified.name}.key", certified.key, spki, "certificate")

    def _certificate_spki(self, name: str, path: Path) -> bytes | None:
        """The public key of the certificate in `path`, after the checks that need nothing but the certificate."""
        try:
            certificate = read_certificate(path, str(self.keyset.path), name)
        except BadInputError as error:
            self.problems.extend(error.problems)
            return None
        self.certificates[path] = certificate
        self._check_validity(name, certificate)
        if self.release and is_development(certificate):
            self._complain(name, "a certificate for the field", f"a development certificate ({certificate.subject})")
        return public_spki(_x509(certificate).public_key())

    def _check_validity(self, name: str, certificate: Certificate) -> None:
        expected = f"a certificate that is valid on {self.now:%Y-%m-%d}"
        if self.now > certificate.not_after:
            self._complain(name, expected, f"one that expired on {certificate.not_after:%Y-%m-%d}")
        if self.now < certificate.not_before:
            got = f"one that begins on {certificate.not_before:%Y-%m-%d}"
            self._complain(name, expected, got, "is the clock of this machine right?")

    def _check_published(self, published: Published) -> None:
        name = f"{published.name}.public"
        load = load_ssh_public_key if published is self.keyset.ssh else load_pem_public_key
        try:
            content = published.public.read_bytes()
            key: PublicKeyTypes = load(content)
        except OSError as error:
            self._complain(name, "a public key file", f"{published.public}: {error.strerror}")
            return
        except (ValueError, UnsupportedAlgorithm):
            self._complain(name, "a public key", f"something else in {published.public}")
            return
        if self.release and DEVELOPMENT_ORGANIZATION.encode() in content:
            self._complain(name, "a key for the field", "a development key")
        self._check_key(f"{published.name}.key", published.key, public_spki(key), "public key")

    def _check_key(self, name: str, uri: KeyUri | None, spki: bytes | None, partner: str) -> None:
        if isinstance(uri, TokenKey):
            self._check_pin(name, uri)
        if not isinstance(uri, FileKey):
            return
        try:
            private = read_private_key(uri.path, self.environment, str(self.keyset.path), name)
        except BadInputError as error:
            self.problems.extend(error.problems)
            return
        if spki is not None and private.public_spki() != spki:
            self._complain(name, f"the private key of its {partner}", "another key")
        self._check_encrypted(name, private)

    def _check_encrypted(self, name: str, private: PrivateKey) -> None:
        if self.release and not private.encrypted:
            hint = f"`openssl pkcs8 -topk8 -v2 aes-256-cbc` encrypts it; {PASSPHRASE_VARIABLE} holds the passphrase"
            self._complain(name, "an encrypted file or a pkcs11: URI", "an unencrypted file", hint)

    def _check_pin(self, name: str, uri: TokenKey) -> None:
        if uri.pin_source is None:
            return
        try:
            pin = uri.pin_source.read_bytes()
        except OSError as error:
            self._complain(name, "a file with the PIN", f"{uri.pin_source}: {error.strerror}")
            return
        if not pin or pin != pin.strip():
            got = "an empty one" if not pin.strip() else "one with white space around it"
            self._complain(name, "a file with the PIN and nothing else", got, f"printf %s PIN > {uri.pin_source}")

    def _check_chain(self, authority: BundleAuthority) -> None:
        """The leaf signs code and was issued by its CA, through the intermediate if there is one."""
        intermediate = (authority.signer.intermediate,) if authority.signer.intermediate else ()
        chain = (authority.signer.certificate, *intermediate, authority.ca.certificate)
        if not all(path in self.certificates for path in chain):
            return
        leaf, *issuers = (_x509(self.certificates[path]) for path in chain)
        name = f"{authority.signer.name}.certificate"
        if not _signs_code(leaf):
            expected = "critical key usage digitalSignature and critical extended key usage codeSigning"
            self._complain(name, expected, "a certificate for something else", "RAUC's check-purpose=codesign demands both")
        if not all(_is_ca(issuer) for issuer in issuers):
            got = "one that may not issue others"
            self._complain(f"{authority.ca.name}.certificate", "a CA certificate, and its intermediate another", got)
        for subject, issuer in zip((leaf, *issuers), issuers, strict=False):
            if not _issued(subject, issuer):
                self._complain(name, "a certificate that its CA issued", f"one issued by {subject.issuer.rfc4514_string()}")

    def _check_two_authorities(self) -> None:
        """Two CAs with one key could not be rotated."""
        paths = [authority.ca.certificate for authority in self.keyset.authorities.values()]
        keys = [public_spki(_x509(self.certificates[path]).public_key()) for path in paths if path in self.certificates]
        if len(keys) != len(set(keys)):
            self._complain("bundle", "two CAs with different keys", "one key twice")


def _x509(certificate: Certificate) -> x509.Certificate:
    return x509.load_der_x509_certificate(certificate.der)


def _signs_code(certificate: x509.Certificate) -> bool:
    critical = {type(extension.value): extension.value for extension in certificate.extensions if extension.critical}
    usage, purposes = critical.get(x509.KeyUsage), critical.get(x509.ExtendedKeyUsage)
    return (
        isinstance(usage, x509.KeyUsage)
        and usage.digital_signature
        and isinstance(purposes, x509.ExtendedKeyUsage)
        and ExtendedKeyUsageOID.CODE_SIGNING in purposes
    )


def _is_ca(certificate: x509.Certificate) -> bool:
    return any(isinstance(extension.value, x509.BasicConstraints) and extension.value.ca for extension in certificate.extensions)


def _issued(subject: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        subject.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
