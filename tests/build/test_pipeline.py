"""From weights to a published package: complete, exact, repeatable, or not there at all."""

from __future__ import annotations

import hashlib
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeai.build import pipeline
from edgeai.build.pipeline import BuildReport, build_package
from edgeai.build.validate import GRAPH_LIMIT
from edgeai.engine.config import EngineSettings
from edgeai.errors import InvalidInput, NotFound, SourceError, UnsupportedModel, ValidationFailed
from edgeai.model import Model
from edgeai.package.manifest import INT8_GRAPH_NAME
from edgeai.package.package import Package
from edgeai.recipe import QuantizationPlan
from edgeai.sources.gguf_blocks import DECODERS, FLOATS
from tests.fixtures.gguf_files import GGUF, random_blocks, tiny_llama
from tests.fixtures.patience import PATIENCE

Write = Callable[[GGUF], Path]
RTN4 = QuantizationPlan(scheme="rtn", bits=4)
GPTQ5 = QuantizationPlan(scheme="gptq", bits=5, calibration_tokens=1024)


def build(source: Path | str, folder: Path, **options: Any) -> BuildReport:
    return build_package(str(source), out=folder, home=folder.parent / "home", cache=folder.parent / "cache", **options)


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def float_model(encoding: str = "F32") -> GGUF:
    """All matrices as floats, the token table too."""
    model = tiny_llama(encoding)
    table = model.tensor("token_embd.weight")
    table.data, table.encoding = random_blocks(table.shape, encoding, np.random.default_rng(5)), encoding
    return model


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    return folder / "tiny"


def test_a_package_is_published_and_verifies(tiny_gguf: Path, target: Path) -> None:
    report = build(tiny_gguf, target)
    package = Package.open(target, verify=True)
    manifest = package.manifest
    assert report.package == target
    assert report.name == manifest.name == "tiny"
    assert report.size_bytes == package.size_bytes == sum(e.size for e in manifest.files.values())
    assert report.seconds > 0
    assert report.peak_rss_bytes > 1 << 20
    assert set(contents(target.parent)) == {f"tiny/{name}" for name in [*manifest.files, "manifest.json"]}
    assert manifest.licence.spdx == "Apache-2.0"
    assert manifest.origin.location == "tiny.gguf"
    assert manifest.origin.sha256 == {"tiny.gguf": hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()}
    assert (manifest.architecture.model_type, manifest.architecture.num_layers) == ("llama", 2)
    assert manifest.tokens.eos == (2, 0)  # end of turn, end of text
    assert manifest.quantization.scheme == "source"
    assert manifest.quantization.tensor_types == {"F32": 5, "Q4_1": 14, "Q8_0": 1}
    assert str(tiny_gguf.parent) not in (target / "manifest.json").read_text()


@pytest.mark.parametrize("encoding", sorted(DECODERS.keys() - FLOATS))
def test_every_quantized_type_is_kept_as_it_is(encoding: str, write_gguf: Write, target: Path) -> None:
    """Matrices and token table of one type: validation finds the graph near its source, within the rounding of int8."""
    model = tiny_llama(encoding, hidden=256, table=encoding)
    quality = build(write_gguf(model), target).quality
    assert quality.mean_kl < 0.01
    quantization = Package.open(target).manifest.quantization
    assert (quantization.scheme, quantization.tensor_types) == ("source", {"F32": 5, encoding: 15})
    assert Package.open(target).weights.stat().st_size * 8 < 14.5 * 10 * 256 * 256 * 2


def test_scales_on_the_source_s_grid_are_float32_in_the_file(tiny_gguf: Path, target: Path) -> None:
    """Nothing casts them when the graph is loaded; the table's 8-bit blocks and the matrices' 4-bit ones alike."""
    build(tiny_gguf, target)
    package = Package.open(target)
    for graph in (package.graph, target / INT8_GRAPH_NAME):
        found = onnx.load(graph, load_external_data=False).graph
        types = {tensor.data_type for tensor in found.initializer if tensor.name.endswith(".scales")}
        assert types == {onnx.TensorProto.FLOAT}
        assert onnx.TensorProto.FLOAT16 not in {tensor.data_type for tensor in found.initializer}
    assert 0 < package.manifest.quantization.scale_bytes < package.weights.stat().st_size // 4


