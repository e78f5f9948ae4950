"""Every way in which a keyset cannot be trusted is refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mamori.formats.problems import BadInputError
from signing.check import check_keyset
from signing.keyset import read_keyset

CODE_SIGNING = ExtendedKeyUsageOID.CODE_SIGNING


def problems(keys: Path, now: datetime, *, release: bool = False, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What check_keyset says of a folder of keys, by key of the keyset file."""
    keyset = read_keyset(keys / "keyset.toml")
    told: dict[str, str] = {}
    try:
        check_keyset(keyset, release=release, now=now, environment=environment or {})
    except BadInputError as error:
        for problem in error.problems:
            told[problem.key] = told.get(problem.key, "") + f"{problem}\n"
    assert all(text.startswith(f"{keyset.path}: ") for text in told.values())
    return told


def swap(first: str, second: str) -> Callable[[Path], object]:
    return lambda keys: shutil.copy(keys / second, keys / first)


def remove(name: str) -> Callable[[Path], object]:
    return lambda keys: (keys / name).unlink()


def fill(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda keys: (keys / name).write_bytes(content)


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a key file is missing": (remove("secure-boot/db.key"), "secure_boot.db.key", "db.key: No such file"),
    "a key file is a folder": (
        lambda keys: (remove("secure-boot/db.key")(keys), (keys / "secure-boot/db.key").mkdir()),
        "secure_boot.db.key",
        "Is a directory",
    ),
    "a key file holds something else": (fill("tuf/feeds-1.key", b"hello"), "tuf.feeds[0].key", "something else"),
    "a certificate is missing": (remove("bundle/ca2.crt"), "bundle.ca2.ca.certificate", "ca2.crt: No such file"),
    "a certificate cannot be parsed": (fill("secure-boot/kek.crt", b"\xff"), "secure_boot.kek.certificate", "got something else"),
    "a key does not match its certificate": (
        swap("secure-boot/db.key", "secure-boot/kek.key"),
        "secure_boot.db.key",
        "expected the private key of its certificate, got another key",
    ),
    "a TUF key does not match its public key": (swap("tuf/root-2.key", "tuf/root-1.key"), "tuf.root[1].key", "of its public key"),
    "a public key is missing": (remove("tuf/timestamp-1.pub"), "tuf.timestamp[0].public", "No such file"),
    "a public key cannot be parsed": (fill("tuf/timestamp-1.pub", b"hello"), "tuf.timestamp[0].public", "something else"),
    "the SSH key is in the wrong format": (swap("ssh/lab.pub", "tuf/root-1.pub"), "ssh.public", "something else"),
    "a signer comes from the other CA": (
        lambda keys: (
            swap("bundle/ca1-signer.crt", "bundle/ca2-signer.crt")(keys),
            swap("bundle/ca1-signer.key", "bundle/ca2-signer.key")(keys),
        ),
        "bundle.ca1.signer.certificate",
        "expected a certificate that its CA issued, got one issued by CN=Mamori development bundle ca2",
    ),
    "both CAs are one": (
        lambda keys: [swap(f"bundle/ca2{end}", f"bundle/ca1{end}")(keys) for end in (".crt", ".key", "-signer.crt", "-signer.key")],
        "bundle",
        "expected two CAs with different keys, got one key twice",
    ),
}


@pytest.mark.parametrize(("break_it", "key", "told"), BROKEN.values(), ids=BROKEN)
def test_a_broken_keyset_is_refused_by_name(
    keys: Path, now: datetime, break_it: Callable[[Path], object], key: str, told: str
) -> None:
    break_it(keys)
    found = problems(keys, now)
    assert list(found) == [key]
    assert told in found[key]


def test_certificates_are_good_from_a_day_before_they_were_made(keys: Path, now: datetime) -> None:
    assert problems(keys, now - timedelta(days=1)) == {}
    too_early = problems(keys, now - timedelta(days=1, seconds=1))
    assert len(too_early) == 7
    told = "got one that begins on 2026-11-22\n    hint: is the clock of this machine right?"
    assert told in too_early["secure_boot.pk.certificate"]


def test_leaves_expire_after_three_years_and_cas_after_ten(keys: Path, now: datetime) -> None:
    assert problems(keys, now + timedelta(days=1095)) == {}
    leaves = problems(keys, now + timedelta(days=1095, seconds=1))
    assert sorted(leaves) == ["bundle.ca1.signer.certificate", "bundle.ca2.signer.certificate"]
    assert "expected a certificate that is valid on 2029-11-22, got one that expired on 2029-11-22" in leaves[sorted(leaves)[0]]
    assert len(problems(keys, now + timedelta(days=3651))) == 7


