"""The runner of exported graphs against plain numpy, and the engine on top of it against the naive loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeai.engine.config import EngineSettings
from edgeai.engine.engine import Engine
from edgeai.engine.exported_runner import ExportedRunner, Job, alike, position_inputs, same
from edgeai.engine.kv_cache import granules
from edgeai.engine.load_runner import load_runner
from edgeai.engine.naive import greedy
from edgeai.engine.request import SamplingParams
from tests.fixtures.exported import CONTEXT, SHAPE, VOCAB, naive_logits, random_weights, write_exported

SETTINGS = EngineSettings(threads=1, max_rows=4, block_tokens=8, chunk_tokens=24, kv_budget_bytes=1 << 20)
WEIGHTS = random_weights()
FORMS = [{}, {"logits_from": False}, {"positions": "mask"}, {"tied": True}]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    write_exported(path, WEIGHTS)
    return path


def tokens(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, VOCAB, count)]


def runner_of(path: Path, *, padded: bool = True) -> ExportedRunner:
    return ExportedRunner(path, SHAPE, SETTINGS, CONTEXT, padded=padded)


def test_the_manifest_runtime_chooses_the_runner(graph: Path) -> None:
    assert isinstance(load_runner(graph, SHAPE, SETTINGS, 64), ExportedRunner)
    assert isinstance(load_runner(graph, replace(SHAPE, runtime="exported-unpadded"), SETTINGS, 64), ExportedRunner)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_chunks_and_single_tokens_are_the_whole_sequence(form: dict[str, Any], tmp_path: Path) -> None:
    write_exported(tmp_path / "model.onnx", WEIGHTS, **form)
    runner, ids = runner_of(tmp_path / "model.onnx"), tokens(70)
    expected = naive_logits(WEIGHTS, ids, tied=form.get("tied", False))
    assert np.abs(runner.score(2, ids[:40], 0) - expected[:40]).max() < 1e-4
    assert np.abs(runner.prefill(2, ids[40:60], 40) - expected[59]).max() < 1e-4
    runner.arena.move(2, 0, 60)
    for at in range(60, 70):
        assert np.abs(runner.decode([ids[at]], [at])[0] - expected[at]).max() < 1e-4


@pytest.mark.parametrize("padded", [True, False])
def test_rows_of_different_lengths_decode_together(graph: Path, padded: bool) -> None:
    runner, rows = runner_of(graph, padded=padded), [tokens(30, 1), tokens(7, 2), tokens(55, 3), tokens(28, 4)]
    starts = [20, 1, 40, 20]
    for slot, (ids, start) in enumerate(zip(rows, starts, strict=True)):
        runner.prefill(slot, ids[:start], 0)
    for step in range(5):
        logits = runner.decode([r[s + step] for r, s in zip(rows, starts, strict=True)], [s + step for s in starts])
        for row, ids, start in zip(logits, rows, starts, strict=True):
            assert np.abs(row - naive_logits(WEIGHTS, ids)[start + step]).max() < 1e-4


@pytest.mark.parametrize("padded", [True, False])
def test_drafts_of_different_lengths_are_verified_together(graph: Path, padded: bool) -> None:
    runner, rows = runner_of(graph, padded=padded), [tokens(30, 1), tokens(9, 2), tokens(CONTEXT, 3)]
    starts = [25, 2, CONTEXT - 1]  # the last has no position left behind its token, where the others' drafts are
    for slot, (ids, start) in enumerate(zip(rows, starts, strict=True)):
        runner.prefill(slot, ids[:start], 0)
    logits = runner.verify([ids[start:] for ids, start in zip(rows, starts, strict=True)], starts)
    for row, ids, start in zip(logits, rows, starts, strict=True):
        assert row.shape == (len(ids) - start, VOCAB)
        assert np.abs(row - naive_logits(WEIGHTS, ids)[start:]).max() < 1e-4
    again = runner.decode([5, 5, 5], [27, 5, 3])  # part of each draft was accepted; the rest is written over
    for row, (ids, length) in zip(again, [(rows[0], 27), (rows[1], 5), (rows[2], 3)], strict=True):
        assert np.abs(row - naive_logits(WEIGHTS, [*ids[:length], 5])[-1]).max() < 1e-4


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 11)), min_size=1, max_size=12))
def test_copies_take_no_more_than_the_plan_of_memory_counts_on(rows: list[tuple[int, int]]) -> None:
    jobs = [Job(slot, [5] * new, length) for slot, (length, new) in enumerate(rows)]
    for grouped, most in ((alike(jobs), replace(SHAPE, runtime="exported").copies), (same(jobs), 2)):
        assert sorted(job.slot for group in grouped for job in group) == list(range(len(jobs)))
        for group in grouped:
            copied = len(group) * max(job.length for job in group)
            assert 2 * copied <= most * sum(granules(job.length + 1) for job in group)


def test_rows_of_about_the_same_length_run_together() -> None:
    jobs = [Job(0, [5], 900), Job(1, [5], 3), Job(2, [5], 500), Job(3, [5], 120), Job(4, [5], 1000)]
    assert [[job.slot for job in group] for group in alike(jobs)] == [[4, 0, 2], [3, 1]]


def test_padding_is_masked_and_stays_within_the_positions() -> None:
    inputs = position_inputs([Job(0, [7, 8], 3), Job(1, [9], 1)])
    assert inputs["input_ids"].tolist() == [[7, 8], [9, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]
    assert inputs["position_ids"].tolist() == [[3, 4], [1, 1]]


def test_the_naive_loop_on_it_is_numpys_greedy_choice(graph: Path) -> None:
    ids, prompt = [], tokens(12)
    while len(ids) < 40 and 1 not in ids:
        ids.append(int(naive_logits(WEIGHTS, [*prompt, *ids])[-1].argmax()))
    assert greedy(runner_of(graph), prompt, 40) == ids


requests = st.tuples(st.integers(1, 90), st.integers(0, 5), st.integers(1, 40), st.integers(0, 8))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    schedule=st.lists(requests, min_size=1, max_size=6),
    budget=st.sampled_from([256, 2048]),
    cached=st.booleans(),
    runtime=st.sampled_from(["exported", "exported-unpadded"]),
)
def test_the_engine_equals_the_naive_loop(graph: Path, schedule, budget: int, cached: bool, runtime) -> None:
    """Batched, chunked, cached and preempted: token for token."""
    chosen = replace(SETTINGS, kv_budget_bytes=budget * SHAPE.token_bytes, prefix_cache=cached)
    engine = Engine(graph, replace(SHAPE, runtime=runtime), chosen)
    outputs: dict[str, list[int]] = {str(number): [] for number in range(len(schedule))}
    prompts = [tokens(length, seed) for length, seed, _, _ in schedule]  # equal seeds share a beginning
    step = 0
    while engine.has_work or step <= 8:
        for number, (_, _, max_tokens, joins) in enumerate(schedule):
            if joins == step:
                engine.add(str(number), prompts[number], SamplingParams(max_tokens=max_tokens, temperature=0))
        for request_id, output in engine.step():
            outputs[request_id].append(output.token_id)
        engine.scheduler.check_integrity()
        step += 1
    runner = runner_of(graph)
    for number, (_, _, max_tokens, _) in enumerate(schedule):
        assert outputs[str(number)] == greedy(runner, prompts[number], max_tokens)
