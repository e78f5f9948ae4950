"""Any capture gives lines of JSON, the last of them a summary, or one error."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mamori.formats.problems import MamoriError
from mamori.inspect.replay import replay_capture
from tests.support.captures import pcap
from tests.support.talks import Talk

TALK = Talk().tcp(
    80, ("c", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), ("s", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
)
DAMAGES = st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8)
FRAMES = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(TALK.frames) | st.binary(max_size=80), DAMAGES), max_size=8)


def damaged(data: bytes, damages: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for at, byte in damages:
        if changed:
            changed[at % len(changed)] = byte
    return bytes(changed)


def lines_of(capture: bytes) -> list[str]:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(capture)
        try:
            return list(replay_capture(Path(file.name)))
        except MamoriError:
            return []


def check(lines: list[str]) -> None:
    parsed = [json.loads(line) for line in lines]
    assert all("\n" not in line for line in lines)
    assert [line["kind"] for line in parsed if line["kind"] == "summary"] == ([parsed[-1]["kind"]] if parsed else [])


@given(FRAMES)
@settings(max_examples=60)
def test_any_frames_at_any_times_are_lines(frames: list[tuple[int, bytes, list[tuple[int, int]]]]) -> None:
    check(lines_of(pcap(*((time, 0, damaged(frame, damages)) for time, frame, damages in frames))))


@given(DAMAGES, st.integers(0, 1200))
@settings(max_examples=60)
def test_a_damaged_file_is_lines_or_one_error(damages: list[tuple[int, int]], length: int) -> None:
    for capture in (TALK.pcap(), TALK.pcapng()):
        check(lines_of(damaged(capture, damages)[: length or None]))
