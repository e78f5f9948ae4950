"""What holds for every reader of a mail protocol, whatever is said: one form of four tests, for each protocol's own words."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from mamori.inspect.findings import Reader
from mamori.inspect.flow import ORIGINATOR, RESPONDER
from mamori.inspect.mail_lines import OpenMail
from tests.support.mail_transcript import Recorder, Talk, Transcript, byte_by_byte, cut, join, read
from tests.support.wait import patience_s

DIRECTIONS = st.sampled_from([ORIGINATOR, RESPONDER])
CUTS = st.lists(st.integers(0, 500), max_size=10)
NOISE: st.SearchStrategy[Talk] = st.lists(st.tuples(DIRECTIONS, st.binary(max_size=100)))


@dataclass(frozen=True)
class Dialect:
    """A reader, what a server greets with, and what may strain it: fillers that are repeated, after one of these starts."""

    reader: Callable[..., Reader]
    error: type[Exception]
    greeting: bytes
    fillers: Sequence[bytes]
    starts: Sequence[Sequence[tuple[int, bytes]]]
    max_held_bytes: int

    def talks(self, client: st.SearchStrategy[bytes], server: st.SearchStrategy[bytes]) -> st.SearchStrategy[Talk]:
        """A greeting, and then what is made of both sides' words."""
        return st.lists(
            st.tuples(st.just(ORIGINATOR), st.lists(client, max_size=8).map(b"".join))
            | st.tuples(st.just(RESPONDER), st.lists(server, max_size=8).map(b"".join)),
            max_size=12,
        ).map(lambda talk: [(RESPONDER, self.greeting), *talk])

    def open(self, mail: OpenMail = Recorder) -> Reader:
        return self.reader(mail=mail)

    def check_segments(self, said: Talk, at: Sequence[int], part: Callable[[Transcript], object] | None = None) -> None:
        """The same, or the same part of it, is found in one piece, byte by byte, and cut at these places."""

        def heard(talk: Talk) -> object:
            found = read(self.open, talk, self.error)
            return part(found) if part else found

        whole = heard(join(said))
        assert heard(byte_by_byte(said)) == whole
        assert heard(cut(said, at)) == whole

    def check_mails(self, said: Talk) -> None:
        """With the reader of mails behind it there is no error but its own, and its state lies nowhere but in itself."""
        assert read(self.reader, said, self.error) == read(self.reader, said, self.error)

    def check_held(self, said: Talk, filler: bytes, direction: int) -> None:
        """200 KB of one filler do not make it hold more than it may."""
        reader = self.open()
        with contextlib.suppress(self.error):
            for side, data in [*said, *[(direction, filler * (20_000 // len(filler)))] * 10]:
                reader.receive(side, data)
                assert reader.held_bytes <= self.max_held_bytes

    def check_held_by_each(self) -> None:
        """The same for every filler after every start, in segments of 536 bytes (RFC 9293, 3.7.1: every host takes those)."""
        for filler in self.fillers:
            for before in self.starts:
                for direction in (ORIGINATOR, RESPONDER):
                    reader, much = self.open(), filler * (100_000 // len(filler))
                    with contextlib.suppress(self.error):
                        for side, data in [(RESPONDER, self.greeting), *before]:
                            reader.receive(side, data)
                        for at in range(0, len(much), 536):
                            reader.receive(direction, much[at : at + 536])
                            assert reader.held_bytes <= self.max_held_bytes, (filler, before, direction)

    def check_time(self) -> None:
        """Quadratic work would show: a segment of GSO size takes a second of processor at its slowest, and would take a minute."""
        for filler in self.fillers:
            for direction in (ORIGINATOR, RESPONDER):
                for before in self.starts:
                    reader = self.open()
                    begun = time.process_time()
                    with contextlib.suppress(self.error):
                        for side, data in [(RESPONDER, self.greeting), *before, (direction, filler * (65_000 // len(filler)))]:
                            reader.receive(side, data)
                    assert time.process_time() - begun < patience_s(10), (filler, direction)
