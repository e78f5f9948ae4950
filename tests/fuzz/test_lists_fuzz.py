"""Lines, names and files of anybody's making: an entry or its one error, the same answer or its one error."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.http_url import Url, parse_target
from mamori.inspect.lists.entries import Entry, EntryError, parse_entry
from mamori.inspect.lists.hosts import a_labels, address_of, parents
from mamori.inspect.lists.listfile import ListError, ListFile
from mamori.inspect.lists.matcher import EntryMatcher
from mamori.inspect.lists.suffixes import parse_public_suffix_list, parse_rules
from mamori.inspect.names import host_name
from tests.support.lists import RULES, SUFFIXES, compiled

PIECES = ["example", "com", "co", "jp", ".", "。", "/", "=", ":", "80", "?", "#", "%2e", "%", "[", "]", "::1", "192", "0x1", "日本"]
ODD = ["ß", "\u200d", "\u0301", "\\", "*", "http://", "@", "-", "_", " ", "&", "github.io", "a" * 63]
PARTS = st.sampled_from([*PIECES, *ODD])
TEXTS = st.lists(PARTS, max_size=12).map("".join) | st.text(max_size=40)
HOSTS = st.lists(
    st.sampled_from(["a", "example", "com", "github", "io", "ck", "www", "", "1", "\\.", "\\\\", "x" * 90]), max_size=9
).map(".".join)
LISTED = [
    "example.com",
    "=www.example.com",
    "example.com/a/",
    "a.com:81/a/b.html",
    "example.com/p?q=1",
    "github.io",
    "192.0.2.1",
    "ck",
]
QUERIES = ["example.com", "www.example.com", "a.example.com", "a.com", "github.io", "a.github.io", "192.0.2.1", "ck", "none.com"]
PATHS = [("/", ""), ("/a/", ""), ("/a/b.html", "q"), ("/p", "q=1")]


@given(TEXTS)
def test_any_line_is_an_entry_that_matches_itself_or_the_one_error(text: str) -> None:
    with contextlib.suppress(EntryError):
        entry = parse_entry(text)
        assert isinstance(entry, Entry)
        assert entry.host.isascii()
        matcher = EntryMatcher([text], [], RULES)
        url = Url(entry.host, entry.port or 80, entry.path or "/", entry.query)
        assert matcher.matches_url(url)
        assert matcher.matches_name(entry.host) is (not entry.path)


@given(TEXTS)
def test_any_host_is_a_labels_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert a_labels(text).isascii()


@given(
    st.lists(st.sampled_from(["0", "1", "0x", "ff", "08", "377", "256", ".", "..", ":", "::", "4294967296"]), max_size=9).map(
        "".join
    )
)
def test_any_host_is_an_address_that_stays_one_or_none(host: str) -> None:
    address = address_of(host)
    assert address is None or address_of(address) == address


@given(HOSTS | st.binary(max_size=300).map(host_name), st.integers(0, 130))
def test_the_names_above_any_name_are_ends_of_it(name: str, labels: int) -> None:
    above = list(parents(name, labels))
    assert len(above) <= max(labels, 0)
    assert all(name.endswith(f".{parent}") and len(parent) <= 253 for parent in above)
    borders = [found.end() for found in re.finditer(r"\\.|\.", name) if found[0] == "."][:-1]
    assert above == [name[end:] for end in borders[-labels + 1 :] if labels > 1 and len(name) - end <= 253]


@given(st.lists(st.integers(0, len(SUFFIXES) - 1), max_size=8), TEXTS)
def test_any_public_suffix_list_is_rules_or_a_value_error(places: list[int], text: str) -> None:
    damaged = list(SUFFIXES)
    for place in places:
        damaged[place] = text[:1]
    with contextlib.suppress(ValueError):
        rules = parse_public_suffix_list("".join(damaged))
        assert parse_rules(rules.rules()) == rules
        assert rules.registrable(host_name(text.encode())) != ""


@given(st.lists(HOSTS.filter(bool), max_size=5), HOSTS, st.lists(PARTS, max_size=6).map("".join))
def test_a_compiled_file_answers_like_memory(entries: list[str], host: str, target: str) -> None:
    good = []
    for entry in [*entries, *(f"{entry}/a/" for entry in entries)]:
        with contextlib.suppress(EntryError):
            parse_entry(entry)
            good.append(entry)
    with TemporaryDirectory() as folder, ListFile.open(compiled(Path(folder), {"one": good})) as lists:
        matcher = EntryMatcher(good, [], RULES)
        for name in (host, *entries):
            assert bool(lists.lookup_name(name)) is matcher.matches_name(name)
            for url in parse_target("GET", f"/a/{target}", [name.encode().decode("latin-1")]):
                assert bool(lists.lookup_url(url)) is matcher.matches_url(url)


def answers(path: Path) -> list[object]:
    """Everything that can be asked of a file: an answer or "refused" for each."""

    def ask(lookup: object, *arguments: object) -> object:
        try:
            return lookup(*arguments)  # type: ignore[operator]
        except ListError:
            return "refused"

    try:
        lists = ListFile.open(path)
    except ListError:
        return []
    with lists:
        asked = [ask(lists.lookup_name, name) for name in QUERIES]
        asked += [ask(lists.lookup_url, Url(name, 81, *path)) for name in QUERIES for path in PATHS]
        return [*asked, ask(lists.suffixes), lists.lists]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("lists"), {"phishing": LISTED, "category-games": LISTED[::2]})


def check_damage(path: Path, content: bytes, sound: list[object]) -> None:
    path.write_bytes(content)
    damaged = answers(path)
    assert not damaged or [answer for answer, right in zip(damaged, sound, strict=True) if answer not in ("refused", right)] == []
    if damaged and any(answer == "refused" for answer in damaged):
        with ListFile.open(path) as lists, pytest.raises(ListError):
            lists.check()


def test_a_file_damaged_at_any_byte_is_refused_or_answers_the_same(small: Path, tmp_path: Path) -> None:
    content, sound = small.read_bytes(), answers(small)
    assert "refused" not in sound
    random_bits = random.Random(3)  # noqa: S311
    # All that says something, and some of the zeros that fill up the room for the index and the block.
    places = [at for at, byte in enumerate(content) if byte] + [at for at, byte in enumerate(content) if not byte][::17]
    for at in places:
        check_damage(
            tmp_path / "damaged", content[:at] + bytes([content[at] ^ 1 << random_bits.randrange(8)]) + content[at + 1 :], sound
        )


@given(st.data())
def test_a_file_damaged_in_many_places_is_refused_or_answers_the_same(small: Path, data: st.DataObject) -> None:
    content, sound = bytearray(small.read_bytes()), answers(small)
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=5)):
        piece = data.draw(st.binary(max_size=20))
        content[at : at + len(piece)] = piece
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    with TemporaryDirectory() as folder:
        check_damage(Path(folder) / "damaged", bytes(content[:end]), sound)


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_any_file_of_entries_is_compiled_or_refused_with_the_lines(pieces: list[bytes]) -> None:
    from mamori.formats.problems import BadInputError

    with TemporaryDirectory() as folder:
        try:
            file = compiled(Path(folder), {"one": b"\n".join(pieces)})
        except BadInputError as error:
            assert all(problem.key.startswith(("line ", "(all)")) for problem in error.problems)
        else:
            with ListFile.open(file) as lists:
                lists.check()
