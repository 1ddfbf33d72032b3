"""Which linear layers of an encoder are computed more precisely than with one scale per row: those that hurt most.

Each layer is quantized alone and its harm measured: what the vectors lose, per weight of the layer. Then the most
harmful ones are kept precise, a few more at a time, until the vectors are near enough to the float model's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures.encoder_int8 import FloatGraph
from edgeai.encoder.encoder import EncoderGraph
from edgeai.encoder.tokens import Tokens
from edgeai.progress import Progress

__all__ = ["Agreement", "agreement", "choose_precise", "near"]

Floats = NDArray[np.float32]
Compute = Callable[[EncoderGraph, Sequence[Tokens]], Floats]

GOAL_MEAN, GOAL_MIN = 0.9985, 0.994  # cosine that is worth precise layers: about what MatMulNBits everywhere gives
STEPS = 12  # of how many at a time
MOST = 0.5  # of all layers
PROBE = "probe.onnx"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near results are to the float model's: cosines of vectors, correlation of logits."""

    mean: float
    least: float

    @property
    def good(self) -> bool:
        return self.mean >= GOAL_MEAN and self.least >= GOAL_MIN


def agreement(results: Floats, reference: Floats) -> Agreement:
    """Compare vectors [texts, width] one by one, or logits [texts, 1] as a whole."""
    if reference.shape[1] == 1:
        correlation = _correlation(results[:, 0], reference[:, 0])
        return Agreement(correlation, correlation)
    lengths = np.linalg.norm(results, axis=1) * np.linalg.norm(reference, axis=1)
    cosines = (results * reference).sum(axis=1) / np.maximum(lengths, 1e-12)
    return Agreement(float(cosines.mean()), float(cosines.min()))


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum() / length) if length > 0 else 0.0


def near(value: float) -> float:
    """A cosine as manifests give it: rounded down, so that nothing is said to be better than it is."""
    return math.floor(value * 1e5) / 1e5


def choose_precise(
    graph: FloatGraph, sequences: Sequence[Tokens], few: int, reference: Floats, compute: Compute, progress: Progress
) -> tuple[str, ...]:
    """Names of the layers to keep precise; the harm of each is measured on the first `few` sequences."""
    probe = graph.path.with_name(PROBE)

    def measured(int8: Sequence[str], precise: Sequence[str], count: int, *, tables: bool) -> Agreement:
        graph.write_probe(probe, int8, precise, tables=tables)
        return agreement(compute(EncoderGraph(probe), sequences[:count]), reference[:count])

    def whole(precise: Sequence[str]) -> Agreement:
        int8 = [name for name in graph.linears if name not in precise]
        return measured(int8, precise, len(sequences), tables=True)

    if whole(()).good:
        return ()
    harms = []
    for number, (name, shape) in enumerate(graph.linears.items()):
        progress("looking for layers that need precision", number, len(graph.linears))
        loss = 1 - measured([name], (), few, tables=False).mean
        harms.append((loss / math.prod(shape), name))
    ranked = [name for _, name in sorted(harms, reverse=True)]
    step = max(1, math.ceil(len(ranked) / STEPS))
    counts = range(step, int(len(ranked) * MOST) + 1, step)
    chosen: list[str] = []
    for count in counts:
        chosen = ranked[:count]
        if whole(chosen).good:
            break
    return tuple(name for name in graph.linears if name in chosen)
