"""The build record, read back: who an image says it is, and which bytes its build says it made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from firmware.records.build_record import FORMAT
from mamori.formats.problems import BadInputError, MamoriError, Problem
from mamori.formats.release import Base, Variant, Version
from mamori.formats.strict import MAX_FILE_BYTES, Matches, parse

Digest = Annotated[str, Matches(r"(sparse:)?[0-9a-f]{64}", "a SHA-256 of 64 hex digits")]


@dataclass(frozen=True)
class ImageRecord:
    name: str
    board: str
    base: Base
    variant: Variant
    version: Version
    compatible: str


@dataclass(frozen=True)
class SourceRecord:
    commit: Annotated[str, Matches(r"[0-9a-f]{40}", "40 hex digits")]
    dirty: bool
    epoch: int


@dataclass(frozen=True)
class StepRecord:
    step: str
    key: str
    digest: Digest
    inputs: Mapping[str, Digest]
    files: Mapping[str, Digest]


@dataclass(frozen=True)
class CertificateRecord:
    subject: str
    sha256: Digest


@dataclass(frozen=True)
class Record:
    """The parts of `build.json` that can be compared with something (docs/records.md, 4)."""

    image: ImageRecord
    source: SourceRecord
    steps: tuple[StepRecord, ...]
    certificates: Mapping[str, CertificateRecord]

    def made(self, step: str, file: str) -> str:
        """The digest of a file that a step made; MamoriError when the record does not know of it."""
        for entry in self.steps:
            if entry.step == step and file in entry.files:
                return entry.files[file]
        raise MamoriError(f"build.json: steps: expected a step {step} that made {file}, got none")


def read_record(path: Path) -> Record:
    """The record in a file; BadInputError names everything that is not as docs/records.md says."""
    content = path.read_bytes()
    if len(content) > MAX_FILE_BYTES:
        raise BadInputError([Problem(str(path), "(size)", f"at most {MAX_FILE_BYTES} bytes", str(len(content)))])
    try:
        table = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise BadInputError([Problem(str(path), "(syntax)", "JSON", str(error) or "objects nested too deeply")]) from None
    if not isinstance(table, dict) or type(table.get("format")) is not int or table["format"] != FORMAT:
        raise BadInputError(
            [Problem(str(path), "format", str(FORMAT), "something else", "a newer Mamori may have written this file")]
        )
    known = {name: value for name, value in table.items() if name in Record.__dataclass_fields__}
    return parse(Record, known, str(path))
