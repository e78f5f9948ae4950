"""Content codings: any bytes decode to something bounded, or become unseen, and never raise."""

from __future__ import annotations

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.coding import FREE_BYTES, MAX_RATIO, BodyDecoder
from tests.support.http_transcript import byte_by_byte, cuts

CODINGS = st.lists(st.sampled_from(["gzip", "deflate", "x-gzip", "br", "zstd", "identity", "?"]), max_size=4)
CUTS = st.lists(st.integers(0, 300), max_size=10)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A coded body with bytes replaced, removed or put in."""
    plain = draw(st.binary(max_size=200)) * draw(st.integers(1, 50))
    body = bytearray(draw(st.sampled_from([gzip.compress, zlib.compress, lambda data: zlib.compress(data)[2:-4]]))(plain))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(body)


@given(CODINGS, st.binary(max_size=300) | damaged(), CUTS)
def test_any_bytes_decode_to_the_same_in_any_segments(codings: list[str], body: bytes, at: list[int]) -> None:
    outcomes = set()
    for segments in ([body], byte_by_byte(body), cuts(body, at)):
        decoder = BodyDecoder(codings)
        plain = b"".join(map(decoder.receive, segments))
        assert len(plain) <= max(FREE_BYTES, MAX_RATIO * len(body))
        outcomes.add((plain, decoder.unseen))
    assert len(outcomes) == 1


@given(damaged())
def test_what_zlib_decodes_before_the_damage_is_not_lost(body: bytes) -> None:
    decoder = BodyDecoder(["gzip"])
    plain = decoder.receive(body)
    reference, expected = zlib.decompressobj(31), b""
    try:
        for byte in byte_by_byte(body):
            expected += reference.decompress(byte)
    except zlib.error:
        pass
    assert plain.startswith(expected)
