"""Ranges of the bundle from where it is: an HTTP(S) server, or a folder on a stick. What breaks is gone on with, for a while."""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mamori.formats.problems import MamoriError
from mamori.update.usb import open_plain

STALL_S = 20.0
"""Without a byte, and for a connection to come about."""

GIVE_UP_S = 200.0
"""Without any progress. RAUC's block device waits 300 s for one answer (nbd.c) and asks again up to five times."""

PROGRESS_BYTES = 16 * 1024
"""Less is no progress: a server that gives a byte now and then would otherwise be listened to for ever. In
GIVE_UP_S that is what a modem of 1980 does."""

FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 20.0

CHUNK_BYTES = 32 * 1024

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


class UpstreamError(MamoriError):
    """The range cannot be had. `is_final`: asking again cannot end otherwise."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class Limiter:
    """At most so many bytes a second over all who take from it; None: no limit. The office's line is for the office."""

    def __init__(self, bytes_per_s: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = bytes_per_s, clock
        self._free_at = clock()
        self._lock = threading.Lock()

    def take(self, count: int) -> float:
        """Note so many bytes; how many seconds to wait before the next ones. A second's worth may be saved up."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - 1.0) + count / self._rate
            return max(0.0, self._free_at - now)


@dataclass(frozen=True)
class Patience:
    """Seconds: without a byte, and without progress over all attempts."""

    stall_s: float = STALL_S
    give_up_s: float = GIVE_UP_S


class HttpUpstream:
    """A bundle behind a URL, of a length that TUF named. Each thread has a connection of its own, which is kept."""

    def __init__(self, url: str, length: int, limiter: Limiter, patience: Patience | None = None) -> None:
        parts = urlsplit(url)
        self._secure, self._netloc, self._hostname, self._port = parts.scheme == "https", parts.netloc, parts.hostname, parts.port
        self._path = parts.path + (f"?{parts.query}" if parts.query else "")
        if parts.scheme not in ("http", "https") or not self._hostname:
            raise UpstreamError(f"{url}: no http or https URL", is_final=True)
        self._length, self._limiter, self._patience = length, limiter, patience or Patience()
        self._local = threading.local()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.fetched_bytes = 0

    def stop(self) -> None:
        """Whoever waits for a range waits no more."""
        self._stop.set()

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, in pieces. UpstreamError when they do not come."""
        at, reached, pause_s = start, start, FIRST_PAUSE_S
        deadline = time.monotonic() + self._patience.give_up_s
        while at < end:
            try:
                for piece in self._request(at, end):
                    yield piece
                    at, pause_s = at + len(piece), FIRST_PAUSE_S
                    waited_s = self._limiter.take(len(piece))
                    if self._stop.wait(waited_s):
                        raise UpstreamError("stopped", is_final=True)
                    deadline += waited_s  # our own doing
                    if at - reached >= PROGRESS_BYTES:
                        reached, deadline = at, time.monotonic() + self._patience.give_up_s
                    elif at < end and time.monotonic() > deadline:
                        raise UpstreamError(f"{self._netloc}: slower than anything that is of use")
                if at < end:
                    raise UpstreamError(f"{self._netloc}: the answer ended {end - at} bytes early")
            except UpstreamError as error:
                self._close()
                if error.is_final or time.monotonic() + pause_s > deadline:
                    raise
            except (OSError, http.client.HTTPException) as error:
                self._close()
                if time.monotonic() + pause_s > deadline:
                    words = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
                    raise UpstreamError(f"{self._netloc}: {words}") from None
            if at < end:
                if self._stop.wait(pause_s):
                    raise UpstreamError("stopped", is_final=True)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)

    def _request(self, start: int, end: int) -> Iterator[bytes]:
        """One answer, as far as it comes."""
        connection = self._connection()
        connection.request("GET", self._path, headers={"Range": f"bytes={start}-{end - 1}", "User-Agent": "mamori"})
        response = connection.getresponse()
        self._check(response, start, end)
        left = end - start
        while left:
            piece = response.read1(min(CHUNK_BYTES, left))
            if not piece:
                return
            left -= len(piece)
            with self._lock:
                self.fetched_bytes += len(piece)
            yield piece
        response.read()  # nothing is left, and so the connection is free again

    def _check(self, response: http.client.HTTPResponse, start: int, end: int) -> None:
        status = response.status
        if status == http.client.PARTIAL_CONTENT:
            found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is None or tuple(map(int, found.groups())) != (start, end - 1, self._length):
                shown = response.headers.get("Content-Range", "nothing")[:80]
                raise UpstreamError(
                    f"{self._netloc}: another range than bytes {start}-{end - 1}/{self._length}: {shown}", is_final=True
                )
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise UpstreamError(f"{self._netloc}: ranges of something packed", is_final=True)
            return
        if status == http.client.OK:
            raise UpstreamError(f"{self._netloc}: the server has no ranges", is_final=True)
        if 300 <= status < 400:
            raise UpstreamError(f"{self._netloc}: the server sends us elsewhere, which is refused", is_final=True)
        # A server that is being worked on, or that has too much to do, is asked again; what is not there does not come.
        passes = status >= 500 or status in (http.client.TOO_MANY_REQUESTS, http.client.REQUEST_TIMEOUT)
        raise UpstreamError(f"{self._netloc}: the server answers {status}", is_final=not passes)

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            assert self._hostname is not None  # noqa: S101 (looked at in __init__)
            stall_s = self._patience.stall_s
            if self._secure:
                context = ssl.create_default_context()
                connection = http.client.HTTPSConnection(self._hostname, self._port, timeout=stall_s, context=context)
            else:
                connection = http.client.HTTPConnection(self._hostname, self._port, timeout=stall_s)
            self._local.connection = connection
        return connection

    def _close(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None


class FileUpstream:
    """A bundle in a file, behind a `file:` URL. A stick may be pulled out at any moment, and its copy be half of one: neither says
    anything about the release."""

    def __init__(self, url: str, length: int) -> None:
        self._path, self._length = Path(unquote(urlsplit(url).path)), length
        self._stop = threading.Event()
        self.fetched_bytes = 0

    def stop(self) -> None:
        """Whoever reads gets no more."""
        self._stop.set()

    def read(self, start: int, end: int) -> Iterator[bytes]:
        try:
            with open_plain(self._path) as file:
                if file.seek(0, 2) != self._length:
                    raise UpstreamError(f"{self._path.name}: the stick's copy has {file.tell()} bytes, not {self._length}")
                file.seek(start)
                while start < end:
                    piece = file.read(min(CHUNK_BYTES, end - start))
                    if not piece:
                        raise UpstreamError(f"{self._path.name}: the stick's copy ends too early")
                    if self._stop.is_set():
                        raise UpstreamError("stopped", is_final=True)
                    start += len(piece)
                    self.fetched_bytes += len(piece)
                    yield piece
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UpstreamError(f"{self._path.name}: the stick cannot be read: {reason}") from None


Upstream = HttpUpstream | FileUpstream


def open_upstream(url: str, length: int, limiter: Limiter, patience: Patience | None = None) -> Upstream:
    """By the URL's scheme; UpstreamError for one that is none of ours."""
    if urlsplit(url).scheme == "file":
        return FileUpstream(url, length)
    return HttpUpstream(url, length, limiter, patience)
