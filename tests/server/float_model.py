"""A real model of a few hundred kilobytes: float weights, random, so that its answers do not depend on what is batched.

Its text is nonsense with plenty of bytes that are no characters, which is what streams have to get right.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeai.build.pipeline import build_package
from edgeai.package.package import Package
from tests.fixtures.gguf_files import Entry, tiny_llama

CONTEXT = 1024


def float_package(folder: Path, name: str = "tiny", *, seed: int = 0) -> Package:
    """Build it into `folder`; other seeds give other answers."""
    model = tiny_llama("F32")
    model.metadata["llama.context_length"] = CONTEXT
    model.metadata["general.name"] = name
    model.tensors = [_decisive(entry, seed) for entry in model.tensors]
    source = folder / f"{name}.gguf"
    source.write_bytes(model.to_bytes())
    report = build_package(str(source), out=folder / name, home=folder / "home", cache=folder / "cache")
    return Package.open(report.package)


def _decisive(entry: Entry, seed: int) -> Entry:
    """Weights large enough that logits are far apart: near-ties would be decided by rounding."""
    rng = np.random.default_rng(sum(entry.name.encode()) + seed)
    if len(entry.shape) == 1:
        values = rng.uniform(0.8, 1.2, entry.shape)
    else:
        values = rng.normal(0, 1.0 if "embd" in entry.name else 2.0 / entry.shape[1] ** 0.5, entry.shape)
    return Entry(entry.name, entry.shape, "F32", values.astype(np.float32).tobytes())
