"""Error compensation against a textbook version, and that every step lowers the error."""

from __future__ import annotations

import numpy as np
import pytest

from edgeai.build.quantize import compensate
from edgeai.build.quantize.compensate import Effort, compensated, curvature, product_error
from edgeai.build.quantize.grid import Grid, as_multiples, best_scales, nearest
from tests.build.quantize.test_rounding import random_matrix

GRID = Grid(4)


def correlated_inputs(cols: int, tokens: int = 600, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(0, 1, (tokens, cols)) @ (np.eye(cols) + rng.normal(0, 0.15, (cols, cols)))
    return (mixed * rng.exponential(1.0, cols)).astype(np.float32)


def hessian_of(inputs: np.ndarray) -> np.ndarray:
    return inputs.T @ inputs / np.float32(len(inputs))


def textbook_gptq(weights: np.ndarray, scales: np.ndarray, hessian: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Signed codes [rows, cols]: one column at a time, the inverse Hessian updated by Gaussian elimination."""
    left, inverse = weights.astype(np.float64), np.linalg.inv(hessian.astype(np.float64))
    spread = np.repeat(scales, GRID.block_size, axis=1)
    codes = np.zeros_like(left)
    for column in order:
        codes[:, column] = GRID.codes(left[:, column].astype(np.float32), spread[:, column])
        error = (left[:, column] - codes[:, column] * spread[:, column]) / inverse[column, column]
        left -= np.outer(error, inverse[column])
        inverse = inverse - np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return codes


def test_gptq_is_the_textbook_s() -> None:
    weights, hessian = random_matrix(12, 96), hessian_of(correlated_inputs(96))
    curve = curvature(hessian)
    scales = as_multiples(best_scales(weights, GRID), GRID).values()
    codes = compensate._gptq(np.ascontiguousarray(weights.T), scales.T, GRID, curve).T
    expected = textbook_gptq(weights, scales, curve.hessian, curve.order)
    assert (codes == expected).mean() > 0.99  # sums in another order flip a code that lies between two


def test_the_factor_is_that_of_the_inverse() -> None:
    hessian = hessian_of(correlated_inputs(64)) + np.eye(64, dtype=np.float32)
    factor = compensate._inverse_factor(hessian)
    assert np.allclose(np.triu(factor), factor)
    assert np.allclose(factor.T @ factor @ hessian, np.eye(64), atol=1e-3)


def test_each_step_lowers_the_error() -> None:
    weights, hessian = random_matrix(80, 128), hessian_of(correlated_inputs(128))
    curve = curvature(hessian)
    errors = [product_error(nearest(weights, GRID).dequantize() - weights, curve.hessian)]
    for rounds in (0, 1, 2, 4):
        tensor = compensated(weights, GRID, curve, Effort(rounds))
        errors.append(product_error(tensor.dequantize() - weights, curve.hessian))
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.97 * errors[1]


def test_fitted_scales_are_those_of_least_squares() -> None:
    """The oracle solves one row's problem over the inputs themselves."""
    inputs = correlated_inputs(64)
    weights, hessian = random_matrix(5, 64), hessian_of(inputs)
    start = as_multiples(best_scales(weights, GRID), GRID)
    codes = GRID.codes(weights.reshape(5, 2, 32), start.values()[..., None]).reshape(5, 64)
    fitted = compensate._fit(weights.T.copy(), codes.T.copy(), start, GRID, hessian).values()
    for row in range(5):
        parts = np.stack([inputs[:, b * 32 : b * 32 + 32] @ codes[row, b * 32 : b * 32 + 32] for b in range(2)], axis=1)
        expected = np.linalg.lstsq(parts, inputs @ weights[row], rcond=None)[0]
        assert np.allclose(fitted[row], expected, rtol=0.02)


def test_descent_ends_where_no_single_code_helps() -> None:
    weights, hessian = random_matrix(6, 64), hessian_of(correlated_inputs(64)) + np.eye(64, dtype=np.float32) * 0.1
    scales = as_multiples(best_scales(weights, GRID), GRID).values()
    codes = GRID.codes(weights.reshape(6, 2, 32), scales[..., None]).reshape(6, 64)
    ended = compensate._descend(weights.T.copy(), codes.T.copy(), scales.T, GRID, hessian, 40).T
    spread = np.repeat(scales, 32, axis=1)

    def errors(candidate: np.ndarray) -> np.ndarray:
        difference = candidate * spread - weights
        return np.einsum("ri,ij,rj->r", difference, hessian, difference)

    least = errors(ended)
    assert (least <= errors(codes)).all()
    for column in range(64):
        for change in (-1, 1):
            other = ended.copy()
            other[:, column] = np.clip(other[:, column] + change, -8, 7)
            assert (errors(other) >= least - 1e-5 * np.abs(least)).all()


@pytest.mark.parametrize("tokens", [1, 20])
def test_hessians_of_few_inputs_can_be_used(tokens: int) -> None:
    weights, inputs = random_matrix(8, 64), correlated_inputs(64, tokens)
    inputs[:, 10:20] = 0
    tensor = compensated(weights, GRID, curvature(hessian_of(inputs)))
    assert np.isfinite(tensor.dequantize()).all()
    plain = nearest(weights, GRID).dequantize()
    assert np.square(inputs @ (tensor.dequantize() - weights).T).sum() < np.square(inputs @ (plain - weights).T).sum()


def test_inputs_that_are_always_zero_are_no_trouble() -> None:
    weights = random_matrix(8, 64)
    assert np.isfinite(compensated(weights, GRID, curvature(np.zeros((64, 64), np.float32))).dequantize()).all()


def test_large_matrices_are_done_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, curve = random_matrix(20, 64), curvature(hessian_of(correlated_inputs(64)))
    whole = compensated(weights, GRID, curve)
    monkeypatch.setattr(compensate, "ROWS_AT_ONCE", 7)
    assert np.mean(compensated(weights, GRID, curve).codes == whole.codes) > 0.99
