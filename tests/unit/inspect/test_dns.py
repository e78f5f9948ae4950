"""DNS messages: by hand from the RFCs, and as dnspython writes them."""

from __future__ import annotations

import base64
import struct
from ipaddress import IPv4Address, IPv6Address

import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.dns import (
    CNAME,
    HTTPS,
    MAX_NAMES_BYTES,
    PTR,
    SVCB,
    A,
    Alias,
    DnsError,
    DnsReader,
    EchConfig,
    Edns,
    MessageReceived,
    NameReader,
    Question,
    Service,
    parse_ech_configs,
    parse_message,
)
from tests.support.hellos import cut, outcome, vector

QUERY, RESPONSE = 0x0100, 0x8180
TXT, CHAOS = 16, 3


def message(
    questions: bytes = b"", *records: bytes, flags: int = RESPONSE, counts: tuple[int, int, int, int] | None = None
) -> bytes:
    """A message with at most one question, and answers only, unless `counts` says other things."""
    asked = counts or (1 if questions else 0, len(records), 0, 0)
    return struct.pack(">6H", 0x1234, flags, *asked) + questions + b"".join(records)


def name(text: str) -> bytes:
    return b"".join(vector(label.encode(), 1) for label in text.split(".")) + b"\0"


def question(owner: bytes, kind: int = A) -> bytes:
    return owner + struct.pack(">HH", kind, 1)


def record(owner: bytes, kind: int, content: bytes) -> bytes:
    return owner + struct.pack(">HHI", kind, 1, 300) + vector(content)


WWW = question(name("www.example.com"))
OWNER = b"\xc0\x0c"  # a pointer to the name of the first question
EXAMPLE = b"\xc0\x10"  # and to what follows its first label

# --- names ---

# RFC 1035, section 4.1.4: F.ISI.ARPA at 20, FOO.F.ISI.ARPA at 40, ARPA at 64 as a pointer, the root at 92.
RFC_1035 = (
    bytes(20)
    + b"\1F\3ISI\4ARPA\0".ljust(20, b"\xff")
    + b"\3FOO\xc0\x14".ljust(24, b"\xff")
    + b"\xc0\x1a".ljust(28, b"\xff")
    + b"\0"
)


@pytest.mark.parametrize(
    ("at", "text", "end"), [(20, "f.isi.arpa", 32), (40, "foo.f.isi.arpa", 46), (64, "arpa", 66), (92, ".", 93)]
)
def test_the_compressed_names_of_the_specification_are_read(at: int, text: str, end: int) -> None:
    reader = NameReader(RFC_1035)
    assert [reader.read(at), reader.read(at), NameReader(RFC_1035).read(at)] == [(text, end)] * 3


def test_a_name_may_point_forward_as_some_resolvers_let_it() -> None:
    assert NameReader(b"\1a\xc0\x06zz" + name("example")).read(0) == ("a.example", 4)


def test_a_name_ends_at_its_first_pointer() -> None:
    assert NameReader(name("example") + b"\1b\xc0\0" + b"\1a\xc0\x09").read(13) == ("a.b.example", 17)


def test_a_pointer_reaches_far() -> None:
    reader = NameReader(bytes(0x3000) + name("far.example") + b"\xf0\0\xd0\0")
    near, far, again = reader.read(0x1000), reader.read(0x300D), reader.read(0x300D)
    assert (near, far, again, reader.read(0x300F)) == ((".", 0x1001), ("far.example", 0x300F), far, (".", 0x3011))


def test_labels_keep_their_case_for_who_asks() -> None:
    assert NameReader(name("WwW.Example")).read_labels(0) == ((b"WwW", b"Example"), 13)


LONGEST = b"".join(vector(b"a" * 49, 1) for _ in range(5)) + b"\3abc\0"
BAD_NAMES = {
    "a pointer to itself": b"\xc0\0",
    "two pointers to each other": b"\xc0\2\xc0\0",
    "a label and a pointer back to it": b"\1a\xc0\0",
    "a pointer outside": b"\xc0\x50",
    "half a pointer": b"\xc0",
    "a label that runs past the end": b"\5abc",
    "no end": b"\3abc",
    "nothing": b"",
    "a label of an extended kind": b"\x40\2\0",
    "a label of a reserved kind": b"\x80\2\0",
    "256 bytes": LONGEST[:-5] + b"\4abcd\0",
    "a pointer that makes 256 bytes": LONGEST + b"\1b\xc0\0",
}


