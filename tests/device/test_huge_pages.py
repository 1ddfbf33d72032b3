"""Memory in huge pages: which mappings are meant, and that contents stay."""

from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeai.device import huge_pages
from edgeai.device.huge_pages import collapse, is_plain_memory, page_size
from edgeai.device.mappings import Mapping

LIKE_THE_HEAP = Mapping(0, 8192, "rw-p", "[heap]", 8192, 8192, 0, frozenset())


def test_only_anonymous_memory_that_may_be_written_is_meant() -> None:
    """Not files, not what is only read, not the KV cache, which asks for small pages (nh)."""
    assert is_plain_memory(LIKE_THE_HEAP)
    assert is_plain_memory(replace(LIKE_THE_HEAP, name=""))
    for other in ({"name": "/usr/lib/libc.so.6"}, {"permissions": "r--p"}, {"flags": frozenset({"nh"})}):
        assert not is_plain_memory(replace(LIKE_THE_HEAP, **other))


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
