"""Which of several settings is best, out of noisy rounds in which all of them were measured in turn.

A setting's value is ``speed / cpu ** CPU_WEIGHT``, the geometric mean over the workloads: what is two percent faster at
twice the processor time loses, and of two that are equally fast the cheaper one wins. Within each round every value is
held against the present setting's, which cancels what slows the whole machine down for a while; the median of these
ratios counts. The present setting stays unless another is better by more than `MARGIN` and by more than the noise.

Noise is the half of a 95 % confidence interval of that median. Few ratios may agree by chance, so they are judged by
their standard deviation, and Student's quantiles count; from `ROBUST_ROUNDS` on by their median deviation, which one
hiccup does not change.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from edgeai.tuning.profile import Candidate, Figures

CPU_WEIGHT = 0.1  # twice the processor time has to bring 7 % of speed
MARGIN = 0.03
MAD_TO_SIGMA = 1.4826  # of a normal distribution
MEDIAN_ERROR = 1.2533  # standard error of a median in units of that of a mean
ROBUST_ROUNDS = 6
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31}  # by degrees of freedom, 97.5 %

Round = Mapping[str, Figures]  # by workload


def value(figures: Round) -> float:
    """Logarithm of what a setting is worth, by one round."""
    return statistics.fmean(math.log(each.speed) - CPU_WEIGHT * math.log(each.cpu) for each in figures.values())


def compared(candidate: Candidate, rounds: Sequence[Round], present: Sequence[Round]) -> Candidate:
    """The candidate with its figures, and its gain over the present setting in the same rounds."""
    ratios = [value(mine) - value(other) for mine, other in zip(rounds, present, strict=False)]
    if not ratios:
        return candidate
    gain = statistics.median(ratios)
    update = {
        "figures": medians(rounds),
        "rounds": len(ratios),
        "gain": round(math.exp(gain), 4),
        "noise": round(noise_of(ratios), 4) if len(ratios) > 1 else None,
    }
    return candidate.model_copy(update=update)


def noise_of(ratios: Sequence[float]) -> float:
    """How far the median of these logarithms, two or more, may be off."""
    count = len(ratios)
    if count < ROBUST_ROUNDS:
        spread = statistics.stdev(ratios)
    else:
        middle = statistics.median(ratios)
        spread = MAD_TO_SIGMA * statistics.median(abs(ratio - middle) for ratio in ratios)
    return STUDENT.get(count - 1, 2.0) * MEDIAN_ERROR * spread / math.sqrt(count)


def medians(rounds: Sequence[Round]) -> dict[str, Figures]:
    """Each workload's median figures."""
    return {
        workload: Figures(
            speed=statistics.median(each[workload].speed for each in rounds),
            cpu=statistics.median(each[workload].cpu for each in rounds),
        )
        for workload in (rounds[0] if rounds else {})
    }


def better(candidate: Candidate) -> bool:
    """Whether it is better than the present setting by more than the margin and the noise."""
    if candidate.failure is not None or candidate.gain is None or candidate.noise is None:
        return False
    return candidate.gain - 1 > max(MARGIN, candidate.noise)


def best(candidates: Sequence[Candidate]) -> int:
    """The place of the one to choose; 0 is the present setting. Of those about as good as the best, the first."""
    winners = [place for place, each in enumerate(candidates) if place and better(each)]
    if not winners:
        return 0
    most = max(_gain(candidates[place]) for place in winners)
    return next(place for place in winners if _gain(candidates[place]) * (1 + MARGIN) >= most)


def explain(candidates: Sequence[Candidate], chosen: int) -> str:
    """Why that one was chosen, in a sentence for people."""
    if chosen:
        present, winner = candidates[0], candidates[chosen]
        return f"{_difference(winner)} than {present.label}; {_speeds(present, winner)}"
    measured = [each for each in candidates[1:] if each.gain is not None and each.failure is None]
    failed = [f"{each.label} failed: {each.failure}" for each in candidates[1:] if each.failure]
    if not measured:
        return "; ".join(failed) or "nothing else suits this device"
    nearest = max(measured, key=_gain)
    kept = f"no other value is clearly better; the nearest, {nearest.label}, is {_difference(nearest)}"
    return "; ".join([kept, *failed])


def _difference(candidate: Candidate) -> str:
    percent = 100 * (_gain(candidate) - 1)
    noise = 100 * (candidate.noise or 0)
    word = "better" if percent >= 0 else "worse"
    return f"{abs(percent):.1f} % {word} (noise {noise:.1f} %, {candidate.rounds} rounds)"


def _speeds(present: Candidate, chosen: Candidate) -> str:
    parts = [
        f"{workload} {present.figures[workload].speed:.1f} to {figures.speed:.1f} tokens/s"
        f" at {present.figures[workload].cpu:.1f} to {figures.cpu:.1f} CPU-seconds per 1,000"
        for workload, figures in chosen.figures.items()
    ]
    return ", ".join(parts)


def _gain(candidate: Candidate) -> float:
    return candidate.gain or 0.0
