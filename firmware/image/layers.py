"""What lies over a base: overlay, users, facts of this image, and the anchors that it trusts.

Two layers, because they change at different times: `overlay` with the sources, `facts` with every version. The facts go
last, behind the app.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from firmware.bases import BaseTree
from firmware.cache import Artifact, tree_sha256
from firmware.image import tar
from firmware.image.tar import add_text, add_tree, new_tar, read_members
from firmware.recipe import PORTS, Image
from firmware.workspace import Tools, Workspace
from mamori.formats import release
from mamori.formats.release import Variant
from signing.anchors import Anchors

TAR = "layer.tar"
OVERLAY = Path("overlay")

_ACCOUNTS = ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow")
_SYSUSERS = "usr/lib/sysusers.d/mamori.conf"

_ANCHORS = "usr/lib/mamori/anchors"
_ROOTFS = "rootfs/"


def build_overlay(workspace: Workspace, tools: Tools, base: BaseTree, image: Image, epoch: int) -> Artifact:
    """Files copied verbatim, and the accounts that our units run under."""
    names = ["common", *(["lab"] if image.recipe.variant is Variant.LAB else [])]
    folders = [workspace.root / OVERLAY / name for name in names]
    inputs = {folder.name: tree_sha256(folder) for folder in folders}
    inputs |= {"base": base.artifact.digest, "tools": tools.digest, "epoch": str(epoch)}
    with workspace.console.step("overlay") as step:

        def make(folder: Path) -> None:
            of_base = read_members(base.rootfs_tar, _ACCOUNTS)
            accounts = _add_accounts(tools, of_base, folders[0] / _SYSUSERS, folder / "accounts", epoch)
            tree = folder / "tree"
            for overlay in folders:
                shutil.copytree(overlay, tree, symlinks=True, dirs_exist_ok=True)
            with new_tar(folder / TAR) as archive:
                add_tree(archive, tree, mtime=epoch)
                for name, content in accounts.items():
                    add_text(archive, name, content, mtime=epoch, mode=0o600 if "shadow" in name else 0o644)
            shutil.rmtree(tree)
            shutil.rmtree(folder / "accounts")

        return workspace.cache.step("overlay", inputs, make, code=(__file__, tar.__file__), on_hit=step.cached)


def build_facts(workspace: Workspace, image: Image, rendered: Mapping[str, str], anchors: Anchors, tuf_root: bytes) -> Artifact:
    """Rendered files of the root, the release file, and public anchors: what says which image this is. `tuf_root` is the root
    metadata that the updater starts from."""
    texts: dict[str, str | bytes] = {}
    texts |= {name.removeprefix(_ROOTFS): text for name, text in rendered.items() if name.startswith(_ROOTFS)}
    texts["usr/lib/mamori/release.json"] = release.encode(describe_release(image, anchors))
    texts[f"{_ANCHORS}/bundle.pem"] = anchors.rauc_keyring
    texts[f"{_ANCHORS}/tuf-root.json"] = tuf_root
    texts["usr/lib/clock-epoch"] = ""
    if image.recipe.variant is Variant.LAB and anchors.ssh:
        texts["etc/ssh/authorized_keys/root"] = f"{anchors.ssh}\n"
    inputs = {name: text if isinstance(text, str) else text.decode() for name, text in texts.items()}
    inputs["epoch"] = str(image.source.epoch)
    with workspace.console.step("facts") as step:

        def make(folder: Path) -> None:
            with new_tar(folder / TAR) as archive:
                for name, text in sorted(texts.items()):
                    add_text(archive, name, text, mtime=image.source.epoch)

        return workspace.cache.step("facts", inputs, make, code=(__file__, tar.__file__), on_hit=step.cached)


def describe_release(image: Image, anchors: Anchors) -> release.Release:
    """What the image says of itself."""
    trusted = [("secure-boot-pk", anchors.pk), ("secure-boot-kek", anchors.kek), ("secure-boot-db", anchors.db)]
    trusted += [(f"bundle-ca-{number}", ca) for number, ca in enumerate(anchors.bundle, start=1)]
    return release.Release(
        product="Mamori",
        version=image.version,
        recipe=image.name,
        board=image.board_name,
        base=image.recipe.base,
        variant=image.recipe.variant,
        build_time=image.source.epoch,
        source_commit=image.source.commit + ("-dirty" if image.source.dirty else ""),
        features=(),
        update=release.Update(image.compatible),
        early_bridge=image.recipe.bridge.early,
        bridge=release.Bridge(image.recipe.bridge.name, PORTS),
        anchors=tuple(release.Anchor(role, certificate.subject, certificate.fingerprint) for role, certificate in trusted),
    )


def _add_accounts(tools: Tools, accounts: Mapping[str, bytes], sysusers: Path, work: Path, epoch: int) -> dict[str, bytes]:
    """The base's account files with our users added, by systemd-sysusers itself."""
    (work / "etc").mkdir(parents=True)
    for name, content in accounts.items():
        (work / name).write_bytes(content)
    argv = ["systemd-sysusers", f"--root={work}", str(sysusers)]
    tools.run(argv, reads=[sysusers], writes=[work], env={"SOURCE_DATE_EPOCH": str(epoch)}, explain="add our users")
    return {name: (work / name).read_bytes() for name in _ACCOUNTS}
