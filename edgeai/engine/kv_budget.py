"""Bytes of keys and values, counted in one place: running sequences and the prefix cache share one limit."""

from __future__ import annotations

from collections.abc import Container

from edgeai.engine.kv_cache import KVArena
from edgeai.engine.prefix_cache import PrefixCache


class KVBudget:
    """At most `limit` bytes in `arena` and `cache` together. The cache is what gives way."""

    def __init__(self, limit: int, arena: KVArena, cache: PrefixCache) -> None:
        self.limit = limit
        self._arena = arena
        self._cache = cache

    @property
    def used_bytes(self) -> int:
        return self._arena.used_bytes + self._cache.used_bytes

    def fits(self, size: int) -> bool:
        """Whether `size` bytes more are within the limit as things are."""
        return self.used_bytes + size <= self.limit

    def make_room(self, size: int, *, keep: Container[bytes] = ()) -> bool:
        """Evict cached blocks, the least recently used first, until `size` bytes fit; False if that is not enough."""
        while not self.fits(size):
            if not self._cache.evict(keep=keep):
                return False
        return True
