"""The development PKI: complete, private, recognisable, and all or nothing."""

from __future__ import annotations

import itertools
import os
import stat
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from mamori.formats.problems import MamoriError
from signing.anchors import read_anchors
from signing.certificates import is_development, read_certificate
from signing.check import check_keyset
from signing.development import LEAF_LIFE, TUF_KEYS, init_development, write_folder
from signing.keyset import read_keyset


def test_a_new_pki_is_a_keyset_that_a_laboratory_build_accepts(tmp_path: Path, now: datetime) -> None:
    keyset = read_keyset(init_development(tmp_path / "keys" / "development", now))
    check_keyset(keyset, release=False, now=now, environment={})
    assert read_anchors(keyset).development


def test_nobody_else_can_read_it(keys: Path) -> None:
    for path in (keys, *keys.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_keys_that_exist_are_never_overwritten(keys: Path, now: datetime) -> None:
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    with pytest.raises(MamoriError, match="there are keys already"):
        init_development(keys, now)
    assert {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()} == before


def test_a_dangling_link_is_not_followed(tmp_path: Path, now: datetime) -> None:
    (tmp_path / "keys").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MamoriError, match="there are keys already"):
        init_development(tmp_path / "keys", now)


def test_a_folder_that_cannot_be_made_is_told_in_one_sentence(tmp_path: Path, now: datetime) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MamoriError, match="cannot be made: "):
        init_development(tmp_path / "file" / "keys", now)


def test_every_certificate_says_that_it_is_for_development(keys: Path) -> None:
    certificates = sorted(keys.rglob("*.crt"))
    assert len(certificates) == 7
    assert all(is_development(read_certificate(path)) for path in certificates)


def test_the_leaf_lives_for_three_years_and_is_issued_by_its_ca(keys: Path, now: datetime) -> None:
    leaf, ca = read_certificate(keys / "bundle/ca2-signer.crt"), read_certificate(keys / "bundle/ca2.crt")
    assert (leaf.not_before, leaf.not_after) == (now - timedelta(days=1), now + LEAF_LIFE)
    assert leaf.issuer == ca.subject


def test_every_tuf_key_signs_with_securesystemslib(keys: Path) -> None:
    library = pytest.importorskip("securesystemslib.signer")
    published = read_anchors(read_keyset(keys / "keyset.toml")).tuf
    assert {role: len(pems) for role, pems in published.items()} == TUF_KEYS
    signers = []
    for private in sorted((keys / "tuf").glob("*.key")):
        public = library.SSlibKey.from_crypto(load_pem_public_key(private.with_suffix(".pub").read_bytes()))
        signers.append(library.CryptoSigner.from_priv_key_uri(f"file2:{private}", public))
    assert len({signer.public_key.keyid for signer in signers}) == sum(TUF_KEYS.values())
    for signer in signers:
        signer.public_key.verify_signature(signer.sign(b"metadata"), b"metadata")


def test_the_ssh_key_logs_in_with_paramiko(keys: Path) -> None:
    private = paramiko.Ed25519Key.from_private_key(StringIO((keys / "ssh/lab.key").read_text()))
    kind, blob, _comment = read_anchors(read_keyset(keys / "keyset.toml")).ssh.split(" ", 2)
    assert (kind, blob) == (private.get_name(), private.get_base64())


def test_a_power_cut_at_any_moment_leaves_all_keys_or_none(tmp_path: Path, pki_files: Mapping[str, bytes]) -> None:
    names = ("secure-boot/db.key", "secure-boot/db.crt", "bundle/ca1.key", "tuf/root-1.pub", "ssh/lab.key", "keyset.toml")
    files = {name: pki_files[name] for name in names}
    partial = 0
    for moment in itertools.count(1):
        parent = tmp_path / str(moment)
        parent.mkdir()
        died = _write_with_power_cut(parent / "keys", files, moment)
        if not died:
            break
        if (parent / "keys").exists():
            assert all((parent / "keys" / name).read_bytes() == content for name, content in files.items())
        else:
            partial += any(parent.iterdir())
            with pytest.raises(MamoriError):
                read_keyset(parent / "keys" / "keyset.toml")
            write_folder(parent / "keys", files)
            assert (parent / "keys" / "keyset.toml").exists()
    assert moment > len(files), "the cut came before every single file"
    assert partial >= len(files)
    assert sorted(path.name for path in parent.iterdir()) == ["keys"]


CHANGES = {"os.mkdir", "os.rename", "os.rmdir", "os.remove", "shutil.rmtree"}


def _write_with_power_cut(folder: Path, files: Mapping[str, bytes], moment: int) -> bool:
    """Write in a child process that ends, with no clean-up at all, just before its n-th change to the disk. True: it did end so."""
    child = os.fork()
    if child == 0:
        changes = itertools.count(1)

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            opens_to_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if (event in CHANGES or opens_to_write) and next(changes) == moment:
                os._exit(9)

        sys.addaudithook(watch)
        try:
            write_folder(folder, files)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_failure_midway_cleans_up_after_itself(tmp_path: Path, pki_files: Mapping[str, bytes]) -> None:
    with pytest.raises(MamoriError, match="cannot be written"):
        write_folder(tmp_path / "keys", {**pki_files, "x" * 300: b"a name that no file system takes"})
    assert list(tmp_path.iterdir()) == []
