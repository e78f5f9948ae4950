"""A source directory in, a compiled list file out: the same bytes for the same input, wherever it is done.

Bad lines. A feed of a million lines always has some, and must renew itself all the same; a web page with an error message in
place of a feed must not. So a file is refused when more than one line in a hundred is bad; up to there they are skipped,
counted and told. In a file of less than a hundred lines, as people write them, every bad line is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from pathlib import Path
from typing import IO

from mamori.durable import replacing
from mamori.formats.problems import BadInputError, MamoriError, Problem
from mamori.inspect.lists.entries import EntryError, parse_entry
from mamori.inspect.lists.fileformat import (
    BLOCK_BYTES,
    BLOCK_RECORDS,
    HEADER_BYTES,
    KEY_BYTES,
    Header,
    Records,
    Section,
    digest_of,
    encode_block,
    encode_header,
)
from mamori.inspect.lists.listfile import encode_info
from mamori.inspect.lists.matching import KIND_BITS, Bounds, Mark, narrowed, tagged_texts, widened
from mamori.inspect.lists.source import Source, decode, lines, opened, read_source, read_suffixes
from mamori.inspect.lists.suffixes import Suffixes

MAX_BAD_PERCENT = 1
"""See the module."""

MAX_TOLD = 20
"""Bad lines, and public suffixes, that are told of one file. The rest is counted."""

MAX_RECORDS = 16_000_000
"""They are collected in memory, 10 bytes each: 160 MB."""

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one text file. `bad` and `suffixes` are the first MAX_TOLD of `bad_lines` and `suffix_lines`: lines
    that were skipped, and entries that are public suffixes and match only exactly."""

    list_key: str
    file: str
    entries: int
    bad_lines: int
    bad: tuple[Problem, ...]
    suffix_lines: int
    suffixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompileReport:
    """`records` are what the file holds: repetitions once, and one more for each host of URLs."""

    files: tuple[FileReport, ...]
    records: int
    size_bytes: int


def compile_lists(directory: Path, out: Path) -> CompileReport:
    """Compile a source directory, and put the result in the place of `out` at once: readers see the old file or the new one,
    also after a power cut. BadInputError tells all that is wrong with the source; then `out` is as it was."""
    source = read_source(directory)
    suffixes = read_suffixes(directory / source.suffixes)
    records = Records(_key_of(directory, source, suffixes))
    bounds, reports, problems = Bounds(), [], []
    for number, (key, one) in enumerate(source.lists.items()):
        for name in one.files:
            reading = _Reading(key, directory / name, suffixes, number << KIND_BITS, bounds)
            reading.run(records)
            bounds = reading.bounds
            reports.append(reading.report())
            problems += reading.refusal()
    if problems:
        raise BadInputError(problems)
    try:
        count, size_bytes = _write(out, source, suffixes, records, bounds)
    except OSError as error:
        raise MamoriError(f"{out}: cannot be written: {error.strerror}") from None
    return CompileReport(tuple(reports), count, size_bytes)


def _key_of(directory: Path, source: Source, suffixes: Suffixes) -> bytes:
    """A key that only who has the whole input knows, so that nobody can choose a name that collides with another's hash; and
    that is the same for the same input."""
    state = sha256(encode_info(source.infos()) + "\n".join(suffixes.rules()).encode())
    for one in source.lists.values():
        for name in one.files:
            file_state = blake2b(digest_size=KEY_BYTES)
            with opened(directory / name) as file:
                while content := file.read(_READ_BYTES):
                    file_state.update(content)
            state.update(file_state.digest())
    return state.digest()


