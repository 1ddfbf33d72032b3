"""Which requests wait for a row, and which of them is next: classes by urgency, clients by what they were served.

Interactive requests go before batch ones, until these have waited for `PATIENCE` of the share that they are promised;
then batch has its turn, and keeps its rows, until it has caught up. Within a class the client that was served least is
next, with its oldest request (`fair_share`). What is served is counted in weighted tokens: those computed of a prompt
once, those written twice, for they cost more. Nothing is charged for what comes from the prefix cache or has to be
computed again after a preemption.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from edgeai.engine.fair_share import FairShare
from edgeai.engine.sequence import Sequence
from edgeai.engine.terms import Priority

OUTPUT_WEIGHT = 2  # of a token that is written, against one that is read
BATCH_SHARE = 1 / 8  # of what interactive requests are served, while batch ones wait
PATIENCE = 512  # weighted tokens that batch is behind when its turn begins
LARGEST_DEBT = 2 * PATIENCE  # so that batch never takes over for long


class WaitingQueue:
    """Iterates in the order of turns."""

    def __init__(self) -> None:
        self._turns = {priority: _Turns() for priority in Priority}
        self._debt = 0.0  # weighted tokens that batch is behind its share
        self._batch_turn = False

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def __iter__(self) -> Iterator[Sequence]:
        for priority in sorted(Priority, key=lambda each: each is not self._first):
            yield from self._turns[priority]

    def turn(self, sequence: Sequence) -> tuple[bool, float, int]:
        """What decides whose turn it is, waiting or running: the least comes first."""
        priority = sequence.terms.priority
        served = self._turns[priority].share.served(sequence.terms.client)
        return priority is not self._first, served, sequence.arrival

    @property
    def _first(self) -> Priority:
        return Priority.BATCH if self._batch_turn else Priority.INTERACTIVE

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._turns[sequence.terms.priority]

    def lengths(self) -> dict[Priority, int]:
        """How many wait, by class."""
        return {priority: len(turns) for priority, turns in self._turns.items()}

    def of_client(self, client: str) -> int:
        """How many of a client's wait."""
        return sum(turns.of_client(client) for turns in self._turns.values())

    @property
    def clients(self) -> int:
        """How many clients wait."""
        return sum(turns.clients for turns in self._turns.values())

    def add(self, sequence: Sequence) -> None:
        self._join(sequence).append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """A preempted sequence waits again, before those of its client that have not been served yet."""
        self._join(sequence).appendleft(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, to be served or forgotten."""
        self._turns[sequence.terms.priority].remove(sequence)

    def charge(self, sequence: Sequence, *, read: int = 0, written: int = 0) -> None:
        """Tokens of the prompt were computed, or tokens written."""
        tokens = read + OUTPUT_WEIGHT * written
        self._turns[sequence.terms.priority].share.charge(sequence.terms.client, tokens)
        if sequence.terms.priority is Priority.BATCH:
            self._debt = max(0.0, self._debt - tokens)
        elif self._turns[Priority.BATCH]:
            self._debt = min(self._debt + tokens * BATCH_SHARE, LARGEST_DEBT)
        self._batch_turn = self._debt > (0 if self._batch_turn else PATIENCE)

    def forgive(self) -> None:
        """Nothing is owed to batch: there is none, waiting or running, that it could be paid to."""
        self._debt, self._batch_turn = 0.0, False

    def may_displace(self, urgent: Sequence, running: Sequence) -> bool:
        """Whether a row is to be given up for one that waits: batch for interactive, but not in batch's turn."""
        return running.terms.priority > urgent.terms.priority and not self._batch_turn

    def _join(self, sequence: Sequence) -> deque[Sequence]:
        return self._turns[sequence.terms.priority].join(sequence.terms.client)


class _Turns:
    """Those of one class."""

    def __init__(self) -> None:
        self.share = FairShare[str]()
        self._queues: dict[str, deque[Sequence]] = {}  # by client; never empty

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Sequence]:
        def turn(client: str) -> tuple[float, int]:
            return self.share.served(client), self._queues[client][0].arrival

        for client in sorted(self._queues, key=turn):
            yield from self._queues[client]

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._queues.get(sequence.terms.client, ())

    @property
    def clients(self) -> int:
        return len(self._queues)

    def of_client(self, client: str) -> int:
        return len(self._queues.get(client, ()))

    def join(self, client: str) -> deque[Sequence]:
        """The client's queue, to put something into."""
        if client not in self._queues:
            self.share.join(client, self._queues)
            self._queues[client] = deque()
        return self._queues[client]

    def remove(self, sequence: Sequence) -> None:
        client = sequence.terms.client
        self._queues[client].remove(sequence)
        if not self._queues[client]:
            del self._queues[client]
            self.share.leave(client)
