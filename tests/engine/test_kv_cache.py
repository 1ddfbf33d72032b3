"""The KV arena: what it counts, and what it really takes from the system."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.engine import page_moves
from edgeai.engine.config import KVType, ModelShape
from edgeai.engine.kv_cache import GRANULE, KVArena, granules, reserve
from edgeai.errors import OutOfMemory

SMALL = ModelShape(vocab_size=1, num_layers=2, num_heads=2, num_kv_heads=2, head_size=16, context_length=512)
LARGE = ModelShape(vocab_size=1, num_layers=4, num_heads=4, num_kv_heads=2, head_size=64, context_length=4096)


def resident_bytes(arena: KVArena) -> int:
    """Bytes of the arena's pages that have memory behind them."""
    pages = (ctypes.c_ubyte * -(-arena.array.nbytes // mmap.PAGESIZE))()
    start = ctypes.c_void_p(arena.array.ctypes.data)
    if ctypes.CDLL(None, use_errno=True).mincore(start, ctypes.c_size_t(arena.array.nbytes), pages):
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


@given(st.integers(0, 100_000))
def test_granules_round_up(tokens: int) -> None:
    rounded = granules(tokens)
    assert rounded % GRANULE == 0
    assert 0 <= rounded - tokens < GRANULE


@pytest.mark.parametrize("context", [1, 63, 64, 65, 128, 500, 512, 1000, 2048, 4032, 4096, 8192])
def test_capacity_holds_the_context_and_is_no_power_of_two(context: int) -> None:
    arena = KVArena(SMALL, 1, context)
    assert arena.capacity >= context
    assert arena.capacity % GRANULE == 0
    assert arena.capacity.bit_count() > 1
    assert arena.array.shape == (2, 2, 1, 2, arena.capacity, 16)
    assert arena.array.dtype == np.float32


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 512), st.booleans()), max_size=20))
def test_books_equal_a_plain_count(steps) -> None:
    """Growth is counted in granules and never shrinks before a release."""
    arena, held = KVArena(SMALL, 3, 512), [0, 0, 0]
    for slot, tokens, release in steps:
        wanted = max(held[slot], granules(tokens))
        assert arena.growth_bytes(slot, tokens) == (wanted - held[slot]) * SMALL.token_bytes
        arena.grow(slot, tokens)
        held[slot] = wanted
        if release:
            arena.release(slot)
            held[slot] = 0
        assert arena.used_bytes == sum(held) * SMALL.token_bytes
        assert arena.occupied == {i for i, count in enumerate(held) if count}


def test_a_reservation_takes_no_memory() -> None:
    arena = KVArena(LARGE, 256, 4096)
    assert arena.array.nbytes > 4 << 30
    assert resident_bytes(arena) == 0


def test_memory_comes_with_writes_and_goes_with_release() -> None:
    arena = KVArena(LARGE, 3, 4096)
    arena.grow(1, 4096)
    assert resident_bytes(arena) == 0
    arena.array[:, :, 1, :, :1024] = 1
    assert resident_bytes(arena) == 1024 * LARGE.token_bytes
    arena.array[:, :, 1] = 1
    assert resident_bytes(arena) == arena.array[:, :, 1].nbytes
    arena.release(1)
    assert resident_bytes(arena) == arena.used_bytes == 0


