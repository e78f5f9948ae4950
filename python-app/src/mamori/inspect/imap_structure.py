"""BODYSTRUCTURE and BODY (RFC 9051, section 7.5.2): what the parts of a mail are, as the header fields that they would have.

A client that fetches BODY[2] gets the part as it is encoded, without the header that says how. It knows that from the structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_DEPTH = 50
"""Lists inside one another. A part of a part adds two."""

MAX_PARTS = 200
"""Parts of one mail that are remembered."""

MAX_VALUE_BYTES = 1000
"""Of one parameter: a file name, a boundary."""

STRUCTURE = re.compile(rb"[ (]BODY(?:STRUCTURE)? (?=\()", re.IGNORECASE)
_TOKEN = re.compile(rb'[ \t]*+(?:(\()|(\))|"((?:[^"\\]|\\.)*+)"|([^()" \t\r\n]++))', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_WORD = re.compile(rb"[!#$&'*+.^_`{|}~0-9A-Za-z-]{1,100}")
_LINE_ENDS = re.compile(rb"[\r\n]+")

_Node = bytes | list["_Node"]


def find_structure(response: bytes) -> dict[bytes, bytes]:
    """A FETCH response's structure as header blocks, by the sections where those would be: `HEADER` for the mail, `2.MIME` for part
    2, `2.HEADER` for the mail that part 2 is. Empty if there is none that can be read."""
    headers: dict[bytes, bytes] = {}
    found = STRUCTURE.search(response)
    tree = _parse(response, found.end()) if found else None
    if isinstance(tree, list):
        _add_part(tree, b"", b"HEADER", headers)
    return headers


def _parse(text: bytes, at: int) -> _Node | None:
    stack: list[list[_Node]] = []
    while token := _TOKEN.match(text, at):
        at = token.end()
        opened, closed, quoted, atom = token.groups()
        if opened:
            if len(stack) == MAX_DEPTH:
                return None
            stack.append([])
        elif closed:
            done = stack.pop()
            if not stack:
                return done
            stack[-1].append(done)
        else:
            stack[-1].append(atom if quoted is None else _ESCAPED.sub(rb"\1", quoted))
    return None


def _add_part(part: list[_Node], path: bytes, key: bytes, headers: dict[bytes, bytes]) -> None:
    """`path` is the part's number, empty for the mail itself; `key` the section where its header would be."""
    if len(headers) >= MAX_PARTS or not part:
        return
    if isinstance(part[0], list):
        _add_multipart(part, path, key, headers)
        return
    kind, subtype, parameters, _, _, encoding = (*part[:6], *[b""] * 6)[:6]
    disposition = next((item for item in part[7:] if isinstance(item, list) and len(item) == 2 and _is_disposition(item)), None)
    fields = [_field(b"Content-Type", _word(kind) + b"/" + _word(subtype), parameters)]
    fields.append(_field(b"Content-Transfer-Encoding", _word(encoding), b""))
    if disposition:
        fields.append(_field(b"Content-Disposition", _word(disposition[0]), disposition[1]))
    headers[key] = b"".join(fields) + b"\r\n"
    if not path:  # a mail of one part is its own part 1
        headers[b"1.MIME"] = headers[key]
    inner = part[8] if _word(kind).upper() == b"MESSAGE" and len(part) > 8 else None
    if isinstance(inner, list):
        # RFC 9051, section 6.4.5.1: the parts of a mail inside are counted under its own number.
        own = path or b"1"
        is_multipart = bool(inner) and isinstance(inner[0], list)
        _add_part(inner, own if is_multipart else own + b".1", own + b".HEADER", headers)
        if not is_multipart and own + b".HEADER" in headers:
            headers[own + b".1.MIME"] = headers[own + b".HEADER"]


def _add_multipart(part: list[_Node], path: bytes, key: bytes, headers: dict[bytes, bytes]) -> None:
    children = list(_leading_lists(part))
    subtype, parameters = (*part[len(children) : len(children) + 2], b"", b"")[:2]
    headers[key] = _field(b"Content-Type", b"multipart/" + _word(subtype), parameters) + b"\r\n"
    for number, child in enumerate(children, 1):
        own = path + b".%d" % number if path else b"%d" % number
        _add_part(child, own, own + b".MIME", headers)


def _leading_lists(part: list[_Node]) -> Iterator[list[_Node]]:
    for item in part:
        if not isinstance(item, list):
            return
        yield item


def _is_disposition(item: list[_Node]) -> bool:
    return isinstance(item[0], bytes) and item[0].lower() in (b"attachment", b"inline")


def _word(node: _Node) -> bytes:
    return node if isinstance(node, bytes) and _WORD.fullmatch(node) else b"x"


def _field(name: bytes, value: bytes, parameters: _Node) -> bytes:
    pairs = parameters if isinstance(parameters, list) else []
    line = name + b": " + value
    for key, content in zip(pairs[::2], pairs[1::2], strict=False):
        if isinstance(key, bytes) and isinstance(content, bytes):
            quoted = _LINE_ENDS.sub(b" ", content[:MAX_VALUE_BYTES]).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            line += b";\r\n\t" + _word(key) + b'="' + quoted + b'"'
    return line + b"\r\n"
