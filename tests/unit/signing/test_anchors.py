"""What an image may know of a keyset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mamori.formats.problems import BadInputError
from signing.anchors import read_anchors
from signing.keyset import read_keyset


def test_the_keyring_of_rauc_has_both_cas_and_no_leaf(keys: Path, pki_files: Mapping[str, bytes]) -> None:
    anchors = read_anchors(read_keyset(keys / "keyset.toml"))
    assert anchors.rauc_keyring == pki_files["bundle/ca1.crt"] + pki_files["bundle/ca2.crt"]


def test_each_secure_boot_certificate_is_in_its_place(keys: Path, pki_files: Mapping[str, bytes]) -> None:
    anchors = read_anchors(read_keyset(keys / "keyset.toml"))
    found = (anchors.pk.pem, anchors.kek.pem, anchors.db.pem)
    assert found == tuple(pki_files[f"secure-boot/{name}.crt"] for name in ("pk", "kek", "db"))


def test_anchors_need_no_private_key(keys: Path) -> None:
    for path in keys.rglob("*.key"):
        path.unlink()
    assert read_anchors(read_keyset(keys / "keyset.toml")).development


def test_every_missing_anchor_is_named(keys: Path) -> None:
    for name in ("bundle/ca2.crt", "tuf/root-2.pub", "ssh/lab.pub"):
        (keys / name).unlink()
    with pytest.raises(BadInputError) as caught:
        read_anchors(read_keyset(keys / "keyset.toml"))
    assert [problem.key for problem in caught.value.problems] == ["bundle.ca2.ca.certificate", "ssh.public", "tuf.root[1].public"]