def test_quality_is_recorded(tiny_gguf: Path, target: Path) -> None:
    quality = build(tiny_gguf, target).quality
    assert quality == Package.open(target).manifest.quality
    assert quality.tokens > 200
    assert 0 <= quality.mean_kl <= quality.max_kl
    assert quality.mean_kl < GRAPH_LIMIT
    assert quality.top_token_agreement > 0.8
    assert math.isclose(quality.perplexity, quality.reference_perplexity, rel_tol=0.05)


@pytest.mark.parametrize("plan", [None, RTN4, GPTQ5])
def test_two_builds_give_the_same_bytes(plan: QuantizationPlan | None, write_gguf: Write, tmp_path: Path) -> None:
    source = write_gguf(float_model() if plan else tiny_llama())
    folders = [tmp_path / "one" / "x", tmp_path / "two" / "y"]
    for folder in folders:
        build(source, folder, quantization=plan)
    assert contents(folders[0]) == contents(folders[1])


def test_a_built_package_answers(tiny_gguf: Path, target: Path) -> None:
    build(tiny_gguf, target)
    with Model.load(Package.open(target), EngineSettings(threads=1, kv_budget_bytes=1 << 20)) as model:
        chunks = list(model.chat([{"role": "user", "content": "hello"}], model.default_params(max_tokens=5)))
    assert sum(len(chunk.tokens) for chunk in chunks) <= 5
    assert chunks[-1].finish_reason is not None


