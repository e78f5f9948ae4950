"""What people write when they release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from firmware.repository.options import Asked, make_offer, parse_asked, parse_time, show_time, show_waves
from mamori.formats.offer import Channel, Offer, ReleaseNotes, Wave
from mamori.formats.problems import BadInputError

DECEMBER_1 = 1_796_050_800  # 2026-12-01T00:00 in Japan
DAY_S = 86_400
ASKED = Asked(
    Channel.STABLE,
    DECEMBER_1,
    DECEMBER_1 + 2 * DAY_S,
    DECEMBER_1 + 45 * DAY_S,
    (Wave(10, DECEMBER_1), Wave(100, DECEMBER_1 + 4 * DAY_S)),
    ReleaseNotes("直した", "Mended"),
)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "ja.txt").write_bytes("\ufeff直した\r\n".encode())
    (tmp_path / "en.md").write_text("Mended\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "at"),
    [
        pytest.param("2026-12-01", DECEMBER_1, id="a date begins in Japan"),
        pytest.param("2026-12-01T09:30", DECEMBER_1 + 34_200, id="a time is Japan's"),
        pytest.param("2026-12-01T00:00:01", DECEMBER_1 + 1, id="with seconds"),
        pytest.param("2026-11-30T15:00Z", DECEMBER_1, id="a time of the whole world"),
        pytest.param("2026-11-30T10:00-05:00", DECEMBER_1, id="a time of another place"),
        pytest.param("1970-01-01T00:00Z", 0, id="the first second"),
    ],
)
def test_a_time_is_read(text: str, at: int) -> None:
    assert parse_time(text) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2026-13-01",
        "2026-02-30",
        "2026-12-1",
        "20261201",
        "2026-12-01 09:30",
        "2026-W49-2",
        "２０２６-12-01",
        "2026-12-01Z",
    ],
)
def test_what_is_no_time_is_not_guessed(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011, the caller tells what it is for
        parse_time(text)


def test_times_are_shown_as_they_are_in_japan() -> None:
    assert show_time(DECEMBER_1) == "2026-12-01 00:00"
    assert show_waves(ASKED.waves) == "10 % from 2026-12-01 00:00, 100 % from 2026-12-05 00:00"


def test_a_release_is_asked_for(notes: Path) -> None:
    asked = parse_asked(
        channel="stable",
        notice="2026-12-01",
        activate_after="2026-12-03",
        activate_before="2027-01-15",
        waves="10@2026-12-01, 100@2026-12-05",
        notes=str(notes),
    )
    assert asked == ASKED


def test_without_waves_everybody_may_have_it_from_the_notice_on(notes: Path) -> None:
    asked = parse_asked(
        channel="beta",
        notice="2026-12-01",
        activate_after="2026-12-01",
        activate_before="2026-12-02",
        waves="",
        notes=str(notes),
        minimum_version="2026.11.0",
    )
    assert (asked.channel, asked.waves, asked.minimum_version) == (Channel.BETA, (Wave(100, DECEMBER_1),), "2026.11.0")


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_asked(
            channel="stabel",
            notice="",
            activate_after="soon",
            activate_before="2026-12-32",
            waves="10,0@2026-12-01,101@2026-12-02,x@2026-12-03,100@",
            notes=str(tmp_path / "nowhere"),
            minimum_version="v1",
        )
    told = [problem.key for problem in caught.value.problems]
    expected = ["--channel", "--notice", "--activate-after", "--activate-before", "--notes", "--minimum-version", *["--waves"] * 5]
    assert sorted(told) == sorted(expected)


def test_notes_are_a_folder_or_a_file(tmp_path: Path, notes: Path) -> None:
    file = tmp_path / "notes.toml"
    file.write_text('ja = """\n直した\n"""\nen = "Mended"\n')
    for given in (notes, file):
        assert asked_with(given).notes == ReleaseNotes("直した", "Mended")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        pytest.param({"en.txt": b"Mended"}, "ja", id="no Japanese"),
        pytest.param({"ja.txt": "直した".encode()}, "en", id="no English"),
        pytest.param({"ja.txt": "直した".encode(), "en.txt": b" \n"}, "1 to 4000 characters", id="nothing in it"),
        pytest.param({"ja.txt": "直した".encode("shift_jis"), "en.txt": b"Mended"}, "text in UTF-8", id="not UTF-8"),
        pytest.param({"ja.txt": b"x" * 4001, "en.txt": b"Mended"}, "1 to 4000 characters", id="too long"),
        pytest.param({"ja.txt": b"x", "en.txt": b"a\x1b[2J"}, "1 to 4000 characters", id="a terminal's control characters"),
        pytest.param({"ja.txt": b"x", "ja.md": b"y", "en.txt": b"Mended"}, "both", id="two of one language"),
    ],
)
def test_notes_that_lack_something_are_refused(tmp_path: Path, files: dict[str, bytes], told: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInputError, match=told):
        asked_with(tmp_path)


@pytest.mark.parametrize("text", ['ja = "x"', 'ja = "x"\nen = 1', 'ja = "x"\nen = "y"\nfr = "z"', "ja ="])
def test_a_file_of_notes_is_read_strictly(tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.toml").write_text(text)
    with pytest.raises(BadInputError):
        asked_with(tmp_path / "notes.toml")


def test_an_offer_says_what_was_asked() -> None:
    offer = offered()
    assert (offer.version, offer.compatible, offer.manifest_hash) == ("2026.12.0+g123", "mamori-x", "ab" * 32)
    assert (offer.channel, offer.waves, offer.notes) == (ASKED.channel, ASKED.waves, ASKED.notes)
    times = (offer.notice_at, offer.activate_after, offer.activate_before)
    assert times == (ASKED.notice_at, ASKED.activate_after, ASKED.activate_before)


def test_the_minimum_version_stays_unless_it_is_raised() -> None:
    assert offered().minimum_version == "2026.12.0"
    before = replace(offered(), version="2026.11.2", minimum_version="2026.11.1")
    assert offered(before=before).minimum_version == "2026.11.1"
    assert offered(replace(ASKED, minimum_version="2026.12.0"), before=before).minimum_version == "2026.12.0"
    with pytest.raises(BadInputError, match="it only moves up"):
        offered(replace(ASKED, minimum_version="2026.11.0"), before=before)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(
            {"notice_at": ASKED.activate_after + 1}, "--activate-after: expected a time after 2026-12-03", id="no notice before"
        ),
        pytest.param(
            {"activate_before": ASKED.activate_after}, "--activate-before: expected a time after", id="a window of no length"
        ),
        pytest.param(
            {"activate_after": 0, "notice_at": 0, "activate_before": DECEMBER_1 - 2 * DAY_S},
            "a time to come",
            id="a window that is over",
        ),
        pytest.param({"waves": (Wave(100, ASKED.activate_before),)}, "begin before the window ends", id="a wave after the window"),
        pytest.param({"waves": (Wave(99, DECEMBER_1),)}, "a last wave of 100 percent", id="waves that leave some out"),
        pytest.param(
            {"waves": (Wave(50, DECEMBER_1 + 1), Wave(100, DECEMBER_1))}, "later waves with more", id="waves that go back"
        ),
        pytest.param({"minimum_version": "2027.1.0"}, "at most 2026.12.0", id="a minimum above itself"),
    ],
)
def test_an_offer_that_makes_no_sense_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        offered(replace(ASKED, **change))  # type: ignore[arg-type]


def asked_with(notes: Path) -> Asked:
    return parse_asked(
        channel="stable", notice="2026-12-01", activate_after="2026-12-03", activate_before="2027-01-15", waves="", notes=str(notes)
    )


def offered(asked: Asked = ASKED, before: Offer | None = None) -> Offer:
    return make_offer(
        asked, version="2026.12.0+g123", compatible="mamori-x", manifest_hash="ab" * 32, before=before, now=DECEMBER_1 - DAY_S
    )
