"""The real package holds its source's weights: the rounding of activations is what separates the two."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest

from edgeai.architectures.registry import decoder_config, reference_logits
from edgeai.build.validate import TEXT, chunked, compare, run_graph
from edgeai.package.package import Package
from edgeai.sources.gguf import GGUFSource
from edgeai.text import Tokenizer
from tests.architectures.graphs import kept


@pytest.fixture
def float_graph(smollm_package: Package, tmp_path: Path) -> Path:
    """The published graph with its products computed in float: MatMulNBits' accuracy level 0."""
    model = onnx.load(str(smollm_package.graph), load_external_data=False)
    changed = 0
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                attribute.i = 0
                changed += 1
    assert changed == 4 * 30 + 1
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    os.link(smollm_package.weights, tmp_path / "weights.bin")
    return tmp_path / "model.onnx"


def test_weights_are_transcoded_exactly(
    float_graph: Path, smollm_source: GGUFSource, smollm_tokenizer: Tokenizer
) -> None:
    ids = smollm_tokenizer.encode(TEXT)[:96]
    logits = run_graph(float_graph, decoder_config(smollm_source.config), ids, chunked(len(ids)))
    kept_logits = reference_logits(smollm_source.config, kept(smollm_source.load), ids)
    result = compare(kept_logits, logits, ids)
    assert result.mean_kl < 1e-9
    assert result.max_difference < 1e-2
    assert result.agreement == 1

    own = reference_logits(smollm_source.config, smollm_source.load, ids)
    rounding = compare(own, kept_logits, ids)  # minimums to eight bits, all else as it is
    assert 0 < rounding.mean_kl < 5e-4  # rounding activations to int8 moves it by 0.003
    assert rounding.agreement == 1
