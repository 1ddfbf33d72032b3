"""Pages of files go, their contents come back, and what was written stays."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import re
from pathlib import Path

import pytest

from edgeai.device import file_pages
from edgeai.device.file_pages import GROWTH, INTERVAL, LOOK, WeightPages, release_file_pages, release_pages_of
from edgeai.device.mappings import Mapping, own_mappings

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


def test_weights_go_although_they_are_mapped_for_writing(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(file.read_bytes())
    link = tmp_path / "link"
    link.symlink_to(file)
    with (
        file.open("rb") as opened,
        other.open("rb") as beside,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped,
        mmap.mmap(beside.fileno(), 0, access=mmap.ACCESS_COPY) as untouched,
    ):
        assert sum(mapped[:: mmap.PAGESIZE]) == sum(untouched[:: mmap.PAGESIZE]) == 0
        release_pages_of(link)
        assert (resident(file), resident(other)) == (0, SIZE)
        assert mapped[:] == untouched[:]


def test_weights_go_some_seconds_after_they_were_read_and_once(file: Path) -> None:
    now = 100.0
    pages = WeightPages(file, lambda: now)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert pages.seconds_left() is None
        pages.read()
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        now += INTERVAL - 1
        pages.read()
        pages.release_if_due()
        assert (pages.seconds_left(), resident(file)) == (1.0, SIZE)
        now += 1
        pages.release_if_due()
        assert (pages.seconds_left(), resident(file)) == (None, 0)


def test_weights_go_at_once_where_much_was_read(file: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(2 * GROWTH))
    pages = WeightPages(large, itertools.count(0.0, LOOK).__next__)
    with large.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        pages.read()
        pages.release_if_due()
        assert sum(mapped[: GROWTH // 2 : mmap.PAGESIZE]) == 0
        pages.release_if_due()
        assert resident(large) >= GROWTH // 2
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        pages.release_if_due()
        assert (pages.seconds_left(), resident(large)) == (None, 0)


def test_nothing_is_due_without_a_file_or_a_word_from_the_kernel(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def untold(path: Path) -> list[Mapping]:
        raise FileNotFoundError("/proc/self/maps", path)

    none, silent = WeightPages(None), WeightPages(file, iter([0.0, INTERVAL]).__next__)
    none.read()
    assert none.seconds_left() is None
    monkeypatch.setattr(file_pages, "own_mappings_of", untold)
    silent.read()
    silent.release_if_due()
    silent.read()
    assert silent.seconds_left() is None
