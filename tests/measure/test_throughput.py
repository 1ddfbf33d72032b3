"""Throughput figures of a tiny engine: they are measured, positive, and leave nothing behind."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine
from edgeai.measure import throughput
from edgeai.measure.throughput import DECODE_TOKENS, decode_speed, measure, prefill_speed, random_prompt

SETTINGS = EngineSettings(threads=1, max_rows=4, kv_budget_bytes=8 << 20)


@pytest.fixture
def engine(tiny_graph: Path, tiny_shape: ModelShape) -> Engine:
    shape = replace(tiny_shape, eos_token_ids=frozenset(range(2, 96)))  # nearly any token would end an answer
    return Engine(tiny_graph, shape, SETTINGS)


def test_prefill_is_tokens_by_time(engine: Engine) -> None:
    started = time.perf_counter()
    speed = prefill_speed(engine, 400)
    elapsed = time.perf_counter() - started
    assert 0 < 400 / speed <= elapsed
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.generated_tokens) == (400, 1)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_decode_counts_all_rows(engine: Engine, rows: int) -> None:
    """End tokens are ignored, so that every row decodes to the end."""
    started = time.perf_counter()
    speed = decode_speed(engine, 100, rows=rows)
    elapsed = time.perf_counter() - started
    assert rows / speed < elapsed / DECODE_TOKENS * 2
    assert speed > 0
    assert engine.stats().generated_tokens == rows * (DECODE_TOKENS + rows)
    assert not engine.has_work


def test_only_full_batches_are_timed(engine: Engine) -> None:
    times: list[float] = []
    prompts = [random_prompt(engine, 20, seed) for seed in range(3)]
    throughput._run(engine, prompts, 10, on_full_step=times.append)
    assert 0 < len(times) < 10
    assert all(seconds > 0 for seconds in times)


def test_prompts_are_repeatable_and_in_the_vocabulary(engine: Engine) -> None:
    assert random_prompt(engine, 50, 3) == random_prompt(engine, 50, 3) != random_prompt(engine, 50, 4)
    assert set(random_prompt(engine, 5000, 0)) == set(range(3, 96))


def test_measure_gives_medians_of_all_rounds(tiny_graph: Path, tiny_shape: ModelShape, monkeypatch) -> None:
    engine = Engine(tiny_graph, replace(tiny_shape, context_length=512), replace(SETTINGS, max_rows=2))
    monkeypatch.setattr(throughput.prefill_speed, "__defaults__", (200,))  # the tiny model's context is 512
    result = measure(engine, rounds=2)
    assert result.prefill_512 > 0
    assert result.decode_128 > 0
    assert result.decode_batch8 > 0
    assert engine.stats().prefix_cache_hit_tokens == 0
    assert not engine.has_work


def test_seconds_are_those_of_the_clock(engine: Engine) -> None:
    ticks = itertools.count()
    assert decode_speed(engine, 100, rows=2, clock=lambda: next(ticks)) == 2  # a tick for each step
    assert prefill_speed(engine, 300, clock=lambda: next(ticks)) == 300
