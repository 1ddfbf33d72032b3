"""Scales for an 8-bit KV cache, measured while the model read its calibration text."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray


def kv_scales_bytes(scales: NDArray[np.float16]) -> bytes:
    """The file `kv_scales.npy`: float16 [layers, 2, kv_heads, head_size], of keys (as cached) and of values.

    A cached number is ``scale * code`` with a code of -127 to 127.
    """
    buffer = io.BytesIO()
    np.save(buffer, scales.astype("<f2"), allow_pickle=False)
    return buffer.getvalue()
