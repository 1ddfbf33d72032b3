"""Adapters against PEFT's own: the folder it writes, merged by us and added at run time, gives its logits."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.architectures.registry import write_graph
from edgeai.build.adapters import site_terms
from edgeai.engine.adapters import Adapter
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.model_runner import ModelRunner
from edgeai.package.adapter_sites import read_sites
from edgeai.package.manifest import ADAPTER_GRAPH_NAME, ADAPTER_SITES_NAME
from edgeai.sources.merged import MergedSource
from edgeai.sources.peft import PeftAdapter
from edgeai.sources.safetensors import read_header
from tests.architectures.graphs import Graph, random_ids
from tests.fixtures.tiny import CONFIG, TinySource

pytestmark = pytest.mark.reference

VARIABLE = "EDGEAI_REFERENCE_PYTHON"
SCRIPT = Path(__file__).with_name("peft_logits.py")
IDS = random_ids(90)
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "everything": {"r": 8, "lora_alpha": 16, "target_modules": EVERY},
    "q and v": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "all-linear": {"r": 2, "lora_alpha": 5, "target_modules": "all-linear"},
    "rank-stabilized": {"r": 8, "lora_alpha": 4, "target_modules": EVERY, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": EVERY,
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7},
        "alpha_pattern": {"down_proj": 3, r"layers\.0\.self_attn\.[kv]_proj": 20},
    },
    "one layer": {"r": 4, "lora_alpha": 8, "target_modules": ["o_proj", "gate_proj"], "layers_to_transform": [1]},
}


@pytest.fixture(params=ADAPTERS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What PEFT made of one of `ADAPTERS`."""
    interpreter = os.environ.get(VARIABLE)
    if not interpreter:
        pytest.skip(f"{VARIABLE} does not name a Python with torch, transformers and peft")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "lora.json").write_text(json.dumps(ADAPTERS[request.param]))
    np.save(tmp_path / "ids.npy", np.array(IDS, np.int64))
    arguments = [tmp_path / "config.json", tmp_path / "lora.json", tmp_path / "ids.npy", tmp_path]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [interpreter, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_merged_and_at_run_time(made: Path) -> None:
    base, adapted, merged = (np.load(made / f"{name}.npy") for name in ("base", "adapted", "merged"))
    assert np.abs(adapted - base).max() > 0.5
    tensors = read_header(made / "base" / "model.safetensors")
    source = TinySource(overrides={name: array.floats() for name, array in tensors.items()})
    adapter = PeftAdapter(made / "adapter")
    together = MergedSource(source, adapter)
    (made / "merged").mkdir()
    graph = Graph(together, made / "merged")  # type: ignore[arg-type]
    assert np.abs(graph.steps(IDS, [50, 30, *[1] * 10]) - merged).max() < 1e-3
    runner = at_run_time(source, made)
    sites = read_sites(made / ADAPTER_SITES_NAME)
    ours = Adapter("ours", b"ours", site_terms(adapter, sites, 1.0))
    assert np.abs(runner.score(0, IDS, 0) - base).max() < 1e-3
    assert np.abs(runner.score(0, IDS, 0, ours) - adapted).max() < 1e-3
    runner.prefill(0, IDS[:70], 0, ours)
    steps = [runner.decode([token], [70 + i], [ours])[0].copy() for i, token in enumerate(IDS[70:])]
    assert np.abs(np.stack(steps) - adapted[70:]).max() < 1e-3


def at_run_time(source: TinySource, folder: Path) -> ModelRunner:
    write_graph(source.config, source.load, folder / "model.onnx", folder / "weights.bin")
    shape = ModelShape(vocab_size=96, num_layers=2, num_heads=4, num_kv_heads=2, head_size=16, context_length=512)
    settings = EngineSettings(threads=1, max_rows=1)
    runner = ModelRunner(folder / "model.onnx", shape, settings, 128, folder / ADAPTER_GRAPH_NAME)
    runner.enable_adapters()
    return runner
