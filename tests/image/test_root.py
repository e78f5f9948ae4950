"""What is in the root file system, and above all what must not be."""

from __future__ import annotations

import base64
import re
import stat
import struct
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from firmware import mmdebstrap
from firmware.build import Built
from firmware.lock import read_lock
from firmware.repository.anchor import read_anchor
from firmware.workspace import Workspace
from mamori.formats import release
from tests.support.rootfs import unpack_root

SETUID = {
    *("usr/bin/chfn", "usr/bin/chsh", "usr/bin/gpasswd", "usr/bin/mount", "usr/bin/newgrp", "usr/bin/passwd", "usr/bin/su"),
    *("usr/bin/umount", "usr/lib/dbus-1.0/dbus-daemon-launch-helper", "usr/lib/openssh/ssh-keysign"),
}
SETGID = {"usr/bin/chage", "usr/bin/expiry", "usr/bin/ssh-agent", "usr/sbin/unix_chkpwd"}

OUR_USERS = {"mamori-inspect": 901, "mamori-events": 902, "mamori-scan": 903, "mamori-suricata": 904, "mamori-update": 905}

SHELLS = {"root": "/bin/bash", "sync": "/bin/sync"}

PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}")
"""With a body: programs that read keys have the first line alone in them. GnuTLS has whole ones, to test itself."""

UNCHECKED_HASH = 0b01
"""Byte code flags, PEP 552: bit 0 says hash-based, bit 1 that the source is to be looked at."""


