"""Suricata behind our queue, in the bridge's namespace, as the appliance runs it. No test is in here."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from firmware.inspect_lab import ADDRESSES, Lab
from firmware.peers import Peers, program_pid
from firmware.process import Argument, Running
from mamori.inspect.nfqueue.messages import Packet, Verdict, encode_verdict, requeue
from mamori.inspect.nfqueue.rules import SURICATA_DONE_MARK, SURICATA_QUEUE
from mamori.inspect.policy import Ips
from mamori.inspect.suricata.config import Facts, Network, Paths, check_command, command, render_config
from mamori.inspect.suricata.eve import Alert, EveReader, start_reader
from mamori.inspect.suricata.rules import Tally, prepare_rules
from mamori.inspect.suricata.ruleset import Taken, take_rules
from tests.support.wait import check_until

HOME = tuple(ip_network(address) for address in ADDRESSES["client"])
USER = 64000
"""Any number but root's: it has CAP_NET_ADMIN and nothing else, as the unit gives it."""

_AS_USER = (
    "setpriv",
    f"--reuid={USER}",
    f"--regid={USER}",
    "--clear-groups",
    "--inh-caps=-all,+net_admin",
    "--ambient-caps=-all,+net_admin",
    "--bounding-set=-all,+net_admin",
    "--no-new-privs",
)


@dataclass
class Engine:
    """A folder with everything that one Suricata has, and Suricata while it runs."""

    lab: Lab
    peers: Peers
    folder: Path
    reader: EveReader
    alerts: list[Alert] = field(default_factory=list)

    @property
    def paths(self) -> Paths:
        folder = self.folder
        return Paths(folder / "suricata.yaml", folder / "active.rules", folder / "eve.sock", folder / "control.sock", folder)

    def test(self, candidate: Path) -> tuple[int, str]:
        """Suricata's own opinion of a file of rules."""
        command = check_command(self.paths.config, candidate, self.folder)
        argv: list[Argument] = ["sh", "-c", '"$@" 2>&1; echo "exit $?"', "sh", *command]
        said, _, code = self.peers.run(argv, explain="test rules", writes=[self.folder], timeout_s=60).rpartition("exit ")
        return int(code), said

    def take(self, text: str, ips: Ips | None = None) -> Taken:
        """Make the rules the active ones, by the owner's policy; Suricata is not told."""
        return take_rules(prepare_rules(text.splitlines(), ips or Ips(), Tally()), self.paths.rules, self.test)

    @contextlib.contextmanager
    def started(self) -> Iterator[tuple[Running, int]]:
        """Suricata with the active rules, and its process number, once it has its queue and, a moment later, its socket."""
        self.paths.control.unlink(missing_ok=True)
        argv = [*_AS_USER, *command(self.paths.config)]
        start = self.peers.start(
            argv, explain="run Suricata", namespace=self.lab.box, writes=[self.folder], log=self.folder / "suricata.log"
        )
        with start as running:
            check_until("Suricata runs", lambda: self._is_ready(running), within_s=30)
            yield running, program_pid(running)

    def _is_ready(self, running: Running) -> bool:
        running.check()
        return self.lab.queued(SURICATA_QUEUE) is not None and self.paths.control.exists()

    def told(self, signature: int) -> list[Alert]:
        """The alerts of a signature so far."""
        self.alerts += self.reader.receive()
        return [alert for alert in self.alerts if alert.signature == signature]


@contextlib.contextmanager
def prepared_engine(lab: Lab, peers: Peers, home: Iterable[Network] = HOME) -> Iterator[Engine]:
    """An engine without rules in a folder of its own; its socket for records is open."""
    # Not below pytest's own folders: those are closed to other users, and Suricata is one.
    with tempfile.TemporaryDirectory(prefix="mamori-suricata-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        with start_reader(folder / "eve.sock", group=USER) as reader:
            engine = Engine(lab, peers, folder, reader)
            engine.paths.config.write_text(render_config(Facts(2048, home=tuple(home), paths=engine.paths)))
            yield engine


def hand_on(packet: Packet) -> bytes:
    """What the worker does with a packet that it lets pass."""
    done = packet.mark & SURICATA_DONE_MARK
    return encode_verdict(packet.queue, packet.id, Verdict.ACCEPT if done else requeue(SURICATA_QUEUE, bypass=True))
