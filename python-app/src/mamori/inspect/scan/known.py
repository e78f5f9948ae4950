"""Files that were scanned before, so that they need not be again: the least recently used are forgotten."""

from __future__ import annotations

from collections import OrderedDict

from mamori.inspect.scan.verdicts import Clean, Infected

MAX_KNOWN = 16_384
"""Files of one process: 4.1 MB (a test measures). A day of an office's web pages and mails has fewer that come twice."""


class KnownFiles:
    """By SHA-256 and length. The hash is kept whole: of a short one, somebody could make a clean and a bad file that share it."""

    def __init__(self, maximum: int = MAX_KNOWN) -> None:
        self._maximum = maximum
        self._verdicts: OrderedDict[bytes, Clean | Infected] = OrderedDict()

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, digest: bytes, length: int) -> Clean | Infected | None:
        """What was said of it; None if it was not scanned, or was forgotten."""
        key = _key(digest, length)
        verdict = self._verdicts.get(key)
        if verdict is not None:
            self._verdicts.move_to_end(key)
        return verdict

    def add(self, digest: bytes, length: int, verdict: Clean | Infected) -> None:
        key = _key(digest, length)
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > self._maximum:
            self._verdicts.popitem(last=False)

    def clear(self) -> None:
        self._verdicts.clear()


def _key(digest: bytes, length: int) -> bytes:
    return digest + length.to_bytes(8, "big")
