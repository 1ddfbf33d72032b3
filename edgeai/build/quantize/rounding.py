"""Round-to-nearest as GGUF's formats do it: quick, and the plain oracle of what searches for something better."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeai.sources.weights import BlockTensor, FloatTensor, Tensor

BLOCK_SIZE = 32


def round_to_nearest(values: NDArray[np.float32], bits: int, block_size: int = BLOCK_SIZE) -> BlockTensor:
    """Symmetric blocks along the rows of a matrix [rows, cols].

    4 bits as in llama.cpp's Q4_0: the value of largest magnitude becomes code 0 (-8 steps), so that all sixteen
    codes are used. 8 bits as in Q8_0: steps of the largest magnitude / 127. Scales are float16, and codes are chosen
    for the scale as it is stored.
    """
    rows, cols = values.shape
    blocks = values.reshape(rows, cols // block_size, block_size)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), axis=-1)
    scales = (peak / -8 if bits == 4 else np.abs(peak) / 127).astype(np.float16)
    steps = scales.astype(np.float32)
    inverse = np.divide(1, steps, out=np.zeros_like(steps), where=steps != 0)
    zero = 1 << (bits - 1)
    codes = np.clip(np.rint(blocks * inverse) + zero, 0, 2 * zero - 1).astype(np.uint8)
    return BlockTensor(bits, block_size, zero, codes.reshape(rows, cols), scales[..., 0])


def quantize(name: str, tensor: Tensor, bits: int | None) -> Tensor:
    """The tensor as it will be stored: float matrices rounded to `bits`, all else untouched.

    The token table, which is also the output head of tied models, loses most by rounding and is kept at 8 bits. Routers
    of mixtures stay floats: they are small, and one wrong choice of experts costs more than all their bits.
    """
    if bits is None or not isinstance(tensor, FloatTensor) or tensor.values.ndim != 2 or is_router(name):
        return tensor
    if tensor.values.shape[1] % BLOCK_SIZE:
        return tensor
    table = "embed_tokens" in name or name == "lm_head.weight"
    return round_to_nearest(tensor.dequantize(), 8 if table else bits)


def is_router(name: str) -> bool:
    """Whether a matrix chooses among experts."""
    return name.endswith(".mlp.gate.weight")
