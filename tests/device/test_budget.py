"""Dividing memory: integers only, over machines from too small to plenty."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.device.budget import (
    LEAST_CHUNK,
    LEAST_CONTEXT,
    MIB,
    Claim,
    Costs,
    Wishes,
    estimate,
    fixed_plan,
    loaded,
    plan,
    reserve_bytes,
    shares,
)
from edgeai.device.profile import Memory
from edgeai.errors import OutOfMemory

GIB = 1 << 30
SMOLLM = estimate(weights=98_700_000, hidden=576, vocab=49152, token=46080, draft=10)
WISHES = Wishes(context=8192, rows=8, chunk=256)


def memory(available: int, *, limit: int | None = None, total: int = 8 * GIB) -> Memory:
    return Memory(total=total, available=available, limit=limit)


def test_plenty_gives_every_wish() -> None:
    made = plan(memory(32 * GIB, total=64 * GIB), SMOLLM, WISHES)
    assert (made.rows, made.context, made.chunk) == (8, 8192, 256)
    assert made.kv_bytes == 2 * 8 * 8192 * 46080  # more could not be used
    assert not made.tight


def test_a_machine_is_shared_and_a_control_group_is_not() -> None:
    shared = plan(memory(2 * GIB), SMOLLM, WISHES)
    own = plan(memory(2 * GIB, limit=3 * GIB), SMOLLM, WISHES)
    assert own.kv_bytes == pytest.approx(2 * shared.kv_bytes, rel=0.01)
    assert not shared.tight


def test_half_a_gigabyte_serves_eight_rows() -> None:
    made = plan(memory(430 * MIB, limit=512 * MIB), SMOLLM, WISHES)
    assert made.tight
    assert made.rows == 8
    assert made.chunk >= 64
    assert made.kv_bytes >= 8 * 400 * 46080
    assert made.context == made.kv_bytes // 46080 < 8192


def test_less_memory_costs_chunks_then_rows() -> None:
    chunks, rows = zip(
        *((made.chunk, made.rows) for size in (430, 380, 340, 310, 290) if (made := fitting(size))), strict=True
    )
    assert list(chunks) == sorted(chunks, reverse=True)
    assert list(rows) == sorted(rows, reverse=True)
    assert rows[-1] < rows[0]


def fitting(size: int):
    return plan(memory(size * MIB, limit=512 * MIB), SMOLLM, WISHES)


def test_too_small_is_said_before_anything_is_loaded() -> None:
    with pytest.raises(OutOfMemory) as raised:
        plan(memory(200 * MIB, limit=256 * MIB), SMOLLM, WISHES)
    assert "200 MiB of the 256 MiB that the control group allows are free" in raised.value.message
    assert "needs about" in raised.value.message
    assert raised.value.hint


def test_a_budget_that_was_asked_for_is_the_most_but_no_promise() -> None:
    asked = Wishes(context=8192, rows=8, chunk=256, kv_bytes=100 * MIB)
    assert plan(memory(4 * GIB), SMOLLM, asked).kv_bytes == 100 * MIB
    assert plan(memory(420 * MIB, limit=512 * MIB), SMOLLM, WISHES).kv_bytes > 100 * MIB
    assert plan(memory(330 * MIB, limit=512 * MIB), SMOLLM, asked).kv_bytes < 100 * MIB


def test_the_second_plan_knows_what_loading_took() -> None:
    """Once the model is loaded all that is left but the reserve is the KV cache's."""
    made = plan(memory(300 * MIB, limit=512 * MIB), loaded(46080), WISHES)
    assert made.kv_bytes == 300 * MIB - reserve_bytes(memory(0, limit=512 * MIB))


@pytest.mark.parametrize("copies", [2, 4])
def test_copies_of_the_cache_are_part_of_its_price(copies: int) -> None:
    """Graphs that copy the cache in every run have room for a part of it."""
    plain, copied = (plan(memory(GIB, limit=GIB), replace(SMOLLM, copies=n), WISHES) for n in (0, copies))
    assert copied.kv_bytes == pytest.approx(plain.kv_bytes / (1 + copies), rel=0.001)
    after = plan(memory(300 * MIB, limit=512 * MIB), loaded(46080, copies), WISHES)
    assert after.kv_bytes * (1 + copies) <= 300 * MIB - after.reserve


