"""Which sequences run together."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from edgeai.encoder.batches import Limits, plan_batches


@given(
    st.lists(st.integers(1, 600), max_size=80),
    st.builds(Limits, tokens=st.integers(1, 4000), scores=st.integers(1, 400_000)),
)
def test_every_sequence_once_with_others_of_its_length_within_the_limits(lengths: list[int], limits: Limits) -> None:
    batches = plan_batches(lengths, limits)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        (length,) = {lengths[position] for position in batch}
        rows = len(batch)
        assert rows == 1 or (rows * length <= limits.tokens and rows * length**2 <= limits.scores)
    first = [lengths[batch[0]] for batch in batches]
    assert first == sorted(first, reverse=True)


def test_no_more_runs_than_needed() -> None:
    assert plan_batches([4, 9, 4, 4, 9], Limits(tokens=8, scores=1000)) == [[1], [4], [0, 2], [3]]
    assert plan_batches([5] * 100, Limits()) == [list(range(100))]
