"""Pages of files that were read once: libraries' initialisation, tables of their kernels, code of imports, weights.

They stay in the process's resident set for as long as nobody needs the memory. `release_file_pages` lets go of them:
what is read again comes back from the page cache without any reading from the disk, a few pages at a time.
`WeightPages` does so with one model's weights, again and again: what runs read of the file itself is a small part of
the token table each time, while the kernel maps 16 pages around every page that is read.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import mmap
import time
from collections.abc import Callable
from pathlib import Path

from edgeai.device.mappings import Mapping, own_mappings, own_mappings_of, resident_file_bytes

INTERVAL = 10.0  # seconds; letting go takes a few milliseconds, and so does reading a whole token table again
LOOK = 0.05  # seconds from one look at how many there are to the next: a chunk of a prompt takes longer
GROWTH = 4 << 20  # bytes; what a prompt of sixty different tokens brings in

log = logging.getLogger(__name__)


def release_file_pages() -> int:
    """Unmap the unmodified pages of all read-only mappings of files. Returns how many bytes they were.

    Raises OSError where the kernel does not tell.
    """
    released = 0
    for mapping in filter(is_like_its_file, own_mappings()):
        if _release(mapping):
            released += mapping.resident
    return released


def release_pages_of(path: Path) -> None:
    """The same for one file, also where it is mapped for writing, as onnxruntime maps weights.

    Only for files whose mappings nobody writes to, and nobody removes meanwhile. Raises OSError as above.
    """
    for mapping in own_mappings_of(path):
        _release(mapping)


def is_like_its_file(mapping: Mapping) -> bool:
    """Whether all of a mapping can be read again from its file, now and later.

    Pages that were written to, such as the tables that the loader relocates, would come back as they are in the file.
    """
    modified = mapping.anonymous or mapping.swapped or "w" in mapping.permissions
    return mapping.name.startswith("/") and not modified


def _release(mapping: Mapping) -> bool:
    """Whether it worked; a locked mapping stays."""
    return bool(_libc().madvise(mapping.start, mapping.stop - mapping.start, mmap.MADV_DONTNEED) == 0)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


class WeightPages:
    """The pages of a weights file that runs read, let go of `INTERVAL` seconds after the first of them.

    They go sooner where the process's pages of files have grown by `GROWTH`: a long prompt would bring in most of the
    token table. For the thread that runs the model, and that nobody unloads it under. Without a `path` nothing is ever
    due.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._due: float | None = None
        self._look = 0.0
        self._least: int | None = None  # bytes of files' pages, since the last time

    def read(self) -> None:
        """A run may have read some."""
        if self._due is None and self._path is not None:
            self._due = self._clock() + INTERVAL

    def seconds_left(self) -> float | None:
        """Until they are due; None while none were read."""
        return None if self._due is None else max(0.0, self._due - self._clock())

    def release_if_due(self) -> None:
        if self._due is None or self._path is None:
            return
        try:
            now = self._clock()
            if now < self._due and not self._grown(now):
                return
            self._due = self._least = None
            release_pages_of(self._path)
        except OSError as error:  # such as a container without /proc
            log.info("pages of weights stay: %s", error)
            self._path = self._due = None

    def _grown(self, now: float) -> bool:
        if now < self._look:
            return False
        self._look = now + LOOK
        resident = resident_file_bytes()
        self._least = resident if self._least is None else min(resident, self._least)
        return resident - self._least > GROWTH
