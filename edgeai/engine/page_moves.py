"""Moves memory to another address without copying it: the kernel enters its pages in another place (Linux 5.7).

The address that is left stays mapped, and empty: no other thread could ever be given it meanwhile.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

from numpy.typing import NDArray

_MAYMOVE, _FIXED, _DONTUNMAP = 1, 2, 4  # of mremap(2)


def _find_mremap() -> Any:
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "mremap", None)
    if function is not None:
        function.restype = ctypes.c_void_p
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    return function


_mremap = _find_mremap()


def move_pages(source: NDArray[Any], target: NDArray[Any]) -> bool:
    """Whether the pages of `source` are now those of `target`, and `source` is empty (it reads as zeros).

    Both are contiguous arrays of one size in private anonymous memory that do not overlap; what was in `target` is
    dropped. False, with nothing changed, where they do not consist of whole pages or the kernel cannot do it.
    """
    here, there, size = source.ctypes.data, target.ctypes.data, source.nbytes
    if _mremap is None or (here | there | size) % mmap.PAGESIZE:
        return False
    moved = _mremap(here, size, size, _MAYMOVE | _FIXED | _DONTUNMAP, there)
    return bool(moved == there)
