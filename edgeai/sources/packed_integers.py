"""Integers of 4 or 8 bits packed into 32-bit words, as checkpoints quantized for GPUs have them, and their blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.checkpoint_files import INCOMPLETE
from edgeai.sources.safetensors import StoredArray
from edgeai.sources.weights import BlockTensor

WORD_BITS = 32
LARGEST_BLOCK = (
    128  # values; larger groups are cut, their scale repeated: onnxruntime's kernels are made for small blocks
)
SMALLEST_BLOCK = 16
SYMMETRIC_ZERO = {4: 8, 8: 128}

Codes = NDArray[np.uint8]


def unpack(words: NDArray[Any], bits: int, axis: int) -> Codes:
    """The integers of 32-bit `words`, lowest bits first, laid out along `axis`, which grows by 32 / bits."""
    per_word = WORD_BITS // bits
    shape = list(words.shape)
    shape[axis] *= per_word
    codes = np.empty(shape, np.uint8)
    every = [slice(None)] * words.ndim
    for number in range(per_word):
        every[axis] = slice(number, None, per_word)
        codes[tuple(every)] = (words >> (number * bits)) & (2**bits - 1)
    return codes


def read_words(array: StoredArray) -> NDArray[np.uint32]:
    """The 32-bit words of an array that was checked to be of type I32."""
    words: NDArray[np.uint32] = array.read().view(np.uint32)
    return words


def require_matrix(array: StoredArray, dtype: str) -> None:
    """Raise `SourceError` that names the tensor unless it is a matrix of this type."""
    if len(array.shape) != 2 or array.dtype != dtype:
        what = f"{array.dtype} of shape {list(array.shape)} where a matrix of {dtype} belongs"
        raise SourceError(f"{array.where} is {what}", INCOMPLETE)


def require_shape(array: StoredArray, dtypes: tuple[str, ...], *shape: int) -> None:
    """Raise `SourceError` that names the tensor where type or shape are not what the other parts ask for."""
    if array.shape != shape or array.dtype not in dtypes:
        wanted = f"{' or '.join(dtypes)} of shape {list(shape)}"
        raise SourceError(
            f"{array.where} is {array.dtype} of shape {list(array.shape)} where {wanted} belongs", INCOMPLETE
        )


def group_of(columns: int, group_size: int, where: str) -> int:
    """Columns that share a scale: `group_size`, or all of them where it is -1. Raises `UnsupportedModel`."""
    size = columns if group_size == -1 else group_size
    block_of(size, where)
    if columns % size:
        raise UnsupportedModel(
            f"{where}: {columns} columns do not divide into groups of {size}", "use a model with smaller groups"
        )
    return size


def block_of(group: int, where: str) -> int:
    """The block that a group is stored in: the group itself, or the largest power of two it can be cut into."""
    block = min(group & -group, LARGEST_BLOCK)
    if block < SMALLEST_BLOCK:
        raise UnsupportedModel(f"{where}: groups of {group} values cannot be stored exactly", "use the float model")
    return block


def blocks(
    bits: int, group: int, codes: Codes, scales: NDArray[Any], zero_points: Codes | None, where: str
) -> BlockTensor:
    """A matrix [rows, cols] with `scales` and `zero_points` [rows, cols // group]; without the latter symmetric."""
    block = block_of(group, where)
    repeat = group // block
    if repeat > 1:
        scales = scales.repeat(repeat, axis=1)
        zero_points = None if zero_points is None else zero_points.repeat(repeat, axis=1)
    zero = SYMMETRIC_ZERO[bits]
    return BlockTensor(bits, block, zero, np.ascontiguousarray(codes), scales, zero_points=zero_points)
