"""What a plan chooses: plain widths, mixtures by sensitivity, and what "auto" means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgeai.architectures.reference import EMBEDDINGS
from edgeai.architectures.registry import decoder_config
from edgeai.build.quantize import scheme
from edgeai.build.quantize.scheme import Job, as_asked, calibration_tokens, candidates, choose_grids
from edgeai.build.quantize.scratch import Scratch
from edgeai.progress import silent
from edgeai.recipe import QuantizationPlan
from edgeai.sources.gguf import GGUFSource
from tests.fixtures.tiny import TinySource

SOURCE = TinySource()
CONFIG = decoder_config(SOURCE.config)
FILES: Any = None  # no text is read here


def job(tmp_path: Path, **plan: Any) -> Job:
    return Job(QuantizationPlan(**plan), SOURCE, CONFIG, FILES, silent, Scratch(tmp_path))


@pytest.mark.parametrize("bits", [4, 8])
def test_plain_widths_keep_the_table_at_eight(bits: int, tmp_path: Path) -> None:
    task = job(tmp_path, scheme="rtn", bits=bits)
    grids, expected = choose_grids(task, candidates(task))
    assert expected is None
    assert grids.pop(EMBEDDINGS).bits == 8
    assert {grid.bits for grid in grids.values()} == {bits}


def test_a_mixture_follows_the_sensitivities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheme, "calibration_segments", lambda *_: [[1] * 50] * 3)
    task = job(tmp_path, scheme="rtn", bits=4.5)
    groups = candidates(task)
    costs = [1.0 if "layers.1.self_attn.o_proj" in group.names[0] else 1e-6 * group.weights for group in groups]
    monkeypatch.setattr(scheme, "sensitivities", lambda *_: costs)
    grids, expected = choose_grids(task, groups)
    assert grids["model.layers.1.self_attn.o_proj.weight"].bits == 8
    assert {grid.bits for grid in grids.values()} == {4, 8}
    assert expected is not None
    assert expected < sum(costs) - 0.99


def test_auto_is_a_mixture_for_floats_and_nothing_for_grids(tiny_gguf: Path) -> None:
    plan = QuantizationPlan(scheme="auto")
    assert as_asked(plan, SOURCE) == QuantizationPlan(scheme="gptq", bits=4.5)
    assert as_asked(plan, GGUFSource(tiny_gguf)).scheme == "source"
    asked = QuantizationPlan(scheme="auto", max_size="1MB")
    assert as_asked(asked, SOURCE) == QuantizationPlan(scheme="gptq", max_size="1MB")


def test_memory_bounds_the_calibration() -> None:
    assert calibration_tokens(CONFIG, 16384) == 16384
    large = decoder_config({**SOURCE.config, "hidden_size": 4096, "intermediate_size": 14336})
    assert 500 < calibration_tokens(large, 16384) < 2000


def test_blocks_are_as_large_as_the_columns_allow(tmp_path: Path) -> None:
    task = job(tmp_path, scheme="rtn", bits=4, block_size=128, table_bits=4)
    grids, _ = choose_grids(task, candidates(task))
    sizes = {name: grid.block_size for name, grid in grids.items()}
    assert {size for name, size in sizes.items() if "down_proj" in name} == {128}  # of 128 columns
    assert {size for name, size in sizes.items() if "down_proj" not in name} == {64}  # of 64
    assert grids[EMBEDDINGS].bits == 4
    with pytest.raises(ValidationError, match="table_bits goes with bits 4 or 8"):
        QuantizationPlan(scheme="rtn", bits=4.5, table_bits=4)
