"""What the repository offers this appliance now: python-tuf's client, with our fetcher, our words for what goes wrong, and trusted
metadata on the data partition (docs/update.md section 3).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import quote

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, TargetFile
from tuf.ngclient import Updater
from tuf.ngclient.config import UpdaterConfig

from mamori.formats.offer import Channel, Offer, decode_offer, target_path
from mamori.formats.problems import MamoriError
from mamori.update.fetcher import Fetcher

MAX_BUNDLE_BYTES = 2 << 30
"""A slot is smaller."""

CONFIG = UpdaterConfig(
    max_root_rotations=256,  # five years of one a week
    max_delegations=4,
    root_max_length=256_000,
    timestamp_max_length=16_384,
    snapshot_max_length=256_000,
    targets_max_length=2_000_000,
)
"""How long each file may be, in bytes: ten times what they are, so that endless data ends soon."""


class Trouble(Enum):
    """Why it is not known what is offered: `UNREACHABLE` passes by itself, `REFUSED` is an attack, a mistake, or a wrong clock."""

    UNREACHABLE = "unreachable"
    REFUSED = "refused"


class CheckError(MamoriError):
    """The repository could not be asked, or what it says is not to be believed."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble


@dataclass(frozen=True)
class Source:
    """Where the repository is: the folder above `metadata/` and `targets/`, as http:, https: or file: URL without a last slash."""

    url: str

    @property
    def metadata(self) -> str:
        return f"{self.url}/metadata/"

    @property
    def targets(self) -> str:
        return f"{self.url}/targets/"


@dataclass(frozen=True)
class Found:
    """An offer, the length and hash of its bundle, and where that is."""

    offer: Offer
    length: int
    sha256: str
    url: str


def find_offer(source: Source, compatible: str, channel: Channel, *, trusted: Path, anchor: Path, fetcher: Fetcher) -> Found | None:
    """The channel's present release for this kind of appliance, verified; None if there is none. Whether it is wanted is decided
    elsewhere. `trusted` is the folder of metadata that was believed before, `anchor` the image's root metadata. CheckError."""
    with _own_words():
        _prepare(trusted, anchor)
        updater = Updater(
            str(trusted), source.metadata, target_base_url=source.targets, fetcher=fetcher, config=CONFIG, target_dir=str(trusted)
        )
        updater.refresh()
        target = updater.get_targetinfo(target_path(compatible, channel))
    _sync_folder(trusted)
    return _found(target, source, compatible, channel) if target is not None else None


def _found(target: TargetFile, source: Source, compatible: str, channel: Channel) -> Found:
    """BadInputError for an offer that makes no sense, CheckError for one that lies about what it is."""
    digest = target.hashes.get("sha256", "")
    if not digest or not 0 < target.length <= MAX_BUNDLE_BYTES:
        raise CheckError(Trouble.REFUSED, f"{target.path}: a bundle of {target.length} bytes, or one without a SHA-256")
    custom = target.custom
    offer = decode_offer(custom if isinstance(custom, dict) else {}, target.path)
    if (offer.compatible, offer.channel) != (compatible, channel):
        raise CheckError(Trouble.REFUSED, f"{target.path}: it is for {offer.compatible}, {offer.channel.value}")
    folder, _, name = target.path.rpartition("/")
    return Found(offer, target.length, digest, source.targets + quote(f"{folder}/{digest}.{name}"))


@contextmanager
def _own_words() -> Iterator[None]:
    """Every way in which python-tuf says no, as one error with words for people."""
    try:
        yield
    except tuf_errors.ExpiredMetadataError as error:
        hint = "the repository was not renewed, somebody holds back news, or this clock is wrong"
        raise CheckError(Trouble.REFUSED, f"the repository's words are too old: {error}: {hint}") from None
    except (tuf_errors.DownloadLengthMismatchError, tuf_errors.LengthOrHashMismatchError) as error:
        raise CheckError(Trouble.REFUSED, f"the repository gives other bytes than it announced: {error}") from None
    except tuf_errors.DownloadError as error:
        raise CheckError(Trouble.UNREACHABLE, f"the repository cannot be reached: {error}") from None
    except tuf_errors.BadVersionNumberError as error:
        raise CheckError(Trouble.REFUSED, f"the repository says older things than before: {error}") from None
    except tuf_errors.UnsignedMetadataError as error:
        raise CheckError(Trouble.REFUSED, f"the repository's signatures do not suffice: {error}") from None
    except tuf_errors.RepositoryError as error:
        raise CheckError(Trouble.REFUSED, f"the repository is not to be believed: {error}") from None
    except OSError as error:
        raise CheckError(Trouble.UNREACHABLE, f"{error.filename or 'the data partition'}: {error.strerror}") from None
    except ValueError as error:
        raise CheckError(Trouble.REFUSED, f"the repository makes no sense: {error}") from None


def _prepare(trusted: Path, anchor: Path) -> None:
    """A root to begin with. One that a power cut has spoiled is replaced by the image's: from there the chain of roots is walked
    again, and nothing older than the image is believed."""
    trusted.mkdir(parents=True, exist_ok=True)
    place = trusted / "root.json"
    if not _is_root(place):
        history = trusted / "root_history"  # where newer versions of python-tuf keep the chain; `root.json` is a link into it
        if history.is_dir():
            shutil.rmtree(history)
        place.unlink(missing_ok=True)
        place.write_bytes(anchor.read_bytes())


def _is_root(path: Path) -> bool:
    try:
        return isinstance(Metadata.from_bytes(path.read_bytes()).signed, Root)
    except (OSError, ValueError, tuf_errors.RepositoryError):
        return False


def _sync_folder(folder: Path) -> None:
    """python-tuf replaces its files whole, but does not wait for the disk."""
    for path in [*folder.rglob("*.json"), folder]:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
