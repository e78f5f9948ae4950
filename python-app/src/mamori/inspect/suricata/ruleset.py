"""A new set of rules takes the old one's place: tested first, renamed, loaded while traffic goes on. What fails changes nothing.

    prepared lines ─▶ candidate file ─▶ tested by Suricata itself (and again, without what it refused) ─▶ active file ─▶ reload

Suricata alone would go on with whatever it could read of a new file, and with none of it if there was nothing to read. So a file
becomes the active one only after a test run (`config.check_command`) said yes to every line of it. Who starts that run is not
known here: `test` is given, takes the candidate, and returns the exit code and what Suricata printed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from mamori.durable import put_in_place
from mamori.formats.problems import MamoriError
from mamori.inspect.suricata.control import RulesetStats, SuricataControl

Test = Callable[[Path], tuple[int, str]]

MAX_REFUSED_SHARE = 0.1
"""Of a set. A feed for another version of Suricata has a few rules that this one does not know; more is a broken feed."""
RELOAD_WITHIN_S = 120.0
"""30,000 rules take 5 s of a desktop's processor; a small box has a tenth of it, and traffic goes first."""
POLL_S = 0.2

_REFUSED = re.compile(r'error parsing signature ".*" from file (.*) at line ([0-9]+)$', re.MULTILINE)


class RulesetError(MamoriError):
    """The new rules were not taken; the old ones stay."""


@dataclass(frozen=True)
class Taken:
    """How many rules the active file has now, and how many Suricata refused."""

    rules: int
    refused: int


def take_rules(lines: Iterable[str], active: Path, test: Test) -> Taken:
    """Make the prepared `lines` the file `active`. RulesetError when the test says no to them as a whole, or there is none.

    The candidate lies beside the active file, so that the change is one rename; it is gone afterwards, whatever happens.
    """
    candidate = active.with_name(f"candidate-{active.name}")
    try:
        total = _write(candidate, lines)
        if not total:
            raise RulesetError("suricata: the new set has no rules")
        code, said = test(candidate)
        refused = refused_lines(said, candidate) if code else frozenset()
        if refused and len(refused) <= max(1, MAX_REFUSED_SHARE * total) and len(refused) < total:
            _remove_lines(candidate, refused)
            code, said = test(candidate)
        if code:
            raise RulesetError(f"suricata: the new set did not pass its test: {_last_words(said)}")
        put_in_place(candidate, active)
    finally:
        candidate.unlink(missing_ok=True)
    return Taken(total - len(refused), len(refused))


def reload(control: SuricataControl, within_s: float = RELOAD_WITHIN_S) -> RulesetStats:
    """Have the active file loaded, and wait until it is. RulesetError when that takes too long, or no rule is there then.

    Packets are inspected with the old rules meanwhile.
    """
    deadline, before = time.monotonic() + within_s, control.reloaded_at()
    control.reload_rules()
    while control.reloaded_at() == before:
        if time.monotonic() > deadline:
            raise RulesetError(f"suricata: the rules were not loaded within {within_s:g} s")
        time.sleep(POLL_S)
    stats = control.ruleset_stats()
    if not stats.loaded:
        raise RulesetError("suricata: no rule is loaded")
    return stats


def refused_lines(said: str, candidate: Path) -> frozenset[int]:
    """The lines of the candidate that a test run's words name, from 1 on. A rule's text stands in these words too, so a rule could
    name other lines; it would only take itself and them out, and its feed is signed."""
    return frozenset(int(line[:9]) for file, line in _REFUSED.findall(said) if file == str(candidate))


def _write(candidate: Path, lines: Iterable[str]) -> int:
    total = 0
    with candidate.open("w", encoding="utf-8", errors="surrogateescape") as file:
        for line in lines:
            file.write(line)
            total += 1
    return total


def _remove_lines(path: Path, numbers: Collection[int]) -> None:
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for number, line in enumerate(lines, start=1) if number not in numbers))


def _last_words(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.startswith(("E:", "Error"))] or said.strip().splitlines()
    return " | ".join(lines[-3:])[:1000] or "it said nothing"
