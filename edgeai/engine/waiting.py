"""Which requests wait for a row, and which of them is next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from edgeai.engine.sequence import Sequence


class WaitingQueue:
    """First come, first served; a sequence that was preempted comes back in front. Iterates in the order of turns."""

    def __init__(self) -> None:
        self._sequences: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._sequences

    def add(self, sequence: Sequence) -> None:
        self._sequences.append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """A preempted sequence waits again, before those that have not been served yet."""
        self._sequences.appendleft(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, to be served or forgotten."""
        self._sequences.remove(sequence)
