"""A web server for the lab: the repository's files, with ranges, as any web server has them. Not for the field."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})", re.ASCII)
_CHUNK_BYTES = 256 * 1024


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Files of one folder, whole or one range (RFC 9110 §14); no lists of folders."""

    protocol_version = "HTTP/1.1"
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
            span = _span(self.headers.get("Range"), length)
            if span is None:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{length}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, end = span
            is_part = self.headers.get("Range") is not None
            self.send_response(HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK)
            if is_part:
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
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(piece)
                    continue
                self.close_connection = True
                return


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


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
    """Start and end (not included); None for a range that is none or lies outside."""
    if asked is None:
        return 0, length
    match = _RANGE.fullmatch(asked.strip())
    if match is None:
        return None
    start = int(match[1])
    end = min(int(match[2]) + 1, length) if match[2] else length
    return (start, end) if start < end else None
