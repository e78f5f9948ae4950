"""What people write when they release: dates, waves and notes, read into the parts of an offer. Everything wrong in one report."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

from mamori.formats import strict
from mamori.formats.offer import MAX_NOTES_CHARACTERS, Channel, Offer, ReleaseNotes, Wave, encode_offer
from mamori.formats.problems import BadInputError, MamoriError, Problem
from mamori.formats.version import VersionError, VersionOrder

SOURCE = "command line"

JAPAN = timezone(timedelta(hours=9), "JST")
"""Where the offices are. Japan has had no summer time since 1951."""

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?)?", re.ASCII)
_TIME_EXAMPLES = "a date like 2026-12-01, which begins in Japan, or a time like 2026-12-01T09:30 (Japan) or 2026-12-01T00:30Z"
_WAVE_EXAMPLE = "waves like 10@2026-12-01,100@2026-12-05: percent, and from when"
_NOTES_HINT = "a folder with ja.txt and en.txt (or .md), or a TOML file with the texts `ja` and `en`"
_MAX_NOTES_BYTES = 16 * MAX_NOTES_CHARACTERS


@dataclass(frozen=True)
class Asked:
    """A release as its engineer wants it; times in Unix seconds. `minimum_version` None: as the release before had it."""

    channel: Channel
    notice_at: int
    activate_after: int
    activate_before: int
    waves: tuple[Wave, ...]
    notes: ReleaseNotes
    minimum_version: str | None = None


def parse_asked(
    *, channel: str, notice: str, activate_after: str, activate_before: str, waves: str, notes: str, minimum_version: str = ""
) -> Asked:
    """The options of `./inv release`; no waves: everybody from the notice on. BadInputError names everything that is wrong."""
    problems: list[Problem] = []
    chosen = _channel(channel, problems)
    times = [
        _time(option, text, problems)
        for option, text in (("--notice", notice), ("--activate-after", activate_after), ("--activate-before", activate_before))
    ]
    found_waves = _waves(waves, problems) if waves else (Wave(100, times[0]),)
    texts = _notes(notes, problems)
    if minimum_version:
        _version(minimum_version, problems)
    if problems or texts is None:
        raise BadInputError(problems)
    return Asked(chosen, times[0], times[1], times[2], found_waves, texts, minimum_version or None)


def make_offer(asked: Asked, *, version: str, compatible: str, manifest_hash: str, before: Offer | None, now: int) -> Offer:
    """The offer of this bundle; `before` is the present release of the channel. BadInputError for what appliances would refuse,
    and for what none of them could ever do."""
    offer = Offer(
        version=version,
        compatible=compatible,
        manifest_hash=manifest_hash,
        channel=asked.channel,
        minimum_version=asked.minimum_version or (before.minimum_version if before else version.partition("+")[0]),
        waves=asked.waves,
        notice_at=asked.notice_at,
        activate_after=asked.activate_after,
        activate_before=asked.activate_before,
        notes=asked.notes,
    )
    problems = list(_impossible(offer, before, now))
    if problems:
        raise BadInputError(problems)
    encode_offer(offer)
    return offer


def parse_time(text: str) -> int:
    """Unix seconds; ValueError for what is no time."""
    if _TIME.fullmatch(text) is None:
        raise ValueError(text)
    time = datetime.fromisoformat(text)
    return int((time if time.tzinfo else time.replace(tzinfo=JAPAN)).timestamp())


def show_time(at: int) -> str:
    """As people in Japan read it."""
    return f"{datetime.fromtimestamp(at, JAPAN):%Y-%m-%d %H:%M}"


def show_waves(waves: Iterable[Wave]) -> str:
    return ", ".join(f"{wave.percent} % from {show_time(wave.after)}" for wave in waves)


def _impossible(offer: Offer, before: Offer | None, now: int) -> Iterable[Problem]:
    times = (
        ("--notice", offer.notice_at),
        ("--activate-after", offer.activate_after),
        ("--activate-before", offer.activate_before),
    )
    for (_, earlier), (option, later) in pairwise(times):
        if later < earlier or (option == "--activate-before" and later == earlier):
            yield Problem(SOURCE, option, f"a time after {show_time(earlier)}", show_time(later))
    if offer.activate_before <= now:
        yield Problem(SOURCE, "--activate-before", "a time to come", show_time(offer.activate_before))
    for wave in offer.waves:
        if wave.after >= offer.activate_before:
            got = f"{wave.percent}@{show_time(wave.after)}"
            yield Problem(SOURCE, "--waves", "waves that begin before the window ends", got)
    if before is not None and VersionOrder(offer.minimum_version) < VersionOrder(before.minimum_version):
        expected = f"at least {before.minimum_version}, as {before.version} has it: it only moves up"
        yield Problem(SOURCE, "--minimum-version", expected, offer.minimum_version)


def _channel(text: str, problems: list[Problem]) -> Channel:
    try:
        return Channel(text)
    except ValueError:
        problems.append(Problem(SOURCE, "--channel", f"one of {', '.join(one.value for one in Channel)}", repr(text)))
        return Channel.STABLE


def _time(option: str, text: str, problems: list[Problem]) -> int:
    try:
        return parse_time(text)
    except ValueError:
        problems.append(Problem(SOURCE, option, _TIME_EXAMPLES, repr(text) if text else "nothing"))
        return 0


def _version(text: str, problems: list[Problem]) -> None:
    try:
        VersionOrder(text)
    except VersionError:
        problems.append(Problem(SOURCE, "--minimum-version", "a version like 2026.11.0", repr(text)))


def _waves(text: str, problems: list[Problem]) -> tuple[Wave, ...]:
    waves = []
    for part in text.split(","):
        percent, _, start = part.strip().partition("@")
        try:
            if re.fullmatch(r"[1-9]\d{0,2}", percent, re.ASCII) is None or int(percent) > 100:
                raise ValueError(percent)
            waves.append(Wave(int(percent), parse_time(start)))
        except ValueError:
            problems.append(Problem(SOURCE, "--waves", _WAVE_EXAMPLE, repr(part.strip())))
    return tuple(waves)


def _notes(text: str, problems: list[Problem]) -> ReleaseNotes | None:
    if not text:
        problems.append(Problem(SOURCE, "--notes", "where the release notes are", "nothing", _NOTES_HINT))
        return None
    path = Path(text)
    try:
        return _notes_of_folder(path) if path.is_dir() else _notes_of_file(path)
    except BadInputError as error:
        problems.extend(error.problems)
    except MamoriError as error:
        problems.append(Problem(SOURCE, "--notes", "a folder or a file that can be read", error.message, _NOTES_HINT))
    return None


def _notes_of_file(path: Path) -> ReleaseNotes:
    table = strict.read_toml(path)
    return strict.parse(
        ReleaseNotes, {name: _tidy(text) if isinstance(text, str) else text for name, text in table.items()}, str(path)
    )


def _notes_of_folder(path: Path) -> ReleaseNotes:
    problems: list[Problem] = []
    texts = {}
    for language in (field.name for field in fields(ReleaseNotes)):
        files = [found for found in (path / f"{language}.txt", path / f"{language}.md") if found.is_file()]
        if len(files) != 1:
            got = "both" if files else "neither"
            problems.append(
                Problem(str(path), language, f"the notes in {language}.txt or {language}.md", got, "both languages are required")
            )
            continue
        try:
            with files[0].open("rb") as file:
                texts[language] = _tidy(file.read(_MAX_NOTES_BYTES).decode("utf-8-sig"))
        except OSError as error:
            problems.append(Problem(str(files[0]), language, "a file that can be read", str(error.strerror)))
        except UnicodeDecodeError:
            problems.append(Problem(str(files[0]), language, "text in UTF-8", "something else, or too much of it"))
    if problems:
        raise BadInputError(problems)
    return strict.parse(ReleaseNotes, texts, str(path))


def _tidy(text: str) -> str:
    """One kind of line end, and nothing around it."""
    return text.replace("\r\n", "\n").strip()


def now_utc() -> int:
    return int(datetime.now(UTC).timestamp())
