"""Pages of files go, their contents come back, and what was written stays."""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path

import pytest

from edgeai.device.file_pages import release_file_pages
from edgeai.device.mappings import own_mappings

SIZE = 8 << 20
PROT_READ, PROT_WRITE = 1, 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    return path


def resident(path: Path) -> int:
    """Bytes of a file that are mapped and resident here."""
    return sum(each.resident for each in own_mappings() if each.name == str(path))


def test_what_was_read_goes_and_comes_back(file: Path) -> None:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        assert resident(file) == SIZE
        assert release_file_pages() >= SIZE
        assert resident(file) == 0
        assert mapped[:] == file.read_bytes()


def test_what_may_be_written_stays(file: Path) -> None:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[0] = 255
        assert sum(mapped[:: mmap.PAGESIZE]) == 255
        release_file_pages()
        assert mapped[0] == 255
        assert resident(file) == SIZE


def test_a_page_that_was_written_before_it_was_locked_for_writing_stays(file: Path) -> None:
    """As the loader does with the tables it relocates."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[0] = 255
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert protect(address, SIZE, PROT_READ) == 0
        maps = Path("/proc/self/maps").read_text()
        assert re.search(rf"^{address:x}-\w+ r--p .*{re.escape(str(file))}$", maps, re.MULTILINE)
        release_file_pages()
        assert mapped[0] == 255
        assert protect(address, SIZE, PROT_READ | PROT_WRITE) == 0
