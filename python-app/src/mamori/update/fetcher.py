"""How the update's files are fetched: over HTTP(S) from where the settings say and nowhere else, or from a folder on a stick.

python-tuf bounds how long each file may be; here it is bounded how long it may take, and whom we ask. Redirects are refused: who
names the server is the owner, and a server that sends us elsewhere is either not ours or not set up.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from mamori.update.usb import open_plain

STALL_S = 20.0
"""Without a single byte; a mobile line wakes up in two or three seconds."""

FILE_WITHIN_S = 120.0
"""For one file of metadata. The largest allowed, 5 MB of targets, takes 40 s at 1 Mbit/s."""

CHUNK_BYTES = 16 * 1024

_HTTP = ("http", "https")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:  # noqa: ARG002
        """None makes the answer an error, as 404 is."""
        return


class Fetcher(FetcherInterface):
    """python-tuf's door to the world. `fetched_bytes` counts what came through it."""

    def __init__(self, *, stall_s: float = STALL_S, file_within_s: float = FILE_WITHIN_S) -> None:
        self._stall_s, self._file_within_s = stall_s, file_within_s
        # No proxy: the environment of a service says nothing about the office's network.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
        self.fetched_bytes = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        deadline = time.monotonic() + self._file_within_s
        scheme = urllib.parse.urlsplit(url).scheme
        if scheme == "file":
            return self._chunks(_open_file(url), url, deadline)
        if scheme not in _HTTP:
            raise DownloadError(f"{url}: only http, https and file")
        request = urllib.request.Request(url, headers={"User-Agent": "mamori", "Accept-Encoding": "identity"})  # noqa: S310 (checked)
        try:
            response = self._opener.open(request, timeout=self._stall_s)
        except urllib.error.HTTPError as error:
            with error:
                raise DownloadHTTPError(f"{url}: the server answers {error.code}", error.code) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DownloadError(f"{url}: {_reason(error)}") from None
        return self._chunks(cast(IO[bytes], response), url, deadline)

    def _chunks(self, source: IO[bytes], url: str, deadline: float) -> Iterator[bytes]:
        with source:
            while True:
                if time.monotonic() > deadline:
                    raise DownloadError(f"{url}: not done within {self._file_within_s:g} s")
                try:
                    # What has come, not a whole chunk: a server that drips must not keep us in one call.
                    chunk = source.read1(CHUNK_BYTES) if hasattr(source, "read1") else source.read(CHUNK_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise DownloadError(f"{url}: {_reason(error)}") from None
                if not chunk:
                    return
                self.fetched_bytes += len(chunk)
                yield chunk


def _open_file(url: str) -> IO[bytes]:
    """A missing file is what a server's 404 is; what is no plain file is not read."""
    path = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    try:
        return open_plain(path)
    except FileNotFoundError:
        raise DownloadHTTPError(f"{path}: no such file", 404) from None
    except (OSError, ValueError) as error:
        raise DownloadError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception) else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__
