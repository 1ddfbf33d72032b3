"""How tensors are stored, counted while a graph is written."""

from __future__ import annotations

import math
from collections import Counter
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
        )

    def _kind(self, name: str, tensor: Tensor) -> str:
        """The source's word for its own tensors, such as Q4_1; the scheme's for those it made, such as GPTQ4."""
        if name in self._quantized.made and isinstance(tensor, BlockTensor):
            return f"{self._quantized.scheme.upper()}{tensor.bits}"
        return self._encodings[name]


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
