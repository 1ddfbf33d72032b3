"""Checkpoint folders to packages: the whole way, and nothing at all where something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.architectures.registry import reference_logits
from edgeai.build.pipeline import build_package
from edgeai.build.validate import compare
from edgeai.engine.config import EngineSettings
from edgeai.errors import EdgeaiError, UnsupportedModel
from edgeai.model import Model
from edgeai.package.package import Package
from edgeai.recipe import QuantizationPlan
from edgeai.sources.folder import FolderSource
from edgeai.sources.weights import FloatTensor
from tests.fixtures.checkpoints import VOCAB, Checkpoint, tiny_checkpoint
from tests.fixtures.packed_checkpoints import Pack, awq, gptq, packed_checkpoint, plain_awq, plain_gptq

INDEX = "model.safetensors.index.json"


def build(folder: Path, out: Path, plan: QuantizationPlan | None = None) -> Package:
    places = {"out": out, "home": out.parent / "home", "cache": out.parent / "cache"}
    report = build_package(str(folder), quantization=plan, **places)
    return Package.open(report.package, verify=True)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_the_whole_way(dtype: str, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(dtype, shards=2, tie_word_embeddings=False)
    checkpoint.files["README.md"] = b"---\nlicense: apache-2.0\n---\n"
    checkpoint.files["generation_config.json"] = b'{"do_sample": true, "temperature": 0.6, "eos_token_id": [0, 2]}'
    folder = checkpoint.write(tmp_path / "My_Tiny Model")
    package = build(folder, tmp_path / "package")
    manifest = package.manifest
    assert (manifest.name, manifest.licence.spdx) == ("my_tiny-model", "Apache-2.0")
    assert (manifest.origin.kind, manifest.origin.location) == ("path", "My_Tiny Model")
    assert len(manifest.origin.sha256) == 8
    assert manifest.tokens.eos == (0, 2)
    assert manifest.prompt.temperature == 0.6
    assert manifest.quantization.tensor_types == {dtype: 21}
    assert manifest.quality.mean_kl < 1e-6
    source = FolderSource(folder)
    with Model.load(package, EngineSettings(threads=1, max_rows=1, kv_budget_bytes=1 << 20)) as model:
        ids = model.encode_text("hello world, 12 of them")
        logits = model.engine.runner.score(0, ids, 0)
        assert np.abs(logits - reference_logits(source.config, source.load, ids)).max() < 1e-3
        assert list(model.chat([{"role": "user", "content": "hello"}], model.default_params(max_tokens=3)))


def test_a_table_with_more_rows_than_tokens(tmp_path: Path) -> None:
    """What the model says with a row that is no token is nothing, not an error."""
    package = build(tiny_checkpoint(vocab_size=VOCAB + 19).write(tmp_path / "tiny"), tmp_path / "package")
    with Model.load(package, EngineSettings(threads=1, max_rows=1, kv_budget_bytes=1 << 20)) as model:
        params = model.default_params(max_tokens=3, logit_bias={VOCAB + 7: 1000.0})
        chunks = list(model.complete("hello", params))
    assert [token for chunk in chunks for token in chunk.token_ids] == [VOCAB + 7] * 3
    assert "".join(chunk.text for chunk in chunks) == ""


def test_floats_are_rounded_on_request(tmp_path: Path) -> None:
    package = build(
        tiny_checkpoint("BF16").write(tmp_path / "tiny"), tmp_path / "package", QuantizationPlan(scheme="rtn", bits=8)
    )
    assert package.manifest.quantization.tensor_types == {"BF16": 5, "RTN8": 15}


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
ORDER = np.random.default_rng(6).permutation(64)
QUANTIZED: dict[str, tuple[Pack, dict[str, Any], dict[str, Any]]] = {
    "gptq": (gptq, GPTQ, {}),
    "gptq, symmetric": (gptq, GPTQ | {"sym": True}, {"symmetric": True}),
    "gptq, act-order": (gptq, GPTQ | {"desc_act": True}, {"order": ORDER}),
    "awq": (awq, AWQ, {}),
}


@pytest.mark.parametrize("case", QUANTIZED)
def test_quantized_checkpoints_are_transcoded(case: str, tmp_path: Path) -> None:
    """The engine's logits are those of the checkpoint's own values, but for the rounding of int8 activations."""
    pack, settings, options = QUANTIZED[case]
    checkpoint = packed_checkpoint(pack, 4, 32, settings, **options)
    plain = {**checkpoint.tensors}
    for name in [name for name in plain if name.endswith(".qweight")]:
        module = name.removesuffix(".qweight")
        parts = {part: plain.pop(f"{module}.{part}") for part in ("qweight", "qzeros", "scales")}
        if pack is awq:
            plain[f"{module}.weight"] = plain_awq(parts)
        else:
            parts["g_idx"] = plain.pop(f"{module}.g_idx")
            plain[f"{module}.weight"] = plain_gptq(parts, 4, minus_one=True)
    package = build(checkpoint.write(tmp_path / "packed"), tmp_path / "package")
    quantization = package.manifest.quantization
    assert quantization.scheme == "source"
    assert quantization.tensor_types == {"F16": 6, "AWQ4" if pack is awq else "GPTQ4": 14}
    with Model.load(package, EngineSettings(threads=1, max_rows=1, kv_budget_bytes=1 << 20)) as model:
        ids = model.encode_text("hello world, 12 of them")
        logits = model.engine.runner.score(0, ids, 0)
    values = {name: FloatTensor(tensor.astype(np.float32)) for name, tensor in plain.items()}
    expected = reference_logits(checkpoint.config, values.__getitem__, ids)
    assert compare(expected, logits, ids).mean_kl < 0.01
    package_reference = reference_logits(checkpoint.config, FolderSource(tmp_path / "packed").load, ids)
    assert np.array_equal(package_reference, expected)


def extra_bias(checkpoint: Checkpoint) -> None:
    checkpoint.tensors["model.layers.0.self_attn.q_proj.bias"] = np.full(64, 0.5, np.float32)


def nan(checkpoint: Checkpoint) -> None:
    checkpoint.tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan


def wrong_shape(checkpoint: Checkpoint) -> None:
    checkpoint.tensors["model.layers.1.mlp.up_proj.weight"] = np.zeros((128, 32), np.float32)


def missing(checkpoint: Checkpoint) -> None:
    del checkpoint.tensors["model.layers.1.mlp.up_proj.weight"]


def cut(checkpoint: Checkpoint) -> None:
    checkpoint.files["model-00002-of-00002.safetensors"] = b"\x10" + bytes(40)


def no_such_file(checkpoint: Checkpoint) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00003-of-00003.safetensors"}}
    checkpoint.files[INDEX] = json.dumps(index).encode()


def small_vocabulary(checkpoint: Checkpoint) -> None:
    checkpoint.config["vocab_size"] = VOCAB - 3


def rope(checkpoint: Checkpoint) -> None:
    checkpoint.config["rope_scaling"] = {"rope_type": "spiral", "factor": 2.0}


BAD: list[tuple[Callable[[Checkpoint], None], str]] = [
    (extra_bias, r"1 tensors that 'llama' does not use: model\.layers\.0\.self_attn\.q_proj\.bias"),
    (nan, r"model-0000\d-of-00002\.safetensors: tensor 'model\.layers\.1\.mlp\.up_proj\.weight' holds nan at \[3, 4\]"),
    (
        wrong_shape,
        r"model\.layers\.1\.mlp\.up_proj\.weight has shape \[128, 32\] where the config asks for \[128, 64\]",
    ),
    (missing, r"has no tensor 'model\.layers\.1\.mlp\.up_proj\.weight'"),
    (cut, r"model-00002-of-00002\.safetensors"),
    (no_such_file, r"names model-00003-of-00003\.safetensors, which is not there"),
    (small_vocabulary, rf"has the id {VOCAB - 1}, the model only {VOCAB - 3} rows"),
    (rope, "spiral"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_bad_weights_leave_nothing(spoil: Callable[[Checkpoint], None], words: str, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(shards=2)
    spoil(checkpoint)
    folder = checkpoint.write(tmp_path / "bad")
    out = tmp_path / "packages" / "tiny"
    out.parent.mkdir()
    with pytest.raises(EdgeaiError, match=words):
        build(folder, out)
    assert not list(out.parent.iterdir())


def test_a_bias_of_zeros_may_be_left(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    extra_bias(checkpoint)
    checkpoint.tensors["model.layers.0.self_attn.q_proj.bias"][:] = 0
    build(checkpoint.write(tmp_path / "tiny"), tmp_path / "package")


def test_pickles_are_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint().write(tmp_path / "tiny")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match="pickled weights are not read"):
        build(folder, tmp_path / "package")
    assert not (tmp_path / "package").exists()
