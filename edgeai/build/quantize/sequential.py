"""Quantizing a model while it reads calibration text, one matrix after the other.

The text runs through the plain numpy decoder twice at once: the first half of the tokens with the float weights, the
second with what has been quantized so far. A matrix is quantized when its product is asked for, and the second half
goes on with the result, so that every matrix sees the inputs it will have. With X and Y the inputs of the float and the
quantized half, the weights that repeat the float model's products best are not W but

    W' = W (X^T Y + d I) (Y^T Y + d I)^-1

(Li et al. 2025, GPTAQ, arXiv 2504.02692; Zhang et al. 2025, Qronos, arXiv 2505.11695): the errors of earlier layers are
made up for where that can be done. W' is then rounded with error compensation under the Hessian Y^T Y.

Nothing here knows about architectures: `ReferenceDecoder` computes them all by way of `project`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeai.architectures.blocks import LoadTensor
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.reference import EMBEDDINGS, ReferenceDecoder
from edgeai.build.quantize.compensate import Curvature, compensated, curvature
from edgeai.build.quantize.grid import Floats, Grid, nearest
from edgeai.progress import Progress
from edgeai.sources.weights import BlockTensor

DOUBLE = 4096  # columns up to which linear systems are solved in float64
RIDGE = 0.3  # of the mean diagonal: how much more W' is trusted than W needs evidence
ChooseGrid = Callable[[str], Grid | None]  # by the name of a matrix; None where it is kept as it is
Keep = Callable[[str, BlockTensor], None]


class QuantizingDecoder(ReferenceDecoder):
    """Quantizes every matrix that `choose` has a grid for, and hands it to `keep`."""

    def __init__(
        self,
        config: DecoderConfig,
        load: LoadTensor,
        segments: Sequence[Sequence[int]],
        *,
        choose: ChooseGrid,
        keep: Keep,
        progress: Progress,
        table: Grid | None = None,
    ) -> None:
        ids = [token for segment in segments for token in segment]
        lengths = [len(segment) for segment in segments]
        super().__init__(config, load, [*ids, *ids], [*lengths, *lengths])
        self.tokens = len(ids)
        self._choose, self._keep, self._progress = choose, keep, progress
        self._inputs: Floats | None = None
        self._curve: Curvature | None = None
        self._shift: Floats | None = None
        self._done = 0
        self._table = table

    def embed(self) -> None:
        """The second half reads a token table that is rounded, if it will be."""
        super().embed()
        if self._table is not None:
            rows = self.load(EMBEDDINGS).dequantize()[self.ids[self.tokens :]]
            self.hidden[self.tokens :] = nearest(rows, self._table).dequantize() * np.float32(
                self.config.embedding_multiplier
            )

    def project(self, x: Floats, name: str) -> Floats:
        """The float product for the first half; for the second, that of the matrix as it was quantized just now."""
        weights = self.load(name).dequantize()
        grid = self._choose(name)
        if grid is None:
            unchanged: Floats = x @ weights.T
            return unchanged
        self._observe(x)
        if self._curve is None or self._shift is None:
            raise RuntimeError("no inputs were observed")
        target = np.ascontiguousarray(weights @ self._shift)
        tensor = compensated(target, grid, self._curve)
        del target
        self._keep(name, tensor)
        self._done += 1
        self._progress("quantize", self._done)
        half = len(x) // 2  # fewer than all tokens for an expert
        product = np.empty((len(x), len(weights)), np.float32)
        np.matmul(x[:half], weights.T, out=product[:half])
        np.matmul(x[half:], tensor.dequantize().T, out=product[half:])
        return product

    def shares(self, x: Floats, layer: int, name: str) -> Floats:
        """Both halves go to the experts that the float half chooses, so that an expert sees the same tokens twice."""
        plain = super().shares(x[: self.tokens], layer, name)
        return np.concatenate([plain, plain])

    def _observe(self, x: Floats) -> None:
        """Hessian of inputs and the map from W to W'; products of the same inputs share them."""
        if x is self._inputs:
            return
        self._inputs, self._curve, self._shift = x, None, None  # the old ones are freed before new ones are made
        half = len(x) // 2
        plain, rounded, tokens = x[:half], x[half:], np.float32(max(half, 1))
        hessian = (rounded.T @ rounded) / tokens
        self._shift = best_shift((plain.T @ rounded) / tokens, hessian)
        self._curve = curvature(hessian)


def best_shift(cross: Floats, hessian: Floats, ridge: float = RIDGE) -> Floats:
    """``(C + d I) (H + d I)^-1`` for C = X^T Y and H = Y^T Y: right factor of the weights that repeat X's products."""
    kind: type[np.floating[Any]] = np.float64 if len(hessian) <= DOUBLE else np.float32
    amount = max(ridge * float(np.einsum("ii->", hessian)) / len(hessian), 1e-12)
    system, wanted = hessian.astype(kind), cross.T.astype(kind)
    for matrix in (system, wanted):
        np.einsum("ii->i", matrix)[:] += amount
    return np.linalg.solve(system, wanted).T.astype(np.float32)
