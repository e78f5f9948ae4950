"""Staging: RAUC writes the bundle into the other slot, from our loopback server; what it wrote is read back (docs/update.md §4).

RAUC's service is asked over D-Bus with busctl, whose answers are JSON: nothing of ours needs a D-Bus library. Runs in a thread of
its own; what comes out is one event of the machine's.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mamori.formats.bootstate import Slot
from mamori.formats.problems import MamoriError
from mamori.process import run_tool
from mamori.update.stream import BundleServer, pin_tail
from mamori.update.upstream import Limiter, Upstream, UpstreamError, open_upstream
from mamori.update.words import Stage, Staged, StagingFailed

BUS_NAME, BUS_PATH, BUS_INTERFACE = "de.pengutronix.rauc", "/", "de.pengutronix.rauc.Installer"

POLL_S = 1.0

STAGE_WITHIN_S = 12 * 3600.0
"""A whole release at 100 kbit/s takes five hours. Longer is a RAUC that hangs."""

_FINAL = re.compile(r"signature|verif|compatible|certificate|CMS|manifest|format|purpose|bundle|invalid|mismatch", re.IGNORECASE)
_PASSING = re.compile(r"No space|I/O|Input/output|network|nbd|timed? ?out|Connection|memory|busy|temporar", re.IGNORECASE)
"""What RAUC's words for an error mean. Its errors have no codes over D-Bus; what is neither is tried again."""

_CHUNK_BYTES = 1 << 20


class StagingError(MamoriError):
    """`is_final`: another attempt with the same bundle cannot end otherwise."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


@dataclass(frozen=True)
class ImageInfo:
    """One image of the bundle: for which slot class, and the length in bytes and SHA-256 of what is written."""

    slot_class: str
    size: int
    sha256: str


@dataclass(frozen=True)
class BundleInfo:
    """What RAUC says of a bundle after it has verified its signature."""

    compatible: str
    version: str
    manifest_hash: str
    images: tuple[ImageInfo, ...]


class Staging(threading.Thread):
    """One attempt. `result` is there when it has ended; `progress` are percent, `fetched_bytes` what came over the line. `sha256`
    is TUF's word on the whole bundle: without it nothing that goes wrong is final."""

    def __init__(self, command: Stage, url: str, limiter: Limiter, partitions: dict[str, Path], *, sha256: str = "") -> None:
        super().__init__(name="staging", daemon=True)
        self._command, self._url, self._limiter, self._partitions = command, url, limiter, partitions
        self._sha256 = sha256
        self._stop = threading.Event()
        self._upstream: Upstream | None = None
        self.result: Staged | StagingFailed | None = None
        self.progress = 0

    @property
    def fetched_bytes(self) -> int:
        return self._upstream.fetched_bytes if self._upstream is not None else 0

    def cancel(self) -> None:
        """RAUC's read fails, and with it the installation; the slot stays bad."""
        self._stop.set()
        if self._upstream is not None:
            self._upstream.stop()

    def run(self) -> None:
        try:
            self._stage()
            self.result = Staged()
        except (StagingError, UpstreamError) as error:
            self.result = StagingFailed(str(error)[:500], error.is_final and self._has_come_as_named())
        except (MamoriError, OSError) as error:
            self.result = StagingFailed(str(error)[:500])
        except Exception as error:  # a mistake of ours in this thread must not leave the machine waiting for ever
            self.result = StagingFailed(f"staging ended by a mistake of ours: {error!r}"[:500])

    def _has_come_as_named(self) -> bool:
        """Whether what was refused is the bundle that TUF named. A stick's bad copy, or somebody on the line who gives other bytes,
        must not be able to have a release given up for good; so before that all of it is fetched once, and hashed."""
        try:
            self._upstream = open_upstream(self._url, self._command.length, self._limiter)
            digest = hashlib.sha256()
            for piece in self._upstream.read(0, self._command.length):
                digest.update(piece)
                if self._stop.is_set():
                    return False
        except UpstreamError:
            return False
        return digest.hexdigest() == self._sha256

    def _stage(self) -> None:
        offer = self._command.offer
        self._upstream = open_upstream(self._url, self._command.length, self._limiter)
        if self._stop.is_set():  # before there was anything that could be told to stop
            raise StagingError("stopped")
        server = BundleServer(self._upstream, pin_tail(self._upstream, self._command.length))
        try:
            info = inspect_bundle(server.url)
            if info.manifest_hash != offer.manifest_hash:
                raise StagingError(f"the bundle's manifest is {info.manifest_hash}, TUF names {offer.manifest_hash}", is_final=True)
            if (info.compatible, info.version) != (offer.compatible, offer.version):
                raise StagingError(f"the bundle is {info.version} for {info.compatible}", is_final=True)
            self._install(server)
            self._read_back(info, self._command.slot)
        finally:
            server.close()

    def _install(self, server: BundleServer) -> None:
        _call("InstallBundle", "sa{sv}", server.url, "0", explain="have RAUC install the bundle")
        waited = 0.0
        while _property("Operation") != "idle" or waited == 0.0:
            progress = _property("Progress")
            self.progress = int(progress[0]) if isinstance(progress, list) and progress else self.progress
            if self._stop.wait(POLL_S):
                raise StagingError("stopped")
            waited += POLL_S
            if waited > STAGE_WITHIN_S:
                raise StagingError(f"RAUC was not done within {STAGE_WITHIN_S / 3600:g} hours")
        error = str(_property("LastError"))
        if error:
            if server.problem is not None:
                raise server.problem
            raise StagingError(f"RAUC: {error}", is_final=is_final(error))

    def _read_back(self, info: BundleInfo, slot: Slot) -> None:
        """What is on the disk now, past the cache, is what the manifest names."""
        for image in info.images:
            partition = self._partitions[image.slot_class]
            found = hash_partition(partition, image.size)
            if found != image.sha256:
                raise StagingError(f"slot {slot.value}: {partition.name} reads otherwise than it was written")


