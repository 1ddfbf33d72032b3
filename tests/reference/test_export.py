"""`edgeai build --exporter optimum` on checkpoints that transformers made, run by the engine of this environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeai.engine.config import EngineSettings
from edgeai.engine.engine import Engine
from edgeai.engine.exported_runner import ExportedRunner
from edgeai.engine.naive import greedy
from edgeai.engine.request import SamplingParams
from edgeai.measure.perplexity import perplexity
from edgeai.model import Model, model_shape
from edgeai.package.package import Package
from tests.architectures.graphs import random_ids
from tests.fixtures.checkpoints import safetensors
from tests.fixtures.sources import DATA, REPOSITORY

pytestmark = pytest.mark.reference

VARIABLE = "EDGEAI_REFERENCE_PYTHON"
SCRIPT = Path(__file__).with_name("tiny_checkpoint.py")
VOCAB = 320
IDS = random_ids(300, vocab=VOCAB)
SETTINGS = EngineSettings(threads=1, max_rows=4, block_tokens=8, chunk_tokens=24, max_context=512)
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def run(*arguments: object) -> Done:
    interpreter = os.environ.get(VARIABLE)
    if not interpreter:
        pytest.skip(f"{VARIABLE} does not name a Python with torch, transformers and optimum")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [interpreter, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    logits: Floats  # transformers', of IDS

    def build(self, out: Path, *options: str) -> Done:
        return run("-m", "edgeai", "build", self.folder, "--exporter", "optimum", "--out", out, *options)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    made: dict[str, Checkpoint] = {}

    def make(family: str) -> Checkpoint:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            np.save(folder / "ids.npy", np.array(IDS, np.int64))
            done = run(SCRIPT, family, folder / family, folder / "ids.npy", folder / "logits.npy")
            assert done.code == 0, done.err
            made[family] = Checkpoint(folder / family, np.load(folder / "logits.npy"))
        return made[family]

    return make


FAMILIES = {"opt": "exported", "bloom": "exported", "stablelm": "exported", "nemotron": "exported-unpadded"}


@pytest.mark.parametrize(("family", "runtime"), FAMILIES.items())
def test_a_float_export_is_the_model(family: str, runtime: str, checkpoint, tmp_path: Path) -> None:
    """Chunks and single tokens against transformers; batched, cached and preempted against the naive loop."""
    source = checkpoint(family)
    done = source.build(tmp_path / "package", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["quality"]["mean_kl"] < 1e-6  # and standard output holds nothing else
    package = Package.open(tmp_path / "package", verify=True)
    assert package.manifest.runtime == runtime
    assert package.manifest.architecture.model_type == family
    assert package.manifest.licence.spdx == "Apache-2.0"
    shape = model_shape(package.manifest)
    runner = ExportedRunner(package.graph, shape, SETTINGS, 512, padded=runtime == "exported")
    parts = [runner.score(0, IDS[:150], 0), runner.score(0, IDS[150:280], 150)]
    parts += [runner.decode([IDS[at]], [at]) for at in range(280, 300)]
    assert source.logits.std() > 0.5
    assert np.abs(np.concatenate(parts) - source.logits).max() < 1e-3
    prompts = [IDS[:5], IDS[:70], IDS[100:130], IDS[:64] + IDS[200:230], IDS[7:9]]
    assert generated(package, prompts, budget=320) == [greedy(runner, prompt, 30) for prompt in prompts]


def generated(package: Package, prompts: list[list[int]], *, budget: int) -> list[list[int]]:
    """What an engine answers to all prompts at once with memory for `budget` tokens."""
    shape = model_shape(package.manifest)
    settings = EngineSettings(
        threads=1, max_rows=4, block_tokens=8, chunk_tokens=24, kv_budget_bytes=budget * shape.token_bytes
    )
    engine = Engine(package.graph, shape, settings)
    outputs: list[list[int]] = [[] for _ in prompts]
    for number, prompt in enumerate(prompts):
        engine.add(str(number), prompt, SamplingParams(max_tokens=30, temperature=0))
    while engine.has_work:
        for request_id, output in engine.step():
            outputs[int(request_id)].append(output.token_id)
    return outputs


@pytest.mark.parametrize(("family", "bits", "limit"), [("opt", 8, 0.02), ("gpt_bigcode", 4, 1.0)])
def test_a_rounded_export_runs_and_says_what_it_lost(family: str, bits: int, limit: float, checkpoint, tmp_path: Path):
    source = checkpoint(family)
    done = source.build(tmp_path / "package", "--bits", str(bits))
    assert done.code == 0, done.err
    assert "slower than edgeai's own architectures" in done.err
    package = Package.open(tmp_path / "package", verify=True)
    assert 0 < package.manifest.quality.mean_kl < limit
    assert package.manifest.quantization.bits_per_weight < 16
    with Model.load(package, SETTINGS) as model:
        answer = list(model.chat([{"role": "user", "content": "The water"}], model.default_params(max_tokens=8)))
        assert answer[-1].finish_reason is not None
        text = (DATA / "held_out.txt").read_text(encoding="utf-8")[:4000]
        assert perplexity(model, text, context=128).tokens > 0


@pytest.mark.parametrize(
    ("family", "message"),
    [("deepseek_v3", "KV cache is not one float array"), ("mamba", "optimum does not export 'mamba'")],
)
def test_what_cannot_be_run_is_refused(family: str, message: str, checkpoint, tmp_path: Path) -> None:
    done = checkpoint(family).build(tmp_path / "package")
    assert done.code == 1
    assert message in done.err
    assert not list(tmp_path.iterdir())


def test_code_of_a_checkpoint_is_never_run(checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "remote"
    folder.mkdir()
    for path in checkpoint("opt").folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "novel", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    done = Checkpoint(folder, np.zeros(0, np.float32)).build(tmp_path / "package")
    assert done.code == 1
    assert "'novel' needs code that comes with the checkpoint" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["remote"]


def test_a_checkpoint_without_one_of_its_tensors(checkpoint, tmp_path: Path) -> None:
    """Transformers would fill it with random numbers, and only warn."""
    source, folder = checkpoint("opt").folder, tmp_path / "incomplete"
    tensors = load_file(source / "model.safetensors")
    del tensors["model.decoder.layers.1.fc1.weight"]
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "model.safetensors").write_bytes(safetensors(tensors))
    done = Checkpoint(folder, np.zeros(0, np.float32)).build(tmp_path / "package")
    assert done.code == 1
    assert "the checkpoint has no model.decoder.layers.1.fc1.weight" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["incomplete"]
