"""Graphs and numpy reference against transformers' own implementation.

EDGEAI_REFERENCE_PYTHON names the interpreter of an environment with edgeai's extra `export` (torch, transformers,
gguf); it cannot be this one, because of what those packages require of each other.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.architectures.registry import reference_logits
from edgeai.build.validate import compare
from edgeai.engine.config import EngineSettings
from edgeai.model import Model
from edgeai.package.package import Package
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.weights import FloatTensor
from tests.architectures.graphs import Graph, random_ids
from tests.fixtures.sources import DATA
from tests.fixtures.tiny import CONFIG, TinySource

pytestmark = pytest.mark.reference

VARIABLE = "EDGEAI_REFERENCE_PYTHON"
SCRIPT = Path(__file__).with_name("transformers_logits.py")
CONTEXT = 256
CHUNKS = 3
Floats = np.ndarray[Any, np.dtype[np.float32]]
Run = Callable[..., None]


@pytest.fixture(scope="session")
def transformers() -> Run:
    """Runs the script in the other environment."""
    interpreter = os.environ.get(VARIABLE)
    if not interpreter:
        pytest.skip(f"{VARIABLE} does not name a Python with torch, transformers and gguf")

    def run(*arguments: object) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        command = [interpreter, str(SCRIPT), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def logits_of(transformers: Run, tmp_path: Path) -> Callable[[str, Path, list[int]], Floats]:
    def run(kind: str, model: Path, ids: list[int]) -> Floats:
        np.save(tmp_path / "ids.npy", np.array(ids, np.int64))
        transformers(kind, model, tmp_path / "ids.npy", tmp_path / "logits.npy")
        logits: Floats = np.load(tmp_path / "logits.npy")
        return logits

    return run


def test_the_real_package(
    logits_of: Callable[[str, Path, list[int]], Floats],
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
    for chunk, logits in zip(chunks, ours, strict=True):
        theirs = logits_of("gguf", smollm_gguf, chunk)
        comparison = compare(theirs, logits, chunk)
        divergences.append(comparison.mean_kl)
        assert comparison.agreement > 0.9
        assert comparison.perplexity == pytest.approx(comparison.reference_perplexity, rel=0.03)
    assert np.mean(divergences) < 0.01
    plain = reference_logits(smollm_source.config, smollm_source.load, chunks[-1])
    assert np.abs(plain - theirs).max() < 1e-2  # the numpy oracle is the same model, in float32
    assert compare(theirs, plain, chunks[-1]).mean_kl < 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False, "rope_theta": 100000.0},
        {"num_key_value_heads": 4},
        {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64},
    ],
    ids=str,
)
def test_a_tiny_checkpoint_of_their_making(transformers: Run, logits_of, changes: dict[str, Any], tmp_path: Path):
    config = {**CONFIG, **changes}
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    checkpoint = tmp_path / "checkpoint"
    transformers("tiny", checkpoint, tmp_path / "tiny.json")
    overrides = {name: FloatTensor(values) for name, values in read_safetensors(checkpoint).items()}
    source = TinySource(overrides=overrides, **changes)
    assert set(overrides) == {info.name for info in source.tensors}
    ids = random_ids(100)
    theirs = logits_of("folder", checkpoint, ids)
    assert theirs.std() > 1
    assert np.abs(reference_logits(source.config, source.load, ids) - theirs).max() < 1e-3
    assert np.abs(Graph(source, tmp_path).steps(ids, [60, 30, *[1] * 10]) - theirs).max() < 1e-3


def read_safetensors(folder: Path) -> dict[str, Floats]:
    """Float32 tensors of model.safetensors: a length, a JSON header, data."""
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32"
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[start:stop], np.float32).reshape(entry["shape"])
    return tensors
