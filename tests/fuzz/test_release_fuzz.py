"""A release file is a release or raises its one error."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st

from mamori.formats.problems import BadInputError
from mamori.formats.release import Anchor, Base, Bridge, EarlyBridge, Release, Update, Variant, decode, encode

WORDS = st.text("ab0-_", max_size=8).map(lambda rest: f"x{rest}")
LINES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
SUBJECTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)

RELEASES = st.builds(
    Release,
    product=LINES,
    version=st.builds(
        "{}.{}.{}{}".format, st.integers(2020, 2099), st.integers(1, 12), st.integers(0, 999), st.sampled_from(["", "+g0a1"])
    ),
    recipe=WORDS,
    board=WORDS,
    base=st.sampled_from(Base),
    variant=st.sampled_from(Variant),
    build_time=st.integers(1_600_000_000, 253_402_300_799),
    source_commit=st.binary(min_size=20, max_size=20).map(bytes.hex),
    features=st.lists(WORDS, max_size=5).map(tuple),
    update=st.builds(Update, compatible=LINES),
    early_bridge=st.sampled_from(EarlyBridge),
    bridge=st.permutations(["br0", "wan", "lan", "eth0"]).map(lambda names: Bridge(names[0], tuple(names[1:3]))),
    anchors=st.lists(st.builds(Anchor, role=WORDS, subject=SUBJECTS, sha256=HASHES), max_size=3).map(tuple),
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(RELEASES)
def test_a_release_survives_its_file(release: Release) -> None:
    assert decode(encode(release), "f") == release


@given(st.binary(max_size=200))
def test_any_bytes_are_a_release_or_the_one_error(content: bytes) -> None:
    with contextlib.suppress(BadInputError):
        release = decode(content, "f")
        assert decode(encode(release), "f") == release


@given(RELEASES, st.data())
def test_any_value_in_any_place_is_a_release_or_the_one_error(release: Release, data: st.DataObject) -> None:
    table = json.loads(encode(release))
    table[data.draw(st.sampled_from(sorted(table)))] = data.draw(JSON)
    with contextlib.suppress(BadInputError):
        assert isinstance(decode(json.dumps(table).encode(), "f"), Release)


@given(RELEASES, st.data())
def test_a_damaged_file_is_a_release_or_the_one_error(release: Release, data: st.DataObject) -> None:
    content = bytearray(encode(release))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadInputError):
        damaged = decode(bytes(content), "f")
        assert decode(encode(damaged), "f") == damaged
