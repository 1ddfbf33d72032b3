"""Memory in huge pages: which mappings are meant, and that contents stay."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from edgeai.device import huge_pages
from edgeai.device.huge_pages import Mapping, anonymous_mappings, collapse, page_size

SMAPS = """
7f0000000000-7f0000800000 rw-p 00000000 00:00 0
Size:               8192 kB
Rss:                8000 kB
VmFlags: rd wr mr mw me ac sd
7f1000000000-7f1000800000 rw-p 00000000 08:01 42                         /usr/lib/libc.so.6
Size:               8192 kB
Rss:                8192 kB
VmFlags: rd wr mr mw me ac sd
7f2000000000-7f2000800000 rw-p 00000000 00:00 0
Size:               8192 kB
Rss:                 100 kB
VmFlags: rd wr mr mw me ac nr sd nh
7f3000000000-7f3000800000 r--p 00000000 00:00 0
Size:               8192 kB
Rss:                8192 kB
VmFlags: rd mr mw me ac sd
55aa00000000-55aa00100000 rw-p 00000000 00:00 0                          [heap]
Size:               1024 kB
Rss:                 512 kB
VmFlags: rd wr mr mw me ac sd
"""


def test_only_anonymous_memory_that_may_be_written_is_meant() -> None:
    """Not files, not what is only read, not the KV cache, which asks for small pages (nh)."""
    assert list(anonymous_mappings(SMAPS)) == [
        Mapping(0x7F0000000000, 0x7F0000800000, 8000 * 1024),
        Mapping(0x55AA00000000, 0x55AA00100000, 512 * 1024),
    ]


@pytest.mark.skipif(page_size() is None, reason="needs transparent huge pages")
def test_contents_stay_and_sparse_memory_stays_sparse() -> None:
    full, sparse = (mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2))
    full.madvise(mmap.MADV_RANDOM)  # flags of their own, so that the kernel does not join the two
    values = np.frombuffer(full, np.uint64)
    values[:] = np.arange(len(values))
    sparse[0] = 1
    before = resident()
    collapse()
    assert np.array_equal(values, np.arange(len(values)))
    assert resident() - before < 16 << 20


def test_systems_without_huge_pages_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huge_pages, "PAGE_SIZE_FILE", tmp_path / "missing")
    assert collapse() == 0
    (tmp_path / "missing").write_text("33554432\n")  # 32 MiB, of a kernel with pages of 16 KiB
    assert page_size() is None


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
