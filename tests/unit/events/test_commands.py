"""`mamori events` and `mamori statistics` as people and scripts meet them, while the writer has the database open."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import mamori
from mamori.events.batch import Merger
from mamori.events.commands import FUNCTIONS
from mamori.events.record import Action, Function, TerminalSeen
from mamori.events.schema import VERSION
from mamori.events.store import Store
from mamori.paths import Device
from tests.support.records import MAC, count, event
from tests.support.wait import check_until, patience_s

SOURCE = Path(mamori.__file__).parents[1]
COMMAND = [sys.executable, "-m", "mamori.cli"]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)}

JAPAN_NOON = 1_795_402_800.0
"""2026-11-23 12:00 in Japan: the times below are days and hours from here."""

HOUR_S = 3600.0

FOUND = "  [phishing-jp: phishing]  http to 198.51.100.1"


def run(device: Device, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--root", str(device.root), *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60
    )


def lines(device: Device, *arguments: str) -> list[str]:
    done = run(device, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def seen(device: Device, *arguments: str) -> list[str]:
    """The subjects of the events that a command shows."""
    return [json.loads(line)["subject"] for line in lines(device, "events", "--json", *arguments)]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    device = Device(tmp_path / "root")
    device.data.mkdir(parents=True)
    return device


Fill = Callable[..., None]


@pytest.fixture
def fill(device: Device) -> Iterator[Fill]:
    """Write records; the store stays open to the end, as the writer's does."""
    store = Store(device.events_database, check=False)
    merger = Merger(1_795_000_000.0)

    def fill(*records: object) -> None:
        for record in records:
            merger.add(record, JAPAN_NOON)  # type: ignore[arg-type]
        store.write(merger.take())

    yield fill
    store.close()


@pytest.fixture
def office(fill: Fill) -> None:
    fill(
        TerminalSeen(JAPAN_NOON, MAC, "192.0.2.17", "経理パソコン", "dhcp"),
        event("http://bad.example/x", JAPAN_NOON - 49 * HOUR_S),
        event("http://bad.example/y", JAPAN_NOON - 2 * HOUR_S, detail="100%"),
        event("invoice.zip", JAPAN_NOON - HOUR_S, function=Function.VIRUS, action=Action.UNSEEN, mac="", terminal="192.0.2.99"),
        event("http://1970.example/", 60.0, action=Action.LOGGED, mac="02:00:00:00:00:22", terminal="2001:db8::22"),
        event("http://bad.example/z", JAPAN_NOON, action=Action.LOGGED),
    )


def test_events_are_aligned_lines_in_japanese_time_with_the_terminals_names(device: Device, office: None) -> None:
    assert lines(device, "events") == [
        f"2026-11-21 11:00:00  blocked   dangerous-site  経理パソコン     http://bad.example/x{FOUND}",
        f"2026-11-23 10:00:00  blocked   dangerous-site  経理パソコン     http://bad.example/y{FOUND}  (100%)",
        f"2026-11-23 11:00:00  unseen    virus           192.0.2.99       invoice.zip{FOUND}",
        f"1970-01-01 09:01:00? logged    dangerous-site  2001:db8::22     http://1970.example/{FOUND}",
        f"2026-11-23 12:00:00  logged    dangerous-site  経理パソコン     http://bad.example/z{FOUND}",
    ]


def test_times_can_be_asked_for_in_utc(device: Device, office: None) -> None:
    assert lines(device, "events", "--utc", "--limit", "1")[0].startswith("2026-11-23 03:00:00  logged ")


FILTERS = {
    "a function": (["--function", "virus"], "v"),
    "an action": (["--action", "logged"], "1z"),
    "a MAC address": (["--terminal", MAC.upper().replace(":", "-")], "xyz"),
    "an IP address": (["--terminal", "192.0.2.99"], "v"),
    "an IPv6 address in another spelling": (["--terminal", "2001:DB8:0::22"], "1"),
    "a name": (["--terminal", "経理パソコン"], "xyz"),
    "a name that nobody has": (["--terminal", "経理"], ""),
    "a search": (["--search", "BAD.example"], "xyz"),
    "a search for what is special to SQL": (["--search", "0%"], "y"),
    "a search with a quote": (["--search", "'"], ""),
    "from a day on": (["--since", "2026-11-23"], "yv1z"),
    "from a time on": (["--since", "2026-11-23T11:00"], "v1z"),
    "from a time in UTC": (["--since", "2026-11-23T02:00", "--utc"], "v1z"),
    "before a time": (["--until", "2026-11-23T11:00:00+09:00"], "xy"),
    "before a time after which the clock was wrong": (["--until", "2026-11-23T11:30"], "xyv1"),
    "two conditions": (["--action", "blocked", "--since", "2026-11-22"], "y"),
    "the newest": (["--limit", "2"], "1z"),
}
SHORT = {
    "x": "http://bad.example/x",
    "y": "http://bad.example/y",
    "z": "http://bad.example/z",
    "v": "invoice.zip",
    "1": "http://1970.example/",
}


