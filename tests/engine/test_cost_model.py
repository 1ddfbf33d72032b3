"""The cost of runs, learned from runs whose true cost is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgeai.engine.cost_model import LinearCost

SCALES = (4.0, 128.0, 128.0 * 8192)


def features(tokens: int, start: int) -> tuple[float, float, float]:
    return 1.0, tokens, tokens * (start + tokens / 2)


def true_seconds(tokens: int, start: int, speed: float = 1.0) -> float:
    """Like SmolLM2-135M on a small machine."""
    return speed * (0.004 + tokens * 0.0012 + tokens * (start + tokens / 2) * 3e-7)


def learned(runs, *, noise: float = 0.0, outliers: float = 0.0, seed: int = 0, cost: LinearCost | None = None):
    rng = np.random.default_rng(seed)
    cost = cost or LinearCost(SCALES)
    for tokens, start in runs:
        seconds = true_seconds(tokens, start) * (1 + noise * rng.normal())
        cost.measured(features(tokens, start), seconds * (8 if rng.random() < outliers else 1))
    return cost


def prompts(count: int, seed: int = 1) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(1, 9)) * 16, int(rng.integers(0, 8000))) for _ in range(count)]


def test_nothing_is_known_at_first() -> None:
    assert LinearCost(SCALES).seconds(features(128, 0)) == 0


def test_the_first_run_is_repeated() -> None:
    cost = learned([(128, 0)])
    assert cost.seconds(features(128, 0)) == pytest.approx(true_seconds(128, 0), rel=0.02)


@pytest.mark.parametrize(("noise", "outliers", "near"), [(0, 0, 0.001), (0.05, 0, 0.1), (0.05, 0.05, 0.15)])
def test_costs_are_found_whatever_disturbs(noise: float, outliers: float, near: float) -> None:
    cost = learned(prompts(400), noise=noise, outliers=outliers)
    for tokens, start in ((16, 0), (16, 8000), (128, 0), (128, 8000), (64, 4000)):
        assert cost.seconds(features(tokens, start)) == pytest.approx(true_seconds(tokens, start), rel=near)


def test_what_slows_down_for_good_is_followed() -> None:
    cost = learned(prompts(200))
    for tokens, start in prompts(60, seed=2):
        cost.measured(features(tokens, start), true_seconds(tokens, start, speed=3))
    for tokens, start in ((16, 100), (128, 6000)):
        assert cost.seconds(features(tokens, start)) == pytest.approx(true_seconds(tokens, start, 3), rel=0.25)


def test_long_sameness_does_not_blur_the_rest() -> None:
    """Thousands of runs of one kind: the other kinds are still known, and news of them still count."""
    cost = learned([(128, 1000)] * 5000, noise=0.05, cost=learned(prompts(200), noise=0.05))
    assert cost.seconds(features(16, 8000)) == pytest.approx(true_seconds(16, 8000), rel=0.3)
    cost = learned(prompts(100), cost=cost)
    assert cost.seconds(features(16, 8000)) == pytest.approx(true_seconds(16, 8000), rel=0.1)


def test_no_coefficient_becomes_negative() -> None:
    cost = LinearCost((1.0, 1.0))
    for x, seconds in ((1, 5.0), (2, 4.0), (3, 3.0), (4, 2.0)):
        cost.measured((1.0, x), seconds)
    assert cost.seconds((0.0, 1.0)) >= 0
    assert cost.seconds((1.0, 100.0)) > 0


def test_a_clock_that_stood_still_does_no_harm() -> None:
    cost = learned(prompts(50))
    cost.measured(features(64, 0), 0.0)
    cost = learned(prompts(100), cost=cost)
    assert cost.seconds(features(64, 100)) == pytest.approx(true_seconds(64, 100), rel=0.1)
