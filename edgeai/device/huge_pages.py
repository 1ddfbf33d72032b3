"""Weights in huge pages: one entry of the processor's address cache then covers 2 MiB instead of 4 KiB.

Reading a model's weights for every token misses that cache all the time: on a virtual machine memory was read at
13 GB/s in small pages and at 32 GB/s in huge ones. Most systems give huge pages only to those who ask (`madvise`), and
onnxruntime does not. Linux 6.1 and newer collapse memory that is already in use on request (MADV_COLLAPSE), which
changes nothing but speed; where the kernel refuses, nothing is lost.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from edgeai.device.files import read_number
from edgeai.device.mappings import Mapping, own_mappings

MADV_COLLAPSE = 25
PAGE_SIZE_FILE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
LARGEST_PAGE = 4 << 20  # with larger ones, as on 16 KiB kernels, rounding would waste more than is won
FILLED = 0.9  # of a mapping: collapsing fills what was never touched
STEP = 16 << 20  # bytes collapsed in one call, so that other threads may map memory in between


def is_plain_memory(mapping: Mapping) -> bool:
    """Whether it belongs to no file, may be written, and is held to no page size by its owner."""
    return mapping.permissions == "rw-p" and mapping.name in ("", "[heap]") and "nh" not in mapping.flags


def collapse(least: int = 4 << 20) -> int:
    """Put anonymous memory of at least `least` bytes in one piece into huge pages. Returns the bytes that now are."""
    size = page_size()
    if size is None:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    done = 0
    for mapping in filter(is_plain_memory, own_mappings()):
        whole = mapping.stop - mapping.start
        if whole < least or mapping.resident < FILLED * whole:
            continue
        start, stop = -(-mapping.start // size) * size, mapping.stop // size * size
        for piece in range(start, stop, STEP):
            length = min(STEP, stop - piece)
            if libc.madvise(piece, length, MADV_COLLAPSE) == 0:
                done += length
    return done


def page_size() -> int | None:
    """Bytes of a huge page; None where there are none, or too large ones."""
    size = read_number(PAGE_SIZE_FILE)
    return size if size is not None and os.sysconf("SC_PAGESIZE") < size <= LARGEST_PAGE else None
