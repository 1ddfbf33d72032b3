"""How tensors are stored, counted while a graph is written.

Float16 scales become float32 where weights keep the grid they come on: the same values in twice the bytes. onnxruntime
reads them from the file's pages then, instead of casting them into memory of its own, where they stay beside the packed
weights for good. A 4-bit weight in blocks of 32 takes half a bit more of the disk and a whole bit less of memory, which
is what small boards lack. Where a size was asked for, every byte on disk counts, and they stay float16.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.build.quantize.scheme import Quantized
from edgeai.package.manifest import Quantization
from edgeai.progress import Progress
from edgeai.sources.weights import BlockTensor, SuperScales, Tensor, WeightSource


class StoredTensors:
    """Tensors of a source in the form they are stored in, one at a time; keeps count for the manifest."""

    def __init__(self, source: WeightSource, quantized: Quantized, progress: Progress) -> None:
        self._quantized = quantized
        self._progress = progress
        self._encodings = {info.name: info.encoding for info in source.tensors}
        self._kinds: dict[str, str] = {}
        self._stored_bits: dict[str, float] = {}
        self._values: dict[str, int] = {}
        self._scale_bytes: dict[str, int] = {}  # of those that are stored as they are computed with

    @property
    def parameters(self) -> int:
        return sum(self._values.values())

    @property
    def loaded(self) -> frozenset[str]:
        """Names of the tensors that were loaded."""
        return frozenset(self._kinds)

    def load(self, name: str) -> Tensor:
        """One tensor as it will be stored."""
        tensor = self._quantized.load(name)
        if self._quantized.scheme == "source":
            tensor = with_float32_scales(tensor)
        if isinstance(tensor, BlockTensor) and tensor.super_scales is None and tensor.scales.dtype == np.float32:
            self._scale_bytes[name] = tensor.scales.nbytes
        self._values[name] = math.prod(tensor.shape)
        self._kinds[name] = self._kind(name, tensor)
        self._stored_bits[name] = stored_bits(tensor)
        self._progress("convert", len(self._kinds), len(self._encodings))
        return tensor

    def quantization(self) -> Quantization:
        """What the manifest says about it, after every tensor was loaded."""
        kinds = Counter(self._kinds.values())
        return Quantization(
            scheme="source" if set(self._kinds.values()) <= set(self._encodings.values()) else self._quantized.scheme,
            bits_per_weight=round(sum(self._stored_bits.values()) / self.parameters, 4),
            tensor_types=dict(sorted(kinds.items())),
            expected_kl=None if self._quantized.expected_kl is None else float(f"{self._quantized.expected_kl:.3g}"),
            scale_bytes=sum(self._scale_bytes.values()),
        )

    def _kind(self, name: str, tensor: Tensor) -> str:
        """The source's word for its own tensors, such as Q4_1; the scheme's for those it made, such as GPTQ4."""
        if name in self._quantized.made and isinstance(tensor, BlockTensor):
            return f"{self._quantized.scheme.upper()}{tensor.bits}"
        return self._encodings[name]


def with_float32_scales(tensor: Tensor) -> Tensor:
    """The same values; super-scales, which are a smaller form already, stay."""
    if not isinstance(tensor, BlockTensor) or tensor.super_scales is not None:
        return tensor
    return replace(tensor, scales=tensor.scales.astype(np.float32))


def stored_bits(tensor: Tensor) -> float:
    """Bits that a tensor takes in the weights file, codes with their scales, minimums and zero points."""
    if not isinstance(tensor, BlockTensor):
        return tensor.values.nbytes * 8
    points = 0 if tensor.zero_points is None else tensor.zero_points.size * tensor.bits
    scales = _float_bits(tensor.scales, tensor.super_scales)
    minimums = 0 if tensor.minimums is None else _float_bits(tensor.minimums, tensor.super_minimums)
    return tensor.codes.size * tensor.bits + points + scales + minimums


def _float_bits(values: NDArray[np.floating[Any]], small: SuperScales | None) -> int:
    return 8 * (values.nbytes if small is None else small.steps.nbytes + small.multiples.nbytes)
