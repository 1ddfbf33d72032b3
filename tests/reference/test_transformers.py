"""The published package against transformers, in float32, on the same weights."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeai.build.validate import compare
from edgeai.engine.config import EngineSettings
from edgeai.engine.model_runner import ModelRunner
from edgeai.model import model_shape
from edgeai.package.package import Package
from edgeai.text import Tokenizer
from tests.fixtures.sources import DATA

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(
        "EDGEAI_REFERENCE_PYTHON" not in os.environ, reason="./scripts/test --reference sets the interpreter"
    ),
]
SCRIPT = Path(__file__).with_name("transformers_logits.py")


def test_logits_agree_with_transformers(
    smollm_package: Package, smollm_gguf: Path, smollm_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Teacher-forced over 768 tokens of held-out text, read in chunks as the engine does."""
    ids = smollm_tokenizer.encode((DATA / "held_out.txt").read_text(encoding="utf-8"))[:768]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    command = [os.environ["EDGEAI_REFERENCE_PYTHON"], str(SCRIPT), str(smollm_gguf)]
    subprocess.run([*command, str(tmp_path / "ids.json"), str(tmp_path / "logits.npy")], check=True, timeout=300)
    runner = ModelRunner(smollm_package.graph, model_shape(smollm_package.manifest), EngineSettings(max_rows=1), 1024)
    logits = np.concatenate([runner.score(0, ids[start : start + 128], start) for start in range(0, len(ids), 128)])
    result = compare(np.load(tmp_path / "logits.npy"), logits, ids)
    print(result)
    assert len(ids) == 768
    assert result.mean_kl < 0.01
    assert result.perplexity == pytest.approx(result.reference_perplexity, rel=0.01)
