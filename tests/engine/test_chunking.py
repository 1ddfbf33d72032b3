"""Chunks that keep the latency of those who decode, on machines whose costs are known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgeai.engine.chunking import GROWTH, MIN_CHUNK, ChunkSizer
from edgeai.engine.config import EngineSettings, ModelShape

SHAPE = ModelShape(vocab_size=1, num_layers=1, num_heads=1, num_kv_heads=1, head_size=64, context_length=8192)
SETTINGS = EngineSettings(chunk_tokens=128, latency_seconds=0.25)
PROMPT = 8000
Cost = Callable[[int, int], float]


def sizer(**changes) -> ChunkSizer:
    return ChunkSizer(replace(SETTINGS, **changes), SHAPE, 8256)


def board(slowness: float) -> Cost:
    def seconds(tokens: int, start: int) -> float:
        return slowness * (0.004 + tokens * 0.0012 + tokens * (start + tokens / 2) * 3e-7)

    return seconds


def read(chunks: ChunkSizer, cost: Cost, decode: float, noise: Callable[[], float] = lambda: 1.0):
    """Read a prompt beside rows that decode; yields the chunks and the seconds of their steps."""
    start = 0
    while start < PROMPT:
        spent = decode * noise()
        tokens = min(chunks.limit(start, spent, others_decode=True), PROMPT - start)
        seconds = cost(tokens, start) * noise()
        chunks.measured(tokens, start, seconds)
        chunks.ended(0.002)
        yield tokens, spent + seconds + 0.002
        start += tokens


def test_alone_a_prompt_is_read_in_whole_chunks() -> None:
    chunks = sizer()
    chunks.measured(128, 0, 100.0)
    assert chunks.limit(0, 0.0, others_decode=False) == 128


def test_beside_others_it_begins_with_little_and_grows_with_what_was_seen() -> None:
    sizes = [tokens for tokens, _ in read(sizer(), board(0.01), 0.0)]
    assert sizes[:5] == [MIN_CHUNK, GROWTH * MIN_CHUNK, 64, 128, 128]


@pytest.mark.parametrize("slowness", [0.2, 1, 2, 4])
@pytest.mark.parametrize("decode", [0.0, 0.02, 0.1])
def test_steps_stay_within_the_bound(slowness: float, decode: float) -> None:
    """Or are the smallest there are; and no smaller than the bound makes them. The first few teach what chunks cost."""
    chunks, cost = sizer(), board(slowness)
    cost_of_least = cost(MIN_CHUNK, PROMPT) + decode + 0.002
    steps = list(read(chunks, cost, decode))
    assert max(seconds for _, seconds in steps[8:]) < max(0.25, cost_of_least * 1.001)
    assert max(seconds for _, seconds in steps[:8]) < 0.25 * 1.5
    used = [seconds / 0.25 for tokens, seconds in steps[8:-1] if MIN_CHUNK < tokens < 128]
    assert all(share > 0.45 for share in used)


def test_chunks_get_shorter_with_the_context() -> None:
    sizes = [tokens for tokens, _ in read(sizer(), board(2), 0.02)]
    assert sizes[4] >= 2 * sizes[-2] >= 2 * MIN_CHUNK


@pytest.mark.parametrize("seed", range(4))
def test_a_noisy_machine_is_given_a_margin(seed: int) -> None:
    """Where a tenth of all runs take half as long again, 95 of 100 steps still keep the bound."""
    rng = np.random.default_rng(seed)

    def noise() -> float:
        return float(1 + 0.05 * rng.normal() + (0.5 if rng.random() < 0.1 else 0.0))

    chunks = sizer()
    list(read(chunks, board(2), 0.03, noise))
    steps = [seconds for _, seconds in read(chunks, board(2), 0.03, noise)]
    assert np.percentile(steps, 95) < 0.25
    assert np.mean(steps) > 0.12


def test_a_machine_that_slows_down_is_noticed_within_a_few_steps() -> None:
    chunks = sizer()
    list(read(chunks, board(1), 0.02))
    steps = [seconds for _, seconds in read(chunks, board(3), 0.02)]
    assert sum(seconds > 0.25 for seconds in steps) < 15


def test_time_that_the_step_has_spent_is_not_spent_again() -> None:
    chunks = sizer()
    list(read(chunks, board(1), 0.0))
    sizes = [chunks.limit(1000, spent, others_decode=True) for spent in (0.0, 0.1, 0.15, 0.2, 1.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2] > sizes[-1] == MIN_CHUNK


def test_short_chunks_say_nothing() -> None:
    chunks = sizer()
    chunks.measured(MIN_CHUNK - 1, 0, 1000.0)
    assert chunks.seconds(128, 0) == 0


def test_a_prompt_is_the_sum_of_its_chunks() -> None:
    chunks, cost = sizer(), board(1)
    for start in range(0, PROMPT, 128):
        chunks.measured(128, start, cost(128, start))
    for tokens, start in ((1000, 0), (128, 0), (50, 3000), (4000, 4000), (0, 10)):
        ends = [*range(start, start + tokens, 128), start + tokens]
        true = sum(cost(stop - first, first) for first, stop in itertools.pairwise(ends))
        assert chunks.prompt_seconds(tokens, start) == pytest.approx(true, rel=0.1, abs=1e-9)
