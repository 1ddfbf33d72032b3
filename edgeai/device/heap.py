"""The C library's heap: what was freed goes back to the system only when it is asked to."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3
LARGE = 256 << 10  # bytes; cached blocks of keys and values are larger


def trim_heap() -> bool:
    """Give freed heap pages back (glibc's malloc_trim); False where the C library does not have it."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # musl gives pages back by itself
        return False
    trim(0)
    return True


def map_large_blocks() -> bool:
    """Let every large allocation be a mapping of its own, which goes back to the system when it is freed.

    glibc raises its threshold for that to 32 MiB by and by; evicted cache blocks then leave holes in the heap, and a
    budget of memory does not hold. False where the C library does not have it.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE))
    except AttributeError:
        return False
