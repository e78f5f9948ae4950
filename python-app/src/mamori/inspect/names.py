"""Domain names as text: lower-case, without a final dot, and able to hold any bytes that a peer may send.

A byte that no host name has is written as in a zone file (RFC 1035, section 5.1): `\\.` for a dot inside a label, `\\\\`, and
`\\ddd` in decimal. Such a name is odd but no error: it equals no entry of a list, and it can be shown to people as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PLAIN = re.compile(rb"[a-z0-9_.-]*")
"""What needs no escape once it is lower-case: A-labels, and the underscore of `_dns.example` and of sloppy host names."""

_ESCAPES = {byte: f"\\{byte:03d}" for byte in range(256) if not 0x21 <= byte <= 0x7E} | {ord("\\"): "\\\\"}


def host_name(raw: bytes) -> str:
    """A name that came as dotted text, such as TLS's server_name. Dots separate labels; one at the end says nothing."""
    return _escaped(raw.lower()).removesuffix(".")


def domain_name(labels: Sequence[bytes]) -> str:
    """A name that came as labels, as in DNS; no labels give `.`, the root. A dot inside a label is escaped, so that
    the label `a.b` is not taken for the two labels `a` and `b`."""
    name = b".".join(labels).lower()
    if _PLAIN.fullmatch(name) and not any(b"." in label for label in labels):
        return name.decode() or "."
    return ".".join(_escaped(label.lower()).replace(".", "\\.") for label in labels)


def _escaped(name: bytes) -> str:
    return name.decode() if _PLAIN.fullmatch(name) else name.decode("latin-1").translate(_ESCAPES)
