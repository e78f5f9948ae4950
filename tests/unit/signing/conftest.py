"""One development PKI per run, made once, and a fresh copy of it for every test that wants to break it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from signing.development import make_development, write_folder

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def pki_files() -> Mapping[str, bytes]:
    return make_development(NOW)


@pytest.fixture(scope="session")
def other_pki_files() -> Mapping[str, bytes]:
    return make_development(NOW)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def keys(tmp_path: Path, pki_files: Mapping[str, bytes]) -> Path:
    folder = tmp_path / "keys"
    write_folder(folder, pki_files)
    return folder
