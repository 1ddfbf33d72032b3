"""Structured output as the engine sees it: which tokens may come next. Grammars and text are not its business.

A request brings a `Grammar`; each of its sequences starts a `Constraint` and keeps it, for preemption drops keys and
values, never what was said. Masks are computed by `MaskWorker` in a thread of its own while the model runs.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import EdgeaiError

Mask = NDArray[np.bool_]  # [vocab_size]: the tokens that may come next; at least one of them


class Constraint(Protocol):
    """How far one sequence has come in its grammar. Used by one thread at a time."""

    def forced(self, most: int) -> list[int]:
        """Up to `most` tokens of the only way to go on, the end token included; most often there are several ways.

        The same text may be cut into other tokens, so that they are a draft like any other.
        """

    def fitting(self, draft: Tokens[int]) -> int:
        """How many of the draft's tokens, from the first on, the grammar takes."""

    def masks(self, draft: Tokens[int]) -> list[Mask]:
        """What may come next, and what after each token of a draft that fits: 1 + len(draft) masks.

        Leaves the constraint where it is. Raises `EdgeaiError` when the grammar takes too much work to follow.
        """

    def commit(self, token: int) -> None:
        """Go on by a token that was allowed."""


class Grammar(Protocol):
    """A compiled grammar, shared by the requests that use it."""

    def start(self) -> Constraint:
        """A constraint at the grammar's beginning."""


ConstrainedRow = tuple[Constraint | None, Tokens[int]]  # of a row that is due a token, and its draft
RowMasks = list[Mask] | EdgeaiError | None  # None: anything goes


class MaskJob:
    """Masks of one run's rows. A context around the run, at whose end they are there: a row's masks, or its error."""

    def __init__(self, rows: Tokens[ConstrainedRow], worker: ThreadPoolExecutor) -> None:
        constrained = any(constraint is not None for constraint, _ in rows)
        self._pending: Future[list[RowMasks]] | None = worker.submit(_compute, rows) if constrained else None
        self.rows: list[RowMasks] = [None] * len(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pending is not None:
            self.rows = self._pending.result()


class MaskWorker:
    """The thread that computes masks; it starts with the first constrained row."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, "edgeai-masks")

    def beside(self, rows: Tokens[ConstrainedRow]) -> MaskJob:
        """Masks of `rows`, computed while the block runs."""
        return MaskJob(rows, self._worker)


def _compute(rows: Tokens[ConstrainedRow]) -> list[RowMasks]:
    return [None if constraint is None else _masks(constraint, draft) for constraint, draft in rows]


def _masks(constraint: Constraint, draft: Tokens[int]) -> list[Mask] | EdgeaiError:
    try:
        return constraint.masks(draft)
    except EdgeaiError as error:
        return error
