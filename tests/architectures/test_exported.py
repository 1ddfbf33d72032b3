"""Exported graphs: what is accepted, and what stays of a model whose matrices were put on a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeai.architectures.exported import HEAD, TABLE, CacheShape, ExportedGraph, convert, read_cache
from edgeai.build.quantize.rounding import round_to_nearest
from edgeai.build.validate_exported import ExportedSession
from edgeai.errors import UnsupportedModel
from edgeai.sources.weights import FloatTensor, Tensor
from tests.architectures.graphs import compute_in_float
from tests.fixtures.exported import HEADS, LAYERS, SIZE, VOCAB, Weights, naive_logits, random_weights, write_exported

CACHE = CacheShape(LAYERS, HEADS, SIZE)
WEIGHTS = random_weights()
IDS = [int(token) for token in np.random.default_rng(0).integers(0, VOCAB, 50)]


def rounded(bits: int, weights: Weights = WEIGHTS) -> tuple[Weights, dict[str, int]]:
    """The weights that a package of `bits` bits has: matrices are [in, out], except for the table."""
    names = {name: 8 if name in ("table", "head") else bits for name in weights if name != "positions"}
    values = dict(weights)
    for name, number in names.items():
        rows = weights[name] if name == "table" else weights[name].T
        back = round_to_nearest(np.ascontiguousarray(rows), number).dequantize()
        values[name] = back if name == "table" else back.T
    return values, names


def converted(folder: Path, bits: int | None, **form: Any) -> tuple[Path, list[str]]:
    """A converted export, and the names that its matrices were asked for by."""
    asked: list[str] = []

    def store(name: str, matrix: FloatTensor) -> Tensor:
        asked.append(name)
        if bits is None:
            return matrix
        return round_to_nearest(matrix.dequantize(), 8 if name in (TABLE, HEAD) else bits)

    write_exported(folder / "exported.onnx", WEIGHTS, **{"logits_from": False, **form})
    convert(ExportedGraph(folder / "exported.onnx"), store, folder / "model.onnx", folder / "weights.bin")
    return folder / "model.onnx", asked


@pytest.mark.parametrize("form", [{}, {"tied": True}, {"positions": "mask"}], ids=str)
@pytest.mark.parametrize("bits", [None, 8, 4])
def test_the_converted_graph_computes_its_own_weights(bits: int | None, form: dict[str, Any], tmp_path: Path) -> None:
    path, _ = converted(tmp_path, bits, **form)
    compute_in_float(path)
    weights = WEIGHTS if bits is None else rounded(bits)[0]
    logits, _ = ExportedSession(path, CACHE).steps(IDS, [30, 15, *[1] * 5])
    expected = naive_logits(weights, IDS, tied=form.get("tied", False))
    assert np.abs(logits - expected).max() < 1e-3


def test_every_matrix_is_offered_and_none_is_stored_twice(tmp_path: Path) -> None:
    path, asked = converted(tmp_path, 4)
    layers = [f"{layer}.{part}" for layer in range(LAYERS) for part in "qkvo"]
    assert sorted(asked) == sorted([TABLE, HEAD, *layers])
    nodes = [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
    assert nodes.count("MatMulNBits") == len(layers) + 1
    assert nodes.count("GatherBlockQuantized") == 1
    values = {name: values.size for name, values in WEIGHTS.items()}
    codes = sum(values[name] for name in layers) // 2 + values["table"] + values["head"]
    scales = 2 * sum(values[name] for name in [*layers, "table", "head"]) // 32
    expected = codes + scales + 4 * values["positions"]
    assert (tmp_path / "weights.bin").stat().st_size == pytest.approx(expected, abs=2048)


def test_a_tied_table_is_stored_once(tmp_path: Path) -> None:
    sizes = []
    for tied in (True, False):
        folder = tmp_path / str(tied)
        folder.mkdir()
        converted(folder, 8, tied=tied)
        sizes.append((folder / "weights.bin").stat().st_size)
    assert sizes[1] - sizes[0] == pytest.approx(WEIGHTS["head"].size * (1 + 2 / 32), abs=256)


def test_logits_that_nobody_wants_are_not_computed(tmp_path: Path) -> None:
    path, _ = converted(tmp_path, None)
    inputs = [value.name for value in onnx.load(path, load_external_data=False).graph.input]
    assert "logits_from" in inputs


def test_a_matrix_with_other_readers_stays_as_it_is(tmp_path: Path) -> None:
    """Here a layer's projection is also added to a bias of its own making: rounding it would change both."""
    write_exported(tmp_path / "exported.onnx", WEIGHTS, logits_from=False)
    model = onnx.load(tmp_path / "exported.onnx")
    model.graph.node.insert(0, helper.make_node("ReduceMax", ["0.q"], ["peak"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("peak", TensorProto.FLOAT, []))
    onnx.save(model, tmp_path / "exported.onnx")
    asked: list[str] = []

    def store(name: str, matrix: FloatTensor) -> Tensor:
        asked.append(name)
        return round_to_nearest(matrix.dequantize(), 8)

    convert(ExportedGraph(tmp_path / "exported.onnx"), store, tmp_path / "model.onnx", tmp_path / "weights.bin")
    assert "0.q" not in asked
    assert "0.k" in asked
    ExportedSession(tmp_path / "model.onnx", CACHE).steps(IDS, [50])


def edited(path: Path, change) -> ExportedGraph:
    write_exported(path, WEIGHTS, logits_from=False)
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)
    return ExportedGraph(path)


def test_the_interface_is_read(tmp_path: Path) -> None:
    assert read_cache(edited(tmp_path / "model.onnx", lambda graph: None)) == CACHE


def state_input(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("past_states.0.conv", TensorProto.FLOAT, ["rows", 4]))


def other_value_size(graph: onnx.GraphProto) -> None:
    for value in graph.input:
        if value.name.endswith(".value"):
            value.type.tensor_type.shape.dim[3].dim_value = 7


def no_cache(graph: onnx.GraphProto) -> None:
    kept = [value for value in graph.input if not value.name.startswith("past")]
    del graph.input[:]
    graph.input.extend(kept)


def no_present(graph: onnx.GraphProto) -> None:
    del graph.output[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (state_input, "no attention cache: past_states.0.conv"),
        (other_value_size, "KV cache is not one float array"),
        (no_cache, "no KV cache"),
        (no_present, "does not give present.1.value"),
    ],
)
def test_what_the_engine_cannot_run_is_refused(change, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        read_cache(edited(tmp_path / "model.onnx", change))
