"""The prefix cache against an oracle that compares tokens themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeai.engine.prefix_cache import PrefixCache, chain_keys

BLOCK = 4
texts = st.lists(st.integers(0, 1), max_size=24)  # two tokens: shared beginnings are common


class NaiveCache:
    """Whole prefixes as tuples, least recently used first."""

    def __init__(self) -> None:
        self.order: list[tuple[int, ...]] = []

    def use(self, prefixes: list[tuple[int, ...]]) -> None:
        """Tail first, so that the head is the most recent."""
        for prefix in reversed(prefixes):
            if prefix in self.order:
                self.order.remove(prefix)
                self.order.append(prefix)

    def match(self, tokens: list[int]) -> list[tuple[int, ...]]:
        found = []
        for prefix in prefixes_of(tokens):
            if prefix not in self.order:
                break
            found.append(prefix)
        self.use(found)
        return found


def prefixes_of(tokens: list[int]) -> list[tuple[int, ...]]:
    return [tuple(tokens[:end]) for end in range(BLOCK, len(tokens) + 1, BLOCK)]


def chain(tokens: list[int]) -> list[bytes]:
    return list(chain_keys(tokens, BLOCK))


def block(number: int) -> np.ndarray:
    return np.array([number], np.float32)


def filled(tokens: list[int], cache: PrefixCache | None = None) -> PrefixCache:
    cache = cache or PrefixCache(BLOCK, 100)
    keys = chain(tokens)
    for number, key in enumerate(keys):
        cache.put(key, block(number))
    cache.touch(keys)
    return cache


@given(texts, texts)
def test_keys_are_equal_where_prefixes_are(one: list[int], other: list[int]) -> None:
    keys = [list(chain_keys(tokens, BLOCK)) for tokens in (one, other)]
    assert [len(each) for each in keys] == [len(one) // BLOCK, len(other) // BLOCK]
    for end, (a, b) in enumerate(zip(*keys, strict=False), start=1):
        assert (a == b) == (one[: end * BLOCK] == other[: end * BLOCK])


def test_a_repeated_block_has_another_key_each_time() -> None:
    keys = list(chain_keys([7] * 5 * BLOCK, BLOCK))
    assert len(set(keys)) == 5


def test_large_ids_are_not_confused() -> None:
    """Ids are hashed at their full width."""
    assert list(chain_keys([1] * BLOCK, BLOCK)) != list(chain_keys([1 + 2**32] * BLOCK, BLOCK))
    assert list(chain_keys([1, 0, 0, 0], BLOCK)) != list(chain_keys([0, 1, 0, 0], BLOCK))


operations = st.lists(st.tuples(st.sampled_from(["put", "match", "evict"]), texts), max_size=40)


@given(operations)
def test_equals_the_naive_cache(steps) -> None:
    cache, naive = PrefixCache(BLOCK, 100), NaiveCache()
    for kind, tokens in steps:
        prefixes = prefixes_of(tokens)
        if kind == "put":
            for key, prefix in zip(chain(tokens), prefixes, strict=True):
                if prefix not in naive.order:
                    cache.put(key, np.array(prefix, np.float32))
                    naive.order.append(prefix)
            cache.touch(chain(tokens))
            naive.use(prefixes)
        elif kind == "match":
            assert [tuple(cache.get(key)) for key in cache.match(chain(tokens))] == naive.match(tokens)
        else:
            assert cache.evict() == bool(naive.order)
            del naive.order[:1]
        assert cache.used_bytes == 100 * len(naive.order)
        assert all((key in cache) == (p in naive.order) for key, p in zip(chain(tokens), prefixes, strict=True))


def test_a_chain_loses_its_tail_first() -> None:
    tokens = list(range(3 * BLOCK))
    cache = filled(tokens)
    for left in (2, 1, 0):
        assert cache.evict()
        assert len(cache.match(chain(tokens))) == left
    assert not cache.evict()


def test_a_match_ends_at_the_first_gap() -> None:
    tokens = list(range(3 * BLOCK))
    cache = PrefixCache(BLOCK, 100)
    first, _, third = chain(tokens)
    cache.put(first, block(0))
    cache.put(third, block(2))
    assert cache.match(chain(tokens)) == [first]
    assert cache.get(first) == block(0)
    assert not cache.match(chain(tokens[1:]))


def test_what_was_matched_last_leaves_last() -> None:
    old, new = [1] * BLOCK, [2] * BLOCK
    cache = filled(new, filled(old))
    cache.match(chain(old))
    cache.evict()
    assert cache.match(chain(old))
    assert not cache.match(chain(new))


def test_blocks_to_keep_stop_the_eviction() -> None:
    old, new = [1] * BLOCK, [2] * 2 * BLOCK
    cache = filled(new, filled(old))
    keep = chain(new)
    assert cache.evict(keep=keep)  # the old one
    assert not cache.evict(keep=keep)
    assert len(cache.match(chain(new))) == 2


def test_clear() -> None:
    cache = filled(list(range(20)))
    cache.clear()
    assert cache.used_bytes == 0
    assert not cache.match(chain(list(range(20))))
