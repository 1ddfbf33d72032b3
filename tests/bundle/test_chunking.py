"""Cuts: the same for the same content, within bounds, and found again when content moves."""

from __future__ import annotations

import hashlib
import io

import pytest

from edgeai.bundle.chunking import LARGEST_MEAN, SMALLEST_MEAN, cut, mean_for
from tests.fixtures.bundles import noise

MEAN = 16 << 10


def chunks(data: bytes, mean: int = MEAN) -> list[bytes]:
    return list(cut(io.BytesIO(data), mean))


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time, as pipes and disks may."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 7777))


@pytest.mark.parametrize("size", [0, 1, 63, 64, MEAN // 4, MEAN // 4 + 1, 4 * MEAN, 4 * MEAN + 1, 5_000_003])
def test_nothing_is_lost_and_sizes_are_within_bounds(size: int) -> None:
    data = noise(size)
    found = chunks(data)
    assert b"".join(found) == data
    assert all(MEAN // 4 <= len(chunk) <= 4 * MEAN for chunk in found[:-1])
    assert all(len(chunk) % 64 == 0 for chunk in found[:-1])


def test_the_mean_is_about_what_was_asked_for() -> None:
    found = chunks(noise(8 << 20))
    assert MEAN * 0.7 < (8 << 20) / len(found) < MEAN * 1.6


def test_cuts_do_not_depend_on_how_a_file_is_read() -> None:
    data = noise(3_000_000)
    assert list(cut(Trickle(data), MEAN)) == chunks(data)


def test_zeros_are_cut_at_the_most_size() -> None:
    assert {len(chunk) for chunk in chunks(bytes(64 * MEAN))} == {4 * MEAN}


def test_what_moved_by_a_block_is_found_again() -> None:
    old = noise(4_000_000)
    new = old[:1_000_000] + noise(64 * 77, seed=2) + old[1_000_000:2_000_000] + old[2_064_000:]
    known = {hashlib.sha256(chunk).digest() for chunk in chunks(old)}
    unknown = sum(len(chunk) for chunk in chunks(new) if hashlib.sha256(chunk).digest() not in known)
    assert 64 * 77 <= unknown < 12 * MEAN


def test_larger_files_have_larger_chunks_within_bounds() -> None:
    assert mean_for(0) == mean_for(256 << 20) == SMALLEST_MEAN
    assert mean_for((256 << 20) + 1) == 2 * SMALLEST_MEAN
    assert mean_for(1 << 50) == LARGEST_MEAN
