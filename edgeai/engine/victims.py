"""Who has to give up a row, once somebody has to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from edgeai.engine.sequence import Sequence

MANY_ROWS = 2  # a client with so many gives one up to a client who has none


def rank(sequence: Sequence) -> tuple[int, int]:
    """The last in rank gives way first: batch before interactive, then the youngest."""
    return sequence.terms.priority, sequence.arrival


def of_a_crowd(running: Collection[Sequence], newcomer: Sequence) -> Sequence | None:
    """The youngest of the client who has most rows, if these are several, of the newcomer's class."""
    rows = Counter(each.terms.client for each in running)
    same = [each for each in running if each.terms.priority is newcomer.terms.priority]
    victim = max(same, key=lambda each: (rows[each.terms.client], each.arrival), default=None)
    return victim if victim is not None and rows[victim.terms.client] >= MANY_ROWS else None
