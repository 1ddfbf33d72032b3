"""`edgeai build --prompt-weights`: a package that reads prompts with int8 weights beside its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeai.build import prompts
from edgeai.build.pipeline import BuildReport, build_package
from edgeai.engine.config import EngineSettings
from edgeai.errors import InvalidInput, ValidationFailed
from edgeai.model import Model
from edgeai.package.cpu_targets import cpu_target
from edgeai.package.manifest import INT8_PROMPT_GRAPH_NAME, PROMPT_GRAPH_NAME, PROMPT_WEIGHTS_NAME
from edgeai.package.package import Package
from edgeai.recipe import QuantizationPlan
from edgeai.sources.weights import BlockTensor
from edgeai.warm import warm
from tests.fixtures.gguf_files import GGUF, tiny_llama

TEXT = "the quick brown fox jumps over the lazy dog and the quick brown fox jumps again"


@pytest.fixture
def source(write_gguf: Callable[[GGUF], Path]) -> Path:
    return write_gguf(tiny_llama("Q4_1"))


@pytest.fixture
def built(source: Path, tmp_path: Path) -> BuildReport:
    return build(source, tmp_path)


def build(source: Path, tmp_path: Path, **options) -> BuildReport:
    options = {"prompt_weights": True} | options
    return build_package(str(source), home=tmp_path / "home", cache=tmp_path / "cache", **options)


def test_they_come_with_the_package_and_change_little(built: BuildReport, source: Path, tmp_path: Path) -> None:
    package = Package.open(built.package, verify=True)
    assert {PROMPT_GRAPH_NAME, INT8_PROMPT_GRAPH_NAME, PROMPT_WEIGHTS_NAME} <= package.manifest.files.keys()
    assert package.prompt_weights == package.path / PROMPT_WEIGHTS_NAME
    assert [package.graphs(kind).prompts for kind in ("float32", "int8")] == [
        package.path / PROMPT_GRAPH_NAME,
        package.path / INT8_PROMPT_GRAPH_NAME,
    ]
    assert built.prompt_kl is not None
    assert 0 < built.prompt_kl < prompts.LIMIT
    without = build(source, tmp_path, prompt_weights=False, out=tmp_path / "without")
    plain = Package.open(without.package)
    assert without.prompt_kl is None
    assert plain.prompt_weights is None
    assert plain.graphs("int8").prompts is None
    same = {name: package.manifest.files[name] for name in plain.manifest.files}
    assert same == dict(plain.manifest.files)  # nothing else of the package depends on them
    assert plain.model_digest != package.model_digest


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_prompts_are_read_with_them(built: BuildReport, kind: str) -> None:
    package = Package.open(built.package)
    settings = EngineSettings(threads=1, kv_type=kind, max_rows=1)  # type: ignore[arg-type]
    with Model.load(package, settings) as model:
        runner, ids = model.engine.runner, model.encode_text(TEXT)
        read, numbers = len(ids) - 1, runner.arena.array[:, :, 0]
        runner.prefill(0, ids, 0)
        plain = numbers[..., :read, :].astype(np.float32)
        assert runner.complete()
        runner.prefill(0, ids, 0)
        apart = numbers[..., :read, :].astype(np.float32) - plain
        assert 0 < np.abs(apart).max() < 0.1 * np.abs(plain).max()
        assert np.abs(apart[0]).mean() < 0.02 * np.abs(plain[0]).mean()  # the first layer has read no rounded values
        chunks = list(model.stream(ids, model.default_params(max_tokens=8, temperature=0)))
    assert chunks[-1].finish_reason is not None


def test_the_rows_are_of_the_weights_that_are_kept(source: Path, tmp_path: Path, monkeypatch) -> None:
    """Not of the source's: what is rounded again would otherwise be read with other weights than it is said with."""
    asked: list[tuple[int, int]] = []
    nearest = prompts.quantized_rows

    def noted(job, stored):
        tensor = stored("model.layers.0.mlp.up_proj.weight")
        assert isinstance(tensor, BlockTensor)
        asked.append((tensor.bits, tensor.block_size))
        return nearest(job, stored)

    monkeypatch.setattr(prompts, "quantized_rows", noted)
    build(source, tmp_path, quantization=QuantizationPlan(scheme="rtn", bits=8, requantize=True))
    assert asked == [(8, 32)]


def test_what_they_change_too_much_is_not_published(source: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prompts, "LIMIT", 0.0)
    with pytest.raises(ValidationFailed, match="nats per token away"):
        build(source, tmp_path)
    assert not list((tmp_path / "home").glob("models/*"))


def test_targets_that_have_int8_weights_take_no_others(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="int8 weights already"):
        build(source, tmp_path, cpus=cpu_target("cortex-a72"))


def test_computed_prompts_are_computed_with_the_plain_weights(built: BuildReport, monkeypatch) -> None:
    """A board that has no memory for the others then has the same."""
    settings: list[EngineSettings] = []
    load = Model.load

    def noted(package: Package, chosen: EngineSettings, **options) -> Model:
        settings.append(chosen)
        return load(package, chosen, **options)

    monkeypatch.setattr(Model, "load", noted)
    warm(Package.open(built.package), ["the quick brown fox jumps over the lazy dog. " * 4])
    assert [each.prompt_weights for each in settings] == [False]
