"""Where things stand on an appliance: each path once, below a root that is `/` there and a folder in a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Device:
    """One appliance's file system."""

    root: Path = Path("/")

    @property
    def release(self) -> Path:
        return self.root / "usr/lib/mamori/release.json"

    @property
    def slot(self) -> Path:
        """The initramfs writes the slot that it started from: `a` or `b`."""
        return self.root / "run/mamori/slot"

    @property
    def verity(self) -> Path:
        """The initramfs writes the root hash that it opened the root file system with: 64 hex digits."""
        return self.root / "run/mamori/verity"

    @property
    def inspect_report(self) -> Path:
        """In a folder of the service's own: it must not be able to replace what the initramfs wrote beside it.
        tmpfiles.d/mamori.conf makes /run/mamori/inspect.json a link to it."""
        return self.root / "run/mamori/inspect/report.json"

    @property
    def policy(self) -> Path:
        """What the owner wants; written by the portal, or by hand."""
        return self.root / "data/policy/policy.toml"

    @property
    def accepted_policy(self) -> Path:
        """The last policy that was sound."""
        return self.root / "data/inspect/policy.toml"

    @property
    def lists(self) -> Path:
        """The compiled lists of names and addresses."""
        return self.root / "data/feeds/lists/lists.mlf"

    @property
    def hash_list(self) -> Path:
        """The compiled hashes of harmful files."""
        return self.root / "data/feeds/hashes/hashes.mhf"

    @property
    def address_feeds(self) -> Path:
        """A folder of *.txt: known-bad networks, one on a line."""
        return self.root / "data/feeds/addresses"

    @property
    def rule_folders(self) -> tuple[Path, ...]:
        """Folders of *.rules: those of the image and those of the feeds."""
        return self.root / "usr/share/mamori/ips", self.root / "data/feeds/rules"

    @property
    def signatures_report(self) -> Path:
        """What the keeper of the signature engine says; the folder is its own."""
        return self.root / "run/mamori/signatures/report.json"

    @property
    def clamd_socket(self) -> Path:
        return self.root / "run/mamori/clamd/socket"

    @property
    def events_socket(self) -> Path:
        """Where whoever inspects sends its events. The folder is the writer's own, as above."""
        return self.root / "run/mamori/events/socket"

    @property
    def events_database(self) -> Path:
        return self.root / "data/events/events.db"

    @property
    def bootstate(self) -> Path:
        return self.root / "dev/mamori/bootstate"

    def boot_partition(self, slot: str) -> Path:
        """Where a slot's kernel image is: a FAT that is never mounted here."""
        return self.root / f"dev/mamori/boot-{slot}"

    def root_partition(self, slot: str) -> Path:
        return self.root / f"dev/mamori/root-{slot}"

    @property
    def update(self) -> Path:
        """The updater's folder on the data partition."""
        return self.root / "data/update"

    @property
    def update_runtime(self) -> Path:
        """The updater's folder on /run: its socket, its status, and what it wants of the service manager."""
        return self.root / "run/mamori/update"

    @property
    def sticks(self) -> Path:
        """A folder for each USB stick's file system, mounted by mamori-usb@.service; a file NAME.mounted says that it is there."""
        return self.root / "run/mamori/usb"

    @property
    def reset_mark(self) -> Path:
        """Asks for a factory reset at the next start."""
        return self.root / "data/.reset"

    @property
    def tuf_anchor(self) -> Path:
        """The root metadata that the image was made with."""
        return self.root / "usr/lib/mamori/anchors/tuf-root.json"

    @property
    def identity(self) -> Path:
        return self.root / "data/identity/id"

    @property
    def journal(self) -> Path:
        """What the updater must not forget."""
        return self.root / "data/update/journal.json"

    @property
    def interfaces(self) -> Path:
        return self.root / "sys/class/net"

    @property
    def blocks(self) -> Path:
        return self.root / "sys/block"

    @property
    def secure_boot(self) -> Path:
        """Variable `SecureBoot` of the global GUID (UEFI specification, section 3.3); Linux puts 4 bytes of attributes first."""
        return self.root / "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

    @property
    def mounts(self) -> Path:
        return self.root / "proc/self/mountinfo"

    @property
    def uptime(self) -> Path:
        return self.root / "proc/uptime"

    @property
    def data(self) -> Path:
        return self.root / "data"
