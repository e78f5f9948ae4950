import dataclasses
import typing
from pathlib import Path

import pytest

from firmware.recipe import Address, UpdatePolicy, board_names, read_image, recipe_names
from mamori.formats import bootstate
from mamori.formats.problems import BadInputError, MamoriError
from mamori.formats.release import Base, EarlyBridge, Variant
from mamori.formats.strict import Between
from tests.support.recipes import APPLIANCE, LAB, QEMU, SOURCE, UTM, copy_recipes, edit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return copy_recipes(tmp_path)


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("board", ["", *board_names()])
def test_every_recipe_of_the_repository_describes_an_image_on_every_board(name: str, board: str) -> None:
    image = read_image(name, SOURCE, board)
    assert image.board_name == board or image.recipe.board
    assert image.version == SOURCE.version


def test_the_three_recipes_are_what_the_architecture_says() -> None:
    lab, appliance, emulated = (read_image(name, SOURCE).recipe for name in ("lab", "appliance", "appliance-qemu"))
    assert (lab.board, lab.base, lab.variant) == ("qemu-x86_64", Base.DEBIAN, Variant.LAB)
    assert (appliance.board, appliance.base, appliance.variant) == ("utm-x86_64", Base.BUILDROOT, Variant.RELEASE)
    assert (emulated.board, emulated.base) == ("qemu-x86_64", Base.BUILDROOT)
    assert appliance.signing.keyset != lab.signing.keyset


def test_what_a_recipe_leaves_out_has_a_default() -> None:
    recipe = read_image("lab", SOURCE).recipe
    assert (recipe.bridge.early, recipe.bridge.name) == (EarlyBridge.FORWARD, "br0")
    assert (recipe.management.address, recipe.management.cidr) == (Address.DHCP, None)
    assert recipe.update.tries == 3


def test_an_image_on_a_foreign_board_has_its_own_name_and_its_own_bundles() -> None:
    own, foreign = read_image("lab", SOURCE), read_image("lab", SOURCE, "utm-x86_64")
    assert (own.label, foreign.label) == ("lab", "lab-utm-x86_64")
    assert (own.compatible, foreign.compatible) == ("mamori-qemu-x86_64-lab", "mamori-utm-x86_64-lab")
    assert read_image("appliance", SOURCE).compatible == "mamori-utm-x86_64-release"


def test_a_recipe_asks_for_no_more_tries_than_the_boot_state_can_count() -> None:
    annotation = typing.get_type_hints(UpdatePolicy, include_extras=True)["tries"]
    (limit,) = (limit for limit in annotation.__metadata__ if isinstance(limit, Between))
    assert (limit.low, limit.high) == (2, bootstate.MAX_TRIES)


def test_a_static_address_may_be_of_either_family(root: Path) -> None:
    edit(root, LAB, "", '\n[management]\naddress = "static"\ncidr = "2001:db8::2/64"\ngateway = "fe80::1"\n')
    assert read_image("lab", SOURCE, root=root).recipe.management.gateway == "fe80::1"


