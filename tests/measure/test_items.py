"""The items of the task set."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from edgeai.errors import InvalidInput
from edgeai.measure.items import Item, categories, load_items, parse_item
from edgeai.measure.task_scores import is_right

ITEMS = load_items()


def test_there_are_about_two_hundred_of_every_kind() -> None:
    assert len(ITEMS) >= 200
    assert categories() == ["arithmetic", "format", "knowledge", "languages", "reading"]
    assert min(Counter(item.category for item in ITEMS).values()) >= 20
    assert len({item.language for item in ITEMS}) >= 12
    assert sum(bool(item.choices) for item in ITEMS) >= 100
    assert sum(bool(item.answers) for item in ITEMS) >= 20


def test_no_item_comes_twice() -> None:
    assert len({item.id for item in ITEMS}) == len(ITEMS)
    assert len({(item.prompt, item.language) for item in ITEMS}) == len(ITEMS)


def test_the_right_answer_of_arithmetic_is_right() -> None:
    """Where the question is a plain sum, it is computed here."""
    signs = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "times": lambda a, b: a * b,
        "divided by": lambda a, b: a / b,
    }
    checked = 0
    for item in load_items("arithmetic"):
        if found := re.fullmatch(r"What is (\d+) (\+|-|times|divided by) (\d+)\?", item.prompt):
            right = signs[found[2]](int(found[1]), int(found[3]))
            assert float((item.choices or item.answers)[0]) == right, item
            assert all(float(choice) != right for choice in item.choices[1:]), item
            checked += 1
    assert checked > 20


FORMATS = {
    "format-001": "yes",
    "format-004": "Red.",
    "format-005": "7",
    "format-007": "1, 2, 3, 4, 5",
    "format-011": "HOUSE",
    "format-014": "cat, dog",
    "format-015": "red, green, blue",
    "format-018": "2021-03-05",
    "format-019": '{"a": 1}',
    "format-020": "[1, 2]",
    "format-021": "Hello, Maria!",
    "format-023": "2 + 2 = 4",
    "format-024": "*sun*",
}


def test_patterns_take_what_is_asked_for_and_no_chatter() -> None:
    by_id = {item.id: item for item in load_items("format")}
    for name, said in FORMATS.items():
        assert is_right(by_id[name], said), name
        assert not is_right(
            by_id[name], f"Sure! Here is the answer that you wanted: {said} I hope that it helps you."
        ), name
    assert not any(is_right(item, "") for item in by_id.values())


def test_an_unknown_category() -> None:
    with pytest.raises(InvalidInput, match="no category 'maths'"):
        load_items("maths")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"choices": ["a", "b"], "answers": ["a"]}, "one of"),
        ({}, "one of"),
        ({"choices": ["a"]}, "at least two"),
        ({"choices": ["a", "a"]}, "all different"),
        ({"answers": ["a"], "hint": "x"}, "unknown keys"),
    ],
)
def test_mistakes_in_items(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_item({"id": "x", "language": "en", "prompt": "?"} | changed, "x")


@pytest.mark.parametrize(
    ("answers", "said", "right"),
    [
        (("5", "five"), "The answer is 5.", True),
        (("5", "five"), "Five!", True),
        (("5", "five"), "It is 15", False),
        (("Rome",), "The capital of Italy is **Rome**.", True),
        (("Rome",), "Romeo", False),
        (("París",), "la capital es parís", True),
        (("巴黎",), "法国的首都是巴黎。", True),
        (("巴黎",), "伦敦", False),
    ],
)
def test_short_answers_count_as_whole_words(answers: tuple[str, ...], said: str, right: bool) -> None:
    assert is_right(Item("x", "x", "en", "?", answers=answers), said) is right
