"""Host names and addresses in the one spelling that lists are compared in: that of names.host_name, IDN as A-labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from unicodedata import category, normalize

MAX_NAME_CHARS = 253
"""A name without its final dot (RFC 1035, section 2.3.4: 255 bytes with the root's and the first label's length)."""

_MAX_LABEL_CHARS = 63

_MAX_IPV6_CHARS = 64
"""45 and a zone. The standard library takes a millisecond to refuse 60,000 colons."""

_DOTS = re.compile("[。．｡]")
"""What people type for a dot, and browsers take for one (UTS #46, section 2.3)."""

_IGNORED = re.compile("[\u00ad\u200b\u2060\ufeff\ufe00-\ufe0f]")
"""What browsers drop from a label (UTS #46, status `ignored`)."""

_UNFIT = ("Cc", "Cs", "Zs", "Zl", "Zp")
"""Categories: controls, surrogates, white space. Symbols stay: `☕.example` resolves in some zones."""

_A_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


def a_labels(name: str) -> str:
    """A name that people wrote, lower-case and with A-labels. ValueError if a label is too long or unfit for DNS.

    This is UTS #46 as browsers apply it (non-transitional: `ß` stays), but for its tables: what Python calls lower case and
    NFKC stands for its mapping. IDNA2008's list of allowed letters is not applied: a name that resolves can be listed.
    """
    if name.isascii():
        return name.lower()
    return ".".join(map(_a_label, _DOTS.sub(".", name).split(".")))


def _a_label(label: str) -> str:
    # One letter at a time: as a whole, a word's last sigma would become another letter, and UTS #46 has no context.
    label = normalize("NFKC", _IGNORED.sub("", label))
    label = normalize("NFKC", "".join(letter.lower() for letter in label))
    if label.isascii():
        return label
    if len(label) > _MAX_LABEL_CHARS or not all(_is_fit(letter) for letter in label):
        raise ValueError(f"a label unfit for a name: {label[:20]!r}")
    label = "xn--" + label.encode("punycode").decode()
    if len(label) > _MAX_LABEL_CHARS:
        raise ValueError(f"a label longer than {_MAX_LABEL_CHARS} characters")
    return label


def _is_fit(letter: str) -> bool:
    return category(letter) not in _UNFIT if letter > "\x7f" else _A_LABEL.fullmatch(letter) is not None


def is_host_name(name: str) -> bool:
    """Whether a host can have this name. Underscores and hyphens anywhere are let pass: such names resolve."""
    return len(name) <= MAX_NAME_CHARS and all(map(_A_LABEL.fullmatch, name.split(".")))


def ends_in_number(name: str) -> bool:
    """Whether a browser takes this for an IPv4 address, or for nothing (WHATWG URL, "ends in a number")."""
    last = name.rpartition(".")[2]
    return "0" <= last[:1] <= "9" and _NUMBER.fullmatch(last) is not None


def address_of(host: str) -> str | None:
    """The address that a host is, in its shortest form; None if it is a name.

    All ways to write IPv4 that browsers and inet_aton take are known (`0x7f.1`, `3232235777`), and an IPv4 address
    inside an IPv6 one (`::ffff:192.0.2.1`) is told as what the packets are sent to.
    """
    if ":" in host:
        if len(host) > _MAX_IPV6_CHARS:
            return None
        try:
            address = IPv6Address(host)
        except AddressValueError:
            return None
        return str(address.ipv4_mapped or address)
    return _ipv4(host) if ends_in_number(host) else None


def _ipv4(host: str) -> str | None:
    """WHATWG URL, "IPv4 parser": up to four numbers, of which the last fills what the others leave."""
    parts = host.split(".")
    if len(parts) > 4 or len(host) > MAX_NAME_CHARS or not all(map(_NUMBER.fullmatch, parts)):
        return None
    try:
        *upper, last = map(_number, parts)
    except ValueError:  # `08` is no octal number
        return None
    if any(number > 255 for number in upper) or last >= 256 ** (4 - len(upper)):
        return None
    return str(IPv4Address(sum(number << 24 - 8 * place for place, number in enumerate(upper)) + last))


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)


def parents(name: str, max_labels: int) -> Iterator[str]:
    """The names above `name`, from the nearest up to those of two labels; none of more than `max_labels`, and none that is
    longer than a name can be, so that a hostile name costs no more than a long one."""
    starts: list[int] = []
    for dot in _dots_from_the_right(name):
        if len(starts) >= max_labels or len(name) - dot > MAX_NAME_CHARS + 1:
            break
        starts.append(dot + 1)
    return (name[start:] for start in reversed(starts[1:]))


def _dots_from_the_right(name: str) -> Iterator[int]:
    """The borders of labels. After an odd number of backslashes a dot is none (names.py)."""
    at = name.rfind(".")
    while at >= 0:
        if name[at - 1 : at] != "\\" or (at - len(name[:at].rstrip("\\"))) % 2 == 0:
            yield at
        at = name.rfind(".", 0, at)