@pytest.mark.parametrize("data", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_name_without_an_end_is_the_one_error(data: bytes) -> None:
    start = len(LONGEST) if data.startswith(LONGEST) else 0  # behind the long name, at the pointer
    reader = NameReader(data)
    for _ in range(2):
        with pytest.raises(DnsError):
            reader.read(start)


def test_a_name_of_255_bytes_is_read() -> None:
    assert len(LONGEST) == 255
    assert NameReader(LONGEST).read(0) == (".".join(["a" * 49] * 5 + ["abc"]), 255)


# --- messages ---


def test_a_query_with_random_case_is_read_in_lower_case() -> None:
    parsed = parse_message(message(question(name("wWw.eXaMpLe.CoM"), HTTPS), flags=QUERY))
    assert (parsed.id, parsed.is_response, parsed.opcode, parsed.rcode) == (0x1234, False, 0, 0)
    assert parsed.questions == (Question("www.example.com", HTTPS, 1),)
    assert (parsed.answers, parsed.edns, parsed.is_whole) == ((), None, True)


def test_a_response_says_who_is_where() -> None:
    parsed = parse_message(
        message(
            WWW,
            record(OWNER, CNAME, b"\3cdn" + EXAMPLE),
            record(b"\3CDN" + EXAMPLE, A, bytes((192, 0, 2, 1))),
            record(b"\3cdn" + EXAMPLE, 28, bytes.fromhex("20010db8000000000000000000000001")),
        )
    )
    assert [(answer.name, answer.data) for answer in parsed.answers] == [
        ("www.example.com", Alias("cdn.example.com")),
        ("cdn.example.com", IPv4Address("192.0.2.1")),
        ("cdn.example.com", IPv6Address("2001:db8::1")),
    ]
    assert {answer.ttl_s for answer in parsed.answers} == {300}


def test_a_record_says_where_its_content_lies() -> None:
    data = message(WWW, record(OWNER, A, b"\1\2\3\4"), record(OWNER, TXT, b"\3abc"))
    assert [data[answer.start : answer.end] for answer in parse_message(data).answers] == [b"\1\2\3\4", b"\3abc"]


FLAGS = {"NXDOMAIN": (0x8183, 3, False, False), "authoritative": (0x8400, 0, True, False), "truncated": (0x8200, 0, False, True)}


@pytest.mark.parametrize(("flags", "rcode", "authoritative", "truncated"), FLAGS.values(), ids=FLAGS)
def test_the_flags_of_a_response_are_read(flags: int, rcode: int, authoritative: bool, truncated: bool) -> None:
    parsed = parse_message(message(WWW, flags=flags))
    assert (parsed.is_response, parsed.rcode, parsed.is_authoritative, parsed.is_truncated) == (
        True,
        rcode,
        authoritative,
        truncated,
    )


def test_an_update_is_told_from_a_query() -> None:
    assert (parse_message(message(WWW, flags=QUERY)).opcode, parse_message(message(WWW, flags=0x2800)).opcode) == (0, 5)


def test_edns_gives_size_options_and_the_upper_half_of_the_code() -> None:
    opt = b"\0" + struct.pack(">HHBBH", 41, 1232, 1, 0, 0x8000) + vector(b"\0\x0a" + vector(b"cookie!!"))
    parsed = parse_message(message(WWW, opt, counts=(1, 0, 0, 1)))
    assert parsed.edns == Edns(1232, 0, dnssec_ok=True, options=((10, b"cookie!!"),))
    assert (parsed.rcode, parsed.additionals) == (16, ())  # BADVERS


CONTENT_THAT_DOES_NOT_FIT = {
    "an address of three bytes": (A, b"\1\2\3"),
    "an IPv6 address of four bytes": (28, b"\1\2\3\4"),
    "an alias that points nowhere": (CNAME, b"\xff\xff"),
    "an alias with more behind it": (PTR, b"\1a\0zz"),
    "a service without a target": (HTTPS, b"\0\1"),
    "a service whose parameters do not fit": (SVCB, b"\0\1\0\0\1\0\x09x"),
    "a type that is not read": (TXT, b"\3abc"),
}


@pytest.mark.parametrize(("kind", "content"), CONTENT_THAT_DOES_NOT_FIT.values(), ids=CONTENT_THAT_DOES_NOT_FIT)
def test_content_that_is_not_read_is_bytes(kind: int, content: bytes) -> None:
    parsed = parse_message(message(WWW, record(OWNER, kind, content), record(OWNER, A, b"\1\2\3\4")))
    assert [answer.data for answer in parsed.answers] == [content, IPv4Address("1.2.3.4")]
    assert parsed.is_whole


DAMAGED = {
    "a record too few": message(WWW, record(OWNER, A, b"\1\2\3\4"), counts=(1, 2, 0, 0)),
    "a record cut off": message(WWW, record(OWNER, A, b"\1\2\3\4"), record(OWNER, A, b"\1\2\3\4"))[:-1],
    "a header cut off": message(WWW, record(OWNER, A, b"\1\2\3\4"), OWNER + b"\0\1\0"),
    "a name that leads in a circle": message(WWW, record(OWNER, A, b"\1\2\3\4"), record(b"\xc0\x31", A, b"")),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_what_comes_before_the_damage_is_read(data: bytes) -> None:
    parsed = parse_message(data)
    assert ([answer.data for answer in parsed.answers], parsed.is_whole) == ([IPv4Address("1.2.3.4")], False)


def test_bytes_after_the_message_are_ignored() -> None:
    assert parse_message(message(WWW) + b"rest") == parse_message(message(WWW))


NO_MESSAGES = {
    "nothing": b"",
    "eleven bytes": bytes(11),
    "a question cut off": message(WWW)[:-1],
    "a question without a name": message(b"\xc0\xff\0\1\0\1"),
    "questions that are not there": message(b"", counts=(1, 0, 0, 0)),
}


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_a_message_whose_questions_cannot_be_read_is_the_one_error(data: bytes) -> None:
    with pytest.raises(DnsError):
        parse_message(data)


def test_a_message_that_unfolds_to_endless_names_is_read_in_part() -> None:
    deep = question(b"\1a" * 126 + b"\0")
    count = 4000
    parsed = parse_message(message(deep, *[record(b"\1b\xc0\x0e", A, b"")] * count))
    assert not parsed.is_whole
    assert MAX_NAMES_BYTES // 256 < len(parsed.answers) < count


def test_thousands_of_records_of_one_name_are_read() -> None:
    parsed = parse_message(message(WWW, *[record(OWNER, A, b"\1\2\3\4")] * 4000))
    assert (len(parsed.answers), parsed.is_whole) == (4000, True)


def test_a_question_of_mdns_keeps_its_unicast_bit() -> None:
    data = message(b"\4_ipp\4_tcp\5local\0" + struct.pack(">HH", PTR, 0x8001), flags=0)
    assert parse_message(data).questions == (Question("_ipp._tcp.local", PTR, 0x8001),)


def test_a_question_of_netbios_has_its_encoded_name() -> None:
    encoded = b"".join(bytes((0x41 + (byte >> 4), 0x41 + (byte & 15))) for byte in b"OFFICE-PC".ljust(15) + b"\0")
    labels, _ = NameReader(message(question(vector(encoded, 1) + b"\0", 32), flags=0x0110)).read_labels(12)
    assert labels == (encoded,)


# --- services and ECH ---

# The test vectors of RFC 9460, appendix D, in wire form, and one more.
SERVICES = {
    "an alias": ("000003666f6f076578616d706c6503636f6d00", Service(0, "foo.example.com")),
    "the owner itself": ("000100", Service(1, ".")),
    "a port": ("001003666f6f076578616d706c6503636f6d00000300020035", Service(16, "foo.example.com", port=53)),
    "an unknown key": ("000103666f6f076578616d706c6503636f6d00029b000568656c6c6f", Service(1, "foo.example.com")),
    "IPv6 hints": (
        "000103666f6f076578616d706c6503636f6d000006002020010db800000000000000000000000120010db8000000000000000000530001",
        Service(1, "foo.example.com", hints=(IPv6Address("2001:db8::1"), IPv6Address("2001:db8::53:1"))),
    ),
    "two IPv4 hints": (
        "00010000040008c0000201c0000202",
        Service(1, ".", hints=(IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))),
    ),
    "mandatory keys, protocols and a hint": (
        "001003666f6f076578616d706c65036f7267000000000400010004000100090268320568332d313900040004c0000201",
        Service(16, "foo.example.org", alpn=(b"h2", b"h3-19"), hints=(IPv4Address("192.0.2.1"),)),
    ),
}


@pytest.mark.parametrize(("wire", "service"), SERVICES.values(), ids=SERVICES)
@pytest.mark.parametrize("kind", [SVCB, HTTPS])
def test_the_services_of_the_specification_are_read(wire: str, service: Service, kind: int) -> None:
    assert parse_message(message(WWW, record(OWNER, kind, bytes.fromhex(wire)))).answers[0].data == service


# The ECHConfigList that tls-ech.dev published: one config with the id 43.
ECH = base64.b64decode("AEn+DQBFKwAgACABWIHUGj4u+PIggYXcR5JF0gYk3dCRioBW8uJq9H4mKAAIAAEAAQABAANAEnB1YmxpYy50bHMtZWNoLmRldgAA")


def test_an_ech_parameter_is_found_with_its_place() -> None:
    data = message(WWW, record(OWNER, HTTPS, b"\0\1\0" + struct.pack(">H", 5) + vector(ECH)))
    service = parse_message(data).answers[0].data
    assert isinstance(service, Service)
    assert service.ech_at is not None
    assert data[service.ech_at : service.ech_at + len(ECH)] == service.ech == ECH


def test_an_ech_config_has_an_id_and_a_front_name() -> None:
    assert parse_ech_configs(ECH) == (EchConfig(43, "public.tls-ech.dev"),)


def test_ech_configs_of_other_versions_are_passed_over() -> None:
    assert parse_ech_configs(vector(b"\xfe\x0a" + ECH[4:])) == ()
    both = vector(b"\xfe\x0a" + vector(b"draft 10") + ECH[2:])
    assert parse_ech_configs(both) == (EchConfig(43, "public.tls-ech.dev"),)


@pytest.mark.parametrize("size", range(len(ECH) - 2))
def test_an_ech_config_that_is_cut_off_is_none(size: int) -> None:
    assert parse_ech_configs(ECH[:size]) in ((), (EchConfig(43, "public.tls-ech.dev"),))
    assert size >= len(ECH) - 3 or parse_ech_configs(ECH[:size]) == ()


# --- a second opinion ---


def test_a_message_of_dnspython_is_read_as_it_was_meant() -> None:
    query = dns.message.make_query("WWW.example.com", "HTTPS", use_edns=0, want_dnssec=True, payload=1232)
    response = dns.message.make_response(query)
    for owner, kind, content in (
        ("www.example.com.", "CNAME", "edge.example.net."),
        ("edge.example.net.", "HTTPS", f"1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.7 ech={base64.b64encode(ECH).decode()}"),
        ("edge.example.net.", "AAAA", "2001:db8::7"),
    ):
        response.answer.append(dns.rrset.from_text(owner, 60, "IN", kind, content))
    asked, parsed = parse_message(query.to_wire()), parse_message(response.to_wire())
    assert asked.edns == Edns(1232, 0, dnssec_ok=True, options=())
    assert asked.questions == parsed.questions == (Question("www.example.com", HTTPS, 1),)
    assert (parsed.id, parsed.is_whole, parsed.answers[0].data) == (query.id, True, Alias("edge.example.net"))
    assert parsed.answers[2].data == IPv6Address("2001:db8::7")
    service = parsed.answers[1].data
    assert isinstance(service, Service)
    assert (service.alpn, service.port, service.hints) == ((b"h2", b"h3"), 8443, (IPv4Address("192.0.2.7"),))
    assert service.ech == ECH


LABEL = st.text("aBc-_0", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join)


@given(st.lists(NAME, min_size=1, max_size=20))
def test_compressed_names_are_what_dnspython_wrote(names: list[str]) -> None:
    response = dns.message.make_response(dns.message.make_query(names[0], "PTR"))
    response.answer = [dns.rrset.from_text(f"{owner}.", 60, "IN", "PTR", f"{names[-1]}.") for owner in names]
    parsed = parse_message(response.to_wire())
    assert [answer.name for answer in parsed.answers] == [owner.lower() for owner in names]
    assert {answer.data for answer in parsed.answers} == {Alias(names[-1].lower())}


# --- TCP ---

STREAM = b"".join(vector(data) for data in (message(WWW, flags=QUERY), message(WWW, record(OWNER, A, b"\1\2\3\4")), message()))


@given(st.lists(st.integers(0)), st.integers(0, 1 << 40))
def test_messages_over_tcp_are_read_in_any_segmentation(cuts: list[int], start: int) -> None:
    events, error = outcome(DnsReader(start).receive, cut(STREAM, cuts))
    assert (len(events), error) == (3, None)
    for event in events:
        assert event == MessageReceived(parse_message(STREAM[event.start - start : event.end - start]), event.start, event.end)
    assert (events[0].start, events[-1].end) == (start + 2, start + len(STREAM))


def test_messages_over_tcp_are_read_byte_by_byte_with_the_next_begun() -> None:
    whole = outcome(DnsReader().receive, [STREAM + b"\0\x50rest"])
    assert outcome(DnsReader().receive, cut(STREAM + b"\0\x50rest", range(999))) == whole
    assert len(whole[0]) == 3


@pytest.mark.parametrize("bad", [b"\0\0", b"\0\x0b", vector(message(b"", counts=(1, 0, 0, 0)))])
def test_a_bad_message_over_tcp_is_the_one_error_after_the_good_ones(bad: bytes) -> None:
    reader = DnsReader()
    assert len(reader.receive(STREAM + bad)) == 3
    for _ in range(2):
        with pytest.raises(DnsError):
            reader.receive(STREAM)
