"""The head of an HTTP/1.x message: start line and fields as values, and everything odd about them by name.

Judges of what is let through are the peers, not the RFC: what nginx, Apache or Python's http.server take as a request,
and what Chrome (net/http), Firefox (netwerk/protocol/http), curl and Python's http.client take as a response. Where
they disagree, the reading that shows most is taken and an Anomaly says so: harmless servers hardly ever need it.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from mamori.inspect.errors import ParseError

MAX_HEAD_BYTES = 384 << 10
"""Firefox's limit for a response head (network.http.max_response_header_size), the largest: Chrome 256 KiB, curl 300 KiB; nginx
takes requests up to 32 KiB."""

MAX_FIELDS = 5000
"""Fields of one head, as in curl (MAX_HTTP_RESP_HEADER_COUNT). Bounds the time that a head of empty fields can take."""


class HttpError(ParseError):
    """A stream that cannot be read as HTTP/1.x any more."""


NO_METHOD, NO_VERSION = "no method", "no HTTP version"
NO_HTTP = frozenset({NO_METHOD, NO_VERSION})
"""What is said of a first line that is another protocol's: RTSP and SIP share methods with HTTP."""


class Anomaly(Enum):
    """What harmless peers do not send and others read in more than one way: the stuff of smuggling and of evasion."""

    BARE_LF = "a line of the head ends in LF alone"  # taken by all but the strictest servers; old CGI scripts do it
    BARE_CR = "CR without LF in the head"  # a line break to Chrome and to curl at the start of a line, refused by nginx
    NUL = "NUL in the head"  # Chrome, curl and nginx refuse it
    FOLDED_FIELD = "a field goes on in the next line"  # joined by browsers, curl and Apache; refused by nginx
    SPACE_BEFORE_COLON = "white space between the name of a field and its colon"  # trimmed by Chrome; no such field to curl
    FIELD_WITHOUT_COLON = "a line of the head that is no field"  # skipped by browsers; ends the fields for http.client
    SPACE_IN_TARGET = "white space in the request target"  # http.server cuts there
    HTTP_09 = "HTTP/0.9: a request or a response without a head"  # nginx takes the request, Chrome the response
    JUNK_BEFORE_STATUS = "up to four strange bytes before the status line"  # skipped by Chrome
    ODD_STATUS = "a status line that is not `HTTP/d.d ddd`"  # read as 200 by browsers; curl refuses it
    UNEXPECTED_BODY = "bytes after a response that had ended"  # skipped by Firefox; others close the connection
    UNSOLICITED = "a response without a request"  # browsers close the connection
    UNSOLICITED_SWITCH = "a change of protocol that the client did not ask for"
    HOST_MISSING = "HTTP/1.1 without a Host field"
    HOST_CONFLICT = "hosts that contradict one another"  # nginx refuses two Host fields, http.server takes the first
    BAD_LENGTH = "a Content-Length that is no number"  # none to Chrome, its digits to Firefox and curl, refused by servers
    CONFLICTING_LENGTH = "Content-Lengths that contradict one another"  # the first to http.client, the last to curl
    LENGTH_AND_CHUNKED = "both Content-Length and chunked"  # chunked wins everywhere; nginx and others refuse such requests
    CHUNKED_IN_1_0 = "chunked in HTTP/1.0"  # ignored by Chrome, decoded by Firefox and curl
    ODD_TRANSFER_CODING = "a Transfer-Encoding other than chunked"  # peers differ in what they make of it
    ODD_CHUNK = "chunk framing that peers read differently"  # bare LF, `0x`, white space, empty lines, many digits


