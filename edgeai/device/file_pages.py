"""Pages of files that were read once: libraries' initialisation, tables of their kernels, code of imports.

They stay in the process's resident set for as long as nobody needs the memory. `release_file_pages` lets go of them:
what is read again comes back from the page cache without any reading from the disk, a few pages at a time.
"""

from __future__ import annotations

import ctypes
import mmap

from edgeai.device.mappings import Mapping, own_mappings


def release_file_pages() -> int:
    """Unmap the unmodified pages of all read-only mappings of files. Returns how many bytes they were.

    Raises OSError where the kernel does not tell.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    released = 0
    for mapping in filter(is_like_its_file, own_mappings()):
        if libc.madvise(mapping.start, mapping.stop - mapping.start, mmap.MADV_DONTNEED) == 0:  # else it is locked
            released += mapping.resident
    return released


def is_like_its_file(mapping: Mapping) -> bool:
    """Whether all of a mapping can be read again from its file, now and later.

    Pages that were written to, such as the tables that the loader relocates, would come back as they are in the file.
    """
    modified = mapping.anonymous or mapping.swapped or "w" in mapping.permissions
    return mapping.name.startswith("/") and not modified
