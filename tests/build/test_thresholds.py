"""What a recipe asks of a build."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgeai.build.thresholds import require_quality
from edgeai.errors import ValidationFailed
from edgeai.package.manifest import Quality
from edgeai.recipe import Recipe

GOOD: dict[str, Any] = {
    "reference": "numpy",
    "tokens": 100,
    "mean_kl": 0.05,
    "p99_kl": 0.2,
    "max_kl": 0.5,
    "max_logit_difference": 1.0,
    "top_token_agreement": 0.9,
    "perplexity": 11.0,
    "reference_perplexity": 10.0,
}


def quality(**changed: float) -> Quality:
    return Quality.model_validate({k: v for k, v in (GOOD | changed).items() if k in Quality.model_fields})


def recipe(**thresholds: float) -> Recipe:
    document = {"schema": 1, "name": "tiny", "sources": [{"kind": "path", "path": "x"}], "quality": thresholds}
    return Recipe.model_validate(document)


@pytest.mark.parametrize(
    ("thresholds", "scheme", "says"),
    [
        (
            {"max_mean_kl": 0.04},
            "rtn",
            r"tiny is 0\.05 nats per token from its source \(the recipe allows max_mean_kl 0\.04",
        ),
        ({}, "source", r"max_mean_kl 0\.01"),
        ({"min_top_token_agreement": 0.95}, "rtn", r"likeliest token in 0\.9 of .*min_top_token_agreement 0\.95"),
        ({"max_perplexity_ratio": 1.05}, "rtn", r"1\.1 times its source's perplexity .*max_perplexity_ratio 1\.05"),
    ],
)
def test_a_threshold_that_is_missed_is_named(thresholds: dict[str, float], scheme: str, says: str) -> None:
    with pytest.raises(ValidationFailed, match=says):
        require_quality(quality(), recipe(**thresholds), scheme)


def test_all_that_are_missed_are_named_at_once() -> None:
    with pytest.raises(ValidationFailed) as raised:
        require_quality(
            quality(), recipe(max_mean_kl=0.01, min_top_token_agreement=1.0, max_perplexity_ratio=1.0), "rtn"
        )
    assert raised.value.message.count("; it has") == 2


def test_what_is_reached_is_published() -> None:
    require_quality(quality(), None, "source")
    require_quality(quality(), recipe(), "rtn")  # the default is for grids that were kept
    require_quality(quality(), recipe(max_mean_kl=0.05, min_top_token_agreement=0.9, max_perplexity_ratio=1.1), "rtn")


@pytest.mark.parametrize(
    ("measured", "threshold"),
    [
        ("mean_kl", "max_mean_kl"),
        ("top_token_agreement", "min_top_token_agreement"),
        ("perplexity", "max_perplexity_ratio"),
    ],
)
def test_not_a_number_never_passes(measured: str, threshold: str) -> None:
    with pytest.raises(ValidationFailed):
        require_quality(quality(**{measured: math.nan}), recipe(**{threshold: 1.0}), "rtn")