def inspect_bundle(url: str) -> BundleInfo:
    """RAUC's word on a bundle. StagingError for one that it refuses."""
    try:
        answer = _call("InspectBundle", "sa{sv}", url, "0", explain="have RAUC look at the bundle")
    except MamoriError as error:
        # Only RAUC's own words count: a bus that is not there says nothing of the bundle.
        _, said, words = str(error).partition("Call failed: ")
        raise StagingError(str(error), is_final=bool(said) and is_final(words)) from None
    return parse_info(answer)


def parse_info(answer: Any) -> BundleInfo:
    """busctl's JSON of InspectBundle's answer (RAUC manual, D-Bus API)."""
    try:
        (table,) = plain(answer)
        images = tuple(ImageInfo(str(one["slot-class"]), int(one["size"]), str(one["checksum"])) for one in table["images"])
        return BundleInfo(str(table["update"]["compatible"]), str(table["update"]["version"]), str(table["manifest-hash"]), images)
    except (KeyError, TypeError, ValueError):
        raise StagingError(f"RAUC says of the bundle what nobody understands: {json.dumps(answer)[:300]}") from None


def plain(value: Any) -> Any:
    """D-Bus values as busctl prints them, without their types: a variant is {"type": …, "data": …}, and may hold another."""
    if isinstance(value, dict):
        return plain(value["data"]) if set(value) == {"type", "data"} else {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def is_final(error: str) -> bool:
    """Whether RAUC's words say that the bundle is at fault."""
    return _PASSING.search(error) is None and _FINAL.search(error) is not None


def hash_partition(path: Path, size: int) -> str:
    """SHA-256 of the first `size` bytes, read past the cache."""
    digest = hashlib.sha256()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, _CHUNK_BYTES) as buffer, memoryview(buffer) as view:
                at = 0
                while at < size:
                    done = os.preadv(descriptor, [view], at)
                    if not done:
                        raise StagingError(f"{path}: ends after {at} bytes, not {size}")
                    digest.update(view[: min(done, size - at)])
                    at += done
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StagingError(f"{path}: cannot be read back: {error.strerror}") from None
    return digest.hexdigest()


def _call(method: str, *arguments: str, explain: str) -> Any:
    """A method of RAUC's; its answer. MamoriError with what it says when it says no."""
    argv = ("busctl", "--system", "--json=short", "--timeout=300", "call", BUS_NAME, BUS_PATH, BUS_INTERFACE, method, *arguments)
    return _parse(run_tool(argv, explain=explain, timeout_s=310.0))


def _property(name: str) -> Any:
    argv = ("busctl", "--system", "--json=short", "get-property", BUS_NAME, BUS_PATH, BUS_INTERFACE, name)
    return plain(_parse(run_tool(argv, explain=f"ask RAUC for {name}")))


def _parse(printed: bytes) -> Any:
    try:
        return json.loads(printed) if printed.strip() else {"data": []}
    except ValueError:
        raise StagingError(f"busctl prints no JSON: {printed[:100]!r}") from None
