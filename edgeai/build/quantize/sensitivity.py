"""How much each group of matrices costs when it alone is rounded: the KL divergence of the model's predictions.

One run of the plain decoder measures many groups. The same short text is read once for the float model and once for
each group, side by side; only the products of its own group are made with rounded weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures.blocks import LoadTensor
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.reference import EMBEDDINGS, Floats, ReferenceDecoder
from edgeai.architectures.registry import run_reference
from edgeai.build.quantize.grid import Grid
from edgeai.build.quantize.groups import Group
from edgeai.build.quantize.rounding import round_to_nearest
from edgeai.progress import Progress

TOKENS_AT_ONCE = 6144  # of all copies of the text together: bounds the memory


def sensitivities(
    config: DecoderConfig,
    load: LoadTensor,
    segments: Sequence[Sequence[int]],
    groups: Sequence[Group],
    grid: Grid,
    progress: Progress,
) -> list[float]:
    """Mean KL divergence (nats per token) that rounding to `grid` causes, group by group."""
    tokens = sum(map(len, segments))
    step = max(1, TOKENS_AT_ONCE // tokens - 1)
    costs: list[float] = []
    for start in range(0, len(groups), step):
        probe = _Probe(config, load, segments, groups[start : start + step], grid)
        run_reference(probe)
        costs += probe.divergences()
        progress("measure sensitivity", len(costs), len(groups))
    return costs


class _Probe(ReferenceDecoder):
    """Copies of a text side by side: the first with float weights, each other with one group rounded."""

    def __init__(
        self,
        config: DecoderConfig,
        load: LoadTensor,
        segments: Sequence[Sequence[int]],
        groups: Sequence[Group],
        grid: Grid,
    ) -> None:
        ids = [token for segment in segments for token in segment]
        copies = len(groups) + 1
        super().__init__(config, load, ids * copies, [len(segment) for segment in segments] * copies)
        self._grid = grid
        self._tokens = len(ids)
        self._copy_of = {name: number + 1 for number, group in enumerate(groups) for name in group.names}
        self._groups = len(groups)

    def embed(self) -> None:
        super().embed()
        if EMBEDDINGS in self._copy_of:
            part = self._part(EMBEDDINGS, len(self.ids))
            rows = self.load(EMBEDDINGS).dequantize()[self.ids[part]]
            rounded = round_to_nearest(rows, self._grid.bits, self._grid.block_size).dequantize()
            self.hidden[part] = rounded * np.float32(self.config.embedding_multiplier)

    def shares(self, x: Floats, layer: int, name: str) -> Floats:
        """All copies go to the experts that the first one chooses."""
        return np.tile(super().shares(x[: self._tokens], layer, name), (self._groups + 1, 1))

    def project(self, x: Floats, name: str) -> Floats:
        return self._product(x, name, self.load(name).dequantize())

    def project_rows(self, x: Floats, name: str, start: int, stop: int) -> Floats:
        return self._product(x, name, self.load(name).rows(start, stop).dequantize())

    def divergences(self) -> list[float]:
        """Mean KL divergence of every copy's predictions from the first's, slice by slice of the vocabulary."""
        peaks = np.full((self._groups + 1, self._tokens), -np.inf)
        sums, crossed = np.zeros_like(peaks), np.zeros((self._groups, self._tokens))
        for logits in self.logits():
            part = logits.reshape(self._groups + 1, self._tokens, -1)
            highest = np.maximum(peaks, part.max(axis=-1))
            fade = np.exp(peaks - highest)
            weights = np.exp(part[0] - highest[0][:, None])
            crossed = crossed * fade[0] + _crossed(weights, part)
            sums = sums * fade + np.array([np.exp(part[i] - highest[i][:, None]).sum(-1) for i in range(len(part))])
            peaks = highest
        totals = peaks + np.log(sums)
        kl = crossed / sums[0] - totals[0] + totals[1:]
        return [float(value) for value in kl.mean(axis=1)]

    def _product(self, x: Floats, name: str, weights: Floats) -> Floats:
        product: Floats = x @ weights.T
        if name in self._copy_of:
            part = self._part(name, len(x))
            rounded = round_to_nearest(weights, self._grid.bits, self._grid.block_size).dequantize()
            product[part] = x[part] @ rounded.T
        return product

    def _part(self, name: str, rows: int) -> slice:
        """Rows of the copy that a matrix is rounded for; an expert sees fewer than all tokens."""
        copy, each = self._copy_of[name], rows // (self._groups + 1)
        return slice(copy * each, (copy + 1) * each)


def _crossed(weights: Floats, logits: Floats) -> NDArray[np.float64]:
    """Sums over the vocabulary of the first copy's weights times the difference of its logits to another's."""
    return np.array([np.einsum("tv,tv->t", weights, logits[0] - other) for other in logits[1:]], np.float64)
