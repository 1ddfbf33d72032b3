"""The int4 model: runs of other shapes round differently, and by no more than that.

Activations are rounded to 8 bits. A last bit that differs upstream flips roundings further up, so that two ways to
compute the same thing end about as far from each other as each is from float32: 0.004 nats per token here. One
token missing from the cache already costs 0.03.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgeai.build.validate import TEXT, compare
from edgeai.engine.config import EngineSettings
from edgeai.engine.model_runner import Logits, ModelRunner
from edgeai.model import Model, model_shape
from edgeai.package.package import Package

TOKENS = 120
ROWS = 3
ROUNDING_KL = 0.01  # nats per token


@pytest.fixture(scope="module")
def sequences(smollm_package: Package) -> list[list[int]]:
    """Three texts: rotations of one, so that their tokens differ at every position."""
    with Model.load(smollm_package, EngineSettings(max_context=256)) as model:
        ids = model.encode_text(TEXT)
    return [(ids[start:] + ids[:start])[:TOKENS] for start in range(0, 40 * ROWS, 40)]


@pytest.fixture(scope="module")
def runner(smollm_package: Package) -> ModelRunner:
    shape = model_shape(smollm_package.manifest)
    return ModelRunner(smollm_package.graph, shape, EngineSettings(max_rows=ROWS), 256)


@pytest.fixture(scope="module")
def singles(runner: ModelRunner, sequences: list[list[int]]) -> list[Logits]:
    """Logits of every text, token by token on its own: the slowest way and the plainest."""
    results = []
    for ids in sequences:
        rows = [runner.decode([token], [position])[0].copy() for position, token in enumerate(ids)]
        results.append(np.stack(rows))
    return results


def chunks(runner: ModelRunner, ids: list[int], size: int) -> Logits:
    parts = [runner.score(0, ids[start : start + size], start).copy() for start in range(0, len(ids), size)]
    return np.concatenate(parts)


@pytest.mark.parametrize("size", [TOKENS, 50, 16, 7])
def test_chunks_equal_single_tokens(runner, sequences, singles, size: int) -> None:
    comparison = compare(singles[0], chunks(runner, sequences[0], size), sequences[0])
    assert comparison.mean_kl < ROUNDING_KL
    assert comparison.agreement > 0.9


@pytest.mark.parametrize("rows", [2, ROWS])
def test_batched_tokens_equal_single_ones(runner, sequences, singles, rows: int) -> None:
    """Rows of different lengths: each starts some tokens after the one before."""
    lag = 5
    for row in range(1, rows):
        runner.prefill(rows - 1 - row, sequences[rows - 1 - row][: lag * row], 0)
    batched: list[list[Logits]] = [[] for _ in range(rows)]
    for step in range(TOKENS - lag * rows):
        positions = [step + lag * (rows - 1 - row) for row in range(rows)]
        logits = runner.decode([sequences[row][at] for row, at in enumerate(positions)], positions)
        for row in range(rows):
            batched[row].append(logits[row].copy())
    for row in range(rows):
        first = lag * (rows - 1 - row)
        part = slice(first, first + len(batched[row]))
        comparison = compare(singles[row][part], np.stack(batched[row]), sequences[row][part])
        assert comparison.mean_kl < ROUNDING_KL
        assert comparison.agreement > 0.9


def test_a_shifted_position_would_be_seen(runner, sequences, singles) -> None:
    """The measure has teeth: one token missing from the cache."""
    ids = sequences[0]
    runner.prefill(0, ids[:20], 0)
    rows = [runner.decode([ids[at]], [at - 1])[0].copy() for at in range(21, 60)]
    assert compare(singles[0][21:60], np.stack(rows), ids[21:60]).mean_kl > 2 * ROUNDING_KL
