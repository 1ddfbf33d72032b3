"""Checkpoints quantized by GPTQ (AutoGPTQ, GPTQModel): each matrix in `qweight`, `qzeros`, `scales` and `g_idx`.

With `in` columns, `out` rows and groups of columns that share a scale, after GPTQModel's documentation and code::

    qweight  int32 [in * bits / 32, out]        codes, packed along the columns
    qzeros   int32 [groups, out * bits / 32]    zero points, packed along the rows
    scales   float16 [groups, out]
    g_idx    int32 [in]                         the group of each column

The value is ``scale * (code - zero point)``. The format called "gptq" stores zero points minus one, subtracted from
whole words: adding one to each with the carry gives back all that were stored, 0 included. "gptq_v2" stores them as
they are. With `desc_act` ("act-order") columns were quantized in the order of their importance, and groups are
scattered unless they were fixed before; they are then put together, and the order of columns is kept beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import UnsupportedModel
from edgeai.sources.checkpoint_entries import Arrays, Entry
from edgeai.sources.checkpoint_files import CONFIG
from edgeai.sources.packed_integers import (
    WORD_BITS,
    blocks,
    group_of,
    read_words,
    require_matrix,
    require_shape,
    unpack,
)
from edgeai.sources.quantized_parts import Parts, collect, integer, require
from edgeai.sources.safetensors import StoredArray
from edgeai.sources.weights import BlockTensor, TensorInfo

SUFFIXES = ("qweight", "qzeros", "scales", "g_idx")
FORMATS = ("gptq", "gptq_v2")
WIDTHS = (4, 8)
ONES = {4: 0x11111111, 8: 0x01010101}
SCALE_TYPES = ("F16", "BF16", "F32")


def read_gptq(arrays: Arrays, quantization: Mapping[str, Any]) -> tuple[dict[str, Entry], Arrays]:
    """The packed matrices by name, and the arrays that belong to none. Raises `UnsupportedModel` by name."""
    bits = integer(quantization, "bits")
    require(bits in WIDTHS, f"GPTQ with {bits} bits", "4 and 8 bits are supported")
    form = quantization.get("checkpoint_format") or "gptq"
    require(form in FORMATS and not quantization.get("is_marlin_format"), f"the GPTQ form {form!r}", "save it as gptq")
    require(not quantization.get("dynamic"), "GPTQ with settings of its own for some modules (dynamic)")
    group_size = integer(quantization, "group_size")
    modules, rest = collect(arrays, SUFFIXES, optional=("g_idx",))
    symmetric = bool(quantization.get("sym", True))
    entries = {}
    for name, parts in modules.items():
        matrix = _Matrix(parts, bits, group_size, form == "gptq", symmetric)
        entries[f"{name}.weight"] = Entry(TensorInfo(f"{name}.weight", matrix.shape, f"GPTQ{bits}"), matrix.read)
    return entries, rest


class _Matrix:
    """One packed matrix, its parts checked against each other."""

    def __init__(self, parts: Parts, bits: int, group_size: int, minus_one: bool, symmetric: bool) -> None:
        words = parts["qweight"]
        require_matrix(words, "I32")
        rows, columns = words.shape[1], words.shape[0] * WORD_BITS // bits
        self.shape = (rows, columns)
        self._parts, self._bits, self._minus_one, self._symmetric = parts, bits, minus_one, symmetric
        self._group = group_of(columns, group_size, words.where)
        groups = columns // self._group
        require_shape(parts["qzeros"], ("I32",), groups, rows * bits // WORD_BITS)
        require_shape(parts["scales"], SCALE_TYPES, groups, rows)
        if "g_idx" in parts:
            require_shape(parts["g_idx"], ("I32", "I64"), columns)

    def read(self) -> BlockTensor:
        bits, parts, where = self._bits, self._parts, self._parts["qweight"].where
        codes = unpack(read_words(parts["qweight"]), bits, axis=0).T
        order = _column_order(parts["g_idx"], self._group) if "g_idx" in parts else None
        codes = codes if order is None else codes[:, order]
        scales = np.ascontiguousarray(parts["scales"].floats().values.T)
        return replace(blocks(bits, self._group, codes, scales, self._zero_points(), where), columns=order)

    def _zero_points(self) -> NDArray[np.uint8] | None:
        """[rows, groups], or None where the whole matrix has the symmetric one."""
        words = read_words(self._parts["qzeros"])
        if self._minus_one:
            words = words + np.uint32(ONES[self._bits])
        points = np.ascontiguousarray(unpack(words, self._bits, axis=1).T)
        if self._symmetric and (points == 1 << (self._bits - 1)).all():
            return None
        return points


def _column_order(array: StoredArray, group: int) -> NDArray[np.intp] | None:
    """The order of columns that puts each group together, or None where they are so already."""
    groups = array.read().astype(np.int64)
    counts = np.bincount(groups, minlength=len(groups) // group) if (groups >= 0).all() else np.zeros(1)
    if len(counts) != len(groups) // group or not (counts == group).all():
        raise UnsupportedModel(f"{array.where}: groups are not of {group} columns each", f"{CONFIG} says so")
    order = np.argsort(groups, kind="stable")
    return None if (order == np.arange(len(groups))).all() else order
