"""Which groups of matrices get eight bits where the rest gets four: the best use of a budget.

Rounding errors of different groups are nearly independent, so their KL divergences add up, and a group at eight bits
costs next to nothing (a step sixteen times smaller, a 256th of the squared error). What is left is a knapsack problem;
taking the groups by divergence saved for each byte is within one group of the best answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeai.build.quantize.grid import grid_for
from edgeai.build.quantize.groups import Group
from edgeai.errors import InvalidInput

SMALL, LARGE = 4, 8
REMAINING = 1 / 256  # of a divergence at four bits, at eight


def allocate(
    groups: Sequence[Group],
    costs: Sequence[float],
    *,
    bits: float | None = None,
    budget: int | None = None,
    block_size: int = 32,
) -> list[int]:
    """Bits of each group, four or eight, with an average of at most `bits` a weight or at most `budget` bytes in all.

    Raises `InvalidInput` for a budget that four bits throughout do not meet.
    """
    chosen = [SMALL] * len(groups)
    left = _room(groups, bits, budget, block_size)
    extra = [_extra(group, bits, block_size) for group in groups]
    by_worth = sorted(range(len(groups)), key=lambda number: -costs[number] / extra[number])
    for number in by_worth:
        if extra[number] <= left:
            chosen[number] = LARGE
            left -= extra[number]
    return chosen


def predicted(costs: Sequence[float], bits: Sequence[int]) -> float:
    """Mean KL divergence that the rounding of all groups together should cause."""
    return sum(cost * (1 if width == SMALL else REMAINING) for cost, width in zip(costs, bits, strict=True))


def stored_bytes(group: Group, bits: int, block_size: int = 32) -> int:
    return sum(grid_for(cols, bits, block_size).stored_bytes(rows, cols) for rows, cols in group.shapes)


def _room(groups: Sequence[Group], bits: float | None, budget: int | None, block_size: int) -> float:
    if budget is None:
        return ((bits or SMALL) - SMALL) * sum(group.weights for group in groups)
    least = sum(stored_bytes(group, SMALL, block_size) for group in groups)
    if least > budget:
        raise InvalidInput(
            f"the matrices take {least / 1e6:.1f} MB at four bits, more than the {budget / 1e6:.1f} MB that are left"
            " for them in a package of this size",
            "allow a larger package, or take a smaller model",
            param="max_size",
        )
    return budget - least


def _extra(group: Group, bits: float | None, block_size: int) -> float:
    """What eight bits take of the room: code bits for an average, bytes for a budget."""
    if bits is not None:
        return (LARGE - SMALL) * group.weights
    return stored_bytes(group, LARGE, block_size) - stored_bytes(group, SMALL, block_size)
