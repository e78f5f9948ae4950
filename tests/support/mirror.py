"""A Debian mirror that lets us down: in front of the real one, on the loopback interface."""

from __future__ import annotations

import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

PROMISED_BYTES, SENT_BYTES = 1_000_000, 1_000


@contextmanager
def start_half_mirror(upstream: str) -> Iterator[tuple[str, list[str]]]:
    """An address whose lists are those of `upstream`, and whose packages end in the middle; and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path.endswith(".deb"):
                self.send_response(200)
                self.send_header("Content-Length", str(PROMISED_BYTES))
                self.end_headers()
                self.wfile.write(b"!<arch>\n".ljust(SENT_BYTES, b"\0"))
                self.close_connection = True
                return
            try:
                with urllib.request.urlopen(f"{upstream.rstrip('/')}{self.path}") as answer:  # noqa: S310 - the host's own mirror
                    content = answer.read()
                self.send_response(200)
            except urllib.error.HTTPError as error:
                content = b""
                self.send_response(error.code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Not on the console of the tests."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
