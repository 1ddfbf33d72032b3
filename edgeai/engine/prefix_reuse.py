"""Brings the cached beginning of a prompt into its row, and remembers what a row has computed.

Cached blocks are in memory (`PrefixCache`), or behind it in a `BlockStore`, from which they are restored while other
rows go on decoding. While they do, no more than `SLICE_BYTES` are copied in one step, and back to memory for the next
time once there is a first token: a long prompt is hundreds of megabytes.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable

from edgeai.engine.config import EngineSettings
from edgeai.engine.kv_budget import KVBudget
from edgeai.engine.kv_cache import KVArena
from edgeai.engine.prefix_cache import PrefixCache
from edgeai.engine.restore import BlockStore, Restore
from edgeai.engine.sequence import Sequence

SLICE_BYTES = 32 << 20


class PrefixReuse:
    """The way between the rows of the arena, the prefix cache and the store.

    `filling` is the sequence, one at a time, whose prompt has to wait for blocks that come into its row.
    """

    def __init__(
        self,
        settings: EngineSettings,
        arena: KVArena,
        cache: PrefixCache,
        budget: KVBudget,
        store: BlockStore | None = None,
    ) -> None:
        self._enabled = settings.prefix_cache
        self._arena = arena
        self._cache = cache
        self._budget = budget
        self._store = store if settings.prefix_cache else None
        self.filling: Sequence | None = None
        self._found: deque[bytes] = deque()  # keys of blocks in memory that are to come
        self._restore: Restore | None = None  # of what follows them

    def known_tokens(self, sequence: Sequence) -> int:
        """How many of a sequence's tokens would not have to be computed, as things are."""
        if not self._enabled:
            return 0
        keys = self._keys(sequence, len(sequence.tokens) - 1)
        found = sum(1 for _ in itertools.takewhile(self._cache.__contains__, keys))
        stored = len(self._store.run(keys[found:])) if self._store is not None else 0
        return (found + stored) * self._cache.block_tokens

    def cached(self, sequence: Sequence) -> list[bytes]:
        """Keys of blocks in memory to start from, which count as used now; a token is left to compute, for its
        logits.
        """
        return self._cache.match(self._keys(sequence, len(sequence.tokens) - 1)) if self._enabled else []

    def start(self, sequence: Sequence, slot: int, found: list[bytes]) -> None:
        """Begin to fill a new row with the blocks that were `found`, and with what the store has behind them."""
        sequence.restored = range(0)
        if found:
            self.filling = sequence
            self._found.extend(found)
        if self._store is None:
            return
        self._store.run(found)  # in memory or not, they count as used there too
        keys = self._store.run(self._keys(sequence, len(sequence.tokens) - 1)[len(found) :])
        if keys:
            size = self._cache.block_tokens
            first = len(found) * size
            self.filling = sequence
            self._restore = Restore(
                self._store, keys, lambda i, block: self._arena.write(slot, first + i * size, block)
            )

    def restored_tokens(self, sequence: Sequence) -> int:
        """How many tokens of the store are in a sequence's row already, beyond those that count as computed."""
        restore = self._restore  # once: others than the owner may ask
        if restore is None or sequence is not self.filling:
            return 0
        return restore.blocks * self._cache.block_tokens

    def advance(self, *, others_decode: bool) -> None:
        """Go on behind the blocks that have come: those in memory, and once they are done those restored."""
        sequence = self.filling
        if sequence is None:
            return
        self._fill(sequence, self._slice_blocks if others_decode else len(self._found))
        if not self._found and (self._restore is None or self._restore.done):
            self.settle(sequence)

    def settle(self, sequence: Sequence) -> None:
        """If blocks are coming into a sequence's row, no more shall: it goes on behind those that are there."""
        if sequence is not self.filling:
            return
        restored = 0
        if self._restore is not None:
            self._restore.cancel()
            restored = self._restore.blocks
        if not self._found:  # else there is a gap before them
            first = sequence.computed // self._cache.block_tokens
            sequence.restored = range(first, first + restored)
            sequence.computed += restored * self._cache.block_tokens
        if not sequence.preempted:
            sequence.cached_tokens = sequence.computed
        self._clear()

    def _fill(self, sequence: Sequence, most: int) -> None:
        if sequence.slot is None:
            return
        for _ in range(min(most, len(self._found))):
            key = self._found.popleft()
            block = self._cache.get(key)
            if block is None:  # it had to leave meanwhile: from here on everything is computed
                self._found.appendleft(key)
                self.settle(sequence)
                return
            self._arena.write(sequence.slot, sequence.computed, block)
            sequence.computed += self._cache.block_tokens
            if self._store is not None:
                self._store.offer(key, block, reused=True)

    def wait(self, seconds: float) -> None:
        """Wait for blocks that are being restored, when there is nothing else to do."""
        if self._restore is not None:
            self._restore.wait(seconds)

    def cancel(self, sequence: Sequence) -> None:
        """Bring a sequence no more, before its slot is anybody else's."""
        if sequence is self.filling:
            if self._restore is not None:
                self._restore.cancel()
            self._clear()

    def _clear(self) -> None:
        self.filling = self._restore = None
        self._found.clear()

    def remember(self, sequence: Sequence, *, restored: bool = True) -> None:
        """Copy the whole blocks of a sequence to the cache, as far as the budget goes; those restored, or not yet."""
        later = range(0) if restored else sequence.restored
        blocks = range(sequence.computed // self._cache.block_tokens)
        self._copy(sequence, (block for block in blocks if block not in later))

    def remember_restored(self, sequences: Iterable[Sequence]) -> None:
        """Copy a slice of what came from the store to the cache: all at once would hold up everybody."""
        sequence = next((each for each in sequences if each.restored), None)
        if sequence is not None:
            most = self._slice_blocks
            blocks, sequence.restored = sequence.restored[:most], sequence.restored[most:]
            self._copy(sequence, blocks)

    def _copy(self, sequence: Sequence, blocks: Iterable[int]) -> None:
        if not self._enabled or not self._budget.caching or sequence.slot is None:
            return
        chain = self._keys(sequence, sequence.computed)
        for index in blocks:
            key = chain[index]
            if key in self._cache:
                continue
            if not self._budget.make_room(self._cache.block_bytes, keep=chain):
                return
            start = index * self._cache.block_tokens
            block = self._arena.read(sequence.slot, start, start + self._cache.block_tokens)
            self._cache.put(key, block)
            if self._store is not None:
                self._store.offer(key, block, reused=False)
        self._cache.touch(chain)

    @property
    def _slice_blocks(self) -> int:
        return max(1, SLICE_BYTES // self._cache.block_bytes)

    def _keys(self, sequence: Sequence, tokens: int) -> list[bytes]:
        return sequence.block_keys(tokens, self._cache.block_tokens)