@pytest.mark.parametrize(("arguments", "expected"), FILTERS.values(), ids=FILTERS)
def test_events_can_be_asked_for_by(device: Device, office: None, arguments: list[str], expected: str) -> None:
    assert seen(device, *arguments) == [SHORT[letter] for letter in expected]


def test_json_has_every_field_on_one_line_and_no_control_characters(device: Device, fill: Fill) -> None:
    nasty = "\x1b]0;owned\x07\r\n\x9b31m\u202egnp.exe\u2028\x7f絵"
    fill(event(nasty, JAPAN_NOON))
    done = run(device, "events", "--json")
    assert json.loads(done.stdout) == {
        "at": "2026-11-23 12:00:00",
        "id": 1,
        "at_s": JAPAN_NOON,
        "last_s": JAPAN_NOON,
        "clock_ok": True,
        "times": 1,
        "function": "dangerous-site",
        "action": "blocked",
        "heading": "outbound",
        "terminal_mac": MAC,
        "terminal_address": "192.0.2.17",
        "terminal_name": "",
        "peer": "198.51.100.1",
        "peer_port": 80,
        "protocol": "http",
        "subject": nasty,
        "list_name": "phishing-jp",
        "category": "phishing",
        "detail": "",
    }
    assert done.stdout.endswith("\n")
    assert done.stdout[:-1].isprintable()


def test_text_off_the_wire_does_nothing_to_a_terminal(device: Device, fill: Fill) -> None:
    fill(event("\x1b[2J\r\n\x9b31m\u202e絵", JAPAN_NOON, detail="\x08\x00"))
    fill(TerminalSeen(JAPAN_NOON, MAC, "192.0.2.17", "\x1b]0;pc\x07", "dhcp"))
    (line,) = lines(device, "events")
    assert line.isprintable()
    assert r"\x1b[2J\x0d\x0a\x9b31m\u202e絵" in line
    assert r"\x1b]0;pc\x07" in line


def test_a_repeated_event_says_how_often(device: Device, fill: Fill) -> None:
    fill(*(event("again", JAPAN_NOON + second) for second in range(3)))
    assert "again  ×3  [" in lines(device, "events")[0]


