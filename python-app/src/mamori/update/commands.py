"""`mamori update …`: asks the updater over its socket, and shows what it says. `service` is the updater itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mamori.events.escape import printable
from mamori.formats.problems import MamoriError
from mamori.paths import Device

ANSWER_WITHIN_S = 10.0
_MAX_ANSWER_BYTES = 1 << 20

Write = Callable[[str], None]
Log = Callable[[int, str], None]

_VERBS = {
    "check": "ask the repository now",
    "stage": "do not wait for the next attempt to stage",
    "arm": "open this box's window now: the next power cycle activates",
    "confirm": "confirm the trial without waiting for the health gate",
}
"""What each has done when it comes back; the rest goes on by itself."""


class NoUpdaterError(MamoriError):
    """The updater does not answer."""


def add_commands(commands: Any, write: Write, log: Log) -> None:
    """The verb `update` and those below it. `commands` is what argparse's add_subparsers gives."""
    update = commands.add_parser("update", help="firmware updates: how far they are, and what to do").add_subparsers(
        required=True, metavar="COMMAND"
    )
    status = update.add_parser("status", allow_abbrev=False, help="what runs, what comes, and what the owner should do")
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(run=lambda options: _status(options, write))
    history = update.add_parser("history", allow_abbrev=False, help="what became of releases, the newest last")
    history.add_argument("--json", action="store_true", help="one JSON object a line")
    history.set_defaults(run=lambda options: _history(options, write))
    for verb, help_text in _VERBS.items():
        parser = update.add_parser(verb, allow_abbrev=False, help=help_text)
        parser.add_argument("--json", action="store_true", help="one JSON object")
        parser.set_defaults(run=lambda options, verb=verb: _order(options, verb, write))
    service = update.add_parser("service", allow_abbrev=False)  # the unit starts it; no help, no promise
    service.set_defaults(run=lambda options: _service(options, log))


def add_reset(commands: Any, write: Write, log: Log) -> None:
    """`factory-reset`, which a person asks for, and `clear-data`, which a unit does early at the next start."""
    reset = commands.add_parser("factory-reset", allow_abbrev=False, help="clear all data but identity at the next start")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    reset.add_argument("--why", default="console", metavar="WORDS", help="what the event will say (default: console)")
    reset.set_defaults(run=lambda options: _reset(options, write))
    clear = commands.add_parser("clear-data", allow_abbrev=False)  # mamori-reset.service runs it; no help, no promise
    clear.set_defaults(run=lambda options: _clear(options, write, log))


def _reset(options: argparse.Namespace, write: Write) -> None:
    import sys
    import time

    from mamori.update.reset import mark_reset

    if not options.yes:
        write("All settings, lists and events of this box go at its next start. Type yes to go on: ")
        if sys.stdin.readline().strip() != "yes":
            raise MamoriError("nothing was done")
    mark_reset(Device(options.root), options.why, int(time.time()))
    write("marked: the next start clears the data. Unplug the box for five seconds, or run systemctl reboot.\n")


def _clear(options: argparse.Namespace, write: Write, log: Log) -> None:
    from mamori.update.reset import clear_data

    gone = sum(1 for _ in clear_data(Device(options.root)))
    if gone:
        log(5, f"factory reset: {gone} files and folders are gone")
        write("the data is cleared\n")


def ask(path: Path, command: str) -> dict[str, Any]:
    """The updater's answer. MamoriError with its reason when it says no."""
    import json
    import socket

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(ANSWER_WITHIN_S)
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": command}).encode())
            data = bytearray()
            while not data.endswith(b"\n") and len(data) < _MAX_ANSWER_BYTES:
                more = connection.recv(65536)
                if not more:
                    break
                data += more
        answer = json.loads(data)
    except PermissionError:
        raise NoUpdaterError(f"{path}: only root and the group mamori-update may ask") from None
    except (OSError, ValueError) as error:
        raise NoUpdaterError(f"the updater does not answer: {error}", "systemctl status mamori-update") from None
    if not isinstance(answer, dict) or not answer.get("ok"):
        problem = answer.get("problem") if isinstance(answer, dict) else answer
        raise MamoriError(str(problem))
    return answer


def render_status(status: Mapping[str, Any]) -> str:
    """For people, each line with a newline."""
    lines = [("version", str(status["version"])), ("state", str(status["phase"]))]
    if status["offered"]:
        source = status.get("source")
        lines.append(
            ("offered", f"{status['offered']}{', from a USB stick' if source == 'usb' else f', from {source}' if source else ''}")
        )
        lines.append(("window", f"{_when(status['activate_after'])} to {_when(status['activate_before'])}"))
    if status["progress_percent"] is not None:
        lines.append(("staging", f"{status['progress_percent']} %, {status['fetched_bytes'] / 1e6:.1f} MB fetched"))
    lines.append(("next", str(status["next_en"]).replace("\n", " ")))
    lines.append(("", str(status["next_ja"]).replace("\n", " ")))
    for key, label in (
        ("problem", "last problem"),
        ("check_problem", "repository"),
        ("stick_problem", "USB stick"),
        ("settings_problem", "settings"),
    ):
        if status.get(key):
            lines.append((label, str(status[key]).replace("\n", " ")))
    asked = _when(status["checked_at"]) if status["checked_at"] else "not yet"
    lines.append(("asked", f"{asked}, channel {status['channel']}, {status['url'] or 'no repository is set'}"))
    return "".join(f"{label:<14}{printable(text)}\n" for label, text in lines)


def _status(options: argparse.Namespace, write: Write) -> None:
    import json

    status = ask(_socket(options), "status")["status"]
    write(f"{json.dumps(status, ensure_ascii=False, indent=2)}\n" if options.json else render_status(status))


def _history(options: argparse.Namespace, write: Write) -> None:
    import json

    for outcome in ask(_socket(options), "status")["status"]["history"]:
        if options.json:
            write(f"{json.dumps(outcome, ensure_ascii=False)}\n")
        else:
            reason = f": {printable(outcome['reason'])}" if outcome["reason"] else ""
            write(f"{_when(outcome['at'])}  {outcome['version']}  {outcome['result']}{reason}\n")


def _order(options: argparse.Namespace, verb: str, write: Write) -> None:
    import json

    answer = ask(_socket(options), verb)
    write(f"{json.dumps(answer)}\n" if options.json else f"{_VERBS[verb]}: begun\n")


def _service(options: argparse.Namespace, log: Log) -> None:
    from mamori.status import read_release
    from mamori.update.service import run_service

    device = Device(options.root)
    run_service(device, read_release(device), log)


def _socket(options: argparse.Namespace) -> Path:
    return Device(options.root).update_runtime / "socket"


def _when(time: int) -> str:
    from datetime import datetime

    from mamori.update.notices import JAPAN

    return f"{datetime.fromtimestamp(time, JAPAN):%Y-%m-%d %H:%M}"
