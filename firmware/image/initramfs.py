"""The initramfs: a static shell, dmsetup, the modules of one board in loading order, and our `init`.

It is small because every boot of every office waits for it: shim hashes it, the kernel unpacks it, and the bridge comes
up in it. What depends on what is worked out here, so that the device needs no module tools.
"""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from firmware.bases import BaseTree
from firmware.cache import Artifact, text_sha256
from firmware.image import tar
from firmware.image.tar import read_members
from firmware.process import Argument
from firmware.recipe import Image
from firmware.workspace import Tools, Workspace
from mamori.formats.problems import MamoriError

IMAGE = "initramfs.cpio.zst"

MAX_BYTES = 12 * 1024 * 1024
"""Under emulation, and on the slowest boards, each MiB costs a tenth of a second before the bridge forwards."""

APPLETS = (
    *("cat", "dd", "grep", "insmod", "ip", "ls", "mkdir", "mount", "readlink", "reboot"),
    *("sed", "sh", "sleep", "sort", "switch_root", "tail", "tr"),
)
"""The busybox commands that `init` uses."""

ROOT_MODULES = ("dm_verity", "erofs")
"""What the verified root needs on every board."""

HASH_MODULES = ("crc32c_generic", "crc32c_intel", "sha256_generic", "sha256_ssse3")
"""Loaded first, where they are modules: EROFS and verity ask the kernel for these hashes by name, which no dependency
list shows, and the fast variants count: verity hashes every block that is read."""


@dataclass(frozen=True)
class Group:
    """Modules that are loaded together: required ones, those that are loaded where the kernel has them, options by module."""

    modules: tuple[str, ...]
    optional: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModuleIndex:
    """What `depmod` found out about one kernel. `files` maps a module's name to its path below usr/lib/modules/RELEASE."""

    files: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]]
    built_in: frozenset[str]

    def load_order(self, wanted: Sequence[str], optional: Sequence[str] = ()) -> tuple[str, ...]:
        """Module names such that each comes after what it needs, optional ones first; MamoriError names a wanted one that the
        kernel lacks."""
        order: dict[str, None] = {}

        def visit(name: str) -> None:
            for needed in self.needs.get(name, ()):
                visit(needed)
            order.setdefault(name)

        for name in (*optional, *wanted):
            if name in self.files:
                visit(name)
            elif name not in self.built_in and name not in optional:
                hint = "check board.toml's kernel section against this kernel's configuration"
                raise MamoriError(f"the kernel has no module {name}", hint)
        return tuple(order)


def parse_module_index(dep: str, builtin: str) -> ModuleIndex:
    """`modules.dep` and `modules.builtin` (format: depmod(8), modules.dep(5))."""
    files, needs = {}, {}
    for line in dep.splitlines():
        path, _, dependencies = line.partition(":")
        files[module_name(path)] = path
        # modules.dep lists what is needed nearest first; loading goes the other way round.
        needs[module_name(path)] = tuple(module_name(needed) for needed in reversed(dependencies.split()))
    return ModuleIndex(files, needs, frozenset(module_name(line) for line in builtin.split()))


def module_name(path: str) -> str:
    """`kernel/drivers/net/virtio_net.ko.xz` is `virtio_net`; the kernel reads `-` as `_`."""
    return PurePosixPath(path).name.split(".ko")[0].replace("-", "_")


def build_initramfs(workspace: Workspace, tools: Tools, base: BaseTree, image: Image, init: str, epoch: int) -> Artifact:
    """The initramfs of `image` with the rendered script `init`."""
    groups = _groups(image)
    inputs = {"base": base.artifact.digest, "tools": tools.digest, "init": text_sha256(init)}
    inputs |= {"groups": repr(groups), "epoch": str(epoch)}
    with workspace.console.step("initramfs") as step:

        def make(folder: Path) -> None:
            tree = folder / "tree"
            _lay_out(tools, tree, init)
            _add_modules(base, tree, groups)
            _pack(tools, tree, folder / IMAGE, epoch)
            shutil.rmtree(tree)

        artifact = workspace.cache.step("initramfs", inputs, make, code=(__file__, tar.__file__), on_hit=step.cached)
        step.note(f"{(artifact / IMAGE).stat().st_size / 1e6:.1f} MB")
    return artifact