REFUSED = {
    "an unknown board": (LAB, "qemu-x86_64", "qemu-x86-64", ["lab.toml: board: expected one of", "did you mean `qemu-x86_64`?"]),
    "a board like nothing there is": (
        LAB,
        "qemu-x86_64",
        "zzz",
        ["lab.toml: board:", "a new board is the file board/zzz/board.toml"],
    ),
    "a board outside the folder": (LAB, "qemu-x86_64", "../board", ["lab.toml: board: expected a name of lower-case letters"]),
    "an unknown key": (LAB, "variant", "varient", ["lab.toml: varient:", "did you mean `variant`?", "variant: expected one of"]),
    "an unknown table": (LAB, "", "\n[updates]\ntries = 3\n", ["lab.toml: updates:", "did you mean `update`?"]),
    "an unknown base": (LAB, "debian", "debain", ["lab.toml: base: expected one of buildroot, debian", "did you mean `debian`?"]),
    "a number for a name": (LAB, '"debian"', "13", ["lab.toml: base: expected one of buildroot, debian, got 13"]),
    "no tries": (LAB, "", "\n[update]\ntries = 0\n", ["lab.toml: update.tries: expected 2 to 9, got 0"]),
    "a single try": (LAB, "", "\n[update]\ntries = 1\n", ["lab.toml: update.tries: expected 2 to 9, got 1"]),
    "true for a number": (LAB, "", "\n[update]\ntries = true\n", ["lab.toml: update.tries: expected an integer, got true"]),
    "no TOML": (LAB, "board =", "board", ["lab.toml: (syntax): expected TOML"]),
    "static without an address": (
        LAB,
        "",
        '\n[management]\naddress = "static"\n',
        ["lab.toml: management.cidr: expected an address, because", "got nothing"],
    ),
    "an address with DHCP": (LAB, "", '\n[management]\ncidr = "192.0.2.2/24"\n', ["lab.toml: management: expected no cidr"]),
    "an address that is none": (
        LAB,
        "",
        '\n[management]\naddress = "static"\ncidr = "192.0.2.256/24"\n',
        ["lab.toml: management.cidr:", "192.0.2.256/24"],
    ),
    "a prefix that is too long": (
        LAB,
        "",
        '\n[management]\naddress = "static"\ncidr = "192.0.2.2/33"\n',
        ["lab.toml: management.cidr:", "192.0.2.2/33"],
    ),
    "a network for an address": (
        LAB,
        "",
        '\n[management]\naddress = "static"\ncidr = "192.0.2.0/24"\n',
        ["lab.toml: management.cidr:", "192.0.2.0/24"],
    ),
    "a gateway that is no address": (
        LAB,
        "",
        '\n[management]\naddress = "static"\ncidr = "192.0.2.2/24"\ngateway = "192.0.2"\n',
        ["lab.toml: management.gateway:", "192.0.2"],
    ),
    "a gateway out of reach": (
        LAB,
        "",
        '\n[management]\naddress = "static"\ncidr = "192.0.2.2/24"\ngateway = "198.51.100.1"\n',
        ["lab.toml: management.gateway: expected an address in 192.0.2.0/24, got 198.51.100.1"],
    ),
    "a bridge name that Linux would cut": (
        LAB,
        "",
        '\n[bridge]\nname = "bridge-of-the-office"\n',
        ["lab.toml: bridge.name: expected an interface name of at most 15"],
    ),
    "a bridge that is called like a port": (LAB, "", '\n[bridge]\nname = "wan"\n', ["lab.toml: bridge.name:", "'wan'"]),
    "a release on the lab's base": (
        APPLIANCE,
        '"buildroot"',
        '"debian"',
        ["appliance.toml: base: expected `buildroot` for variant release"],
    ),
    "overlapping partitions": (
        QEMU,
        "boot-a = { start_mib = 44",
        "boot-a = { start_mib = 40",
        ["disk.partitions.boot-a.start_mib: expected at least 44, where bootstate ends, got 40", "boot-a overlaps bootstate"],
    ),
    "a partition over the partition table": (
        QEMU,
        "start_mib = 4,",
        "start_mib = 0,",
        ["disk.partitions.esp.start_mib: expected 1 to"],
    ),
    "a partition off the erase blocks": (
        QEMU,
        "data = { start_mib = 1708",
        "data = { start_mib = 1710",
        ["disk.partitions.data.start_mib: expected a multiple of 4"],
    ),
    "data that is not last": (
        QEMU,
        "data = { start_mib = 1708, size_mib = 512 }",
        "data = { start_mib = 80, size_mib = 4 }",
        ["disk.partitions.data: expected the last partition, because it grows, got root-b after it"],
    ),
    "slots of different sizes": (
        QEMU,
        "root-b = { start_mib = 940, size_mib = 768",
        "root-b = { start_mib = 940, size_mib = 764",
        ["disk.partitions.root-b.size_mib: expected 768, the size of root-a, got 764", "a bundle fits either slot"],
    ),
    "a disk that is too small": (
        QEMU,
        "size_mib = 2560",
        "size_mib = 2220",
        ["disk.size_mib: expected at least 2221 for", "got 2220"],
    ),
    "a missing partition": (
        QEMU,
        "esp = {",
        "# esp = {",
        ["disk.partitions.esp: expected a table with start_mib and size_mib, got nothing"],
    ),
    "an unknown partition": (
        QEMU,
        "esp = {",
        "efi = {",
        ["disk.partitions.efi: expected one of esp, bootstate", "partitions.esp:"],
    ),
    "one interface for both ports": (
        QEMU,
        "lan = 1",
        "lan = 0",
        ["board.toml: ports.lan: expected another interface than ports.wan (0)"],
    ),
    "another architecture": (QEMU, '"x86_64"', '"armv7"', ["board.toml: arch: expected `x86_64`"]),
    "a module written with a hyphen": (
        QEMU,
        "virtio_net",
        "virtio-net",
        ["board.toml: kernel.port_modules[1]: expected a kernel module's"],
    ),
    "a watchdog that never bites": (
        QEMU,
        "timeout_s = 60",
        "timeout_s = 0",
        ["board.toml: watchdog.timeout_s: expected 10 to 600, got 0"],
    ),
}


