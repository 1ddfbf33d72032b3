"""Drafts by lookup, and when they pay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.model_runner import ModelRunner
from edgeai.engine.speculative import (
    LONGEST,
    PROBE_EVERY,
    PROBE_TOKENS,
    SHORTEST,
    Draft,
    Drafter,
    DraftPlanner,
    DraftRow,
    PromptLookup,
    RunCosts,
    geometric_sum,
)


def naive_draft(tokens: list[int], most: int) -> list[int]:
    """The same by search: longest n-gram first, its latest earlier end, and the text repeating from there."""
    for size in range(min(LONGEST, len(tokens) - 1), SHORTEST - 1, -1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                text = list(tokens)
                while len(text) < len(tokens) + most:
                    text.append(text[end + len(text) - len(tokens)])
                return text[len(tokens) :]
    return []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 12), st.data())
def test_lookup_equals_search_while_the_text_grows(text: list[int], most: int, data: st.DataObject) -> None:
    lookup = PromptLookup()
    length = 0
    while length < len(text):
        length = data.draw(st.integers(length + 1, len(text)))
        assert lookup.draft(text[:length], most) == naive_draft(text[:length], most)


def test_a_quoted_sentence_is_drafted() -> None:
    prompt = [7, 1, 2, 3, 4, 5, 6, 9]
    assert PromptLookup().draft([*prompt, 1, 2], 4) == [3, 4, 5, 6]
    assert PromptLookup().draft([*prompt, 1, 9], 4) == []


def test_a_text_that_ends_in_its_own_repetition_goes_on_repeating() -> None:
    assert PromptLookup().draft([1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]


def test_run_costs_find_the_line() -> None:
    costs = RunCosts()
    assert costs.seconds(9) / costs.seconds(1) == pytest.approx(2.125 / 1.125)  # nothing is known yet
    rng = np.random.default_rng(0)
    for positions in rng.integers(1, 12, 200):
        costs.measured(int(positions), 0.004 + 0.0006 * float(positions))
    assert costs.seconds(11) / costs.seconds(1) == pytest.approx(0.0106 / 0.0046, rel=1e-3)


def test_runs_of_one_size_say_how_long_runs_take() -> None:
    costs = RunCosts()
    for _ in range(10):
        costs.measured(8, 0.02)
    assert costs.seconds(8) == pytest.approx(0.02)
    assert costs.seconds(16) == pytest.approx(0.03)  # a position costs an eighth of the fixed part


def test_run_costs_follow_a_machine_that_slows_down() -> None:
    costs = RunCosts()
    for slope in (0.0006, 0.004):
        for positions in [1, 3, 8] * 150:
            costs.measured(positions, 0.004 + slope * positions)
    assert costs.seconds(8) / costs.seconds(1) == pytest.approx(0.036 / 0.008, rel=0.02)


def planner(slope: float) -> DraftPlanner:
    chosen = DraftPlanner(8)
    for positions in [1, 2, 4, 8] * 20:
        chosen.costs.measured(positions, 1.0 + slope * positions)
    return chosen


def drafter(acceptance: float) -> Drafter:
    return Drafter(right=acceptance * 100, tried=100)


def planned(plan: DraftPlanner, text: list[int], mine: Drafter, limit: int) -> list[list[int]]:
    return [draft.tokens for draft in plan.plan([DraftRow(text, mine, limit)])]


@pytest.mark.parametrize("slope", [0.05, 0.15, 0.5, 2.0])
@pytest.mark.parametrize("acceptance", [0.05, 0.5, 0.9, 1.0])
def test_the_length_that_gives_most_tokens_a_second(slope: float, acceptance: float) -> None:
    """Against plain enumeration of the expected speed for one row."""
    speeds = [sum(acceptance**i for i in range(cap + 1)) / (1 + slope * (1 + cap)) for cap in range(9)]
    assert planner(slope).choose([Draft([1] * 8, acceptance)]) == int(np.argmax(speeds))


def test_a_batch_is_drafted_less_than_one_row() -> None:
    """Rows cost positions; the fixed part of a run is shared already."""
    alone = planner(0.15).choose([Draft([1] * 8, 0.7)])
    crowd = planner(0.15).choose([Draft([1] * 8, 0.7)] * 8)
    assert crowd < alone
    assert planner(0.15).choose([Draft([1] * 8, 0.7), *[Draft([], 0.7)] * 7]) == 0  # seven rows would be padding


@pytest.mark.parametrize(("rows", "within", "longest"), [(1, 99, 8), (2, 11.0, 4), (2, 10.9, 3), (8, 8, 0), (1, -1, 0)])
def test_no_run_lasts_longer_than_it_may(rows: int, within: float, longest: int) -> None:
    """A run of n positions takes 1 + n seconds here; drafts are right and would pay at any length."""
    plan = planner(1.0)
    crowd = [DraftRow([1, 2, 3, 1, 2], drafter(1.0), 100) for _ in range(rows)]
    assert {len(draft.tokens) for draft in plan.plan(crowd, within)} == {longest}


def test_a_probe_lasts_no_longer_either() -> None:
    plan, mine = planner(2.0), drafter(0.01)
    lengths = [len(plan.plan([DraftRow([1, 2, 3, 1, 2], mine, 100)], within=5.5)[0].tokens) for _ in range(200)]
    assert set(lengths) == {0, 1}


def test_wrong_drafts_stop_and_are_tried_again_now_and_then() -> None:
    plan, mine = planner(0.3), Drafter()
    text = [1, 2, 3, 1, 2]
    lengths = []
    for _ in range(200):
        (draft,) = planned(plan, text, mine, 100)
        lengths.append(len(draft))
        if draft:
            mine.verified(len(draft), 0)
    assert lengths[0] > 0
    assert 200 // PROBE_EVERY - 1 <= lengths[20:].count(PROBE_TOKENS) <= 200 // PROBE_EVERY
    assert sum(lengths[20:]) == PROBE_TOKENS * lengths[20:].count(PROBE_TOKENS)


def test_right_drafts_come_back_after_a_probe() -> None:
    plan, mine = planner(0.15), drafter(0.01)
    for _ in range(PROBE_EVERY * 6):
        (draft,) = planned(plan, [1, 2, 3, 1, 2], mine, 100)
        if draft:
            mine.verified(len(draft), len(draft))
    assert mine.acceptance > 0.5
    assert len(draft) > PROBE_TOKENS


def test_no_more_is_drafted_than_may_follow() -> None:
    assert planned(planner(0.01), [1, 2, 3, 1, 2], drafter(1.0), 3) == [[3, 1, 2]]
    assert planned(planner(0.01), [1, 2, 3, 1, 2], drafter(1.0), 0) == [[]]
    assert planned(planner(0.01), [1, 2, 3, 1, 2], drafter(1.0), -1) == [[]]


@pytest.mark.parametrize(("ratio", "terms"), [(0.5, 3), (1.0, 4), (0.0, 2), (0.3, 0)])
def test_geometric_sum(ratio: float, terms: int) -> None:
    assert geometric_sum(ratio, terms) == pytest.approx(sum(ratio**i for i in range(terms + 1)))


def test_verification_of_ragged_rows_equals_runs_alone(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    """Three rows of different length and number of new tokens; each position as if it had been decoded by itself."""
    settings = EngineSettings(threads=1, max_rows=3)
    rng = np.random.default_rng(5)
    prompts = [[int(t) for t in rng.integers(2, 90, n)] for n in (40, 7, 66)]
    new = [[int(t) for t in rng.integers(2, 90, n)] for n in (1, 9, 4)]
    runner = ModelRunner(tiny_graph, tiny_shape, settings, 256)
    for slot, prompt in enumerate(prompts):
        runner.prefill(slot, prompt, 0)
    rows = [row.copy() for row in runner.verify(new, [len(prompt) for prompt in prompts])]
    assert [len(row) for row in rows] == [1, 9, 4]
    alone = ModelRunner(tiny_graph, tiny_shape, replace_rows(settings), 256)
    for prompt, tokens, row in zip(prompts, new, rows, strict=True):
        alone.prefill(0, prompt, 0)
        for i, token in enumerate(tokens):
            expected = alone.decode([token], [len(prompt) + i])[0]
            assert np.abs(expected - row[i]).max() < 1e-4
            assert expected.argmax() == row[i].argmax()
    again = runner.verify([[tokens[0]] for tokens in new], [len(prompt) for prompt in prompts])  # cache is as it was
    for row, first in zip(again, rows, strict=True):
        assert np.abs(row[0] - first[0]).max() < 1e-4


def replace_rows(settings: EngineSettings) -> EngineSettings:
    return EngineSettings(threads=settings.threads, max_rows=1)
