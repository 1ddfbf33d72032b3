"""Decoders of GGUF tensor types: from a tensor's bytes to values, or to codes and scales on their own grid.

Block layouts after ggml-common.h, values after ggml-quants.c (`dequantize_row_*`); nothing is rounded or re-quantized.
5- and 6-bit codes, and the 16 values of IQ4's codebook, become codes of 8 bits. Codes lie around the middle of their
container wherever they leave room for that: the further away, the more the rounding of int8 activations costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.sources.gguf_super_blocks import SUPER_BLOCK_DECODERS
from edgeai.sources.gguf_unpack import CODEBOOK, Bytes, Shape, high_bits, nibbles
from edgeai.sources.weights import BlockTensor, FloatTensor, Tensor

BLOCK = 32


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
    return BlockTensor(4, BLOCK, 8, nibbles(blocks[:, 2:]).reshape(shape), _halves(blocks, 0, shape))


def _q4_1(raw: Bytes, shape: Shape) -> BlockTensor:
    """20 bytes: float16 scale, float16 minimum, 32 nibbles; value = scale * nibble + minimum."""
    blocks = raw.reshape(-1, 20)
    codes = nibbles(blocks[:, 4:]).reshape(shape)
    return BlockTensor(4, BLOCK, 0, codes, _halves(blocks, 0, shape), _halves(blocks, 2, shape))


def _q5_0(raw: Bytes, shape: Shape) -> BlockTensor:
    """22 bytes: float16 scale, 32 fifth bits, 32 nibbles; value = scale * (code - 16). Codes are moved up by 112."""
    blocks = raw.reshape(-1, 22)
    codes = (nibbles(blocks[:, 6:]) | high_bits(blocks[:, 2:6])) + np.uint8(112)
    return BlockTensor(8, BLOCK, 128, codes.reshape(shape), _halves(blocks, 0, shape))


def _q5_1(raw: Bytes, shape: Shape) -> BlockTensor:
    """24 bytes: float16 scale, float16 minimum, 32 fifth bits, 32 nibbles; value = scale * code + minimum."""
    blocks = raw.reshape(-1, 24)
    codes = (nibbles(blocks[:, 8:]) | high_bits(blocks[:, 4:8])) + np.uint8(112)
    return BlockTensor(8, BLOCK, 112, codes.reshape(shape), _halves(blocks, 0, shape), _halves(blocks, 2, shape))


def _q8_0(raw: Bytes, shape: Shape) -> BlockTensor:
    """34 bytes: float16 scale, 32 signed bytes; value = scale * byte. Codes are the bytes plus 128."""
    blocks = raw.reshape(-1, 34)
    return BlockTensor(8, BLOCK, 128, (blocks[:, 2:] ^ np.uint8(0x80)).reshape(shape), _halves(blocks, 0, shape))


def _iq4_nl(raw: Bytes, shape: Shape) -> BlockTensor:
    """18 bytes: float16 scale, 32 nibbles; value = scale * codebook[nibble]. Codes are codebook entries plus 128."""
    blocks = raw.reshape(-1, 18)
    return BlockTensor(8, BLOCK, 128, CODEBOOK[nibbles(blocks[:, 2:])].reshape(shape), _halves(blocks, 0, shape))


def _halves(blocks: Bytes, at: int, shape: Shape) -> NDArray[np.floating[Any]]:
    values: NDArray[np.floating[Any]] = np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float16)
    return values.reshape(shape[0], shape[1] // BLOCK)


DECODERS: Mapping[str, Callable[[Bytes, Shape], Tensor]] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "IQ4_NL": _iq4_nl,
    **SUPER_BLOCK_DECODERS,
}
FLOATS = frozenset({"F32", "F16", "BF16"})
