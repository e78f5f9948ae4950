"""The semantics of lists over a few entries in memory: what the owner allows and blocks."""

from __future__ import annotations

from collections.abc import Sequence

from mamori.formats.problems import BadInputError, Problem
from mamori.inspect.http_url import Url
from mamori.inspect.lists.entries import Entry, EntryError, parse_entry
from mamori.inspect.lists.matching import Bounds, find_name, find_url, narrowed, tagged_texts, widened
from mamori.inspect.lists.suffixes import Suffixes


class EntryMatcher:
    """`names` and `urls` are entries as lists have them, which is more than the policy's schema lets through.

    Without `suffixes` only a single label matches exactly; an owner's `github.io` then means all below it.
    """

    def __init__(self, names: Sequence[str], urls: Sequence[str], suffixes: Suffixes | None = None, source: str = "policy") -> None:
        """BadInputError tells every entry that is none, as `names[0]` or `urls[0]` of `source`."""
        suffixes = suffixes or Suffixes()
        problems: list[Problem] = []
        self._tags: dict[str, tuple[int, ...]] = {}
        self._bounds = Bounds()
        for key, texts in (("names", names), ("urls", urls)):
            for at, text in enumerate(texts):
                try:
                    self._add(parse_entry(text), suffixes)
                except EntryError as error:
                    problems.append(Problem(source, f"{key}[{at}]", error.expected, error.got))
        if problems:
            raise BadInputError(problems)

    def matches_name(self, name: str) -> bool:
        """Whether an entry of a name matches `name`, as names.host_name writes it."""
        return bool(self._tags) and next(find_name(self._table, self._bounds, name), None) is not None

    def matches_url(self, url: Url) -> bool:
        """Whether an entry matches the URL or its host."""
        return bool(self._tags) and next(find_url(self._table, self._bounds, url), None) is not None

    def _add(self, entry: Entry, suffixes: Suffixes) -> None:
        for text, mark in tagged_texts(narrowed(entry, suffixes)):
            self._tags[text] = (*self._tags.get(text, ()), mark)
        self._bounds = widened(self._bounds, entry)

    def _table(self, text: str) -> tuple[int, ...]:
        return self._tags.get(text, ())
