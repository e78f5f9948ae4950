"""What RAUC says, understood; and partitions read back."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mamori.update.staging import BundleInfo, ImageInfo, StagingError, hash_partition, is_final, parse_info, plain

HASH = "ab" * 32


def variant(kind: str, data: Any) -> dict[str, Any]:
    """As busctl prints one."""
    return {"type": kind, "data": data}


def answer(**changes: Any) -> dict[str, Any]:
    table = {
        "manifest-hash": variant("s", HASH),
        "update": variant("v", variant("a{sv}", {"compatible": variant("s", "mamori-test"), "version": variant("s", "2026.12.0")})),
        "bundle": variant("v", variant("a{sv}", {"format": variant("s", "verity"), "verity-size": variant("t", 4096)})),
        "images": variant(
            "aa{sv}",
            [
                {"slot-class": variant("s", "rootfs"), "checksum": variant("s", "cd" * 32), "size": variant("t", 1000)},
                {"slot-class": variant("s", "boot"), "checksum": variant("s", "ef" * 32), "size": variant("t", 10)},
            ],
        ),
    }
    return variant("a{sv}", [{**table, **changes}])


def test_raucs_word_on_a_bundle_is_understood() -> None:
    images = (ImageInfo("rootfs", 1000, "cd" * 32), ImageInfo("boot", 10, "ef" * 32))
    assert parse_info(answer()) == BundleInfo("mamori-test", "2026.12.0", HASH, images)
    assert parse_info(json.loads(json.dumps(answer()))).manifest_hash == HASH


@pytest.mark.parametrize(
    "said",
    [{}, [], None, {"data": []}, {"data": [{}]}, answer(images=variant("s", "x")), answer(update=variant("s", "x"))],
)
def test_what_nobody_understands_is_told(said: Any) -> None:
    with pytest.raises(StagingError, match="nobody understands"):
        parse_info(said)


def test_types_are_taken_off_at_any_depth() -> None:
    assert plain(variant("v", variant("a{sv}", {"a": variant("as", ["x", "y"]), "type": variant("s", "raw")}))) == {
        "a": ["x", "y"],
        "type": "raw",
    }


@pytest.mark.parametrize(
    ("words", "final"),
    [
        ("signature verification failed: Verify error: self-signed certificate in certificate chain", True),
        ("Compatible mismatch: Expected 'a' but bundle manifest has 'b'", True),
        ("Bundle format 'plain' not allowed", True),
        ("unsuitable certificate purpose", True),
        ("Failed to load manifest", True),
        ("Invalid identifier 'xx', expected 'sqsh'", True),
        ("nbd server: request failed: Connection timed out", False),
        ("failed to write image: No space left on device", False),
        ("Input/output error while reading the bundle", False),
        ("Cannot allocate memory for the manifest", False),
        ("something that nobody has seen", False),
    ],
)
def test_raucs_words_say_whether_another_attempt_is_of_use(words: str, final: bool) -> None:
    assert is_final(words) is final


def test_a_partition_is_read_back_as_far_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "partition"
    content = os.urandom(3 * 1024 * 1024 + 4096)
    path.write_bytes(content)
    for size in (1, 4096, 1024 * 1024, 2_500_001, len(content)):
        assert hash_partition(path, size) == hashlib.sha256(content[:size]).hexdigest()
    with pytest.raises(StagingError, match="ends after"):
        hash_partition(path, len(content) + 1)
    with pytest.raises(StagingError, match="No such file"):
        hash_partition(tmp_path / "nothing", 1)
