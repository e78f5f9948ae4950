"""Text in mail header fields: parameters (RFC 2045, 5.1; RFC 2231), encoded words (RFC 2047), addresses (RFC 5322).

As lenient as mail readers: words inside quotes (Outlook writes file names so), raw bytes in any charset, missing quotes. What
cannot be decoded is shown with replacement characters; there are no errors.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, a2b_qp
from urllib.parse import unquote_to_bytes

MAX_PARAMETERS = 200
"""Of one header field. RFC 2231 may cut a long file name into some tens of pieces."""

_CODECS = {
    "us-ascii": "ascii",
    "ascii": "ascii",
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "iso-2022-jp": "iso2022_jp_ext",
    "iso-2022-jp-ms": "iso2022_jp_ext",
    "cp50220": "iso2022_jp_ext",
    "cp50221": "iso2022_jp_ext",
    "iso-2022-jp-2": "iso2022_jp_2",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "sjis": "cp932",
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "ms_kanji": "cp932",
    "cp932": "cp932",
    "euc-jp": "euc_jp",
    "x-euc-jp": "euc_jp",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "big5",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "koi8-r": "koi8_r",
    "koi8-u": "koi8_u",
    "tis-620": "tis_620",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
} | {f"{prefix}{number}": f"{codec}{number}" for prefix, codec, numbers in (
    ("iso-8859-", "iso8859_", (*range(2, 12), *range(13, 17))),
    ("windows-", "cp", range(1250, 1259)),
) for number in numbers}  # fmt: skip
"""By the names that mail uses, lower-case. A list, because Python has codecs that are no charset, and slow ones."""

_GUESSES = ("utf-8", "cp932", "euc_jp")
_ESCAPES = (b"\x1b$", b"\x1b(")
_WORD = re.compile(rb"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*)\?=")
_SEGMENT = re.compile(rb'(?:[^;"]++|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))*+', re.DOTALL)
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)(?:"|\\?\Z)', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_COMMENT_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|\\.|[^"\\()]++|.', re.DOTALL)
_PIECE = re.compile(rb"([^*]+)(?:\*(\d{1,3}))?(\*)?")
_ADDRESS = re.compile(r"<([^<>]*)>")


def decode_bytes(raw: bytes, charset: str = "") -> str:
    """Text in a named charset, or in the likeliest one if that is not known or does not fit."""
    codec = _CODECS.get(charset.lower())
    if any(escape in raw for escape in _ESCAPES) and (codec is None or codec == "ascii"):
        codec = "iso2022_jp_ext"
    for guess in (codec, *_GUESSES) if codec else _GUESSES:
        try:
            return raw.decode(guess)
        except UnicodeDecodeError:
            continue
    return raw.decode(codec or "latin-1", "replace")


def decode_words(raw: bytes) -> str:
    """A field's text with its encoded words undone, wherever they stand. White space between two words goes; what they share of
    a charset is decoded together, since some mailers cut in the middle of a character."""
    texts: list[str] = []
    pending, charset, at = b"", "", 0
    for word in _WORD.finditer(raw):
        between = raw[at : word.start()]
        name = word[1].partition(b"*")[0].decode("latin-1").lower()
        is_joined = at > 0 and not between.strip()
        if not is_joined or name != charset:
            texts.append(decode_bytes(pending, charset))
            pending = b""
        if not is_joined:
            texts.append(decode_bytes(between))
        pending += _word_bytes(word[2], word[3])
        charset, at = name, word.end()
    texts += (decode_bytes(pending, charset), decode_bytes(raw[at:]))
    return "".join(texts)


def _word_bytes(coding: bytes, text: bytes) -> bytes:
    if coding in b"qQ":
        return a2b_qp(text.replace(b"==", b"=3D="), header=True)
    text = text.rstrip(b"=")
    try:
        return a2b_base64(text[: len(text) - (len(text) % 4 == 1)] + b"=" * (-len(text) % 4))
    except Error:
        return text


def without_comments(value: bytes) -> bytes:
    """Comments in parentheses (RFC 5322, 3.2.2), which may be nested, gone; quoted strings kept."""
    if b"(" not in value:
        return value
    kept: list[bytes] = []
    depth = 0
    for token in _COMMENT_TOKEN.findall(value):
        if token == b"(":
            depth += 1
        elif token == b")" and depth:
            depth -= 1
        elif not depth:
            kept.append(token)
    return b"".join(kept)


def segments(value: bytes) -> list[bytes]:
    """A field's value cut at the semicolons that are outside of quotes."""
    found: list[bytes] = []
    at = 0
    while at <= len(value) and len(found) < MAX_PARAMETERS:
        segment = _SEGMENT.match(value, at)
        end = segment.end() if segment else at
        found.append(value[at:end].strip())
        at = end + 1
    return found


def parameters(value: bytes) -> list[tuple[bytes, bytes]]:
    """Names in lower case, as they stand (`filename*0*`), and values as they stand, perhaps in quotes."""
    pairs = [segment.partition(b"=") for segment in segments(value)[1:]]
    return [(name.strip().lower(), content.strip()) for name, sign, content in pairs if sign]


def unquoted(content: bytes) -> bytes:
    """A parameter's value without its quotes and backslashes."""
    quoted = _QUOTED.match(content)
    return _ESCAPED.sub(rb"\1", quoted[1]) if quoted else content


def parameter_text(pairs: list[tuple[bytes, bytes]], name: bytes) -> str:
    """The text of one parameter: by RFC 2231, in pieces or not, else plain with encoded words. "" if there is none."""
    pieces: dict[int, tuple[bytes, bool]] = {}
    plain = None
    for key, content in pairs:
        piece = _PIECE.fullmatch(key)
        if not piece or piece[1] != name:
            continue
        if piece[2] is None and piece[3] is None:
            plain = content if plain is None else plain
        else:
            pieces.setdefault(int(piece[2] or 0), (unquoted(content), bool(piece[3])))
    if 0 in pieces:
        return _extended(pieces)
    return "" if plain is None else decode_words(_plain_value(plain))


def _plain_value(content: bytes) -> bytes:
    r"""Windows paths and Shift_JIS have backslashes that escape nothing, so only `\"` and `\\` are undone."""
    quoted = _QUOTED.match(content)
    return re.sub(rb'\\(["\\])', rb"\1", quoted[1]) if quoted else content


def _extended(pieces: dict[int, tuple[bytes, bool]]) -> str:
    """RFC 2231: the first piece may name a charset and a language; pieces with a star are percent-encoded."""
    first, is_coded = pieces[0]
    charset = b""
    if is_coded and first.count(b"'") >= 2:
        charset, _, first = first.split(b"'", 2)
    raw = unquote_to_bytes(first) if is_coded else first
    number = 1
    while number in pieces:
        content, is_coded = pieces[number]
        raw += unquote_to_bytes(content) if is_coded else content
        number += 1
    return decode_bytes(raw, charset.decode("latin-1")) if charset else decode_words(raw)


def address_of(value: bytes) -> str:
    """The first address of a From or To field, "" if there is none."""
    text = decode_words(without_comments(value))
    found = _ADDRESS.search(text)
    return (found[1] if found else text.partition(",")[0]).strip()
