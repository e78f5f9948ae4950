"""The journal comes back as it was, or is told to be none; and a power cut leaves the old one or the new one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.formats.bootstate import Slot
from mamori.formats.problems import MamoriError
from mamori.update.journal import decode_journal, encode_journal, load_journal, read_journal, save_journal
from mamori.update.words import Journal, NoticeKind, Outcome, Phase, Result
from tests.support.update_world import make_offer

ARMED = Journal(
    phase=Phase.ARMED,
    offer=make_offer("2026.12.0"),
    length=123_456_789,
    slot=Slot.B,
    since=1_800_000_000,
    attempts=2,
    retry_at=1_800_000_060,
    problem="the line is down",
    is_armed=True,
    told=(NoticeKind.ANNOUNCED, NoticeKind.READY),
    refused=("2026.11.9",),
    minimum_version="2026.1.0",
    history=(Outcome("2026.11.9", Result.ROLLED_BACK, 1_799_000_000, "検査が動きません"),),
)


@pytest.mark.parametrize("journal", [Journal(), ARMED], ids=["new", "armed"])
def test_a_journal_comes_back_as_it_was(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "update/journal.json"
    save_journal(path, journal)
    assert load_journal(path) == (journal, "")


@given(st.text(max_size=50), st.integers(0, 10**12), st.sampled_from(Result))
def test_whatever_a_reason_is_it_comes_back_or_is_made_readable(reason: str, at: int, result: Result) -> None:
    journal = replace(ARMED, history=(Outcome("2026.11.9", result, at, reason),))
    back = decode_journal(encode_journal(journal), "journal")
    assert back.history[0].reason == reason.encode(errors="replace").decode()


def changed(**changes: object) -> bytes:
    return json.dumps({**json.loads(encode_journal(ARMED)), **changes}).encode()


BAD = {
    "nothing": b"",
    "half of it": encode_journal(ARMED)[:500],
    "no object": b"[]",
    "another format": changed(format=2),
    "an unknown phase": changed(phase="flying"),
    "a slot that is none": changed(slot="c"),
    "a phase without its release": changed(offer=None),
    "a release without a phase": changed(phase="idle"),
    "an offer that is none": changed(offer={"format": 1}),
    "an offer of another kind": changed(offer=7),
    "a version that is none": changed(refused=["newest"]),
    "numbers too large": changed(length=1 << 70),
    "nested": b"[" * 100_000,
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_journal_is_told_set_aside_and_replaced_by_a_new_one(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(content)
    with pytest.raises(MamoriError):
        read_journal(path)
    journal, problem = load_journal(path)
    assert journal == Journal()
    assert str(path) in problem
    assert not path.exists()
    assert path.with_suffix(".bad").read_bytes() == content


def test_what_a_newer_image_added_before_it_was_rolled_back_is_passed_over(tmp_path: Path) -> None:
    """Above all the versions that are not to be tried again must not get lost."""
    path = tmp_path / "journal.json"
    told = [*(kind.value for kind in ARMED.told), "sung"]
    outcomes = json.loads(encode_journal(ARMED))["history"]
    new = {"version": "2027.1.0", "result": "postponed", "at": 1, "reason": ""}
    offer = {**json.loads(encode_journal(ARMED))["offer"], "more": 1}
    path.write_bytes(changed(more={"of": "it"}, told=told, history=[*({**one, "more": 1} for one in outcomes), new], offer=offer))
    assert read_journal(path) == ARMED


def test_a_journal_of_the_image_before_has_no_source(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(json.dumps({k: v for k, v in json.loads(encode_journal(ARMED)).items() if k != "source"}).encode())
    assert read_journal(path) == replace(ARMED, source="")


def test_a_full_disk_leaves_the_old_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    save_journal(path, ARMED)
    (tmp_path / ".journal.json.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        save_journal(path, Journal())
    assert read_journal(path) == ARMED
