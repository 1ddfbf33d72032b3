"""What a reply consists of, piece by piece, and what parsers of replies have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Text:
    """More of what is to be shown."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool is called; its arguments follow."""

    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the newest call's arguments: a piece of JSON text."""

    text: str


Event = Text | Reasoning | CallStart | Arguments


class Parser(Protocol):
    """Takes a reply apart while it comes. How it is cut into pieces makes no difference to the events put together."""

    def push(self, text: str) -> list[Event]:
        """What is certain with this piece of text."""
        ...

    def finish(self, *, cut: bool = False) -> list[Event]:
        """What was held back; of a reply that was `cut` short no beginnings of markers."""
        ...


class PlainParser:
    """A reply that is text and nothing else."""

    def push(self, text: str) -> list[Event]:
        return [Text(text)] if text else []

    def finish(self, *, cut: bool = False) -> list[Event]:  # noqa: ARG002 (as the protocol has it)
        return []


def merged(events: Iterable[Event]) -> Iterator[Event]:
    """Pieces of the same kind that follow each other, put together."""
    last: Event | None = None
    for event in events:
        if last is not None and type(last) is type(event) and not isinstance(event, CallStart):
            last = type(event)(last.text + event.text)  # type: ignore[union-attr]
            continue
        if last is not None:
            yield last
        last = event
    if last is not None:
        yield last


def held_prefix(text: str, markers: Iterable[str]) -> int:
    """Length of the longest end of `text` that may yet become one of `markers`."""
    return max((_overlap(text, marker) for marker in markers if marker), default=0)


def _overlap(text: str, marker: str) -> int:
    sizes = range(min(len(text), len(marker) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(marker[:size])), 0)
