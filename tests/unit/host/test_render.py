import re
from pathlib import Path

import pytest

from firmware.layout import PARTITION_TYPES
from firmware.recipe import ROOT, board_names, read_image, recipe_names
from firmware.render import TEMPLATES, render_image, write_rendered
from mamori.formats.problems import MamoriError
from tests.support.recipes import APPLIANCE, SOURCE, UTM, copy_recipes, edit

KERNEL = {"buildroot/linux.fragment"}
NETWORK = {f"rootfs/usr/lib/systemd/network/{name}" for name in ("10-bridge.netdev", "10-keep.link", "20-bridge.network")}
OPENS = "rootfs/usr/lib/systemd/system/mamori-inspect.service.d/50-open.conf"
PORTS = {f"rootfs/usr/lib/systemd/network/{name}" for name in ("20-lan.network", "20-wan.network")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return copy_recipes(tmp_path)


@pytest.mark.parametrize("board", board_names())
@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_renders_on_every_board_and_twice_the_same(name: str, board: str) -> None:
    files = render_image(read_image(name, SOURCE, board))
    assert files == render_image(read_image(name, SOURCE, board))
    assert files
    for file, text in files.items():
        assert text.endswith("\n") or not text, file
        assert not text.endswith("\n\n"), file
        assert re.search(r"{{|{%", text) is None, file


FACTS = {
    "the board's description": (UTM, "Generic UEFI box", "Special UEFI box", set()),
    "the console": (UTM, "ttyS0,115200", "ttyS1,57600", {"cmdline"} | KERNEL),
    "a port's driver": (UTM, '"e1000e", ', "", KERNEL),
    "a port's driver with firmware": (UTM, ', "r8169"', "", {"buildroot/defconfig"} | KERNEL),
    "the debian kernel": (UTM, "[kernel]", '[kernel]\ndebian_package = "linux-image-cloud-amd64"', {"debian/prepare.sh"}),
    "a disk's driver": (UTM, '"nvme", ', "", KERNEL),
    "the watchdog": (UTM, 'module = "iTCO_wdt"', 'module = "i6300esb"', KERNEL),
    "the watchdog's bus": (UTM, '"lpc_ich", ', "", KERNEL),
    "the watchdog's time": (UTM, "timeout_s = 60", "timeout_s = 90", {"rootfs/usr/lib/systemd/system.conf.d/50-watchdog.conf"}),
    "the ports": (UTM, "wan = 0\nlan = 1", "wan = 1\nlan = 0", {"initramfs/init"}),
    "the size of the disk": (UTM, "size_mib = 7168", "size_mib = 7169", {"genimage.cfg"}),
    "the size of data": (UTM, "size_mib = 1024", "size_mib = 1028", {"genimage.cfg", "rootfs/usr/lib/repart.d/50-data.conf"}),
    "the place of data": (UTM, "start_mib = 3396", "start_mib = 3400", {"genimage.cfg"}),
    "the bridge's name": (APPLIANCE, "", '\n[bridge]\nname = "bridge7"\n', {"initramfs/init"} | NETWORK | PORTS),
    "what the bridge does early": (APPLIANCE, "", '\n[bridge]\nearly = "closed"\n', {"initramfs/init", OPENS} | PORTS),
    "the appliance's own address": (
        APPLIANCE,
        "",
        '\n[management]\naddress = "static"\ncidr = "192.0.2.2/24"\n',
        {"rootfs/usr/lib/systemd/network/20-bridge.network"},
    ),
}


@pytest.mark.parametrize(("file", "old", "new", "speak_of_it"), FACTS.values(), ids=FACTS)
def test_changes_every_file_that_speaks_of_it_and_no_other(
    root: Path, file: str, old: str, new: str, speak_of_it: set[str]
) -> None:
    before = render_image(read_image("appliance", SOURCE, root=root), root)
    edit(root, file, old, new)
    after = render_image(read_image("appliance", SOURCE, root=root), root)
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == speak_of_it


def test_the_size_of_the_slots_changes_the_disk_and_what_a_bundle_may_weigh(root: Path) -> None:
    before = render_image(read_image("appliance", SOURCE, root=root), root)
    for _slot in ("a", "b"):
        edit(root, UTM, "size_mib = 128 }", "size_mib = 120 }")
    after = render_image(read_image("appliance", SOURCE, root=root), root)
    assert {name for name in before if before[name] != after[name]} == {"genimage.cfg", "rootfs/etc/rauc/system.conf"}


@pytest.mark.parametrize("partition", PARTITION_TYPES)
def test_no_file_that_people_write_holds_a_partitions_identifier(partition: str) -> None:
    found = {layout[partition].uuid for layout in (read_image("lab", SOURCE, board).layout for board in board_names())}
    written = [path for folder in (TEMPLATES.parent, "board", "overlay") for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert [path for path in written if any(identifier in path.read_text(errors="replace").lower() for identifier in found)] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ board.consle }}", "has no attribute 'consle'"),
        ("{{ consle }}", "'consle' is undefined"),
        ("{{ layout['root-c'].uuid }}", "has no attribute 'root-c'"),
        ("{% if board.consle %}{% endif %}", "has no attribute 'consle'"),
        ("{% if %}", "Expected an expression"),
        ('{% include "nowhere" %}', "nowhere"),
    ],
)
def test_a_mistake_in_a_template_names_the_template(root: Path, text: str, says: str) -> None:
    (root / TEMPLATES / "rootfs/etc/broken.j2").write_text(text)
    with pytest.raises(MamoriError) as error:
        render_image(read_image("lab", SOURCE, root=root), root)
    assert str(error.value).startswith("image-recipes/templates/rootfs/etc/broken.j2: ")
    assert says in str(error.value)


def test_a_module_that_nobody_knows_how_to_build_is_an_error(root: Path) -> None:
    edit(root, UTM, '"igb"', '"tg3"')
    with pytest.raises(MamoriError, match=r"buildroot/linux\.fragment\.j2: .*'tg3'"):
        render_image(read_image("appliance", SOURCE, root=root), root)


def test_fragments_that_others_include_are_no_files_of_their_own() -> None:
    assert [name for name in render_image(read_image("lab", SOURCE)) if re.search(r"(^|/)_", name)] == []


def test_a_folder_of_rendered_files_holds_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "rendered"
    write_rendered({"old": "", "initramfs/init": "#!/bin/sh\n"}, folder)
    write_rendered({"a/b": "text\n", "initramfs/init": "#!/bin/sh\n"}, folder)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {"a/b", "initramfs/init"}
    assert (folder / "a/b").read_text() == "text\n"
    assert [oct((folder / name).stat().st_mode & 0o777) for name in ("a/b", "initramfs/init")] == ["0o644", "0o755"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_was_rendered_stays_until_the_new_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "rendered"
    write_rendered({"kept": "old\n"}, folder)
    with pytest.raises(FileExistsError):
        write_rendered({"half": "", "kept": "new\n", "kept/impossible": ""}, folder)
    assert (folder / "kept").read_text() == "old\n"
    write_rendered({"kept": "new\n"}, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"kept": "new\n"}
