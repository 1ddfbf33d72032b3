"""Choosing among noisy rounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.tuning.decision import MARGIN, best, better, compared, explain
from edgeai.tuning.profile import Candidate, Figures


def rounds(
    speed: float, cpu: float = 10.0, *, count: int = 5, machine: list[float] | None = None
) -> list[dict[str, Figures]]:
    """Rounds of one setting on a machine whose speed changes from round to round."""
    factors = machine or [1.0] * count
    return [{"decode": Figures(speed=speed * factor, cpu=cpu)} for factor in factors]


def race(*settings: list[dict[str, Figures]]) -> list[Candidate]:
    return [compared(Candidate(label=str(place), setting={}), each, settings[0]) for place, each in enumerate(settings)]


def test_the_faster_one_wins() -> None:
    candidates = race(rounds(100), rounds(120), rounds(90))
    assert best(candidates) == 1
    assert "20.0 % better" in explain(candidates, 1)
    assert "decode 100.0 to 120.0 tokens/s" in explain(candidates, 1)


def test_a_little_faster_at_twice_the_processor_time_loses() -> None:
    assert best(race(rounds(100, 10), rounds(102, 20))) == 0
    assert best(race(rounds(100, 10), rounds(109, 20))) == 0
    assert best(race(rounds(100, 10), rounds(130, 20))) == 1


def test_as_fast_for_half_the_processor_time_wins() -> None:
    assert best(race(rounds(100, 20), rounds(99.5, 10))) == 1


def test_what_is_not_clearly_better_loses_to_what_there_is() -> None:
    candidates = race(rounds(100), rounds(102))
    assert best(candidates) == 0
    assert "2.0 % better" in explain(candidates, 0)


def test_of_equals_the_first_wins() -> None:
    assert best(race(rounds(100), rounds(120), rounds(121), rounds(122))) == 1
    assert best(race(rounds(100), rounds(110), rounds(121), rounds(122))) == 2


def test_failures_never_win() -> None:
    candidates = race(rounds(100), rounds(200), rounds(110))
    candidates[1] = candidates[1].model_copy(update={"failure": "an illegal instruction"})
    assert best(candidates) == 2
    candidates[2] = candidates[2].model_copy(update={"failure": "a hang"})
    assert best(candidates) == 0
    assert explain(candidates, 0) == "1 failed: an illegal instruction; 2 failed: a hang"


def test_noise_keeps_what_there_is() -> None:
    wild = [{"decode": Figures(speed=speed, cpu=10)} for speed in (80, 160, 104, 70, 150)]
    candidates = race(rounds(100), wild)
    assert candidates[1].gain is not None
    assert candidates[1].gain > 1 + MARGIN
    assert not better(candidates[1])


@given(st.lists(st.floats(0.2, 5), min_size=3, max_size=9), st.floats(1.05, 3))
def test_a_machine_that_changes_its_speed_changes_nothing(machine: list[float], factor: float) -> None:
    """Ratios within a round cancel what slows all settings down, such as heat."""
    candidates = race(rounds(100, machine=machine), rounds(100 * factor, machine=machine))
    assert candidates[1].gain == pytest.approx(factor, rel=1e-3)
    assert best(candidates) == 1


def test_wrong_choices_are_rare_on_a_noisy_machine() -> None:
    """Equal settings, a few percent of noise in each figure: the present one is kept nearly always."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        noisy = [
            [{"decode": Figures(speed=100 * float(rng.normal(1, 0.04)), cpu=10.0)} for _ in range(5)] for _ in range(2)
        ]
        wrong += best(race(*noisy)) != 0
    assert wrong < 30


def test_three_rounds_that_agree_by_chance_are_noise() -> None:
    """A machine that drifts: two of three rounds favour the same one, by as much as the third does not."""
    present = [{"decode": Figures(speed=100, cpu=10)}] * 3
    lucky = [{"decode": Figures(speed=speed, cpu=10)} for speed in (104, 104, 96)]
    candidate = compared(Candidate(label="lucky", setting={}), lucky, present)
    assert candidate.gain == pytest.approx(1.04)
    assert not better(candidate)
    surely = [{"decode": Figures(speed=speed, cpu=10)} for speed in (120, 121, 118)]
    assert better(compared(Candidate(label="surely", setting={}), surely, present))


def test_one_hiccup_in_many_rounds_does_not_hide_a_gain() -> None:
    present = [{"decode": Figures(speed=100, cpu=10)}] * 9
    speeds = [110, 111, 109, 110, 40, 110, 112, 108, 110]
    found = [{"decode": Figures(speed=speed, cpu=10)} for speed in speeds]
    assert better(compared(Candidate(label="", setting={}), found, present))


def test_a_single_round_says_nothing_of_noise() -> None:
    candidate = compared(Candidate(label="", setting={}), rounds(200, count=1), rounds(100, count=1))
    assert (candidate.gain, candidate.noise, better(candidate)) == (2.0, None, False)
