"""Decoders of the GGUF types in super-blocks of 256 values: Q2_K to Q6_K and IQ4_XS.

A super-block keeps a float16 step, and for each of its 8 or 16 blocks a small integer: the block's scale is their
product. Products of a float16 (11 bits) and at most 8 bits are exact in float32. Minimums are made the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edgeai.sources.gguf_unpack import CODEBOOK, Bytes, Shape, fields, grouped_nibbles
from edgeai.sources.weights import BlockTensor, SuperScales

SUPER = 256  # values of a super-block


def _q2_k(raw: Bytes, shape: Shape) -> BlockTensor:
    """84 bytes: 16 nibble pairs (scale, minimum), 256 codes of 2 bits, two float16 steps.

    value = step * scale * code - minimum step * minimum. The codes lie in a 4-bit container: the operator's fast
    path for 2 bits begins at blocks of 32, and these have 16 values.
    """
    blocks = raw.reshape(-1, 84)
    codes = fields(blocks[:, 16:80], 2, 32) + np.uint8(6)
    scales = _scales(blocks, 80, blocks[:, :16] & np.uint8(15), shape)
    minimums = _scales(blocks, 82, -(blocks[:, :16] >> 4).astype(np.int8), shape)
    return _tensor(4, 16, 6, codes, shape, scales, minimums)


def _q3_k(raw: Bytes, shape: Shape) -> BlockTensor:
    """110 bytes: 256 third bits, 256 codes of 2 bits, 16 scales of 6 bits, float16 step.

    value = step * (scale - 32) * (code - 4), with the third bit as the code's highest.
    """
    blocks = raw.reshape(-1, 110)
    codes = fields(blocks[:, 32:96], 2, 32) | (fields(blocks[:, :32], 1, 32) << np.uint8(2))
    low, high = fields(blocks[:, 96:104], 4, 8), fields(blocks[:, 104:108], 2, 4)
    multiples = (low | (high << 4)).astype(np.int8) - np.int8(32)
    return _tensor(4, 16, 8, codes + np.uint8(4), shape, _scales(blocks, 108, multiples, shape))


def _q4_k(raw: Bytes, shape: Shape) -> BlockTensor:
    """144 bytes: two float16 steps, 8 scales and 8 minimums of 6 bits, 256 nibbles.

    value = step * scale * nibble - minimum step * minimum.
    """
    blocks = raw.reshape(-1, 144)
    multiples, minimums = _six_bit_pairs(blocks[:, 4:16])
    scales = _scales(blocks, 0, multiples, shape)
    return _tensor(4, 32, 0, grouped_nibbles(blocks[:, 16:], 32), shape, scales, _scales(blocks, 2, -minimums, shape))


def _q5_k(raw: Bytes, shape: Shape) -> BlockTensor:
    """176 bytes: as Q4_K, with 256 fifth bits before the nibbles. Codes are moved up by 112."""
    blocks = raw.reshape(-1, 176)
    multiples, minimums = _six_bit_pairs(blocks[:, 4:16])
    codes = (grouped_nibbles(blocks[:, 48:], 32) | (fields(blocks[:, 16:48], 1, 32) << np.uint8(4))) + np.uint8(112)
    scales = _scales(blocks, 0, multiples, shape)
    return _tensor(8, 32, 112, codes, shape, scales, _scales(blocks, 2, -minimums, shape))


def _q6_k(raw: Bytes, shape: Shape) -> BlockTensor:
    """210 bytes: 256 nibbles, 256 pairs of upper bits, 16 signed bytes as scales, float16 step.

    value = step * scale * (code - 32). Codes are moved up by 96.
    """
    blocks = raw.reshape(-1, 210)
    codes = (grouped_nibbles(blocks[:, :128], 64) | (fields(blocks[:, 128:192], 2, 32) << np.uint8(4))) + np.uint8(96)
    multiples = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return _tensor(8, 16, 128, codes, shape, _scales(blocks, 208, multiples, shape))


def _iq4_xs(raw: Bytes, shape: Shape) -> BlockTensor:
    """136 bytes: float16 step, 8 scales of 6 bits (upper two, then lower four), 256 nibbles.

    value = step * (scale - 32) * codebook[nibble]. Codes are codebook entries plus 128.
    """
    blocks = raw.reshape(-1, 136)
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16)
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=-1).reshape(-1, 8)
    multiples = (low | ((high.astype(np.uint8) & 3) << 4)).astype(np.int8) - np.int8(32)
    codes = CODEBOOK[grouped_nibbles(blocks[:, 8:], 16)]
    return _tensor(8, 32, 128, codes, shape, _scales(blocks, 0, multiples, shape))


def _six_bit_pairs(packed: Bytes) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """The 8 scales and 8 minimums of Q4_K and Q5_K from their 12 bytes (`get_scale_min_k4`)."""
    first, second, mixed = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (mixed & 15) | ((first >> 2) & 48)], axis=1)
    minimums = np.concatenate([second & 63, (mixed >> 4) | ((second >> 2) & 48)], axis=1)
    return scales.astype(np.int8), minimums.astype(np.int8)


def _scales(blocks: Bytes, at: int, multiples: NDArray[np.uint8] | NDArray[np.int8], shape: Shape) -> SuperScales:
    """Scales [rows, blocks of a row] from the float16 at byte `at` of each super-block and its integers."""
    steps = np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float16)
    rows = shape[0]
    return SuperScales(steps.reshape(rows, -1), multiples.astype(np.int8).reshape(rows, -1))


def _tensor(
    bits: int,
    block_size: int,
    zero_point: int,
    codes: Bytes,
    shape: Shape,
    scales: SuperScales,
    minimums: SuperScales | None = None,
) -> BlockTensor:
    return BlockTensor(
        bits,
        block_size,
        zero_point,
        codes.reshape(shape),
        scales.values(),
        None if minimums is None else minimums.values(),
        super_scales=scales,
        super_minimums=minimums,
    )


SUPER_BLOCK_DECODERS: Mapping[str, Callable[[Bytes, Shape], BlockTensor]] = {
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_XS": _iq4_xs,
}
