"""Scores of a model on tasks: likelihoods beside the plain way to compute them, repeatable, compared item by item."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgeai.errors import InvalidInput
from edgeai.measure.items import Item, load_items
from edgeai.measure.task_scores import Answer, answer_items, by_category, choice_scores, compare, score
from edgeai.model import Model
from edgeai.package.package import Package

ITEM = Item("x", "reading", "en", "The cans are yellow. What colour are the cans?", ("yellow", "red", "dark blue"))


@pytest.fixture(scope="module")
def model(smollm_package: Package) -> Iterator[Model]:
    with Model.load(smollm_package) as loaded:
        yield loaded


def plain_score(model: Model, question: str, choice: str) -> float:
    """Likelihood of a choice from one run over all of it, token by token."""
    ids = model.encode_text(f"{question} {choice}")
    start = len(model.encode_text(question))
    runner = model.engine.runner
    runner.arena.grow(0, len(ids))
    logits = runner.score(0, ids, 0).astype(np.float64)
    runner.arena.release(0)
    total = 0.0
    for place in range(start, len(ids)):
        row = logits[place - 1]
        total += row[ids[place]] - np.logaddexp.reduce(row)
    return total / len(choice.encode())


def test_choices_score_as_one_run_over_each_would(model: Model) -> None:
    question = f"Question: {ITEM.prompt}\nAnswer:"
    expected = [plain_score(model, question, choice) for choice in ITEM.choices]
    assert choice_scores(model, ITEM) == pytest.approx(expected, rel=0.05)  # chunks of other sizes round differently
    assert np.argmax(choice_scores(model, ITEM)) == np.argmax(expected) == 0


def test_a_model_is_better_at_reading_than_chance_and_repeats(model: Model) -> None:
    items = [item for item in load_items("reading") if item.choices][:12]
    answers = answer_items(model, items)
    assert [answer.item for answer in answers] == [item.id for item in items]
    assert sum(answer.right for answer in answers) > 12 / 4
    assert answer_items(model, items) == answers


def test_short_answers_come_from_the_model(model: Model) -> None:
    item = next(item for item in load_items("knowledge") if item.answers == ("Rome",))
    (answer,) = answer_items(model, [item])
    assert answer.right
    assert "Rome" in answer.said
    assert "\n" not in answer.said


def answers(*right: bool) -> list[Answer]:
    return [Answer(f"item {number}", "odd" if number % 2 else "even", "en", ok, "") for number, ok in enumerate(right)]


def test_scores_by_category() -> None:
    found = answers(True, False, True, True)
    assert (score(found).right, score(found).total, score(found).share) == (3, 4, 0.75)
    assert score(found).interval.low < 0.75 < score(found).interval.high
    assert {name: part.right for name, part in by_category(found).items()} == {"even": 2, "odd": 1}
    with pytest.raises(InvalidInput, match="no items"):
        score([])


def test_two_models_are_compared_item_by_item() -> None:
    found = compare(answers(True, True, False, True), answers(True, False, False, False))
    assert (found.difference, found.only_first, found.only_second) == (-0.5, 2, 0)
    assert found.interval.low <= -0.5 <= found.interval.high
    assert found.p_value == 0.5
    with pytest.raises(InvalidInput, match="different items"):
        compare(answers(True), answers(True, False))
