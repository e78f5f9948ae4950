"""What a TCP connection speaks, from its first bytes in either direction; ports are not asked, since servers move.

Pure and without state: the caller keeps the first bytes of each direction, at most MAX_SNIFF_BYTES, and asks again when more
have come. None means that more is needed; with MAX_SNIFF_BYTES of either direction there is always an answer.
"""

from __future__ import annotations

import re
from enum import Enum

MAX_SNIFF_BYTES = 8 << 10
"""Bytes of a direction that are looked at. A request with a method that nobody knows must show its version, behind a target of
at most 8 KB in Apache and nginx; all else is clear after 64 bytes."""

_MAX_BLANK_BYTES = 64
"""Empty lines before a request are skipped by servers; more of them than this is no client of HTTP."""


class Application(Enum):
    """What speaks on a connection, as far as the inspection treats it in its own way."""

    HTTP = "http"
    HTTP2 = "h2c"
    TLS = "tls"
    SMTP = "smtp"
    POP3 = "pop3"
    IMAP = "imap"
    FTP = "ftp"
    SSH = "ssh"
    RDP = "rdp"
    SMB = "smb"
    VNC = "vnc"
    BITTORRENT = "bittorrent"
    UNKNOWN = "unknown"


_H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_METHODS = re.compile(
    rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|TRACE|CONNECT|PATCH|PROPFIND|PROPPATCH|MKCOL|COPY|MOVE|LOCK|UNLOCK|REPORT|SEARCH"
    rb"|MKCALENDAR|MKACTIVITY|CHECKOUT|MERGE|BIND|PURGE|SUBSCRIBE|UNSUBSCRIBE|NOTIFY|M-SEARCH|SOURCE|QUERY)[ \t]"
)
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++[ \t][^\n]*HTTP/\d+\.\d+[ \t\r]*\n", re.IGNORECASE)
_TOKEN_START = re.compile(rb"[ \t]*+[!#$%&'*+.^_`|~0-9A-Za-z-]*+(?:[ \t][^\r\n\0]*+\r*+)?")
_STATUS = re.compile(rb".{0,4}?(?:HTTP|\AICY )", re.IGNORECASE | re.DOTALL)
_CODE_220 = re.compile(rb"220[ -]")

_WARNING = b"\x15\x03\x01\0\2\1"  # RFC 8446, section 6: an alert's record with a level of 1; any version

_DNS_BYTES = 8  # the length, the id, the flags, the number of questions

_SMTP_FIRST = re.compile(rb"(?:EHLO|HELO|LHLO)\b", re.IGNORECASE)
_FTP_FIRST = re.compile(rb"(?:USER|AUTH|FEAT|OPTS|HOST|CLNT|SYST|ACCT)\b", re.IGNORECASE)
_POP3_FIRST = re.compile(rb"(?:CAPA|APOP|STLS)\b", re.IGNORECASE)
_IMAP_FIRST = re.compile(rb"[A-Za-z0-9.]+ (?:CAPABILITY|LOGIN|STARTTLS|ID|AUTHENTICATE)\b", re.IGNORECASE)

_SIGNATURES: tuple[tuple[bytes, Application], ...] = (
    (_H2_PREFACE[:16], Application.HTTP2),
    (b"SSH-", Application.SSH),  # RFC 4253, section 4.2
    (b"RFB 00", Application.VNC),  # RFC 6143, section 7.1.1
    (b"\x13BitTorrent protocol", Application.BITTORRENT),  # BEP 3
    (b"+OK", Application.POP3),  # RFC 1939, section 3
    (b"* OK", Application.IMAP),  # RFC 3501, section 7.1
    (b"* PREAUTH", Application.IMAP),
    (b"* BYE", Application.IMAP),
)
"""What a direction begins with, whichever it is."""


def sniff(client: bytes, server: bytes) -> Application | None:
    """The application, UNKNOWN when it is none that is known here, or None when the next bytes may tell.

    The client's word comes first, even where the server greets: a server that says `220` to a browser makes it no mail client.
    Only what the client leaves open is decided by the server.
    """
    is_full = len(client) >= MAX_SNIFF_BYTES or len(server) >= MAX_SNIFF_BYTES
    from_client = _sniff_client(client)
    if from_client is None and not is_full:
        return None
    if from_client not in (None, Application.UNKNOWN):
        return from_client
    from_server = _sniff_server(server)
    if from_server is None and server.startswith(b"220"):
        from_server = _after_220(client, server)
    return Application.UNKNOWN if from_server is None and is_full else from_server


