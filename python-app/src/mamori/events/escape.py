"""Text off the wire on its way to people's terminals."""

from __future__ import annotations

import re
import unicodedata

_JSON_UNPRINTABLE = re.compile(
    "[\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def printable(text: str) -> str:
    """The text with everything that is not a visible character, or a plain space, as `\\x1b`, `\\u202e`: escape sequences of
    terminals, line breaks, and marks that turn the direction of writing around."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in text)


def printable_json(text: str) -> str:
    """The same for JSON, which escapes the C0 controls itself: other controls and format characters become `\\u009b`."""
    return _JSON_UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def width(text: str) -> int:
    """The columns of printable text on a terminal: Japanese characters take two (UAX #11), combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def padded(text: str, columns: int) -> str:
    """With spaces up to so many columns of a terminal; Japanese takes two for a character."""
    return text + " " * (columns - width(text))


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
