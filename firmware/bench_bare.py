"""What a start costs without us: the same kernel and root under the same firmware, with nothing of our boot chain.

OVMF starts an unsigned kernel image with a minimal initramfs that mounts the EROFS directly: no Secure Boot, no shim, no GRUB,
no early bridge, no watchdog, no dm-verity.
"""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

from firmware.build import Built
from firmware.cache import Artifact
from firmware.image.initramfs import parse_module_index
from firmware.image.tar import read_members
from firmware.process import run
from firmware.workspace import Workspace

DISK = "disk.img"

_HASHES = ("crc32c_generic", "crc32c_intel")
_APPLETS = ("insmod", "mount", "sh", "sleep", "switch_root")

_INIT = """\
#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755 run /run
while read -r module; do insmod "/modules/$module"; done < /modules/order
find_root() {
    for entry in /sys/class/block/*; do
        [ -f "$entry/partition" ] || continue
        while read -r line; do [ "$line" != PARTNAME=root-a ] || device=/dev/${entry##*/}; done < "$entry/uevent"
    done
    [ -b "$device" ]
}
until find_root; do sleep 0.1; done
mount -t erofs -o ro "$device" /root
for folder in dev proc sys run; do mount --move /$folder /root/$folder; done
exec switch_root /root /usr/lib/systemd/systemd
"""


def build_bare_disk(workspace: Workspace, built: Built) -> Artifact:
    """The built disk with another ESP, which holds the bare kernel image and nothing else."""
    inputs = {
        "disk": built.disk_image.digest,
        "base": built.base.artifact.digest,
        "init": _INIT,
        "cmdline": built.rendered["cmdline"],
    }
    with workspace.console.step("bare disk") as step:

        def make(folder: Path) -> None:
            work = folder / "work"
            _lay_out(built, work / "tree")
            _make_esp(built, work)
            run(["cp", "--sparse=always", built.disk, folder / DISK], explain="copy the disk image")
            with (folder / DISK).open("r+b") as disk, (work / "esp.img").open("rb") as esp:
                disk.seek(built.image.layout["esp"].start_bytes)
                shutil.copyfileobj(esp, disk)
            shutil.rmtree(work)

        return workspace.cache.step("bare-disk", inputs, make, code=(__file__,), on_hit=step.cached)


def _lay_out(built: Built, tree: Path) -> None:
    """The tree of the initramfs."""
    for name in ("bin", "dev", "modules", "proc", "root", "run", "sys"):
        (tree / name).mkdir(parents=True)
    shutil.copy(built.tools.tree / "usr/bin/busybox", tree / "bin/busybox")
    for applet in _APPLETS:
        (tree / "bin" / applet).symlink_to("busybox")
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    folder = f"usr/lib/modules/{built.base.kernel_release}"
    names = (f"{folder}/modules.dep", f"{folder}/modules.builtin")
    texts = read_members(built.base.rootfs_tar, names)
    index = parse_module_index(*(texts[name].decode() for name in names))
    kernel = built.image.board.kernel
    # The disk's bus may be among the drivers of the ports, as virtio's is.
    order = index.load_order((*kernel.port_modules, *kernel.storage_modules, "erofs"), _HASHES)
    files = {f"{folder}/{index.files[name]}": name for name in order}
    for path, content in read_members(built.base.rootfs_tar, files).items():
        (tree / "modules" / f"{files[path]}.ko").write_bytes(lzma.decompress(content) if path.endswith(".xz") else content)
    (tree / "modules/order").write_text("".join(f"{name}.ko\n" for name in order))


def _make_esp(built: Built, work: Path) -> None:
    """work/esp.img: a FAT with the unsigned kernel image where UEFI looks first."""
    esp = work / "esp.img"
    with esp.open("wb") as file:
        file.truncate(built.image.layout["esp"].size_bytes)
    script = """
        cd "$WORK/tree"
        find . -mindepth 1 | sort | cpio --quiet --create --format=newc --owner=0:0 | zstd -19 --quiet -o "$WORK/initrd"
        ukify build --linux="$KERNEL" --initrd="$WORK/initrd" --cmdline="$CMDLINE" --uname="$RELEASE" --output="$WORK/bare.efi"
        mkfs.vfat "$WORK/esp.img" > /dev/null
        mmd -i "$WORK/esp.img" ::/EFI ::/EFI/BOOT
        mcopy -i "$WORK/esp.img" "$WORK/bare.efi" ::/EFI/BOOT/BOOTX64.EFI
    """
    env = {"WORK": str(work), "KERNEL": str(built.base.kernel), "RELEASE": built.base.kernel_release}
    env["CMDLINE"] = built.rendered["cmdline"].strip()
    built.tools.run(["sh", "-euc", script], reads=[built.base.kernel], writes=[work], env=env, explain="make the bare kernel image")
