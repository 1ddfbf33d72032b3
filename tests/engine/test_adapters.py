from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import reference_logits
from edgeai.engine.adapters import Adapter, AdapterBank, Site, distinct
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine
from edgeai.engine.model_runner import ModelRunner
from edgeai.engine.request import SamplingParams
from edgeai.errors import InvalidInput, PackageError
from edgeai.package.manifest import ADAPTER_GRAPH_NAME
from edgeai.sources.weights import FloatTensor
from tests.fixtures.peft import tiny_adapter
from tests.fixtures.tiny import TinySource

SETTINGS = EngineSettings(threads=1, max_rows=4, block_tokens=8, chunk_tokens=24, kv_budget_bytes=1 << 22)
ONE, TWO, FEW = (
    tiny_adapter("one", seed=1),
    tiny_adapter("two", seed=2, rank=3),
    tiny_adapter("few", seed=3, sites=[1, 6]),
)
IDS = list(range(3, 60))
# The matrices of each place, stacked: q, k, v; o; gate, up; down.
STACKS = [("self_attn", "qkv"), ("self_attn", "o"), ("mlp", ("gate", "up")), ("mlp", ("down",))]


@pytest.fixture
def runner(tiny_graph: Path, tiny_shape: ModelShape) -> ModelRunner:
    return ModelRunner(tiny_graph, tiny_shape, SETTINGS, 512, tiny_graph.with_name(ADAPTER_GRAPH_NAME))


def merged(adapter: Adapter) -> TinySource:
    """The tiny model with an adapter multiplied out, which has nothing in common with the code that is tested."""
    source = TinySource()
    overrides = {}
    for site, (a, b) in adapter.terms.items():
        layer, place = divmod(site, 4)
        block, parts = STACKS[place]
        delta, row = (a @ b).T, 0
        for part in parts:
            name = f"model.layers.{layer}.{block}.{part}_proj.weight"
            values = source.load(name).dequantize()
            overrides[name] = FloatTensor(values + delta[row : row + len(values)])
            row += len(values)
        assert row == len(delta)
    return TinySource(overrides=overrides)


@pytest.mark.parametrize("adapter", [ONE, TWO, FEW], ids=lambda adapter: adapter.name)
def test_logits_are_those_of_the_merged_weights(runner: ModelRunner, adapter: Adapter) -> None:
    source = merged(adapter)
    expected = reference_logits(source.config, source.load, IDS)
    plain = runner.score(0, IDS, 0).copy()
    runner.enable_adapters()
    assert np.abs(runner.score(0, IDS, 0, adapter) - expected).max() < 1e-3
    assert np.abs(plain - expected).max() > 1  # it makes a difference
    runner.prefill(0, IDS[:30], 0, adapter)
    steps = [runner.decode([token], [30 + i], [adapter])[0].copy() for i, token in enumerate(IDS[30:])]
    assert np.abs(np.stack(steps) - expected[30:]).max() < 1e-3


def test_rows_of_one_run_have_adapters_of_their_own(runner: ModelRunner) -> None:
    rows: list[Adapter | None] = [ONE, None, FEW, TWO]
    runner.enable_adapters()
    for slot, adapter in enumerate(rows):
        runner.prefill(slot, IDS[slot:40], 0, adapter)
    together = runner.decode([9] * 4, [40 - slot for slot in range(4)], rows).copy()
    for slot, adapter in enumerate(rows):
        source = TinySource() if adapter is None else merged(adapter)
        expected = reference_logits(source.config, source.load, [*IDS[slot:40], 9])[-1]
        assert np.abs(together[slot] - expected).max() < 1e-3


def test_drafts_of_rows_with_different_adapters_are_verified_in_one_run(runner: ModelRunner) -> None:
    rows: list[Adapter | None] = [ONE, None, FEW]
    runner.enable_adapters()
    for drafts in ([[4, 5, 6], [7], [8, 9]], [[4], [7, 3, 1], [8]], [[4, 4]] * 3):
        for slot, adapter in enumerate(rows):
            runner.prefill(slot, IDS[slot:40], 0, adapter)
        logits = runner.verify(drafts, [40 - slot for slot in range(3)], rows)
        for slot, adapter in enumerate(rows):
            source = TinySource() if adapter is None else merged(adapter)
            tokens = [*IDS[slot:40], *drafts[slot]]
            expected = reference_logits(source.config, source.load, tokens)[-len(drafts[slot]) :]
            assert np.abs(logits[slot] - expected).max() < 1e-3


def test_without_an_adapter_nothing_changes(runner: ModelRunner, tiny_graph: Path, tiny_shape: ModelShape) -> None:
    """To the bit: a term of no columns is zero."""
    plain = ModelRunner(tiny_graph, tiny_shape, SETTINGS, 512)
    runner.enable_adapters()
    for each in (plain, runner):
        each.prefill(0, IDS, 0)
    assert np.array_equal(plain.decode([5], [len(IDS)]), runner.decode([5], [len(IDS)]))


def test_changing_over_keeps_the_cache(runner: ModelRunner) -> None:
    logits = runner.prefill(0, IDS, 0).copy()
    before = runner.decode([7], [len(IDS)]).copy()
    runner.enable_adapters()
    assert np.array_equal(runner.decode([7], [len(IDS)]), before)
    runner.enable_adapters()  # once is enough
    assert np.array_equal(runner.prefill(0, IDS, 0), logits)