def test_everything_that_is_wrong_is_told_at_once(keys: Path, now: datetime) -> None:
    remove("secure-boot/db.key")(keys)
    remove("bundle/ca1.crt")(keys)
    fill("tuf/root-3.pub", b"")(keys)
    assert sorted(problems(keys, now)) == ["bundle.ca1.ca.certificate", "secure_boot.db.key", "tuf.root[2].public"]


def test_a_release_refuses_development_certificates_and_open_files_by_name(keys: Path, now: datetime) -> None:
    found = problems(keys, now, release=True)
    assert "got a development certificate (CN=Mamori development Secure Boot PK" in found["secure_boot.pk.certificate"]
    assert "got a development key" in found["tuf.firmware[1].public"]
    assert "expected an encrypted file or a pkcs11: URI, got an unencrypted file" in found["bundle.ca1.signer.key"]
    assert "a release has no log-in for tests" in found["ssh"]
    assert len([key for key in found if key.endswith(".certificate")]) == 7
    assert len([key for key in found if key.endswith(".public")]) == 9
    assert len([key for key in found if key.endswith(".key")]) == 16


def test_a_release_accepts_field_certificates_with_encrypted_keys(keys: Path, now: datetime) -> None:
    as_field_keys(keys, now, b"correct horse")
    assert problems(keys, now, release=True, environment={"MAMORI_KEY_PASSPHRASE": "correct horse"}) == {}


def test_moving_development_certificates_elsewhere_does_not_hide_them(keys: Path, now: datetime) -> None:
    field = keys.with_name("field")
    keys.rename(field)
    assert "development certificate" in problems(field, now, release=True)["secure_boot.db.certificate"]


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        pytest.param({}, "expected its passphrase, got nothing in MAMORI_KEY_PASSPHRASE", id="no passphrase"),
        pytest.param({"MAMORI_KEY_PASSPHRASE": ""}, "got nothing in MAMORI_KEY_PASSPHRASE", id="an empty passphrase"),
        pytest.param({"MAMORI_KEY_PASSPHRASE": "battery"}, "got a wrong one in MAMORI_KEY_PASSPHRASE", id="a wrong passphrase"),
    ],
)
def test_an_encrypted_key_without_its_passphrase_is_refused(
    keys: Path, now: datetime, environment: Mapping[str, str], told: str
) -> None:
    encrypt(keys / "secure-boot/db.key", b"correct horse")
    found = problems(keys, now, environment=environment)
    assert list(found) == ["secure_boot.db.key"]
    assert told in found["secure_boot.db.key"]
    assert "battery" not in found["secure_boot.db.key"]


@pytest.mark.parametrize(
    ("pin", "told"),
    [
        pytest.param(None, "pin: No such file", id="missing"),
        pytest.param(b"", "an empty one", id="empty"),
        pytest.param(b"1234\n", "white space around it", id="with a newline, which the token would count as a wrong PIN"),
        pytest.param(b"1234", "", id="the PIN alone"),
    ],
)
def test_the_file_with_an_hsm_pin_is_checked_before_the_hsm_counts_a_failure(
    keys: Path, now: datetime, pin: bytes | None, told: str
) -> None:
    toml = keys / "keyset.toml"
    uri = "pkcs11:token=lab;object=db?module-path=/usr/lib/hsm.so&pin-source=file:pin"
    toml.write_text(toml.read_text().replace("file:secure-boot/db.key", uri))
    if pin is not None:
        (keys / "pin").write_bytes(pin)
    found = problems(keys, now)
    assert list(found) == (["secure_boot.db.key"] if told else [])
    assert told in found.get("secure_boot.db.key", "")


def test_an_intermediate_ca_may_stand_between_leaf_and_root(keys: Path, now: datetime) -> None:
    chain_with_intermediate(keys, now)
    assert problems(keys, now) == {}


