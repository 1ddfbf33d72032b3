"""The golden prompt: the answer is the naive greedy one, and wrong ones are told from near-ties."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeai.engine.config import EngineSettings
from edgeai.engine.naive import greedy
from edgeai.engine.runner import Logits
from edgeai.errors import OutOfMemory
from edgeai.model import Model
from edgeai.package.package import Package
from edgeai.tuning.golden import ANSWER_TOKENS, NEAR_TIE, ask, question_tokens
from edgeai.tuning.knobs import Workload
from edgeai.tuning.profile import QUESTION, Golden
from edgeai.tuning.workloads import WORKLOADS, Order, measure

SETTINGS = EngineSettings(threads=1, max_rows=3, kv_budget_bytes=1 << 24)


@pytest.fixture(scope="module")
def model(package: Package) -> Iterator[Model]:
    with Model.load(package, SETTINGS) as loaded:
        yield loaded


def oracle(model: Model) -> list[int]:
    return greedy(model.engine.runner, question_tokens(model, QUESTION), ANSWER_TOKENS)


def test_the_answer_is_the_naive_one(model: Model) -> None:
    answer = ask(model, Golden())
    assert list(answer.tokens) == oracle(model)
    assert not answer.wrong
    assert answer.tokens_per_second > 0
    assert not model.engine.has_work
    assert not model.engine.runner.arena.occupied


def test_what_was_expected_is_not_wrong(model: Model) -> None:
    expected = tuple(oracle(model))
    assert not ask(model, Golden(tokens=expected)).wrong
    assert not ask(model, Golden(tokens=expected[:3])).wrong


@pytest.mark.parametrize("place", [0, 2, 7])
def test_the_gap_is_that_of_the_first_token_that_differs(model: Model, place: int) -> None:
    """It is held against the logits of a single run over the whole text."""
    right = oracle(model)
    prompt = question_tokens(model, QUESTION)
    logits = model.engine.runner.score(0, [*prompt, *right[:place]], 0)[-1]
    for wrong in {int(logits.argmin()), int(np.argsort(logits)[-2])}:
        answer = ask(model, Golden(tokens=(*right[:place], wrong, *right[place + 1 :])))
        assert answer.gap == pytest.approx(float(logits.max() - logits[wrong]), abs=1e-3)
        assert answer.wrong == (logits.max() - logits[wrong] > NEAR_TIE)
        assert list(answer.tokens) == right


def test_numbers_that_are_none_are_wrong(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a kernel that overflows: whatever is answered then, nothing vouches for it."""
    real = model.engine.runner.score

    def broken(slot: int, tokens: list[int], start: int) -> Logits:
        return np.full_like(real(slot, tokens, start), np.nan)

    monkeypatch.setattr(model.engine.runner, "score", broken)
    answer = ask(model, Golden())
    assert answer.gap is None
    assert answer.wrong


def test_an_answer_kept_as_text(model: Model) -> None:
    text = model.tokenizer.decode(oracle(model)).strip()
    assert not ask(model, Golden(text=text)).wrong
    assert not ask(model, Golden(text=text[:-1])).wrong  # a character cut in half
    assert not ask(model, Golden(text=text[: len(text) // 2])).wrong


def test_the_text_of_another_answer_is_wrong(model: Model) -> None:
    """The same text in another split could not be told from it, so the texts differ from their first letter."""
    assert model.template is not None
    text = model.tokenizer.decode(oracle(model)).strip()
    other = next(word for word in ("wells", "buckets", "7 ropes") if word[0] not in text[:3])
    assert ask(model, Golden(text=other)).wrong


@pytest.mark.parametrize("workload", WORKLOADS)
def test_workloads_measure_and_leave_nothing(model: Model, workload: Workload) -> None:
    drafts = model.engine.drafts.most
    figures = measure(model, workload, Order(seconds=0.05, prompt_tokens=64, seed=7))
    assert figures.speed > 0
    assert figures.cpu > 0
    assert not model.engine.has_work
    assert model.engine.drafts.most == drafts
    assert not model.engine.runner.arena.occupied


def test_more_rows_than_memory_holds(package: Package) -> None:
    settings = EngineSettings(threads=1, max_rows=8, max_context=128, kv_budget_bytes=1 << 17)
    with Model.load(package, settings) as small, pytest.raises(OutOfMemory, match="does not hold 8 rows"):
        measure(small, "rows", Order(seconds=0.05, prompt_tokens=64, seed=7))


def test_a_sample_that_the_builder_kept_fits(smollm_package: Package, tmp_path: Path) -> None:
    """On the real model: what it answered when it was built, as text, is what it answers now."""
    sample = next(each for each in smollm_package.manifest.samples if each.prompt == QUESTION)
    with Model.load(smollm_package, EngineSettings(max_rows=1, max_context=256)) as loaded:
        assert not ask(loaded, Golden(text=sample.answer)).wrong
        assert ask(loaded, Golden(text="Bananas are yellow and so is the sun.")).wrong
