"""Encrypted keys are lent to tools in memory only, and never for longer than the signing takes."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key

from mamori.formats.problems import BadInputError, MamoriError
from signing.keyset import Keyset, read_keyset
from signing.unlocked import MEMORY, start_unlocked
from signing.uri import FileKey

PASSPHRASE = {"MAMORI_KEY_PASSPHRASE": "correct horse"}


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A corner of the machine's shared memory that only this test looks at."""
    folder = MEMORY / f"test-{tmp_path.name}-{os.getpid()}"
    folder.mkdir(mode=0o700)
    yield folder
    assert list(folder.iterdir()) == []
    folder.rmdir()


@pytest.fixture
def encrypted(keys: Path) -> Keyset:
    for name in ("secure-boot/db", "bundle/ca1-signer"):
        path = keys / f"{name}.key"
        key = load_pem_private_key(path.read_bytes(), None)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"correct horse")))
    return read_keyset(keys / "keyset.toml")


def lent(keyset: Keyset) -> list[Path]:
    assert isinstance(keyset.db.key, FileKey)
    assert isinstance(keyset.signer.key, FileKey)
    return [keyset.db.key.path, keyset.signer.key.path]


def test_tools_get_plain_copies_in_private_memory_until_the_signing_ends(
    encrypted: Keyset, memory: Path, keys: Path, pki_files: dict[str, bytes]
) -> None:
    with start_unlocked(encrypted, PASSPHRASE, memory) as unlocked:
        db, signer = lent(unlocked)
        assert db.read_bytes() == pki_files["secure-boot/db.key"]
        assert signer.read_bytes() == pki_files["bundle/ca1-signer.key"]
        for path in (db, signer):
            assert path.is_relative_to(memory)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert unlocked.db.certificate == encrypted.db.certificate
    assert not db.exists()
    assert not db.parent.exists()


def test_an_error_while_signing_takes_the_copies_away_as_well(encrypted: Keyset, memory: Path) -> None:
    def sign_until_ctrl_c() -> None:
        with start_unlocked(encrypted, PASSPHRASE, memory):
            assert len(list(memory.rglob("*.key"))) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sign_until_ctrl_c()
    assert list(memory.iterdir()) == []


def test_keys_that_are_not_encrypted_are_not_copied(keys: Path, memory: Path) -> None:
    keyset = read_keyset(keys / "keyset.toml")
    with start_unlocked(keyset, {}, memory) as unlocked:
        assert unlocked == keyset
        assert list(memory.iterdir()) == []


@pytest.mark.parametrize("environment", [{}, {"MAMORI_KEY_PASSPHRASE": "battery"}], ids=["no passphrase", "a wrong one"])
def test_without_the_passphrase_nothing_is_lent(encrypted: Keyset, memory: Path, environment: dict[str, str]) -> None:
    with pytest.raises(BadInputError, match="MAMORI_KEY_PASSPHRASE"), start_unlocked(encrypted, environment, memory):
        pytest.fail("the keyset was unlocked")


def test_a_disk_is_not_memory(encrypted: Keyset, tmp_path: Path) -> None:
    if os.stat("/tmp").st_dev == os.stat(MEMORY).st_dev:  # noqa: S108, PTH116
        pytest.skip("the temporary folder of this machine is in memory itself")
    with pytest.raises(MamoriError, match="is not in memory"), start_unlocked(encrypted, PASSPHRASE, tmp_path):
        pytest.fail("a key was written to a disk")


def test_the_copies_of_a_killed_process_are_removed_by_the_next_one(encrypted: Keyset, memory: Path) -> None:
    child = os.fork()
    if child == 0:
        with start_unlocked(encrypted, PASSPHRASE, memory):
            os._exit(9)
    os.waitpid(child, 0)
    (abandoned,) = memory.iterdir()
    assert len(list(abandoned.glob("*.key"))) == 2
    long_ago = time.time() - 3600
    os.utime(abandoned, (long_ago, long_ago))
    with start_unlocked(encrypted, PASSPHRASE, memory):
        assert not abandoned.exists()


def test_the_copies_of_a_process_that_still_signs_stay(encrypted: Keyset, memory: Path) -> None:
    with start_unlocked(encrypted, PASSPHRASE, memory) as first:
        long_ago = time.time() - 3600
        os.utime(lent(first)[0].parent, (long_ago, long_ago))
        with start_unlocked(encrypted, PASSPHRASE, memory):
            pass
        assert all(path.exists() for path in lent(first))
