"""The C library's heap: what was freed goes back to the system only when it is asked to."""

from __future__ import annotations

import ctypes


def trim_heap() -> bool:
    """Give freed heap pages back (glibc's malloc_trim); False where the C library does not have it."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # musl gives pages back by itself
        return False
    trim(0)
    return True
