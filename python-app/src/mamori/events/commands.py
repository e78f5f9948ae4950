"""The commands `events`, `statistics` and `events-writer`: options here, the work in the modules that they import when they run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from enum import Enum

    from mamori.events.query import EventQuery, StoredEvent

    _E = TypeVar("_E", bound=Enum)

DEFAULT_LIMIT = 100

FUNCTIONS = ("ips", "virus", "dangerous-site", "category", "application", "address", "evasion", "system")
"""Those of record.Function, for the help text: it must not cost every command the import. A test compares."""

FOLLOW_EVERY_S = 1.0
"""The writer writes no more often."""

FOLLOW_LIMIT = 1000
"""Events of one look; more come with the next one at once."""

Write = Callable[[str], None]
Log = Callable[[int, str], None]


def add_commands(commands: Any, write: Write, log: Log) -> None:
    """Add the three commands to argparse's subparsers. `write` puts text on the console at once, `log` takes a syslog level and a
    line."""
    events = commands.add_parser(
        "events",
        allow_abbrev=False,
        help="what happened, to whom",
        description="What happened, to whom: the newest events, oldest first.",
    )
    _add_common(events)
    events.add_argument("--function", default="", metavar="NAME", help=f"{', '.join(FUNCTIONS[:-1])} or {FUNCTIONS[-1]}")
    events.add_argument("--action", default="", metavar="NAME", help="blocked, logged, allowed, unseen or reported")
    events.add_argument("--search", default="", metavar="TEXT", help="a part of a URL, a file, a peer, a list, a detail")
    events.add_argument("--limit", default=str(DEFAULT_LIMIT), metavar="N", help=f"the newest N (default: {DEFAULT_LIMIT})")
    events.add_argument("--follow", action="store_true", help="go on with what comes in")
    events.set_defaults(run=lambda options: _events(options, write))

    statistics = commands.add_parser(
        "statistics",
        allow_abbrev=False,
        help="how much was looked at and blocked",
        description="How much was looked at and blocked, by function and category. Days are Japan's.",
    )
    _add_common(statistics)
    statistics.add_argument("--by", default="day", metavar="SPAN", help="hour, day (default), week or month")
    statistics.set_defaults(run=lambda options: _statistics(options, write))

    writer = commands.add_parser("events-writer", allow_abbrev=False, help="run the service that stores events")
    writer.set_defaults(run=lambda options: _writer(options, log))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", default="", metavar="WHEN", help="an age (30m, 1h, 2d, 1w) or time (2026-11-23, 2026-11-23T18:30)"
    )
    parser.add_argument("--until", default="", metavar="WHEN", help="the same; what is before it")
    parser.add_argument("--terminal", default="", metavar="WHO", help="a computer's MAC address, IP address or name")
    parser.add_argument("--utc", action="store_true", help="times in UTC (default: Japan)")
    parser.add_argument("--json", action="store_true", help="one JSON object for each line")


def _events(options: argparse.Namespace, write: Write) -> None:
    import time
    from dataclasses import replace

    from mamori.events.query import open_database, read_events
    from mamori.events.render import render_events, render_events_json
    from mamori.paths import Device

    zone = _zone(options)
    query, limit = _event_query(options, time.time(), zone)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    columns = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0

    def render(events: list[StoredEvent]) -> str:
        # A serial console may say that it has no columns at all.
        return (
            render_events_json(events, zone)
            if options.json
            else render_events(events, zone, colour=colour, terminal_columns=columns or None)
        )

    with open_database(Device(options.root).events_database) as database:
        events = read_events(database, query, limit)
        while True:
            write(render(events))
            if not options.follow:
                return
            query = replace(query, after=max([query.after, *(event.id for event in events)]))
            if len(events) < FOLLOW_LIMIT:
                time.sleep(FOLLOW_EVERY_S)
            events = read_events(database, query, FOLLOW_LIMIT)


def _statistics(options: argparse.Namespace, write: Write) -> None:
    import time

    from mamori.events.query import Span, open_database, read_sums
    from mamori.events.render import render_statistics, render_statistics_json, sum_up
    from mamori.events.times import parse_time
    from mamori.paths import Device

    zone, now_s = _zone(options), time.time()
    span = _choice(Span, options.by, "--by")
    default = {Span.HOUR: "1d", Span.DAY: "31d", Span.WEEK: "12w", Span.MONTH: "366d"}[span]
    since_s = parse_time(options.since or default, "--since", now_s, zone)
    until_s = parse_time(options.until, "--until", now_s, zone) if options.until else float("inf")
    with open_database(Device(options.root).events_database) as database:
        statistics = sum_up(read_sums(database, span, since_s, until_s, options.terminal), span, zone)
    write(render_statistics_json(statistics) if options.json else render_statistics(statistics))


def _writer(options: argparse.Namespace, log: Log) -> None:
    from mamori.events.service import run_writer
    from mamori.paths import Device
    from mamori.status import read_release

    device = Device(options.root)
    run_writer(device.events_socket, device.events_database, read_release(device).build_time, log)


def _zone(options: argparse.Namespace) -> Any:
    import datetime

    from mamori.events.times import japan

    return datetime.UTC if options.utc else japan()


def _event_query(options: argparse.Namespace, now_s: float, zone: Any) -> tuple[EventQuery, int]:
    """What the options ask for. BadInputError names everything that is wrong with them."""
    from mamori.events.query import EventQuery
    from mamori.events.record import Action, Function
    from mamori.events.times import parse_time
    from mamori.formats.problems import BadInputError, Problem

    problems: list[Problem] = []

    def read(parse: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return parse(*arguments)
        except BadInputError as error:
            problems.extend(error.problems)

    query = EventQuery(
        since_s=read(parse_time, options.since, "--since", now_s, zone) if options.since else None,
        until_s=read(parse_time, options.until, "--until", now_s, zone) if options.until else None,
        function=read(_choice, Function, options.function, "--function") if options.function else None,
        action=read(_choice, Action, options.action, "--action") if options.action else None,
        terminal=options.terminal,
        search=options.search,
    )
    limit = options.limit
    if not (limit.isascii() and limit.isdigit() and 1 <= len(limit) <= 9 and int(limit)):
        problems.append(Problem("command line", "--limit", "a number of at least 1", repr(limit)))
    if problems:
        raise BadInputError(problems)
    return query, int(limit)


def _choice(choices: type[_E], word: str, option: str) -> _E:
    from mamori.formats.problems import BadInputError, Problem

    for choice in choices:
        if choice.value == word:
            return choice
    expected = f"one of {', '.join(str(choice.value) for choice in choices)}"
    raise BadInputError([Problem("command line", option, expected, repr(word))])
