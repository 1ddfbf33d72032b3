"""Small KV blocks that tell which ones they are, and a clock for the stores that hold them."""

from __future__ import annotations

import hashlib

import numpy as np

from edgeai.package.block_store import DAY, BlockStore
from edgeai.package.kv_blocks import HEADER, BlockFormat

SHAPE = (2, 2, 4)
FORM = BlockFormat(SHAPE)
SIZE = HEADER.size + 2 * 2 * 4 * 4
PLENTY = 1000 * SIZE


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0 * DAY

    def __call__(self) -> float:
        return self.now


def key(number: int) -> bytes:
    return hashlib.blake2b(bytes([number]), digest_size=16).digest()


def block(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)


def fill(store: BlockStore, *numbers: int) -> None:
    for number in numbers:
        assert store.offer(key(number), block(number))
    store.flush()


def held(store: BlockStore, count: int = 40) -> list[int]:
    """Numbers of the blocks that load, each equal to what was offered."""
    found = []
    for number in range(count):
        loaded = store.load(key(number)) if key(number) in store else None
        if loaded is not None:
            np.testing.assert_array_equal(loaded, block(number))
            found.append(number)
    return found
