"""A checkpoint folder of every architecture: built in four bits through the real pipeline, opened, and chatted with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import ARCHITECTURES, decoder_config, reference_logits
from edgeai.build.pipeline import build_package
from edgeai.engine.config import EngineSettings
from edgeai.model import Model
from edgeai.package.package import Package
from tests.fixtures.architectures import CASES, Case, RandomCheckpoint
from tests.fixtures.checkpoints import VOCAB, Checkpoint

# The last case of each: these have the most features.
LAST = {case.architecture: case for case in CASES}


def checkpoint(case: Case) -> Checkpoint:
    config = {**case.config, "vocab_size": VOCAB}
    decoder = decoder_config(config, case.context)
    weights = RandomCheckpoint(decoder)
    reference_logits(decoder, weights.load, [1])  # asks for every tensor
    tensors = {name: weights.load(name).dequantize() for name in sorted(weights.asked)}
    for name in tensors.keys() & {"model.embed_tokens.weight", "lm_head.weight"}:
        tensors[name] = tensors[name] / 4  # logits nearer to each other, as a trained model's
    return Checkpoint(config, tensors)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_whole_way(architecture: str, tmp_path: Path) -> None:
    """The pipeline itself compares the graph with the numpy pass of its weights, and publishes only what agrees."""
    case = LAST[architecture]
    folder = checkpoint(case).write(tmp_path / "checkpoint")
    out, home = tmp_path / "package", tmp_path / "home"
    report = build_package(str(folder), out=out, bits=4, context=case.context, home=home, cache=home)
    package = Package.open(report.package, verify=True)
    assert package.manifest.architecture.model_type == architecture
    assert package.manifest.architecture.context_length == case.decoder.context_length
    assert package.manifest.quantization.tensor_types["RTN4"] > 0
    with Model.load(package, EngineSettings(threads=1, max_rows=2, kv_budget_bytes=1 << 22)) as model:
        reply = model.chat([{"role": "user", "content": "hello world " * 8}], model.default_params(max_tokens=8))
        assert list(reply)
        assert np.isfinite(model.engine.runner.score(0, [1, 2, 3], 0)).all()
