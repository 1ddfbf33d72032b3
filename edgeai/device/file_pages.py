"""Pages of files that were read once: libraries' initialisation, tables of their kernels, code of imports.

They stay in the process's resident set for as long as nobody needs the memory. `release_file_pages` lets go of them:
what is read again comes back from the page cache without any reading from the disk, a few pages at a time.
"""

from __future__ import annotations

import ctypes
import mmap

import psutil


def release_file_pages() -> int:
    """Unmap the unmodified pages of all read-only mappings of files. Returns how many bytes they were.

    Pages that were written to, such as relocated tables, would come back as they are in the file. Mappings that have
    one, or could get one meanwhile, are left alone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    released = 0
    for mapping in psutil.Process().memory_maps(grouped=False):
        if not mapping.path.startswith("/") or "w" in mapping.perms or mapping.anonymous or mapping.swap:
            continue
        start, stop = (int(end, 16) for end in mapping.addr.split("-"))
        if libc.madvise(start, stop - start, mmap.MADV_DONTNEED) == 0:  # else it is locked in memory
            released += mapping.rss
    return released