@pytest.fixture(scope="module")
def root(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_root(built, tmp_path_factory.mktemp("rootfs"))


@pytest.fixture(scope="module")
def contents(root: Path) -> dict[str, bytes]:
    """Every regular file, by its path."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def named(contents: dict[str, bytes], pattern: str) -> list[str]:
    return sorted(name for name in contents if re.search(pattern, name))


def test_nothing_in_the_root_belongs_to_one_machine(root: Path, contents: dict[str, bytes]) -> None:
    assert contents["etc/machine-id"] == b""
    assert named(contents, r"ssh_host_.*key") == []
    assert named(contents, r"(^|/)random-seed$") == []
    assert contents["etc/hostname"] == b"mamori\n"
    assert (root / "etc/resolv.conf").readlink() == Path("/run/systemd/resolve/resolv.conf")


def test_nothing_of_the_package_manager_stays(contents: dict[str, bytes]) -> None:
    assert named(contents, r"^(etc|var/lib|var/cache)/(apt|dpkg)/") == []
    assert named(contents, r"\.(deb|dpkg-[a-z]+)$") == []
    assert named(contents, r"^var/") == []


def test_there_are_no_logs_and_no_caches(contents: dict[str, bytes]) -> None:
    assert named(contents, r"\.log$") == []
    assert named(contents, r"(^|/)\.cache/") == []
    assert named(contents, r"^(tmp|run|boot|home)/") == []


def test_no_address_of_a_mirror_is_in_the_root(contents: dict[str, bytes]) -> None:
    mirrors = mmdebstrap.find_mirrors()
    addresses = [urlsplit(address) for address in (mirrors.archive, mirrors.security) if address]
    assert all(address.netloc and address.path for address in addresses)
    # A host may be Debian's own, whose name stands in copyright texts; with its path it is an address to fetch from.
    words = [f"{address.netloc}{address.path.rstrip('/')}".encode() for address in addresses]
    assert [(name, word) for name, content in contents.items() for word in words if word in content] == []


def test_no_private_key_is_in_the_root(contents: dict[str, bytes], built: Built) -> None:
    assert {name for name, content in contents.items() if PRIVATE_KEY.search(content)} == set(
        named(contents, r"/libgnutls\.so[^/]*$")
    )
    keys = list(built.signer.keyset.path.parent.rglob("*.key"))
    assert len(keys) >= 10
    secrets = {path.name: secret_parts(path) for path in keys}
    found = [
        (name, key)
        for name, content in contents.items()
        for key, parts in secrets.items()
        if any(part in content for part in parts)
    ]
    assert found == []


def secret_parts(key: Path) -> list[bytes]:
    """What only the private half of a key file has: the end of its body, as the text that stands there and as bytes."""
    lines = key.read_bytes().split(b"-----")[2].split()
    return [lines[-1] if len(lines) == 1 else lines[-2], base64.b64decode(b"".join(lines))[-32:]]


def test_only_the_known_programs_get_other_rights(root: Path) -> None:
    modes = {path.relative_to(root).as_posix(): path.lstat().st_mode for path in root.rglob("*")}
    assert {name for name, mode in modes.items() if mode & stat.S_ISUID} == SETUID
    assert {name for name, mode in modes.items() if mode & stat.S_ISGID and stat.S_ISREG(mode)} == SETGID


def test_nothing_is_writable_for_everyone_but_the_temporary_folder(root: Path) -> None:
    everyone = [path for path in root.rglob("*") if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH]
    assert everyone == [root / "tmp"]
    assert (root / "tmp").stat().st_mode & stat.S_ISVTX


def test_the_scanner_and_the_signature_engine_are_there_and_only_our_units_start_them(contents: dict[str, bytes]) -> None:
    programs = {"usr/sbin/clamd", "usr/bin/suricata"}
    assert programs <= contents.keys()
    units = {name: text for name, text in contents.items() if re.search(r"/systemd/system/[^/]+\.service$", name)}
    starting = {name for name, text in units.items() if any(f"=/{program} ".encode() in text for program in programs)}
    assert starting == {"usr/lib/systemd/system/mamori-clamd.service", "usr/lib/systemd/system/mamori-suricata.service"}
    assert named(contents, r"freshclam") == []


def test_no_link_wants_a_unit_that_is_not_there(root: Path) -> None:
    links = [path for path in (root / "etc/systemd/system").rglob("*") if path.is_symlink()]
    assert len(links) > 10
    aims = {path: path.readlink() for path in links}
    gone = [path for path, aim in aims.items() if not (root / aim.relative_to("/") if aim.is_absolute() else path).exists()]
    assert [path for path in gone if aims[path] != Path("/dev/null")] == []


def test_there_are_no_device_nodes_pipes_and_sockets(root: Path) -> None:
    strange = [
        path for path in root.rglob("*") if stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
    ]
    assert strange == []


def accounts(contents: dict[str, bytes], file: str) -> dict[str, list[str]]:
    return {line.split(":")[0]: line.split(":") for line in contents[file].decode().splitlines()}


def test_nobody_has_a_password(contents: dict[str, bytes]) -> None:
    assert {name for name, fields in accounts(contents, "etc/shadow").items() if fields[1] not in ("*", "!", "!*")} == set()
    assert accounts(contents, "etc/shadow").keys() == accounts(contents, "etc/passwd").keys()
    assert {fields[1] for fields in accounts(contents, "etc/passwd").values()} == {"x"}


def test_the_age_of_passwords_does_not_tell_the_day_of_the_build(
    contents: dict[str, bytes], checkout: Workspace, built: Built
) -> None:
    days = {epoch // 86400 for epoch in (read_lock(checkout.root).epoch, built.image.source.epoch)}
    assert {int(fields[2]) for fields in accounts(contents, "etc/shadow").values()} <= days


def test_our_users_have_the_numbers_that_files_on_the_data_partition_carry(contents: dict[str, bytes]) -> None:
    users = accounts(contents, "etc/passwd")
    assert {name: int(users[name][2]) for name in OUR_USERS} == OUR_USERS
    assert len({fields[2] for fields in users.values()}) == len(users)


def test_only_root_has_a_shell(contents: dict[str, bytes]) -> None:
    shells = {name: fields[6] for name, fields in accounts(contents, "etc/passwd").items()}
    assert {name: shell for name, shell in shells.items() if not shell.endswith("/nologin")} == SHELLS


def test_the_laboratory_lets_its_own_key_in_and_no_other(contents: dict[str, bytes], built: Built) -> None:
    assert contents["etc/ssh/authorized_keys/root"].decode().strip() == built.signer.anchors.ssh
    assert named(contents, r"authorized_keys") == ["etc/ssh/authorized_keys/root"]


def test_every_unit_that_is_started_exists_or_is_masked(root: Path) -> None:
    folders = [root / "etc/systemd/system", root / "usr/lib/systemd/system"]
    wants = {link.name for folder in folders for link in folder.glob("*.wants/*")}
    units = {path.name for folder in folders for path in folder.iterdir()}
    templates = {re.sub(r"@[^.]*\.", "@.", name) for name in wants if "@" in name}
    assert {name for name in wants if "@" not in name} - units == set()
    assert templates - units == set()
    started = {
        "mamori-inspect.service",
        "mamori-ready.service",
        "systemd-networkd.service",
        "systemd-timesyncd.service",
        "ssh.service",
    }
    assert started <= {link.name for link in (root / "usr/lib/systemd/system/multi-user.target.wants").iterdir()}


def test_services_that_only_a_computer_with_people_needs_are_masked(root: Path) -> None:
    for unit in ("systemd-firstboot.service", "systemd-logind.service", "getty@tty1.service", "nftables.service"):
        assert (root / "etc/systemd/system" / unit).readlink() == Path("/dev/null"), unit


def test_our_byte_code_is_taken_without_looking_at_the_source(contents: dict[str, bytes]) -> None:
    ours = named(contents, r"dist-packages/mamori/.*\.pyc$")
    sources = named(contents, r"dist-packages/mamori/.*\.py$")
    assert len(ours) == len(sources) > 10
    assert {flags(contents[name]) for name in ours} == {UNCHECKED_HASH}


def test_no_byte_code_of_pythons_own_depends_on_times(contents: dict[str, bytes]) -> None:
    """The image gives all files one time, so byte code that trusts times would be made anew at every start."""
    compiled = named(contents, r"^usr/lib/python3[^/]*/.*\.pyc$")
    assert len(compiled) > 300
    assert [name for name in compiled if not flags(contents[name])] == []


def flags(byte_code: bytes) -> int:
    return int(struct.unpack_from("<I", byte_code, 4)[0])


def test_the_release_file_says_what_was_built(contents: dict[str, bytes], built: Built) -> None:
    said = release.decode(contents["usr/lib/mamori/release.json"], "release.json")
    assert (said.version, said.recipe, said.board) == (built.image.version, "lab", "qemu-x86_64")
    assert said.build_time == built.image.source.epoch


def test_the_anchors_are_the_public_certificates_of_the_keyset(contents: dict[str, bytes], built: Built) -> None:
    first, second = (authority.ca.certificate.read_bytes() for authority in built.signer.keyset.authorities.values())
    assert contents["usr/lib/mamori/anchors/bundle.pem"].split() == (first + second).split()
    files = ["usr/lib/mamori/anchors/bundle.pem", "usr/lib/mamori/anchors/tuf-root.json"]
    assert named(contents, r"^usr/lib/mamori/anchors/") == files
    assert contents[files[1]] == read_anchor(built.signer.keyset)
    said = release.decode(contents["usr/lib/mamori/release.json"], "release.json")
    anchors = built.signer.anchors
    trusted = [anchors.pk, anchors.kek, anchors.db, *anchors.bundle]
    assert [anchor.sha256 for anchor in said.anchors] == [certificate.fingerprint for certificate in trusted]
