"""One 8-bit scale for each row of a matrix, for processors that multiply nothing else fast (linear_int8.py).

Activations get one scale for each row as well, and what hurts most there is that a few columns of a model's activations
are much larger than the others. So columns are balanced first (Xiao et al. 2022, SmoothQuant, arXiv 2211.10438)::

    x W^T = (x / f) (W f)^T         f = sqrt(size of a column of x / size of a column of W)

with the size of a column of x measured on calibration text. The products divide x by f when they run, so that nothing
else of the model changes. Codes are rounded to the nearest. That a source was on a grid of 4-bit blocks does not help:
no scale of a row is a multiple of all its blocks' scales, so this rounds again, much finer than the blocks were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeai.architectures.blocks import LoadTensor
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.reference import EMBEDDINGS, ReferenceDecoder
from edgeai.architectures.registry import run_reference
from edgeai.build.quantize.calibration import calibration_segments
from edgeai.build.quantize.grid import Floats
from edgeai.build.quantize.groups import HEAD, Group, find_groups
from edgeai.build.quantize.scheme import Job, Quantized
from edgeai.progress import Progress
from edgeai.sources.weights import BlockTensor, Tensor

BITS, ZERO, LARGEST = 8, 128, 127
ROWS_AT_ONCE = 4096
CALIBRATION_TOKENS = 1024
POWER = 4  # of the mean that is a column's size: between the usual (2) and the largest
LEAST = 1e-5  # of the largest column: columns are never taken to be smaller


def quantized_rows(job: Job, of: LoadTensor | None = None) -> Quantized:
    """All matrices in 8 bits by row, but experts and routers, which stay as they come.

    `of` gives tensors in the place of the source's own: those that a package keeps.
    """
    original = of or job.source.load
    groups = [group for group in find_groups(job.config, original) if ".experts." not in group.names[0]]
    segments = calibration_segments(job.files, CALIBRATION_TOKENS, job.plan.calibration)
    sizes = column_sizes(job.config, original, segments, job.progress)
    factors = {name: own for group in groups for name, own in _factors(group, sizes, original).items()}
    made = frozenset(name for group in groups for name in group.names)
    tables: dict[str, BlockTensor] = {}  # asked for many times when a graph is checked

    def load(name: str) -> Tensor:
        if name not in made:
            return original(name)
        if name in tables:
            return tables[name]
        tensor = nearest_rows(original(name), factors.get(name))
        if name in (EMBEDDINGS, HEAD):
            tables[name] = tensor
        return tensor

    return Quantized("rows", load, made)


class _Measuring(ReferenceDecoder):
    """Notes the size of every column of the inputs of every matrix."""

    def __init__(
        self, config: DecoderConfig, load: LoadTensor, segments: Sequence[Sequence[int]], progress: Progress
    ) -> None:
        super().__init__(config, load, [token for segment in segments for token in segment], [*map(len, segments)])
        self.sizes: dict[str, Floats] = {}
        self._progress = progress

    def project(self, x: Floats, name: str) -> Floats:
        if len(x):  # an expert may see no token
            self.sizes[name] = size_of(x)
        self._progress("measure activations", len(self.sizes))
        return super().project(x, name)


def column_sizes(
    config: DecoderConfig, load: LoadTensor, segments: Sequence[Sequence[int]], progress: Progress
) -> dict[str, Floats]:
    """Sizes [cols] of the columns of what every matrix is multiplied with, the output head's too."""
    decoder = _Measuring(config, load, segments, progress)
    run_reference(decoder)
    head = EMBEDDINGS if config.tied_embeddings else HEAD
    return decoder.sizes | {head: size_of(decoder.hidden)}


def size_of(x: Floats) -> Floats:
    """The mean of the fourth powers, and its fourth root, of every column of x [tokens, cols]."""
    means = np.mean(np.square(np.square(x, dtype=np.float64)), axis=0)
    size: Floats = (means ** (1 / POWER)).astype(np.float32)
    return size


def _factors(group: Group, sizes: Mapping[str, Floats], load: LoadTensor) -> dict[str, Floats]:
    """Factors of the columns of a group, which reads the same inputs: the same for all its matrices."""
    if group.names[0] not in sizes:  # a token table that is only looked up
        return {}
    largest = np.max([np.max(np.abs(load(name).dequantize()), axis=0) for name in group.names], axis=0)
    factors = balance(sizes[group.names[0]], largest)
    return dict.fromkeys(group.names, factors)


def balance(inputs: Floats, weights: Floats) -> Floats:
    """Factors [cols] that make columns of these sizes alike in inputs and weights; their geometric mean is 1."""
    if not inputs.any() or not weights.any():
        return np.ones_like(inputs)
    of_inputs, of_weights = (np.maximum(size, LEAST * size.max()) for size in (inputs, weights))
    logs = (np.log(of_inputs) - np.log(of_weights)) / 2
    factors: Floats = np.exp(logs - logs.mean()).astype(np.float32)
    return factors


def nearest_rows(tensor: Tensor, factors: Floats | None = None) -> BlockTensor:
    """A matrix [rows, cols], its columns times `factors`, with one scale for each row; some rows at a time."""
    rows, cols = tensor.shape
    codes, scales = np.empty((rows, cols), np.uint8), np.empty((rows, 1), np.float32)
    undone = None if factors is None else np.divide(1, factors, dtype=np.float32)
    for start in range(0, rows, ROWS_AT_ONCE):
        values = tensor.rows(start, start + ROWS_AT_ONCE).dequantize()
        if factors is not None:
            values = values * factors
        own = np.abs(values).max(axis=1, keepdims=True) / np.float32(LARGEST)
        scales[start : start + ROWS_AT_ONCE] = own
        inverse = np.divide(1, own, out=np.zeros_like(own), where=own != 0)
        codes[start : start + ROWS_AT_ONCE] = np.rint(values * inverse) + ZERO
    return BlockTensor(BITS, cols, ZERO, codes, scales, column_scales=undone)
