"""The public suffix list (publicsuffix.org): below which names anybody can have one of their own.

An entry `github.io` must not take all of GitHub's users with it. Both sections of the list count: ICANN's (`co.jp`) and the
private one (`github.io`), because for a list of sites they are the same thing.

The format is at https://github.com/publicsuffix/list/wiki/Format.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mamori.inspect.lists.hosts import a_labels, address_of

MAX_SUFFIXES_BYTES = 8 * 1024 * 1024
"""The list has 340 KB in 2026, most of it comments."""

_FIRST, _LAST = "===BEGIN ICANN DOMAINS===", "===END PRIVATE DOMAINS==="
"""The list says itself where it begins and ends. Half a list would let `github.io` match everything below it."""


@dataclass(frozen=True, slots=True)
class Suffixes:
    """`plain` has `co.jp`; `above_any` has `ck` for the rule `*.ck`; `exceptions` has `www.ck` for `!www.ck`. Without rules
    there is only the default one: a single label is a suffix."""

    plain: frozenset[str] = frozenset()
    above_any: frozenset[str] = frozenset()
    exceptions: frozenset[str] = frozenset()

    def __contains__(self, name: str) -> bool:
        """Whether the whole of `name` is a public suffix. So is `kobe.jp` for `*.kobe.jp`, on which the list is silent:
        it is what has other people's names below it that counts here."""
        if name in self.exceptions:
            return False
        _, dot, above = name.partition(".")
        return not dot or name in self.plain or name in self.above_any or above in self.above_any

    def registrable(self, name: str) -> str | None:
        """The part of `name` that somebody registered: a suffix and one label. None for suffixes and addresses."""
        if address_of(name) is not None:
            return None
        labels = name.split(".")
        above = [".".join(labels[at:]) for at in range(len(labels))]
        for suffix in above:
            if suffix in self.exceptions:  # beats every other rule; its suffix is one label shorter
                return suffix
        first = next(at for at, suffix in enumerate(above) if suffix in self)
        return above[first - 1] if first else None

    def rules(self) -> list[str]:
        """The rules as they are written, sorted."""
        return sorted([*self.plain, *(f"*.{name}" for name in self.above_any), *(f"!{name}" for name in self.exceptions)])


def parse_rules(lines: Iterable[str]) -> Suffixes:
    """Rules, one a line up to its first white space; ValueError if one is none."""
    plain, above_any, exceptions = set[str](), set[str](), set[str]()
    for line in lines:
        rule = (line.split(maxsplit=1) or [""])[0]
        if not rule or rule.startswith("//"):
            continue
        if rule.startswith("!"):
            exceptions.add(a_labels(rule[1:]))
        elif rule.startswith("*."):
            above_any.add(a_labels(rule[2:]))
        else:
            plain.add(a_labels(rule))
    if any("*" in name or not name for name in plain | above_any | exceptions):
        raise ValueError("a rule with `*` elsewhere than at its start, or without a name")
    return Suffixes(frozenset(plain), frozenset(above_any), frozenset(exceptions))


def parse_public_suffix_list(text: str) -> Suffixes:
    """The whole list as it is published; ValueError if its beginning or end is missing, or a rule is none."""
    if not 0 <= text.find(_FIRST) < text.find(_LAST):
        raise ValueError(f"not a whole public suffix list: it has {_FIRST} near its start and {_LAST} at its end")
    return parse_rules(text.splitlines())
