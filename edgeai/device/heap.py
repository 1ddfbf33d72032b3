"""The C library's heap: what was freed goes back to the system only when it is asked to.

Its settings hold from the call on, and musl, which gives memory back by itself, has none: False there.
"""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
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
    budget of memory does not hold.
    """
    return _set(M_MMAP_THRESHOLD, LARGE)


def share_one_heap() -> bool:
    """Let threads that start from now on allocate from the main heap.

    glibc gives each of them one of its own, and what one has freed no other can use: loading a model in a thread took
    24 MiB more.
    """
    return _set(M_ARENA_MAX, 1)


def _set(parameter: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None).mallopt(parameter, value))
    except AttributeError:
        return False
