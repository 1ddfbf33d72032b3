"""Error compensation of every architecture: its own graph of the result, against the numpy pass of the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.architectures.registry import reference_logits
from edgeai.build.quantize import scheme
from edgeai.build.quantize.rounding import is_router
from edgeai.build.quantize.scheme import Job, quantized
from edgeai.build.quantize.scratch import Scratch
from edgeai.progress import silent
from edgeai.recipe import QuantizationPlan
from edgeai.sources.weights import BlockTensor
from tests.architectures.graphs import Graph, random_ids
from tests.architectures.test_every_architecture import Checkpoint
from tests.fixtures.architectures import CASES, Case

FILES: Any = None  # no text is read here
Segments = Callable[..., list[list[int]]]


def segments(*_: Any) -> list[list[int]]:
    return [random_ids(50, seed=number) for number in range(6)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_graph_of_a_mixture_equals_the_reference(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheme, "calibration_segments", segments)
    source: Any = Checkpoint(case)
    with Scratch(tmp_path) as scratch:
        plan = QuantizationPlan(scheme="gptq", bits=5.5)
        made = quantized(Job(plan, source, case.decoder, FILES, silent, scratch))
        for name in source.weights.asked:
            if name in made.made:
                tensor = made.load(name)
                assert isinstance(tensor, BlockTensor)
                error = np.square(tensor.dequantize() - source.load(name).dequantize()).mean()
                assert error < 0.2 * np.square(source.load(name).dequantize()).mean()
            else:
                assert name.endswith(("norm.weight", ".bias")) or is_router(name) or source.load(name).shape[1] % 32
        stored: Any = Checkpoint(case)
        stored.load = made.load
        ids = random_ids(50, seed=99)
        wanted = reference_logits(case.decoder, made.load, ids)
        actual = Graph(stored, tmp_path, exact=True).steps(ids, [30, 18, 1, 1])
        tolerance = 0.3 if "moe" in case.name else 5e-3  # experts always round their activations
        assert np.abs(actual - wanted).max() < tolerance * np.abs(wanted).max()
        assert not np.allclose(wanted, reference_logits(case.decoder, source.load, ids), atol=1e-3)
