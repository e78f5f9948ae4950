"""The status for people: short aligned lines. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mamori.events.escape import printable

_LABEL_WIDTH = 12

FALLBACK_DATABASE = "Mamori.Database.Fallback"
"""What the image's own virus signatures call themselves (overlay, clamd-fallback)."""

SHOWN_PROBLEMS = 8
"""Lines on what is wrong with the policy: more would push the rest off a screen of 24."""

OLD_LISTS_DAYS = 3
"""Feeds come several times a day; a weekend without any is news."""


class Tone(enum.Enum):
    """How a line feels, as an SGR colour (ECMA-48, 8.3.117)."""

    GOOD = "32"
    POOR = "33"
    BAD = "31"
    PLAIN = ""


def render_status(status: Mapping[str, Any], *, colour: bool) -> str:
    """The lines of `mamori.status.read_status`, each with a newline."""
    return "".join(f"{label:<{_LABEL_WIDTH}}{_painted(text, tone, colour)}\n" for label, text, tone in _lines(status))


def _painted(text: str, tone: Tone, colour: bool) -> str:
    return f"\x1b[{tone.value}m{text}\x1b[0m" if colour and tone is not Tone.PLAIN else text


def _lines(status: Mapping[str, Any]) -> Iterator[tuple[str, str, Tone]]:
    describe: dict[str, tuple[str, Callable[[Any], tuple[str, Tone]]]] = {
        "release": ("release", _release),
        "slot": ("slot", _slot),
        "root": ("root", _root),
        "secure_boot": ("secure boot", _secure_boot),
        "bridge": ("bridge", _bridge),
        "inspect": ("inspection", _inspect),
        "signatures": ("signatures", _signatures),
        "lists": ("lists", _lists),
        "events": ("events", _events),
        "update": ("update", _update),
        "data": ("data", _data),
        "uptime_s": ("uptime", _uptime),
        "clock": ("clock", _clock),
    }
    for part, (label, words) in describe.items():
        if status[part] is None:
            yield label, status["unreadable"][part].replace("\n", " "), Tone.BAD
        else:
            yield label, *words(status[part])
    packets = (status["inspect"] or {}).get("packets")
    if packets:
        yield "  workers", *_workers(packets)
        yield "  viruses", *_scanner(packets)
        if packets["policy_problem"]:
            yield from _policy_problems(packets["policy_problem"])
    if status["bridge"]:
        for port in status["bridge"]["ports"]:
            yield f"  {port['name']}", *_port(port)


