"""What people are told, in Japanese and English: notices, and what each state means for them. Pure but for the queue's files.

A notice lies in the queue's folder, one JSON file each, until whoever sends mail has sent it. Times are those of Japan, where every
office is; the country has no summer time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from mamori.durable import write_durably
from mamori.update.words import Journal, NoticeKind, Phase, Tell

JAPAN = timezone(timedelta(hours=9))

MAX_QUEUED = 100
"""Notices that nobody has fetched: the oldest go."""

_NUMBER_DIGITS = 12


@dataclass(frozen=True)
class Text:
    """The same in both languages."""

    ja: str
    en: str


def notice_text(tell: Tell) -> Text:
    """A notice's words."""
    offer, version = tell.offer, tell.offer.version
    after, before = (_when(time) for time in (offer.activate_after, offer.activate_before))
    notes = offer.notes
    match tell.kind:
        case NoticeKind.ANNOUNCED:
            return Text(
                f"新しいバージョン {version} を準備しています。{after.ja} になりましたら、切り替えのお願いをお知らせします。"
                f"今は何もしていただく必要はありません。\n\n変更点:\n{notes.ja}",
                f"Version {version} is being prepared. From {after.en} on you will be asked to activate it. Nothing needs to be "
                f"done now.\n\nWhat changes:\n{notes.en}",
            )
        case NoticeKind.READY:
            return Text(
                f"バージョン {version} の準備ができました。{after.ja} から {before.ja} までの間のご都合のよいときに、"
                "電源プラグを5秒間抜いて、もう一度差し込んでください。インターネットは1分ほど切れます。",
                f"Version {version} is ready. Any time between {after.en} and {before.en}, unplug the box for five seconds and "
                "plug it in again. The internet is away for about a minute.",
            )
        case NoticeKind.OVERDUE:
            return Text(
                f"バージョン {version} への切り替えがまだです。電源プラグを5秒間抜いて、もう一度差し込んでください。",
                f"Version {version} is still waiting. Please unplug the box for five seconds and plug it in again.",
            )
        case NoticeKind.DONE:
            return Text(
                f"バージョン {version} になりました。\n\n変更点:\n{notes.ja}",
                f"This is version {version} now.\n\nWhat changed:\n{notes.en}",
            )
        case NoticeKind.FAILED:
            return Text(
                f"バージョン {version} にはできませんでした。今までのバージョンで動いています。"
                f"していただくことはありません。理由: {tell.reason}",
                f"Version {version} could not be activated. The box runs on its old version; nothing needs to be done. "
                f"Reason: {tell.reason}",
            )


def phase_text(journal: Journal) -> Text:
    """What happens next, and what the owner should do."""
    offer = journal.offer
    if offer is None:
        return Text("最新の状態です。", "Up to date. Nothing needs to be done.")
    version = offer.version
    match journal.phase:
        case Phase.AVAILABLE | Phase.STAGING:
            problem_ja = f"(前回: {journal.problem})" if journal.problem else ""
            problem_en = f" (last time: {journal.problem})" if journal.problem else ""
            return Text(
                f"バージョン {version} を取り込んでいます{problem_ja}。していただくことはありません。",
                f"Version {version} is being fetched{problem_en}. Nothing needs to be done.",
            )
        case Phase.STAGED:
            when = _when(offer.activate_after)
            return Text(
                f"バージョン {version} の準備ができています。{when.ja} より前に電源が切れても切り替わりません。",
                f"Version {version} is staged. Before {when.en} a power cycle does not activate it.",
            )
        case Phase.ARMED:
            return notice_text(Tell(NoticeKind.READY, offer))
        case _:
            return Text(
                f"バージョン {version} を試しています。電源を抜かないでください。",
                f"Version {version} is on trial. Please leave the box plugged in.",
            )


def queue_notice(folder: Path, tell: Tell, now: int) -> Path:
    """Put the notice into the queue, durably; the oldest go when there are too many."""
    folder.mkdir(parents=True, exist_ok=True)
    queued = sorted(folder.glob("*.json"))
    for path in queued[: max(0, len(queued) - MAX_QUEUED + 1)]:
        path.unlink(missing_ok=True)
    number = int(queued[-1].stem) + 1 if queued and queued[-1].stem.isdigit() else 1
    text = notice_text(tell)
    content = {"kind": tell.kind.value, "version": tell.offer.version, "at": now, "ja": text.ja, "en": text.en}
    path = folder / f"{number:0{_NUMBER_DIGITS}}.json"
    write_durably(path, json.dumps(content, ensure_ascii=False, indent=1).encode())
    return path


def _when(time: int) -> Text:
    at = datetime.fromtimestamp(time, JAPAN)
    return Text(f"{at.year}年{at.month}月{at.day}日 {at:%H:%M}", f"{at:%-d %B %Y, %H:%M}")
