"""The engine's own duties: how sequences end, what is counted, what a failed step leaves behind."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine, effective_context
from edgeai.engine.kv_cache import GRANULE
from edgeai.engine.naive import greedy
from edgeai.engine.request import FinishReason, SamplingParams, TokenOutput
from edgeai.engine.terms import Terms
from edgeai.errors import ContextLengthExceeded, DeadlineExceeded, InvalidInput, OutOfMemory, Overloaded, PackageError

SETTINGS = EngineSettings(threads=1, max_rows=2, max_queue=2, block_tokens=8, kv_budget_bytes=8 << 20)
GREEDY = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
PROMPT = list(range(10, 40))


@pytest.fixture
def engine(tiny_graph: Path, tiny_shape: ModelShape) -> Engine:
    return Engine(tiny_graph, tiny_shape, SETTINGS)


def answer(engine: Engine, prompt: list[int], params: SamplingParams) -> list[TokenOutput]:
    engine.add("test", prompt, params)
    outputs = []
    while engine.has_work:
        outputs += [output for _, output in engine.step()]
    engine.scheduler.check_integrity()
    return outputs


def tokens(outputs: list[TokenOutput]) -> list[int]:
    return [output.token_id for output in outputs]


def test_max_tokens_ends_an_answer(engine: Engine) -> None:
    outputs = answer(engine, PROMPT, GREEDY)
    assert len(outputs) == 20
    assert [output.finish_reason for output in outputs] == [None] * 19 + [FinishReason.LENGTH]


def test_the_context_ends_an_answer(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    engine = Engine(tiny_graph, tiny_shape, replace(SETTINGS, max_context=35))
    outputs = answer(engine, PROMPT, GREEDY)
    assert len(outputs) == 5
    assert outputs[-1].finish_reason is FinishReason.LENGTH
    with pytest.raises(ContextLengthExceeded, match="35 tokens; the context holds 35"):
        engine.add("long", list(range(35)), GREEDY)


def test_a_stop_token_ends_an_answer(engine: Engine) -> None:
    free = tokens(answer(engine, PROMPT, GREEDY))
    stop = free[6]
    outputs = answer(engine, PROMPT, replace(GREEDY, stop_token_ids=frozenset({stop})))
    assert tokens(outputs) == free[: free.index(stop) + 1]
    assert outputs[-1].finish_reason is FinishReason.STOP


def test_an_end_token_ends_an_answer_unless_ignored(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    probe = Engine(tiny_graph, tiny_shape, SETTINGS)
    free = tokens(answer(probe, PROMPT, GREEDY))
    engine = Engine(tiny_graph, replace(tiny_shape, eos_token_ids=frozenset({free[4]})), SETTINGS)
    outputs = answer(engine, PROMPT, replace(GREEDY, ignore_eos=False))
    assert tokens(outputs) == free[: free.index(free[4]) + 1]
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert tokens(answer(engine, PROMPT, GREEDY)) == free


def test_logprobs_come_when_they_are_asked_for(engine: Engine) -> None:
    assert all(output.logprob is None and not output.top_logprobs for output in answer(engine, PROMPT, GREEDY))
    for output in answer(engine, PROMPT, replace(GREEDY, logprobs=3)):
        assert output.logprob is not None
        assert output.logprob.token_id == output.token_id
        assert output.top_logprobs[0] == output.logprob  # greedy
        assert [entry.logprob for entry in output.top_logprobs] == sorted(
            (entry.logprob for entry in output.top_logprobs), reverse=True
        )
    for output in answer(engine, PROMPT, replace(GREEDY, logprobs=0)):
        assert output.logprob is not None
        assert output.logprob.logprob <= 0
        assert not output.top_logprobs


def test_logprobs_do_not_depend_on_how_tokens_are_chosen(engine: Engine) -> None:
    """They are of the model's own distribution, before bias and temperature."""
    plain = answer(engine, PROMPT, replace(GREEDY, logprobs=2, max_tokens=1))[0]
    banned = {plain.token_id: -1000.0}
    other = answer(engine, PROMPT, replace(GREEDY, logprobs=2, max_tokens=1, logit_bias=banned, temperature=0.5))[0]
    assert other.token_id != plain.token_id
    assert [entry.token_id for entry in other.top_logprobs] == [entry.token_id for entry in plain.top_logprobs]
    for one, two in zip(other.top_logprobs, plain.top_logprobs, strict=True):
        assert math.isclose(one.logprob, two.logprob, abs_tol=1e-3)


