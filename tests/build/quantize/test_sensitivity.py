"""Sensitivities of many groups in one run, against one plain run for each; and what is made of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from edgeai.architectures.reference import EMBEDDINGS
from edgeai.architectures.registry import decoder_config, reference_logits
from edgeai.build.quantize import sensitivity
from edgeai.build.quantize.allocation import allocate, predicted, stored_bytes
from edgeai.build.quantize.grid import Grid
from edgeai.build.quantize.groups import HEAD, Group, find_groups
from edgeai.build.quantize.rounding import round_to_nearest
from edgeai.build.quantize.sensitivity import sensitivities
from edgeai.build.validate import log_softmax
from edgeai.errors import InvalidInput
from edgeai.progress import silent
from edgeai.sources.weights import Tensor
from tests.fixtures.tiny import TinySource

IDS = [[5, 17, 90, 3, 44, 44, 8], [61, 2, 30, 12]]
LAYER = "model.layers.{}."


def rounded(source: TinySource, group: Group) -> Callable[[str], Tensor]:
    def load(name: str) -> Tensor:
        tensor = source.load(name)
        return round_to_nearest(tensor.dequantize(), 4) if name in group.names else tensor

    return load


def mean_kl(source: TinySource, load: Callable[[str], Tensor]) -> float:
    values: list[float] = []
    for ids in IDS:
        expected, actual = (log_softmax(reference_logits(source.config, each, ids)) for each in (source.load, load))
        values += (np.exp(expected) * (expected - actual)).sum(-1).tolist()
    return float(np.mean(values))


@pytest.mark.parametrize("tied", [True, False])
def test_groups_are_found_in_the_order_of_their_use(tied: bool) -> None:
    source = TinySource(tie_word_embeddings=tied)
    groups = find_groups(decoder_config(source.config), source.load)
    first = [tuple(name.removeprefix(LAYER.format(0)) for name in group.names) for group in groups[:4]]
    assert first == [
        tuple(f"self_attn.{part}_proj.weight" for part in "qkv"),
        ("self_attn.o_proj.weight",),
        ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        ("mlp.down_proj.weight",),
    ]
    tables = [group.names for group in groups if group.is_table]
    assert tables == ([(EMBEDDINGS,)] if tied else [(EMBEDDINGS,), (HEAD,)])
    assert sum(group.weights for group in groups) == sum(
        info.shape[0] * info.shape[1] for info in source.tensors if len(info.shape) == 2
    )


@pytest.mark.parametrize("tied", [True, False])
def test_one_run_measures_what_many_would(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    source = TinySource(tie_word_embeddings=tied)
    config = decoder_config(source.config)
    groups = find_groups(config, source.load)
    expected = [mean_kl(source, rounded(source, group)) for group in groups]
    for at_once in (10_000, 50):
        monkeypatch.setattr(sensitivity, "TOKENS_AT_ONCE", at_once)
        costs = sensitivities(config, source.load, IDS, groups, Grid(4), silent)
        assert np.allclose(costs, expected, rtol=1e-3, atol=1e-7)
    assert min(costs) > 1e-4


def some_groups() -> tuple[list[Group], list[float]]:
    rng = np.random.default_rng(4)
    shapes = [(int(rows) * 8, 64) for rows in rng.integers(1, 9, 9)]
    groups = [Group((f"m{number}",), (shape,)) for number, shape in enumerate(shapes)]
    return groups, rng.exponential(0.01, 9).tolist()


def test_a_budget_is_used_about_as_well_as_it_can_be() -> None:
    """The oracle tries every assignment."""
    groups, costs = some_groups()
    budget = int(sum(stored_bytes(group, 4) for group in groups) * 1.4)
    chosen = allocate(groups, costs, budget=budget)
    assert sum(stored_bytes(group, bits) for group, bits in zip(groups, chosen, strict=True)) <= budget
    every = [
        predicted(costs, bits)
        for bits in itertools.product((4, 8), repeat=9)
        if sum(stored_bytes(group, width) for group, width in zip(groups, bits, strict=True)) <= budget
    ]
    assert predicted(costs, chosen) < min(every) + 0.15 * (max(every) - min(every))


@pytest.mark.parametrize("bits", [4.0, 4.5, 6.0, 8.0])
def test_an_average_is_kept(bits: float) -> None:
    groups, costs = some_groups()
    chosen = allocate(groups, costs, bits=bits)
    weights = [group.weights for group in groups]
    average = np.average(chosen, weights=weights)
    assert bits - 4 * max(weights) / sum(weights) < average <= bits


def test_too_small_a_budget_is_refused() -> None:
    groups, costs = some_groups()
    with pytest.raises(InvalidInput, match="at four bits"):
        allocate(groups, costs, budget=100)