def _groups(image: Image) -> Mapping[str, Group]:
    """What `load GROUP` in `init` loads."""
    watchdog = image.board.watchdog
    return {
        "ports": Group(("bridge", *image.board.kernel.port_modules)),
        "watchdog": Group((*watchdog.bus_modules, watchdog.module), options={watchdog.module: f"heartbeat={watchdog.timeout_s}"}),
        "storage": Group((*image.board.kernel.storage_modules, *ROOT_MODULES), HASH_MODULES),
    }


def _lay_out(tools: Tools, tree: Path, init: str) -> None:
    for folder in ("bin", "dev", "lib64", "modules", "proc", "root", "run", "sys"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(tools.tree / "usr/bin/busybox", tree / "bin/busybox")
    for applet in APPLETS:
        (tree / "bin" / applet).symlink_to("busybox")
    (tree / "init").write_text(init)
    (tree / "init").chmod(0o755)
    shutil.copy(tools.tree / "usr/sbin/dmsetup", tree / "bin/dmsetup")
    (tree / "lib").symlink_to("lib64")
    for library in _libraries(tools, "/usr/sbin/dmsetup"):
        shutil.copy(tools.tree / str(library).removeprefix("/"), tree / "lib64" / library.name)


def _libraries(tools: Tools, program: str) -> Iterator[PurePosixPath]:
    """The shared libraries of a program of the tools tree, with the dynamic loader."""
    for line in tools.run(["ldd", program], explain="find the libraries of dmsetup").stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                # /lib is a link in the tree, and would be followed on the host.
                yield PurePosixPath(word if word.startswith("/usr/") else f"/usr{word}")


def _add_modules(base: BaseTree, tree: Path, groups: Mapping[str, Group]) -> None:
    folder = f"usr/lib/modules/{base.kernel_release}"
    texts = read_members(base.rootfs_tar, (f"{folder}/modules.dep", f"{folder}/modules.builtin"))
    index = parse_module_index(texts[f"{folder}/modules.dep"].decode(), texts[f"{folder}/modules.builtin"].decode())
    orders = {name: index.load_order(group.modules, group.optional) for name, group in groups.items()}
    paths = {name: f"{folder}/{index.files[name]}" for order in orders.values() for name in order}
    contents = read_members(base.rootfs_tar, paths.values())
    for name, path in paths.items():
        (tree / "modules" / f"{name}.ko").write_bytes(_unpacked(path, contents[path]))
    for group, order in orders.items():
        lines = [f"{name}.ko {groups[group].options.get(name, '')}".rstrip() for name in order]
        (tree / "modules" / group).write_text("".join(f"{line}\n" for line in lines))


def _unpacked(path: str, content: bytes) -> bytes:
    """A module as it is in memory: the whole initramfs is compressed once, better."""
    if path.endswith(".xz"):
        return lzma.decompress(content)
    if path.endswith(".ko"):
        return content
    raise MamoriError(f"{path}: the kernel's modules are compressed in a way that is not known here", "known are none and xz")


def _pack(tools: Tools, tree: Path, target: Path, epoch: int) -> None:
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    names = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*"))
    listing = target.with_name("listing")
    listing.write_text("".join(f"{name}\n" for name in names))
    archive = target.with_suffix("")
    cpio = 'cd "$1"; cpio --quiet --create --format=newc --reproducible --owner=0:0 < "$2" > "$3"'
    tools.run(["sh", "-euc", cpio, "sh", tree, listing, archive], writes=[target.parent], explain="pack the initramfs")
    # One thread: several would cut the stream at places that depend on timing.
    zstd: list[Argument] = ["zstd", "-19", "--threads=1", "--quiet", "--rm", archive, "-o", target]
    tools.run(zstd, writes=[target.parent], explain="compress the initramfs")
    listing.unlink()
    size = target.stat().st_size
    if size > MAX_BYTES:
        text = f"the initramfs is {size} bytes, more than the {MAX_BYTES} that a quick start allows"
        raise MamoriError(text, "name fewer modules in board.toml")