def test_unseeded_requests_differ(engine: Engine) -> None:
    params = SamplingParams(max_tokens=20, temperature=5, ignore_eos=True)
    assert tokens(answer(engine, PROMPT, params)) != tokens(answer(engine, PROMPT, params))


def test_cached_tokens_are_reported(engine: Engine) -> None:
    assert {output.cached_tokens for output in answer(engine, PROMPT, GREEDY)} == {0}
    assert {output.cached_tokens for output in answer(engine, PROMPT, GREEDY)} == {24}  # whole blocks of 30 - 1
    stats = engine.stats()
    assert stats.prefix_cache_hit_tokens == 24
    assert stats.prompt_tokens == 60
    assert stats.generated_tokens == 40


def test_stats_follow_the_work(engine: Engine) -> None:
    for name in "ab":
        engine.add(name, PROMPT, GREEDY)
    assert (engine.stats().running, engine.stats().waiting) == (0, 2)
    for _ in range(2):
        engine.step()
    engine.add("c", PROMPT, GREEDY)
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (2, 1)
    assert stats.kv_budget_bytes == 8 << 20
    assert stats.kv_used_bytes >= 2 * GRANULE * engine.shape.token_bytes
    for name in "abc":
        engine.cancel(name)
    assert not engine.has_work
    assert engine.step() == []
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)


def test_cancelling_what_is_unknown_does_nothing(engine: Engine) -> None:
    engine.cancel("nobody")
    assert len(answer(engine, PROMPT, GREEDY)) == 20
    engine.cancel("test")


def test_a_full_queue_is_told_so(engine: Engine) -> None:
    """Two rows, and two that may wait for them."""
    for name in "abcd":
        engine.add(name, PROMPT, GREEDY)
    with pytest.raises(Overloaded, match="4 requests are waiting") as caught:
        engine.add("e", PROMPT, GREEDY)
    assert caught.value.retry_after >= 1
    while engine.stats().running + engine.stats().waiting == 4:
        engine.step()
    engine.add("e", PROMPT, GREEDY)


