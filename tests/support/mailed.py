"""Real mail servers on both sides of the guarded bridge with its scanner, and what arrives in their mailboxes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from firmware.netns import call_in_namespace
from tests.support.clamd import ask
from tests.support.eicar import EICAR, MARKER
from tests.support.infected_mails import InfectedMail, check_harmless
from tests.support.mail_servers import MailServers, start_mail_servers
from tests.support.need import need
from tests.support.scanned import CLIENT, SERVER, Scanned, start_scanned
from tests.support.wait import check_until

T = TypeVar("T")


class Way(Enum):
    """Who begins the conversation: a client in the office, or one outside whose server stands in the office."""

    OUTWARDS = "outwards"
    INWARDS = "inwards"


@dataclass(frozen=True)
class Mailed:
    """A mail server for each way."""

    scanned: Scanned
    outside: MailServers
    office: MailServers

    def servers(self, way: Way) -> MailServers:
        """Those that the clients of this way talk to."""
        return self.outside if way is Way.OUTWARDS else self.office

    def namespace(self, way: Way) -> str:
        """Where the clients are."""
        return self.scanned.box.lab.client if way is Way.OUTWARDS else self.scanned.box.lab.server

    def at(self, way: Way, function: Callable[[], T]) -> T:
        """What the function returns when a client calls it; a socket that it opens stays where it was opened."""
        return call_in_namespace(self.namespace(way), function)

    def check_told(self, mails: Collection[InfectedMail], protocol: str, way: Way) -> None:
        """Each was blocked, by an event that names it."""
        heading = "outbound" if way is Way.OUTWARDS else "inbound"

        def is_told() -> bool:
            events = [event for event in self.scanned.viruses() if (event["protocol"], event["heading"]) == (protocol, heading)]
            blocked = [event["subject"] for event in events if event["action"] == "blocked"]
            return all(any(f'"{mail.subject}"' in subject for subject in blocked) for mail in mails)

        check_until(f"{protocol} {heading}: all are told", is_told, within_s=10)

    def says(self, content: bytes) -> str:
        """clamd's word on a whole mail; it reads mails by itself."""
        answer = ask(self.scanned.clamd.socket, b"zINSTREAM\0" + len(content).to_bytes(4, "big") + content + bytes(4))
        assert answer.startswith(b"stream: "), answer
        return answer.decode().strip("\0").removeprefix("stream: ")

    def check_delivered(self, sent: InfectedMail, got: bytes) -> None:
        """It arrived, parses, and is harmless: to Python's reader, and to clamd, which had called what was sent a virus."""
        assert self.says(sent.data).endswith("FOUND")
        assert self.says(got) == "OK"
        assert EICAR not in got
        assert MARKER not in got
        check_harmless(sent, got)


@contextlib.contextmanager
def start_mailed(folder: Path, name: str) -> Iterator[Mailed]:
    for tool in ("postfix", "dovecot", "openssl"):
        need(tool, "real mail servers")
    with start_scanned(folder, name=name) as scanned:
        lab = scanned.box.lab
        with start_mail_servers(SERVER, lab.server) as outside, start_mail_servers(CLIENT, lab.client) as office:
            yield Mailed(scanned, outside, office)
