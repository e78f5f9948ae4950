"""What the signature engine is given: when it is made anew, tested, refused, and what a power cut leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mamori.durable import put_in_place
from mamori.inspect.policy import Ips, Mode
from mamori.inspect.suricata import supply as module
from mamori.inspect.suricata.config import Facts, Paths, home_networks
from mamori.inspect.suricata.supply import MAX_FEED_BYTES, Supplied, Wanted, find_feeds, supply

RULE = 'alert tcp any any -> any any (msg:"{0}"; content:"{0}"; classtype:trojan-activity; sid:{1};)\n'


class Suricata:
    """Says yes or no to a candidate, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.says = (0, "")

    def __call__(self, candidate: Path) -> tuple[int, str]:
        assert candidate.read_text().startswith("drop ")
        self.asked += 1
        return self.says


@pytest.fixture
def feeds(tmp_path: Path) -> Path:
    folder = tmp_path / "feeds"
    folder.mkdir()
    (folder / "one.rules").write_text(RULE.format("first", 1))
    return folder


@pytest.fixture
def want(tmp_path: Path, feeds: Path) -> Callable[..., Wanted]:
    (tmp_path / "data/suricata").mkdir(parents=True)
    facts = Facts(2048, home_networks(), Paths.below(tmp_path))

    def want(release: str = "2026.11.0", ips: Ips | None = None) -> Wanted:
        return Wanted(release, ips or Ips(), facts, find_feeds([feeds]))

    return want


def test_the_first_supply_makes_all_files_and_the_next_one_none(want: Callable[..., Wanted]) -> None:
    suricata = Suricata()
    first = supply(want(), suricata)
    assert (first.new_config, first.new_rules, first.rules, first.refused, first.problem) == (True, True, 1, 0, "")
    assert first.counts["dropping"] == 1
    assert supply(want(), suricata) == replace(first, new_config=False, new_rules=False)
    assert suricata.asked == 1


def test_what_is_new_is_tested_and_what_another_image_brings_too(want: Callable[..., Wanted], feeds: Path) -> None:
    suricata = Suricata()
    supply(want(), suricata)
    (feeds / "two.rules").write_text(RULE.format("second", 2))
    assert supply(want(), suricata).rules == 2
    assert supply(want(release="2026.12.0"), suricata).new_rules is True
    assert suricata.asked == 3


def test_a_set_that_is_refused_leaves_the_old_one(want: Callable[..., Wanted], feeds: Path) -> None:
    suricata = Suricata()
    supply(want(), suricata)
    active = want().facts.paths.rules
    before = active.read_bytes()
    (feeds / "two.rules").write_text(RULE.format("second", 2))
    suricata.says = 1, "E: detect: something is wrong"
    refused = supply(want(), suricata)
    assert (refused.new_rules, refused.rules) == (False, 1)
    assert "something is wrong" in refused.problem
    assert active.read_bytes() == before
    suricata.says = 0, ""
    assert supply(want(), suricata).rules == 2


def test_with_signatures_off_nothing_is_tested_and_the_rules_stay(want: Callable[..., Wanted]) -> None:
    suricata = Suricata()
    supply(want(), suricata)
    assert supply(want(ips=Ips(mode=Mode.OFF)), suricata) == Supplied()
    assert want().facts.paths.rules.exists()


def test_a_feed_that_is_none_is_left_out_and_told(want: Callable[..., Wanted], feeds: Path) -> None:
    (feeds / "folder.rules").mkdir()
    os.mkfifo(feeds / "pipe.rules")
    (feeds / "gone.rules").symlink_to("nowhere")
    huge = feeds / "huge.rules"
    with huge.open("wb") as file:
        file.truncate(MAX_FEED_BYTES + 1)
    wanted = want()
    assert [path.name for path, _ in wanted.feeds] == ["huge.rules", "one.rules"]
    (feeds / "one.rules").unlink()
    (feeds / "two.rules").write_text(RULE.format("second", 2))
    done = supply(replace(wanted, feeds=(*wanted.feeds, *find_feeds([feeds])[-1:])), Suricata())
    assert done.rules == 1
    assert "huge.rules: more than" in done.problem
    assert "one.rules: cannot be read: No such file" in done.problem


@pytest.mark.parametrize("content", [b"", b"[]", b'{"made_of": 1}', b'{"made_of": {}, "rules": "x", "refused": 0}', b"\xff"])
def test_a_damaged_record_costs_a_test_and_no_more(want: Callable[..., Wanted], content: bytes) -> None:
    suricata = Suricata()
    supply(want(), suricata)
    want().facts.paths.rules.with_suffix(".json").write_bytes(content)
    assert supply(want(), suricata).new_rules is True
    assert suricata.asked == 2


@pytest.mark.parametrize("survived", range(4))
def test_a_power_cut_after_any_write_costs_a_test_and_no_rules(
    want: Callable[..., Wanted], feeds: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Of four writes (configuration, rules, record, all done) so many are on the disk when the power goes."""
    supply(want(), Suricata())
    paths = want().facts.paths
    (feeds / "one.rules").write_text(RULE.format("other", 3))
    changed = replace(want(), facts=replace(want().facts, memory_mib=8192))
    done: list[Path] = []

    class PowerCutError(Exception):
        pass

    def cut(write: Callable[..., None], place: int) -> Callable[..., None]:
        def write_or_die(*arguments: object) -> None:
            if len(done) == survived:
                raise PowerCutError
            done.append(arguments[place])  # type: ignore[arg-type]
            write(*arguments)

        return write_or_die

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_durably", cut(module.write_durably, 0))
        patched.setattr("mamori.inspect.suricata.ruleset.put_in_place", cut(put_in_place, 1))
        if survived < 3:
            with pytest.raises(PowerCutError):
                supply(changed, Suricata())
        else:
            supply(changed, Suricata())
            assert done == [paths.config, paths.rules, paths.rules.with_suffix(".json")]
    assert paths.rules.read_text().count("\n") == 1, "the old rules or the new ones, whole"
    again = supply(changed, Suricata())
    assert (again.rules, again.problem) == (1, "")
    assert '"other"' in paths.rules.read_text()
    assert again.new_rules is (survived < 3)
