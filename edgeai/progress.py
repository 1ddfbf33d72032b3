"""Progress of long steps, as a plain function that the caller hands down."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far a step has come: `done` of `total` units; `total` 0 where it is not known."""

    def __call__(self, step: str, done: int = 0, total: int = 0) -> None: ...


def silent(step: str, done: int = 0, total: int = 0) -> None:
    """The progress of callers that do not watch."""