class Fields(NamedTuple):
    """The fields in their order: names in lower case, values without surrounding white space; text in latin-1."""

    pairs: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The first value of `name` (lower case)."""
        for key, value in self.pairs:
            if key == name:
                return value
        return None

    def all(self, name: str) -> list[str]:
        """Every value of `name`, in order."""
        return [value for key, value in self.pairs if key == name]

    def tokens(self, name: str) -> list[str]:
        """The members of a comma-separated list over all fields of `name`, in lower case; empty ones are left out."""
        values = self.all(name)
        if not values:
            return []
        members = (token.strip(_SPACE).lower() for value in values for token in value.split(","))
        return [token for token in members if token]


class RequestLine(NamedTuple):
    """`target` as it came; `version` is (1, 1) and the like."""

    method: str
    target: str
    version: tuple[int, int]


class StatusLine(NamedTuple):
    version: tuple[int, int]
    status: int
    reason: str


class ContentRange(NamedTuple):
    """`bytes first-last/total` (RFC 9110, section 14.4), both ends included; `total` is None for `*`."""

    first: int
    last: int
    total: int | None


_SPACE = " \t\r\v\f"
_PLAIN_HEAD = re.compile(r"[^\r\n\0]*+\r\n(?:[^\s:\0]++:[^\r\n\0]*+\r\n)*+\r\n")
_ANY_BREAK = re.compile(r"\r\n|\r|\n")
_METHOD = re.compile(r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]+")
_VERSION = re.compile(r"HTTP/(\d{1,4})\.(\d{1,4})", re.IGNORECASE)
_SIMPLE = re.compile(rb"[ \t]*+(GET)[ \t]++([^ \t\r\n]++)[ \t\r]*+")
_STATUS = re.compile(r"(?:HTTP|ICY)(?:/(\d{1,4})(?:\.(\d{1,4}))?)?[ \t]*+(\d*)[ \t]*+(.*)", re.IGNORECASE)
_STRICT_STATUS = re.compile(r"HTTP/\d\.\d +\d{3}(?: .*)?")
_START = re.compile(rb"HTTP|\AICY ", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes[ \t=]*+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)

STATUS_SLOP_BYTES = 4
"""Chrome looks for `HTTP` this far into a response (kStatusLineSlop of HttpUtil::LocateStartOfStatusLine)."""

STATUS_START_BYTES = STATUS_SLOP_BYTES + len("HTTP")
"""So many bytes tell whether a response has a status line."""


def find_status_line(start: bytes) -> int | None:
    """Where in the first STATUS_START_BYTES of a response its status line begins; None for HTTP/0.9. Shoutcast's `ICY 200 OK`
    counts, as in Firefox and curl."""
    found = _START.search(start[:STATUS_START_BYTES])
    return found.start() if found else None


def parse_fields(head: bytes) -> tuple[str, Fields, list[Anomaly]]:
    """The start line and the fields of a head that ends with its empty line. Raises HttpError above MAX_FIELDS."""
    text = head.decode("latin-1")
    if _PLAIN_HEAD.fullmatch(text):  # as nearly all are: nothing odd can be found in it
        lines = text.split("\r\n")
        if len(lines) > MAX_FIELDS:
            raise HttpError("too many fields")
        parts = [line.partition(":") for line in lines[1:-2]]
        return lines[0], Fields(tuple([(name.lower(), value.strip(_SPACE)) for name, _, value in parts])), []
    found: list[Anomaly] = []
    crlf = text.count("\r\n")
    if crlf != text.count("\r"):
        found.append(Anomaly.BARE_CR)
        lines = _ANY_BREAK.split(text)
    else:
        lines = text.split("\r\n")
    if crlf != text.count("\n"):
        found.append(Anomaly.BARE_LF)
        lines = _ANY_BREAK.split(text)
    if "\0" in text:
        found.append(Anomaly.NUL)
    if len(lines) > MAX_FIELDS:
        raise HttpError("too many fields")
    return lines[0], Fields(tuple(_pairs(lines, found))), list(dict.fromkeys(found))


def _pairs(lines: list[str], found: list[Anomaly]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    folds: list[str] = []  # lines that go on with the last field; joined at its end, lest a long fold cost its square
    for line in lines[1:]:
        if not line:
            continue
        if line[0] in " \t":
            found.append(Anomaly.FOLDED_FIELD)
            folds.append(line.strip(_SPACE))
            continue
        _unfold(pairs, folds)
        name, colon, value = line.partition(":")
        if not colon or not name:
            found.append(Anomaly.FIELD_WITHOUT_COLON)
            continue
        if name[-1] in _SPACE:
            found.append(Anomaly.SPACE_BEFORE_COLON)
            name = name.rstrip(_SPACE)
        pairs.append((name.lower(), value.strip(_SPACE)))
    _unfold(pairs, folds)
    return pairs


def _unfold(pairs: list[tuple[str, str]], folds: list[str]) -> None:
    """A fold before the first field belongs to nothing, and is skipped as in Chrome."""
    if folds and pairs:
        name, value = pairs[-1]
        pairs[-1] = (name, " ".join([value, *folds]).strip(_SPACE))
    folds.clear()


def parse_simple_request(line: bytes) -> RequestLine | None:
    """An HTTP/0.9 request: `GET /path`, and that is all of it."""
    found = _SIMPLE.fullmatch(line)
    return RequestLine("GET", found[2].decode("latin-1"), (0, 9)) if found else None


def parse_request_line(line: str) -> RequestLine:
    """`GET /path HTTP/1.1` with any white space between; raises HttpError. A target may hold white space: Apache can be told
    to take that, and http.server cuts it off."""
    method = _METHOD.match(line)
    if not method:
        raise HttpError(NO_METHOD)
    target, _, last = line[method.end() :].rstrip(_SPACE).replace("\t", " ").rpartition(" ")
    version = _VERSION.fullmatch(last)
    if not version:
        raise HttpError(NO_VERSION)
    return RequestLine(method[1], target.strip(_SPACE), (int(version[1]), int(version[2])))


def parse_status_line(line: str) -> tuple[StatusLine, list[Anomaly]]:
    """`HTTP/1.1 200 OK`, or what browsers take for it: without a version it is 1.0, without a number 200."""
    found = _STATUS.match(line)
    if not found:
        raise HttpError("no status line")
    version = (int(found[1]), int(found[2] or 0)) if found[1] else (1, 0)
    status = int(found[3][:3]) if found[3] else 200
    return StatusLine(version, status, found[4]), [] if _STRICT_STATUS.fullmatch(line) else [Anomaly.ODD_STATUS]


def parse_content_range(value: str | None) -> ContentRange | None:
    """The value of a Content-Range field; None where it says no range of bytes."""
    found = _CONTENT_RANGE.match(value or "")
    if not found:
        return None
    return ContentRange(int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3]))
