"""Where runs of decoding rows leave their logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.model_runner import ModelRunner

PROMPT = list(range(2, 20))


@pytest.fixture
def runner(tiny_graph: Path, tiny_shape: ModelShape) -> ModelRunner:
    made = ModelRunner(tiny_graph, tiny_shape, EngineSettings(threads=1, max_rows=2, draft_tokens=2), 256)
    for slot in range(2):
        made.prefill(slot, PROMPT, 0)
    return made


def test_runs_of_all_shapes_share_one_place(runner: ModelRunner) -> None:
    one = runner.decode([5], [len(PROMPT)])
    first = one.copy()
    two = runner.decode([7, 5], [len(PROMPT)] * 2)
    assert np.shares_memory(one, two)
    assert np.shares_memory(one, runner.verify([[5, 6, 7]], [len(PROMPT)])[0])
    assert np.array_equal(runner.decode([5], [len(PROMPT)]), first)


def test_what_a_prompt_gives_stays_while_rows_decode(runner: ModelRunner) -> None:
    kept = runner.prefill(0, PROMPT, 0)
    before = kept.copy()
    runner.decode([5, 7], [len(PROMPT)] * 2)
    assert np.array_equal(kept, before)


def test_more_positions_than_were_foreseen_find_room(runner: ModelRunner) -> None:
    """And bindings that were made before write where the new ones do."""
    first = runner.decode([5], [len(PROMPT)]).copy()
    rows = runner.verify([[5, *range(20, 28)]], [len(PROMPT)])
    assert np.abs(rows[0][0] - first[0]).max() < 1e-4
    assert np.shares_memory(rows[0], again := runner.decode([5], [len(PROMPT)]))
    assert np.array_equal(again, first)