def is_dns_query(start: bytes) -> bool:
    """Whether a client asks DNS over TCP (RFC 1035, section 4.2.2): a length, QR clear, and one question, which is all that servers
    take (RFC 9619). Many protocols may look like that, so it is for who knows the port to ask."""
    return len(start) >= _DNS_BYTES and start[:2] >= b"\0\x0c" and not start[4] & 0x80 and start[6:8] == b"\0\1"


def _sniff_server(start: bytes) -> Application | None:
    if not start:
        return None
    known = _by_signature(start)
    if known is not Application.UNKNOWN:
        return known
    if _STATUS.match(start):
        return Application.HTTP
    if _is_tls(start):
        return Application.TLS
    if b"220".startswith(start[:3]):
        if len(start) < 4:
            return None
        return _name_in_greeting(start) if _CODE_220.match(start) else Application.UNKNOWN
    # Up to four bytes may precede a status line (Chrome skips them).
    return None if len(start) < 8 else Application.UNKNOWN


def _name_in_greeting(start: bytes) -> Application | None:
    """SMTP and FTP both greet with 220. Many servers say which they are; the rest shows in the client's first command."""
    line, end, _ = start.partition(b"\n")
    line = line.upper()
    if b"SMTP" in line:
        return Application.SMTP
    return Application.FTP if end and b"FTP" in line else None


def _after_220(client: bytes, server: bytes) -> Application | None:
    if _FTP_FIRST.match(client):
        return Application.FTP
    return Application.UNKNOWN if b"\n" in client and b"\n" in server else None


def _sniff_client(start: bytes) -> Application | None:
    if not start:
        return None
    known = _by_signature(start)
    if known is not Application.UNKNOWN:
        return known
    if start[0] < 0x20 and start[0] not in b"\r\n\t":
        return _sniff_binary(start)
    if start[0] >= 0x80:
        return Application.TLS if _is_ssl2_hello(start) else (None if len(start) < 4 else Application.UNKNOWN)
    return _sniff_text(start.lstrip(b"\r\n"), len(start))


def _sniff_text(text: bytes, seen_bytes: int) -> Application | None:
    if seen_bytes - len(text) > _MAX_BLANK_BYTES:
        return Application.UNKNOWN
    if _METHODS.match(text) or _REQUEST_LINE.match(text):
        return Application.HTTP
    for pattern, application in ((_SMTP_FIRST, Application.SMTP), (_POP3_FIRST, Application.POP3), (_IMAP_FIRST, Application.IMAP)):
        if pattern.match(text):
            return application
    if seen_bytes >= MAX_SNIFF_BYTES or b"\n" in text or not _TOKEN_START.fullmatch(text):
        return Application.UNKNOWN
    return None


def _sniff_binary(start: bytes) -> Application | None:
    if start[0] == 0x16:
        return Application.TLS if _is_tls(start) else (None if len(start) < 3 else Application.UNKNOWN)
    if start[0] == 0x15:  # a warning: Go's server passes over those that come before the hello
        if len(start) < len(_WARNING):
            return None
        return Application.TLS if start[1] < 0x10 and start[3:6] == _WARNING[3:] else Application.UNKNOWN
    if start[0] == 0x03:  # TPKT (RFC 1006) around an X.224 connection request (MS-RDPBCGR, section 2.2.1.1)
        if len(start) < 6:
            return None if start[1:2] in (b"", b"\0") else Application.UNKNOWN
        return Application.RDP if start[1] == 0 and start[5] == 0xE0 else Application.UNKNOWN
    if start[0] == 0x00:  # NetBIOS session (RFC 1002) around SMB 1 (0xFF) or 2 and 3 (0xFE)
        if len(start) < 8:
            return None
        return Application.SMB if start[5:8] == b"SMB" and start[4] in (0xFE, 0xFF) else Application.UNKNOWN
    return Application.UNKNOWN


def _is_tls(start: bytes) -> bool:
    """A handshake record. OpenSSL wants 3 as the version's first byte, Go's server all below 0x10."""
    return len(start) >= 3 and start[0] == 0x16 and start[1] < 0x10


def _is_ssl2_hello(start: bytes) -> bool:
    """A ClientHello in SSLv2's frame (RFC 5246, appendix E.2)."""
    return len(start) >= 4 and start[0] & 0x80 != 0 and start[2] == 1 and start[3] == 3


def _by_signature(start: bytes) -> Application | None:
    """An application, None while a signature may still become whole, UNKNOWN when none fits."""
    undecided = False
    for signature, application in _SIGNATURES:
        if start.startswith(signature):
            return application
        undecided = undecided or signature.startswith(start)
    return None if undecided else Application.UNKNOWN
