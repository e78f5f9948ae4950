"""Content codings, decoded as clients decode them, within limits. The vectors are made by zlib and gzip at test time."""

from __future__ import annotations

import gzip
import random
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.coding import FREE_BYTES, MAX_CODINGS, MAX_DECODED_BYTES, MAX_MEMBERS, MAX_RATIO, BodyDecoder, Unseen
from tests.support.http_transcript import byte_by_byte, cuts

TEXT = b"".join(b"line %d of a text that is long enough to have some structure\n" % number for number in range(300))
NOISE = random.Random(4).randbytes(5000)  # noqa: S311 - data without structure


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


def decoded(codings: list[str], segments: list[bytes]) -> tuple[bytes, Unseen | None]:
    decoder = BodyDecoder(codings)
    return b"".join(map(decoder.receive, segments)), decoder.unseen


def read(codings: list[str], body: bytes) -> tuple[bytes, Unseen | None]:
    whole = decoded(codings, [body])
    assert decoded(codings, byte_by_byte(body)) == whole
    assert decoded(codings, cuts(body, range(0, len(body), 100))) == whole
    return whole


@pytest.mark.parametrize(
    ("codings", "body", "plain"),
    [
        pytest.param(["gzip"], gzip.compress(TEXT), TEXT, id="gzip"),
        pytest.param(["x-gzip"], gzip.compress(NOISE), NOISE, id="gzip of noise"),
        pytest.param(["GZIP "], gzip.compress(b""), b"", id="gzip of nothing"),
        pytest.param(["gzip"], gzip.compress(TEXT) + gzip.compress(NOISE), TEXT + NOISE, id="two members"),
        pytest.param(["gzip"], gzip.compress(TEXT) + b"\x1f and garbage", TEXT, id="garbage that begins like a member"),
        pytest.param(["gzip"], gzip.compress(TEXT) + b"\0" * 99 + gzip.compress(NOISE), TEXT, id="a member after padding"),
        pytest.param(["deflate"], zlib.compress(TEXT), TEXT, id="deflate in zlib"),
        pytest.param(["deflate"], zlib.compress(NOISE, 0), NOISE, id="stored"),
        pytest.param(["deflate"], raw_deflate(TEXT), TEXT, id="raw deflate"),
        pytest.param(["deflate"], raw_deflate(NOISE), NOISE, id="raw deflate of noise"),
        pytest.param(["deflate"], zlib.compress(TEXT) + b"garbage", TEXT, id="garbage after zlib"),
        pytest.param(["deflate", "gzip"], gzip.compress(zlib.compress(TEXT)), TEXT, id="deflate, then gzip"),
        pytest.param(["gzip", "identity", "gzip"], gzip.compress(gzip.compress(TEXT)), TEXT, id="gzip twice"),
        pytest.param(["gzip"] * MAX_CODINGS, b"", b"", id="as many as there may be"),
        pytest.param(["snappy"], TEXT, TEXT, id="a coding that no client knows"),
        pytest.param([], TEXT, TEXT, id="none"),
    ],
)
def test_a_coded_body_is_decoded(codings: list[str], body: bytes, plain: bytes) -> None:
    assert read(codings, body) == (plain, None)


def test_a_raw_stream_that_looks_like_zlib_at_first_is_read_again_as_raw() -> None:
    """A stored block's padding bits may be anything (RFC 1951, section 3.2.4), so it can begin with zlib's `78 01`."""
    stored = b"\x78" + b"\x01\x00" + b"\xfe\xff" + b"X"
    assert read(["deflate"], stored + raw_deflate(TEXT)) == (b"X" + TEXT, None)


@pytest.mark.parametrize("coding", ["br", "compress", "dcb"])
def test_what_cannot_be_undone_is_unseen(coding: str) -> None:
    assert read([coding], TEXT) == (b"", Unseen.UNSUPPORTED)
    assert read(["gzip", coding], TEXT) == (b"", Unseen.UNSUPPORTED)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has zstd from 3.14 on")
def test_zstd_is_unseen_before_python_has_it() -> None:
    assert read(["zstd"], b"\x28\xb5\x2f\xfd") == (b"", Unseen.UNSUPPORTED)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python has zstd from 3.14 on")
