"""TUF repositories of development keys, and python-tuf's own client to look at them. No test is in here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater

from firmware.repository.repository import Repository
from firmware.repository.serve import serving
from mamori.formats.offer import Channel, target_path
from signing.tuf import RoleKeys, threshold_of
from tests.support.update_world import COMPATIBLE

COUNTS = {"root": 3, "firmware": 2, "feeds": 1, "snapshot": 1, "timestamp": 1}


@dataclass
class Keys:
    """Key pairs for each role, made for one test."""

    signers: dict[str, list[Signer]] = field(
        default_factory=lambda: {role: [make_signer() for _ in range(count)] for role, count in COUNTS.items()}
    )

    @property
    def public(self) -> Mapping[str, RoleKeys]:
        return {
            role: RoleKeys(tuple(signer.public_key for signer in signers), threshold_of(len(signers)))  # type: ignore[misc]
            for role, signers in self.signers.items()
        }

    def renewed(self, role: str) -> Keys:
        """The same with other keys for one role."""
        return Keys({**self.signers, role: [make_signer() for _ in self.signers[role]]})

    def only(self, **held: Sequence[int]) -> dict[str, list[Signer]]:
        """What one person has: all keys of a role that is not named, and of the named ones those of these numbers."""
        return {role: [signers[at] for at in held.get(role, range(len(signers)))] for role, signers in self.signers.items()}


def make_signer() -> Signer:
    return CryptoSigner(Ed25519PrivateKey.generate())


def open_repository(folder: Path, keys: Keys, signers: Mapping[str, Sequence[Signer]] | None = None) -> Repository:
    return Repository(folder, keys.public, signers or keys.signers)


@dataclass
class Client:
    """python-tuf's client over a repository that a web server gives, with trusted metadata in a folder of its own."""

    url: str
    folder: Path

    def target(self, channel: Channel = Channel.STABLE) -> TargetFile | None:
        """The present release as an appliance sees it. tuf's own errors."""
        return self._refreshed().get_targetinfo(target_path(COMPATIBLE, channel))

    def download(self, channel: Channel = Channel.STABLE) -> bytes:
        """The bundle, verified."""
        updater = self._refreshed()
        found = updater.get_targetinfo(target_path(COMPATIBLE, channel))
        assert found is not None
        return Path(updater.download_target(found, str(self.folder / "download"))).read_bytes()

    def _refreshed(self) -> Updater:
        targets = f"{self.url}/targets/"
        updater = Updater(str(self.folder), f"{self.url}/metadata/", str(self.folder), targets)
        updater.refresh()
        return updater


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over HTTP on the loopback interface; the URL."""
    with serving(folder) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def client_of(repository: Repository, folder: Path) -> Iterator[Client]:
    """A new appliance: it has the first root, and nothing else."""
    folder.mkdir()
    (folder / "root.json").write_bytes(repository.store.root())
    with served(repository.store.folder) as url:
        yield Client(url, folder)
