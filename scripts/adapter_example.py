"""The data of the worked example, and how answers are scored. Both halves of it read this: training and serving."""

from __future__ import annotations

import itertools
import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).with_name("water_reports.toml")
TRAINING_ITEMS = 120


@dataclass(frozen=True)
class Item:
    """A report, and the ticket it should become."""

    report: str
    ticket: str


def training_items() -> list[Item]:
    """Reports to learn from, in an order that is always the same."""
    items = _combinations("train")
    random.Random(1).shuffle(items)  # noqa: S311 - not a secret
    return items[:TRAINING_ITEMS]


def held_out_items() -> list[Item]:
    """Reports whose places and wordings were never learned from."""
    return _combinations("held_out")


def _combinations(part: str) -> list[Item]:
    document = tomllib.loads(DATA.read_text(encoding="utf-8"))
    return [
        Item(wording.format(place=place), ticket(place, fault["name"], fault["urgency"]))
        for fault in document["fault"]
        for wording, place in itertools.product(fault[part], document["places"][part])
    ]


def ticket(place: str, fault: str, urgency: str) -> str:
    return f"place: {place}\nfault: {fault}\nurgency: {urgency}"


@dataclass(frozen=True)
class Score:
    """Shares of answers, 0 to 1: of the right form, with each field right, and right altogether."""

    form: float
    place: float
    fault: float
    urgency: float
    whole: float


def score(items: Sequence[Item], answers: Sequence[str]) -> Score:
    wanted, given = [_fields(item.ticket) for item in items], [_fields(answer) for answer in answers]
    names = ("place", "fault", "urgency")
    right = {
        name: sum(one.get(name) == other[name] for one, other in zip(given, wanted, strict=True)) for name in names
    }
    form = sum(tuple(fields) == names for fields in given)
    whole = sum(one == other for one, other in zip(given, wanted, strict=True))
    return Score(*(count / len(items) for count in (form, *right.values(), whole)))


def _fields(text: str) -> dict[str, str]:
    """`name: value` lines in their order; empty where any line is something else."""
    lines = [line.partition(": ") for line in text.strip().splitlines()]
    return {name: value.strip() for name, _, value in lines} if all(separator for _, separator, _ in lines) else {}
