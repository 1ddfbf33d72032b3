"""Keys and values of prompts seen before, found again by the tokens they came from.

Tokens are cut into blocks; a block's key is the hash of its tokens and of the key before it, so that equal keys mean
equal prefixes (the scheme of vLLM's automatic prefix caching). A block is only reused behind its predecessors.
The least recently used blocks leave first, the tail of a chain before its head.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Block = NDArray[Any]  # of the cache's type, [layers, 2, kv_heads, block_tokens, head_size]
ROOT = b""


def chain_keys(tokens: Sequence[int], block_tokens: int, root: bytes = ROOT) -> Iterator[bytes]:
    """Key of every whole block of `tokens`, in order. `root` tells apart what the tokens alone do not."""
    key = root
    for start in range(0, len(tokens) - block_tokens + 1, block_tokens):
        content = np.asarray(tokens[start : start + block_tokens], np.int64).tobytes()
        key = hashlib.blake2b(key + content, digest_size=16).digest()
        yield key


class PrefixCache:
    """Blocks in memory. How many may stay is decided by whoever holds the budget, through `evict`."""

    def __init__(self, block_tokens: int, block_bytes: int) -> None:
        self.block_tokens = block_tokens
        self.block_bytes = block_bytes
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()  # least recently used first

    @property
    def used_bytes(self) -> int:
        return len(self._blocks) * self.block_bytes

    def __contains__(self, key: bytes) -> bool:
        return key in self._blocks

    def match(self, chain: Iterable[bytes]) -> list[bytes]:
        """The keys of the longest cached beginning of a chain. Its blocks count as used now."""
        found = list(itertools.takewhile(self._blocks.__contains__, chain))
        self.touch(found)
        return found

    def get(self, key: bytes) -> Block | None:
        """The block of a key, if it is there."""
        return self._blocks.get(key)

    def put(self, key: bytes, block: Block) -> None:
        self._blocks[key] = block

    def touch(self, chain: Sequence[bytes]) -> None:
        """Mark a chain as used: its head becomes the most recent, and so outlives its tail."""
        for key in reversed(chain):
            if key in self._blocks:
                self._blocks.move_to_end(key)

    def evict(self, *, keep: Container[bytes] = ()) -> bool:
        """Drop the least recently used block; False when there is none, or it is one to keep."""
        oldest = next(iter(self._blocks), None)
        if oldest is None or oldest in keep:
            return False
        del self._blocks[oldest]
        return True

    def clear(self) -> None:
        self._blocks.clear()
