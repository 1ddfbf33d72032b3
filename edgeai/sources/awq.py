"""Checkpoints quantized by AWQ in the form called "gemm" (AutoAWQ): `qweight`, `qzeros` and `scales` of each matrix.

With `in` columns, `out` rows and groups of columns that share a scale, after AutoAWQ's `WQLinear_GEMM`::

    qweight  int32 [in, out / 8]        4-bit codes, packed along the rows
    qzeros   int32 [groups, out / 8]    zero points, packed alike
    scales   float16 [groups, out]

The value is ``scale * (code - zero point)``. Each word holds eight rows in the order 0, 2, 4, 6, 1, 3, 5, 7, from its
lowest bits on. What AWQ scaled before it quantized is already undone in the layers before, as in any checkpoint of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeai.sources.checkpoint_entries import Arrays, Entry
from edgeai.sources.packed_integers import Codes, blocks, group_of, read_words, require_matrix, require_shape, unpack
from edgeai.sources.quantized_parts import Parts, collect, integer, require
from edgeai.sources.safetensors import FLOATS, StoredArray
from edgeai.sources.weights import BlockTensor, TensorInfo

SUFFIXES = ("qweight", "qzeros", "scales")
BITS = 4
PER_WORD = 8
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # where in its word each row is


def read_awq(arrays: Arrays, quantization: Mapping[str, Any]) -> tuple[dict[str, Entry], Arrays]:
    """The packed matrices by name, and the arrays that belong to none. Raises `UnsupportedModel` by name."""
    bits = integer(quantization, "bits", "w_bit")
    require(bits == BITS, f"AWQ with {bits} bits", "4 bits are supported")
    version = str(quantization.get("version") or "gemm").lower()
    require(version == "gemm", f"the AWQ form {version!r}", 'save it as "gemm"')
    require(quantization.get("zero_point", True) is True, "AWQ without zero points")
    group_size = integer(quantization, "group_size", "q_group_size")
    modules, rest = collect(arrays, SUFFIXES)
    entries = {}
    for name, parts in modules.items():
        matrix = _Matrix(parts, group_size)
        entries[f"{name}.weight"] = Entry(TensorInfo(f"{name}.weight", matrix.shape, f"AWQ{BITS}"), matrix.read)
    return entries, rest


class _Matrix:
    """One packed matrix, its parts checked against each other."""

    def __init__(self, parts: Parts, group_size: int) -> None:
        words = parts["qweight"]
        require_matrix(words, "I32")
        columns, rows = words.shape[0], words.shape[1] * PER_WORD
        self.shape = (rows, columns)
        self._parts = parts
        self._group = group_of(columns, group_size, words.where)
        groups = columns // self._group
        require_shape(parts["qzeros"], ("I32",), groups, words.shape[1])
        require_shape(parts["scales"], FLOATS, groups, rows)

    def read(self) -> BlockTensor:
        parts = self._parts
        scales = np.ascontiguousarray(parts["scales"].floats().values.T)
        codes, points = _rows(parts["qweight"]), np.ascontiguousarray(_rows(parts["qzeros"]))
        return blocks(BITS, self._group, codes, scales, points, parts["qweight"].where)


def _rows(array: StoredArray) -> Codes:
    """Integers [rows, n] of words [n, rows / 8], rows in their own order."""
    codes = unpack(read_words(array), BITS, axis=1)
    words = codes.reshape(len(codes), -1, PER_WORD)
    return words[..., PLACES].reshape(len(codes), -1).T
