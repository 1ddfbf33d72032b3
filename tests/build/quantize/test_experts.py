"""Mixtures of experts through every quantizer: experts see fewer tokens, some none, and share one width per layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import run_reference
from edgeai.build.pipeline import build_package
from edgeai.build.quantize.grid import Grid
from edgeai.build.quantize.groups import find_groups
from edgeai.build.quantize.sequential import QuantizingDecoder
from edgeai.package.package import Package
from edgeai.progress import silent
from edgeai.recipe import QuantizationPlan
from edgeai.sources.weights import BlockTensor
from tests.architectures.graphs import random_ids
from tests.build.test_every_architecture import checkpoint
from tests.fixtures.architectures import CASES, RandomCheckpoint

MIXED = [case for case in CASES if case.architecture == "qwen3_moe"]


@pytest.mark.parametrize("case", MIXED, ids=lambda case: case.name)
def test_experts_of_a_layer_are_one_group(case) -> None:
    groups = find_groups(case.decoder, RandomCheckpoint(case.decoder).load)
    experts = [group for group in groups if any(".experts." in name for name in group.names)]
    sparse = [layer.mixture for layer in case.decoder.layers if layer.mixture is not None]
    assert [len(group.names) for group in experts] == [3 * mixture.num_experts for mixture in sparse]
    assert all(".experts." in name for group in experts for name in group.names)
    assert len({name for group in groups for name in group.names}) == sum(len(group.names) for group in groups)


@pytest.mark.parametrize("tokens", [3, 40])
def test_error_compensation_with_experts_that_see_little(tokens: int) -> None:
    """With three tokens some experts are never chosen: they are rounded all the same."""
    case = MIXED[0]
    kept: dict[str, BlockTensor] = {}
    load = RandomCheckpoint(case.decoder).load
    decoder = QuantizingDecoder(
        case.decoder,
        load,
        [random_ids(tokens)],
        choose=lambda name: Grid(8, 32),
        keep=kept.__setitem__,
        progress=silent,
    )
    run_reference(decoder)
    names = {name for name in kept if ".experts." in name}
    assert len(names) == 2 * 3 * 8
    for name in names:
        assert np.abs(kept[name].dequantize() - load(name).dequantize()).max() < 0.2
    halves = np.split(decoder.hidden, 2)
    assert np.abs(halves[0] - halves[1]).max() < 0.2 * np.abs(halves[0]).max()


def test_mixed_precision_under_a_budget(tmp_path: Path) -> None:
    folder = checkpoint(MIXED[0]).write(tmp_path / "checkpoint")
    plan = QuantizationPlan(scheme="gptq", bits=5.5, calibration_tokens=512)
    report = build_package(str(folder), out=tmp_path / "package", quantization=plan, home=tmp_path, cache=tmp_path)
    kinds = Package.open(report.package, verify=True).manifest.quantization.tensor_types
    assert {kind[-1] for kind in kinds if kind != "F32"} == {"4", "8"}
