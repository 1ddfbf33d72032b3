"""Rounding that takes the inputs into account: the error of one weight is made up for by others of the same row.

For a matrix W and inputs x, what matters is the error of the products, ``tr((Q - W) H (Q - W)^T)`` with the Hessian
H = sum of x x^T. Three steps, each of which only lowers it:

1. GPTQ (Frantar et al. 2022, arXiv 2210.17323): columns are rounded one after the other, the most important first, and
   the error of each is spread over those that are left, by the Cholesky factor of the inverse Hessian.
2. Scales are fitted again to the codes, all blocks of a row at once: a small linear system for each row.
3. Coordinate descent: every code is set to the best one given all others, some sweeps long.

Matrices are held transposed, [cols, rows]: a column of W is then contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.build.quantize.grid import Floats, Grid, as_multiples, best_scales, choose, joined_scales, tensor_of
from edgeai.sources.weights import BlockTensor, SuperScales

LAZY = 64  # columns whose errors are spread over the rest of the matrix in one product
ROWS_AT_ONCE = 8192  # of a large matrix, such as an output head
DAMPING = 0.01  # of the mean diagonal, added to the diagonal of a Hessian


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to search."""

    rounds: int  # of fitting scales and coordinate descent
    sweeps: int = 1  # of coordinate descent in a round


USUAL = Effort(rounds=2)  # more rounds lower the error by about 2 % more


@dataclass(frozen=True, slots=True)
class Curvature:
    """A Hessian, damped, with what GPTQ needs of it; shared by all matrices that read the same inputs."""

    hessian: Floats  # [cols, cols]
    order: NDArray[np.intp]  # columns by falling importance
    inverse_factor: Floats  # upper Cholesky factor of the inverse of the Hessian in that order


def curvature(hessian: NDArray[np.floating[Any]], damping: float = DAMPING) -> Curvature:
    """Damp a Hessian [cols, cols] until it can be inverted. Inputs that are always zero get the mean's share."""
    damped = hessian.astype(np.float32)
    diagonal = np.einsum("ii->i", damped)
    mean = float(diagonal.mean()) or 1.0
    diagonal += np.float32(damping * mean)
    order = np.argsort(-diagonal, kind="stable")
    while True:
        try:
            return Curvature(damped, order, _inverse_factor(damped[np.ix_(order, order)]))
        except np.linalg.LinAlgError:
            diagonal += np.float32(damping * mean)


def _inverse_factor(hessian: Floats) -> Floats:
    """The upper Cholesky factor U of the inverse: ``U^T U = H^-1``, by way of the factor of H in reverse order.

    With ``P H P = L L^T`` (P reverses the order), ``H = (P L P)(P L P)^T`` and ``P L P`` is upper, so that
    U is the inverse of ``P L P``. One factorization and one triangular inverse, in float64 where that is affordable.
    """
    kind = np.float64 if len(hessian) <= 4096 else np.float32
    factor = np.linalg.cholesky(hessian[::-1, ::-1].astype(kind))[::-1, ::-1]
    upper: Floats = np.linalg.inv(factor).astype(np.float32)
    return upper


def compensated(weights: Floats, grid: Grid, curve: Curvature, effort: Effort = USUAL) -> BlockTensor:
    """A matrix [rows, cols] on a grid, with the least error of its products that the search finds."""
    pieces = [
        _compensate(weights[start : start + ROWS_AT_ONCE], grid, curve, effort)
        for start in range(0, len(weights), ROWS_AT_ONCE)
    ]
    codes = np.concatenate([codes for codes, _ in pieces])
    return tensor_of(grid, codes, joined_scales([scales for _, scales in pieces]))


def product_error(difference: Floats, hessian: Floats) -> float:
    """``tr(D H D^T)`` of a difference of weights [rows, cols]: the summed squared error of the products."""
    return float(np.einsum("ij,ij->", difference @ hessian, difference, dtype=np.float64))