@pytest.mark.parametrize("encoding", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("bits", [4, 8])
def test_floats_are_rounded_on_request(encoding: str, bits: int, write_gguf: Write, target: Path) -> None:
    source = write_gguf(float_model(encoding))
    report = build(source, target, quantization=QuantizationPlan(scheme="rtn", bits=bits))
    quantization = Package.open(target, verify=True).manifest.quantization
    assert quantization.scheme == "rtn"
    expected = {"F32": 5, "RTN4": 14, "RTN8": 1} if bits == 4 else {"F32": 5, "RTN8": 15}
    assert quantization.tensor_types == expected
    assert quantization.scale_bytes == 0  # float16, for a size was asked for
    assert bits < quantization.bits_per_weight < bits + 2.5  # half a bit of scales, and the table has eight
    assert report.quality.mean_kl < (0.2 if bits == 4 else 0.01)


def test_floats_stay_floats_otherwise(write_gguf: Write, target: Path) -> None:
    report = build(write_gguf(float_model()), target)
    quantization = Package.open(target).manifest.quantization
    assert (quantization.scheme, quantization.tensor_types) == ("source", {"F32": 20})
    assert quantization.bits_per_weight == 32
    assert report.quality.mean_kl < 1e-6


def test_blocks_stay_exact_whatever_bits_are_asked_for(tiny_gguf: Path, tmp_path: Path) -> None:
    """Rounding again is what loses; weights that are on a grid are never touched."""
    for folder, plan in ((tmp_path / "plain", None), (tmp_path / "asked", QuantizationPlan(scheme="auto", bits=4))):
        build(tiny_gguf, folder, quantization=plan)
    for name in ("weights.bin", "model.onnx"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "asked" / name).read_bytes()
    assert Package.open(tmp_path / "asked").manifest.quantization.scheme == "source"


def test_error_compensation_and_a_mixture_of_bits(write_gguf: Write, target: Path) -> None:
    report = build(write_gguf(float_model()), target, quantization=GPTQ5)
    package = Package.open(target, verify=True)
    quantization = package.manifest.quantization
    assert quantization.scheme == "gptq"
    assert set(quantization.tensor_types) == {"F32", "GPTQ4", "GPTQ8"}
    assert 5 < quantization.bits_per_weight < 5.8  # with scales and vectors
    assert quantization.expected_kl is not None
    assert report.quality.p99_kl is not None
    assert report.quality.mean_kl <= report.quality.p99_kl <= report.quality.max_kl
    assert not list(target.parent.parent.rglob("quantize-*"))


def test_a_package_keeps_to_its_size(write_gguf: Write, target: Path) -> None:
    source = write_gguf(float_model())
    smallest = build(source, target, quantization=QuantizationPlan(scheme="gptq", bits=4, calibration_tokens=512))
    allowed = smallest.size_bytes + 80_000  # what a limit sets aside for graphs and manifest is more than they take
    for limit, built in ((allowed, True), (smallest.size_bytes // 2, False)):
        plan = QuantizationPlan(scheme="rtn", max_size=f"{limit}B")
        if built:
            assert build(source, target, quantization=plan).size_bytes <= limit
        else:
            with pytest.raises(InvalidInput, match="at four bits"):
                build(source, target, quantization=plan)


def test_what_lies_on_a_grid_is_rounded_again_only_where_that_is_said(tiny_gguf: Path, target: Path) -> None:
    plan = QuantizationPlan(scheme="gptq", bits=4, requantize=True, calibration_tokens=512)
    report = build(tiny_gguf, target, quantization=plan)
    assert report.quantization.tensor_types == {"F32": 5, "GPTQ4": 14, "GPTQ8": 1}
    assert report.quality.mean_kl > 1e-4  # measured, and told


def damage(monkeypatch: pytest.MonkeyPatch, start: float, stop: float) -> None:
    """Let the builder write wrong weights into a part of the file."""
    real = pipeline.write_graph

    def damaging(config, load, graph: Path, weights: Path, **options):
        decoder = real(config, load, graph, weights, **options)
        data = np.fromfile(weights, np.uint8)
        data[int(start * len(data)) : int(stop * len(data))] ^= 0x44  # a high bit of every code
        data.tofile(weights)
        return decoder

    monkeypatch.setattr(pipeline, "write_graph", damaging)


def test_a_graph_that_does_not_reproduce_its_source_is_not_published(
    write_gguf: Write, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch, 0.5, 0.9)
    with pytest.raises(ValidationFailed, match="away from its own weights"):
        build(write_gguf(tiny_llama("Q8_0")), target)
    assert not list(target.parent.iterdir())


def test_an_older_package_survives_a_failed_build(
    tiny_gguf: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tiny_gguf, target)
    before = contents(target.parent)
    with monkeypatch.context() as patch:
        damage(patch, 0.2, 0.9)
        with pytest.raises(ValidationFailed):
            build(tiny_gguf, target)
    assert contents(target.parent) == before
    Package.open(target, verify=True)
    build(tiny_gguf, target)
    assert contents(target.parent) == before


def test_a_package_is_made_for_the_context_that_is_asked_for(tiny_gguf: Path, target: Path) -> None:
    """By the caller, else by the recipe, else the model's own; and never for more than the model is good for."""
    recipe = target.parent.parent / "tiny.toml"
    source = f'[[sources]]\nkind = "path"\npath = "{tiny_gguf}"\n'
    recipe.write_text(f'schema = 1\nname = "tiny"\ncontext = 100\n{source}')
    for spec, options, expected in ((tiny_gguf, {}, 256), (recipe, {}, 100), (recipe, {"context": 64}, 64)):
        shutil.rmtree(target, ignore_errors=True)
        build(spec, target, **options)
        assert Package.open(target).manifest.architecture.context_length == expected
    shutil.rmtree(target)
    with pytest.raises(InvalidInput, match="good for 256"):
        build(tiny_gguf, target, context=257)
    assert not list(target.parent.iterdir())


def test_nan_logits_are_not_published(tiny_gguf: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pipeline.write_graph

    def damaging(config, load, graph: Path, weights: Path, **options):
        decoder = real(config, load, graph, weights, **options)
        data = np.fromfile(weights, np.uint8)
        at = 2 * 256 * 8 * 4 + 0  # behind the rotary tables
        data[at : at + len(data) // 2] = 0xFF
        data.tofile(weights)
        return decoder

    monkeypatch.setattr(pipeline, "write_graph", damaging)
    with pytest.raises(ValidationFailed), np.errstate(all="ignore"):
        build(tiny_gguf, target)
    assert not list(target.parent.iterdir())


def truncated(model: GGUF) -> bytes:
    return model.to_bytes()[:-1000]


def unknown_architecture(model: GGUF) -> bytes:
    model.metadata["general.architecture"] = "lama"
    return model.to_bytes()


def unknown_type(model: GGUF) -> bytes:
    model.tensor("blk.1.ffn_up.weight").encoding = "Q9_Z"
    return model.to_bytes()


def missing_tensor(model: GGUF) -> bytes:
    model.drop("blk.1.ffn_up.weight")
    return model.to_bytes()


def missing_metadata(model: GGUF) -> bytes:
    del model.metadata["llama.attention.head_count"]
    return model.to_bytes()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (truncated, SourceError),
        (unknown_architecture, UnsupportedModel),
        (unknown_type, UnsupportedModel),
        (missing_tensor, SourceError),
        (missing_metadata, SourceError),
    ],
)
def test_bad_weights_leave_nothing(spoil: Callable[[GGUF], bytes], error: type, tmp_path: Path, target: Path) -> None:
    source = tmp_path / "bad.gguf"
    source.write_bytes(spoil(tiny_llama()))
    with pytest.raises(error, match=r"bad\.gguf|lama"):
        build(source, target)
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize("spec", ["no/such/file.gguf", "missing.gguf", "no-such-recipe"])
def test_what_is_not_there(spec: str, target: Path) -> None:
    with pytest.raises(NotFound):
        build(spec, target)
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize(("allowed", "built"), [(0.01, True), (1e-9, False)])
def test_a_recipe_s_own_threshold_decides(allowed: float, built: bool, tiny_gguf: Path, target: Path) -> None:
    recipe = target.parent.parent / "mine.toml"
    recipe.write_text(
        f'schema = 1\nname = "mine"\n[licence]\nspdx = "MIT"\n[[sources]]\nkind = "path"\npath = "{tiny_gguf}"\n'
        f"[prompt]\ntemperature = 0.5\n[quality]\nmax_mean_kl = {allowed}\n"
    )
    if not built:
        with pytest.raises(ValidationFailed, match="the recipe allows"):
            build(recipe, target)
        assert not list(target.parent.iterdir())
        return
    build(recipe, target)
    manifest = Package.open(target, verify=True).manifest
    assert (manifest.name, manifest.licence.spdx, manifest.prompt.temperature) == ("mine", "MIT", 0.5)


def test_without_a_target_it_goes_to_the_store(tiny_gguf: Path, tmp_path: Path) -> None:
    report = build_package(str(tiny_gguf), home=tmp_path / "home", cache=tmp_path / "cache")
    assert (tmp_path / "home") in report.package.parents
    Package.open(report.package, verify=True)


def test_progress_names_the_steps(tiny_gguf: Path, target: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    build(tiny_gguf, target, progress=lambda step, done=0, total=0: seen.append((step, done, total)))
    converted = [(done, total) for step, done, total in seen if step == "convert"]
    assert converted == [(number + 1, 20) for number in range(20)]
    steps = [step for step, _, _ in seen]
    assert list(dict.fromkeys(steps)) == ["convert", "measure the KV cache", "validate", "sample answers"]


FULL_DISK = """
import sys
from pathlib import Path
from edgeai.build.pipeline import build_package
from edgeai.errors import OutOfDisk
disk, source = Path(sys.argv[1]), sys.argv[2]
try:
    build_package(source, out=disk / "package", home=disk, cache=disk)
except OutOfDisk as error:
    print(error)
    print([str(path) for path in disk.iterdir()])
else:
    print("published")
"""


@pytest.mark.parametrize("kilobytes", [4, 16, 100, 180])
def test_a_full_disk_leaves_nothing_half_written(kilobytes: int, write_gguf: Write, tmp_path: Path) -> None:
    """A real disk that is too small, wherever in the build its end is met."""
    source, disk = write_gguf(float_model()), tmp_path / "disk"
    disk.mkdir()
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare")
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", disk], capture_output=True).returncode:
        pytest.skip("this system lets us mount no small disk")
    shell = f'mount -t tmpfs -o size={kilobytes}k none "$1" && exec "$2" -c "$3" "$1" "$4"'
    command = [*unshare, "sh", "-c", shell, "sh", str(disk), sys.executable, FULL_DISK, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    message, left = done.stdout.splitlines()
    assert "room" in message or "space" in message or "full" in message
    assert left == "[]"
