"""What people read: every kind of notice in both languages, with dates in Japan, queued until somebody sends it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mamori.formats.bootstate import Slot
from mamori.update.notices import MAX_QUEUED, notice_text, phase_text, queue_notice
from mamori.update.words import Journal, NoticeKind, Phase, Tell
from tests.support.update_world import make_offer

# 2026-12-05 18:00 UTC is the 6th in Japan.
OFFER = make_offer("2026.12.0", activate_after=1_796_493_600)


@pytest.mark.parametrize("kind", NoticeKind, ids=lambda kind: kind.value)
def test_a_notice_names_the_version_in_both_languages(kind: NoticeKind) -> None:
    text = notice_text(Tell(kind, OFFER, "検査が動きません"))
    assert "2026.12.0" in text.ja
    assert "2026.12.0" in text.en
    assert re.search("[ぁ-ん]", text.ja)
    assert not re.search("[ぁ-ん]", text.en.replace("検査が動きません", ""))


def test_ready_says_when_and_for_how_long_the_plug_is_to_be_pulled() -> None:
    text = notice_text(Tell(NoticeKind.READY, OFFER))
    assert "2026年12月6日 03:00" in text.ja
    assert "5秒間" in text.ja
    assert "6 December 2026, 03:00" in text.en
    assert "13 December 2026, 03:00" in text.en
    assert "five seconds" in text.en


def test_what_changes_is_in_the_notices_that_tell_of_it() -> None:
    for kind in (NoticeKind.ANNOUNCED, NoticeKind.DONE):
        text = notice_text(Tell(kind, OFFER))
        assert OFFER.notes.ja in text.ja
        assert OFFER.notes.en in text.en


def test_a_failure_says_why_and_that_nothing_needs_to_be_done() -> None:
    text = notice_text(Tell(NoticeKind.FAILED, OFFER, "the bridge does not forward"))
    assert "the bridge does not forward" in text.en
    assert "nothing needs to be done" in text.en
    assert "していただくことはありません" in text.ja


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.value)
def test_every_phase_says_what_comes_next(phase: Phase) -> None:
    journal = Journal() if phase is Phase.IDLE else Journal(phase=phase, offer=OFFER, slot=Slot.B)
    text = phase_text(journal)
    assert text.ja.endswith("。")
    assert ("2026.12.0" in text.en) == (phase is not Phase.IDLE)


def test_a_problem_is_shown_while_it_is_tried_again() -> None:
    journal = replace(Journal(phase=Phase.AVAILABLE, offer=OFFER), problem="no line")
    assert "(last time: no line)" in phase_text(journal).en


def test_notices_wait_in_order_and_the_oldest_go_when_nobody_fetches_them(tmp_path: Path) -> None:
    folder = tmp_path / "notices"
    for number in range(MAX_QUEUED + 5):
        queue_notice(folder, Tell(NoticeKind.READY, make_offer(f"2026.12.{number}")), 1_796_000_000 + number)
    queued = sorted(folder.glob("*.json"))
    assert len(queued) == MAX_QUEUED
    versions = [json.loads(path.read_text())["version"] for path in queued]
    assert versions == [f"2026.12.{number}" for number in range(5, MAX_QUEUED + 5)]
    queued[-1].unlink()
    assert queue_notice(folder, Tell(NoticeKind.DONE, OFFER), 1).name > queued[-2].name
