"""The graph that reads prompts, for every architecture: it leaves in the cache what the plain graph leaves there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeai.architectures.graph import GraphBuilder, StoredWeights
from edgeai.architectures.prompt_graph import write_prompt_graph
from edgeai.architectures.reference import EMBEDDINGS
from edgeai.architectures.registry import write_graph
from edgeai.build.quantize.rows import nearest_rows
from edgeai.build.validate import GraphRun
from edgeai.sources.weights import Tensor
from tests.architectures.graphs import random_ids
from tests.fixtures.architectures import CASES, Case, RandomCheckpoint

IDS = random_ids(40)


def written(case: Case, folder: Path) -> Path:
    """Both graphs in `folder`; returns that for prompts."""
    weights = RandomCheckpoint(case.decoder)

    def rows(name: str) -> Tensor:
        tensor = weights.load(name)
        matrix = name.endswith("_proj.weight") and ".experts." not in name and name != EMBEDDINGS
        return nearest_rows(tensor) if matrix else tensor

    write_graph(case.config, weights.load, folder / "model.onnx", folder / "weights.bin", context=case.context)
    write_prompt_graph(folder / "model.onnx", case.decoder, rows, folder / "prompt.onnx", folder / "prompt.bin")
    return folder / "prompt.onnx"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_fills_the_cache_as_the_plain_graph_does(case: Case, tmp_path: Path) -> None:
    prompt = written(case, tmp_path)
    found = GraphRun(prompt, case.decoder).cached(IDS)
    expected = GraphRun(tmp_path / "model.onnx", case.decoder).cached(IDS)
    assert found.shape == expected.shape
    assert np.abs(found[0] - expected[0]).max() < 0.03 * np.abs(expected[0]).max()  # one rounding away
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995


def test_what_is_the_same_is_stored_once_and_what_nobody_needs_not_at_all(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.decoder.model_type == "llama")
    graph = onnx.load(written(case, tmp_path), load_external_data=False).graph
    files = {entry.value for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"}
    assert files == {"weights.bin", "prompt.bin"}
    own = [
        tensor.name
        for tensor in graph.initializer
        if any(entry.value == "prompt.bin" for entry in tensor.external_data)
    ]
    config, last = case.decoder, f"layers.{case.decoder.num_layers - 1}."
    assert {name.rpartition(".")[2] for name in own} == {"codes", "scales"}
    assert [name for name in own if last in name and ("mlp" in name or "o_proj" in name)] == []
    hidden, kv, inner = config.hidden_size, config.kv_size, config.intermediate_size
    layer = hidden * (config.query_size + 2 * kv) + hidden * config.query_size + 3 * hidden * inner
    whole = layer * (config.num_layers - 1) + hidden * (config.query_size + 2 * kv)
    assert whole <= (tmp_path / "prompt.bin").stat().st_size < 1.2 * whole
    assert {value.name.partition(".")[0] for value in graph.output} == {"present"}
    assert "logit_index" not in {value.name for value in graph.input}


def test_only_equal_weights_are_shared(tmp_path: Path) -> None:
    values = np.arange(8, dtype=np.float32)
    with GraphBuilder(tmp_path / "weights.bin") as graph:
        graph.weight("a", values)
        graph.weight("empty", values[:0])
        graph.save(tmp_path / "model.onnx", name="first")
    stored = StoredWeights(tmp_path / "model.onnx")
    assert stored.find("a", values) is not None
    assert stored.find("empty", values[:0]) is not None
    assert stored.find("a", values + 1) is None
    assert stored.find("a", values.reshape(2, 4)) is None
    assert stored.find("a", values.view(np.int32)) is None
    assert stored.find("b", values) is None
