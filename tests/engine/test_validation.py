"""Requests that can never be served name what is wrong with them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edgeai.engine.request import SamplingParams
from edgeai.engine.validation import RANGES, check_params, check_prompt
from edgeai.errors import ContextLengthExceeded, InvalidInput

GOOD = SamplingParams(max_tokens=1, logprobs=5, logit_bias={0: -1000.0, 9: 1000.0}, seed=-1)


@pytest.mark.parametrize("name", list(RANGES))
@pytest.mark.parametrize("end", ["low", "high"])
def test_limits_are_inclusive(name: str, end: str) -> None:
    low, high = RANGES[name]
    limit = low if end == "low" else high
    step = -0.001 if end == "low" else 0.001
    if limit is None:
        check_params(replace(GOOD, **{name: 10**9}), 10)
        return
    check_params(replace(GOOD, **{name: limit}), 10)
    with pytest.raises(InvalidInput, match=f"^{name} is ") as caught:
        check_params(replace(GOOD, **{name: limit + step}), 10)
    assert caught.value.param == name


@pytest.mark.parametrize("name", list(RANGES))
def test_not_a_number_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{name} is nan") as caught:
        check_params(replace(GOOD, **{name: math.nan}), 10)
    assert caught.value.param == name


@pytest.mark.parametrize("bias", [{10: 1.0}, {-1: 1.0}, {3: 1001.0}, {3: -1001.0}, {3: math.nan}, {3: math.inf}])
def test_bias_out_of_range(bias: dict[int, float]) -> None:
    with pytest.raises(InvalidInput, match="logit_bias") as caught:
        check_params(replace(GOOD, logit_bias={1: 1.0, **bias}), 10)
    assert caught.value.param == "logit_bias"
    assert "0 to 9" in caught.value.hint


def test_good_parameters_pass() -> None:
    check_params(GOOD, 10)
    check_params(SamplingParams(), 10)


def test_an_empty_prompt() -> None:
    with pytest.raises(InvalidInput, match="empty") as caught:
        check_prompt([], 10, 100)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("token", [-1, 10, 2**40])
def test_a_token_outside_the_vocabulary_is_named(token: int) -> None:
    with pytest.raises(InvalidInput, match=f"token id {token} "):
        check_prompt([0, 9, token, 11], 10, 100)


@pytest.mark.parametrize(("length", "excess"), [(8, 1), (9, 2), (100, 93)])
def test_a_long_prompt_is_told_by_how_much(length: int, excess: int) -> None:
    """One token of the context is the answer's."""
    with pytest.raises(ContextLengthExceeded, match=f"the prompt has {length} tokens; the context holds 8") as caught:
        check_prompt([1] * length, 10, 8)
    assert f"by {excess} tokens" in caught.value.hint


def test_the_longest_prompt_passes() -> None:
    check_prompt([0, 9] * 3 + [1], 10, 8)
