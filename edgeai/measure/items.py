"""The task set's items: short questions in several languages whose answers can be checked without a judge.

One JSON object a line, in `tasks/<category>.jsonl`::

    {"id": "...", "language": "en", "prompt": "...", "choices": ["right", "wrong", ...]}
    {"id": "...", "language": "en", "prompt": "...", "answers": ["12", "twelve"]}
    {"id": "...", "language": "en", "prompt": "...", "pattern": "..."}

Of `choices` the first is right; they are scored by likelihood, so their order tells nothing. `answers` are compared
with what the model says, `pattern` is a regular expression that its whole answer has to match. All items were written
for edgeai and are under its licence.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from edgeai.errors import InvalidInput

KEYS = {"id", "language", "prompt", "choices", "answers", "pattern"}


@dataclass(frozen=True, slots=True)
class Item:
    """One question, with exactly one of three ways to check an answer."""

    id: str
    category: str
    language: str
    prompt: str
    choices: tuple[str, ...] = ()  # the first is right
    answers: tuple[str, ...] = ()
    pattern: str | None = None


def load_items(category: str | None = None) -> tuple[Item, ...]:
    """All items, or those of one category. Raises `InvalidInput` for a category that does not exist."""
    known = categories()
    if category is not None and category not in known:
        raise InvalidInput(f"no category {category!r} of tasks", f"there are: {', '.join(known)}", param="category")
    wanted = [category] if category else known
    return tuple(item for name in wanted for item in _read(_folder() / f"{name}.jsonl", name))


def categories() -> list[str]:
    """Names of all categories."""
    return sorted(path.name.removesuffix(".jsonl") for path in _folder().iterdir() if path.name.endswith(".jsonl"))


def parse_item(document: dict[str, Any], category: str) -> Item:
    """An item out of its JSON object. Raises `ValueError` that says what is wrong with it."""
    if unknown := document.keys() - KEYS:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    if sum(key in document for key in ("choices", "answers", "pattern")) != 1:
        raise ValueError("it needs one of choices, answers and pattern")
    item = Item(
        document["id"],
        category,
        document["language"],
        document["prompt"],
        tuple(document.get("choices", ())),
        tuple(document.get("answers", ())),
        document.get("pattern"),
    )
    if item.choices and (len(item.choices) < 2 or len(set(item.choices)) < len(item.choices)):
        raise ValueError("choices are at least two, all different")
    if item.pattern is not None:
        re.compile(item.pattern)
    return item


def _folder() -> Traversable:
    return files("edgeai.measure") / "tasks"


def _read(path: Traversable, category: str) -> list[Item]:
    return [parse_item(json.loads(line), category) for line in path.read_text(encoding="utf-8").splitlines() if line]
