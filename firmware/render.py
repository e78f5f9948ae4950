"""Everything that is written from facts: recipe, board and layout in, files out.

Templates lie under `image-recipes/templates/` in groups. A group's path below its name is the path of the rendered
file: `rootfs/etc/fstab.j2` becomes `rootfs/etc/fstab`. Rendering is pure and strict: an unknown name is an error, the
same image gives the same bytes.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2

from firmware.layout import NAMESPACE, SLOTS
from firmware.recipe import PORTS, ROOT, Address, Image
from mamori.formats import bootstate
from mamori.formats.problems import MamoriError
from mamori.formats.release import EarlyBridge, Variant

TEMPLATES = Path("image-recipes/templates")

_EXECUTABLE = ("initramfs/init",)


def render_image(image: Image, root: Path = ROOT) -> Mapping[str, str]:
    """Every rendered file of `image`: path below `rendered/` to text."""
    templates = root / TEMPLATES
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - shell, TOML and Kconfig, never HTML
    )
    names = sorted(path.relative_to(templates).as_posix() for path in templates.rglob("*.j2"))
    facts = _facts(image)
    files = {}
    for name in names:
        if "/_" in f"/{name}":
            continue  # a fragment that others include
        try:
            text = environment.get_template(name).render(facts)
        except jinja2.TemplateError as error:
            raise MamoriError(f"{TEMPLATES / name}: {error}") from error
        if text.strip():  # a file that this image has no use for renders to nothing
            files[name.removesuffix(".j2")] = text
    return MappingProxyType(files)


def write_rendered(files: Mapping[str, str], folder: Path) -> None:
    """Put rendered files into `folder`, which afterwards holds nothing else; the old content stays until all is written."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for name, text in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in _EXECUTABLE else 0o644)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _facts(image: Image) -> Mapping[str, Any]:
    """What templates may speak of; a name here is the same word as the field and the TOML key."""
    return {
        "image": image,
        "recipe": image.recipe,
        "board": image.board,
        "layout": image.layout,
        "slots": SLOTS,
        "ports": PORTS,
        "bootstate": bootstate,
        "lab": image.recipe.variant is Variant.LAB,
        "early_forward": image.recipe.bridge.early is EarlyBridge.FORWARD,
        "dhcp": image.recipe.management.address is Address.DHCP,
        "hash_id": lambda name: str(uuid.uuid5(NAMESPACE, name)),
    }