def _policy_problems(text: str) -> Iterator[tuple[str, str, Tone]]:
    """A line for each, the first ones; the report has all of them (`mamori status --json`)."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for at, line in enumerate(lines[:SHOWN_PROBLEMS]):
        yield "" if at else "  policy", printable(line), Tone.BAD
    if len(lines) > SHOWN_PROBLEMS:
        yield "", f"and {len(lines) - SHOWN_PROBLEMS} lines more", Tone.BAD


def _release(part: Mapping[str, Any]) -> tuple[str, Tone]:
    return f"{part['product']} {part['version']} ({part['variant']}, {part['board']}, {part['base']})", Tone.PLAIN


def _slot(part: str) -> tuple[str, Tone]:
    return part, Tone.PLAIN


def _root(part: Mapping[str, Any]) -> tuple[str, Tone]:
    words = f"{'verified' if part['verified'] else 'NOT verified'}, {'read-only' if part['read_only'] else 'WRITABLE'}"
    return f"{words}, {part['hash'][:12]}", Tone.GOOD if part["verified"] and part["read_only"] else Tone.BAD


def _secure_boot(part: bool) -> tuple[str, Tone]:
    return ("on", Tone.GOOD) if part else ("OFF", Tone.BAD)


def _bridge(part: Mapping[str, Any]) -> tuple[str, Tone]:
    tone = {"forwarding": Tone.GOOD, "waiting": Tone.POOR}.get(part["condition"], Tone.BAD)
    return part["text"], tone


def _port(port: Mapping[str, Any]) -> tuple[str, Tone]:
    if "mac" not in port:
        return port["condition"], Tone.BAD
    tone = {"forwarding": Tone.GOOD, "no carrier": Tone.POOR}.get(port["condition"], Tone.BAD)
    return f"{port['condition']}, {port['mac']}, in {_size(port['rx_bytes'])}, out {_size(port['tx_bytes'])}", tone


def _inspect(part: Mapping[str, Any]) -> tuple[str, Tone]:
    if not part["running"]:
        return f"no news for {part['age_s']:.0f} s; last: {part['text']}", Tone.BAD
    return f"running: {part['text']}", Tone.GOOD


def _workers(part: Mapping[str, Any]) -> tuple[str, Tone]:
    wanted, lost = part["workers_wanted"], part["overrun"]
    text = f"{part['workers']} of {wanted}, {part['flows']} connections, {part['received']} packets"
    if part["list_records"]:
        text += f", {part['list_records']} names and URLs"
    if lost:
        text += f", {lost} {'passed unseen' if part['fail_open'] else 'dropped'} for want of time"
    if part["bugs"]:
        text += f", {part['bugs']} bugs"
    return text, Tone.GOOD if part["workers"] == wanted and not part["bugs"] else Tone.BAD


def _scanner(part: Mapping[str, Any]) -> tuple[str, Tone]:
    if part["scanner"] == "up" and part["scanner_database"] == FALLBACK_DATABASE:
        return "only known hashes and the test virus: no feed has come", Tone.POOR
    if part["scanner"] == "up":
        return "scanned", Tone.GOOD
    return f"only known hashes: the scanner is {part['scanner']}", Tone.POOR


def _signatures(part: Mapping[str, Any]) -> tuple[str, Tone]:
    """One line; what a feed's author should know is in the events."""
    if part["condition"] == "absent":
        return "no signature engine on this box", Tone.POOR
    if part["condition"] == "off":
        return "off, as the policy says", Tone.PLAIN
    text = f"the engine is {part['condition']}, {part['rules']} rules, {part['alerts']} alerts"
    if part["is_preparing"]:
        text += ", new rules are being tested"
    if part["problem"]:
        text += f"; the new rules were refused: {part['problem']}".replace("\n", " ")
    return text, Tone.GOOD if part["condition"] == "up" and not part["problem"] else Tone.BAD


def _lists(part: Mapping[str, Any]) -> tuple[str, Tone]:
    if part["age_s"] is None:
        return "none: no feed has come", Tone.POOR
    days = part["age_s"] // 86400
    return f"{days} days old" if days else "of the last day", Tone.GOOD if days < OLD_LISTS_DAYS else Tone.POOR


def _events(part: Mapping[str, Any]) -> tuple[str, Tone]:
    return f"written, {_size(part['size_bytes'])}", Tone.GOOD


def _update(part: Mapping[str, Any]) -> tuple[str, Tone]:
    """One line: what the owner should do, and what is wrong. An update that wants something is no trouble."""
    text = " ".join(part["next_en"].split())
    if part["progress_percent"] is not None:
        text += f" ({part['progress_percent']} %)"
    if part["problem"]:
        text += f" Trouble: {' '.join(part['problem'].split())}"
    return printable(text), Tone.POOR if part["problem"] or part["phase"] in ("armed", "trial") else Tone.GOOD


def _data(part: Mapping[str, Any]) -> tuple[str, Tone]:
    if part["read_only"]:
        return "mounted READ-ONLY", Tone.BAD
    return f"{_size(part['free_bytes'])} free of {_size(part['size_bytes'])}", Tone.GOOD


def _uptime(part: float) -> tuple[str, Tone]:
    minutes, seconds = divmod(int(part), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02}:{minutes:02}:{seconds:02}", Tone.PLAIN


def _clock(part: Mapping[str, Any]) -> tuple[str, Tone]:
    return ("after the build time", Tone.GOOD) if part["sane"] else ("BEFORE the build time: the clock forgot the time", Tone.BAD)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
