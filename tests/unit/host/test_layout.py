import itertools
import uuid
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.layout import ALIGNMENT_MIB, GPT_MIB, MIB, PARTITION_TYPES, Layout, PartitionSpec, plan_layout
from firmware.recipe import board_names, read_image
from mamori.formats.problems import Problem
from tests.support.recipes import SOURCE

LAYOUTS = {name: read_image("lab", SOURCE, name).layout for name in board_names()}


def plan(disk_size_mib: int, specs: Mapping[str, PartitionSpec]) -> tuple[Layout | None, list[Problem]]:
    problems: list[Problem] = []
    return plan_layout("box", disk_size_mib, specs, "board.toml", problems), problems


def specs_of(starts: list[int], sizes: list[int]) -> dict[str, PartitionSpec]:
    return {name: PartitionSpec(start, size) for name, start, size in zip(PARTITION_TYPES, starts, sizes, strict=True)}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_board_has_every_partition_in_the_order_of_its_number(layout: Layout) -> None:
    assert [partition.name for partition in layout.partitions] == list(PARTITION_TYPES)
    assert [partition.number for partition in layout.partitions] == [1, 2, 3, 4, 5, 6, 7]
    assert layout["root-b"].name == "root-b"
    with pytest.raises(KeyError, match="root-c"):
        layout["root-c"]


def test_no_two_partitions_of_all_boards_have_the_same_identifier() -> None:
    partitions = [partition for layout in LAYOUTS.values() for partition in layout.partitions]
    found = [layout.disk_uuid for layout in LAYOUTS.values()]
    found += [identifier for partition in partitions for identifier in (partition.uuid, partition.filesystem_uuid)]
    assert len(set(found)) == len(found) == len(LAYOUTS) * (1 + 2 * len(PARTITION_TYPES))
    assert all(str(uuid.UUID(identifier)) == identifier for identifier in found)


def test_identifiers_are_what_appliances_in_the_field_have() -> None:
    # Fixed for ever: boot loader, update and mount table of shipped boxes find their partitions by these.
    layout = LAYOUTS["utm-x86_64"]
    assert layout.disk_uuid == "49f11cf6-5826-5079-b493-463ad4db4d5d"
    assert {partition.name: partition.uuid for partition in layout.partitions} == {
        "esp": "3acdd8b3-15ea-57fb-813c-2af5e0cb8703",
        "bootstate": "43300e0e-6065-53d8-a5b9-8895cd75e457",
        "boot-a": "22febe73-dc7e-5449-9545-48a7aa90ee45",
        "root-a": "08be0d87-48c5-5932-af73-65865483c64c",
        "boot-b": "c75eef31-17de-5dd7-922e-785b22f394f4",
        "root-b": "377f364b-b2e0-5329-8cf9-16d337ba4570",
        "data": "dc42da39-90d6-5927-aa2d-a982f002f0c7",
    }


def test_both_slots_have_one_type_and_nothing_but_the_esp_is_discoverable() -> None:
    layout = LAYOUTS["qemu-x86_64"]
    assert layout["boot-a"].type_uuid == layout["boot-b"].type_uuid != layout["root-a"].type_uuid == layout["root-b"].type_uuid
    assert layout["esp"].type_uuid == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"  # UEFI specification, EFI System Partition


def test_fat_names_fit_into_a_fat() -> None:
    for partition in LAYOUTS["qemu-x86_64"].partitions:
        assert len(partition.fat_label) <= 11
        assert partition.fat_label == partition.fat_label.upper()
        assert 0 <= int(partition.fat_serial, 16) < 1 << 32
        assert len(partition.fat_serial) == 8


def test_sizes_and_places_are_bytes_too() -> None:
    partition = LAYOUTS["qemu-x86_64"]["bootstate"]
    assert (partition.start_bytes, partition.size_bytes) == (40 * MIB, 4 * MIB)


def test_a_disk_that_is_exactly_large_enough_is_accepted() -> None:
    specs = specs_of([4, 8, 12, 16, 20, 24, 28], [4] * 7)
    assert plan(33, specs)[0] is not None
    layout, problems = plan(32, specs)
    assert layout is None
    assert [str(problem) for problem in problems] == [
        "board.toml: disk.size_mib: expected at least 33 for these partitions, got 32"
    ]


def test_a_partition_inside_another_is_found_behind_a_third() -> None:
    # esp spans bootstate; boot-a starts after bootstate's end, but still inside esp.
    _, problems = plan(200, specs_of([4, 8, 12, 20, 24, 28, 32], [10, 4, 4, 4, 4, 4, 4]))
    overlaps = {problem.key: problem.hint for problem in problems}
    assert overlaps == {
        "disk.partitions.bootstate.start_mib": "bootstate overlaps esp",
        "disk.partitions.boot-a.start_mib": "boot-a overlaps esp",
    }


@st.composite
def sound_specs(draw: st.DrawFn) -> dict[str, PartitionSpec]:
    """Partitions in any order but `data`, with gaps between them or none."""
    slots = dict(zip(("boot", "root"), draw(st.tuples(st.integers(1, 9), st.integers(1, 9))), strict=True))
    specs, end_mib = {}, GPT_MIB
    for name in [*draw(st.permutations(list(PARTITION_TYPES)[:-1])), "data"]:
        start_mib = (-(-end_mib // ALIGNMENT_MIB) + draw(st.integers(0, 2))) * ALIGNMENT_MIB
        specs[name] = PartitionSpec(start_mib, slots.get(name.partition("-")[0], 3))
        end_mib = start_mib + specs[name].size_mib
    return specs


@given(sound_specs())
def test_whatever_is_sound_is_accepted_on_the_smallest_disk_that_holds_it(specs: dict[str, PartitionSpec]) -> None:
    size_mib = specs["data"].start_mib + specs["data"].size_mib + GPT_MIB
    layout, problems = plan(size_mib, specs)
    assert problems == []
    assert layout is not None
    _assert_sound(layout)
    assert plan(size_mib - 1, specs)[0] is None


@given(sound_specs(), st.sampled_from(list(PARTITION_TYPES)), st.integers(-9, 9), st.integers(-2, 9), st.integers(-2, 9))
def test_whatever_is_accepted_does_not_overlap_and_fits(
    specs: dict[str, PartitionSpec], moved: str, by_mib: int, longer_mib: int, spare_mib: int
) -> None:
    size_mib = specs["data"].start_mib + specs["data"].size_mib + GPT_MIB + spare_mib
    spec = specs[moved]
    specs[moved] = PartitionSpec(max(GPT_MIB, spec.start_mib + by_mib), max(1, spec.size_mib + longer_mib))
    layout, problems = plan(size_mib, specs)
    assert (layout is None) == bool(problems)
    if layout:
        _assert_sound(layout)


def _assert_sound(layout: Layout) -> None:
    placed = sorted(layout.partitions, key=lambda partition: partition.start_mib)
    assert placed[0].start_mib >= GPT_MIB
    for before, after in itertools.pairwise(placed):
        assert before.start_bytes + before.size_bytes <= after.start_bytes
    assert placed[-1].name == "data"
    assert placed[-1].start_mib + placed[-1].size_mib + GPT_MIB <= layout.disk_size_mib
    assert all(partition.start_mib % ALIGNMENT_MIB == 0 for partition in placed)
    for pair in ("boot", "root"):
        assert layout[f"{pair}-a"].size_mib == layout[f"{pair}-b"].size_mib
