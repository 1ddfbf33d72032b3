"""Bytes of keys and values, counted in one place: running sequences and the prefix cache share one limit."""

from __future__ import annotations

from collections.abc import Container

from edgeai.engine.governor import Limits
from edgeai.engine.kv_cache import KVArena
from edgeai.engine.prefix_cache import PrefixCache


class KVBudget:
    """At most `limit` bytes in `arena` and `cache` together. The cache is what gives way.

    A sequence that runs alone may have `alone_limit`, which is more while memory is scarce. `caching` is whether the
    cache may take new blocks.
    """

    def __init__(self, limit: int, arena: KVArena, cache: PrefixCache) -> None:
        self.limit = self.alone_limit = limit
        self.caching = True
        self._arena = arena
        self._cache = cache

    @property
    def used_bytes(self) -> int:
        return self._arena.used_bytes + self._cache.used_bytes

    @property
    def cached_bytes(self) -> int:
        return self._cache.used_bytes

    def fits(self, size: int, *, alone: bool = False) -> bool:
        """Whether `size` bytes more are within the limit as things are."""
        return self.used_bytes + size <= (self.alone_limit if alone else self.limit)

    def make_room(self, size: int, *, keep: Container[bytes] = (), alone: bool = False) -> bool:
        """Evict cached blocks, the least recently used first, until `size` bytes fit; False if that is not enough."""
        while not self.fits(size, alone=alone):
            if not self._cache.evict(keep=keep):
                return False
        return True

    def give_up(self, size: int) -> None:
        """Evict cached blocks of `size` bytes, or all there are."""
        left = self._cache.used_bytes - size
        while self._cache.used_bytes > left and self._cache.evict():
            pass

    def tighten(self, limit: int) -> None:
        """Let nothing more in beyond `limit` bytes, until `restrain` is called; what is there stays."""
        self.limit = max(0, min(self.limit, limit))

    def restrain(self, limits: Limits) -> None:
        """Obey new limits: blocks beyond them leave the cache at once."""
        self.limit, self.alone_limit, self.caching = limits.kv_bytes, limits.alone_bytes, limits.caching
        self.give_up(self._cache.used_bytes - limits.cache_bytes)
        self.make_room(0)
