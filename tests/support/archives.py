"""Archives as attackers send them, with a password too, which the standard library reads but does not write."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib


def zipped(*contents: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"{number}.txt", content)
    return out.getvalue()


def tarred(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def encrypted(content: bytes, password: bytes) -> bytes:
    """Traditional PKWARE encryption (APPNOTE.TXT 6.1), behind the header of 12 bytes whose last one checks the password."""
    table = [_crc_of_byte(value) for value in range(256)]
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(byte: int) -> None:
        keys[0] = (keys[0] >> 8) ^ table[(keys[0] ^ byte) & 0xFF]
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = (keys[2] >> 8) ^ table[(keys[2] ^ (keys[1] >> 24)) & 0xFF]

    for byte in password:
        update(byte)
    out = bytearray()
    for byte in bytes(11) + bytes([zlib.crc32(content) >> 24]) + content:
        key = keys[2] | 2
        out.append(byte ^ ((key * (key ^ 1)) >> 8 & 0xFF))
        update(byte)
    return bytes(out)


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    return value


def locked(content: bytes, password: bytes = b"secret") -> bytes:
    """A zip with one entry that takes a password."""
    name, body = b"secret.exe", encrypted(content, password)
    fields = struct.pack("<HHHHIIIHH", 1, 0, 0, 0x21, zlib.crc32(content), len(body), len(content), len(name), 0)
    local = b"PK\3\4" + struct.pack("<H", 20) + fields + name + body
    central = b"PK\1\2" + struct.pack("<HH", 20, 20) + fields + bytes(14) + name
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end
