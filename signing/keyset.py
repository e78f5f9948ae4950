"""A keyset: one TOML file that says which key is for what, where it lives, and which certificate or public key belongs to it.

The file's classes and the values are apart: `_File` is what people write, `Keyset` is what code holds, with every path
resolved from the keyset's folder and every URI parsed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mamori.formats import strict
from mamori.formats.problems import BadInputError, Problem
from signing.uri import KeyUri, parse_key_uri

MAX_ROLE_KEYS = 16
"""More keys than this for one TUF role is a mistake: every client downloads and verifies them all."""


class Authority(enum.Enum):
    """The two bundle CAs. Images trust both; one can be retired without a visit."""

    CA1 = "ca1"
    CA2 = "ca2"


@dataclass(frozen=True)
class Certified:
    """A certificate with its private key (None: not at hand, as an offline CA's).

    At most one CA stands between a leaf and its root: `openssl cms` takes one file, and RAUC one certificate per file.
    """

    name: str
    certificate: Path
    key: KeyUri | None
    intermediate: Path | None = None


@dataclass(frozen=True)
class Published:
    """A bare public key (PEM for TUF, OpenSSH for SSH) with its private key, or None when that is not at hand."""

    name: str
    public: Path
    key: KeyUri | None


@dataclass(frozen=True)
class BundleAuthority:
    """A bundle CA, and the code-signing leaf under it that signs from day to day."""

    ca: Certified
    signer: Certified


@dataclass(frozen=True)
class Hsm:
    """What a PKCS #11 module needs around it when a tool runs: its environment, and the files that it reads and writes."""

    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Keyset:
    """Every key of a release, by use. `path` is the keyset file as it was given, and the source of its problems."""

    path: Path
    pk: Certified
    kek: Certified
    db: Certified
    signs_with: Authority
    authorities: Mapping[Authority, BundleAuthority]
    tuf: Mapping[str, tuple[Published, ...]]
    ssh: Published | None
    hsm: Hsm

    @property
    def signer(self) -> Certified:
        """The leaf that signs bundles and checksums now."""
        return self.authorities[self.signs_with].signer

    @property
    def certified(self) -> tuple[Certified, ...]:
        """Every certificate of the keyset."""
        bundle = (pair for authority in self.authorities.values() for pair in (authority.ca, authority.signer))
        return (self.pk, self.kek, self.db, *bundle)

    @property
    def published(self) -> tuple[Published, ...]:
        """Every bare public key of the keyset."""
        return (*(key for keys in self.tuf.values() for key in keys), *((self.ssh,) if self.ssh else ()))


@dataclass(frozen=True)
class _Certified:
    certificate: str
    key: str | None = None


@dataclass(frozen=True)
class _Signer:
    certificate: str
    key: str | None = None
    intermediate: str | None = None


@dataclass(frozen=True)
class _BundleAuthority:
    ca: _Certified
    signer: _Signer


@dataclass(frozen=True)
class _SecureBoot:
    pk: _Certified
    kek: _Certified
    db: _Certified


@dataclass(frozen=True)
class _Bundle:
    signs_with: Authority
    ca1: _BundleAuthority
    ca2: _BundleAuthority


@dataclass(frozen=True)
class _Published:
    public: str
    key: str | None = None


@dataclass(frozen=True)
class _Tuf:
    root: tuple[_Published, ...]
    firmware: tuple[_Published, ...]
    feeds: tuple[_Published, ...]
    snapshot: tuple[_Published, ...]
    timestamp: tuple[_Published, ...]


@dataclass(frozen=True)
class _Hsm:
    environment: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    secure_boot: _SecureBoot
    bundle: _Bundle
    tuf: _Tuf
    ssh: _Published | None = None
    hsm: _Hsm = field(default_factory=_Hsm)


def read_keyset(path: Path, *, builds: bool = True) -> Keyset:
    """The keyset in a TOML file. One that `builds` has the keys that a build signs with; people who only sign metadata need none.
    Looks at no key and no certificate: that is `check_keyset`'s work. BadInputError, MamoriError."""
    table = strict.read_toml(path)
    return _Resolver(path, builds).keyset(strict.parse(_File, table, str(path)))


class _Resolver:
    """Turns names in the file into paths and keys, and collects what is wrong with them."""

    def __init__(self, path: Path, builds: bool) -> None:
        self.path, self.builds = path, builds
        self.folder = path.resolve().parent  # tools see a file where it really is
        self.source = str(path)
        self.problems: list[Problem] = []

    def keyset(self, file: _File) -> Keyset:
        boot = file.secure_boot
        keyset = Keyset(
            path=self.path,
            pk=self._certified("secure_boot.pk", boot.pk),
            kek=self._certified("secure_boot.kek", boot.kek),
            db=self._certified("secure_boot.db", boot.db),
            signs_with=file.bundle.signs_with,
            authorities=MappingProxyType(
                {
                    Authority.CA1: self._authority("bundle.ca1", file.bundle.ca1),
                    Authority.CA2: self._authority("bundle.ca2", file.bundle.ca2),
                }
            ),
            tuf=MappingProxyType({role: self._role(role, getattr(file.tuf, role)) for role in _Tuf.__dataclass_fields__}),
            ssh=self._published("ssh", file.ssh) if file.ssh else None,
            hsm=Hsm(MappingProxyType(dict(file.hsm.environment)), self._paths(file.hsm.reads), self._paths(file.hsm.writes)),
        )
        for needed in (keyset.db, keyset.signer):
            if self.builds and needed.key is None and not self.problems:
                self._complain(f"{needed.name}.key", "a URI: a build signs with this key", "nothing (the key is missing)")
        if self.problems:
            raise BadInputError(self.problems)
        return keyset

    def _authority(self, name: str, pair: _BundleAuthority) -> BundleAuthority:
        return BundleAuthority(self._certified(f"{name}.ca", pair.ca), self._certified(f"{name}.signer", pair.signer))

    def _certified(self, name: str, pair: _Certified | _Signer) -> Certified:
        intermediate = self.folder / pair.intermediate if isinstance(pair, _Signer) and pair.intermediate else None
        return Certified(name, self.folder / pair.certificate, self._key(name, pair.key), intermediate)

    def _role(self, role: str, keys: tuple[_Published, ...]) -> tuple[Published, ...]:
        if not 1 <= len(keys) <= MAX_ROLE_KEYS:
            self._complain(f"tuf.{role}", f"1 to {MAX_ROLE_KEYS} keys", str(len(keys)))
        return tuple(self._published(f"tuf.{role}[{index}]", key) for index, key in enumerate(keys))

    def _published(self, name: str, pair: _Published) -> Published:
        return Published(name, self.folder / pair.public, self._key(name, pair.key))

    def _key(self, name: str, uri: str | None) -> KeyUri | None:
        if uri is None:
            return None
        try:
            return parse_key_uri(uri, self.folder, self.source, f"{name}.key")
        except BadInputError as error:
            self.problems.extend(error.problems)
            return None

    def _paths(self, names: Iterable[str]) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in names)

    def _complain(self, key: str, expected: str, got: str) -> None:
        self.problems.append(Problem(self.source, key, expected, got))
