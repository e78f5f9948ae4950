"""Recipes, boards and the image that they describe together: TOML in, frozen values out, every error at once.

A recipe says what an image is; a board says what the hardware is; `Image` is the two with a version, checked against
each other. Nothing after this module reads TOML.
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from firmware.layout import Layout, PartitionSpec, plan_layout
from firmware.version import Source
from mamori.formats.bootstate import DEFAULT_TRIES, MAX_TRIES
from mamori.formats.problems import BadInputError, Problem
from mamori.formats.release import Base as BaseKind
from mamori.formats.release import EarlyBridge, Variant
from mamori.formats.strict import Between, Matches, parse, read_toml

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
RECIPES = Path("image-recipes")
BOARDS = Path("board")

PORTS = ("wan", "lan")
"""What the two bridged interfaces are called on every board, whatever the kernel calls them."""

RESERVED_INTERFACES = (*PORTS, "lo")
"""Names that the initramfs gives to the two ports, and the one that Linux has anyway."""

Name = Annotated[str, Matches(r"[a-z0-9][a-z0-9_-]{0,31}", "a name of lower-case letters, digits, `-` and `_`")]
ModuleName = Annotated[str, Matches(r"[A-Za-z0-9_]+", "a kernel module's name with `_` for `-`")]
PackageName = Annotated[str, Matches(r"[a-z0-9][a-z0-9+.-]+", "a Debian package's name")]
InterfaceName = Annotated[str, Matches(r"[a-z][a-z0-9]{0,14}", "an interface name of at most 15 characters")]


class Address(enum.Enum):
    """How the appliance gets its own management address."""

    DHCP = "dhcp"
    STATIC = "static"


class Channel(enum.Enum):
    STABLE = "stable"
    BETA = "beta"


@dataclass(frozen=True)
class BridgePolicy:
    """`name` is the bridge; its two ports are called `wan` and `lan` on every board."""

    early: EarlyBridge = EarlyBridge.FORWARD
    name: InterfaceName = "br0"


@dataclass(frozen=True)
class Management:
    """The appliance's own address on the bridge; `static` needs `cidr` and may name a `gateway`."""

    address: Address = Address.DHCP
    cidr: Annotated[str, Matches(r"[0-9A-Fa-f.:]+/\d{1,3}", "an address with prefix length, like 192.0.2.2/24")] | None = None
    gateway: Annotated[str, Matches(r"[0-9A-Fa-f.:]+", "an address")] | None = None


@dataclass(frozen=True)
class UpdatePolicy:
    """`tries` is how often a trial slot may be started: at least 2, because an owner may pull the plug twice."""

    channel: Channel = Channel.STABLE
    tries: Annotated[int, Between(2, MAX_TRIES)] = DEFAULT_TRIES


@dataclass(frozen=True)
class Signing:
    """`keyset` is relative to the repository and ignored by git."""

    keyset: str = "keys/development/keyset.toml"


