"""Graphs and numpy reference against transformers' own implementation.

EDGEAI_REFERENCE_PYTHON names the interpreter of an environment with edgeai's extra `export` (torch, transformers,
gguf); it cannot be this one, because of what those packages require of each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import decoder_config, reference_logits
from edgeai.build.validate import compare
from edgeai.engine.config import EngineSettings
from edgeai.model import Model
from edgeai.package.package import Package
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.weights import Tensor
from tests.fixtures.architectures import Case
from tests.fixtures.sources import DATA
from tests.reference.architectures import (
    ALL_CASES,
    VARIABLE,
    Floats,
    measure,
    open_case,
    run_transformers,
    write_checkpoints,
)

pytestmark = pytest.mark.reference

CONTEXT = 256
CHUNKS = 3
TOLERANCE = 1e-3
INT8_KL = 0.03  # nats per token; random weights make logits far more sensitive than trained ones


@pytest.fixture(scope="session")
def interpreter() -> str:
    """The other environment's Python."""
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"{VARIABLE} does not name a Python with torch, transformers and gguf")
    return path


@pytest.fixture(scope="session")
def checkpoints(interpreter: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints of every architecture, written by transformers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoints(folder, interpreter)
    return folder


@pytest.fixture
def logits_of(interpreter: str, tmp_path: Path) -> Callable[[str, Path, list[list[int]]], Floats]:
    def run(kind: str, model: Path, ids: list[list[int]]) -> Floats:
        np.save(tmp_path / "ids.npy", np.array(ids, np.int64))
        run_transformers(interpreter, kind, model, tmp_path / "ids.npy", tmp_path / "logits.npy")
        logits: Floats = np.load(tmp_path / "logits.npy")
        return logits

    return run


def test_the_real_package(
    logits_of: Callable[[str, Path, list[list[int]]], Floats],
    smollm_package: Package,
    smollm_gguf: Path,
    smollm_source: GGUFSource,
) -> None:
    """Teacher-forced over held-out text, as the engine computes it."""
    text = (DATA / "held_out.txt").read_text(encoding="utf-8")
    with Model.load(smollm_package, EngineSettings(max_rows=1, max_context=CONTEXT)) as model:
        ids = model.encode_text(text)[: CHUNKS * CONTEXT]
        chunks = [ids[at : at + CONTEXT] for at in range(0, len(ids), CONTEXT)]
        ours = [model.engine.runner.score(0, chunk, 0).copy() for chunk in chunks]
    assert [len(chunk) for chunk in chunks] == [CONTEXT] * CHUNKS
    divergences = []
    for chunk, logits, theirs in zip(chunks, ours, logits_of("gguf", smollm_gguf, chunks), strict=True):
        comparison = compare(theirs, logits, chunk)
        divergences.append(comparison.mean_kl)
        assert comparison.agreement > 0.9
        assert comparison.perplexity == pytest.approx(comparison.reference_perplexity, rel=0.03)
    assert np.mean(divergences) < 0.01
    plain = reference_logits(smollm_source.config, smollm_source.load, chunks[-1])
    assert np.abs(plain - theirs).max() < 1e-2  # the numpy oracle is the same model, in float32
    assert compare(theirs, plain, chunks[-1]).mean_kl < 1e-6


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.name)
def test_a_tiny_checkpoint_of_their_making(case: Case, checkpoints: Path, tmp_path: Path) -> None:
    """Numpy and float32 graph equal transformers; with int4 weights the engine equals the numpy pass of these."""
    outcome = measure(case, checkpoints, tmp_path)
    assert outcome.spread > 0.5
    assert outcome.numpy < TOLERANCE
    assert outcome.prefill < TOLERANCE
    assert outcome.chunked < TOLERANCE
    assert outcome.decode < TOLERANCE
    assert outcome.quantized_kl < INT8_KL


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.name)
def test_every_tensor_of_theirs_is_read(case: Case, checkpoints: Path) -> None:
    source, asked = open_case(case, checkpoints), set()

    def load(name: str) -> Tensor:
        asked.add(name)
        return source.load(name)

    reference_logits(decoder_config(source.config), load, [1, 2, 3])
    assert asked == {info.name for info in source.tensors}
