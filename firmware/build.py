"""The build, as a table of contents: a recipe goes in, a signed release folder comes out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from firmware.bases import Base, BaseTree
from firmware.bases.buildroot import BuildrootBase, given_tree
from firmware.bases.debian import DebianBase
from firmware.bundle import BUNDLE, build_bundle
from firmware.cache import Artifact
from firmware.image.app import TAR as APP_TAR
from firmware.image.app import build_app
from firmware.image.boot import build_boot_loader, build_uki
from firmware.image.disk import DISK, build_boot_fat, build_disk, compress_disk
from firmware.image.initramfs import build_initramfs
from firmware.image.layers import TAR as LAYER_TAR
from firmware.image.layers import build_facts, build_overlay
from firmware.image.root import Root, build_root
from firmware.lock import Lock, check_drift, read_lock
from firmware.publish import publish
from firmware.recipe import Image, read_image
from firmware.render import render_image, write_rendered
from firmware.repository.anchor import prepare_anchor
from firmware.sign import Signer, prepare_keyset
from firmware.toolstree import TREE_NAME, prepare_tools, tools_packages
from firmware.version import read_source
from firmware.workspace import Tools, Workspace
from mamori.formats.problems import MamoriError
from mamori.formats.release import Base as BaseKind
from signing.anchors import read_anchors


@dataclass(frozen=True)
class Built:
    """A finished build: `folder` is what leaves the house, the rest is what it was made of."""

    image: Image
    folder: Path
    rendered: Mapping[str, str]
    tools: Tools
    signer: Signer
    base: BaseTree
    root: Root
    initramfs: Artifact
    uki: Artifact
    loader: Artifact
    disk_image: Artifact
    bundle_image: Artifact

    @property
    def disk(self) -> Path:
        """The whole disk, uncompressed and sparse. In the cache: copy it before you change it."""
        return self.disk_image / DISK

    @property
    def bundle(self) -> Path:
        return self.bundle_image / BUNDLE


def build_image(workspace: Workspace, recipe: str, board: str = "", buildroot: str = "") -> Built:
    """Build `recipe`, for its own board or for `board`; steps whose inputs did not change are taken from the cache.

    Everything that people can get wrong is checked before the first long step. MamoriError says what is wrong; the
    previous output stays as it is.
    """
    started = time.monotonic()
    image = read_image(recipe, read_source(workspace.root), board, workspace.root)
    rendered = render_image(image, workspace.root)
    lock = read_lock(workspace.root)
    base_maker = _base(workspace, image, lock, buildroot)
    missing = base_maker.missing(image)
    if missing:
        raise MamoriError("\n".join(missing))
    keyset = prepare_keyset(workspace, image)
    tuf_root = prepare_anchor(keyset, int(time.time()))
    with workspace.cache.locked(), _fixed_umask():
        folder = workspace.out / image.label / "rendered"
        write_rendered(rendered, folder)
        tools = prepare_tools(workspace, lock)
        signer = Signer(keyset, read_anchors(keyset), tools)
        base = base_maker.build(image, folder)
        drift = check_drift(lock, workspace.console, image, {TREE_NAME: tools_packages(tools), base.lock_section: base.packages})
        epoch = image.source.epoch
        app = build_app(workspace, tools, base.python, epoch)
        overlay = build_overlay(workspace, tools, base, image, epoch)
        facts = build_facts(workspace, image, rendered, signer.anchors, tuf_root)
        layers = {base.rootfs_tar: base.artifact, overlay / LAYER_TAR: overlay, app / APP_TAR: app, facts / LAYER_TAR: facts}
        root = build_root(workspace, tools, image, layers)
        initramfs = build_initramfs(workspace, tools, base, image, rendered["initramfs/init"], epoch)
        uki = build_uki(workspace, tools, signer, base, initramfs, root, rendered)
        loader = build_boot_loader(workspace, tools, signer, rendered)
        boot = build_boot_fat(workspace, tools, image, uki)
        disk = build_disk(workspace, tools, image, loader, boot, root, rendered)
        compressed = compress_disk(workspace, tools, disk)
        bundle = build_bundle(workspace, signer, image, boot, root, rendered)
        content = (tools.artifact, base.artifact, app, overlay, facts, root.artifact)
        steps = (*content, initramfs, uki, loader, boot, disk, compressed, bundle)
        released = publish(workspace, image, signer, base, steps, drift, started)
    return Built(image, released, rendered, tools, signer, base, root, initramfs, uki, loader, disk, bundle)


@contextmanager
def _fixed_umask() -> Iterator[None]:
    """Tools copy the modes of files into images; they must not depend on who builds."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def _base(workspace: Workspace, image: Image, lock: Lock, buildroot: str) -> Base:
    if image.recipe.base is BaseKind.BUILDROOT:
        return BuildrootBase(workspace, given_tree(buildroot))
    return DebianBase(workspace, lock)
