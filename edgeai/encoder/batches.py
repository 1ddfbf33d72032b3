"""Which sequences run together: those of one length, as many as the memory for a run allows.

A run without padding wastes nothing, needs no attention mask, and gives a sequence the same result whatever runs
beside it. On few cores a run of one sequence is about as efficient as a run of many, so small groups cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Limits", "plan_batches"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the memory of a run: tokens in all, and attention scores (rows * tokens * tokens)."""

    tokens: int = 2048
    scores: int = 4 << 20

    def rows(self, length: int) -> int:
        """How many sequences of `length` tokens may run together, at least one."""
        return max(1, min(self.tokens // length, self.scores // length**2))


def plan_batches(lengths: Sequence[int], limits: Limits) -> list[list[int]]:
    """Positions of the sequences of each run, longest first: memory is at its peak at once, and is used again."""
    groups: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        groups.setdefault(length, []).append(position)
    batches = []
    for length in sorted(groups, reverse=True):
        members, rows = groups[length], limits.rows(length)
        batches += [members[start : start + rows] for start in range(0, len(members), rows)]
    return batches
