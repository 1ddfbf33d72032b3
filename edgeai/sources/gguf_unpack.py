"""Bits of GGUF blocks as codes of one byte each; shared by the decoders of all quantized types."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Shape = tuple[int, ...]

# kvalues_iq4nl of ggml-common.h, as codes around 128.
CODEBOOK = (np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]) + 128).astype(np.uint8)


def nibbles(packed: Bytes) -> Bytes:
    """[n, k] bytes → [n, 2k] codes: the low nibbles of a group's bytes come first, then the high ones."""
    count, width = packed.shape
    codes = np.empty((count, 2 * width), np.uint8)
    np.bitwise_and(packed, 15, out=codes[:, :width])
    np.right_shift(packed, 4, out=codes[:, width:])
    return codes


def grouped_nibbles(packed: Bytes, width: int) -> Bytes:
    """`nibbles` of each `width` bytes in turn: [n, k] bytes → [n, 2k] codes."""
    count = len(packed)
    return nibbles(np.ascontiguousarray(packed).reshape(-1, width)).reshape(count, -1)


def high_bits(packed: Bytes) -> Bytes:
    """[n, 4] bytes, a bit for each of 32 codes, the first in the lowest → [n, 32], as the code's fifth bit."""
    return np.unpackbits(packed, axis=1, bitorder="little") << np.uint8(4)


def fields(packed: Bytes, bits: int, width: int) -> Bytes:
    """[n, k] bytes of `bits`-bit fields (1, 2 or 4) → [n, 8k / bits] codes.

    Of each `width` bytes in turn, first the lowest field of every byte, then the next.
    """
    count = len(packed)
    groups = np.ascontiguousarray(packed).reshape(count, -1, 1, width)
    shifts = np.arange(0, 8, bits, dtype=np.uint8).reshape(-1, 1)
    codes: Bytes = (groups >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(count, -1)