def _compensate(weights: Floats, grid: Grid, curve: Curvature, effort: Effort) -> tuple[Floats, SuperScales]:
    """Signed codes [rows, cols] and scales of a piece of a matrix."""
    scales = as_multiples(best_scales(weights, grid, np.diag(curve.hessian)), grid)
    target = np.ascontiguousarray(weights.T)
    codes = _gptq(target, scales.values().T, grid, curve)
    for _ in range(effort.rounds):
        scales = _fit(target, codes, scales, grid, curve.hessian)
        codes = _descend(target, codes, scales.values().T, grid, curve.hessian, effort.sweeps)
    return np.ascontiguousarray(codes.T), scales


def _gptq(target: Floats, scales: Floats, grid: Grid, curve: Curvature) -> Floats:
    """Codes [cols, rows] by GPTQ with fixed scales [blocks, rows]."""
    order, factor = curve.order, curve.inverse_factor
    left = target[order]
    codes = np.empty_like(left)
    cols = len(left)
    for start in range(0, cols, LAZY):
        stop = min(start + LAZY, cols)
        errors = np.empty((stop - start, left.shape[1]), np.float32)
        for column in range(start, stop):
            scale = scales[order[column] // grid.block_size]
            codes[column] = grid.codes(left[column], scale)
            error = errors[column - start] = (left[column] - codes[column] * scale) / factor[column, column]
            left[column + 1 : stop] -= factor[column, column + 1 : stop, None] * error
        left[stop:] -= factor[start:stop, stop:].T @ errors
    result = np.empty_like(codes)
    result[order] = codes
    return result


def _fit(target: Floats, codes: Floats, scales: SuperScales, grid: Grid, hessian: Floats) -> SuperScales:
    """Scales of least error for fixed codes, every row's blocks at once; never worse than they were."""
    cols, rows = codes.shape
    blocks = cols // grid.block_size
    split = codes.reshape(blocks, grid.block_size, rows)
    system = np.empty((rows, blocks, blocks), np.float64)
    for block in range(blocks):
        part = slice(block * grid.block_size, (block + 1) * grid.block_size)
        pulled = (hessian[:, part] @ codes[part]).reshape(split.shape)
        system[:, :, block] = np.einsum("bir,bir->rb", split, pulled)
    wanted = np.einsum("bir,bir->rb", split, (hessian @ target).reshape(split.shape)).astype(np.float64)
    damped = system + np.eye(blocks) * (1e-6 * np.einsum("rii->r", system) / blocks + 1e-30)[:, None, None]
    fitted = as_multiples(np.linalg.solve(damped, wanted[..., None])[..., 0].astype(np.float32), grid)
    after, before = (
        np.einsum("rb,rb->r", np.einsum("rbc,rc->rb", system, values) - 2 * wanted, values)
        for values in (fitted.values().astype(np.float64), scales.values().astype(np.float64))
    )
    return choose(after <= before, fitted, scales)


def _descend(target: Floats, codes: Floats, scales: Floats, grid: Grid, hessian: Floats, sweeps: int) -> Floats:
    """Codes [cols, rows] after sweeps of exact coordinate descent on the error of the products."""
    spread = np.repeat(scales, grid.block_size, axis=0)
    current = codes * spread
    gradient = hessian @ (current - target)
    inverse = 1 / np.diag(hessian)
    codes = codes.copy()
    for _ in range(sweeps):
        for start in range(0, len(codes), LAZY):
            part = slice(start, start + LAZY)
            before = current[part].copy()
            for column in range(start, min(start + LAZY, len(codes))):
                wanted = current[column] - gradient[column] * inverse[column]
                codes[column] = grid.codes(wanted, spread[column])
                change = codes[column] * spread[column] - current[column]
                current[column] += change
                gradient[part] += hessian[part, column, None] * change
            change = current[part] - before
            gradient[:start] += hessian[:start, part] @ change
            gradient[start + LAZY :] += hessian[start + LAZY :, part] @ change
    return codes
