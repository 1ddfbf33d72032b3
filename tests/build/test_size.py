"""The size of a package is known before it is written: a little too high, never too low."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeai.architectures.registry import decoder_config
from edgeai.build.pipeline import build_package
from edgeai.build.size import other_bytes, require_size
from edgeai.errors import ValidationFailed
from edgeai.package.manifest import LICENCE_NAME, TEMPLATE_NAME, TOKENIZER_NAME
from edgeai.recipe import QuantizationPlan
from edgeai.sources.gguf import GGUFSource
from tests.build.test_pipeline import float_model
from tests.fixtures.gguf_files import GGUF


def test_it_is_estimated_from_above(write_gguf: Callable[[GGUF], Path], tmp_path: Path) -> None:
    path = write_gguf(float_model())
    plan = QuantizationPlan(scheme="gptq", bits=8, calibration_tokens=512)
    options = {"out": tmp_path / "package", "home": tmp_path, "cache": tmp_path}
    report = build_package(str(path), quantization=plan, **options)
    sizes = {file.name: file.stat().st_size for file in report.package.iterdir()}
    source = GGUFSource(path)
    before = sum(sizes[name] for name in (TOKENIZER_NAME, TEMPLATE_NAME, LICENCE_NAME))
    matrices = sum(
        rows * cols + rows * cols // 32 + 2 * rows
        for rows, cols in (info.shape for info in source.tensors if len(info.shape) == 2)
    )
    expected = matrices + other_bytes(before, source, decoder_config(source.config))
    assert 0 <= expected - sum(sizes.values()) < 80_000


@pytest.mark.parametrize(("written", "fits"), [(1_000_000, True), (1_000_001, False)])
def test_the_limit_is_held_afterwards_as_well(written: int, fits: bool) -> None:
    plan = QuantizationPlan(scheme="gptq", max_size="1MB")
    if fits:
        require_size(written, plan)
        return
    with pytest.raises(ValidationFailed, match=r"more than the 1MB"):
        require_size(written, plan)
