"""Building a package of an export, with the child process replaced by a function that leaves what it would leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.architectures.exported import CacheShape
from edgeai.build import exported, optimum_export
from edgeai.build.exported import build_exported
from edgeai.build.optimum_export import require_exporter
from edgeai.build.validate_exported import require_faithful
from edgeai.engine.config import EngineSettings
from edgeai.errors import EdgeaiError, InvalidInput, NotFound, SourceError, UnsupportedModel, ValidationFailed
from edgeai.model import Model
from edgeai.package.package import Package
from tests.fixtures.checkpoints import tiny_checkpoint
from tests.fixtures.exported import HEADS, LAYERS, SHAPE, SIZE, VOCAB, naive_logits, random_weights, write_exported

WEIGHTS = random_weights()
CACHE = CacheShape(LAYERS, HEADS, SIZE)
IDS = [int(token) for token in np.random.default_rng(0).integers(0, VOCAB, 40)]


class Child:
    """Stands in for the exporter: writes a graph made by hand, and the logits that numpy computes for it."""

    def __init__(self, **form: Any) -> None:
        self.form = {"logits_from": False, **form}
        self.logits_of = WEIGHTS

    def __call__(self, task: str, request: dict[str, Any]) -> dict[str, Any]:
        assert task == "text-generation"
        out, ids = Path(request["out"]), request["ids"]
        assert (Path(request["folder"]) / "model.safetensors").is_file()
        write_exported(out / "model.onnx", WEIGHTS, **self.form)
        np.save(out / "logits.npy", naive_logits(self.logits_of, ids))
        return {
            "model_type": "exotic",
            "vocab_size": VOCAB,
            "hidden_size": HEADS * SIZE,
            "num_heads": HEADS,
            "context_length": SHAPE.context_length,
            "parameters": sum(values.size for values in WEIGHTS.values()),
            "ids": ids,
        }


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    source = tiny_checkpoint(model_type="exotic")
    source.files["README.md"] = b"---\nlanguage: sw\nlicense: apache-2.0\n---\n# Exotic\n"
    return source.write(tmp_path / "Exotic 1B")


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch):
    def install(**form: Any) -> Child:
        stand_in = Child(**form)
        monkeypatch.setattr(exported, "run_exporter", stand_in)
        monkeypatch.setattr(optimum_export, "PACKAGES", ())
        return stand_in

    return install


def test_a_package_like_all_others(child, checkpoint: Path, tmp_path: Path) -> None:
    child()
    report = build_exported(str(checkpoint), home=tmp_path / "home", cache=tmp_path)
    assert report.name == "exotic-1b"
    package = Package.open(report.package, verify=True)
    manifest = package.manifest
    assert manifest.runtime == "exported"
    assert manifest.licence.spdx == "Apache-2.0"
    assert set(manifest.origin.sha256) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert manifest.architecture.model_type == "exotic"
    assert manifest.quantization.scheme == "source"
    assert manifest.quality.reference == "transformers' float32 logits"
    assert manifest.quality.mean_kl < 1e-6
    with Model.load(package, EngineSettings(max_rows=2, max_context=256)) as model:
        answer = list(model.chat([{"role": "user", "content": "The well"}], model.default_params(max_tokens=5)))
    assert 1 <= sum(len(chunk.tokens) for chunk in answer) <= 5


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.05), (4, 2.0)])
def test_rounded_to_bits(child, checkpoint: Path, tmp_path: Path, bits: int, limit: float) -> None:
    child()
    plain = build_exported(str(checkpoint), out=tmp_path / "plain", home=tmp_path, cache=tmp_path)
    report = build_exported(str(checkpoint), out=tmp_path / "small", bits=bits, home=tmp_path, cache=tmp_path)
    manifest = Package.open(report.package, verify=True).manifest
    assert manifest.quantization.scheme == "rtn"
    assert manifest.quantization.tensor_types[f"RTN{bits}"] >= LAYERS * 4
    assert 1e-6 < report.quality.mean_kl < limit
    assert report.size_bytes < plain.size_bytes
    with Model.load(Package.open(report.package), EngineSettings(max_rows=1, max_context=64)) as model:
        assert len(model.engine.runner.prefill(0, IDS, 0)) == VOCAB


def test_rows_that_must_not_be_padded_are_marked(child, checkpoint: Path, tmp_path: Path) -> None:
    child(positions="length")
    report = build_exported(str(checkpoint), out=tmp_path / "package", home=tmp_path, cache=tmp_path)
    assert Package.open(report.package).manifest.runtime == "exported-unpadded"


def test_an_export_that_is_another_model_is_not_published(child, checkpoint: Path, tmp_path: Path) -> None:
    child().logits_of = random_weights(seed=1)
    with pytest.raises(UnsupportedModel, match="does not compute what the model does: a whole text"):
        build_exported(str(checkpoint), out=tmp_path / "package", home=tmp_path, cache=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Exotic 1B"]


@pytest.mark.parametrize(("positions", "padded"), [("input", True), ("mask", True), ("length", False)])
def test_whether_padding_is_harmless_is_found_out(positions, padded: bool, tmp_path: Path) -> None:
    write_exported(tmp_path / "model.onnx", WEIGHTS, positions=positions)
    assert require_faithful(tmp_path / "model.onnx", CACHE, IDS, naive_logits(WEIGHTS, IDS)) is padded


def test_only_checkpoint_folders(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum_export, "PACKAGES", ())
    with pytest.raises(NotFound, match="nowhere"):
        build_exported("nowhere.d", home=tmp_path, cache=tmp_path)
    with pytest.raises(SourceError, match="optimum exports Hugging Face checkpoints"):
        build_exported(str(tiny_gguf), home=tmp_path, cache=tmp_path)


def test_a_shorter_context(child, checkpoint: Path, tmp_path: Path) -> None:
    child()
    report = build_exported(str(checkpoint), context=64, home=tmp_path / "home", cache=tmp_path)
    assert Package.open(report.package).manifest.architecture.context_length == 64
    with pytest.raises(InvalidInput, match="good for 512"):
        build_exported(str(checkpoint), context=513, home=tmp_path / "home", cache=tmp_path)


def test_adapters_have_to_be_merged_before(child, checkpoint: Path, tmp_path: Path) -> None:
    child()
    with pytest.raises(InvalidInput, match="cannot be merged"):
        build_exported(str(checkpoint), adapter=tmp_path, home=tmp_path / "home", cache=tmp_path)


def test_a_recipe_says_how(child, checkpoint: Path, tmp_path: Path) -> None:
    child()
    recipe = tmp_path / "recipe.toml"
    text = f"""schema = 1
name = "named"
sources = [{{kind = "path", path = "{checkpoint.name}"}}]
licence = {{spdx = "MIT"}}
quantization = {{scheme = "rtn", bits = 8}}
quality = {{max_mean_kl = LIMIT}}
"""
    recipe.write_text(text.replace("LIMIT", "0.5"))
    package = Package.open(build_exported(str(recipe), home=tmp_path / "home", cache=tmp_path).package)
    assert (package.name, package.manifest.licence.spdx) == ("named", "MIT")
    assert package.manifest.quantization.scheme == "rtn"
    recipe.write_text(text.replace("LIMIT", "1e-9"))
    with pytest.raises(ValidationFailed, match=r"named is .* nats per token from its source"):
        build_exported(str(recipe), home=tmp_path / "home", cache=tmp_path)


def test_without_the_extra(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum_export, "PACKAGES", ("no_such_package",))
    with pytest.raises(EdgeaiError, match="exporting needs"):
        require_exporter()
    with pytest.raises(EdgeaiError, match="exporting needs"):
        build_exported(str(checkpoint), home=tmp_path, cache=tmp_path)
