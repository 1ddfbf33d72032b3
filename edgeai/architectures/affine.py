"""The minimums of an affine grid as further columns of its matrix, so that one product does it all.

With offsets m' for each block, ``W x = W0 x + m' S`` where S are the sums of the blocks of x. Written as operators of
its own, the second term takes two more for each product, and reads m' as floats. Here S is appended to x, and m' to the
codes of W0:

    [x, S, 0, S, 0] @ [codes, high, 0, low, 0].T          m' = s * (base * high + low)

with one step s for each row. Two digits of 4 bits keep an offset to a hundredth of a quantization step, which moves the
logits by a tenth of what rounding activations to int8 does (tests/build/test_exactness.py); two of 8 bits keep it all.
Zeros fill up a block and, because the kernels take four blocks at a time, four blocks: 640 columns in blocks of 32 are
read sooner than 576.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeai.sources.weights import BlockTensor

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]

BLOCKS_AT_ONCE = 4  # that onnxruntime's kernels read together (measured)


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns behind those of a matrix: for each digit a copy of the block sums, filled up with zeros."""

    sums: int  # blocks of the matrix
    block_size: int
    fills: tuple[int, int]  # zeros behind each copy

    @property
    def count(self) -> int:
        return 2 * self.sums + sum(self.fills)


def columns_for(inputs: int, block_size: int) -> Columns:
    """The columns that a matrix with `inputs` of its own gets; no block holds two digits, for it has one scale."""
    sums = inputs // block_size
    copy = -(-sums // block_size) * block_size
    every = BLOCKS_AT_ONCE * block_size
    rest = -(inputs + 2 * copy) % every
    return Columns(sums, block_size, (copy - sums, copy - sums + rest))


@dataclass(frozen=True, slots=True)
class Digits:
    """Offsets [rows, sums] as ``step * (base * high + low)``."""

    bits: int
    step: NDArray[np.float16]  # [rows]
    high: NDArray[np.int32]
    low: NDArray[np.int32]

    def values(self) -> Floats:
        """The offsets that are kept."""
        whole = (self.high << self.bits) + self.low
        return self.step.astype(np.float32)[:, None] * whole.astype(np.float32)


def digits_of(offsets: Floats, bits: int) -> Digits:
    """The nearest offsets that two digits of -2^(bits - 1) to 2^(bits - 1) - 1 give, with one step for each row."""
    base, zero = 1 << bits, 1 << (bits - 1)
    least, most = -zero * (base + 1), (zero - 1) * (base + 1)
    reach = np.maximum(offsets.max(axis=1) / most, offsets.min(axis=1) / least)
    step = reach.astype(np.float16)
    step = np.where(reach > 0, np.nextafter(step, np.float16(np.inf)), step)  # rounded up, so that all are reached
    inverse = np.divide(1, step, out=np.zeros(len(step), np.float32), where=step != 0, dtype=np.float32)
    whole = np.clip(np.rint(offsets * inverse[:, None]), least, most).astype(np.int32)
    low = (whole + zero) % base - zero
    return Digits(bits, step, (whole - low) // base, low)


def offset_columns(digits: Digits, columns: Columns) -> tuple[Codes, NDArray[np.float16]]:
    """Codes [rows, columns] and scales [rows, blocks] that multiply the sums with the offsets."""
    zero, rows = 1 << (digits.bits - 1), len(digits.step)
    second = columns.sums + columns.fills[0]
    codes = np.full((rows, columns.count), zero, np.uint8)
    codes[:, : columns.sums] = digits.high + zero
    codes[:, second : second + columns.sums] = digits.low + zero
    scales = np.empty((rows, columns.count // columns.block_size), np.float16)
    scales[:, : second // columns.block_size] = (digits.step * np.float16(1 << digits.bits))[:, None]
    scales[:, second // columns.block_size :] = digits.step[:, None]
    return codes, scales


def shift_of(tensor: BlockTensor) -> int:
    """Distance of the zero point from the symmetric one; blocks with zero points of their own need none."""
    return 0 if tensor.zero_points is not None else (1 << (tensor.bits - 1)) - tensor.zero_point


def is_affine(tensor: BlockTensor) -> bool:
    """Whether its blocks have offsets. Those with zero points of their own as well are left to the general form."""
    return tensor.zero_points is None and (tensor.minimums is not None or shift_of(tensor) != 0)


def offsets_of(tensor: BlockTensor) -> Floats:
    """M' [rows, blocks]: minimums, and scales times the distance of the zero point from the symmetric one."""
    offsets: Floats = tensor.scales.astype(np.float32) * np.float32(shift_of(tensor))
    return offsets if tensor.minimums is None else offsets + tensor.minimums.astype(np.float32)


def in_the_middle(tensor: BlockTensor) -> BlockTensor:
    """The same values with codes around the middle of their range, where offsets are smallest.

    Codes of five bits in a container of eight would have offsets of a hundred steps otherwise.
    """
    middle = 1 << (tensor.bits - 1)
    shift = middle - (int(tensor.codes.max(initial=0)) + 1) // 2
    return replace(tensor, codes=(tensor.codes + np.uint8(shift)), zero_point=tensor.zero_point + shift)