def test_zstd_is_decoded_where_python_has_it() -> None:
    from compression import zstd

    assert read(["zstd"], zstd.compress(TEXT) + zstd.compress(NOISE)) == (TEXT + NOISE, None)
    assert read(["zstd"], b"no zstd at all")[1] is Unseen.CORRUPT


def test_too_many_codings_are_unseen() -> None:
    assert read(["gzip"] * (MAX_CODINGS + 1), TEXT) == (b"", Unseen.DEPTH)


def test_what_came_before_the_damage_is_kept_as_clients_keep_it() -> None:
    body = bytearray(gzip.compress(TEXT + NOISE))
    body[-5] ^= 1  # the length; the checksum before it
    assert read(["gzip"], bytes(body)) == (TEXT + NOISE, Unseen.CORRUPT)
    body = bytearray(zlib.compress(TEXT))
    body[-1] ^= 1
    assert read(["deflate"], bytes(body)) == (TEXT, Unseen.CORRUPT)
    plain, unseen = read(["gzip"], gzip.compress(TEXT)[:200] + b"\xff" * 500)
    assert unseen is Unseen.CORRUPT
    assert len(plain) > 100
    assert TEXT.startswith(plain[:100])


def test_a_truncated_body_gives_what_it_has() -> None:
    plain, unseen = read(["gzip"], gzip.compress(TEXT)[:-12])
    assert unseen is None
    assert TEXT.startswith(plain)
    assert len(plain) > len(TEXT) // 2


def bomb(size: int) -> bytes:
    deflate = zlib.compressobj(9, wbits=31)
    return b"".join(deflate.compress(bytes(1 << 20)) for _ in range(size >> 20)) + deflate.flush()


def test_a_bomb_is_left_when_its_ratio_is_beyond_reason() -> None:
    body = bomb(64 << 20)
    plain, unseen = decoded(["gzip"], [body])
    assert unseen is Unseen.RATIO
    assert len(plain) == max(FREE_BYTES, MAX_RATIO * len(body))
    for segments in (cuts(body, range(0, len(body), 1000)), byte_by_byte(body)):
        decoder = BodyDecoder(["gzip"])
        sizes = [len(decoder.receive(segment)) for segment in segments]
        assert decoder.unseen is Unseen.RATIO
        assert sum(sizes) <= max(FREE_BYTES, MAX_RATIO * len(body))
        assert sizes[-1] == 0


def test_a_bomb_in_a_bomb_is_left_as_well() -> None:
    body = gzip.compress(bomb(64 << 20), 9)
    plain, unseen = decoded(["gzip", "gzip"], [body])
    assert (len(plain), unseen) == (FREE_BYTES, Unseen.RATIO)


def test_zeros_that_fit_are_no_bomb() -> None:
    assert decoded(["gzip"], [bomb(FREE_BYTES)]) == (bytes(FREE_BYTES), None)


def test_a_large_body_is_seen_up_to_the_limit() -> None:
    decoder = BodyDecoder(["deflate"])
    deflate = zlib.compressobj(1)
    block = (NOISE * 210)[: 1 << 20]  # repeats within the window, so that it is quick, but no bomb
    given_bytes = sum(len(decoder.receive(deflate.compress(block))) for _ in range((MAX_DECODED_BYTES >> 20) + 2))
    assert (given_bytes, decoder.unseen) == (MAX_DECODED_BYTES, Unseen.SIZE)


def test_members_without_end_are_left() -> None:
    member = gzip.compress(b"")
    assert decoded(["gzip"], [member * MAX_MEMBERS]) == (b"", None)
    assert decoded(["gzip"], [member * (MAX_MEMBERS + 1)]) == (b"", Unseen.DEPTH)


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=9), st.sampled_from(["gzip", "deflate", "raw"]))
def test_segments_do_not_matter(data: bytes, at: list[int], form: str) -> None:
    body = {"gzip": gzip.compress, "deflate": zlib.compress, "raw": raw_deflate}[form](data)
    assert decoded(["gzip" if form == "gzip" else "deflate"], cuts(body, at)) == (data, None)
