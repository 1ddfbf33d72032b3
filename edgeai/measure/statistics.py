"""Intervals of scores: how much of a difference may be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054  # normal quantile of 0.975
RESAMPLES = 10_000
SEED = 1


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def wilson(right: int, total: int) -> Interval:
    """Wilson's score interval of a proportion (1927): sensible for few items, and near 0 and 1.

    Raises ValueError without items.
    """
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"{right} of {total} is no proportion")
    share, z2 = right / total, Z_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Interval:
    """Bootstrap interval of (mean of `second`) - (mean of `first`), both answers to the same items, item by item.

    Items are drawn with replacement `RESAMPLES` times, always the same ones, so that a result can be repeated.
    """
    difference = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    drawn = np.random.default_rng(SEED).integers(0, len(difference), (RESAMPLES, len(difference)))
    low, high = np.quantile(difference[drawn].mean(axis=1), [0.025, 0.975])
    return Interval(float(low), float(high))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Probability of a split this uneven among the items on which the two differ, were both equally good.

    McNemar's test (1947) in its exact form: a two-sided binomial test.
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    differ, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(differ, k) for k in range(fewer + 1)) / 2**differ
    return float(min(1.0, 2 * tail))
