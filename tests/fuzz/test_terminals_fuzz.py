"""Any bytes are a terminal's name or none, and never an error."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.terminals import (
    MAX_NAME_CHARACTERS,
    TerminalName,
    names_from_dhcp,
    names_from_dhcp6,
    names_from_mdns,
    names_from_netbios,
)
from tests.support.checkout import ROOT

VECTORS = [bytes.fromhex(path.read_text()) for path in sorted((ROOT / "tests/vectors/terminals").glob("*.hex"))]


def damaged(vector: bytes, damage: list[tuple[int, int]], length: int) -> bytes:
    data = bytearray(vector)
    for at, byte in damage:
        data[at % len(data)] = byte
    return bytes(data[: length or None])


PAYLOADS = st.binary(max_size=400) | st.builds(
    damaged, st.sampled_from(VECTORS), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6), st.integers(0, 300)
)
OPTIONS = st.lists(st.tuples(st.sampled_from([0, 12, 50, 52, 53, 81, 255]), st.binary(max_size=20)), max_size=10).map(
    lambda options: b"".join(bytes([code, len(text)]) + text for code, text in options)
)


def check(found: TerminalName | None) -> None:
    if found is not None:
        assert 0 < len(found.name) <= MAX_NAME_CHARACTERS
        assert "\0" not in found.name


@given(PAYLOADS)
def test_any_bytes_are_a_name_or_none(payload: bytes) -> None:
    check(names_from_dhcp(payload))
    check(names_from_dhcp6(payload))
    check(names_from_mdns(payload, "192.0.2.17"))
    check(names_from_netbios(payload))


@given(OPTIONS, OPTIONS, OPTIONS)
def test_any_options_are_a_name_or_none(options: bytes, file: bytes, sname: bytes) -> None:
    head = b"\1\1\6" + bytes(41) + sname[:64].ljust(64, b"\0") + file[:128].ljust(128, b"\0")
    check(names_from_dhcp(head + b"\x63\x82\x53\x63\x35\1\3" + options))
