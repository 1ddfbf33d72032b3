"""The sampler against a plain implementation of the same definitions, and its draws against the distribution."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.engine import sampler
from edgeai.engine.request import SamplingParams
from edgeai.engine.sampler import SHORTLIST, adjust, candidates, logprobs, sample, uniform
from edgeai.engine.sequence import Sequence

VOCAB = 24
tokens = st.integers(0, VOCAB - 1)
steps = st.integers(-2560, 2560).map(lambda step: step / 128)  # ties are frequent, near-ties impossible
logits = st.lists(steps, min_size=VOCAB, max_size=VOCAB)
penalties = st.floats(-2, 2)
params = st.builds(
    SamplingParams,
    temperature=st.floats(0.1, 5),
    top_k=st.integers(0, VOCAB + 2),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.1, 10),
    presence_penalty=penalties,
    frequency_penalty=penalties,
    logit_bias=st.dictionaries(tokens, st.floats(-100, 100), max_size=5),
)


def sequence(params: SamplingParams, prompt: list[int] = [0], output: list[int] = []) -> Sequence:  # noqa: B006
    made = Sequence.start("test", prompt, params)
    made.tokens.extend(output)
    return made


def plain_adjust(values: list[float], params: SamplingParams, prompt: list[int], output: list[int]) -> list[float]:
    """Bias, then repetition, presence and frequency penalties, token by token."""
    result = []
    for token, value in enumerate(values):
        value += params.logit_bias.get(token, 0.0)
        if token in prompt or token in output:
            value = value / params.repetition_penalty if value > 0 else value * params.repetition_penalty
        if token in output:
            value -= params.presence_penalty + params.frequency_penalty * output.count(token)
        result.append(value)
    return result


def plain_candidates(values: list[float], params: SamplingParams) -> dict[int, float]:
    """Probabilities of what may be drawn: top-k, then top-p of what is left, then min-p."""
    ranked = sorted(range(len(values)), key=lambda token: (-values[token], token))
    if params.top_k:
        ranked = ranked[: params.top_k]
    weights = [math.exp(values[token] - values[ranked[0]]) for token in ranked]
    kept, reached = [], 0.0
    for token, weight in zip(ranked, weights, strict=True):
        kept.append((token, weight))
        reached += weight
        if params.top_p < 1 and reached >= params.top_p * sum(weights):
            break
    kept = [(token, weight) for token, weight in kept if weight >= params.min_p]
    total = sum(weight for _, weight in kept)
    return {token: weight / total for token, weight in kept}


@given(logits, params, st.lists(tokens, min_size=1, max_size=8), st.lists(tokens, max_size=8))
def test_adjusted_logits_equal_the_plain_ones(values, params, prompt, output) -> None:
    row = np.array(values, np.float32)
    before = row.copy()
    actual = adjust(row, sequence(params, prompt, output))
    assert np.allclose(actual, plain_adjust(values, params, prompt, output), rtol=1e-5, atol=1e-4)
    assert np.array_equal(row, before)  # the caller's array is not touched


@given(st.integers(0, 2**32), params)
def test_candidates_equal_the_plain_ones(seed: int, params: SamplingParams) -> None:
    scaled = np.random.default_rng(seed).normal(0, 3, VOCAB)
    chosen, weights = candidates(scaled, params)
    expected = plain_candidates(scaled.tolist(), params)
    assert set(chosen.tolist()) == set(expected)
    assert len(chosen) == len(expected)
    assert np.allclose(weights / weights.sum(), [expected[token] for token in chosen.tolist()])


@pytest.mark.parametrize("top_k", [0, 3, 40])
@pytest.mark.parametrize("top_p", [0.0, 0.5, 1.0])
def test_ties_go_to_the_lower_id(top_k: int, top_p: float) -> None:
    scaled = np.zeros(40)
    params = SamplingParams(top_k=top_k, top_p=top_p)
    expected = plain_candidates(scaled.tolist(), params)
    assert sorted(candidates(scaled, params)[0].tolist()) == sorted(expected)
    assert sorted(expected) == list(range(len(expected)))


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.99, 0.999999])
@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])
def test_top_p_may_reach_past_the_shortlist(top_p: float, spread: float) -> None:
    scaled = np.random.default_rng(3).normal(0, spread, 4 * SHORTLIST)
    expected = plain_candidates(scaled.tolist(), SamplingParams(top_p=top_p))
    assert candidates(scaled, SamplingParams(top_p=top_p))[0].tolist() == list(expected)


@given(logits, params)
def test_greedy_takes_the_likeliest(values, params: SamplingParams) -> None:
    for greedy in ({"temperature": 0.0}, {"top_k": 1}):
        chosen = SamplingParams(logit_bias=params.logit_bias, **greedy)  # type: ignore[arg-type]
        row = adjust(np.array(values, np.float32), sequence(chosen))
        assert sample(np.array(values, np.float32), sequence(chosen)) == int(row.argmax())


@given(
    st.integers(0, 2**32),
    params,
    st.sampled_from([0, 1]),
    st.sets(st.integers(0, 299), min_size=1, max_size=300),
    st.lists(st.integers(0, 299), max_size=20),
    st.sampled_from([0, 5, 299]),
)
def test_what_is_not_allowed_is_as_good_as_impossible(seed, params, top_k, allowed, output, few) -> None:
    """Whether only the logits of what is allowed are looked at, or all of them."""
    values = np.random.default_rng(seed).normal(0, 3, 300).astype(np.float32)
    made = sequence(replace(params, seed=seed, top_k=top_k and params.top_k), [7, 11], output)
    mask = np.isin(np.arange(300), list(allowed))
    naive = np.where(mask, adjust(values, made), np.float32(-np.inf))
    unadjusted = replace(
        made.params, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, logit_bias={}
    )
    expected = sample(naive, sequence(unadjusted, [7, 11], output))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "FEW", few)
        chosen = sample(values, made, mask)
    assert chosen == expected
    assert mask[chosen]


@given(st.integers(0, 2**32), params)
def test_a_draw_is_one_out_of_the_whole_vocabulary(seed: int, params: SamplingParams) -> None:
    """Though what is negligible is left out first."""
    values = np.random.default_rng(seed).normal(0, 6, 3000).astype(np.float32)
    made = sequence(replace(params, seed=seed), [1, 2], [3, 3])
    chosen, weights = candidates(adjust(values, made).astype(np.float64) / params.temperature, params)
    bounds = np.cumsum(weights)
    place = np.searchsorted(bounds, uniform(seed, 4) * bounds[-1], side="right")
    assert sample(values, made) == chosen[place]


@pytest.mark.parametrize("temperature", [1e-300, 5e-324, 1e-10])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    row = np.random.default_rng(0).normal(0, 5, 100).astype(np.float32)
    for seed in range(20):
        assert sample(row, sequence(SamplingParams(temperature=temperature, seed=seed))) == int(row.argmax())


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.7, top_p=0.9),
        SamplingParams(temperature=1.5, top_k=6),
        SamplingParams(min_p=0.2),
        SamplingParams(repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.5, logit_bias={4: 2.0}),
    ],
    ids=["plain", "top-p", "top-k", "min-p", "penalties"],
)
def test_draws_follow_the_distribution(params: SamplingParams) -> None:
    draws, prompt, output = 3000, [1, 2], [3, 3, 4]
    values = np.random.default_rng(11).normal(0, 1.5, 12).astype(np.float32)
    adjusted = plain_adjust(values.tolist(), params, prompt, output)
    expected = plain_candidates([value / params.temperature for value in adjusted], params)
    counts = Counter(
        sample(values, sequence(SamplingParams(**{**fields(params), "seed": seed}), prompt, output))
        for seed in range(draws)
    )
    assert set(counts) <= set(expected)
    statistic = sum((counts[token] - draws * p) ** 2 / (draws * p) for token, p in expected.items())
    assert statistic < chi_square_limit(len(expected) - 1)


def fields(params: SamplingParams) -> dict:
    return {name: getattr(params, name) for name in SamplingParams.__slots__}


def chi_square_limit(freedom: int, sigmas: float = 3.5) -> float:
    """The quantile at `sigmas` standard deviations (Wilson and Hilferty 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + sigmas * math.sqrt(2 / (9 * freedom))) ** 3


