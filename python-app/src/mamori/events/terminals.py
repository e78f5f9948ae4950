"""The table of the office's computers, with what is in it kept in memory too: it is asked for with each event."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from mamori.events.batch import is_better
from mamori.events.record import TerminalSeen
from mamori.events.schema import NO_TERMINAL

MAX_TERMINALS = 2000
"""Twenty times the office the box is made for, guests' telephones with a new MAC address each week among them. Forged addresses
cannot make more rows than that; who finds no room is counted with all others."""

EVICT_TERMINALS = 100
"""So many go at once when there is no room: those not seen for longest."""

EVICT_AGE_S = 3600.0
"""Nobody goes who was seen within the hour: a flood of forged addresses then only pushes out forged ones."""

SEEN_EVERY_S = 60.0
"""`last_s` is not written more often."""


@dataclass(slots=True)
class _Terminal:
    number: int
    mac: str
    address: str
    source: str
    name: str
    last_s: float


class Terminals:
    """The rows of `terminals`, read at the start. Used within the caller's transaction; after a failed one it is stale."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, _Terminal] = {}
        self._by_address: dict[str, str] = {}
        self._no_room_at = 0.0
        rows = connection.execute("SELECT key, id, mac, address, source, name, last_s FROM terminals ORDER BY last_s")
        for key, *values in rows:
            self._known[key] = _Terminal(*values)
            self._by_address[self._known[key].address] = key

    def find(self, mac: str, address: str, at_s: float) -> int:
        """The number of the terminal, which is added if it is new; NO_TERMINAL for none, or one too many.

        Whoever does not know the MAC (Suricata) gives an address alone: it is whoever had that address last."""
        key = mac or self._by_address.get(address, address)
        if not key:
            return NO_TERMINAL
        terminal = self._known.get(key)
        if terminal is None:
            terminal = self._add(key, mac, address, at_s)
            if terminal is None:
                return NO_TERMINAL
        if address and self._by_address.get(address) != key:
            if len(self._by_address) > 4 * MAX_TERMINALS:
                self._by_address = {known.address: key for key, known in self._known.items()}
            self._by_address[address] = key
        # IPv4 is what people know a computer by; privacy addresses of IPv6 change daily.
        is_news = address not in ("", terminal.address) and (":" not in address or ":" in terminal.address or not terminal.address)
        if is_news or at_s >= terminal.last_s + SEEN_EVERY_S:
            terminal.address = address if is_news else terminal.address
            terminal.last_s = max(terminal.last_s, at_s)
            self._connection.execute(
                "UPDATE terminals SET address = ?, last_s = ? WHERE id = ?", (terminal.address, terminal.last_s, terminal.number)
            )
        return terminal.number

    def name(self, seen: TerminalSeen) -> None:
        """A terminal said its name."""
        number = self.find(seen.mac, seen.address, seen.at_s)
        terminal = self._known.get(seen.mac)
        if number == NO_TERMINAL or terminal is None or not seen.name or not is_better(seen.source, terminal.source):
            return
        if (terminal.name, terminal.source) != (seen.name, seen.source):
            terminal.name, terminal.source = seen.name, seen.source
            self._connection.execute("UPDATE terminals SET name = ?, source = ? WHERE id = ?", (seen.name, seen.source, number))

    def _add(self, key: str, mac: str, address: str, at_s: float) -> _Terminal | None:
        if len(self._known) >= MAX_TERMINALS and not self._evict(at_s):
            return None
        # A key that is an address is no MAC, so one does not stand for the other.
        number = self._connection.execute(
            "INSERT INTO terminals VALUES (NULL, ?, ?, ?, '', '', ?, ?)", (key, mac, address, at_s, at_s)
        ).lastrowid
        terminal = self._known[key] = _Terminal(number or 0, mac, address, "", "", at_s)
        return terminal

    def _evict(self, at_s: float) -> bool:
        if self._no_room_at <= at_s < self._no_room_at + SEEN_EVERY_S:
            return False
        oldest = sorted(self._known.items(), key=lambda item: item[1].last_s)[:EVICT_TERMINALS]
        gone = [(key, terminal) for key, terminal in oldest if terminal.last_s < at_s - EVICT_AGE_S]
        self._connection.executemany("DELETE FROM terminals WHERE id = ?", [(terminal.number,) for _, terminal in gone])
        for key, _ in gone:
            del self._known[key]
        self._by_address = {address: key for address, key in self._by_address.items() if key in self._known}
        self._no_room_at = 0.0 if gone else at_s
        return bool(gone)
