import json
from dataclasses import replace

import pytest

from mamori.formats.problems import BadInputError
from mamori.formats.release import MAX_FILE_BYTES, Anchor, Base, Bridge, EarlyBridge, Release, Update, Variant, decode, encode

RELEASE = Release(
    product="Mamori",
    version="2026.11.0+g0123456789.dabcdef01",
    recipe="lab",
    board="qemu-x86_64",
    base=Base.DEBIAN,
    variant=Variant.LAB,
    build_time=1_795_000_000,
    source_commit="0" * 40,
    features=("inspect", "ssh"),
    update=Update(compatible="mamori-qemu-x86_64-lab"),
    early_bridge=EarlyBridge.FORWARD,
    bridge=Bridge("br0", ("wan", "lan")),
    anchors=(Anchor("secure-boot-db", "CN=守り development db", "ab" * 32),),
)


def table() -> dict:
    return json.loads(encode(RELEASE))


def refused(content: bytes) -> str:
    with pytest.raises(BadInputError) as caught:
        decode(content, "release.json")
    return str(caught.value)


def test_a_release_survives_its_file() -> None:
    assert decode(encode(RELEASE), "release.json") == RELEASE


def test_the_file_is_readable_json_with_its_format_first() -> None:
    content = encode(RELEASE).decode()
    assert content.startswith('{\n  "format": 1,\n  "product": "Mamori",\n  "version": "2026.11.0+g0123456789.dabcdef01",\n')
    assert "守り" in content
    assert content.endswith("}\n")


def test_the_same_release_is_the_same_bytes() -> None:
    assert encode(replace(RELEASE)) == encode(RELEASE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"version": "1.0"}, "version: expected a version like", id="a short version"),
        pytest.param({"version": "2026.11.0\n"}, "version: expected", id="a newline after the version"),
        pytest.param({"variant": "debug"}, "variant: expected one of lab, release, got 'debug'", id="an unknown variant"),
        pytest.param({"build_time": 0}, "build_time: expected 1600000000 to 253402300799, got 0", id="a build in 1970"),
        pytest.param({"build_time": 1_795_000_000.5}, "build_time: expected an integer", id="half a second"),
        pytest.param({"source_commit": "HEAD"}, "source_commit: expected 40 hex digits", id="a commit's name"),
        pytest.param({"early_bridge": "open"}, "early_bridge: expected one of forward, closed", id="an unknown policy"),
        pytest.param({"bridge": {"name": "br0", "ports": ["wan"]}}, "bridge.ports: expected two names", id="one port"),
        pytest.param({"bridge": {"name": "br0", "ports": ["wan", "wan"]}}, "bridge.ports: expected two names", id="a port twice"),
        pytest.param(
            {"bridge": {"name": "wan", "ports": ["wan", "lan"]}}, "bridge.ports: expected two names", id="a port as bridge"
        ),
        pytest.param({"bridge": {"name": "../x", "ports": ["wan", "lan"]}}, "bridge.name: expected an interface name", id="a path"),
        pytest.param({"update": {}}, "update.compatible: expected one line", id="nothing compatible"),
        pytest.param(
            {"anchors": [{"role": "db", "subject": "x", "sha256": "AB" * 32}]}, r"anchors[0].sha256: expected 64 hex", id="hash"
        ),
        pytest.param({"anchors": [{"role": "db", "subject": "a\nb", "sha256": "ab" * 32}]}, "anchors[0].subject", id="two lines"),
        pytest.param({"product": None}, "product: expected a string, got None", id="null"),
        pytest.param({"colour": "red"}, "colour: expected one of anchors, ", id="an unknown key"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(changes: dict, says: str) -> None:
    assert refused(json.dumps(table() | changes).encode()).startswith(f"release.json: {says}")


@pytest.mark.parametrize("missing", sorted(table()))
def test_every_key_is_required(missing: str) -> None:
    content = table()
    del content[missing]
    assert refused(json.dumps(content).encode()).startswith(f"release.json: {missing}: expected ")


@pytest.mark.parametrize("written_as", [2, 0, 1.0, "1", True, None, [1]], ids=repr)
def test_another_format_is_the_only_thing_that_is_told(written_as: object) -> None:
    message = refused(json.dumps({"format": written_as, "unheard_of": 1}).encode())
    assert message == "release.json: format: expected 1, got something else\n    hint: a newer Mamori may have written this file"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", r"(syntax): expected JSON", id="nothing"),
        pytest.param(b"[]", "(top level): expected an object, got list", id="an array"),
        pytest.param(b"\xff", "(syntax): expected JSON", id="not UTF-8"),
        pytest.param(b'{"format": 1, "format": 1}', "(syntax): expected JSON, got a key stands twice", id="a key twice"),
        pytest.param(b"[" * 50_000, "(syntax): expected JSON", id="nested too deeply"),
        pytest.param(b'{"format": ' + b"9" * 5000 + b"}", "(syntax): expected JSON", id="thousands of digits"),
        pytest.param(b" " * (MAX_FILE_BYTES + 1), f"(size): expected at most {MAX_FILE_BYTES} bytes", id="too large"),
    ],
)
def test_what_is_no_release_file_is_refused(content: bytes, says: str) -> None:
    assert refused(content).startswith(f"release.json: {says}")


def test_a_file_of_the_largest_size_is_read() -> None:
    assert decode(encode(RELEASE).ljust(MAX_FILE_BYTES), "release.json") == RELEASE


@pytest.mark.parametrize("changes", [{"version": "x"}, {"product": "\ud800"}, {"bridge": Bridge("br0", ("wan", "wan"))}], ids=str)
def test_what_the_device_would_refuse_is_not_written(changes: dict) -> None:
    with pytest.raises(BadInputError):
        encode(replace(RELEASE, **changes))