def test_uniform_is_a_pure_function() -> None:
    """Pinned: a seeded text must be the same on another machine and after an update."""
    assert [uniform(7, position) for position in range(3)] == [uniform(7, position) for position in range(3)]
    assert [round(uniform(seed, position), 12) for seed, position in PINNED] == list(PINNED.values())
    assert uniform(-1, 5) == uniform(2**64 - 1, 5)


def test_uniform_is_numpys_philox() -> None:
    for seed in (0, 7, 2**32 - 1, 2**64 - 1):
        for position in (0, 1, 999, 2**20):
            bits = np.random.Philox(key=seed, counter=position)
            assert uniform(seed, position) == np.random.Generator(bits).random()


PINNED = {(0, 0): 0.011546754286, (7, 0): 0.87207345482, (7, 1): 0.082842687027, (2**63, 1000): 0.423589749453}


def test_uniform_covers_its_range_evenly() -> None:
    values = np.array([uniform(seed, position) for seed in range(50) for position in range(100)])
    assert (values >= 0).all()
    assert (values < 1).all()
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    assert ((counts - 250) ** 2 / 250).sum() < chi_square_limit(19)
    assert len(np.unique(values)) == len(values)


@given(logits, tokens, st.integers(0, VOCAB))
def test_logprobs_are_of_the_unmodified_distribution(values, token: int, count: int) -> None:
    row = np.array(values, np.float32)
    own, top = logprobs(row, token, count)
    total = math.fsum(math.exp(value) for value in row.tolist())
    assert own.token_id == token
    assert own.logprob == pytest.approx(float(row[token]) - math.log(total), abs=1e-6)
    ranked = sorted(range(VOCAB), key=lambda i: (-row[i], i))[:count]
    assert [entry.token_id for entry in top] == ranked
    assert [entry.logprob for entry in top] == pytest.approx(
        [float(row[i]) - math.log(total) for i in ranked], abs=1e-6
    )
    if count == VOCAB:
        assert math.fsum(math.exp(entry.logprob) for entry in top) == pytest.approx(1)


def test_logprobs_of_huge_logits_are_finite() -> None:
    row = np.array([3e38, -3e38, 0], np.float32)
    own, top = logprobs(row, 1, 3)
    assert math.isfinite(own.logprob)
    assert top[0].logprob == 0
