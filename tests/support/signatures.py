"""The guarded bridge with the real Suricata, its keeper, and somebody who starts Suricata again, as the service manager does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from firmware.peers import Peers, program_pid
from firmware.process import Running
from mamori.inspect.nfqueue.rules import SURICATA_QUEUE
from mamori.inspect.suricata.config import Paths, command
from tests.support.guarded import Guarded
from tests.support.wait import check_until, patience_s

RESTART_S = 0.2
"""The unit's RestartSec is 2."""


@dataclass
class Signatures:
    """A box with its signature engine. `starts` counts how often Suricata was started."""

    box: Guarded
    peers: Peers
    running: Running | None = None
    starts: int = 0
    _keeper: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def paths(self) -> Paths:
        return Paths.below(self.box.device.root)

    def report(self) -> dict[str, Any]:
        return self.box.status()["signatures"] or {}

    def await_engine(self, **wanted: object) -> None:
        """Suricata has its queue, and the keeper says this and that it is up."""
        wanted |= {"condition": "up", "is_preparing": False}

        def is_up() -> bool:
            queued = self.box.lab.queued(SURICATA_QUEUE)
            return queued is not None and all(self.report().get(key) == value for key, value in wanted.items())

        check_until("Suricata is up", is_up, within_s=60)

    def pid(self) -> int:
        """Suricata's."""
        assert self.running is not None
        return program_pid(self.running)

    @contextlib.contextmanager
    def policy(self, text: str, condition: str = "up") -> Iterator[None]:
        """A policy in force, in the engine too, as long as the block lasts; then the default one."""
        self._change(lambda: self.box.set_policy(text), condition=condition)
        try:
            yield
        finally:
            self._change(lambda: self.box.set_policy(""), condition="up")

    @contextlib.contextmanager
    def feed(self, name: str, text: str) -> Iterator[None]:
        """Another file of rules, as long as the block lasts, taken or refused when it is entered."""
        self._change(lambda: self.write_rules(text, name))
        try:
            yield
        finally:
            self._change((self.box.device.rule_folders[1] / name).unlink)

    def restart_keeper(self) -> None:
        """Kill it, as nobody should, and start it again."""
        self._keeper.close()
        self.start_keeper()

    def start_keeper(self) -> None:
        program = self.box.folder / "suricata"
        keeper = self.box.start("signatures-keeper", "--program", program, explain="keep signatures", log="keeper.log")
        self._keeper.enter_context(keeper)

    def stop_keeper(self) -> None:
        self._keeper.close()

    def _change(self, act: Callable[[], object], **wanted: object) -> None:
        """Change what the rules are made of, and wait until the keeper and the engine have it."""
        before = self.report()["supplies"]
        act()

        def is_there() -> bool:
            report = self.report()
            return report["supplies"] > before and all(report.get(key) == value for key, value in wanted.items())

        check_until("the rules are prepared", is_there, within_s=60)

    def write_rules(self, text: str, name: str = "test.rules") -> None:
        """Put a feed in place."""
        folder = self.box.device.rule_folders[1]
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / ".new"
        fresh.write_text(text)
        fresh.replace(folder / name)

    def alerts(self, signature: int, action: str) -> list[dict[str, Any]]:
        """The events of a signature."""
        wanted = f"signature {signature}:"
        return [event for event in self.box.events() if event["list_name"].startswith(wanted) and event["action"] == action]

    def system_events(self) -> list[str]:
        """Categories of what the box told of itself."""
        return [event["category"] for event in self.box.events() if event["function"] == "system"]


@contextlib.contextmanager
def start_signatures(box: Guarded, peers: Peers, rules: str) -> Iterator[Signatures]:
    """Suricata up with the rules when the block is entered."""
    peers.wrapper("suricata", box.folder / "suricata", writes=[box.device.root])
    signatures = Signatures(box, peers)
    signatures.write_rules(rules)
    with contextlib.ExitStack() as stack:
        stack.callback(signatures.stop_keeper)
        signatures.start_keeper()
        stop = threading.Event()
        manager = threading.Thread(target=_manage, args=(signatures, stop))
        manager.start()
        stack.callback(manager.join, patience_s(20))
        stack.callback(stop.set)
        signatures.await_engine()
        yield signatures


def _manage(signatures: Signatures, stop: threading.Event) -> None:
    """mamori-suricata.path and Restart=always."""
    box, paths = signatures.box, signatures.paths
    while not stop.wait(RESTART_S):
        if not paths.rules.exists():
            continue
        paths.log_folder.mkdir(parents=True, exist_ok=True)
        paths.control.unlink(missing_ok=True)
        with signatures.peers.start(
            command(paths.config),
            explain="run Suricata",
            namespace=box.lab.box,
            writes=[box.device.root],
            log=box.folder / f"suricata-{signatures.starts}.log",
        ) as running:
            signatures.running, signatures.starts = running, signatures.starts + 1
            while running.code is None and not stop.wait(RESTART_S):
                pass