def test_an_answer_ends_at_its_deadline(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(engine.admission, "_clock", lambda: clock[0])
    engine.add("a", PROMPT, GREEDY, terms=Terms(deadline=150.0))
    engine.add("b", PROMPT, GREEDY, terms=Terms())
    outputs: dict[str, list[TokenOutput]] = {"a": [], "b": []}
    while engine.has_work:
        for name, output in engine.step():
            outputs[name].append(output)
        if len(outputs["a"]) == 5:
            clock[0] = 151.0
    assert [len(outputs[name]) for name in "ab"] == [6, 20]
    assert outputs["a"][-1].finish_reason is FinishReason.LENGTH
    assert engine.stats().expired == 1
    assert not engine.failures


def test_requests_that_are_too_late_are_told_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they wait, and while their prompt is read; those that had no deadline go on."""
    clock = [100.0]
    monkeypatch.setattr(engine.admission, "_clock", lambda: clock[0])
    monkeypatch.setattr(engine.scheduler.chunks, "most", 16)
    for name, terms in (("reads", Terms(deadline=150.0)), ("waits", Terms(deadline=140.0)), ("rests", Terms())):
        engine.add(name, PROMPT, GREEDY, terms=terms)
    assert not engine.step()
    assert not engine.failures
    assert engine.stats().queued == {"interactive": 2, "batch": 0}
    clock[0] = 151.0
    rest = engine.step()
    assert {name: error.status for name, error in engine.failures.items()} == {"waits": 504, "reads": 504}
    engine.scheduler.check_integrity()
    assert [each.request_id for each in engine.scheduler.running] == ["rests"]
    with pytest.raises(DeadlineExceeded, match="passed"):
        engine.add("late", PROMPT, GREEDY, terms=Terms(deadline=150.0))
    assert engine.stats().expired == 3
    while engine.has_work:
        rest += engine.step()
    assert len(rest) == 20


@pytest.mark.parametrize("part", ["prefill", "decode"])
def test_a_failed_step_leaves_the_books_as_they_were(engine: Engine, part: str, monkeypatch) -> None:
    """The same step succeeds later, and nothing is lost or doubled."""
    expected = [greedy(engine.runner, [number, *PROMPT], 6) for number in (1, 2)]
    params = replace(GREEDY, max_tokens=6, ignore_eos=False)
    outputs: dict[str, list[int]] = {"0": [], "1": []}
    for number in (1, 2):
        engine.add(str(number - 1), [number, *PROMPT], params)
    working = getattr(engine.runner, part)
    for attempt in range(30):
        if attempt % 2 == 0:
            monkeypatch.setattr(engine.runner, part, lambda *args: (_ for _ in ()).throw(RuntimeError("broken")))
        try:
            for request_id, output in engine.step():
                outputs[request_id].append(output.token_id)
        except RuntimeError:
            pass
        engine.scheduler.check_integrity()
        monkeypatch.setattr(engine.runner, part, working)
    assert not engine.has_work
    assert list(outputs.values()) == expected


def test_an_exhausted_row_budget_is_an_error_at_the_start(tiny_shape: ModelShape) -> None:
    small = GRANULE * tiny_shape.token_bytes
    assert effective_context(tiny_shape, replace(SETTINGS, kv_budget_bytes=small)) == GRANULE
    assert effective_context(tiny_shape, replace(SETTINGS, kv_budget_bytes=3 * small - 1)) == 2 * GRANULE
    assert effective_context(tiny_shape, SETTINGS) == 512
    assert effective_context(tiny_shape, replace(SETTINGS, max_context=100)) == 100
    with pytest.raises(OutOfMemory, match="holds no context"):
        effective_context(tiny_shape, replace(SETTINGS, kv_budget_bytes=small - 1))
    with pytest.raises(OutOfMemory, match="a context of 200 tokens"):
        effective_context(tiny_shape, replace(SETTINGS, kv_budget_bytes=small, max_context=200))
    with pytest.raises(InvalidInput, match="513 tokens was asked for; the model has 512"):
        effective_context(tiny_shape, replace(SETTINGS, max_context=513))


def test_a_graph_that_is_none(tmp_path: Path, tiny_shape: ModelShape) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    for name in ("model.onnx", "missing.onnx"):
        with pytest.raises(PackageError, match=name):
            Engine(tmp_path / name, tiny_shape, SETTINGS)


def test_scored_positions_equal_single_steps(engine: Engine) -> None:
    """`score` is what perplexity rests on."""
    every = engine.runner.score(0, PROMPT, 0).copy()
    for position, token in enumerate(PROMPT):
        row = engine.runner.decode([token], [position])[0]
        assert np.abs(row - every[position]).max() < 1e-3


def test_an_id_in_use_is_refused(engine: Engine) -> None:
    """Two requests under one id would get each other's tokens."""
    engine.add("same", [5, 6], SamplingParams(max_tokens=2))
    with pytest.raises(ValueError, match="'same' is running already"):
        engine.add("same", [7], SamplingParams(max_tokens=2))
    while engine.has_work:
        engine.step()
    engine.add("same", [7], SamplingParams(max_tokens=2))