def test_an_intermediate_that_may_not_issue_certificates_is_refused(keys: Path, now: datetime) -> None:
    chain_with_intermediate(keys, now, intermediate_is_ca=False)
    assert "one that may not issue others" in problems(keys, now)["bundle.ca1.ca.certificate"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"purpose": None}, id="no extended key usage"),
        pytest.param({"purpose": ExtendedKeyUsageOID.SERVER_AUTH}, id="a web server's"),
        pytest.param({"purpose_critical": False}, id="extended key usage not critical"),
        pytest.param({"usage": False}, id="no key usage"),
        pytest.param({"ca": True}, id="key usage of a CA"),
    ],
)
def test_a_signer_whose_certificate_is_not_for_code_is_refused(keys: Path, now: datetime, changes: dict[str, object]) -> None:
    issuer = load_pem_private_key((keys / "bundle/ca1.key").read_bytes(), None)
    issue(keys, "bundle/ca1-signer", now, issued_by=("bundle/ca1", issuer), **{"purpose": CODE_SIGNING, **changes})
    found = problems(keys, now)
    assert list(found) == ["bundle.ca1.signer.certificate"]
    assert "a certificate for something else" in found["bundle.ca1.signer.certificate"]


def encrypt(path: Path, passphrase: bytes) -> None:
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase)))


def issue(
    keys: Path,
    name: str,
    now: datetime,
    *,
    issued_by: tuple[str, rsa.RSAPrivateKey],
    ca: bool = False,
    purpose: x509.ObjectIdentifier | None = None,
    purpose_critical: bool = True,
    usage: bool = True,
    organization: str = "Example KK",
) -> None:
    """Write a certificate for the key in `name`.key; `issued_by` is the issuer's name and key (its own for a self-signed one)."""
    key = load_pem_private_key((keys / f"{name}.key").read_bytes(), None)

    def subject(common: str) -> x509.Name:
        parts = ((NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, common))
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])

    issuer = issued_by[0]
    if issuer != name and (keys / f"{issuer}.crt").exists():
        issuer_name = x509.load_pem_x509_certificate((keys / f"{issuer}.crt").read_bytes()).subject
    else:
        issuer_name = subject(issuer)
    builder = (
        x509.CertificateBuilder(issuer_name, subject(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage:
        flags = (not ca, False, False, False, False, ca, ca, False, False)
        builder = builder.add_extension(x509.KeyUsage(*flags), critical=True)
    if purpose:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=purpose_critical)
    (keys / f"{name}.crt").write_bytes(builder.sign(issued_by[1], SHA256()).public_bytes(Encoding.PEM))


def as_field_keys(keys: Path, now: datetime, passphrase: bytes) -> None:
    """Turn development keys into what a release may use: no marker anywhere, no key in the clear, no SSH."""
    for name in ("secure-boot/pk", "secure-boot/kek", "secure-boot/db", "bundle/ca1", "bundle/ca2"):
        own = load_pem_private_key((keys / f"{name}.key").read_bytes(), None)
        issue(keys, name, now, issued_by=(name, own), ca=name.startswith("bundle"))
    for name in ("bundle/ca1", "bundle/ca2"):
        issuer = load_pem_private_key((keys / f"{name}.key").read_bytes(), None)
        issue(keys, f"{name}-signer", now, issued_by=(name, issuer), purpose=CODE_SIGNING)
    for path in keys.rglob("*.pub"):
        path.write_text(path.read_text().partition("\n")[2])
    toml = keys / "keyset.toml"
    toml.write_text(toml.read_text().partition("[ssh]")[0])
    shutil.rmtree(keys / "ssh")
    for path in keys.rglob("*.key"):
        encrypt(path, passphrase)


def chain_with_intermediate(keys: Path, now: datetime, *, intermediate_is_ca: bool = True) -> None:
    shutil.copy(keys / "secure-boot/kek.key", keys / "bundle/between.key")
    root = load_pem_private_key((keys / "bundle/ca1.key").read_bytes(), None)
    between = load_pem_private_key((keys / "bundle/between.key").read_bytes(), None)
    issue(keys, "bundle/between", now, issued_by=("bundle/ca1", root), ca=intermediate_is_ca)
    issue(keys, "bundle/ca1-signer", now, issued_by=("bundle/between", between), purpose=CODE_SIGNING)
    toml = keys / "keyset.toml"
    line = 'key = "file:bundle/ca1-signer.key"'
    toml.write_text(toml.read_text().replace(line, f'{line}\nintermediate = "bundle/between.crt"'))


def test_an_encrypted_ssh_key_is_read_with_the_passphrase_too(keys: Path, now: datetime) -> None:
    path = keys / "ssh/lab.key"
    key = load_ssh_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, BestAvailableEncryption(b"correct horse")))
    assert problems(keys, now, environment={"MAMORI_KEY_PASSPHRASE": "correct horse"}) == {}
    assert "wrong one" in problems(keys, now, environment={"MAMORI_KEY_PASSPHRASE": "battery"})["ssh.key"]
