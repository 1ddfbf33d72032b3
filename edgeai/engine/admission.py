"""Who may wait for a row: limits of the queue, deadlines, and when to come back. Touched by the engine's owner only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from edgeai.engine.request import FinishReason
from edgeai.engine.scheduler import Scheduler
from edgeai.engine.sequence import Sequence
from edgeai.engine.terms import Priority
from edgeai.errors import DeadlineExceeded, Overloaded, TooManyRequests

URGENT_PART = 4  # one part in so many of the queue is kept for interactive requests
MEMORY = 0.8  # how much of the past counts after each answer
LONGEST_RETRY = 600  # seconds


class Admission:
    """Refuses what would wait in vain. `expired` counts requests that their deadline ended, waiting or running."""

    def __init__(self, scheduler: Scheduler, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.expired = 0
        self._scheduler = scheduler
        self._clock = clock
        self._service: float | None = None  # seconds that an answer had a row, lately

    def check(self, sequence: Sequence) -> None:
        """Raises `Overloaded` when the queue is full, `TooManyRequests` when it is with the client's own requests,
        `DeadlineExceeded` when the prompt cannot be read in time at the speed that was measured.

        Requests that free rows are about to take do not count as waiting.
        """
        settings, waiting, client = self._scheduler.settings, self._scheduler.waiting, sequence.terms.client
        free = max(0, self._scheduler.rows - len(self._scheduler.running))
        kept = settings.max_queue // URGENT_PART if sequence.terms.priority is Priority.BATCH else 0
        if len(waiting) - free >= settings.max_queue - kept:
            self._refuse(Overloaded, f"{len(waiting)} requests are waiting already", turns=1)
        own, most = waiting.of_client(client), settings.max_queue_per_client
        if client and own - free >= (-(-settings.max_queue // 2) if most is None else most):
            self._refuse(TooManyRequests, f"{own} of your requests are waiting already", turns=waiting.clients)
        if sequence.terms.deadline is not None:
            sequence.latest_start = sequence.terms.deadline - self._scheduler.reading_seconds(sequence)
            if self._clock() > sequence.latest_start:
                raise self._late(sequence)

    def overdue(self) -> list[tuple[Sequence, DeadlineExceeded]]:
        """Requests that have no token yet and cannot have one in time any more, with what to tell them."""
        last_moments = [
            *((each, each.latest_start) for each in self._scheduler.waiting),
            *((each, each.terms.deadline) for each in self._scheduler.reading),
        ]
        now = self._clock()
        late = [each for each, moment in last_moments if each.fresh and moment is not None and now > moment]
        return [(sequence, self._late(sequence)) for sequence in late]

    def must_end(self, sequence: Sequence) -> bool:
        """Whether the deadline of an answer has passed."""
        return sequence.terms.deadline is not None and self._clock() >= sequence.terms.deadline

    def finished(self, sequence: Sequence, reason: FinishReason) -> None:
        """An answer is complete; its row is free."""
        self.expired += reason is FinishReason.LENGTH and self.must_end(sequence)
        if sequence.admitted is not None:
            seconds = self._clock() - sequence.admitted
            self._service = seconds if self._service is None else MEMORY * self._service + (1 - MEMORY) * seconds

    def _refuse(self, kind: type[Overloaded], message: str, *, turns: int) -> None:
        """Raise with the time after which a place should be free: rows become free one after the other."""
        seconds = (self._service or 0.0) * turns / self._scheduler.rows
        retry = min(max(1, math.ceil(seconds)), LONGEST_RETRY)
        raise kind(message, f"try again in {retry} seconds", retry_after=retry)

    def _late(self, sequence: Sequence) -> DeadlineExceeded:
        self.expired += 1
        left = (sequence.terms.deadline or 0.0) - self._clock()
        if left <= 0:
            return DeadlineExceeded(
                "the deadline passed before the answer began", "allow more time, or try again later"
            )
        return DeadlineExceeded(
            f"{left:.1f} seconds are left, and to read the prompt takes longer on this machine",
            "allow more time, or shorten the prompt",
        )
