"""Event records as a worker makes them, and the moments of their tests."""

from __future__ import annotations

from mamori.events.record import Action, Count, Event, Function, Heading

BUILD_S = 1_795_000_000.0
"""When the release was built: 2026-11-18 11:06:40 in Japan."""

NOW_S = 1_795_400_000.0
"""Some days later: 2026-11-23 02:13:20 in Japan."""

MAC = "02:00:00:00:00:11"


def event(
    subject: str = "http://bad.example/",
    at_s: float = NOW_S,
    *,
    function: Function = Function.DANGEROUS_SITE,
    action: Action = Action.BLOCKED,
    mac: str = MAC,
    terminal: str = "192.0.2.17",
    list_name: str = "phishing-jp",
    detail: str = "",
) -> Event:
    return Event(
        *(at_s, function, action, Heading.OUTBOUND, mac, terminal),
        *("198.51.100.1", 80, "http", subject, list_name, "phishing", detail),
    )


def count(
    scanned: int = 1,
    blocked: int = 0,
    at_s: float = NOW_S,
    *,
    function: Function = Function.VIRUS,
    unit: str = "file",
    mac: str = MAC,
    terminal: str = "192.0.2.17",
    category: str = "",
) -> Count:
    return Count(at_s, function, unit, mac, terminal, category, scanned, blocked)
