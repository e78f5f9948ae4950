"""The command `mamori`: the device's console. The only module of the application that prints or chooses an exit code.

Imports are where they are used: under slow emulation, and on each call of a health check, start-up time is what counts.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0, or 2 with a message for what is not the code's fault. A bug keeps its traceback (exit code 1)."""
    from mamori.formats.problems import MamoriError

    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except MamoriError as error:
        sys.stderr.write(f"mamori: {error}\n")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough; else the interpreter complains once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return 0


def _parser() -> argparse.ArgumentParser:
    from mamori import __version__

    parser = argparse.ArgumentParser(prog="mamori", description="The application of a Mamori appliance.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"mamori {__version__}")
    parser.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="look at another file system (default: /)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    status = commands.add_parser("status", allow_abbrev=False, help="how this appliance is")
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(run=_status)

    inspect = commands.add_parser("inspect", allow_abbrev=False, help="run the inspection service, or inspect a capture")
    inspect.add_argument("--watch-only", action="store_true", help="watch the bridge, and leave its packets alone")
    inspect.add_argument("--pcap", type=Path, metavar="FILE", help="inspect a capture (pcap, pcapng) instead, and print JSON lines")
    offline = inspect.add_argument_group("with --pcap")
    offline.add_argument("--policy", type=Path, metavar="FILE", help="the policy (default: the built-in one)")
    offline.add_argument("--lists", type=Path, metavar="FILE", help="names and URLs, from `mamori lists compile` (default: none)")
    offline.add_argument("--hashes", type=Path, metavar="FILE", help="compiled hashes of harmful files (default: none)")
    inspect.set_defaults(run=_inspect, parser=inspect)

    worker = commands.add_parser("inspect-worker", allow_abbrev=False)  # the service starts it; no help, no promise
    worker.add_argument("--number", type=int, required=True)
    worker.set_defaults(run=_inspect_worker)

    backend = commands.add_parser("boot-backend", allow_abbrev=False)  # RAUC calls it; no help, no promise
    backend.add_argument("words", nargs="+")
    backend.set_defaults(run=_boot_backend)

    clock = commands.add_parser("clock-floor", allow_abbrev=False)  # a unit runs it early; no help, no promise
    clock.set_defaults(run=_clock_floor)

    keeper = commands.add_parser("signatures-keeper", allow_abbrev=False, help="run the keeper of the signature engine")
    keeper.add_argument("--program", default="suricata", metavar="FILE", help="Suricata (default: suricata, as it is installed)")
    keeper.set_defaults(run=_signatures_keeper)

    from mamori.events.commands import add_commands as add_events
    from mamori.inspect.lists.commands import add_commands as add_lists
    from mamori.inspect.scan.commands import add_commands as add_hashes
    from mamori.update.commands import add_commands as add_update
    from mamori.update.commands import add_reset

    add_events(commands, _write, _log)
    add_lists(commands, _write)
    add_update(commands, _write, _log)
    add_reset(commands, _write, _log)
    add_hashes(commands, _write)

    policy = commands.add_parser("policy", help="the owner's policy").add_subparsers(required=True, metavar="COMMAND")
    check = policy.add_parser("check", allow_abbrev=False, help="say what is wrong with a policy before it counts")
    check.add_argument("file", type=Path, nargs="?", metavar="FILE", help="the file (default: that of the appliance)")
    check.set_defaults(run=_check_policy)

    boot_state = commands.add_parser("boot-state", help="the boot loader's state").add_subparsers(required=True, metavar="COMMAND")
    show = boot_state.add_parser("show", allow_abbrev=False, help="which slot starts next, and why")
    show.add_argument("--json", action="store_true", help="one JSON object")
    show.add_argument("files", nargs="*", type=Path, metavar="FILE", help="the two copies (default: the partition's)")
    show.set_defaults(run=_show_boot_state, parser=show)
    return parser


def _status(options: argparse.Namespace) -> None:
    import time

    from mamori.paths import Device
    from mamori.status import read_status

    status = read_status(Device(options.root), time.time(), time.monotonic())
    if options.json:
        _write_json(status)
        return
    from mamori.status_text import render_status

    sys.stdout.write(render_status(status, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ))


def _inspect(options: argparse.Namespace) -> None:
    from mamori.inspect.service import run_inspection
    from mamori.paths import Device
    from mamori.status import read_release

    if options.pcap is not None:
        _replay(options)
        return
    if options.policy or options.lists or options.hashes:
        options.parser.error("--policy, --lists and --hashes go with --pcap: the service takes those of the appliance")
    from mamori.formats.release import EarlyBridge
    from mamori.inspect.guard import Guard

    device = Device(options.root)
    release = read_release(device)
    fail_open = release.early_bridge is EarlyBridge.FORWARD
    guard = None if options.watch_only else Guard(device, fail_open=fail_open, inside=release.bridge.ports[1], log=_log)
    run_inspection(device, release.bridge, _log, guard)


def _inspect_worker(options: argparse.Namespace) -> None:
    from mamori.inspect.worker import run_device_worker
    from mamori.paths import Device
    from mamori.status import read_release

    device = Device(options.root)
    run_device_worker(device, read_release(device), options.number, _log)


def _clock_floor(options: argparse.Namespace) -> None:
    from mamori.paths import Device
    from mamori.status import read_release
    from mamori.update.clockfloor import raise_clock, read_floor

    device = Device(options.root)
    if raise_clock(read_floor(read_release(device).build_time, device.update / "clock")):
        _log(4, "the clock had forgotten the time: it is set to the latest that is known")


def _boot_backend(options: argparse.Namespace) -> None:
    from mamori.paths import Device
    from mamori.update.backend import answer

    said = answer(Device(options.root), options.words)
    sys.stdout.write(f"{said}\n" if said else "")


def _signatures_keeper(options: argparse.Namespace) -> None:
    from mamori.inspect.suricata.keeper import KeeperSettings, run_keeper
    from mamori.paths import Device
    from mamori.status import read_release

    device = Device(options.root)
    release = read_release(device)
    run_keeper(KeeperSettings(device, release.bridge.name, release.version, options.program), _log)


def _replay(options: argparse.Namespace) -> None:
    from mamori.inspect.replay import replay_capture

    if options.watch_only:
        options.parser.error("--watch-only and --pcap: only one of them")
    for line in replay_capture(options.pcap, options.policy, options.lists, options.hashes):
        sys.stdout.write(f"{line}\n")


def _check_policy(options: argparse.Namespace) -> None:
    from mamori.formats.problems import MamoriError
    from mamori.inspect.policy_file import read_policy
    from mamori.paths import Device

    path = options.file or Device(options.root).policy
    if not path.exists():
        raise MamoriError(f"{path}: No such file or directory", "without a policy the defaults are in force")
    read_policy(path)
    sys.stdout.write(f"{path}: sound\n")


def _show_boot_state(options: argparse.Namespace) -> None:
    from mamori.bootstate_view import read_boot_state, render_boot_state
    from mamori.paths import Device

    if len(options.files) not in (0, 2):
        options.parser.error("name both copies, or none")
    view = read_boot_state(Device(options.root), options.files)
    if options.json:
        _write_json(view)
    else:
        sys.stdout.write(render_boot_state(view))


def _write_json(value: Any) -> None:
    import json

    sys.stdout.write(f"{json.dumps(value, indent=2, ensure_ascii=False)}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _log(level: int, text: str) -> None:
    """A line for the journal; it takes the level from the prefix (sd-daemon(3))."""
    prefix = f"<{level}>" if "JOURNAL_STREAM" in os.environ else "mamori: "
    sys.stderr.write(f"{prefix}{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
