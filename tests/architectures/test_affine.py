"""Offsets of affine blocks as columns: how near they are kept, and where they lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeai.architectures.affine import columns_for, digits_of, in_the_middle, offset_columns
from tests.architectures.graphs import GRIDS, stored


@example(bits=8, rows=1, sums=1, spread=0.03, seed=7)  # a step that is less than float16's smallest number
@given(
    bits=st.sampled_from([4, 8]),
    rows=st.integers(1, 6),
    sums=st.integers(1, 40),
    spread=st.sampled_from([0.0, 1e-6, 0.03, 2.0]),
    seed=st.integers(0, 2**32),
)
def test_offsets_are_kept_to_half_a_step(bits: int, rows: int, sums: int, spread: float, seed: int) -> None:
    offsets = (np.random.default_rng(seed).standard_normal((rows, sums)) * spread).astype(np.float32)
    digits = digits_of(offsets, bits)
    for digit in (digits.high, digits.low):
        assert digit.min() >= -(1 << (bits - 1))
        assert digit.max() < 1 << (bits - 1)
    error = np.abs(digits.values() - offsets).max(axis=1)
    largest = np.abs(offsets).max(axis=1)
    # Half a step, where float16 has steps that small; below them offsets are lost.
    assert np.all(error <= np.maximum(largest / (120 if bits == 4 else 32000) * 0.51, 1e-5))


@given(
    bits=st.sampled_from([4, 8]),
    block_size=st.sampled_from([16, 32, 64]),
    blocks=st.integers(1, 70),
    seed=st.integers(0, 2**32),
)
def test_columns_multiply_sums_with_offsets(bits: int, block_size: int, blocks: int, seed: int) -> None:
    """[S, 0, S, 0] times the columns is the sum of offsets times S, and all in all there are whole groups of blocks."""
    rng = np.random.default_rng(seed)
    columns = columns_for(blocks * block_size, block_size)
    assert (blocks * block_size + columns.count) % (4 * block_size) == 0
    digits = digits_of(rng.standard_normal((3, blocks)).astype(np.float32), bits)
    codes, scales = offset_columns(digits, columns)
    sums = rng.standard_normal(blocks)
    x = np.concatenate([part for fill in columns.fills for part in (sums, np.zeros(fill))])
    weights = (codes.astype(np.float64) - (1 << (bits - 1))) * np.repeat(scales.astype(np.float64), block_size, axis=1)
    assert np.allclose(weights @ x, digits.values() @ sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", [form for form, grid in GRIDS.items() if grid[3]])
def test_codes_around_the_middle_have_the_same_values(form: str) -> None:
    tensor = stored(form, (9, 128))
    assert np.allclose(in_the_middle(tensor).dequantize(), tensor.dequantize(), rtol=0, atol=1e-5)  # type: ignore[arg-type, union-attr]
