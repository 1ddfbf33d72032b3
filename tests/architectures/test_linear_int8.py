"""Integer products with one scale for each row: against plain numpy, and row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.linear_int8 import Int8LinearBuilder, has_row_scales, row_scales, signed
from edgeai.architectures.registry import reference_logits, write_graph
from edgeai.build.quantize.rows import nearest_rows
from edgeai.build.validate import GraphRun, compare
from edgeai.sources.weights import FloatTensor, Tensor
from tests.architectures.graphs import random_ids, stored
from tests.fixtures.tiny import TinySource, tensor_shapes

IDS = random_ids(60)
STEPS = [40, 17, 1, 1, 1]
SCALED = np.linspace(0.5, 2, 64, dtype=np.float32)  # factors of columns


def by_rows(source: TinySource) -> dict[str, Tensor]:
    """All matrices of a source in 8 bits by row; those that read the hidden state have their columns balanced."""
    matrices = {name: shape for name, shape in tensor_shapes(source.config).items() if len(shape) == 2}
    factors = {name: SCALED if shape[1] == 64 else None for name, shape in matrices.items()}
    return {name: nearest_rows(source.load(name), factors[name]) for name in matrices}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_graph_is_near_its_own_weights(tied: bool, tmp_path: Path) -> None:
    plain = TinySource(tie_word_embeddings=tied)
    source = TinySource(tie_word_embeddings=tied, overrides=by_rows(plain))
    graph = tmp_path / "model.onnx"
    config = write_graph(source.config, source.load, graph, tmp_path / "weights.bin", linear=Int8LinearBuilder)
    logits = GraphRun(graph, config).logits(IDS, STEPS)
    own = compare(reference_logits(source.config, source.load, IDS), logits, IDS)
    assert 0 < own.mean_kl < 0.05  # activations are rounded; random weights are far more sensitive than trained ones
    assert compare(reference_logits(plain.config, plain.load, IDS), logits, IDS).mean_kl < 0.1


def test_an_answer_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    """Every token has a scale of its own: with one for all of them, a loud neighbour would drown the others."""
    source = TinySource(overrides=by_rows(TinySource()))
    graph = tmp_path / "model.onnx"
    config = write_graph(source.config, source.load, graph, tmp_path / "weights.bin", linear=Int8LinearBuilder)
    run = GraphRun(graph, config)
    together = run.logits(IDS, [len(IDS)])
    alone = run.logits(IDS, [1] * len(IDS))
    assert np.abs(together - alone).max() < 1e-3 * np.abs(alone).max()


def test_codes_and_scales_are_the_matrix() -> None:
    values = np.random.default_rng(0).standard_normal((7, 48)).astype(np.float32)
    tensor = nearest_rows(FloatTensor(values))
    assert has_row_scales(tensor)
    assert signed(tensor).dtype == np.int8
    rebuilt = signed(tensor) * row_scales(tensor)[:, None]
    assert np.allclose(rebuilt, tensor.dequantize(), rtol=1e-6)
    assert np.abs(rebuilt - values).max() <= 0.51 * row_scales(tensor).max()


@pytest.mark.parametrize("form", ["float32", "q4_0", "q8_0", "8-bit affine"])
def test_other_grids_are_left_to_blocks(form: str) -> None:
    assert not has_row_scales(stored(form, (8, 64)))
