"""Every architecture against transformers: tiny checkpoints of its making, and how far edgeai's graphs are from it.

As a program (`./scripts/check_architectures`) it prints the table in docs/models.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeai.architectures.registry import reference_logits, write_graph
from edgeai.build.quantize.rounding import quantize
from edgeai.build.validate import compare, run_graph
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.model_runner import ModelRunner
from edgeai.sources.folder import FolderSource
from edgeai.sources.weights import Tensor
from tests.architectures.graphs import random_ids
from tests.fixtures.architectures import CASES, VISION, Case

VARIABLE = "EDGEAI_REFERENCE_PYTHON"
SCRIPT = Path(__file__).with_name("transformers_logits.py")
TOKENS = 100
STEPS = {"prefill": [TOKENS], "chunked": [37, 1, 40, 22], "decode": [40, *[1] * 60]}
Floats = np.ndarray[Any, np.dtype[np.float32]]

# A Gemma 3 checkpoint with a vision part holds the same language model as the first gemma3_text case.
TEXT_CASE = next(case for case in CASES if case.architecture == "gemma3_text")
WITH_VISION = Case(
    "gemma3_text",
    "of a vision model",
    {"model_type": "gemma3", "text_config": dict(TEXT_CASE.theirs), "vision_config": VISION, "mm_tokens_per_image": 4},
)
ALL_CASES = [*CASES, WITH_VISION]


@dataclass(frozen=True)
class Outcome:
    """Largest differences of logits to transformers', and how near the engine is to its own int4 weights."""

    spread: float  # standard deviation of transformers' logits
    numpy: float
    prefill: float
    chunked: float
    decode: float
    quantized_kl: float  # mean nats per token between the engine and the numpy pass of its own stored weights


def run_transformers(interpreter: str, *arguments: object) -> None:
    """Run the script in the environment that has torch."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1"}
    command = [interpreter, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    if done.returncode:
        raise RuntimeError(done.stderr)


def write_checkpoints(folder: Path, interpreter: str) -> None:
    """A checkpoint and logits of transformers' for every case, in one process: torch takes seconds to start."""
    np.save(folder / "ids.npy", np.array(random_ids(TOKENS), np.int64))
    for case in ALL_CASES:
        (folder / case.name).mkdir()
        (folder / case.name / "theirs.json").write_text(json.dumps(case.theirs))
    run_transformers(interpreter, "batch", folder)


def open_case(case: Case, folder: Path) -> FolderSource:
    """The checkpoint of a case, with the configuration as transformers saved it, which leaves defaults out."""
    checkpoint = folder / case.name / "checkpoint"
    if case.ours is not None:
        (checkpoint / "config.json").write_text(json.dumps(case.ours))
    return FolderSource(checkpoint)


def measure(case: Case, folder: Path, scratch: Path) -> Outcome:
    """Compare one case; graphs go to `scratch`."""
    source, ids = open_case(case, folder), np.load(folder / "ids.npy").tolist()
    theirs: Floats = np.load(folder / case.name / "logits.npy")
    graph, weights = scratch / "model.onnx", scratch / "weights.bin"
    config = write_graph(source.config, source.load, graph, weights, context=case.context)
    ways = {way: far(run_graph(graph, config, ids, steps), theirs) for way, steps in STEPS.items()}
    plain = reference_logits(config, source.load, ids)

    def stored(name: str) -> Tensor:
        return quantize(name, source.load(name), 4)

    write_graph(source.config, stored, graph, weights, context=case.context)
    shape = ModelShape(
        config.vocab_size,
        config.num_layers,
        config.num_heads,
        config.num_kv_heads,
        config.head_size,
        config.context_length,
    )
    runner = ModelRunner(graph, shape, EngineSettings(max_rows=1, threads=1), config.context_length)
    parts = [runner.score(0, ids[:70], 0), *(runner.decode([ids[at]], [at]).copy() for at in range(70, len(ids)))]
    quantized = compare(reference_logits(config, stored, ids), np.concatenate(parts), ids)
    return Outcome(
        spread=float(theirs.std()),
        numpy=far(plain, theirs),
        **ways,
        quantized_kl=quantized.mean_kl,
    )


def far(ours: Floats, theirs: Floats) -> float:
    return float(np.abs(ours - theirs).max())


def main() -> None:
    interpreter = os.environ.get(VARIABLE)
    if not interpreter:
        sys.exit(
            f"{VARIABLE} does not name a Python with torch and transformers; ./scripts/check_architectures sets it up"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoints(folder, interpreter)
        print("| architecture | variant | numpy | prefill | chunked | decode | logit std | int4 KL |")
        print("|---|---|---|---|---|---|---|---|")
        for case in ALL_CASES:
            got = measure(case, folder, folder)
            differences = " | ".join(f"{value:.0e}" for value in (got.numpy, got.prefill, got.chunked, got.decode))
            print(
                f"| {case.architecture} | {case.variant} | {differences} | {got.spread:.1f} | {got.quantized_kl:.1e} |"
            )


if __name__ == "__main__":
    main()