@pytest.fixture(params=["pages", "copies"])
def moves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How rows are moved: as the kernel can, and as it is done where it cannot."""
    if request.param == "copies":
        monkeypatch.setattr(page_moves, "_mremap", None)
    return request.param


def test_a_moved_slot_leaves_no_memory_behind(moves: str) -> None:
    arena = KVArena(LARGE, 2, 4096)
    arena.grow(1, 1024)
    arena.array[:, :, 1, :, :1024] = 1
    arena.move(1, 0, 1000)
    assert arena.occupied == {0}
    assert arena.used_bytes == 1024 * LARGE.token_bytes
    held = 1024 if moves == "pages" else 1008  # four positions of 64 floats to a page
    assert resident_bytes(arena) == held * LARGE.token_bytes
    assert (arena.array[:, :, 0, :, :1000] == 1).all()
    assert not arena.array[:, :, 1].any()
    arena.grow(1, 64)
    arena.array[:, :, 1, :, :64] = 2
    assert (arena.array[:, :, 0, :, :1000] == 1).all()
    for slot in (0, 1):
        arena.release(slot)
    assert resident_bytes(arena) == 0


def test_what_was_reserved_moves_along(moves: str) -> None:
    arena = KVArena(SMALL, 2, 512)
    arena.grow(1, 300)
    arena.move(1, 0, 10)
    assert arena.used_bytes == 320 * SMALL.token_bytes


@pytest.mark.parametrize("kv_type", ["float32", "int8"])
@pytest.mark.parametrize("context", [64, 100, 512])
def test_slots_are_whole_pages(kv_type: KVType, context: int) -> None:
    arena = KVArena(replace(SMALL, num_kv_heads=1, kv_type=kv_type), 2, context)
    assert arena.array[0, 0, 0].nbytes % mmap.PAGESIZE == 0


@pytest.mark.parametrize("kv_type", ["float32", "int8"])
@pytest.mark.parametrize("context", [64, 100, 512])
def test_neighbours_survive(kv_type: KVType, context: int, moves: str) -> None:
    arena = KVArena(replace(SMALL, kv_type=kv_type), 3, context)
    rng = np.random.default_rng(0)
    values = (100 * rng.normal(size=arena.array.shape)).astype(arena.array.dtype)
    arena.array[:] = values
    for slot in range(3):
        arena.grow(slot, context)
    arena.release(1)
    assert np.array_equal(arena.array[:, :, [0, 2]], values[:, :, [0, 2]])
    arena.move(2, 1, context)
    assert np.array_equal(arena.array[:, :, 1, :, :context], values[:, :, 2, :, :context])
    assert np.array_equal(arena.array[:, :, 0], values[:, :, 0])
    assert arena.occupied == {0, 1}


@pytest.mark.parametrize("kv_type", ["float32", "int8"])
def test_two_slots_change_places(kv_type: KVType, moves: str) -> None:
    arena = KVArena(replace(SMALL, kv_type=kv_type), 3, 100)
    values = (100 * np.random.default_rng(0).normal(size=arena.array.shape)).astype(arena.array.dtype)
    arena.array[:] = values
    arena.grow(0, 100)
    arena.grow(2, 40)
    used = arena.used_bytes
    for _ in range(3):
        arena.swap(0, 2)
    assert np.array_equal(arena.array[:, :, 0, :, :64], values[:, :, 2, :, :64])
    assert np.array_equal(arena.array[:, :, 2, :, :100], values[:, :, 0, :, :100])
    assert np.array_equal(arena.array[:, :, 1], values[:, :, 1])
    assert arena.used_bytes == used
    assert arena.growth_bytes(0, 64) == arena.growth_bytes(2, 128) == 0 < arena.growth_bytes(0, 65)
    assert not arena._spare.any() or moves == "copies"


def test_blocks_are_read_as_copies_and_written_back() -> None:
    arena = KVArena(SMALL, 2, 256)
    arena.array[:] = np.random.default_rng(1).normal(size=arena.array.shape)
    block = arena.read(0, 32, 64)
    assert block.shape == (2, 2, 2, 32, 16)
    kept = block.copy()
    arena.array[:, :, 0] = 0
    assert np.array_equal(block, kept)
    arena.write(1, 96, block)
    assert np.array_equal(arena.array[:, :, 1, :, 96:128], kept)
    assert arena.used_bytes == 128 * SMALL.token_bytes


def test_releasing_a_free_slot_does_nothing() -> None:
    arena = KVArena(SMALL, 1, 64)
    arena.array[:] = 3
    arena.release(0)
    assert (arena.array == 3).all()


@pytest.mark.parametrize("size", [1 << 62, 1 << 70])
def test_address_space_has_an_end(size: int) -> None:
    with pytest.raises(OutOfMemory, match="MiB of address space") as caught:
        reserve(size)
    assert "shorter context" in caught.value.hint