@dataclass(frozen=True)
class DebianOptions:
    """`packages` come on top of what every image needs (`firmware.bases.debian`)."""

    packages: tuple[PackageName, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """One file of `image-recipes/`."""

    description: str
    board: Name
    base: BaseKind
    variant: Variant
    bridge: BridgePolicy = field(default_factory=BridgePolicy)
    management: Management = field(default_factory=Management)
    update: UpdatePolicy = field(default_factory=UpdatePolicy)
    signing: Signing = field(default_factory=Signing)
    debian: DebianOptions = field(default_factory=DebianOptions)


@dataclass(frozen=True)
class Kernel:
    """Modules that the initramfs loads, in this order; what the kernel has built in is left out.

    Ports come first of all, so that the bridge is up before a disk is even looked for.
    """

    port_modules: tuple[ModuleName, ...]
    storage_modules: tuple[ModuleName, ...]
    debian_package: PackageName = "linux-image-amd64"


@dataclass(frozen=True)
class Watchdog:
    """A hardware watchdog that the initramfs arms and systemd keeps feeding; `bus_modules` make the device appear."""

    module: ModuleName
    bus_modules: tuple[ModuleName, ...] = ()
    timeout_s: Annotated[int, Between(10, 600)] = 60


@dataclass(frozen=True)
class Ports:
    """Which network interface is which, counted in PCI order from 0."""

    wan: Annotated[int, Between(0, 15)] = 0
    lan: Annotated[int, Between(0, 15)] = 1


@dataclass(frozen=True)
class Disk:
    """`size_mib` is the smallest disk that this board has; partitions are placed by hand so that they never move."""

    size_mib: Annotated[int, Between(64, 1 << 21)]
    partitions: Mapping[str, PartitionSpec]


@dataclass(frozen=True)
class Qemu:
    """How this board is emulated; a board without it cannot be booted with `./inv boot`."""

    machine: str
    cpu: str
    nic: str
    disk: str
    watchdog: str
    memory_mib: Annotated[int, Between(256, 65536)] = 1024
    cpus: Annotated[int, Between(1, 64)] = 2


@dataclass(frozen=True)
class Board:
    """One `board/NAME/board.toml`."""

    description: str
    arch: Annotated[str, Matches(r"x86_64", "`x86_64` (the only architecture with a boot chain so far)")]
    console: Annotated[str, Matches(r"tty[A-Za-z0-9]+(,[0-9]+)?", "a kernel console, like ttyS0,115200")]
    kernel: Kernel
    disk: Disk
    watchdog: Watchdog
    ports: Ports = field(default_factory=Ports)
    qemu: Qemu | None = None


@dataclass(frozen=True)
class Image:
    """A recipe on a board at a version: everything that the build needs to know, and nothing that it may change."""

    name: str
    board_name: str
    recipe: Recipe
    board: Board
    layout: Layout
    source: Source

    @property
    def version(self) -> str:
        return self.source.version

    @property
    def compatible(self) -> str:
        """What a bundle must say to be taken by this appliance (RAUC `compatible`)."""
        return f"mamori-{self.board_name}-{self.recipe.variant.value}"

    @property
    def label(self) -> str:
        """Name of the image in paths and file names; a foreign board shows."""
        return self.name if self.board_name == self.recipe.board else f"{self.name}-{self.board_name}"


def read_image(name: str, source: Source, board: str = "", root: Path = ROOT) -> Image:
    """The image that recipe `name` describes, on its own board or on `board`.

    BadInputError names everything that is wrong with the recipe and the board together; `source` is the state of the
    checkout (`firmware.version.read_source`).
    """
    problems: list[Problem] = []
    recipe_file = RECIPES / f"{name}.toml"
    table, recipe = _read(Recipe, root, recipe_file, _Choice("recipe", name, recipe_names(root), "command line"), problems)
    board_name = board or table.get("board")  # a recipe with a mistake elsewhere still says which board to look at
    if not isinstance(board_name, str):
        raise BadInputError(problems)
    board_choice = _Choice("board", board_name, board_names(root), "--board" if board else str(recipe_file))
    _, hardware = _read(Board, root, BOARDS / board_name / "board.toml", board_choice, problems)
    layout = None
    if hardware:
        layout = plan_layout(board_name, hardware.disk.size_mib, hardware.disk.partitions, _board_file(board_name), problems)
        problems += _check_board(hardware, _board_file(board_name))
    if recipe:
        problems += _check_recipe(recipe, str(recipe_file))
    if problems or recipe is None or hardware is None or layout is None:
        raise BadInputError(problems)
    return Image(name, board_name, recipe, hardware, layout, source)


def recipe_names(root: Path = ROOT) -> list[str]:
    return sorted(path.stem for path in (root / RECIPES).glob("*.toml"))


def board_names(root: Path = ROOT) -> list[str]:
    return sorted(path.parent.name for path in (root / BOARDS).glob("*/board.toml"))


def _board_file(name: str) -> str:
    return str(BOARDS / name / "board.toml")


@dataclass(frozen=True)
class _Choice:
    """A file that someone named: what kind it is, the name, the names that exist, and where it was asked for."""

    kind: str
    name: str
    known: list[str]
    asked_in: str


def _read(schema: type[T], root: Path, path: Path, choice: _Choice, problems: list[Problem]) -> tuple[dict[str, Any], T | None]:
    """The file's table and what it says as a `schema`, None with every reason in `problems`."""
    if choice.name not in choice.known:
        close = difflib.get_close_matches(choice.name, choice.known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"a new {choice.kind} is the file {path}"
        problems.append(Problem(choice.asked_in, choice.kind, f"one of {', '.join(choice.known)}", repr(choice.name), hint))
        return {}, None
    table: dict[str, Any] = {}
    try:
        table = read_toml(root / path, str(path))
        return table, parse(schema, table, str(path))
    except BadInputError as error:
        problems.extend(error.problems)
        return table, None


def _check_recipe(recipe: Recipe, file: str) -> list[Problem]:
    problems = _check_management(recipe.management, file)
    if recipe.bridge.name in RESERVED_INTERFACES:
        problems.append(
            Problem(file, "bridge.name", f"another name than {', '.join(RESERVED_INTERFACES)}", repr(recipe.bridge.name))
        )
    if recipe.variant is Variant.RELEASE and recipe.base is BaseKind.DEBIAN:
        problems.append(Problem(file, "base", "`buildroot` for variant release", "'debian'", "the debian base is for the lab"))
    return problems


def _check_management(management: Management, file: str) -> list[Problem]:
    if management.address is Address.DHCP:
        if management.cidr or management.gateway:
            return [Problem(file, "management", "no cidr and no gateway, because management.address is dhcp", "one of them")]
        return []
    if management.cidr is None:
        return [Problem(file, "management.cidr", "an address, because management.address is static", "nothing")]
    try:
        own = ipaddress.ip_interface(management.cidr)
    except ValueError as error:
        return [Problem(file, "management.cidr", "an address with prefix length, like 192.0.2.2/24", str(error))]
    if own.ip == own.network.network_address and own.network.num_addresses > 2:
        return [Problem(file, "management.cidr", "the address of one machine", f"the network {management.cidr}")]
    if management.gateway is None:
        return []
    try:
        gateway = ipaddress.ip_address(management.gateway)
    except ValueError as error:
        return [Problem(file, "management.gateway", "an address, like 192.0.2.1", str(error))]
    if gateway in own.network or (gateway.version == own.version == 6 and gateway.is_link_local):
        return []
    return [Problem(file, "management.gateway", f"an address in {own.network}", management.gateway)]


def _check_board(board: Board, file: str) -> list[Problem]:
    if board.ports.wan == board.ports.lan:
        return [Problem(file, "ports.lan", f"another interface than ports.wan ({board.ports.wan})", str(board.ports.lan))]
    return []