@dataclass(slots=True)
class _Reading:
    """One text file while it is read."""

    list_key: str
    path: Path
    suffixes: Suffixes
    tag: int
    bounds: Bounds
    entries: int = 0
    bad_lines: int = 0
    bad: list[Problem] = field(default_factory=list)
    suffix_lines: int = 0
    suffix_names: list[str] = field(default_factory=list)

    def run(self, records: Records) -> None:
        with opened(self.path) as file:
            for number, line in lines(file):
                try:
                    self._add(decode(line), records)
                except EntryError as error:
                    self.bad_lines += 1
                    if self.bad_lines <= MAX_TOLD:
                        self.bad.append(Problem(str(self.path), f"line {number}", error.expected, error.got))
                if records.added > MAX_RECORDS:
                    raise MamoriError(f"{self.path}: line {number}: the lists have more than {MAX_RECORDS} records")

    def _add(self, text: str, records: Records) -> None:
        said = parse_entry(text)
        entry = narrowed(said, self.suffixes)
        if entry is not said:
            self.suffix_lines += 1
            if self.suffix_lines <= MAX_TOLD:
                self.suffix_names.append(text)
        self.entries += 1
        for found, mark in tagged_texts(entry):
            # A host of URLs is no list's: one record will do for all of them.
            records.add(found, mark if mark >= Mark.HOST_OF_URLS else self.tag | mark)
        self.bounds = widened(self.bounds, entry)

    def report(self) -> FileReport:
        return FileReport(
            self.list_key,
            str(self.path),
            self.entries,
            self.bad_lines,
            tuple(self.bad),
            self.suffix_lines,
            tuple(self.suffix_names),
        )

    def refusal(self) -> list[Problem]:
        """What to refuse the file for."""
        lines_in_all = self.entries + self.bad_lines
        if self.bad_lines * 100 <= lines_in_all * MAX_BAD_PERCENT:
            return []
        rest = self.bad_lines - len(self.bad)
        expected = f"at most {MAX_BAD_PERCENT} % of bad lines"
        more = [Problem(str(self.path), "(all)", expected, f"{self.bad_lines} of {lines_in_all}")] if rest else []
        return [*self.bad, *more]


def _write(out: Path, source: Source, suffixes: Suffixes, records: Records, bounds: Bounds) -> tuple[int, int]:
    """Number of records and size of the file, once it is durable."""
    with replacing(out) as file:
        header = _write_sections(file, source, suffixes, records, bounds)
        file.seek(0)
        file.write(encode_header(header))
    return header.records, header.blocks.end


def _write_sections(file: IO[bytes], source: Source, suffixes: Suffixes, records: Records, bounds: Bounds) -> Header:
    """All but the header. The index is known last, and lies before the blocks: it gets room for all records that were added.
    Where some were repetitions, zeros stay behind it."""
    info = encode_info(source.infos())
    rules = "\n".join(suffixes.rules()).encode()
    file.write(bytes(HEADER_BYTES) + info + rules)
    info_section = Section(HEADER_BYTES, len(info), digest_of(info))
    rules_section = Section(info_section.end, len(rules), digest_of(rules))
    index_at = -(-rules_section.end // 8) * 8
    room = -(-records.added // BLOCK_RECORDS) * 8
    blocks_at = -(-(index_at + room) // BLOCK_BYTES) * BLOCK_BYTES
    file.seek(blocks_at)
    firsts, state, count = bytearray(), sha256(), 0
    for group in _groups(records):
        firsts += group[0][0].to_bytes(8, "little")
        count += len(group)
        block = encode_block(group)
        state.update(block)
        file.write(block)
    file.truncate(blocks_at + len(firsts) // 8 * BLOCK_BYTES)
    file.seek(index_at)
    file.write(firsts)
    return Header(
        bounds.labels,
        bounds.folders,
        count,
        records.key,
        info_section,
        rules_section,
        Section(index_at, len(firsts), digest_of(bytes(firsts))),
        Section(blocks_at, len(firsts) // 8 * BLOCK_BYTES, state.digest()),
    )


def _groups(records: Records) -> Iterator[list[tuple[int, int]]]:
    """The records a block at a time."""
    group: list[tuple[int, int]] = []
    for record in records.sorted():
        group.append(record)
        if len(group) == BLOCK_RECORDS:
            yield group
            group = []
    if group:
        yield group