def on_a_terminal(device: Device, *arguments: str, columns: int, **environment: str) -> str:
    """What a terminal of so many columns gets."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, columns))
    argv = [*COMMAND, "--root", str(device.root), "events", *arguments]
    process = subprocess.Popen(argv, env={**ENVIRONMENT, **environment}, stdout=follower)
    assert process.wait(patience_s(20)) == 0
    os.close(follower)
    text = os.read(leader, 10_000).decode()
    os.close(leader)
    return text.replace("\r\n", "\n")


def test_colour_is_for_terminals_only(device: Device, office: None) -> None:
    assert "\x1b" not in run(device, "events").stdout
    assert "\x1b[31mblocked  \x1b[0m" in on_a_terminal(device, "--limit", "9", "--action", "blocked", columns=200)


def test_on_a_narrow_terminal_what_an_event_is_about_stands_below(device: Device, fill: Fill) -> None:
    fill(
        event("http://bad.example/y", JAPAN_NOON - HOUR_S, detail="100%"),
        replace(event("short", JAPAN_NOON), list_name="", category="", peer=""),
        event("http://bad.example/" + "x" * 100, JAPAN_NOON),
    )
    assert on_a_terminal(device, columns=80, NO_COLOR="1") == (
        "2026-11-23 11:00:00  blocked   dangerous-site  192.0.2.17\n"
        "    http://bad.example/y  [phishing-jp: phishing]  http to 198.51.100.1  (100%)\n"
        "2026-11-23 12:00:00  blocked   dangerous-site  192.0.2.17       short\n"
        "2026-11-23 12:00:00  blocked   dangerous-site  192.0.2.17\n"
        f"    http://bad.example/{'x' * 100}\n"
        "    [phishing-jp: phishing]  http to 198.51.100.1\n"
    )
    for columns in (300, 0):
        assert on_a_terminal(device, columns=columns, NO_COLOR="1").splitlines() == lines(device, "events")


def test_follow_shows_what_comes_in_and_ends_quietly(device: Device, fill: Fill, tmp_path: Path) -> None:
    fill(event("old", JAPAN_NOON), event("other", JAPAN_NOON, function=Function.IPS))
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "--root", str(device.root), "events", "--follow", "--json", "--function", "dangerous-site"],
            env=ENVIRONMENT,
            stdout=out,
            stderr=subprocess.PIPE,
        )

        def shown() -> list[str]:
            return [json.loads(line)["subject"] for line in (tmp_path / "out").read_text().splitlines()]

        try:
            check_until("the first events are shown", lambda: shown() == ["old"], 20)
            fill(event("new", JAPAN_NOON), event("other", JAPAN_NOON + 100, function=Function.IPS))
            check_until("the new event is shown", lambda: shown() == ["old", "new"], 20)
            process.send_signal(signal.SIGINT)
            assert process.wait(patience_s(20)) == 130
            assert process.stderr is not None
            assert process.stderr.read() == b""
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "soon"], "command line: --since: expected an age (30m, 1h, 2d, 1w), a date (2026-11-23) or a time"),
        (["--until", "2026-13-01"], "command line: --until: expected"),
        (["--function", "coffee"], "command line: --function: expected one of ips, virus, "),
        (["--action", "x"], "command line: --action: expected one of blocked, logged, "),
        (["--limit", "0"], "command line: --limit: expected a number of at least 1, got '0'"),
        (["--limit", "１"], "command line: --limit: expected"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_clear_error(device: Device, office: None, arguments: list[str], message: str) -> None:
    done = run(device, "events", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mamori: {message}")


def test_all_wrong_options_are_told_at_once(device: Device, office: None) -> None:
    done = run(device, "events", "--since", "x", "--limit", "x", "--action", "x")
    assert done.stderr.count("command line:") == 3


def test_without_a_database_the_error_says_who_makes_it(device: Device) -> None:
    for command in ("events", "statistics"):
        done = run(device, command)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{device.events_database}: No such file or directory" in done.stderr
        assert "mamori-events.service" in done.stderr


def test_a_database_that_is_none_is_an_error_without_traceback(device: Device) -> None:
    device.events_database.parent.mkdir()
    device.events_database.write_text("no database" * 1000)
    done = run(device, "events")
    assert (done.returncode, done.stderr) == (2, f"mamori: {device.events_database}: file is not a database\n")


def test_a_newer_database_is_an_error_with_both_versions(device: Device) -> None:
    import sqlite3

    device.events_database.parent.mkdir()
    with sqlite3.connect(device.events_database) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    done = run(device, "events")
    assert done.returncode == 2
    assert f"version: expected at most {VERSION}, got {VERSION + 1}" in done.stderr


@pytest.fixture
def traffic(fill: Fill) -> None:
    fill(
        TerminalSeen(JAPAN_NOON, MAC, "192.0.2.17", "tanaka-pc", "dhcp"),
        count(1000, 1, JAPAN_NOON),
        count(500, 0, JAPAN_NOON - HOUR_S, mac="02:00:00:00:00:22", terminal="192.0.2.22"),
        count(234, 2, JAPAN_NOON - 24 * HOUR_S),
        count(20, 20, JAPAN_NOON, function=Function.DANGEROUS_SITE, unit="url", category="phishing"),
        count(7, 0, 60.0),
    )


def test_statistics_are_a_table_by_day(device: Device, traffic: None) -> None:
    assert lines(device, "statistics", "--since", "2026-11-01") == [
        "period      function        of    category  scanned  blocked",
        "2026-11-22  virus           file                234        2",
        "2026-11-23  dangerous-site  url   phishing       20       20",
        "            virus           file              1,500        1",
    ]


def test_statistics_of_one_terminal_by_hour_in_utc(device: Device, traffic: None) -> None:
    assert lines(device, "statistics", "--by", "hour", "--terminal", "tanaka-pc", "--since", "2026-11-22T09:00", "--utc")[1:] == [
        "2026-11-23 03:00  dangerous-site  url   phishing       20       20",
        "                  virus           file              1,000        1",
    ]


@pytest.mark.parametrize(("span", "period"), [("week", ["2026-W47", "2026-W48"]), ("month", ["2026-11"])])
def test_statistics_by_longer_spans_sum_the_days_up(device: Device, traffic: None, span: str, period: list[str]) -> None:
    got = [json.loads(line) for line in lines(device, "statistics", "--by", span, "--since", "2026-11-01", "--json")]
    assert sorted({line["period"] for line in got}) == period
    assert sum(line["scanned"] for line in got if line["function"] == "virus") == 1734


def test_counts_without_a_time_are_shown_to_who_asks_for_all(device: Device, traffic: None) -> None:
    assert lines(device, "statistics", "--since", "1970-01-01T09:00")[1].split() == ["clock", "unknown", "virus", "file", "7", "0"]


def test_a_span_that_does_not_exist_is_one_clear_error(device: Device, traffic: None) -> None:
    done = run(device, "statistics", "--by", "year")
    assert (done.returncode, done.stderr) == (2, "mamori: command line: --by: expected one of hour, day, week, month, got 'year'\n")


def loaded_by(code: str) -> set[str]:
    """The modules that a new interpreter has after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


def test_other_commands_do_not_pay_for_the_database() -> None:
    loaded = loaded_by("from mamori.cli import _parser; _parser()")
    assert "mamori.events.commands" in loaded
    assert loaded & {"sqlite3", "mamori.events.query", "mamori.events.store", "mamori.events.record"} == set()


def test_the_options_of_these_commands_cost_no_import_of_their_own() -> None:
    before = loaded_by("from __future__ import annotations; import argparse, os, sys, collections.abc, typing, mamori")
    assert loaded_by("import mamori.events.commands") - before == {"mamori.events", "mamori.events.commands"}


def test_the_help_names_every_function() -> None:
    assert list(FUNCTIONS) == [function.value for function in Function]
