"""Pages that change their address: what arrives, what stays, and where it is refused."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest

from edgeai.engine import page_moves
from edgeai.engine.kv_cache import reserve
from edgeai.engine.page_moves import move_pages

PAGES = 24


def area() -> np.ndarray:
    """Rows of some pages each, in memory that nobody has written yet."""
    return np.frombuffer(reserve(4 * PAGES * mmap.PAGESIZE), np.uint8).reshape(4, -1)


@pytest.mark.skipif(sys.platform != "linux", reason="mremap is Linux's")
def test_contents_arrive_and_the_source_is_empty() -> None:
    rows = area()
    rows[:3] = np.arange(3, dtype=np.uint8)[:, None] + 1
    assert move_pages(rows[2], rows[0])
    assert [set(row.tolist()) for row in rows] == [{3}, {2}, {0}, {0}]


@pytest.mark.skipif(sys.platform != "linux", reason="mremap is Linux's")
def test_both_places_can_be_written_afterwards_again_and_again() -> None:
    rows = area()
    for turn in range(50):
        source, target = turn % 4, (turn + 1) % 4
        rows[source] = turn
        assert move_pages(rows[source], rows[target])
        rows[source, :5] = 200
        assert (rows[target] == turn).all()
        assert (rows[source, :5] == 200).all()
        assert not rows[source, 5:].any()


def test_parts_of_pages_are_refused_and_stay() -> None:
    rows = area()
    rows[0] = 7
    flat = rows.reshape(-1)
    for source, target, size in ((1, mmap.PAGESIZE * PAGES, mmap.PAGESIZE), (0, mmap.PAGESIZE * PAGES, 100)):
        assert not move_pages(flat[source : source + size], flat[target : target + size])
    assert (rows[0] == 7).all()
    assert not rows[1:].any()


def test_elsewhere_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_moves, "_mremap", None)
    rows = area()
    rows[0] = 7
    assert not move_pages(rows[0], rows[1])
    assert (rows[0] == 7).all()
