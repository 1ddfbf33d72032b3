"""Near the last token only what leaves room for the end is said, as long as there is room at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine
from edgeai.engine.request import FinishReason, SamplingParams
from edgeai.engine.wind_down import TRIES, choose
from tests.fixtures.toy_grammar import EOS, VOCABULARY, ToyConstraint, ToyGrammar


def say(grammar: ToyGrammar, logits: np.ndarray, budget: int) -> list[int]:
    """The likeliest tokens, one by one."""
    constraint, said = grammar.start(), []
    while len(said) < budget and not constraint.over(()):
        mask = constraint.masks(())[0]
        row = logits[len(said)]
        said.append(
            choose(
                lambda mask, row=row: int(np.where(mask, row, -np.inf).argmax()),
                mask,
                constraint,
                (),
                budget - len(said),
            )
        )
        if said[-1] == EOS:
            break
        constraint.commit(said[-1])
    return said


def is_whole(grammar: ToyGrammar, said: list[int]) -> bool:
    text = said[: said.index(EOS)] if EOS in said else said
    return EOS in grammar.allowed(text) if EOS in said else grammar.allowed(text) == [EOS]


@given(seed=st.integers(0, 30), length=st.integers(1, 40), budget=st.integers(1, 60), model=st.integers(0, 5))
def test_a_text_is_whole_if_a_way_to_its_end_was_known(seed: int, length: int, budget: int, model: int) -> None:
    grammar = ToyGrammar(seed, length)
    logits = np.random.default_rng(model).normal(size=(60, VOCABULARY))
    logits[:, EOS] = -9.0  # the model would go on for ever
    said = say(grammar, logits, budget)
    known = grammar.start().way_out((), budget) is not None
    assert is_whole(grammar, said) or not known
    assert len(said) <= budget


def test_where_no_end_is_in_reach_the_text_is_what_it_would_be() -> None:
    grammar = ToyGrammar(seed=3, length=40)
    logits = np.random.default_rng(0).normal(size=(60, VOCABULARY))
    logits[:, EOS] = -9.0
    free = say(grammar, logits, 60)
    assert grammar.start().way_out((), 3) is None
    assert say(grammar, logits, 3) == free[:3]


class Narrow(ToyConstraint):
    """One of the tokens 2, 3, ... and then the end; behind odd ones it is out of reach."""

    def can_end(self, said, left: int) -> bool:
        return said[-1] % 2 == 0

    def way_out(self, said, left: int) -> int | None:
        return VOCABULARY - 2


def test_the_next_best_token_comes_before_the_known_way() -> None:
    constraint = Narrow(ToyGrammar(seed=0))
    mask = np.ones(VOCABULARY, bool)
    asked: list[int] = []

    def best_first(mask: np.ndarray) -> int:
        asked.append(int(np.flatnonzero(mask)[0]))
        return asked[-1]

    mask[:5] = False
    assert choose(best_first, mask, constraint, (), 9) == 6
    assert asked == [5, 6]
    assert mask[5], "the caller's mask is not touched"
    asked.clear()
    mask[::2] = False
    mask[VOCABULARY - 2] = True
    assert choose(best_first, mask, constraint, (), 9) == VOCABULARY - 2
    assert len(asked) == 1 + TRIES


@pytest.mark.parametrize("drafts", [0, 8])
def test_answers_that_would_be_cut_are_whole(repetitive_graph: Path, tiny_shape: ModelShape, drafts: int) -> None:
    """Through the engine, whose rows have different tokens left; they end by `stop`, without an end token."""
    engine = Engine(repetitive_graph, tiny_shape, EngineSettings(threads=1, max_rows=4, draft_tokens=drafts))
    grammars = {str(length): ToyGrammar(seed=length, length=length) for length in (4, 9, 17, 30)}
    for name, grammar in grammars.items():
        engine.add(name, [5, 6, 7], SamplingParams(max_tokens=int(name) + 1, temperature=0, grammar=grammar))
    said: dict[str, list[int]] = {name: [] for name in grammars}
    reasons: dict[str, FinishReason | None] = {}
    while engine.has_work:
        for name, output in engine.step():
            said[name].append(output.token_id)
            reasons[name] = output.finish_reason
            assert output.completes == (output.finish_reason is not None and output.token_id != EOS)
            assert output.is_end == (output.token_id == EOS)
    assert set(reasons.values()) == {FinishReason.STOP}
    assert all(is_whole(grammar, said[name]) for name, grammar in grammars.items())
