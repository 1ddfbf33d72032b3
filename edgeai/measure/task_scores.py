"""Scoring a model on the task set: choices by likelihood, short answers and formats by what the model says.

A choice counts by the mean log-likelihood of its bytes after "Question: ..." and, on the next line, "Answer:". Models
with and without a chat template understand that, and it favours neither short choices nor one tokenizer. Short answers
are decoded greedily, in a conversation where the model has a template. Nothing is drawn at random: the same package on
the same machine gives the same score.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeai.engine.request import SamplingParams
from edgeai.errors import InvalidInput
from edgeai.measure.items import Item
from edgeai.measure.statistics import Interval, mcnemar, paired_difference, wilson
from edgeai.model import Model
from edgeai.progress import Progress, silent

ANSWER_TOKENS = 24
BRIEF = "Answer briefly. "


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model made of one item."""

    item: str
    category: str
    language: str
    right: bool
    said: str  # the choice it preferred, or its answer


@dataclass(frozen=True, slots=True)
class Score:
    """Share of right answers with its 95 % interval."""

    right: int
    total: int
    share: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same items: the difference of their shares, second minus first."""

    first: Score
    second: Score
    difference: float
    interval: Interval
    only_first: int  # items that only the first has right
    only_second: int
    p_value: float  # McNemar's exact test


def answer_items(model: Model, items: Sequence[Item], progress: Progress = silent) -> list[Answer]:
    """Every item put to the model, in order. The engine must be idle."""
    answers = []
    for number, item in enumerate(items):
        said = _choose(model, item) if item.choices else _say(model, item)
        answers.append(Answer(item.id, item.category, item.language, is_right(item, said), said))
        progress("tasks", number + 1, len(items))
    return answers


def is_right(item: Item, said: str) -> bool:
    """Whether an answer is right: the first choice, one of the short answers, or of the wanted form."""
    if item.choices:
        return said == item.choices[0]
    if item.pattern is not None:
        return re.fullmatch(item.pattern, said.strip(), re.DOTALL) is not None
    return any(_contains(plain(said), plain(answer)) for answer in item.answers)


def plain(text: str) -> str:
    """Text for comparison: one line, without case, accents of composition, and punctuation at the ends of words."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(word.strip(".,;:!?\"'()[]*`。，！？「」") for word in text.split())


def score(answers: Sequence[Answer]) -> Score:
    """Raises `InvalidInput` without answers."""
    if not answers:
        raise InvalidInput("no items to score", "choose another category")
    right = sum(answer.right for answer in answers)
    return Score(right, len(answers), round(right / len(answers), 4), wilson(right, len(answers)))


def by_category(answers: Sequence[Answer]) -> dict[str, Score]:
    """The score of each category."""
    names = dict.fromkeys(answer.category for answer in answers)
    return {name: score([answer for answer in answers if answer.category == name]) for name in names}


def compare(first: Sequence[Answer], second: Sequence[Answer]) -> Comparison:
    """Two models' answers to the same items."""
    if [answer.item for answer in first] != [answer.item for answer in second]:
        raise InvalidInput("the two answered different items", "compare answers to the same items")
    one, other = [answer.right for answer in first], [answer.right for answer in second]
    return Comparison(
        first=score(first),
        second=score(second),
        difference=round(float(np.mean(other) - np.mean(one)), 4),
        interval=paired_difference(one, other),
        only_first=sum(a and not b for a, b in zip(one, other, strict=True)),
        only_second=sum(b and not a for a, b in zip(one, other, strict=True)),
        p_value=round(mcnemar(one, other), 4),
    )


def choice_scores(model: Model, item: Item) -> list[float]:
    """Mean log-likelihood (nats) of a byte of each choice, given the question, which is read once for all."""
    context = f"Question: {item.prompt}\nAnswer:"
    rows = [model.encode_text(f"{context} {choice}") for choice in item.choices]
    question = model.encode_text(context)
    start = min(_shared(question, ids) for ids in rows)
    runner = model.engine.runner
    runner.arena.grow(0, max(map(len, rows)))
    try:
        if start > 1:
            runner.prefill(0, rows[0][: start - 1], 0)
        scores = []
        for ids, choice in zip(rows, item.choices, strict=True):
            logits = runner.score(0, ids[start - 1 : -1], start - 1)
            scores.append(log_likelihood(logits, ids[start:]) / len(choice.encode()))
        return scores
    finally:
        runner.arena.release(0)


def log_likelihood(logits: NDArray[np.float32], ids: Sequence[int]) -> float:
    """Of tokens `ids` under logits [tokens, vocab_size], in nats."""
    values = logits.astype(np.float64)
    peaks = values.max(axis=-1)
    norms = peaks + np.log(np.exp(values - peaks[:, None]).sum(axis=-1))
    return float((values[np.arange(len(ids)), ids] - norms).sum())


def _choose(model: Model, item: Item) -> str:
    return item.choices[int(np.argmax(choice_scores(model, item)))]


def _say(model: Model, item: Item) -> str:
    """The model's greedy answer: its first line, or all of it where a pattern decides."""
    params = SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0)
    if model.template is None:
        chunks = model.complete(f"Question: {item.prompt}\nAnswer:", params, stop=["\n"])
    else:
        chunks = model.chat([{"role": "user", "content": BRIEF + item.prompt if item.answers else item.prompt}], params)
    said = "".join(chunk.text for chunk in chunks).strip()
    return said if item.pattern is not None else said.partition("\n")[0]


def _contains(said: str, answer: str) -> bool:
    """Whether `answer` is in `said` as whole words; in scripts without spaces as it stands."""
    if not answer.isascii() and " " not in said:
        return answer in said
    return f" {answer} " in f" {said} "


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning, at least 1 and less than all of `other`."""
    pairs = zip(one, other, strict=False)
    length = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return max(1, min(length, len(other) - 1))
