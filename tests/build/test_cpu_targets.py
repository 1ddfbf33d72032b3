"""Packages made for processors without dotprod: built, measured, recorded and answering like the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeai.build.forms import FORMS
from edgeai.build.pipeline import build_package
from edgeai.engine.config import EngineSettings
from edgeai.errors import InvalidInput, ValidationFailed
from edgeai.model import Model
from edgeai.package.cpu_targets import CPU_TARGETS, cpu_target
from edgeai.package.manifest import Quality
from edgeai.package.package import Package
from edgeai.package.store import Store
from edgeai.recipe import QuantizationPlan
from tests.fixtures.gguf_files import GGUF, tiny_llama

A72 = cpu_target("cortex-a72")


@pytest.fixture
def source(write_gguf: Callable[[GGUF], Path]) -> Path:
    return write_gguf(tiny_llama("Q4_1"))


def build(source: Path, tmp_path: Path, **options) -> Package:
    report = build_package(str(source), cpus=A72, home=tmp_path / "home", cache=tmp_path / "cache", **options)
    return Package.open(report.package, verify=True)


def test_every_target_has_a_form() -> None:
    assert {target.linear for target in CPU_TARGETS} == FORMS.keys()


def test_a_variant_is_built_beside_the_generic_package(source: Path, tmp_path: Path) -> None:
    generic = build_package(str(source), home=tmp_path / "home", cache=tmp_path / "cache")
    package = build(source, tmp_path)
    assert package.path == Store(tmp_path / "home").folder / "model@cortex-a72"
    assert (package.name, package.manifest.target) == ("model", "cortex-a72")
    assert Package.open(generic.package).manifest.target == "generic"
    quantization, quality = package.manifest.quantization, package.manifest.quality
    assert quantization.scheme == "rows"
    assert 8 < quantization.bits_per_weight < 9
    assert quantization.tensor_types["ROWS8"] == 15
    assert quality is not None
    assert 0 < quality.mean_kl < FORMS["rows"].limit


def test_it_answers(source: Path, tmp_path: Path) -> None:
    with Model.load(build(source, tmp_path), EngineSettings(threads=1)) as model:
        ids = model.encode_text("the quick brown fox")
        chunks = list(model.stream(ids, model.default_params(max_tokens=8, temperature=0)))
    assert chunks[-1].finish_reason is not None


def test_options_that_the_target_decides_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="target cortex-a72 decides"):
        build(source, tmp_path, quantization=QuantizationPlan(scheme="rtn", bits=4))


def test_a_graph_that_is_too_far_away_is_not_published(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMS, "rows", replace(FORMS["rows"], limit=1e-9))  # type: ignore[arg-type]
    with pytest.raises(ValidationFailed, match="away from its own weights"):
        build(source, tmp_path)
    assert Store(tmp_path / "home").names() == ()


def test_what_was_measured_of_smollm(smollm_gguf: Path, tmp_path: Path) -> None:
    """Of weights that were 4-bit blocks; what is lost is the activations' rounding by row, more than the weights'."""
    quality = build(smollm_gguf, tmp_path).manifest.quality
    assert isinstance(quality, Quality)
    assert quality.mean_kl < 0.025
    assert quality.perplexity / quality.reference_perplexity < 1.03
