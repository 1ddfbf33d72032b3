"""Blocks that come back from a store: by a thread of their own, in order, and only what is whole."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeai.engine import prefix_reuse
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine
from edgeai.engine.kv_cache import GRANULE
from edgeai.engine.prefix_cache import chain_keys
from edgeai.engine.request import SamplingParams, TokenOutput
from edgeai.engine.restore import AHEAD, Restore
from tests.fixtures.kv_stores import open_store
from tests.fixtures.patience import PATIENCE, eventually

SETTINGS = EngineSettings(threads=1, max_rows=2, block_tokens=8, chunk_tokens=16, kv_budget_bytes=8 << 20)
GREEDY = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
PROMPT = [int(token) for token in np.random.default_rng(3).integers(2, 90, 100)]


class SlowStore:
    """Has the first `held` blocks that it is asked for; each load waits for a permit."""

    def __init__(self, held: int = 99) -> None:
        self.held = held
        self.permits = threading.Semaphore(0)
        self.run_of: list[bytes] = []

    def run(self, keys):
        self.run_of = list(keys)
        return self.run_of

    def buffer(self) -> bytearray:
        return bytearray(4)

    def load(self, key: bytes, buffer: bytearray):
        self.permits.acquire()
        index = self.run_of.index(key) if self.run_of else key[0]
        return np.full((1, 1, 1, SETTINGS.block_tokens, 1), index, np.float32) if index < self.held else None

    def offer(self, key: bytes, block, *, reused: bool) -> bool:
        return False


def keys(count: int) -> list[bytes]:
    return [bytes([number]) for number in range(count)]


def test_blocks_are_placed_in_order() -> None:
    store, placed = SlowStore(), []
    restore = Restore(store, keys(3), lambda i, block: placed.append((i, float(block.max()))))
    assert not restore.done
    store.permits.release(3)
    restore.wait(PATIENCE)
    assert restore.done
    assert placed == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert restore.blocks == 3


def test_memory_for_blocks_is_used_again_but_not_before_they_are_in_their_place() -> None:
    class Filling(SlowStore):
        """A block is the number of its key, written to the buffer."""

        def load(self, key: bytes, buffer: bytearray):
            buffers.add(id(buffer))
            values = np.frombuffer(buffer, np.int32)
            values[:] = key[0]
            return values

    def place(i: int, block: np.ndarray) -> None:
        time.sleep(0.005)  # for others to write to it
        placed.append((i, int(block[0])))

    buffers: set[int] = set()
    placed: list[tuple[int, int]] = []
    restore = Restore(Filling(), keys(30), place)
    restore.wait(PATIENCE)
    assert placed == [(i, i) for i in range(30)]
    assert len(buffers) == AHEAD


def test_a_gap_ends_it() -> None:
    store, placed = SlowStore(held=1), []
    store.permits.release(3)
    restore = Restore(store, keys(3), lambda i, block: placed.append(i))
    restore.wait(PATIENCE)
    assert (placed, restore.blocks, restore.done) == ([0], 1, True)


def test_nothing_is_placed_after_a_cancellation() -> None:
    store, placed = SlowStore(), []
    restore = Restore(store, keys(3), lambda i, block: placed.append(i))
    threading.Timer(0.05, store.permits.release, [2]).start()  # those at hand
    restore.cancel()
    count = len(placed)
    store.permits.release(5)
    assert len(placed) == count <= 1


def test_a_failure_is_reported_and_costs_only_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    store = SlowStore()
    store.permits.release(9)

    def place(i: int, block: object) -> None:
        if i == 2:
            raise RuntimeError("of the test")

    with caplog.at_level(logging.ERROR):
        restore = Restore(store, keys(5), place)
        restore.wait(PATIENCE)
    assert restore.blocks == 2
    assert "restoring stored KV blocks failed" in caplog.text


def answer(engine: Engine, prompt: list[int]) -> list[TokenOutput]:
    engine.add("mine", prompt, GREEDY)
    outputs = []
    while engine.has_work:
        outputs += [output for _, output in engine.step()]
        engine.scheduler.check_integrity()
    return outputs


def tokens(outputs: list[TokenOutput]) -> list[int]:
    return [output.token_id for output in outputs]


def test_a_prompt_is_not_read_again_after_a_restart(tmp_path: Path, tiny_graph: Path, tiny_shape: ModelShape) -> None:
    with closing(open_store(tmp_path, tiny_shape, SETTINGS)) as store:
        first = answer(Engine(tiny_graph, tiny_shape, SETTINGS, store=store), PROMPT)
        store.flush()
    assert first[0].cached_tokens == 0
    with closing(open_store(tmp_path, tiny_shape, SETTINGS)) as store:
        again = Engine(tiny_graph, tiny_shape, SETTINGS, store=store)
        second = answer(again, PROMPT)
        assert second[0].cached_tokens == 96  # twelve blocks; the last four tokens were computed
        assert again.stats().prefix_cache_hit_tokens == 96
        assert tokens(second) == tokens(first)
        third = answer(again, [*PROMPT[:50], 1, 2, 3])  # from memory now, as far as it goes
        assert third[0].cached_tokens == 48
        assert store.stats().loaded == 12


def test_the_first_token_does_not_wait_for_copies_of_what_was_restored(
    tmp_path: Path, tiny_graph: Path, tiny_shape: ModelShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come to the cache for the next time, some in each step."""
    with closing(open_store(tmp_path, tiny_shape, SETTINGS)) as store:
        expected = tokens(answer(Engine(tiny_graph, tiny_shape, SETTINGS, store=store), PROMPT))
        store.flush()
    with closing(open_store(tmp_path, tiny_shape, SETTINGS)) as store:
        engine = Engine(tiny_graph, tiny_shape, SETTINGS, store=store)
        monkeypatch.setattr(prefix_reuse, "SLICE_BYTES", 5 * engine.cache.block_bytes)
        engine.add("mine", PROMPT, GREEDY)
        outputs, cached = [], []
        while engine.has_work:
            outputs += [output for _, output in engine.step()]
            if outputs:
                cached.append(engine.cache.used_bytes // engine.cache.block_bytes)
        assert cached[:4] == [0, 5, 10, 12]
        assert tokens(outputs) == expected
        assert tokens(answer(engine, PROMPT)) == expected
        assert store.stats().loaded == 12  # and not once more


def test_an_answer_that_ends_early_leaves_what_was_restored_in_the_cache(
    tmp_path: Path, tiny_graph: Path, tiny_shape: ModelShape
) -> None:
    with closing(open_store(tmp_path, tiny_shape, SETTINGS)) as store:
        answer(Engine(tiny_graph, tiny_shape, SETTINGS, store=store), PROMPT)
        store.flush()
    with closing(open_store(tmp_path, tiny_shape, SETTINGS)) as store:
        engine = Engine(tiny_graph, tiny_shape, SETTINGS, store=store)
        engine.add("mine", PROMPT, replace(GREEDY, max_tokens=1))
        while engine.has_work:
            engine.step()
        assert engine.cache.used_bytes == 12 * engine.cache.block_bytes


def test_a_damaged_block_is_computed_again(tmp_path: Path, tiny_graph: Path, tiny_shape: ModelShape) -> None:
    with closing(open_store(tmp_path, tiny_shape, SETTINGS)) as store:
        engine = Engine(tiny_graph, tiny_shape, SETTINGS, store=store)
        first = answer(engine, PROMPT)
        store.flush()
    fifth = list(chain_keys(PROMPT, engine.cache.block_tokens))[4]
    path = tmp_path / f"{fifth.hex()}.kv"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with closing(open_store(tmp_path, tiny_shape, SETTINGS)) as store:
        second = answer(Engine(tiny_graph, tiny_shape, SETTINGS, store=store), PROMPT)
        store.flush()
        assert second[0].cached_tokens == 32
        assert tokens(second) == tokens(first)
        assert store.stats().damaged == 1
        assert fifth in store  # it was written again


def test_others_decode_while_a_prompt_is_restored(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    store = SlowStore()
    engine = Engine(tiny_graph, tiny_shape, SETTINGS, store=store)
    engine.add("decoding", PROMPT[:3], replace(GREEDY, max_tokens=200))
    engine.step()  # shorter than a block: nothing to restore
    engine.add("restoring", PROMPT, GREEDY)
    written = [request_id for _ in range(20) for request_id, _ in engine.step()]
    assert set(written) == {"decoding"}
    assert len(written) >= 20
    threading.Timer(0.05, store.permits.release, [99]).start()
    engine.cancel("restoring")  # its slot is free once the block at hand is placed
    assert engine.runner.arena.occupied == {0}
    engine.scheduler.check_integrity()


def test_what_was_restored_counts_as_memory_that_is_taken(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    store = SlowStore()
    engine = Engine(tiny_graph, tiny_shape, SETTINGS, store=store)
    engine.add("mine", PROMPT, GREEDY)
    engine.step()
    assert engine.scheduler.committed_bytes == 0
    store.permits.release(9)  # of eight tokens each
    assert eventually(lambda: engine.scheduler.committed_bytes == 2 * GRANULE * tiny_shape.token_bytes)
    store.permits.release(99)
    engine.cancel("mine")
    assert engine.scheduler.committed_bytes == 0


def test_an_engine_with_nothing_else_to_do_waits_without_spinning(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    store = SlowStore(held=0)
    engine = Engine(tiny_graph, tiny_shape, SETTINGS, store=store)
    engine.add("mine", PROMPT, GREEDY)
    threading.Timer(0.2, store.permits.release, [99]).start()
    steps = 0
    while not engine.step():
        steps += 1
    assert 2 < steps < 100
