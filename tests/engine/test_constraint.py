"""Constraints in the engine: a row says only what its own allows, and one that fails ends its own request."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.constraint import MaskWorker
from edgeai.engine.engine import Engine
from edgeai.engine.request import FinishReason, SamplingParams, TokenOutput
from edgeai.engine.sampler import sample
from edgeai.engine.sequence import Sequence
from edgeai.engine.speculative import Draft, Drafter, DraftRow
from edgeai.errors import InvalidInput
from tests.fixtures.toy_grammar import EOS, VOCABULARY, ToyConstraint, ToyGrammar

SETTINGS = EngineSettings(threads=1, max_rows=4, kv_budget_bytes=1 << 22, block_tokens=8)


def run(engine: Engine, jobs: dict[str, SamplingParams]) -> dict[str, list[TokenOutput]]:
    for name, params in jobs.items():
        engine.add(name, [5, 6, 7, 8], params)
    outputs: dict[str, list[TokenOutput]] = {name: [] for name in jobs}
    while engine.has_work:
        for name, output in engine.step():
            outputs[name].append(output)
    return outputs


def tokens(outputs: list[TokenOutput]) -> list[int]:
    return [output.token_id for output in outputs]


def follows(grammar: ToyGrammar, said: list[int]) -> bool:
    return all(token in grammar.allowed(said[:at]) for at, token in enumerate(said))


@pytest.mark.parametrize("drafts", [0, 8])
def test_rows_of_all_kinds_side_by_side(repetitive_graph: Path, tiny_shape: ModelShape, drafts: int) -> None:
    """Sampled, greedy, penalized and free ones: those with a grammar obey it, the free ones are as they are alone."""
    settings = EngineSettings(threads=1, max_rows=5, kv_budget_bytes=1 << 22, draft_tokens=drafts)
    grammars = {name: ToyGrammar(seed=number, length=30) for number, name in enumerate(("hot", "greedy", "penalized"))}
    jobs = {
        "free": SamplingParams(max_tokens=40, temperature=0),
        "hot": SamplingParams(max_tokens=60, temperature=5.0, top_k=20, seed=3, grammar=grammars["hot"]),
        "greedy": SamplingParams(max_tokens=60, temperature=0, grammar=grammars["greedy"]),
        "penalized": SamplingParams(
            max_tokens=60,
            repetition_penalty=5.0,
            logit_bias={2: 100.0, 3: -100.0},
            min_p=0.3,
            seed=1,
            grammar=grammars["penalized"],
        ),
    }
    together = run(Engine(repetitive_graph, tiny_shape, settings), jobs)
    for name, params in jobs.items():
        alone = run(Engine(repetitive_graph, tiny_shape, settings), {name: params})[name]
        assert tokens(alone) == tokens(together[name])
    for name, grammar in grammars.items():
        said = tokens(together[name])
        assert follows(grammar, said)
        ended = said[-1] == EOS or grammar.allowed(said) == [EOS]
        assert ended == (together[name][-1].finish_reason is FinishReason.STOP)
        assert EOS not in said[:-1]


def test_the_end_of_a_grammar_ends_even_what_ignores_ends(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    grammar = ToyGrammar(seed=1, length=5)
    params = SamplingParams(max_tokens=60, temperature=0, ignore_eos=True, grammar=grammar)
    said = run(Engine(tiny_graph, tiny_shape, SETTINGS), {"": params})[""]
    assert tokens(said)[-1] == EOS or grammar.allowed(tokens(said)) == [EOS]
    assert len(said) <= 5
    assert said[-1].finish_reason is FinishReason.STOP


def test_max_tokens_cuts_a_grammar_short(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    params = SamplingParams(max_tokens=3, temperature=0, grammar=ToyGrammar(seed=4, length=30))
    said = run(Engine(tiny_graph, tiny_shape, SETTINGS), {"": params})[""]
    assert [output.finish_reason for output in said] == [None, None, FinishReason.LENGTH]


def test_log_probabilities_are_those_of_the_model(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    """The mask does not show in them: tokens that were not allowed may lead the list."""
    params = SamplingParams(max_tokens=20, temperature=0, logprobs=2, grammar=ToyGrammar(seed=2, length=30))
    said = run(Engine(tiny_graph, tiny_shape, SETTINGS), {"": params})[""]
    assert any(output.top_logprobs[0].token_id != output.token_id for output in said)
    assert all(output.logprob is not None and output.logprob.logprob > -50 for output in said)


def test_a_grammar_that_fails_ends_its_own_request_only(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    engine = Engine(tiny_graph, tiny_shape, SETTINGS)
    free = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    alone = tokens(run(engine, {"free": free})["free"])
    jobs = {
        "fails": SamplingParams(max_tokens=30, temperature=0, grammar=ToyGrammar(seed=0, fails_after=4)),
        "free": free,
        "at once": SamplingParams(max_tokens=30, temperature=0, grammar=ToyGrammar(seed=0, fails_after=0)),
    }
    outputs = run(engine, jobs)
    assert len(outputs["fails"]) <= 4
    assert outputs["at once"] == []
    assert engine.failures.keys() == {"fails", "at once"}
    assert isinstance(engine.failures["fails"], InvalidInput)
    assert tokens(outputs["free"]) == alone
    engine.scheduler.check_integrity()


def test_forced_tokens_are_drafted_and_others_cut_where_they_do_not_fit() -> None:
    grammar = ToyGrammar(seed=0, length=50)
    text = [5, 6, 7]
    forced = other = 0
    constraint = grammar.start()
    for _ in range(40):
        draft = DraftRow([*text, *constraint.said], Drafter(), 10, constraint).draft(6)
        assert draft.forced == (len(grammar.allowed(constraint.said)) == 1)
        assert follows(grammar, [*constraint.said, *draft.tokens])
        forced += draft.forced
        other += not draft.forced
        constraint.commit(min(token for token in grammar.allowed(constraint.said) if token != EOS))
    assert forced > 5
    assert other > 5
    assert DraftRow(text, Drafter(), 0, constraint).draft(6).tokens == []
    assert Draft([1, 2, 3], 0.5).cut(2).tokens == [1, 2]


def test_a_draw_never_leaves_the_mask() -> None:
    rng = np.random.default_rng(0)
    for seed in range(300):
        mask = np.zeros(VOCABULARY, bool)
        mask[rng.integers(0, VOCABULARY, rng.integers(1, 6))] = True
        logits = np.where(mask, rng.normal(-30, 5, VOCABULARY), rng.normal(30, 5, VOCABULARY)).astype(np.float32)
        params = SamplingParams(
            temperature=float(rng.choice([0.01, 1.0, 5.0])),
            top_k=int(rng.choice([0, 3, 50])),
            top_p=float(rng.choice([0.0, 0.5, 1.0])),
            min_p=float(rng.choice([0.0, 0.9])),
            seed=seed,
        )
        assert mask[sample(logits, Sequence.start("", [5], params), mask)]


def test_a_failed_run_waits_for_its_masks() -> None:
    """A constraint is never used by two threads at a time."""
    constraint = ToyGrammar(seed=0).start()
    job = MaskWorker().beside([(None, ()), (constraint, [])], long=True)
    with pytest.raises(RuntimeError, match="the run"), job:
        raise RuntimeError("the run failed")
    assert job.rows[0] is None
    assert isinstance(job.rows[1], list)


class Watched(ToyConstraint):
    """Notes which threads compute its masks, and takes its time."""

    seconds = 0.0
    threads: ClassVar[list[str]] = []

    def masks(self, draft):
        time.sleep(self.seconds)
        self.threads.append(threading.current_thread().name)
        return super().masks(draft)


def test_masks_that_take_long_are_computed_by_the_thread_and_others_at_once() -> None:
    constraint, worker = Watched(ToyGrammar(seed=0)), MaskWorker(cheap=0.01)
    here = threading.current_thread().name

    def computed_by(*, long: bool = False) -> str:
        Watched.threads.clear()
        with worker.beside([(constraint, ()), (None, ())], long=long) as job:
            pass
        assert isinstance(job.rows[0], list)
        return Watched.threads[0]

    assert computed_by() == here
    assert computed_by(long=True) != here
    constraint.seconds = 0.2
    assert computed_by() == here  # nobody knew
    assert computed_by() != here
    constraint.seconds = 0.0
    assert here in {computed_by() for _ in range(60)}  # cheap again
