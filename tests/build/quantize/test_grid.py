"""Scales of least squared error, and their stored form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.build.quantize.grid import Grid, as_multiples, best_scales, choose, largest_scales, nearest
from edgeai.build.quantize.rounding import round_to_nearest
from tests.build.quantize.test_rounding import random_matrix


def squared_error(values: np.ndarray, grid: Grid, scales: np.ndarray, weights: np.ndarray | float = 1.0) -> float:
    blocks = values.reshape(len(values), -1, grid.block_size)
    error = np.square(grid.codes(blocks, scales[..., None]) * scales[..., None] - blocks).reshape(values.shape)
    return float((error * weights).sum())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block_size", [16, 32, 64])
def test_the_best_scales_are_better_than_the_largest(bits: int, block_size: int) -> None:
    grid, values = Grid(bits, block_size), random_matrix(40, 128)
    largest = largest_scales(values.reshape(40, -1, block_size), grid)[..., 0]
    best = squared_error(values, grid, best_scales(values, grid))
    assert best < squared_error(values, grid, largest) * (0.95 if bits == 4 else 1)


def test_no_scale_of_a_fine_search_is_much_better() -> None:
    """The oracle tries a thousand scales of both signs for every block."""
    grid, values = Grid(4), random_matrix(20, 32)
    least = np.full(20, np.inf)
    for factor in np.linspace(-1.2, 1.2, 1001):
        scales = largest_scales(values[:, None], grid)[..., 0] * np.float32(factor)
        error = np.square(grid.codes(values, scales) * scales - values).sum(-1)
        least = np.minimum(least, error)
    assert squared_error(values, grid, best_scales(values, grid)) < least.sum() * 1.06


def test_important_columns_weigh_more() -> None:
    grid, values = Grid(4), random_matrix(60, 64)
    importance = np.random.default_rng(1).exponential(1.0, 64).astype(np.float32) ** 3
    plain, weighted = best_scales(values, grid), best_scales(values, grid, importance)
    assert squared_error(values, grid, weighted, importance) < squared_error(values, grid, plain, importance) * 0.9


@given(seed=st.integers(0, 2**32), bits=st.sampled_from([4, 8]), spread=st.sampled_from([1e-4, 0.05, 30.0]))
def test_stored_scales_are_near(seed: int, bits: int, spread: float) -> None:
    scales = np.random.default_rng(seed).normal(0, spread, (5, 12)).astype(np.float32)
    scales = np.abs(scales) if bits == 8 else scales
    stored = as_multiples(scales, Grid(bits)).values()
    step = np.abs(scales).max(axis=1, keepdims=True) / 127
    assert (
        np.abs(stored - scales) <= step * (1.1 if bits == 8 else 0.6) + 127 * 2.0**-25
    ).all()  # float16's last steps


def test_eight_bits_hold_every_value() -> None:
    values = random_matrix(30, 128)
    tensor = nearest(values, Grid(8))
    steps = np.repeat(tensor.scales, 32, axis=1)
    assert (np.abs(tensor.dequantize() - values) <= steps * 0.75).all()
    assert (
        np.square(tensor.dequantize() - values).sum()
        < 1.3 * np.square(round_to_nearest(values, 8).dequantize() - values).sum()
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zeros(bits: int) -> None:
    values = random_matrix(3, 64)
    values[1] = 0
    values[2, :32] = 0
    result = nearest(values, Grid(bits)).dequantize()
    assert np.isfinite(result).all()
    assert not result[1].any()
    assert not result[2, :32].any()


def test_rows_are_chosen() -> None:
    first, second = (as_multiples(np.full((3, 2), value, np.float32), Grid(4)) for value in (1.0, 2.0))
    chosen = choose(np.array([True, False, True]), first, second).values()
    assert np.allclose(chosen[:, 0], [1, 2, 1], rtol=1e-3)


def test_bytes_are_those_of_the_file() -> None:
    assert Grid(4).stored_bytes(10, 64) == 10 * 64 // 2 + 10 * 2 + 10 * 2
    assert Grid(8, 64).stored_bytes(10, 64) == 10 * 64 + 10 * 1 + 10 * 2
