"""Adapters from a PEFT folder to answers: merged into a build, and installed beside a package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.architectures.registry import reference_logits
from edgeai.build.adapters import install
from edgeai.build.pipeline import build_package
from edgeai.engine.config import EngineSettings
from edgeai.errors import EdgeaiError, InvalidInput, PackageError, SourceError, UnsupportedModel
from edgeai.model import Model
from edgeai.package.adapters import AdapterStore
from edgeai.package.package import Package
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.merged import MergedSource
from edgeai.sources.peft import PeftAdapter
from tests.fixtures.gguf_files import tiny_llama
from tests.fixtures.peft import EVERY, gguf_shapes, tensors_of, write_adapter
from tests.server.float_model import float_package

SETTINGS = EngineSettings(threads=1, max_rows=2, kv_budget_bytes=1 << 24)
IDS = list(range(3, 80))
# Targets, rank: what people train, from the usual two projections to everything.
KINDS = {"q and v": (("q_proj", "v_proj"), 4), "down alone": (("down_proj",), 4), "everything": (EVERY, 4)}
Logits = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return float_package(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def source(base: Package) -> GGUFSource:
    return GGUFSource(base.path.parent / "tiny.gguf")


def folder_of(path: Path, targets: Sequence[str] = EVERY, *, seed: int = 0, **config: Any) -> Path:
    return write_adapter(path, tensors_of(targets, seed=seed, shapes=gguf_shapes()), **config)


def logits_of(model: Model) -> Logits:
    if model.adapter is not None:
        model.engine.runner.enable_adapters()
    return model.engine.runner.score(0, IDS, 0, model.adapter).copy()


def build(source: GGUFSource, folder: Path, tmp_path: Path, **options: Any) -> Package:
    report = build_package(
        str(source.path), adapter=folder, home=tmp_path / "home", cache=tmp_path / "cache", **options
    )
    return Package.open(report.package)


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_give_the_merged_models_logits(base: Package, source: GGUFSource, kind: str, tmp_path: Path) -> None:
    targets, _ = KINDS[kind]
    folder = folder_of(tmp_path / "style", targets)
    merged = MergedSource(source, PeftAdapter(folder), 0.75)
    expected = reference_logits(merged.config, merged.load, IDS)
    plain = reference_logits(source.config, source.load, IDS)
    assert np.abs(expected - plain).max() > 0.5
    installed = install(base, folder, "style", tmp_path / "home", scale=0.75)
    with Model.load(base, SETTINGS) as model:
        assert np.abs(logits_of(model.with_adapter(installed)) - expected).max() < 1e-3
    package = build(source, folder, tmp_path, adapter_scale=0.75)
    with Model.load(package, SETTINGS) as model:
        assert np.abs(logits_of(model) - expected).max() < 1e-3


def test_a_merged_package_says_what_it_was_made_of(source: GGUFSource, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "Clinic Style")
    package = build(source, folder, tmp_path)
    assert package.name == "tiny-clinic-style"
    origin = package.manifest.origin
    assert origin.location == "tiny.gguf + adapter Clinic Style x 1"
    assert {"tiny.gguf", "Clinic Style/adapter_model.safetensors", "Clinic Style/adapter_config.json"} == set(
        origin.sha256
    )


def test_merging_into_quantized_weights_needs_a_word(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_llama("Q8_0").to_bytes())
    folder = folder_of(tmp_path / "style", ["q_proj"])
    options: dict[str, Any] = {"adapter": folder, "home": tmp_path / "home", "cache": tmp_path / "cache"}
    with pytest.raises(InvalidInput, match=r"2 matrices .* model\.layers\.0\.self_attn\.q_proj\.weight, are stored as"):
        build_package(str(path), **options)
    assert not list((tmp_path / "home").rglob("*.*"))
    report = build_package(str(path), bits=8, **options)
    quantization = Package.open(report.package).manifest.quantization
    assert quantization.tensor_types == {"F32": 5, "Q8_0": 13, "RTN8": 2}
    assert report.quality.mean_kl < 0.01  # against the merged floats


def test_an_installed_adapter_says_what_it_was_made_of(base: Package, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "style", ["q_proj", "down_proj"])
    manifest = install(base, folder, "style", tmp_path).manifest
    assert (manifest.base, manifest.base_digest, manifest.rank) == ("tiny", base.model_digest, 4)
    assert manifest.origin.sha256 == PeftAdapter(folder).digests()
    assert [(term.site, term.inputs, term.outputs) for term in manifest.terms] == [
        (0, 64, 128),
        (3, 96, 64),
        (4, 64, 128),
        (7, 96, 64),
    ]


def damaged(folder: Path, kind: str) -> Path:
    """An adapter with one thing wrong."""
    shapes = gguf_shapes()
    tensors = tensors_of(shapes=shapes)
    first = next(iter(tensors))
    match kind:
        case "another base":
            tensors = tensors_of()
        case "unknown module":
            tensors["base_model.model.model.layers.7.mlp.up_proj.lora_A.weight"] = tensors[first]
            tensors["base_model.model.model.layers.7.mlp.up_proj.lora_B.weight"] = tensors[first].T
        case "half a pair":
            del tensors[first]
        case "not a number":
            tensors[first][0, 0] = np.nan
        case "wrong rank":
            tensors[first] = tensors[first][:3]
    return write_adapter(folder, tensors, **({"use_dora": True} if kind == "dora" else {}))


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("another base", SourceError, "that of tiny has"),
        ("unknown module", SourceError, "model.layers.7.mlp.up_proj, which tiny does not have"),
        ("half a pair", SourceError, "is missing"),
        ("not a number", SourceError, "no finite number"),
        ("wrong rank", SourceError, "has rank 3"),
        ("dora", UnsupportedModel, "use_dora"),
    ],
)
def test_bad_adapters_leave_nothing(
    base: Package, source: GGUFSource, kind: str, error: type[EdgeaiError], words: str, tmp_path: Path
) -> None:
    folder = damaged(tmp_path / "style", kind)
    with pytest.raises(error, match=words):
        install(base, folder, "style", tmp_path / "home")
    assert AdapterStore(tmp_path / "home").names("tiny") == ()
    assert not list(tmp_path.glob("home/**/*.bin"))
    with pytest.raises(error):
        build(source, folder, tmp_path)
    assert not list(tmp_path.glob("home/models/*"))


@pytest.mark.parametrize("scale", [float("nan"), 1e9])
def test_scales_that_make_no_sense(base: Package, source: GGUFSource, scale: float, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "style")
    with pytest.raises(InvalidInput, match="scale"):
        install(base, folder, "style", tmp_path, scale)
    with pytest.raises(InvalidInput, match="scale"):
        build(source, folder, tmp_path, adapter_scale=scale)


def test_an_adapter_is_bound_to_one_build_of_its_base(base: Package, tmp_path: Path) -> None:
    install(base, folder_of(tmp_path / "style"), "style", tmp_path)
    store = AdapterStore(tmp_path)
    described = base.manifest.model_copy(update={"description": "the same build"})
    weights = base.manifest.files["weights.bin"].model_copy(update={"sha256": "0" * 64})
    files = base.manifest.files | {"weights.bin": weights}
    other = replace(base, manifest=base.manifest.model_copy(update={"files": files}))
    for same in (base, replace(base, manifest=described)):
        assert [adapter.name for adapter in store.fitting(same)] == ["style"]
    assert store.fitting(other) == ()
    with pytest.raises(PackageError, match="another build of tiny"):
        store.get_for(other, "style")
    with Model.load(base, SETTINGS) as model:
        model.package = other
        with pytest.raises(PackageError, match="another build of tiny"):
            model.with_adapter(store.get("tiny", "style"))


def test_a_base_that_takes_no_adapters(base: Package, tmp_path: Path) -> None:
    files = {name: entry for name, entry in base.manifest.files.items() if name != "model_lora.onnx"}
    plain = replace(base, manifest=base.manifest.model_copy(update={"files": files}))
    with pytest.raises(UnsupportedModel, match="takes no adapters"):
        install(plain, folder_of(tmp_path / "style"), "style", tmp_path)
