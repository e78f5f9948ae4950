"""Applications by their names, protocols, ports and first bytes; the bytes are built from each protocol's specification."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mamori.formats.problems import BadInputError
from mamori.inspect.applications import MAX_PAYLOAD_BYTES, MAX_SIGNATURE_CHARS, Application, load_applications, own_applications
from tests.support.hellos import python_hello
from tests.support.need import need
from tests.support.packets import seeded

OWN = own_applications()
PUBLIC_SUFFIXES = Path("/usr/share/publicsuffix/public_suffix_list.dat")


def key(application: Application | None) -> str | None:
    return application.key if application else None


NAMES = {
    "legy-jp.line-apps.com": "line",
    "line.me": "line",
    "obs.line-scdn.net": "line",
    "social-plugins.line.me": None,
    "jp1-api.worksmobile.com": "line-works",
    "x.com": "x",
    "abs.twimg.com": "x",
    "platform.twitter.com": None,
    "netflix.com": "netflix",
    "x.com.example.jp": None,
    "dropbox.com": "dropbox",
    "notdropbox.com": None,
    "www.facebook.com": "facebook",
    "connect.facebook.net": None,
    "scontent-nrt1-1.cdninstagram.com": "instagram",
    "v16-webapp-prime.tiktok.com": "tiktok",
    "rr3---sn-oguelnsy.googlevideo.com": "youtube",
    "youtubei.googleapis.com": "youtube",
    "www.googleapis.com": None,
    "storage.googleapis.com": None,
    "s.ytimg.com": None,
    "api-global.netflix.com": "netflix",
    "gateway.discord.gg": "discord",
    "us04web.zoom.us": "zoom",
    "teams.microsoft.com": "teams",
    "www.microsoft.com": None,
    "content.dropboxapi.com": "dropbox",
    "81.gigafile.nu": "gigafile",
    "firestorage.jp": "firestorage",
    "drive.google.com": "google-drive",
    "www.google.com": None,
    "docs.google.com": "google-docs",
    "api.onedrive.com": "onedrive",
    "login.live.com": None,
    "p01-drivews.icloud.com": "icloud",
    "mask.icloud.com": "icloud-private-relay",
    "torproject.org": "tor",
    "store.steampowered.com": "steam",
    "npns-dev.c.app.nintendo.net": "nintendo",
    "www.nintendo.co.jp": None,
    "auth.api.sonyentertainmentnetwork.com": "playstation",
    "www.sony.jp": None,
    "gamejoin.roblox.com": "roblox",
    "remotedesktop-pa.googleapis.com": "chrome-remote-desktop",
    "router12.teamviewer.com": "teamviewer",
    "relay-1a2b3c4d.net.anydesk.com": "anydesk",
    "downloads.nordcdn.com": "nordvpn",
    "vpn123456.softether.net": "softether",
    "public-vpn-1.opengw.net": "vpn-gate",
    "wss-primary.slack.com": "slack",
    "www.chatwork.com": "chatwork",
    "meet.google.com": "google-meet",
    "atv-ps-fe.amazon.co.jp": "prime-video",
    "www.amazon.co.jp": None,
    "delivery.domand.nicovideo.jp": "niconico",
    "tver.jp": "tver",
    "ds-vod-abematv.akamaized.net": "abema",
    "akamaized.net": None,
    "jp.mercari.com": "mercari",
    "chrome.cloudflare-dns.com": "doh",
    "www.cloudflare.com": None,
    "dns.mullvad.net": "doh",
    "api.mullvad.net": "mullvad",
    "1a2b3c.dns.nextdns.io": "doh",
    "auctions.yahoo.co.jp": "yahoo-auctions",
    "www.yahoo.co.jp": None,
    "": None,
    ".": None,
    "com": None,
    "192.0.2.1": None,
    "localhost": None,
    "line\\.me": None,
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items(), ids=[name or "nothing" for name in NAMES])
def test_a_name_is_that_of_one_application_or_of_none(name: str, expected: str | None) -> None:
    assert key(OWN.by_name(name)) == expected


def test_an_endless_name_is_looked_up_by_its_end() -> None:
    assert key(OWN.by_name("a." * 500_000 + "youtube.com")) == "youtube"


def listed_names() -> list[str]:
    import tomllib

    table = tomllib.loads((Path(__file__).parents[3] / "python-app/src/mamori/inspect/data/applications.toml").read_text())
    return [*table["nobody"], *(name for entry in table["applications"].values() for name in entry.get("names", ()))]


def test_every_name_leads_to_the_entry_that_lists_it() -> None:
    names = listed_names()
    assert len(names) == len(set(names)) > 300
    for name in names:
        assert OWN.by_name(name) == OWN.by_name(f"www.{name}")


def test_no_name_is_one_under_which_anyone_may_register() -> None:
    need(PUBLIC_SUFFIXES.exists(), "the list of public suffixes (package publicsuffix) says what belongs to nobody")
    lines = (line.strip() for line in PUBLIC_SUFFIXES.read_text().splitlines())
    suffixes = {line.removeprefix("*.") for line in lines if line and not line.startswith(("//", "!"))}
    assert "co.jp" in suffixes
    assert suffixes & set(listed_names()) == set()


def test_everything_has_both_languages_and_a_group() -> None:
    assert len(OWN.all) > 100
    for application in OWN.all.values():
        assert application.ja
        assert application.en
        assert OWN.groups[application.group].ja
    assert set(OWN.groups) == {application.group for application in OWN.all.values()}


def test_protocols_and_ports_are_told() -> None:
    assert (key(OWN.by_alpn((b"h2", b"dot"))), key(OWN.by_alpn(["doq"])), OWN.by_alpn((b"h2", b"h3", b"http/1.1"))) == (
        *("dot", "doq"),
        None,
    )
    assert [key(OWN.by_port("tcp", port)) for port in (853, 1723, 5938)] == ["dot", "pptp", "teamviewer"]
    assert [key(OWN.by_port("udp", port)) for port in (853, 1194, 4500)] == ["doq", "openvpn", "ipsec"]
    assert {
        OWN.by_port(protocol, port) for protocol in ("tcp", "udp") for port in (25, 53, 80, 123, 443, 587, 993, 3478, 8080)
    } == {None}


# --- first bytes ---

SPI, SESSION, CHANCE = bytes(range(1, 9)), bytes(range(0x81, 0x89)), seeded(1)
IKE_SA = struct.pack(">BBHBBHBBHI", 0, 0, 40, 1, 1, 36, 1, 1, 0, 0x80000000)


def ike(following: int, version: int, exchange: int, flags: int, responder: bytes = bytes(8)) -> bytes:
    """RFC 7296, section 3.1."""
    return SPI + responder + struct.pack(">BBBBII", following, version, exchange, flags, 0, 28 + len(IKE_SA)) + IKE_SA


def openvpn(opcode: int, rest: bytes) -> bytes:
    return bytes((opcode << 3,)) + SESSION + rest


def framed(packet: bytes) -> bytes:
    return struct.pack(">H", len(packet)) + packet


def utp(kind: int, sequence: int, acknowledgement: int = 0, difference: int = 0) -> bytes:
    """BEP 29, version 1, no extension."""
    return struct.pack(">BBHIIIHH", kind << 4 | 1, 0, 4711, 123456789, difference, 1 << 20, sequence, acknowledgement)


WIREGUARD = b"\1\0\0\0" + CHANCE.randbytes(4 + 32 + 48 + 28 + 16)
NUMBERED = struct.pack(">II", 1, 1_700_000_000)
EARLY = struct.pack(">II", 0x0F000001, 1_700_000_000)
RESET_REPLY = openvpn(8, CHANCE.randbytes(40))
L2TP_SCCRQ = struct.pack(">HHHHHH", 0xC802, 20, 0, 0, 0, 0) + struct.pack(">HHHH", 0x8008, 0, 0, 1)
PPTP_START = struct.pack(">HHIHH", 156, 1, 0x1A2B3C4D, 1, 0) + bytes(144)
RDP = b"\3\0\0\x13\x0e\xe0\0\0\0\0\0" + struct.pack("<BBHI", 1, 0, 8, 3)

PAYLOADS: dict[str, tuple[str, bytes, bytes, str]] = {
    "a BitTorrent handshake": ("tcp", b"\x13BitTorrent protocol" + bytes(8) + b"h" * 20 + b"-TR3000-", b"", "bittorrent"),
    "a BitTorrent handshake of who was called": ("tcp", b"", b"\x13BitTorrent protocol" + bytes(8), "bittorrent"),
    "an HTTP tracker": ("tcp", b"GET /announce?info_hash=%12%34&port=6881 HTTP/1.1\r\nHost: t\r\n\r\n", b"", "bittorrent"),
    "a UDP tracker": ("udp", struct.pack(">QII", 0x41727101980, 0, 0x12345678), b"", "bittorrent"),
    "a DHT ping": ("udp", b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", b"", "bittorrent"),
    "a DHT answer": ("udp", b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re", b"", "bittorrent"),
    "a DHT answer with an address": (
        "udp",
        b"d2:ip6:\1\2\3\4\5\0061:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
        b"",
        "bittorrent",
    ),
    "local discovery": ("udp", b"BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\n", b"", "bittorrent"),
    "a uTP SYN of libutp": ("udp", utp(4, 1), b"", "bittorrent"),
    "a uTP SYN of libtorrent and its answer": ("udp", utp(4, 50000), utp(2, 777, 50000, 5), "bittorrent"),
    "a WireGuard initiation full of line ends": ("udp", b"\1\0\0\0" + b"\n" * 128 + bytes(16), b"", "wireguard"),
    "a WireGuard initiation": ("udp", WIREGUARD + bytes(16), b"", "wireguard"),
    "WireGuard with a cookie": ("udp", WIREGUARD + b"c" * 16, b"\2\0\0\0" + CHANCE.randbytes(88), "wireguard"),
    "WireGuard that is given a cookie": ("udp", WIREGUARD + b"c" * 16, b"\3\0\0\0" + CHANCE.randbytes(60), "wireguard"),
    "OpenVPN": ("udp", openvpn(7, bytes(5)), b"", "openvpn"),
    "OpenVPN over TCP": ("tcp", framed(openvpn(7, bytes(5))), b"", "openvpn"),
    "OpenVPN with tls-auth": ("udp", openvpn(7, b"m" * 20 + NUMBERED + bytes(5)), b"", "openvpn"),
    "OpenVPN with tls-auth, SHA-512": ("udp", openvpn(7, b"m" * 64 + NUMBERED + bytes(5)), b"", "openvpn"),
    "OpenVPN with tls-auth over TCP": ("tcp", framed(openvpn(7, b"m" * 32 + NUMBERED + bytes(5))), b"", "openvpn"),
    "OpenVPN with tls-crypt": ("udp", openvpn(7, NUMBERED + b"t" * 32 + b"12345"), RESET_REPLY, "openvpn"),
    "OpenVPN with tls-crypt over TCP": ("tcp", framed(openvpn(7, EARLY + b"t" * 32 + b"12345")), framed(RESET_REPLY), "openvpn"),
    "OpenVPN with tls-crypt-v2": ("udp", openvpn(10, EARLY + b"t" * 32 + b"12345" + b"w" * 290), RESET_REPLY, "openvpn"),
    "IKEv2": ("udp", ike(33, 0x20, 34, 8), b"", "ipsec"),
    "IKEv2 with a cookie": ("udp", ike(41, 0x20, 34, 8), b"", "ipsec"),
    "IKEv2 behind NAT": ("udp", bytes(4) + ike(33, 0x20, 34, 8), b"", "ipsec"),
    "IKEv1, main mode": ("udp", ike(1, 0x10, 2, 0), b"", "ipsec"),
    "IKEv1, aggressive mode": ("udp", ike(1, 0x10, 4, 0), b"", "ipsec"),
    "L2TP": ("udp", L2TP_SCCRQ + b"\x80\x08\0\0\0\2\1\0", b"", "l2tp"),
    "PPTP": ("tcp", PPTP_START, b"", "pptp"),
    "SSTP": ("tcp", b"SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1\r\n", b"", "sstp"),
    "SSH": ("tcp", b"SSH-2.0-OpenSSH_9.2\r\n", b"", "ssh"),
    "SSH whose server greets first": ("tcp", b"", b"SSH-2.0-OpenSSH_9.2\r\n", "ssh"),
    "RDP": ("tcp", RDP, b"", "rdp"),
    "RDP with a cookie": ("tcp", b"\3\0\0\x2f\x2a\xe0\0\0\0\0\0Cookie: mstshash=me\r\n\1\0\x08\0\3\0\0\0", b"", "rdp"),
    "VNC": ("tcp", b"", b"RFB 003.008\n", "vnc"),
}


@pytest.mark.parametrize(("protocol", "client", "server", "expected"), PAYLOADS.values(), ids=PAYLOADS)
def test_the_first_bytes_tell(protocol: str, client: bytes, server: bytes, expected: str) -> None:
    assert key(OWN.by_payload(protocol, client, server)) == expected
    assert OWN.by_payload("udp" if protocol == "tcp" else "tcp", client, server) is None


@pytest.mark.parametrize(("protocol", "client", "server", "expected"), PAYLOADS.values(), ids=PAYLOADS)
def test_fewer_bytes_tell_the_same_or_nothing(protocol: str, client: bytes, server: bytes, expected: str) -> None:
    for size in range(max(len(client), len(server))):
        assert key(OWN.by_payload(protocol, client[:size], server[:size])) in (None, expected)


NOBODYS: dict[str, tuple[str, bytes, bytes]] = {
    "DNS": ("udp", struct.pack(">6H", 0x0100, 0x0100, 1, 0, 0, 0) + b"\7example\3com\0\0\1\0\1", b""),
    "DNS as long as WireGuard": (
        "udp",
        (struct.pack(">6H", 0x0100, 0, 1, 0, 0, 1) + b"\x3f" + b"a" * 63 + b"\0\0\1\0\1").ljust(148),
        b"",
    ),
    "NTP": ("udp", b"\x23" + bytes(47), b"\x24" + bytes(47)),
    "STUN": ("udp", struct.pack(">HHI12s", 1, 0, 0x2112A442, b"transaction1"), b""),
    "zeros": ("udp", bytes(1400), bytes(1400)),
    "RTP": ("udp", b"\x80\x60" + bytes(170), b"\x80\x60" + bytes(170)),
    "an IKE answer first": ("udp", ike(33, 0x20, 34, 0x20, b"responde"), b""),
    "IKE without an initiator": ("udp", bytes(16) + ike(33, 0x20, 34, 8)[16:], b""),
    "uTP as nobody begins": ("udp", utp(2, 1), b""),
    "uTP without an answer": ("udp", utp(4, 50000), b""),
    "WireGuard of another length": ("udp", WIREGUARD + bytes(17), b""),
    "TLS": ("tcp", python_hello("example.com", ["h2"]), b"\x16\x03\x03\0\x7a\2"),
    "a web page": ("tcp", b"GET /announce?x=1 HTTP/1.1\r\nReferer: ?info_hash=1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    "mail": ("tcp", b"EHLO me\r\n", b"220 mail ESMTP\r\n"),
    "a DICOM association": ("tcp", b"\1\0\0\0\0\xcd\0\1" + bytes(66), b""),
    "Modbus": ("tcp", b"\0\1\0\0\0\6\1\3\0\0\0\1", b""),
    "ISO on TCP (S7)": ("tcp", bytes.fromhex("0300001611e00000000100c0010ac1020100c2020102"), b""),
}


@pytest.mark.parametrize(("protocol", "client", "server"), NOBODYS.values(), ids=NOBODYS)
def test_the_first_bytes_of_other_things_tell_nothing(protocol: str, client: bytes, server: bytes) -> None:
    assert OWN.by_payload(protocol, client, server) is None


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_tell_nothing(seed: int) -> None:
    chance = seeded(seed)
    for _ in range(2000):
        client, server = chance.randbytes(chance.choice((14, 20, 42, 54, 92, 148))), chance.randbytes(chance.choice((20, 92)))
        assert {OWN.by_payload(protocol, client, server) for protocol in ("tcp", "udp")} == {None}


def test_bytes_without_end_are_looked_at_in_part() -> None:
    assert OWN.by_payload("tcp", b"GET /" + b"&info_hash=" * 100_000, b"") is None
    assert MAX_PAYLOAD_BYTES >= 1500


# --- the file ---

MINIMAL = """
[groups]
chat = { ja = "あ", en = "a" }
[applications.one]
ja = "一"
en = "one"
group = "chat"
names = ["example.com"]
"""


def test_a_file_is_read() -> None:
    loaded = load_applications(MINIMAL, "a.toml")
    assert loaded.by_name("www.example.com") == loaded.all["one"] == Application("one", "一", "one", "chat")


def with_payload(signature: str) -> str:
    return MINIMAL + f"payload = [{{ protocol = 'tcp', {signature} }}]\n"


SECOND = '\n[applications.two]\nja = "二"\nen = "two"\ngroup = "chat"\n'
BAD_FILES = {
    "no TOML": ("[", "(syntax)"),
    "an unknown key": (MINIMAL + "colour = 1\n", "applications.one.colour"),
    "a group that is not there": (MINIMAL.replace('group = "chat"', 'group = "game"'), "applications.one.group"),
    "a top-level domain": (MINIMAL.replace("example.com", "com"), "applications.one.names[0]"),
    "an upper-case name": (MINIMAL.replace("example.com", "Example.com"), "applications.one.names[0]"),
    "a wildcard": (MINIMAL.replace("example.com", "*.example.com"), "applications.one.names[0]"),
    "a name twice": (MINIMAL + SECOND + 'names = ["example.com"]\n', "applications.two.names"),
    "a name twice in one entry": (MINIMAL.replace('["example.com"]', '["example.com", "example.com"]'), "applications.one.names"),
    "a name of nobody and somebody": ('nobody = ["example.com"]\n' + MINIMAL, "applications.one.names"),
    "a name of nobody twice": ('nobody = ["a.example.com", "a.example.com"]\n' + MINIMAL, "nobody"),
    "a port twice": (MINIMAL + "tcp = [1]\n" + SECOND + "tcp = [1]\n", "applications.two.tcp"),
    "a port that is none": (MINIMAL + "tcp = [65536]\n", "applications.one.tcp[0]"),
    "a protocol twice": (MINIMAL + 'alpn = ["x"]\n' + SECOND + 'alpn = ["x"]\n', "applications.two.alpn"),
    "nothing to know it by": (MINIMAL + SECOND, "applications.two"),
    "a key with a space": (MINIMAL.replace("applications.one", "applications.'o ne'"), "applications.o ne"),
    "a signature that is no expression": (with_payload("client = '('"), "applications.one.payload[0].client"),
    "a signature that is not ASCII": (with_payload("client = 'あ'"), "applications.one.payload[0].client"),
    "a signature that fits nothing": (with_payload("server = 'a*'"), "applications.one.payload[0].server"),
    "a signature that is too long": (
        with_payload(f"client = '{'a' * (MAX_SIGNATURE_CHARS + 1)}'"),
        "applications.one.payload[0].client",
    ),
    "a signature of nobody": (with_payload("client = ''"), "applications.one.payload[0]"),
    "a transport that is none": (
        MINIMAL + "payload = [{ protocol = 'sctp', client = 'a' }]\n",
        "applications.one.payload[0].protocol",
    ),
}


@pytest.mark.parametrize(("text", "place"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_with_its_place(text: str, place: str) -> None:
    with pytest.raises(BadInputError) as caught:
        load_applications(text, "a.toml")
    assert [problem.key for problem in caught.value.problems] == [place]


def test_all_problems_are_told_at_once() -> None:
    text = MINIMAL.replace('group = "chat"', 'group = "game"') + SECOND + 'names = ["example.com"]\n'
    with pytest.raises(BadInputError) as caught:
        load_applications(text, "a.toml")
    assert [problem.key for problem in caught.value.problems] == ["applications.one.group", "applications.two.names"]
