"""A web server for the lab: the repository's files, with ranges, as any web server has them. Not for the field."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

_RANGE = re.compile(r"bytes=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII | re.IGNORECASE)
_CHUNK_BYTES = 256 * 1024


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Files of one folder, whole or one range (RFC 9110 §14); no lists of folders."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    """Seconds that a client may say, or take, nothing: one that is gone must not hold a thread for ever."""
    on_request: Callable[[str], None] | None = None

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        if self.on_request is not None:
            self.on_request(f"{self.address_string()} {format % args}")

    def _answer(self, *, has_body: bool) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            length = file.seek(0, 2)
            asked = _span(self.headers.get("Range"), length)
            start, end = asked or (0, length)
            if start >= end and asked:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{length}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{length}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            file.seek(start)
            while has_body and start < end:
                piece = file.read(min(_CHUNK_BYTES, end - start))
                if not piece:
                    self.close_connection = True  # the file became shorter: the client sees that its answer did
                    return
                start += len(piece)
                with contextlib.suppress(ConnectionError, TimeoutError):
                    self.wfile.write(piece)
                    continue
                self.close_connection = True
                return


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news; a mistake of ours is."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(
    folder: Path, *, address: str = "127.0.0.1", port: int = 0, on_request: Callable[[str], None] | None = None
) -> Iterator[int]:
    """The folder over HTTP as long as the block lasts; the port. OSError when it cannot be had."""
    handler = type("Handler", (RangeHandler,), {"on_request": staticmethod(on_request) if on_request else None})
    server = _Server((address, port), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _span(asked: str | None, length: int) -> tuple[int, int] | None:
    """Start and end (not included) of the range that is asked for, an empty one if it lies outside. None for the whole file: a
    server may ignore what it does not know, as several ranges, and must ignore what is malformed (RFC 9110, 14.2)."""
    match = _RANGE.fullmatch(asked.strip()) if asked is not None else None
    if match is None:
        return None
    if match[3]:
        return max(length - int(match[3]), 0), length  # the last so many bytes
    start, last = int(match[1]), int(match[2]) if match[2] else length
    return None if last < start else (start, min(last + 1, length))
