"""Where files are cut into chunks: by what is in them, so that what moved is known again.

A chunk ends after a block of 64 bytes (the alignment of tensors in weights.bin; erofs moves whole pages) whose hash has
all bits of a mask, as in the content-defined chunking of LBFS (Muthitacharoen et al., 2001), with a least and a most
size. The hash is over single blocks and not over a rolling window: numpy does it for a megabyte at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

BLOCK = 64  # bytes; cuts are at multiples of it
SMALLEST_MEAN, LARGEST_MEAN = 16 << 10, 1 << 20
LARGEST = 4 * LARGEST_MEAN  # bytes of a chunk, whoever made the bundle
MOST_CHUNKS = 16_384  # of a file, about: larger files have larger chunks, or their manifest would be large too
_READ = 1 << 20
_WORDS = BLOCK // 4
_FACTORS = (np.arange(1, _WORDS + 1, dtype=np.uint32) * np.uint32(2654435761)) | np.uint32(1)


def mean_for(size: int) -> int:
    """The mean size of chunks, in bytes, for a file of `size` bytes: a power of two."""
    mean = SMALLEST_MEAN
    while mean < LARGEST_MEAN and size > mean * MOST_CHUNKS:
        mean *= 2
    return mean


def cut(file: BinaryIO, mean: int) -> Iterator[bytes]:
    """The content of a file as chunks of about `mean` bytes, `mean // 4` to `4 * mean`; the last may be smaller."""
    least, most = mean // 4, 4 * mean
    window, ended = b"", False
    while True:
        while len(window) < most + _READ and not ended:
            piece = file.read(most + _READ - len(window))
            window, ended = window + piece, not piece
        if not window:
            return
        ends, at = _ends(window, mean), 0
        while len(window) - at >= most or (ended and at < len(window)):
            found = int(np.searchsorted(ends, at + least))
            end = int(ends[found]) if found < len(ends) else len(window)
            end = min(end, at + most)
            yield window[at:end]
            at = end
        window = window[at:]


def _ends(window: bytes, mean: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Offsets at which a chunk may end."""
    blocks = len(window) // BLOCK
    words = np.frombuffer(window, "<u4", blocks * _WORDS).reshape(blocks, _WORDS)
    hashed = (words * _FACTORS).sum(axis=1, dtype=np.uint32)
    hashed ^= hashed >> np.uint32(15)  # as murmur3 ends: every bit of the sum reaches those of the mask
    hashed *= np.uint32(2246822519)
    hashed ^= hashed >> np.uint32(13)
    mask = np.uint32(mean // BLOCK - 1)
    ends: np.ndarray[tuple[int], np.dtype[np.int64]] = (np.nonzero((hashed & mask) == mask)[0] + 1) * BLOCK
    return ends
