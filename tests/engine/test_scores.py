"""Where attention makes all scores of a chunk at once, and what that allows of chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.model_runner import ModelRunner
from edgeai.engine.scores import largest_chunk, with_scores_that_fit

SETTINGS = EngineSettings(chunk_tokens=128, scratch_bytes=1 << 20)
SMALL = ModelShape(96, 2, 4, 2, 16, 512)  # 4 heads: 1 MiB are 128 tokens over 512 positions


def test_scores_are_whole_where_a_whole_chunk_fits() -> None:
    assert with_scores_that_fit(SETTINGS, SMALL, 512).whole_scores
    assert not with_scores_that_fit(SETTINGS, SMALL, 513).whole_scores
    assert not with_scores_that_fit(replace(SETTINGS, whole_scores=False), SMALL, 16).whole_scores


def test_over_a_cache_of_codes_whole_scores_gain_nothing_for_prompts() -> None:
    codes = replace(SMALL, kv_type="int8")
    assert not with_scores_that_fit(SETTINGS, codes, 512).whole_scores
    assert with_scores_that_fit(SETTINGS, codes, 512, own_prompts=True).whole_scores
    assert not with_scores_that_fit(SETTINGS, codes, 513, own_prompts=True).whole_scores


def test_a_long_context_does_not_make_chunks_small() -> None:
    """Tiles need no scratch memory; only graphs that know none have chunks cut."""
    tiled = with_scores_that_fit(SETTINGS, SMALL, 1 << 17)
    assert largest_chunk(tiled, SMALL, 1 << 17) == 128
    assert largest_chunk(tiled, replace(SMALL, runtime="exported"), 4096) == 16
    assert largest_chunk(SETTINGS, SMALL, 512) == 128


@pytest.mark.parametrize("start", [0, 40])
def test_both_ways_give_the_same_logits(tiny_graph, tiny_shape: ModelShape, start: int) -> None:
    prompt = list(range(2, 90))
    logits = []
    for whole in (True, False):
        runner = ModelRunner(tiny_graph, tiny_shape, replace(SETTINGS, threads=1, max_rows=1, whole_scores=whole), 512)
        if start:
            runner.prefill(0, prompt[:start], 0)
        logits.append(runner.prefill(0, prompt[start:], start))
    assert np.abs(logits[0] - logits[1]).max() < 1e-4 * np.abs(logits[0]).max()
