"""Brings the cached beginning of a prompt into its row, and remembers what a row has computed.

Cached blocks are in memory (`PrefixCache`), or behind it in a `BlockStore`, from which they are restored while other
rows go on decoding.
"""

from __future__ import annotations

from edgeai.engine.config import EngineSettings
from edgeai.engine.kv_budget import KVBudget
from edgeai.engine.kv_cache import KVArena
from edgeai.engine.prefix_cache import Block, PrefixCache, chain_keys
from edgeai.engine.restore import BlockStore, Restore
from edgeai.engine.sequence import Sequence


class PrefixReuse:
    """The way between the rows of the arena, the prefix cache and the store; at most one restore at a time."""

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
        self._restore: Restore | None = None  # of the sequence that is to read its prompt next

    @property
    def restoring(self) -> bool:
        return self._restore is not None

    def cached(self, sequence: Sequence) -> list[Block]:
        """Blocks to start from; a token is left to compute, for its logits.

        A sequence that waits for memory is looked up at every step, so keys are made only as far as blocks are found.
        """
        if not self._enabled:
            return []
        return self._cache.match(chain_keys(sequence.tokens[:-1], self._cache.block_tokens, sequence.cache_root))

    def start(self, sequence: Sequence, slot: int, prefix: list[Block]) -> None:
        """Put `prefix` into a new row, and begin to restore what the store has behind it."""
        for block in prefix:
            self._arena.write(slot, sequence.computed, block)
            sequence.computed += self._cache.block_tokens
        if not sequence.preempted:
            sequence.cached_tokens = sequence.computed
        if self._store is None:
            return
        chain = self._cache.chain(sequence.tokens[:-1], sequence.cache_root)
        for key, block in zip(chain, prefix, strict=False):
            self._store.offer(key, block, reused=True)
        self._begin_restore(self._store, sequence, slot, chain[len(prefix) :])

    def _begin_restore(self, store: BlockStore, sequence: Sequence, slot: int, keys: list[bytes]) -> None:
        found = store.run(keys)
        if found:
            start, size = sequence.computed, self._cache.block_tokens
            self._restore = Restore(store, found, lambda i, block: self._arena.write(slot, start + i * size, block))

    def take_restored(self, sequence: Sequence | None) -> None:
        """Go on behind the blocks that a restore has brought back, once it is done."""
        if self._restore is None or sequence is None or not self._restore.done:
            return
        sequence.computed += self._restore.blocks * self._cache.block_tokens
        if not sequence.preempted:
            sequence.cached_tokens = sequence.computed
        self._restore = None

    def wait(self, seconds: float) -> None:
        """Wait for blocks that are being restored, when there is nothing else to do."""
        if self._restore is not None:
            self._restore.wait(seconds)

    def cancel(self) -> None:
        """Stop a restore, before its slot is anybody else's."""
        if self._restore is not None:
            self._restore.cancel()
            self._restore = None

    def remember(self, sequence: Sequence) -> None:
        """Copy the whole blocks of a sequence to the cache, as far as the budget goes."""
        if not self._enabled or not self._budget.caching or sequence.slot is None:
            return
        chain = self._cache.chain(sequence.tokens[: sequence.computed], sequence.cache_root)
        for index, key in enumerate(chain):
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