def test_a_model_without_the_graph_takes_no_adapters(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    engine = Engine(tiny_graph, tiny_shape, SETTINGS)
    with pytest.raises(InvalidInput, match="takes no adapters"):
        engine.add("1", IDS, SamplingParams(), ONE)
    assert not engine.has_work


def test_a_damaged_graph_fails_one_request_and_no_other(
    tiny_graph: Path, tiny_shape: ModelShape, tmp_path: Path
) -> None:
    broken = tmp_path / ADAPTER_GRAPH_NAME
    broken.write_bytes(b"not a graph")
    engine = Engine(tiny_graph, tiny_shape, SETTINGS, adapter_graph=broken)
    engine.add("base", IDS, SamplingParams(max_tokens=5, temperature=0, ignore_eos=True))
    tokens = len(engine.step())
    with pytest.raises(PackageError):
        engine.add("adapted", IDS, SamplingParams(), ONE)
    while engine.has_work:
        tokens += len(engine.step())
    assert tokens == 5


def answer(engine: Engine, adapter: Adapter | None) -> tuple[list[int], int]:
    """Greedy tokens, and how many of the prompt's came from the prefix cache."""
    engine.add("1", IDS, SamplingParams(max_tokens=20, temperature=0, ignore_eos=True), adapter)
    outputs = []
    while engine.has_work:
        outputs += [output for _, output in engine.step()]
    return [output.token_id for output in outputs], outputs[0].cached_tokens


def test_the_prefix_cache_tells_adapters_apart(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    engine = Engine(tiny_graph, tiny_shape, SETTINGS, adapter_graph=tiny_graph.with_name(ADAPTER_GRAPH_NAME))
    first = [answer(engine, adapter) for adapter in (None, ONE, TWO)]
    again = [answer(engine, adapter) for adapter in (None, ONE, TWO)]
    assert [cached for _, cached in first] == [0, 0, 0]
    assert [cached for _, cached in again] == [56, 56, 56]
    assert [tokens for tokens, _ in again] == [tokens for tokens, _ in first]
    assert len({tuple(tokens) for tokens, _ in first}) == 3


def test_no_more_adapters_at_once_than_allowed(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    settings = replace(SETTINGS, max_adapters=2, kv_budget_bytes=1 << 24)
    engine = Engine(tiny_graph, tiny_shape, settings, adapter_graph=tiny_graph.with_name(ADAPTER_GRAPH_NAME))
    for i, adapter in enumerate((ONE, TWO, FEW, None)):
        engine.add(str(i), IDS[i:], SamplingParams(max_tokens=10 + i, temperature=0, ignore_eos=True), adapter)
    most, done = 0, 0
    while engine.has_work:
        done += len(engine.step())
        most = max(most, len(distinct([sequence.adapter for sequence in engine.scheduler.running])))
    assert most == 2
    assert done == 10 + 11 + 12 + 13


def test_requests_for_the_base_do_not_wait_behind_one_for_an_adapter(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    settings = replace(SETTINGS, max_adapters=1, kv_budget_bytes=1 << 24)
    engine = Engine(tiny_graph, tiny_shape, settings, adapter_graph=tiny_graph.with_name(ADAPTER_GRAPH_NAME))
    params = SamplingParams(max_tokens=60, temperature=0, ignore_eos=True)
    for name, adapter in (("one", ONE), ("two", TWO), ("again", ONE), ("base", None)):
        engine.add(name, IDS, params, adapter)
    ended = []
    while engine.has_work:
        ended += [name for name, output in engine.step() if output.finish_reason is not None]
    assert ended == ["one", "base", "two", "again"]  # and nothing overtakes with an adapter


class TestBank:
    SITES = (Site(0, 64, 128, by_position=False), Site(1, 64, 64, by_position=False))

    def bank(self, *adapters: Adapter) -> AdapterBank:
        return AdapterBank(adapters, self.SITES)

    def test_one_adapter_is_not_copied(self) -> None:
        assert self.bank(ONE).terms[0] is ONE.terms[0]

    def test_an_adapter_without_a_place_has_no_columns_there(self) -> None:
        bank = self.bank(ONE, FEW)
        assert bank.layouts == [(4, 0), (4, 4)]
        assert bank.terms[0][0].shape == (64, 4)
        assert bank.terms[1][1].shape == (8, 64)

    @pytest.mark.parametrize(
        ("held", "rows", "suits"),
        [
            ([], [None], True),
            ([], [ONE], False),
            ([ONE], [ONE, None, ONE], True),
            ([ONE], [None], False),  # base rows alone need not pay for it
            ([ONE, TWO], [TWO, ONE], True),
            ([ONE, TWO, FEW], [TWO, ONE], True),  # copying again would cost more
            ([ONE, TWO], [TWO], False),
            ([ONE, TWO], [TWO, FEW], False),
        ],
    )
    def test_it_is_replaced_when_another_is_cheaper(self, held, rows, suits: bool) -> None:
        assert self.bank(*held).suits(rows) is suits

    def test_masks_have_ones_where_a_rows_adapter_is(self) -> None:
        bank = self.bank(ONE, TWO)
        mask = np.full((3, 7), 9, np.float32)
        bank.write_mask(mask, bank.layouts[0], [TWO, None, ONE])
        assert mask.astype(int).tolist() == [[0] * 4 + [1] * 3, [0] * 7, [1] * 4 + [0] * 3]


def test_the_bank_is_made_once_for_one_company(runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steady decoding copies nothing."""
    runner.enable_adapters()
    made: list[int] = []
    original: Callable[..., AdapterBank] = AdapterBank.replaced
    monkeypatch.setattr(AdapterBank, "replaced", lambda bank, rows: made.append(len(rows)) or original(bank, rows))
    for i in range(5):
        runner.decode([5, 6], [i, i], [ONE, TWO])
    assert made == [2]
