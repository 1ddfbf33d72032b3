"""Perplexity by llama.cpp's protocol, against plain oracles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import reference_logits
from edgeai.build.validate import log_softmax
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.model_runner import ModelRunner
from edgeai.errors import InvalidInput
from edgeai.measure.perplexity import chunk_losses, perplexity
from edgeai.model import Model
from edgeai.package.package import Package
from edgeai.sources.gguf import GGUFSource
from tests.fixtures.sources import DATA
from tests.fixtures.tiny import TinySource

CONTEXT = 256
TEXT = (DATA / "held_out.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(smollm_package: Package) -> Model:
    return Model.load(smollm_package, EngineSettings(max_rows=1, max_context=1024))


def reference_losses(logits: np.ndarray, ids: list[int]) -> list[float]:
    """The second half of a chunk, written out: position i predicts token i + 1, from the middle on."""
    log_probabilities = log_softmax(logits)
    return [-float(log_probabilities[i, ids[i + 1]]) for i in range(len(ids) // 2, len(ids) - 1)]


@pytest.mark.parametrize("length", [4, 63, 64, 65, 130])
def test_losses_equal_the_plain_protocol(tiny_graph: Path, tiny_shape: ModelShape, length: int) -> None:
    source = TinySource()
    ids = [int(i) for i in np.random.default_rng(length).integers(0, 96, length)]
    runner = ModelRunner(tiny_graph, tiny_shape, EngineSettings(threads=1, max_rows=1), 512)
    losses = chunk_losses(runner, ids)
    np.testing.assert_allclose(
        losses, reference_losses(reference_logits(source.config, source.load, ids), ids), atol=1e-3
    )
    assert not runner.arena.occupied


def test_transcoding_loses_nothing(model: Model, smollm_source: GGUFSource) -> None:
    """Within 1 % of the dequantized float32 weights on the same text."""
    result = perplexity(model, TEXT, context=CONTEXT)
    ids = model.tokenizer.encode(TEXT)
    losses: list[float] = []
    for number in range(result.chunks):
        chunk = ids[number * CONTEXT : (number + 1) * CONTEXT]
        losses += reference_losses(reference_logits(smollm_source.config, smollm_source.load, chunk), chunk)
    assert result.tokens == len(losses) == result.chunks * (CONTEXT // 2 - 1)
    assert result.perplexity == pytest.approx(np.exp(np.mean(losses)), rel=0.01)


def test_refusals(model: Model) -> None:
    with pytest.raises(InvalidInput, match="less than one chunk of 512"):
        perplexity(model, "too short", context=512)
    with pytest.raises(InvalidInput, match="between 4 and 1024"):
        perplexity(model, TEXT, context=2048)
