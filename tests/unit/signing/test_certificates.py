"""Certificates as values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mamori.formats.problems import BadInputError
from signing.certificates import describe, is_development, parse_certificate, read_certificate
from signing.development import CA_LIFE


def test_a_certificate_tells_its_facts(pki_files: Mapping[str, bytes], now: datetime) -> None:
    certificate = parse_certificate(pki_files["bundle/ca1.crt"], "ca1.crt")
    assert certificate.pem == pki_files["bundle/ca1.crt"]
    assert certificate.fingerprint == hashlib.sha256(certificate.der).hexdigest()
    assert certificate.subject.startswith("CN=Mamori development bundle ca1,")
    assert certificate.issuer == certificate.subject
    assert certificate.not_before == now - timedelta(days=1)
    assert certificate.not_after == now + CA_LIFE
    assert is_development(certificate)


def test_a_description_names_who_until_when_and_which(pki_files: Mapping[str, bytes]) -> None:
    certificate = parse_certificate(pki_files["secure-boot/db.crt"], "db.crt")
    for fact in ("Secure Boot db", "2036-11-20", certificate.fingerprint[:16]):
        assert fact in describe(certificate)


def test_text_before_a_certificate_does_not_change_it(pki_files: Mapping[str, bytes]) -> None:
    pem = pki_files["secure-boot/db.crt"]
    assert parse_certificate(b"issued for tests\n" + pem, "db.crt") == parse_certificate(pem, "db.crt")


@pytest.mark.parametrize(
    "break_it",
    {
        "empty": lambda _: b"",
        "a private key's header": lambda pem: pem.replace(b"CERTIFICATE", b"PRIVATE KEY"),
        "cut short": lambda pem: pem[: len(pem) // 2],
        "not base64": lambda pem: pem.replace(b"MII", b"M!!"),
        "two of them": lambda pem: pem + pem,
        "random bytes": lambda _: bytes(range(256)),
    }.items(),
    ids=lambda case: case[0],
)
def test_what_is_not_one_certificate_is_refused(break_it: tuple[str, object], pki_files: Mapping[str, bytes]) -> None:
    with pytest.raises(BadInputError, match=r"^db\.crt: \(certificate\): expected one X\.509 certificate in PEM, got "):
        parse_certificate(break_it[1](pki_files["secure-boot/db.crt"]), "db.crt")


def test_two_certificates_in_one_file_are_counted(pki_files: Mapping[str, bytes]) -> None:
    with pytest.raises(BadInputError, match="got 2 certificates"):
        parse_certificate(pki_files["bundle/ca1.crt"] + pki_files["bundle/ca2.crt"], "ca.crt")


def test_a_missing_certificate_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"none\.crt: No such file"):
        read_certificate(tmp_path / "none.crt")
