"""How a KV block lies on disk: a header that says whose it is, and the bytes of its keys and values.

::

    magic (8 bytes), element type (8), key in the prefix cache (16), length of the payload (u64), digest (32), payload

The digest is over the owner, the key and the payload. So a block that was damaged is noticed, and so is one that came
to lie under another block's name, or in the folder of another model: equal tokens have equal keys in all of them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

MAGIC = b"EDGEKV2\n"
HEADER = struct.Struct("<8s8s16sQ32s")
Array = NDArray[Any]


class BlockFormat:
    """Blocks of one owner, shape and element type. `owner` names what computed them: model, type and block length."""

    def __init__(self, shape: Sequence[int], dtype: DTypeLike = np.float32, *, owner: str = "") -> None:
        self.shape, self.dtype, self.owner = tuple(shape), np.dtype(dtype), owner
        self.payload_bytes: int = int(np.prod(self.shape)) * self.dtype.itemsize
        self.block_bytes: int = HEADER.size + self.payload_bytes

    def pack(self, key: bytes, block: Array) -> tuple[bytes, memoryview]:
        """Header and payload of a block."""
        payload = np.ascontiguousarray(block, self.dtype).reshape(self.shape).data.cast("B")
        return self._header(key, payload), payload

    def buffer(self) -> bytearray:
        """Memory to read a block into, one after the other: new memory costs more than reading. It has a byte more, by
        which a file that is too long is noticed.
        """
        return bytearray(self.block_bytes + 1)

    def unpack(self, key: bytes, data: bytes | memoryview) -> Array | None:
        """The block of that key, in the memory of `data`; None for anything that is not just what `pack` made of it."""
        payload = memoryview(data)[HEADER.size :]
        if len(data) != self.block_bytes or data[: HEADER.size] != self._header(key, payload):
            return None
        return np.frombuffer(payload, self.dtype).reshape(self.shape)

    def key_of(self, header: bytes) -> bytes | None:
        """The key of the block that such a header begins; None where it is not of this format. Not verified yet."""
        if len(header) < HEADER.size:
            return None
        magic, dtype, key, length, _ = HEADER.unpack_from(header)
        return bytes(key) if (magic, dtype, length) == (MAGIC, self._type, self.payload_bytes) else None

    def _header(self, key: bytes, payload: memoryview) -> bytes:
        # blake2b is quick also on processors without SHA instructions, such as the Raspberry Pi 4's.
        digest = hashlib.blake2b(b"%s\0%s" % (self.owner.encode(), key), digest_size=32)
        digest.update(payload)
        return HEADER.pack(MAGIC, self._type, key, len(payload), digest.digest())

    @property
    def _type(self) -> bytes:
        return self.dtype.name.encode().ljust(8, b"\0")
