"""What an appliance is told, and what it has of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mamori.formats.offer import Channel, decode_offer, encode_offer
from mamori.formats.problems import BadInputError
from mamori.update.settings import DAY_S, Settings, load_identity, read_settings, seconds_of_day, seconds_until, share_of
from tests.support.update_world import make_offer

NOON = 20_000 * DAY_S + DAY_S // 2


@pytest.mark.parametrize(
    ("second", "pause_s"),
    [
        pytest.param(DAY_S // 2 + 7200, 7200, id="in two hours"),
        pytest.param(DAY_S // 2 - 7200, DAY_S - 7200, id="two hours ago: tomorrow"),
        pytest.param(DAY_S // 2 + 60, DAY_S + 60, id="in a minute: tomorrow, for it was asked just now"),
        pytest.param(DAY_S // 2, DAY_S, id="now"),
    ],
)
def test_a_box_asks_at_its_own_time_of_the_day(second: int, pause_s: int) -> None:
    assert seconds_until(second, NOON) == pause_s


def test_boxes_ask_at_different_times_and_are_first_in_turn() -> None:
    names = [f"{number:032x}" for number in range(200)]
    assert len({seconds_of_day(name) // 3600 for name in names}) == 24
    assert 40 < sum(share_of(name, "2026.12.0") < 50 for name in names) / 2 < 60
    assert any(share_of(name, "2026.12.0") < 50 <= share_of(name, "2026.12.1") for name in names)


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "identity/id"
    assert load_identity(path) == load_identity(path)
    path.write_text("garbage")
    assert load_identity(path) == path.read_text().strip()


def test_an_identity_that_cannot_be_kept_lasts_until_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("a file is in the way")
    first, second = load_identity(tmp_path / "identity/id"), load_identity(tmp_path / "identity/id")
    assert len(first) == 32
    assert first != second


def test_settings_have_defaults_and_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    assert read_settings(path) == Settings()
    path.write_text('url = "https://u.example.com/mamori"\nchannel = "beta"\npin = "2026.12.0"\nrate_kbit_s = 0\n')
    assert read_settings(path) == Settings("https://u.example.com/mamori", Channel.BETA, "2026.12.0", 0)
    assert read_settings(path).bytes_per_s is None
    path.write_text('url = "file:///etc"\nchanel = "beta"\n')
    with pytest.raises(BadInputError) as caught:
        read_settings(path)
    assert "did you mean" in str(caught.value)
    assert "an http or https URL" in str(caught.value)


def test_an_offer_of_a_newer_repository_is_understood() -> None:
    """Appliances that refused what they do not know could never get the release that knows it."""
    offer = make_offer("2026.12.0")
    table = encode_offer(offer)
    table["more"] = {"of": "it"}
    table["notes"] = {**table["notes"], "fr": "réparé"}
    table["waves"] = [{**wave, "region": "kanto"} for wave in table["waves"]]
    assert decode_offer(table, "offer") == offer
    with pytest.raises(BadInputError):
        decode_offer({**table, "format": 2}, "offer")
    with pytest.raises(BadInputError):
        decode_offer({**table, "waves": [7]}, "offer")