def test_it_explains_itself() -> None:
    text = plan(memory(430 * MIB, limit=512 * MIB), SMOLLM, WISHES).explain()
    assert text.startswith("430 MiB free: 165 MiB model, ")
    assert "8 rows" in text


sizes = st.integers(0, 4 * GIB)


@given(
    available=sizes,
    limit=st.none() | st.integers(1, 4 * GIB),
    costs=st.builds(
        Costs,
        st.integers(0, GIB),
        st.integers(0, MIB),
        st.integers(0, 4 * MIB),
        st.integers(1, MIB),
        st.integers(0, 16),
        copies=st.sampled_from([0, 2, 4]),
    ),
    wishes=st.builds(
        Wishes, st.integers(64, 1 << 17), st.integers(1, 64), st.integers(16, 2048), st.none() | sizes, st.booleans()
    ),
)
def test_a_plan_never_promises_what_is_not_there(
    available: int, limit: int | None, costs: Costs, wishes: Wishes
) -> None:
    try:
        made = plan(memory(available, limit=limit, total=4 * GIB), costs, wishes)
    except OutOfMemory:
        return
    assert made.load + made.reserve + made.scratch + made.kv_bytes * (1 + costs.copies) <= available
    assert costs.scratch(made.rows, made.chunk) <= made.scratch
    assert 1 <= made.rows <= wishes.rows
    assert min(LEAST_CHUNK, wishes.chunk) <= made.chunk <= wishes.chunk
    assert made.context <= wishes.context
    if wishes.kv_bytes is None:
        assert made.kv_bytes >= min(LEAST_CONTEXT, wishes.context) * costs.token


@given(less=sizes, more=sizes)
def test_more_memory_is_never_worse(less: int, more: int) -> None:
    """Rows and chunks need not grow together, but whoever had a plan keeps one, and the cache does not shrink much."""
    less, more = sorted((less, more))
    try:
        small = plan(memory(less, limit=4 * GIB), SMOLLM, WISHES)
    except OutOfMemory:
        return
    large = plan(memory(more, limit=4 * GIB), SMOLLM, WISHES)
    assert (large.rows, large.chunk) >= (small.rows, small.chunk)
    assert large.kv_bytes + large.scratch >= small.kv_bytes + small.scratch


claims = st.lists(st.builds(Claim, st.integers(1, 1 << 18), st.integers(1 << 20, 1 << 34)), min_size=1, max_size=6)


@given(st.integers(-(1 << 30), 1 << 36), claims)
def test_shares_are_within_the_room_but_for_the_least(room: int, claims: list[Claim]) -> None:
    given_shares = shares(room, claims)
    least = [min(claim.most, LEAST_CONTEXT * claim.token) for claim in claims]
    assert all(low <= share <= claim.most for low, share, claim in zip(least, given_shares, claims, strict=True))
    assert sum(given_shares) <= max(room, 0) + sum(least)
    if room >= sum(claim.most for claim in claims):
        assert given_shares == [claim.most for claim in claims]


def test_all_models_get_the_same_number_of_tokens_and_what_one_cannot_use_goes_to_the_others() -> None:
    small, large = Claim(1000, 10**9), Claim(3000, 10**9)
    assert shares(40_000_000, [small, large]) == [10_000_000, 30_000_000]
    assert shares(40_000_000, [large, Claim(1000, 4_000_000)]) == [36_000_000, 4_000_000]
    assert shares(0, [small, large]) == [LEAST_CONTEXT * 1000, LEAST_CONTEXT * 3000]


def test_a_model_without_a_cache() -> None:
    costs = estimate(weights=24_000_000, hidden=384, vocab=30522, token=0, draft=0)
    needed = fixed_plan(memory(GIB), costs, 50 * MIB)
    assert 24_000_000 < needed < 200 * MIB
    with pytest.raises(OutOfMemory, match="more memory"):
        fixed_plan(memory(needed), costs, 50 * MIB)