@pytest.mark.parametrize(("file", "old", "new", "says"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_by_name(root: Path, file: str, old: str, new: str, says: list[str]) -> None:
    edit(root, file, old, new)
    before = sorted(root.rglob("*"))
    with pytest.raises(BadInputError) as refusal:
        read_image("appliance" if file == APPLIANCE else "lab", SOURCE, root=root)
    for words in says:
        assert words in str(refusal.value)
    assert sorted(root.rglob("*")) == before


def test_everything_that_is_wrong_is_told_at_once(root: Path) -> None:
    edit(root, LAB, "", '\n[update]\ntries = 0\nchanel = "beta"\n')
    edit(root, QEMU, "boot-a = { start_mib = 44", "boot-a = { start_mib = 40")
    edit(root, QEMU, "size_mib = 2560", "size_mib = 2220")
    edit(root, QEMU, "lan = 1", "lan = 0")
    with pytest.raises(BadInputError) as refusal:
        read_image("lab", SOURCE, root=root)
    told = {(problem.source, problem.key) for problem in refusal.value.problems}
    assert told == {
        (LAB, "update.tries"),
        (LAB, "update.chanel"),
        (QEMU, "disk.partitions.boot-a.start_mib"),
        (QEMU, "disk.size_mib"),
        (QEMU, "ports.lan"),
    }


@pytest.mark.parametrize(
    ("name", "board", "says"),
    [
        (
            "labb",
            "",
            "command line: recipe: expected one of appliance, appliance-qemu, lab, got 'labb'\n    hint: did you mean `lab`?",
        ),
        ("router", "", "a new recipe is the file image-recipes/router.toml"),
        ("../lab", "", "command line: recipe: expected one of"),
        ("lab", "utm", "--board: board: expected one of qemu-x86_64, utm-x86_64, got 'utm'"),
        ("labb", "qemu", "--board: board: expected one of"),
    ],
)
def test_names_on_the_command_line_are_checked(root: Path, name: str, board: str, says: str) -> None:
    with pytest.raises(BadInputError) as refusal:
        read_image(name, SOURCE, board, root)
    assert says in str(refusal.value)


def test_a_recipe_that_cannot_be_read_says_why(root: Path) -> None:
    (root / LAB).unlink()
    (root / LAB).mkdir()
    with pytest.raises(MamoriError, match=r"lab\.toml: cannot be read: Is a directory"):
        read_image("lab", SOURCE, root=root)


def test_an_image_is_a_value(root: Path) -> None:
    image = read_image("lab", SOURCE, root=root)
    assert image == read_image("lab", SOURCE, root=root)
    with pytest.raises(dataclasses.FrozenInstanceError):
        image.name = "other"  # type: ignore[misc]
    edit(root, UTM, "timeout_s = 60", "timeout_s = 61")
    assert image == read_image("lab", SOURCE, root=root)
    edit(root, QEMU, "timeout_s = 60", "timeout_s = 61")
    assert image != read_image("lab", SOURCE, root=root)
