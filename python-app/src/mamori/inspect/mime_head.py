"""The header block of a mail or of one of its parts (RFC 5322, 2.2; RFC 2045; RFC 2183): what it says about the content below.

Where fields or parameters stand twice, readers differ: Python and libmime take the first, mailparser the last, MimeKit's author
was asked to. So every boundary that any of them could take counts, and what cannot be had both ways is `is_ambiguous`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from mamori.events.record import MAX_SUBJECT_CHARACTERS
from mamori.inspect.mime_names import address_of, decode_words, parameter_text, parameters, unquoted, without_comments
from mamori.inspect.transfer import TRANSFERS, Transfer

MAX_BOUNDARIES = 8
"""Readings of one header's boundary. Quotes, blanks, comments and a second field make four."""

MAX_BOUNDARY_BYTES = 1000
"""RFC 2046 allows 70, and a line has no more than 998 (RFC 5322, 2.1.1). A longer one counts as its beginning."""

_LINE_END = re.compile(rb"\r{1,8}+\n|[\r\n]")
_CRS = re.compile(rb"\r{1,8}+")
_FIELD = re.compile(rb"([^\s:]{1,100})[ \t]*+:(.*)", re.DOTALL)
_TYPE = re.compile(rb'[\s"]*+([^\s;/"]*+)\s*+(?:/\s*+([^\s;"]*+))?')
_BOUNDARY = re.compile(rb'boundary\s*+=\s*+("(?:[^"\\]|\\.)*+"?|[^;\s]++)', re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(rb'[\s"]*+([^\s;"]*+)')
_KEPT = frozenset({b"content-type", b"content-transfer-encoding", b"content-disposition", b"from", b"to", b"subject"})


class Content(Enum):
    """What a reader does with the content."""

    LEAF = "text, or a file"
    MULTIPART = "parts between boundaries"
    MESSAGE = "a mail of its own"


@dataclass(frozen=True, slots=True)
class Head:
    """`boundaries`: all that may be meant, the likeliest first. `kind` is the media type, lower-case. `subject` and the
    addresses are those of a mail; a part has none."""

    content: Content
    kind: str
    transfer: Transfer
    name: str
    boundaries: tuple[bytes, ...] = ()
    sender: str = ""
    recipient: str = ""
    subject: str = ""
    is_ambiguous: bool = False


def parse_head(block: bytes, default_kind: str = "text/plain") -> Head:
    """What a header block says, without the empty line below it. Anything is a header block."""
    fields = _fields(block)
    types = [_media_type(value) for value in fields.get(b"content-type", ())]
    kinds = [kind for kind in types if kind] or [default_kind]
    transfers = [_transfer(value) for value in fields.get(b"content-transfer-encoding", ())] or [Transfer.IDENTITY]
    kind = next((kind for kind in kinds if kind.startswith("multipart")), kinds[0])
    # The first that changes the bytes: raw text under a coding is garbage to all, coded text without it is seen by nobody.
    transfer = next((transfer for transfer in transfers if transfer is not Transfer.IDENTITY), transfers[0])
    return Head(
        content=_content(kind, transfer),
        kind=kind,
        transfer=transfer,
        name=_name(fields),
        boundaries=_boundaries(fields.get(b"content-type", [])) if kind.startswith("multipart") else (),
        sender=_first(fields, b"from"),
        recipient=_first(fields, b"to"),
        subject=decode_words(fields.get(b"subject", [b""])[0].strip()),
        is_ambiguous=len(set(kinds)) > 1 or len(set(transfers)) > 1,
    )


def carrier_of(head: Head, prefix: str) -> str:
    """What people call the mail: `mail from a@b to c@d "Subject"`, as far as it is known."""
    words = [prefix]
    words += [f"{preposition} {address}" for preposition, address in (("from", head.sender), ("to", head.recipient)) if address]
    words += [f'"{head.subject}"'] if head.subject else []
    return bounded(" ".join(words))


def bounded(text: str) -> str:
    """As much of a name as an event may hold."""
    return text if len(text) <= MAX_SUBJECT_CHARACTERS else text[: MAX_SUBJECT_CHARACTERS - 1] + "…"


def is_field(line: bytes) -> bool:
    """A line that begins a field or goes on with one."""
    return line[:1] in (b" ", b"\t") or _FIELD.match(line) is not None


def line_end(data: bytes | bytearray, start: int, end: int, is_final: bool) -> tuple[int, int] | None:
    """The next line end in data[start:end]; None if there is none, or its rest may still come. It is LF, with CRs before it (a bad
    gateway's CR CR LF is no empty line), or a CR alone."""
    found = _LINE_END.search(data, start, end)
    if not found:
        return None
    crs = _CRS.match(data, found.start())
    may_go_on = crs and crs.end() == len(data) and not is_final
    return None if may_go_on else found.span()


def _fields(block: bytes) -> dict[bytes, list[bytes]]:
    """The values that matter, unfolded (RFC 5322, 2.2.3), in their order."""
    fields: dict[bytes, list[bytes]] = {}
    current: list[bytes] = []
    name = b""
    for line in [*_LINE_END.split(block), b""]:
        if line[:1] in (b" ", b"\t"):
            current.append(line)
            continue
        if name in _KEPT:
            fields.setdefault(name, []).append(b"".join(current))
        found = _FIELD.match(line)
        name, current = (found[1].lower(), [found[2]]) if found else (b"", [])
    return fields


def _first(fields: dict[bytes, list[bytes]], name: bytes) -> str:
    return address_of(fields[name][0]) if name in fields else ""


def _media_type(value: bytes) -> str:
    found = _TYPE.match(without_comments(value))
    if not found or not found[1]:
        return ""
    kind = found[1] + b"/" + found[2] if found[2] else found[1]
    return kind.decode("latin-1").lower()


def _transfer(value: bytes) -> Transfer:
    found = _TOKEN.match(without_comments(value))
    return TRANSFERS.get(found[1].decode("latin-1").lower() if found else "", Transfer.IDENTITY)


def _content(kind: str, transfer: Transfer) -> Content:
    """A coded mail inside a mail is a file to us: scanners take it apart. A coded multipart is not coded (RFC 2045, 6.4)."""
    if kind.startswith("multipart"):
        return Content.MULTIPART
    is_message = kind in ("message/rfc822", "message/global", "message/news")
    return Content.MESSAGE if is_message and transfer in (Transfer.IDENTITY, Transfer.UUENCODE) else Content.LEAF


def _name(fields: dict[bytes, list[bytes]]) -> str:
    """Disposition first, as Python and Thunderbird have it."""
    for field, name in ((b"content-disposition", b"filename"), (b"content-type", b"name")):
        for value in fields.get(field, ()):
            # Unquoted parentheses are part of a file's name more often than a comment.
            for reading in (value, without_comments(value)):
                if text := parameter_text(parameters(reading), name):
                    return bounded(text)
    return ""


def _boundaries(values: list[bytes]) -> tuple[bytes, ...]:
    """Every reading of every boundary parameter. An empty one is none."""
    found: dict[bytes, None] = {}
    for value in values:
        for reading in dict.fromkeys((value, without_comments(value))):
            pairs = parameters(reading)
            raw = [content for key, content in pairs if key == b"boundary"]
            raw += [match[1] for match in _BOUNDARY.finditer(reading)][:MAX_BOUNDARIES]
            candidates = [candidate for content in raw for candidate in _readings(content)]
            candidates.append(parameter_text(pairs, b"boundary").encode("utf-8", "replace"))
            found |= dict.fromkeys(candidate.rstrip()[:MAX_BOUNDARY_BYTES] for candidate in candidates)
    found.pop(b"", None)
    return tuple(found)[:MAX_BOUNDARIES]


def _readings(content: bytes) -> tuple[bytes, ...]:
    """With backslashes undone or not; without quotes, up to the semicolon or the first blank; leading blanks kept or not."""
    if not content.startswith(b'"'):
        return (content, (content.split() or [b""])[0])
    inner = content[1:].partition(b'"')[0] if b"\\" not in content else content[1:].removesuffix(b'"')
    return (unquoted(content), inner, inner.strip())
