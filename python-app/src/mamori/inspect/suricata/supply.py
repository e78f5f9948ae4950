"""What the signature engine is given: its configuration and its rules, on disk, tested, so that it can start with them at any time.

    policy, *.rules of the feeds and of the image, own networks ─▶ suricata.yaml ─▶ active.rules, tested ─▶ active.json

The last says what the rules were made of, so that a box that starts does not test again what it has tested before: that takes a
small processor a minute. Each of the files is replaced whole, and a power cut between two of them costs a test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mamori.durable import write_durably
from mamori.inspect.policy import Ips, Mode
from mamori.inspect.policy_file import Identity, file_identity
from mamori.inspect.suricata.config import Facts, render_config
from mamori.inspect.suricata.rules import Tally, prepare_rules
from mamori.inspect.suricata.ruleset import RulesetError, Taken, Test, take_rules

MAX_FEED_BYTES = 64 << 20
"""One file of rules: ET Open's is 25 MB."""

MAX_FEEDS = 64


@dataclass(frozen=True)
class Wanted:
    """What the supply is to be made of: `release` because another image may bring another Suricata, `feeds` because they change."""

    release: str
    ips: Ips
    facts: Facts
    feeds: tuple[tuple[Path, Identity], ...]


@dataclass(frozen=True)
class Supplied:
    """What came of it. `new_config` takes a new start of Suricata, `new_rules` a reload. `problem` is why the new rules were not
    taken, or a feed not read; "" if all went well. `counts` is a rules.Tally as a mapping."""

    new_config: bool = False
    new_rules: bool = False
    rules: int = 0
    refused: int = 0
    problem: str = ""
    counts: dict[str, Any] = field(default_factory=dict)


def find_feeds(folders: Iterable[Path]) -> tuple[tuple[Path, Identity], ...]:
    """The files of rules in the folders, in the order of their names, with what changes when they do."""
    found = []
    for folder in folders:
        for path in sorted(folder.glob("*.rules")):
            identity = file_identity(path)
            if identity is not None and path.is_file():
                found.append((path, identity))
    return tuple(found[:MAX_FEEDS])


def supply(wanted: Wanted, test: Test) -> Supplied:
    """Bring the files up to date. OSError when the disk does not take them; the old ones are whole then."""
    paths = wanted.facts.paths
    new_config = _replace_if_new(paths.config, render_config(wanted.facts).encode())
    if wanted.ips.mode is Mode.OFF:
        return Supplied(new_config)
    problems: list[str] = []
    tally = Tally()
    lines = list(prepare_rules(_read_feeds(wanted.feeds, problems), wanted.ips, tally))
    made_of = {"lines": _digest(lines), "release": wanted.release}
    record = paths.rules.with_suffix(".json")
    before = _read_record(record)
    taken: Taken | None = None
    if before is not None and before["made_of"] == made_of and paths.rules.is_file():
        taken = Taken(before["rules"], before["refused"])
        new_rules = False
    else:
        try:
            taken = take_rules(lines, paths.rules, test)
        except RulesetError as error:
            problems.insert(0, str(error))
        else:
            write_durably(record, json.dumps({"made_of": made_of, **asdict(taken)}).encode())
        new_rules = taken is not None
    if taken is None:
        old = before or {"rules": 0, "refused": 0}
        taken = Taken(old["rules"], old["refused"])
    return Supplied(new_config, new_rules, taken.rules, taken.refused, "; ".join(problems), asdict(tally))


def _replace_if_new(path: Path, content: bytes) -> bool:
    try:
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        pass
    write_durably(path, content)
    return True


def _read_feeds(feeds: Iterable[tuple[Path, Identity]], problems: list[str]) -> Iterator[str]:
    """The lines of all of them; one that cannot be read is left out, and told."""
    for path, _ in feeds:
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FEED_BYTES + 1)
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}")
            continue
        if len(content) > MAX_FEED_BYTES:
            problems.append(f"{path}: more than {MAX_FEED_BYTES} bytes, left out")
            continue
        yield from content.decode(errors="replace").split("\n")


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read_record(path: Path) -> dict[str, Any] | None:
    """What active.rules was made of; None if nobody can say."""
    try:
        record = json.loads(path.read_bytes())
        return {"made_of": record["made_of"], "rules": int(record["rules"]), "refused": int(record["refused"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
