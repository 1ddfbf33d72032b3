"""Decoders of GGUF tensor types: from a tensor's bytes to values, or to codes and scales on their own grid.

Block layouts after ggml-common.h (`block_q4_0`, `block_q4_1`, `block_q8_0`); nothing is rounded or re-quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.sources.weights import BlockTensor, FloatTensor, Tensor

BLOCK = 32
Bytes = NDArray[np.uint8]
Shape = tuple[int, ...]


def _f32(raw: Bytes, shape: Shape) -> FloatTensor:
    return FloatTensor(raw.view("<f4").reshape(shape).astype(np.float32))


def _f16(raw: Bytes, shape: Shape) -> FloatTensor:
    return FloatTensor(raw.view("<f2").reshape(shape).astype(np.float16))


def _bf16(raw: Bytes, shape: Shape) -> FloatTensor:
    """bfloat16 is the upper half of a float32."""
    return FloatTensor((raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape))


def _q4_0(raw: Bytes, shape: Shape) -> BlockTensor:
    """18 bytes: float16 scale, 32 nibbles; value = scale * (nibble - 8)."""
    blocks = raw.reshape(-1, 18)
    return BlockTensor(4, BLOCK, 8, _nibbles(blocks[:, 2:], shape), _halves(blocks, 0, shape))


def _q4_1(raw: Bytes, shape: Shape) -> BlockTensor:
    """20 bytes: float16 scale, float16 minimum, 32 nibbles; value = scale * nibble + minimum."""
    blocks = raw.reshape(-1, 20)
    return BlockTensor(
        4, BLOCK, 0, _nibbles(blocks[:, 4:], shape), _halves(blocks, 0, shape), _halves(blocks, 2, shape)
    )


def _q8_0(raw: Bytes, shape: Shape) -> BlockTensor:
    """34 bytes: float16 scale, 32 signed bytes; value = scale * byte. Codes are the bytes plus 128."""
    blocks = raw.reshape(-1, 34)
    return BlockTensor(8, BLOCK, 128, (blocks[:, 2:] ^ np.uint8(0x80)).reshape(shape), _halves(blocks, 0, shape))


def _nibbles(packed: Bytes, shape: Shape) -> Bytes:
    """The low nibbles of a block's 16 bytes are its first 16 values, the high nibbles the rest."""
    codes = np.empty((len(packed), BLOCK), np.uint8)
    np.bitwise_and(packed, 15, out=codes[:, :16])
    np.right_shift(packed, 4, out=codes[:, 16:])
    return codes.reshape(shape)


def _halves(blocks: Bytes, at: int, shape: Shape) -> NDArray[np.floating[Any]]:
    values: NDArray[np.floating[Any]] = np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float16)
    return values.reshape(shape[0], shape[1] // BLOCK)


DECODERS: Mapping[str, Callable[[Bytes, Shape], Tensor]] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q8_0": _q8_0,
}
