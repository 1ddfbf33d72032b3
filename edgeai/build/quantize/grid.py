"""Grids that matrices are rounded to, and the scales that suit them.

A grid is symmetric: ``w = s * (q - z)`` with z = 8 or 128 and one scale for each block of a row. It is the only kind
that keeps every fast kernel: products with zero points leave Arm's KleidiAI kernels out. Scales are stored as integers
of eight bits, multiples of one float16 step for each row; what that rounds off is far less than a 4-bit code does, and
codes are chosen for the scales as they will be read back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeai.sources.weights import BlockTensor, SuperScales, Tensor

Floats = NDArray[np.float32]

FACTORS = {4: (0.75, 0.81, 0.87, 0.93, 0.99, 1.05), 8: (0.97, 1.0)}  # of the largest scale: candidates of a search
VALUES_AT_ONCE = 1 << 21  # bounds the memory of a search
MOST_MULTIPLE = 127


@dataclass(frozen=True, slots=True, order=True)
class Grid:
    """Bits of a code (4 or 8), and how many values of a row share a scale."""

    bits: int
    block_size: int = 32

    @property
    def zero(self) -> int:
        """The code of 0."""
        return 1 << (self.bits - 1)

    def fits(self, cols: int) -> bool:
        return cols % self.block_size == 0

    def stored_bytes(self, rows: int, cols: int) -> int:
        """Bytes of a matrix: codes, multiples and steps."""
        return rows * cols * self.bits // 8 + rows * (cols // self.block_size) + 2 * rows

    def codes(self, values: Floats, scales: Floats) -> Floats:
        """Signed codes, as floats, of values for scales that broadcast to them; 0 where the scale is 0."""
        inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
        rounded: Floats = np.rint(values * inverse)
        return np.clip(rounded, -self.zero, self.zero - 1, out=rounded)


def grid_for(cols: int, bits: int, most: int = 32) -> Grid:
    """The grid of a matrix with so many columns: its blocks are the largest that divide them, up to `most` values."""
    size = most
    while size > Grid(bits).block_size and cols % size:
        size //= 2
    return Grid(bits, size)


def as_multiples(scales: Floats, grid: Grid) -> SuperScales:
    """Scales [rows, blocks] in their stored form. Its `values` are what codes have to be chosen for.

    8-bit scales are rounded up, so that no value falls off the end of its grid.
    """
    peak = np.abs(scales).max(axis=1, keepdims=True)
    steps = (peak / MOST_MULTIPLE).astype(np.float16)
    multiples = scales / np.where(steps == 0, np.float32(1), steps.astype(np.float32))
    rounded = np.ceil(multiples) if grid.bits == 8 else np.rint(multiples)
    return SuperScales(steps, np.clip(rounded, -MOST_MULTIPLE, MOST_MULTIPLE).astype(np.int8))


def joined_scales(parts: Sequence[SuperScales | None]) -> SuperScales:
    """Scales of consecutive rows as those of one matrix."""
    whole = [part for part in parts if part is not None]
    return SuperScales(np.concatenate([p.steps for p in whole]), np.concatenate([p.multiples for p in whole]))


def choose(condition: NDArray[np.bool_], first: SuperScales, second: SuperScales) -> SuperScales:
    """Rows of the first where the condition [rows] holds, else of the second."""
    where = condition[:, None]
    return SuperScales(np.where(where, first.steps, second.steps), np.where(where, first.multiples, second.multiples))


def tensor_of(grid: Grid, codes: Floats, scales: SuperScales) -> BlockTensor:
    """A stored matrix from signed codes [rows, cols] and their scales."""
    stored = (codes + grid.zero).astype(np.uint8)
    return BlockTensor(grid.bits, grid.block_size, grid.zero, stored, scales.values(), super_scales=scales)


def nearest(values: Floats, grid: Grid, importance: Floats | None = None) -> BlockTensor:
    """A matrix [rows, cols] rounded to the nearest codes of its best scales."""
    scales = as_multiples(best_scales(values, grid, importance), grid)
    blocks = values.reshape(len(values), -1, grid.block_size)
    return tensor_of(grid, grid.codes(blocks, scales.values()[..., None]).reshape(values.shape), scales)


def nearest_tensor(tensor: Tensor, grid: Grid) -> BlockTensor:
    """`nearest` of a tensor, some rows at a time: a token table in float32 takes a gigabyte as it is."""
    rows, cols = tensor.shape
    codes, scales = np.empty((rows, cols), np.uint8), list[SuperScales | None]()
    step = max(1, 2 * VALUES_AT_ONCE // cols)
    for start in range(0, rows, step):
        piece = nearest(tensor.rows(start, start + step).dequantize(), grid)
        codes[start : start + step] = piece.codes
        scales.append(piece.super_scales)
    joined = joined_scales(scales)
    return BlockTensor(grid.bits, grid.block_size, grid.zero, codes, joined.values(), super_scales=joined)


def largest_scales(blocks: Floats, grid: Grid) -> Floats:
    """Scales [..., 1] of blocks [..., block_size] that hold every value.

    4 bits as in llama.cpp's Q4_0: the value of largest magnitude becomes code -8, so that all sixteen codes are used.
    8 bits as in Q8_0: steps of the largest magnitude / 127.
    """
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), axis=-1)
    if grid.bits < 8:
        return (peak / -grid.zero).astype(np.float32)
    return (np.abs(peak) / (grid.zero - 1)).astype(np.float32)


def best_scales(values: Floats, grid: Grid, importance: Floats | None = None) -> Floats:
    """Scales [rows, blocks] of least squared error over a matrix [rows, cols].

    `importance` [cols] weighs the squared errors of the columns: the diagonal of a Hessian. Scales of both signs are
    searched around the largest, each fitted in closed form to the codes that it gave.
    """
    rows, cols = values.shape
    weights = np.ones(cols, np.float32) if importance is None else importance.astype(np.float32)
    weights = weights.reshape(cols // grid.block_size, grid.block_size)
    scales = np.empty((rows, cols // grid.block_size), np.float32)
    step = max(1, VALUES_AT_ONCE // cols)
    for start in range(0, rows, step):
        blocks = values[start : start + step].reshape(-1, cols // grid.block_size, grid.block_size)
        scales[start : start + step] = _search(blocks, grid, weights)
    return scales


def _search(blocks: Floats, grid: Grid, weights: Floats) -> Floats:
    """Scales [rows, blocks] of least weighted error among candidates."""
    best = largest_scales(blocks, grid)
    largest = best.copy()
    least = _error(blocks, grid.codes(blocks, best), best, weights)
    for sign in (1, -1) if grid.bits < 8 else (1,):
        for factor in FACTORS[grid.bits]:
            codes = grid.codes(blocks, largest * np.float32(sign * factor))
            fitted = _fitted(blocks, codes, weights)
            error = _error(blocks, codes, fitted, weights)
            better = error < least
            best[better], least[better] = fitted[better], error[better]
    result: Floats = best[..., 0]
    return result


def _fitted(blocks: Floats, codes: Floats, weights: Floats) -> Floats:
    """Scales [..., 1] of least squared error for fixed codes."""
    weighted = codes * weights
    over = np.einsum("...i,...i->...", weighted, codes)[..., None]
    under = np.einsum("...i,...i->...", weighted, blocks)[..., None]
    fitted: Floats = np.divide(under, over, out=np.zeros_like(under), where=over != 0)
    return fitted


def _error(blocks: Floats, codes: Floats, scales: Floats, weights: Floats) -> Floats:
    """Weighted squared error [...] of every block."""
    difference = codes * scales
    difference -= blocks
    np.square(difference, out=difference)
    error: Floats = np.einsum("rbi,bi->rb", difference, weights)
    return error
