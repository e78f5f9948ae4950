"""`./inv release` of a true build, and what python-tuf's client gets of it."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from firmware.build import Built
from firmware.repository import verbs
from firmware.repository.repository import Present, PublishError
from firmware.repository.verbs import Options
from mamori.formats.offer import Channel, target_path
from mamori.formats.problems import MamoriError
from tests.support.releases import copy_release, flipped
from tests.support.repository import client_of

TODAY = datetime.fromtimestamp(time.time(), UTC)
DATES = {
    "notice": f"{TODAY:%Y-%m-%d}",
    "activate_after": f"{TODAY + timedelta(days=2):%Y-%m-%d}",
    "activate_before": f"{TODAY + timedelta(days=30):%Y-%m-%d}",
    "waves": f"10@{TODAY:%Y-%m-%d},100@{TODAY + timedelta(days=5):%Y-%m-%d}",
}


@pytest.fixture(scope="module")
def options(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Options:
    options = Options(str(tmp_path_factory.mktemp("release") / "repository"), json=True)
    verbs.repo_init(options)
    return options


@pytest.fixture
def notes(tmp_path: Path) -> str:
    (tmp_path / "ja.txt").write_text("直した\n")
    (tmp_path / "en.txt").write_text("Mended\n")
    return str(tmp_path)


def release(options: Options, build: Path, notes: str, *, recipe: str = "lab", dry_run: bool = False, **more: str) -> None:
    verbs.release(options, recipe, build=str(build), dry_run=dry_run, **{"channel": "stable", **DATES, "notes": notes, **more})


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def present(options: Options, built: Built) -> Present | None:
    return options.open().present(built.image.compatible, Channel.STABLE)


def test_a_build_is_planned_released_and_found(
    built: Built, options: Options, notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(options.path)
    capsys.readouterr()
    release(options, built.folder, notes, dry_run=True)
    planned = answer(capsys)
    assert (planned["version"], planned["before"], planned["pending"]) == (built.image.version, None, [])
    assert files(options.path) == before

    release(options, built.folder, notes)
    assert answer(capsys)["published"] == {"firmware": 2, "snapshot": 2, "timestamp": 2}
    found = present(options, built)
    assert found is not None
    assert planned["manifest_hash"] == found.offer.manifest_hash == manifest_hash(built, tmp_path)
    repository = options.open()
    folder = tmp_path / "client"
    with client_of(repository, folder) as client:
        target = client._refreshed().get_targetinfo(target_path(built.image.compatible, Channel.STABLE))
        assert target is not None
        assert (target.length, target.hashes["sha256"]) == (found.length, found.digest)
    bundle = repository.store.target(target.path, found.digest)
    assert hashlib.sha256(bundle.read_bytes()).hexdigest() == found.digest

    with pytest.raises(PublishError, match="is not above"):
        release(options, built.folder, notes, dry_run=True)


def test_a_build_that_does_not_verify_is_not_released(built: Built, options: Options, notes: str, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    forged.mkdir()
    copy = copy_release(built, forged)
    copy.edit(copy.bundle.name, flipped)
    copy.sign()  # by one of us who was careless: only the payload's own hashes tell
    before = files(options.path)
    with pytest.raises(MamoriError, match="its payload is not what its signed manifest promises"):
        release(options, copy.folder, notes, channel="beta")
    assert files(options.path) == before


def test_a_build_for_another_board_is_not_released_as_this_one(built: Built, options: Options, notes: str) -> None:
    with pytest.raises(MamoriError, match="expected a build for mamori-utm-x86_64-lab, got one for mamori-qemu-x86_64-lab"):
        verbs.release(options, "lab", board="utm-x86_64", build=str(built.folder), channel="beta", notes=notes, **DATES)


def test_there_is_nothing_to_release_without_a_build(options: Options, notes: str, tmp_path: Path) -> None:
    with pytest.raises(MamoriError, match="no such folder"):
        release(options, tmp_path / "nothing", notes, channel="beta")


def manifest_hash(built: Built, scratch: Path) -> str:
    """The SHA-256 of the manifest that the bundle's signature contains, without asking RAUC (manual, "Bundle Formats", verity)."""
    content = built.bundle.read_bytes()
    length = int.from_bytes(content[-8:], "big")
    (scratch / "signature").write_bytes(content[-8 - length : -8])
    argv = ["openssl", "cms", "-verify", "-noverify", "-inform", "DER", "-in", scratch / "signature", "-out", scratch / "manifest"]
    built.tools.run(argv, writes=[scratch], explain="take the manifest out of the bundle")
    return hashlib.sha256((scratch / "manifest").read_bytes()).hexdigest()
