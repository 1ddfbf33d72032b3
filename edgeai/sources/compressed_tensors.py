"""Checkpoints of compressed-tensors (llm-compressor) in the form "pack-quantized": integer weights, float activations.

With `in` columns, `out` rows and groups of columns that share a scale, after the library's `pack_quantized`::

    weight_packed      int32 [out, in * bits / 32]      codes plus half their range, packed along the columns
    weight_scale       float [out, groups]
    weight_zero_point  int32 [out * bits / 32, groups]  packed along the rows; or int8 [out, groups]; or not there
    weight_shape       int [2]                          out, in
    weight_g_idx       int32 [in]                       only where groups are scattered

The value is ``scale * (code - zero point)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeai.errors import SourceError
from edgeai.sources.checkpoint_entries import Arrays, Entry
from edgeai.sources.checkpoint_files import CONFIG, INCOMPLETE
from edgeai.sources.packed_integers import (
    WORD_BITS,
    Codes,
    blocks,
    group_of,
    read_words,
    require_matrix,
    require_shape,
    unpack,
)
from edgeai.sources.quantized_parts import Parts, collect, integer, require
from edgeai.sources.safetensors import FLOATS
from edgeai.sources.weights import BlockTensor, TensorInfo

FORM = "pack-quantized"
SUFFIXES = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")
WIDTHS = (4, 8)


def read_compressed_tensors(arrays: Arrays, quantization: Mapping[str, Any]) -> tuple[dict[str, Entry], Arrays]:
    """The packed matrices by name, and the arrays that belong to none. Raises `UnsupportedModel` by name."""
    form = quantization.get("format")
    require(form == FORM, f"the compressed-tensors form {form!r}", f"{FORM!r} with 4 or 8 bits is supported")
    weights = _only_group(quantization)
    bits = integer(weights, "num_bits")
    require(bits in WIDTHS and weights.get("type", "int") == "int", f"compressed-tensors with {bits} bits")
    strategy = weights.get("strategy") or "group"
    require(strategy in ("group", "channel"), f"the compressed-tensors strategy {strategy!r}")
    group_size = integer(weights, "group_size") if strategy == "group" else -1
    modules, rest = collect(arrays, SUFFIXES, optional=("weight_zero_point", "weight_g_idx"))
    entries = {}
    for name, parts in modules.items():
        matrix = _Matrix(parts, bits, group_size)
        entries[f"{name}.weight"] = Entry(TensorInfo(f"{name}.weight", matrix.shape, f"INT{bits}"), matrix.read)
    return entries, rest


def _only_group(quantization: Mapping[str, Any]) -> Mapping[str, Any]:
    """How weights are quantized, which has to be the same for all modules, with activations left as they are."""
    groups = quantization.get("config_groups")
    require(isinstance(groups, Mapping) and len(groups) == 1, "compressed-tensors with several groups of modules")
    (group,) = groups.values() if isinstance(groups, Mapping) else ({},)
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        raise SourceError(f"{CONFIG}: quantization_config says nothing of weights", INCOMPLETE)
    require(not group.get("input_activations"), "compressed-tensors with quantized activations")
    return weights


class _Matrix:
    """One packed matrix, its parts checked against each other."""

    def __init__(self, parts: Parts, bits: int, group_size: int) -> None:
        words = parts["weight_packed"]
        require_matrix(words, "I32")
        require_shape(parts["weight_shape"], ("I32", "I64"), 2)
        require("weight_g_idx" not in parts, f"{words.where}: scattered groups (actorder)")
        rows, columns = (int(extent) for extent in parts["weight_shape"].read())
        self.shape = (rows, columns)
        self._parts, self._bits = parts, bits
        self._group = group_of(columns, group_size, words.where)
        groups = columns // self._group
        require_shape(words, ("I32",), rows, -(-columns * bits // WORD_BITS))
        require_shape(parts["weight_scale"], FLOATS, rows, groups)
        points = parts.get("weight_zero_point")
        if points is not None:
            packed = points.dtype == "I32"
            require_shape(points, ("I32", "I8"), -(-rows * bits // WORD_BITS) if packed else rows, groups)

    def read(self) -> BlockTensor:
        parts = self._parts
        codes = unpack(read_words(parts["weight_packed"]), self._bits, axis=1)[:, : self.shape[1]]
        scales = parts["weight_scale"].floats().values
        return blocks(self._bits, self._group, codes, scales, self._zero_points(), parts["weight_packed"].where)

    def _zero_points(self) -> Codes | None:
        """[rows, groups]; None where the grid is symmetric."""
        array = self._parts.get("weight_zero_point")
        if array is None:
            return None
        if array.dtype == "I32":
            return unpack(read_words(array), self._bits, axis=0)[: self.shape[0]]
        return (array.read().astype(np.int16) + (1 << (self._bits - 1))).astype(np.uint8)
