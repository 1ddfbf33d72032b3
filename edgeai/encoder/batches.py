"""Which sequences run together: those of one length, as many as the memory for a run allows.

A run without padding wastes nothing, needs no attention mask, and gives a sequence the same result whatever runs
beside it. On few cores a run of one sequence is about as efficient as a run of many, so small groups cost little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeai.package.manifest import Manifest

__all__ = ["Limits", "longest", "plan_batches"]

SCORE_BYTES = 256 << 20  # for the attention scores of one sequence, where attention is not fused


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the memory of a run: tokens in all, and attention scores (rows * tokens * tokens)."""

    tokens: int = 2048
    scores: int = 4 << 20

    def rows(self, length: int) -> int:
        """How many sequences of `length` tokens may run together, at least one."""
        return max(1, min(self.tokens // length, self.scores // length**2))


def longest(manifest: Manifest) -> int:
    """Tokens of the longest sequence: as the encoder was trained, where its attention scores, at the worst all in
    memory, stay within `SCORE_BYTES`.
    """
    fits = math.isqrt(SCORE_BYTES // (4 * manifest.architecture.num_heads))
    return min(manifest.encoder.max_length, fits) if manifest.encoder else fits


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
