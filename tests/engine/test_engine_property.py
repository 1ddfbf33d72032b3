"""Whatever is batched, chunked, cached, preempted or cancelled, the engine gives the naive loop's tokens."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine
from edgeai.engine.model_runner import ModelRunner
from edgeai.engine.naive import greedy
from edgeai.engine.request import SamplingParams

SETTINGS = EngineSettings(threads=1, max_rows=4, block_tokens=8, chunk_tokens=24, kv_budget_bytes=1 << 20)
PREFIXES = [tuple(range(2, 2 + n)) for n in (0, 9, 40)]  # shared beginnings, so that the prefix cache has work

prompts = st.tuples(st.sampled_from(PREFIXES), st.lists(st.integers(2, 95), min_size=1, max_size=70).map(tuple)).map(
    lambda parts: parts[0] + parts[1]
)
requests = st.tuples(prompts, st.integers(1, 60), st.integers(0, 12), st.none() | st.integers(0, 30))


@pytest.fixture(scope="module")
def naive(tiny_graph: Path, tiny_shape: ModelShape):
    runner = ModelRunner(tiny_graph, tiny_shape, SETTINGS, 512)

    @cache
    def run(prompt: tuple[int, ...], max_tokens: int) -> list[int]:
        return greedy(runner, prompt, max_tokens)

    return run


def engine_with(graph: Path, shape: ModelShape, tokens: int, *, cache: bool) -> Engine:
    budget = tokens * shape.token_bytes
    return Engine(graph, shape, replace(SETTINGS, kv_budget_bytes=budget, prefix_cache=cache))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    schedule=st.lists(requests, min_size=1, max_size=7),
    budget=st.sampled_from([192, 320, 2048]),
    cache=st.booleans(),
)
def test_equals_the_naive_loop(naive, tiny_graph: Path, tiny_shape: ModelShape, schedule, budget, cache) -> None:
    """Requests join at given steps; some are cancelled; a small budget forces preemption and eviction."""
    engine = engine_with(tiny_graph, tiny_shape, budget, cache=cache)
    outputs: dict[str, list[int]] = {str(i): [] for i in range(len(schedule))}
    step = 0
    while engine.has_work or step <= 12:
        for i, (prompt, max_tokens, joins, cancelled_after) in enumerate(schedule):
            if joins == step:
                engine.add(str(i), prompt, SamplingParams(max_tokens=max_tokens, temperature=0))
            if cancelled_after is not None and joins + cancelled_after == step:
                engine.cancel(str(i))
        for request_id, output in engine.step():
            outputs[request_id].append(output.token_id)
        engine.scheduler.check_integrity()
        step += 1
    assert not engine.runner.arena.occupied
    for i, (prompt, max_tokens, _, cancelled_after) in enumerate(schedule):
        expected = naive(prompt, max_tokens)
        if cancelled_after is None:
            assert outputs[str(i)] == expected
        else:
            assert outputs[str(i)] == expected[: len(outputs[str(i)])]


def test_preemption_and_eviction_really_happen(naive, tiny_graph: Path, tiny_shape: ModelShape) -> None:
    """The property would be hollow if a small budget never forced anything out."""
    engine = engine_with(tiny_graph, tiny_shape, 320, cache=True)
    jobs = [tuple(range(2 + i, 60 + i)) for i in range(4)]
    for i, prompt in enumerate(jobs):
        engine.add(str(i), prompt, SamplingParams(max_tokens=150, temperature=0, ignore_eos=True))
    outputs: dict[str, list[int]] = {str(i): [] for i in range(4)}
    while engine.has_work:
        for request_id, output in engine.step():
            outputs[request_id].append(output.token_id)
        engine.scheduler.check_integrity()
    assert engine.stats().preemptions > 0
    for i, prompt in enumerate(jobs):
        ended = naive(prompt, 150)
        assert outputs[str(i)][: len(ended)] == ended
        assert len(outputs[str(i)]) == 150


def test_sampled_text_depends_on_its_seed_alone(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    """A seeded request gives the same tokens alone, in a crowd, and when it is preempted."""
    params = SamplingParams(max_tokens=100, temperature=1.3, top_p=0.95, seed=7, ignore_eos=True)
    prompt = tuple(range(5, 45))
    results = []
    for budget, crowd in ((2048, 0), (2048, 3), (320, 3)):
        engine = engine_with(tiny_graph, tiny_shape, budget, cache=False)
        for i in range(crowd):
            engine.add(f"crowd {i}", prompt[i:], replace(params, seed=i))
        engine.add("mine", prompt, params)
        tokens = []
        while engine.has_work:
            tokens += [output.token_id for request_id, output in engine.step() if request_id == "mine"]
        results.append(tokens)
    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 100
