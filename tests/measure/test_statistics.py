"""Intervals and tests, beside values that are known and beside slow but plain computations."""

from __future__ import annotations

import math
import random

import pytest

from edgeai.measure.statistics import mcnemar, paired_difference, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (5, 10, 0.23659, 0.76341), (81, 263, 0.25527, 0.36618)],
)
def test_wilsons_interval(right: int, total: int, low: float, high: float) -> None:
    """The last is the example of Newcombe (1998), who gives 0.2553 to 0.3662."""
    interval = wilson(right, total)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@pytest.mark.parametrize(("right", "total"), [(0, 0), (3, 2), (-1, 5)])
def test_what_is_no_proportion(right: int, total: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson(right, total)


def test_wilsons_interval_covers_the_truth() -> None:
    chance = random.Random(5)
    hits = 0
    for _ in range(2000):
        interval = wilson(sum(chance.random() < 0.3 for _ in range(80)), 80)
        hits += interval.low <= 0.3 <= interval.high
    assert 0.93 <= hits / 2000 <= 0.97


def test_the_paired_interval_sees_a_difference_and_repeats() -> None:
    first, second = [False] * 60 + [True] * 140, [True] * 40 + [False] * 20 + [True] * 140
    interval = paired_difference(first, second)
    assert 0 < interval.low < 0.2 < interval.high
    assert interval == paired_difference(first, second)
    opposite = paired_difference(second, first)
    assert (opposite.low, opposite.high) == (
        pytest.approx(-interval.high, abs=0.01),
        pytest.approx(-interval.low, abs=0.01),
    )


def test_equal_answers_differ_by_nothing() -> None:
    same = paired_difference([True, False, True], [True, False, True])
    assert (same.low, same.high) == (0, 0)
    assert mcnemar([True, False], [True, False]) == 1


def test_mcnemar_is_the_two_sided_binomial_test() -> None:
    first, second = [True] * 8 + [False] * 2 + [True] * 5, [False] * 8 + [True] * 2 + [True] * 5
    expected = 2 * sum(math.comb(10, k) for k in (0, 1, 2)) / 2**10
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == pytest.approx(expected)
