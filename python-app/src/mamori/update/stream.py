"""The server on the loopback interface that RAUC streams the bundle from (docs/update.md §4.2, §4.3).

RAUC asks for ranges; each is fetched from the repository, except the bundle's end. That was fetched first, and is what was
compared with TUF: it has the signed manifest, which names the hash of every block of the rest (RAUC manual, "verity format").

    payload (squashfs, hash tree) ┃ CMS signature with the manifest │ its size, 8 bytes, big-endian
    fetched anew for each range   ┃ kept here from the first fetch on
"""

from __future__ import annotations

import contextlib
import http.server
import re
import secrets
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mamori.update.upstream import Upstream, UpstreamError

SIZE_BYTES = 8
MAX_SIGNATURE_BYTES = 64 * 1024
"""RAUC's own limit (max-bundle-signature-size); ours are 6 KB."""

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True)
class Pinned:
    """A bundle's end, from the offset `start` on, up to the bundle's `length`."""

    start: int
    tail: bytes

    @property
    def length(self) -> int:
        return self.start + len(self.tail)


def pin_tail(upstream: Upstream, length: int) -> Pinned:
    """Fetch the bundle's end. UpstreamError when it does not come, or is not a bundle's."""
    if length <= SIZE_BYTES:
        raise UpstreamError(f"a bundle of {length} bytes", is_final=True)
    end = b"".join(upstream.read(length - SIZE_BYTES, length))
    (size,) = struct.unpack(">Q", end)
    if not 0 < size <= min(MAX_SIGNATURE_BYTES, length - SIZE_BYTES):
        raise UpstreamError(f"no bundle: its last bytes say that its signature has {size}", is_final=True)
    start = length - SIZE_BYTES - size
    return Pinned(start, b"".join(upstream.read(start, length - SIZE_BYTES)) + end)


class BundleServer:
    """Serves one bundle at `url` until it is closed. `problem` is why the last range did not come, None if all did."""

    def __init__(self, upstream: Upstream, pinned: Pinned) -> None:
        self._upstream, self._pinned = upstream, pinned
        self._path = f"/{secrets.token_urlsafe(24)}/bundle.raucb"
        self.problem: UpstreamError | None = None
        server = self

        class Handler(_Handler):
            bundle = server

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="bundle", kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Only who knows it can ask: the path has a random part."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{self._path}"

    @property
    def length(self) -> int:
        return self._pinned.length

    def is_path(self, path: str) -> bool:
        return secrets.compare_digest(path.encode(errors="replace"), self._path.encode())

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Fetched where it is payload, kept where it is the end. UpstreamError, which is noted."""
        pinned = self._pinned
        try:
            if start < pinned.start:
                yield from self._upstream.read(start, min(end, pinned.start))
        except UpstreamError as error:
            self.problem = error
            raise
        if end > pinned.start:
            yield pinned.tail[max(start - pinned.start, 0) : end - pinned.start]
        self.problem = None

    def close(self) -> None:
        self._upstream.stop()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """RAUC closes connections when it has enough."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of one file, with one range."""

    protocol_version = "HTTP/1.1"
    timeout = 600.0  # a block device that is idle keeps its connection
    server_version, sys_version = "mamori", ""
    bundle: BundleServer

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, *, has_body: bool) -> None:
        if not self.bundle.is_path(self.path):
            self.send_error(404)
            return
        length = self.bundle.length
        asked = self.headers.get("Range")
        span = _parse_range(asked, length) if asked is not None else (0, length)
        if span is None:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{length}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, end = span
        self.send_response(206 if asked is not None else 200)
        if asked is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{length}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if has_body:
            self._send(start, end)

    def _send(self, start: int, end: int) -> None:
        try:
            for piece in self.bundle.read(start, end):
                self.wfile.write(piece)
        except UpstreamError:
            self.close_connection = True  # short of what was promised: RAUC sees that it failed
        except OSError:
            self.close_connection = True
        finally:
            with contextlib.suppress(OSError):
                self.wfile.flush()


def _parse_range(text: str, length: int) -> tuple[int, int] | None:
    """Start and end (not included) of a single range; None for one that is none, or lies outside (RFC 9110 §14.1.2)."""
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    start = int(match[1])
    end = min(int(match[2]) + 1, length) if match[2] else length
    return (start, end) if start < end else None
