"""Checkpoints that are quantized already: the values of the formats' own readers to the last bit, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.folder import FolderSource
from edgeai.sources.packed_integers import block_of, unpack
from edgeai.sources.weights import BlockTensor
from tests.fixtures.checkpoint_types import FORMS, folder_exactness
from tests.fixtures.checkpoints import Checkpoint, tiny_checkpoint
from tests.fixtures.gguf_types import WIDE_SCALES
from tests.fixtures.packed_checkpoints import (
    Integers,
    Pack,
    awq,
    compressed,
    gptq,
    pack_words,
    packed_checkpoint,
    plain_awq,
    plain_gptq,
    round_to_grid,
)

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
INTEGERS = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"


def ct(**weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": INTEGERS | weights, "input_activations": None}
    return COMPRESSED | {"config_groups": {"group_0": group}, "ignore": ["lm_head"]}


def opened(checkpoint: Checkpoint, folder: Path) -> FolderSource:
    return FolderSource(checkpoint.write(folder / "packed"))


def parts_of(checkpoint: Checkpoint, module: str) -> dict[str, Any]:
    return {name.rpartition(".")[2]: v for name, v in checkpoint.tensors.items() if name.startswith(module)}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("bits", [4, 8])
def test_unpacking_is_the_inverse_of_packing(bits: int, axis: int) -> None:
    codes = np.random.default_rng(0).integers(0, 2**bits, (16, 24)).astype(np.uint8)
    words = pack_words(codes, bits) if axis == 1 else pack_words(codes.T, bits).T
    assert np.array_equal(unpack(words.view(np.uint32), bits, axis), codes)


@pytest.mark.parametrize("minus_one", [True, False], ids=["gptq", "gptq_v2"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "group"), [(4, 16), (4, 32), (4, 64), (4, -1), (8, 32), (8, -1)])
def test_gptq_is_exact(bits: int, group: int, symmetric: bool, minus_one: bool, tmp_path: Path) -> None:
    form = "gptq" if minus_one else "gptq_v2"
    settings = GPTQ | {"bits": bits, "group_size": group, "sym": symmetric, "checkpoint_format": form}
    pack: Pack = partial(gptq, minus_one=minus_one)
    checkpoint = packed_checkpoint(pack, bits, group, settings, symmetric=symmetric)
    source = opened(checkpoint, tmp_path)
    assert {info.name for info in source.tensors} == tiny_checkpoint().tensors.keys()
    for module in (Q, UP):
        tensor = source.load(f"{module}.weight")
        assert isinstance(tensor, BlockTensor)
        assert (tensor.bits, tensor.block_size) == (bits, 64 if group == -1 else group)
        assert (tensor.zero_points is None) == symmetric
        expected = plain_gptq(parts_of(checkpoint, module), bits, minus_one=minus_one)
        assert np.array_equal(tensor.dequantize(), expected)


@pytest.mark.parametrize("symmetric", [True, False])
def test_scattered_groups_are_put_together(symmetric: bool, tmp_path: Path) -> None:
    """act-order: the grid's columns are in another order than the matrix's, which is kept beside them."""
    order = np.random.default_rng(4).permutation(64)
    settings = GPTQ | {"desc_act": True, "sym": symmetric}
    checkpoint = packed_checkpoint(gptq, 4, 32, settings, symmetric=symmetric, order=order, config={"head_dim": 16})
    tensor = opened(checkpoint, tmp_path).load(f"{Q}.weight")
    assert isinstance(tensor, BlockTensor)
    assert sorted(tensor.columns.tolist()) == list(range(64))  # type: ignore[union-attr]
    expected = plain_gptq(parts_of(checkpoint, Q), 4, minus_one=True)
    assert np.array_equal(tensor.dequantize(), expected)
    assert np.array_equal(tensor.rows(3, 9).dequantize(), expected[3:9])


def test_groups_that_are_together_need_no_order(tmp_path: Path) -> None:
    """act-order with groups that were fixed before, and checkpoints without g_idx."""
    checkpoint = packed_checkpoint(gptq, 4, 32, GPTQ | {"desc_act": True})
    del checkpoint.tensors[f"{UP}.g_idx"]
    source = opened(checkpoint, tmp_path)
    assert source.load(f"{Q}.weight").columns is None  # type: ignore[union-attr]
    assert source.load(f"{UP}.weight").columns is None  # type: ignore[union-attr]


def test_every_zero_point_survives_the_minus_one(tmp_path: Path) -> None:
    """0 is stored as 15, and borrows from its neighbour in the word."""
    rng = np.random.default_rng(2)
    matrix = Integers(
        4,
        rng.integers(0, 16, (64, 64)),
        rng.uniform(0.5, 1, (64, 2)).astype(np.float16),
        rng.integers(0, 16, (64, 2)),
        np.arange(64, dtype=np.int32) // 32,
    )
    assert {0, 15} <= set(matrix.zeros.ravel().tolist())
    checkpoint = packed_checkpoint(gptq, 4, 32, GPTQ | {"sym": False})
    for part, values in gptq(matrix).items():
        checkpoint.tensors[f"{Q}.{part}"] = values
    assert np.array_equal(opened(checkpoint, tmp_path).load(f"{Q}.weight").dequantize(), matrix.values())


@pytest.mark.parametrize("group", [16, 32, 64, -1])
def test_awq_is_exact(group: int, tmp_path: Path) -> None:
    checkpoint = packed_checkpoint(awq, 4, group, AWQ | {"group_size": group})
    source = opened(checkpoint, tmp_path)
    for module in (Q, UP):
        tensor = source.load(f"{module}.weight")
        assert isinstance(tensor, BlockTensor)
        assert np.array_equal(tensor.dequantize(), plain_awq(parts_of(checkpoint, module)))
    assert {info.encoding for info in source.tensors} == {"AWQ4", "F16"}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, -1), (8, 64)])
def test_compressed_tensors_are_exact(bits: int, group: int, symmetric: bool, tmp_path: Path) -> None:
    strategy = {"strategy": "channel", "group_size": None} if group == -1 else {"group_size": group}
    settings = ct(num_bits=bits, symmetric=symmetric, **strategy)
    pack: Pack = partial(compressed, zero_points=not symmetric)
    source = opened(packed_checkpoint(pack, bits, group, settings, symmetric=symmetric), tmp_path)
    plain = tiny_checkpoint("F16")
    for module in (Q, UP):
        weight = plain.tensors[f"{module}.weight"].astype(np.float32)
        expected = round_to_grid(weight, bits, group, symmetric=symmetric).values()
        assert np.array_equal(source.load(f"{module}.weight").dequantize(), expected)


def test_zero_points_of_compressed_tensors_may_be_bytes(tmp_path: Path) -> None:
    checkpoint = packed_checkpoint(partial(compressed, zero_points=True), 4, 32, ct(symmetric=False))
    expected = opened(checkpoint, tmp_path / "packed").load(f"{Q}.weight").dequantize()
    words = checkpoint.tensors[f"{Q}.weight_zero_point"]
    signed = unpack(words.view(np.uint32), 4, axis=0).astype(np.int8) - 8
    checkpoint.files["model.safetensors"] = _with_bytes(checkpoint, f"{Q}.weight_zero_point", signed)
    assert np.array_equal(opened(checkpoint, tmp_path / "bytes").load(f"{Q}.weight").dequantize(), expected)


def _with_bytes(checkpoint: Checkpoint, name: str, values: Any) -> bytes:
    from safetensors.numpy import save

    return save({**checkpoint.tensors, name: values})


@pytest.mark.parametrize(("pack", "settings"), [(gptq, GPTQ), (awq, AWQ)], ids=["gptq", "awq"])
def test_the_settings_may_be_in_a_file_of_their_own(pack: Pack, settings: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = packed_checkpoint(pack, 4, 32, settings)
    del checkpoint.config["quantization_config"]
    old = {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"} if pack is awq else dict(settings)
    old.pop("quant_method", None)
    name = "quant_config.json" if pack is awq else "quantize_config.json"
    checkpoint.files[name] = json.dumps(old).encode()
    source = opened(checkpoint, tmp_path)
    assert isinstance(source.load(f"{Q}.weight"), BlockTensor)
    assert name in source.provenance.sha256


def test_modules_that_were_not_converted_stay_floats(tmp_path: Path) -> None:
    checkpoint = packed_checkpoint(awq, 4, 32, AWQ | {"modules_to_not_convert": ["up_proj"]})
    for name in [name for name in checkpoint.tensors if name.startswith(UP)]:
        del checkpoint.tensors[name]
    weight = tiny_checkpoint("F16").tensors[f"{UP}.weight"]
    checkpoint.tensors[f"{UP}.weight"] = weight
    assert np.array_equal(opened(checkpoint, tmp_path).load(f"{UP}.weight").dequantize(), weight.astype(np.float32))


@pytest.mark.parametrize(
    ("group", "block"), [(16, 16), (32, 32), (96, 32), (128, 128), (1536, 128), (896, 128), (1000, None), (8, None)]
)
def test_groups_that_are_no_block_are_cut(group: int, block: int | None) -> None:
    if block is None:
        with pytest.raises(UnsupportedModel, match=f"groups of {group} values"):
            block_of(group, "x")
    else:
        assert block_of(group, "x") == block


# Refusals


def settings(**changes: Any) -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint.config["quantization_config"].update(changes)


def drop(part: str) -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint.tensors.pop(f"{Q}.{part}")  # type: ignore[return-value]


def replace(part: str, values: Any) -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint.tensors.update({f"{Q}.{part}": values})


REFUSED: dict[str, tuple[Pack, Mapping[str, Any], Callable[[Checkpoint], None], str]] = {
    "gptq bits 3": (gptq, GPTQ, settings(bits=3), "GPTQ with 3 bits is not supported"),
    "gptq bits 2": (gptq, GPTQ, settings(bits=2), "GPTQ with 2 bits is not supported"),
    "gptq without bits": (gptq, GPTQ, settings(bits=None), "bits of quantization_config is None"),
    "gptq marlin": (gptq, GPTQ, settings(checkpoint_format="marlin"), "the GPTQ form 'marlin'"),
    "gptq marlin, old": (gptq, GPTQ, settings(is_marlin_format=True), "the GPTQ form 'gptq'"),
    "gptq dynamic": (gptq, GPTQ, settings(dynamic={"-:x": {}}), r"some modules \(dynamic\)"),
    "group of 20": (gptq, GPTQ, settings(group_size=20), f"'{Q}.qweight': groups of 20 values"),
    "group that does not divide": (gptq, GPTQ, settings(group_size=48), "64 columns do not divide into groups of 48"),
    "group of another size": (
        gptq,
        GPTQ,
        settings(group_size=16),
        r"qzeros' is I32 of shape \[2, 8\] where .*\[4, 8\]",
    ),
    "awq bits 8": (awq, AWQ, settings(bits=8), "AWQ with 8 bits is not supported"),
    "awq gemv": (awq, AWQ, settings(version="gemv"), "the AWQ form 'gemv'"),
    "awq symmetric": (awq, AWQ, settings(zero_point=False), "AWQ without zero points"),
    "no qzeros": (awq, AWQ, drop("qzeros"), rf"tensor '{Q}\.qzeros' is missing"),
    "no scales": (gptq, GPTQ, drop("scales"), rf"tensor '{Q}\.scales' is missing"),
    "qweight of floats": (gptq, GPTQ, replace("qweight", np.zeros((8, 64), np.float32)), "where a matrix of I32"),
    "qweight of one axis": (
        awq,
        AWQ,
        replace("qweight", np.zeros(64, np.int32)),
        r"shape \[64\] where a matrix of I32",
    ),
    "scales of another shape": (
        awq,
        AWQ,
        replace("scales", np.ones((2, 32), np.float16)),
        rf"'{Q}\.scales' is F16 of shape \[2, 32\] where .*\[2, 64\] belongs",
    ),
    "g_idx of uneven groups": (
        gptq,
        GPTQ,
        replace("g_idx", np.zeros(64, np.int32)),
        rf"'{Q}\.g_idx': groups are not of 32 columns each",
    ),
    "g_idx out of range": (gptq, GPTQ, replace("g_idx", np.arange(64, dtype=np.int32) - 5), "groups are not of 32"),
    "bitsandbytes": (gptq, GPTQ, settings(quant_method="bitsandbytes"), "weights quantized by 'bitsandbytes'"),
    "fp8": (gptq, GPTQ, settings(quant_method="fp8"), "weights quantized by 'fp8' are not supported"),
    "mxfp4": (gptq, GPTQ, settings(quant_method="mxfp4"), "weights quantized by 'mxfp4' are not supported"),
    "no method": (gptq, GPTQ, settings(quant_method=None), "weights quantized by 'none'"),
    "compressed floats": (gptq, ct(), settings(format="float-quantized"), "the compressed-tensors form 'float-quan"),
    "compressed activations": (
        gptq,
        ct(),
        lambda c: c.config["quantization_config"]["config_groups"]["group_0"].update(input_activations={"num_bits": 8}),
        "compressed-tensors with quantized activations",
    ),
    "compressed groups": (
        gptq,
        ct(),
        lambda c: c.config["quantization_config"]["config_groups"].update(group_1={}),
        "several groups of modules",
    ),
    "a part that is none": (gptq, GPTQ, replace("perm", np.zeros(4, np.int32)), rf"tensor '{Q}\.perm' is of type I32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(case: str, tmp_path: Path) -> None:
    pack, stated, spoil, words = REFUSED[case]
    checkpoint = packed_checkpoint(pack, 4, 32, stated)
    spoil(checkpoint)
    with pytest.raises(SourceError, match=words) as caught:
        opened(checkpoint, tmp_path).load(f"{Q}.weight")
    assert caught.value.hint


@pytest.mark.parametrize(("pack", "settings"), [(gptq, GPTQ), (awq, AWQ)], ids=["gptq", "awq"])
def test_scales_that_are_no_numbers(pack: Pack, settings: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = packed_checkpoint(pack, 4, 32, settings)
    checkpoint.tensors[f"{Q}.scales"][1, 3] = np.nan
    with pytest.raises(SourceError, match=rf"tensor '{Q}\.scales' holds nan at \[1, 3\]"):
        opened(checkpoint, tmp_path).load(f"{Q}.weight")


@pytest.mark.parametrize("form", FORMS)
def test_the_table_of_forms_has_no_difference(form: str) -> None:
    """What `scripts/check_types` prints: nothing is lost on the way into a package and out of its operators."""
    row = folder_exactness(form)
    assert row.stored == 0
    assert row.computed < 1e-6
    assert row.package_bits <= (32 if form == "BF16" else row.source_bits + 0.2 + WIDE_SCALES)
