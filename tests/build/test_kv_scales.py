"""An int8 KV cache: its graph beside the float one, and the scales that it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import decoder_config, write_graph
from edgeai.build.kv_scales import kv_scales, write_int8_caches
from edgeai.build.validate import GraphRun, compare
from edgeai.package.manifest import INT8_ADAPTER_GRAPH_NAME, INT8_GRAPH_NAME
from tests.architectures.graphs import random_ids
from tests.fixtures.architectures import CASES, Case, RandomCheckpoint
from tests.fixtures.tiny import TinySource

CALIBRATION = [random_ids(120, seed=seed) for seed in range(3)]
IDS = random_ids(50, seed=9)
STEPS = [30, 18, 1, 1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_int8_cache_changes_little(case: Case, tmp_path: Path) -> None:
    """For every architecture: keys and values to 8 bits, else the same graph over the same weights."""
    source = RandomCheckpoint(case.decoder)
    graph = tmp_path / "model.onnx"
    config = write_graph(case.config, source.load, graph, tmp_path / "weights.bin")
    write_int8_caches(graph, config, [ids[: config.context_length] for ids in CALIBRATION])
    floats = GraphRun(graph, config)
    int8 = GraphRun(tmp_path / INT8_GRAPH_NAME, config)
    result = compare(floats.logits(IDS, STEPS), int8.logits(IDS, STEPS), IDS)
    assert 0 < result.mean_kl < 0.05  # random weights make logits far more sensitive than trained ones
    assert (tmp_path / INT8_ADAPTER_GRAPH_NAME).is_file()

    scales = kv_scales(graph, config, CALIBRATION)
    whole, codes = floats.cached(IDS), int8.cached(IDS)
    assert codes.dtype == np.int8
    step = scales[0, :, :, None].astype(np.float32)  # of the first layer, which reads the same in both
    reached = np.abs(whole[0]) <= 127 * step
    assert reached.mean() > 0.99
    assert (np.abs(codes[0] * step - whole[0]) <= 0.51 * step)[reached].all()


def test_an_int8_cache_does_not_depend_on_chunks(repetitive_graph: Path) -> None:
    config = decoder_config(TinySource(layer_scale=0.5, tie_word_embeddings=False).config)
    run = GraphRun(repetitive_graph.with_name(INT8_GRAPH_NAME), config)
    whole, pieces = run.logits(IDS, [50]), run.logits(IDS, STEPS)
    assert np.abs(whole - pieces).max() < 1e-3 * np.abs(whole).max()
