"""Pooling, normalization and shortening, beside loops."""

from __future__ import annotations

import numpy as np
import pytest

from edgeai.encoder.pooling import check_dimensions, normalized, pool, shortened
from edgeai.errors import InvalidInput


@pytest.fixture
def hidden() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (4, 7, 5)).astype(np.float32)


def test_mean(hidden: np.ndarray) -> None:
    expected = [[sum(float(hidden[row, token, i]) for token in range(7)) / 7 for i in range(5)] for row in range(4)]
    np.testing.assert_allclose(pool(hidden, "mean"), expected, rtol=1e-5)


def test_cls(hidden: np.ndarray) -> None:
    np.testing.assert_array_equal(pool(hidden, "cls"), [hidden[row, 0] for row in range(4)])


def test_normalized(hidden: np.ndarray) -> None:
    vectors = hidden[:, 0].copy()
    vectors[2] = 0
    for row, vector in enumerate(normalized(vectors)):
        length = sum(float(value) ** 2 for value in vectors[row]) ** 0.5
        np.testing.assert_allclose(vector, vectors[row] / length if length else vectors[row], rtol=1e-5)
    assert normalized(vectors).dtype == np.float32


def test_shortened(hidden: np.ndarray) -> None:
    vectors = normalized(hidden[:, 0])
    for same in (None, 5):
        assert shortened(vectors, same, normalize=True) is vectors
    cut = shortened(vectors, 2, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(cut[:, 0] / cut[:, 1], vectors[:, 0] / vectors[:, 1], rtol=1e-5)
    np.testing.assert_array_equal(shortened(hidden[:, 0], 2, normalize=False), hidden[:, 0, :2])


@pytest.mark.parametrize("dimensions", [0, 6, 100])
def test_dimensions_that_are_not_there(dimensions: int) -> None:
    with pytest.raises(InvalidInput, match=f"dimensions is {dimensions}, but this model's vectors have 5") as refused:
        check_dimensions(dimensions, 5)
    assert refused.value.param == "dimensions"
