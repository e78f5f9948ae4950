"""A block decodes to a state or raises its one error; and what damage can do is no more than docs/boot-state.md §7 says."""

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from mamori.formats.bootstate import (
    BLOCK_BYTES,
    MAX_SEQUENCE,
    SECTOR_BYTES,
    SIGNATURE,
    VARIABLES,
    BootState,
    BootStateError,
    Slot,
    choose,
    decode,
    encode,
)


@st.composite
def states(draw: st.DrawFn) -> BootState:
    confirmed = draw(st.sampled_from(Slot))
    trial = draw(st.sampled_from([None, confirmed.other]))
    tries = draw(st.integers(0, 9)) if trial else 0
    return BootState(confirmed, trial, tries, draw(st.integers(0, MAX_SEQUENCE)))


def state_or_none(block: bytes) -> BootState | None:
    try:
        return decode(block)
    except BootStateError:
        return None


LINES = st.lists(
    st.sampled_from([*(f"{name}=".encode() for name in VARIABLES), b"a", b"none", b"1", b"\\", b"\n", b"#", b"=", b"\0"])
)


@given(st.binary(max_size=2 * BLOCK_BYTES))
def test_any_bytes_are_a_state_or_the_one_error(block: bytes) -> None:
    state = state_or_none(block)
    assert state is None or decode(encode(state)) == state


@given(LINES.map(b"".join))
@example(b"\\")
@example(b"x=" + b"\\" * 600)
def test_any_variables_in_a_block_are_a_state_or_the_one_error(lines: bytes) -> None:
    block = (SIGNATURE + lines).ljust(BLOCK_BYTES, b"#")
    state = state_or_none(block)
    if state:
        assert decode(encode(state)) == state


@given(states())
def test_a_state_survives_its_block(state: BootState) -> None:
    assert decode(encode(state)) == state


@given(st.lists(st.none() | st.binary(max_size=BLOCK_BYTES) | states().map(encode), max_size=2))
def test_choose_takes_a_valid_copy_whenever_there_is_one(copies: list[bytes | None]) -> None:
    valid = [state for state in (state_or_none(copy) for copy in copies if copy is not None) if state]
    chosen = choose(copies)
    assert (chosen in valid) if valid else chosen is None
    assert all((chosen.sequence, -chosen.tries) >= (state.sequence, -state.tries) for state in valid if chosen)


LONGEST_BYTES = encode(BootState(Slot.A, Slot.B, 9, MAX_SEQUENCE)).index(b"##")
"""After this many bytes any two blocks are alike."""


def flips(block: bytes) -> list[bytes]:
    """The block with each of its bits flipped alone."""
    return [block[:at] + bytes([block[at] ^ 1 << bit]) + block[at + 1 :] for at in range(len(block)) for bit in range(8)]


def test_a_flipped_bit_never_gives_another_slot() -> None:
    """§7.3, all 8192 bits of blocks with every digit: the same state, an error, or another number of the same length."""
    changed = set()
    for state in (
        BootState(Slot.A),
        BootState(Slot.B, sequence=987_654_321),
        *(BootState(Slot.A, Slot.B, n, 10 + n) for n in range(10)),
    ):
        for block in flips(encode(state)):
            found = state_or_none(block)
            if found and found != state:
                assert found == replace(state, tries=found.tries) or found == replace(state, sequence=found.sequence)
                assert len(str(found.sequence)) == len(str(state.sequence))
                changed.add((found.tries != state.tries, found.sequence != state.sequence))
    assert changed == {(True, False), (False, True)}, "the two kinds of damage that §7.3 tells of, and no third"


def next_states(state: BootState) -> list[BootState]:
    up = replace(state, sequence=min(state.sequence + 1, MAX_SEQUENCE))
    cleared = replace(up, trial=None, tries=0)
    spent = [replace(up, tries=state.tries - 1)] if state.tries else []
    return [
        cleared,
        replace(cleared, trial=state.confirmed.other, tries=3),
        replace(cleared, confirmed=state.confirmed.other),
        *spent,
    ]


@given(states())
@example(BootState(Slot.A, sequence=9))
@example(BootState(Slot.A, Slot.B, 1, 99))
def test_a_write_torn_at_any_byte_never_gives_a_slot_that_neither_state_named(old: BootState) -> None:
    """§7.2, for disks that do not even keep a sector whole: every prefix of the new block over the old one."""
    for new in next_states(old):
        before, after = encode(old), encode(new)
        for cut in range(len(SIGNATURE), LONGEST_BYTES):
            torn = state_or_none(after[:cut] + before[cut:])
            if torn:
                assert torn.confirmed in (old.confirmed, new.confirmed)
                assert torn.trial in (old.trial, new.trial)


@given(states(), st.integers(0, BLOCK_BYTES - 1))
def test_a_truncated_block_is_an_error(state: BootState, length: int) -> None:
    assert state_or_none(encode(state)[:length]) is None


@given(states(), states())
def test_a_write_torn_between_sectors_is_the_old_state_or_the_new_one(old: BootState, new: BootState) -> None:
    before, after = encode(old), encode(new)
    assert decode(after[:SECTOR_BYTES] + before[SECTOR_BYTES:]) == new
    assert decode(before[:SECTOR_BYTES] + after[SECTOR_BYTES:]) == old
