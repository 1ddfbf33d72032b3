"""One scale for each row, and what balancing columns first is worth."""

from __future__ import annotations

import numpy as np

from edgeai.build.quantize.rows import balance, nearest_rows, size_of
from edgeai.sources.weights import FloatTensor

RNG = np.random.default_rng(0)


def rounded(x: np.ndarray) -> np.ndarray:
    """Activations as the products see them: one 8-bit scale for each row."""
    scale = np.abs(x).max(axis=1, keepdims=True) / 127
    return np.rint(x / scale) * scale


def test_balanced_columns_lose_less() -> None:
    """A few columns of the inputs are much larger than the others, as in real models."""
    inputs = RNG.standard_normal((200, 64)).astype(np.float32)
    inputs[:, :3] *= 60
    weights = RNG.standard_normal((32, 64)).astype(np.float32)
    exact = inputs @ weights.T

    def error(factors: np.ndarray | None) -> float:
        tensor = nearest_rows(FloatTensor(weights), factors)
        x = inputs if factors is None else inputs / factors
        codes = (tensor.codes.astype(np.float32) - tensor.zero_point) * tensor.scales
        return float(np.square(rounded(x) @ codes.T - exact).mean())

    factors = balance(size_of(inputs), np.abs(weights).max(axis=0))
    assert error(factors) < 0.2 * error(None)


def test_dequantized_values_are_the_weights_again() -> None:
    """Whatever columns were divided by is undone, so that the matrix stands for the same weights."""
    weights = RNG.standard_normal((20, 64)).astype(np.float32)
    factors = np.exp(RNG.standard_normal(64) / 2).astype(np.float32)
    difference = nearest_rows(FloatTensor(weights), factors).dequantize() - weights
    assert np.square(difference).mean() < 1e-3 * np.square(weights).mean()


def test_factors_leave_the_scale_alone() -> None:
    factors = balance(np.array([1, 100, 0], np.float32), np.array([1, 1, 2], np.float32))
    assert np.isclose(np.log(factors).mean(), 0, atol=1e-6)
    assert factors[1] > factors[0] > factors[2] > 0
    assert (balance(np.zeros(3, np.float32), np.ones(3, np.float32)) == 1).all()
