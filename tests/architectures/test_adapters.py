"""The graph that takes adapters, for every architecture: what it adds is what merging adds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeai.architectures.registry import reference_logits, write_graph
from edgeai.engine.adapters import Adapter
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.model_runner import ModelRunner
from edgeai.package.adapter_sites import AdapterSite, read_sites
from edgeai.package.manifest import ADAPTER_GRAPH_NAME, ADAPTER_SITES_NAME
from edgeai.sources.weights import FloatTensor, Tensor
from tests.architectures.graphs import random_ids
from tests.fixtures.architectures import CASES, Case, RandomCheckpoint
from tests.fixtures.tiny import TinySource

RANK = 3
Delta = np.ndarray[tuple[int, int], np.dtype[np.float32]]


def random_adapter(sites: tuple[AdapterSite, ...]) -> Adapter:
    rng = np.random.default_rng(0)
    terms = {}
    for number, site in enumerate(sites):
        a = rng.normal(0, site.inputs**-0.5, (site.inputs, RANK)).astype(np.float32)
        terms[number] = (a, rng.normal(0, 0.3, (RANK, sum(site.sizes))).astype(np.float32))
    return Adapter("random", b"random", terms)


def deltas_of(adapter: Adapter, sites: tuple[AdapterSite, ...]) -> Mapping[str, Delta]:
    """What the adapter adds to each matrix of the checkpoint [outputs, inputs]."""
    found = {}
    for number, site in enumerate(sites):
        a, b = adapter.terms[number]
        parts = np.split((a @ b).T, np.cumsum(site.sizes)[:-1])
        found |= {f"{module}.weight": part for module, part in zip(site.modules, parts, strict=True)}
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_adapters_add_what_merging_adds(case: Case, tmp_path: Path) -> None:
    weights, config = RandomCheckpoint(case.decoder), case.decoder
    write_graph(case.config, weights.load, tmp_path / "model.onnx", tmp_path / "weights.bin", context=case.context)
    sites = read_sites(tmp_path / ADAPTER_SITES_NAME)
    adapter = random_adapter(sites)
    deltas = deltas_of(adapter, sites)
    matrices = {name for name in weights.asked if name.endswith("_proj.weight") or "lm_head" in name}
    assert set(deltas) == {name for name in matrices if ".experts." not in name}  # these can only be merged

    def merged(name: str) -> Tensor:
        tensor = weights.load(name)
        return FloatTensor(tensor.dequantize() + deltas[name]) if name in deltas else tensor

    ids = random_ids(60)
    expected = reference_logits(config, merged, ids)
    assert np.abs(expected - reference_logits(config, weights.load, ids)).max() > 0.1
    shape = ModelShape(
        vocab_size=config.vocab_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_size=config.head_size,
        context_length=config.context_length,
    )
    settings = EngineSettings(threads=1, max_rows=2)
    runner = ModelRunner(tmp_path / "model.onnx", shape, settings, 64, tmp_path / ADAPTER_GRAPH_NAME)
    runner.enable_adapters()
    assert np.abs(runner.score(0, ids[:50], 0, adapter) - expected[:50]).max() < 1e-3
    runner.prefill(1, ids[:50], 0)
    both = runner.decode([ids[50], ids[50]], [50, 50], [adapter, None])
    assert np.abs(both[0] - expected[50]).max() < 1e-3
    plain = reference_logits(config, weights.load, ids[:51])[-1]
    assert np.abs(both[1] - plain).max() < 1e-3


def test_it_holds_no_weights_and_the_plain_graph_stays_as_it_is(tmp_path: Path) -> None:
    source = TinySource()
    write_graph(source.config, source.load, tmp_path / "model.onnx", tmp_path / "weights.bin")
    plain = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    adapted = onnx.load(tmp_path / ADAPTER_GRAPH_NAME, load_external_data=False)
    assert list(adapted.graph.initializer) == list(plain.graph.initializer)
    assert not any("adapter" in node.name for node in plain.graph.node)
    assert len(adapted.graph.node) == len(plain.graph.node) + 4 * len(read_sites(tmp_path / ADAPTER_SITES_NAME))
    assert [value.name for value in adapted.graph.output] == [value.name for value in plain.graph.output]


def test_matrices_on_different_grids_are_places_of_their_own(tmp_path: Path) -> None:
    from tests.architectures.graphs import stored

    source = TinySource(overrides={"model.layers.0.self_attn.v_proj.weight": stored("q8_0", (32, 64))})
    write_graph(source.config, source.load, tmp_path / "model.onnx", tmp_path / "weights.bin")
    modules = [site.modules for site in read_sites(tmp_path / ADAPTER_SITES_NAME)]
    assert [[name.split(".")[-1] for name in site] for site in modules[:4]] == [
        ["q_proj"],
        ["k_proj"],
        ["v_proj"],
        ["o_proj"],
    ]
