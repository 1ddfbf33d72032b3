"""Structured output as the engine sees it: which tokens may come next. Grammars and text are not its business.

A request brings a `Grammar`; each of its sequences starts a `Constraint` and keeps it, for preemption drops keys and
values, never what was said. `MaskWorker` computes masks while the model runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Tokens
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import EdgeaiError

CHEAP_SECONDS = 0.0003
MEMORY = 8  # masks of the past that count as much as the newest

Mask = NDArray[np.bool_]  # [vocab_size]: the tokens that may come next; at least one of them


class Constraint(Protocol):
    """How far one sequence has come in its grammar. Used by one thread at a time."""

    def forced(self, most: int) -> list[int]:
        """Up to `most` tokens of the only way to go on; most often there are several ways.

        The same text may be cut into other tokens, so that they are a draft like any other.
        """

    def fitting(self, draft: Tokens[int]) -> int:
        """How many of the draft's tokens, from the first on, the grammar takes."""

    def masks(self, draft: Tokens[int]) -> list[Mask]:
        """What may come next, and what after each token of a draft that fits: 1 + len(draft) masks.

        Leaves the constraint where it is. Raises `EdgeaiError` when the grammar takes too much work to follow.
        """

    def over(self, said: Tokens[int]) -> bool:
        """Whether the text is complete behind `said`, which fits, and only an end token could follow."""

    def can_end(self, said: Tokens[int], left: int) -> bool:
        """Whether behind `said`, which fits, at most `left` more tokens bring the text to its end.

        Far from the last token this is not looked into, nor where the end is out of reach anyway: then it is true.
        """

    def way_out(self, said: Tokens[int], left: int) -> int | None:
        """The next token of a way to the end in at most `left` tokens; None if none is known, then and from then on."""

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

    def __init__(self, rows: list[RowMasks], pending: Future[list[RowMasks]] | None = None) -> None:
        self.rows = rows
        self._pending = pending

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pending is not None:
            self.rows = self._pending.result()


class MaskWorker:
    """Computes masks beside runs, in a thread that starts with the first of them.

    To hand work to a thread and wait for it takes longer than most masks do, above all where others want the processor
    too. So those that are expected to take less than `cheap` seconds are computed at once.
    """

    def __init__(self, cheap: float = CHEAP_SECONDS) -> None:
        self._cheap = cheap
        self._worker = ThreadPoolExecutor(1, "edgeai-masks")
        self._expected = 0.0  # seconds of one mask, as they were of late

    def beside(self, rows: Tokens[ConstrainedRow], *, long: bool = False) -> MaskJob:
        """Masks of `rows`, ready when the block has run. Beside a `long` run they are always computed by the thread."""
        count = sum(1 + len(draft) for constraint, draft in rows if constraint is not None)
        if not count:
            return MaskJob([None] * len(rows))
        if not long and count * self._expected < self._cheap:
            return MaskJob(self._compute(rows, count))
        return MaskJob([], self._worker.submit(self._compute, rows, count))

    def _compute(self, rows: Tokens[ConstrainedRow], count: int) -> list[RowMasks]:
        started = time.perf_counter()
        masks = [None if constraint is None else _masks(constraint, draft) for constraint, draft in rows]
        seconds = (time.perf_counter() - started) / count
        self._expected += (seconds - self._expected) / MEMORY
        return masks


def _masks(constraint: Constraint, draft: Tokens[int]) -> list[Mask] | EdgeaiError:
    try:
        return constraint.masks(draft)
    except EdgeaiError as error:
        return error
