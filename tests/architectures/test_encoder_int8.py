"""int8 layers of encoders beside the formula in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeai.architectures.encoder_int8 import FloatGraph
from edgeai.onnx_session import OnnxSession
from tests.fixtures.encoders import LINEARS, VOCAB, WIDTH, weights, write_float_graph

K, N = 330, 24


@pytest.fixture
def linear(tmp_path: Path) -> tuple[FloatGraph, np.ndarray]:
    """X @ weight and x @ other, as one graph."""
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 1, (K, N)).astype(np.float32)
    weight[:, 3] = 0
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}.y"], name=name) for name in ("weight", "other")]
    nodes.append(helper.make_node("Concat", ["weight.y", "other.y"], ["y"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "tokens", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "tokens", 2 * N])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(weight, "other")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, str(tmp_path / "float.onnx"), save_as_external_data=True, location="data", size_threshold=0)
    return FloatGraph(tmp_path / "float.onnx"), weight


def activations() -> np.ndarray:
    """Rows of very different sizes, one of them zero."""
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, (2, 5, K)).astype(np.float32) * rng.choice([0.01, 1, 300], (2, 5, 1)).astype(np.float32)
    x[1, 2] = 0
    return x


def by_the_formula(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    a = np.maximum(np.abs(x).max(axis=-1, keepdims=True) / 127, 1e-12)
    b = np.maximum(np.abs(weight).max(axis=0) / 127, 1e-12)
    return a * b * (np.rint(x / a) @ np.rint(weight / b))


def test_a_layer_is_the_formula(linear: tuple[FloatGraph, np.ndarray], tmp_path: Path) -> None:
    graph, weight = linear
    assert graph.linears == {"weight": (K, N), "other": (K, N)}
    graph.write_probe(tmp_path / "probe.onnx", ["weight"], tables=False)
    x = activations()
    y = OnnxSession(tmp_path / "probe.onnx", threads=1).run(["y"], {"x": x})[0]
    size = np.abs(x).max(axis=-1, keepdims=True) + 1e-9
    np.testing.assert_allclose(y[..., :N] / size, by_the_formula(x.astype(np.float64), weight) / size, atol=0.02)
    np.testing.assert_allclose(y[..., N:], x @ weight, rtol=1e-4, atol=1e-2)  # the other one stayed float
    error = np.abs(y[..., :N] - y[..., N:]) / size
    assert 1e-4 < error.max() < 0.5
    assert not y[1, 2].any()
    assert not y[..., 3].any()


def test_a_precise_layer_is_nearer(linear: tuple[FloatGraph, np.ndarray], tmp_path: Path) -> None:
    graph, weight = linear
    graph.write_probe(tmp_path / "probe.onnx", ["weight"], ["other"], tables=False)
    x = activations()
    x[..., 7] *= 40  # an outlier takes the resolution of all where there is one scale
    y = OnnxSession(tmp_path / "probe.onnx", threads=1).run(["y"], {"x": x})[0]
    one_scale, blocks = (np.abs(part - x @ weight).mean() for part in (y[..., :N], y[..., N:]))
    assert blocks < one_scale / 2


def test_layers_that_read_the_same_quantize_it_once(tmp_path: Path) -> None:
    graph = FloatGraph(write_float_graph(tmp_path, weights()))
    assert tuple(graph.linears) == LINEARS  # not the two products of activations
    graph.write_probe(tmp_path / "probe.onnx", LINEARS, tables=False)
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "probe.onnx"), load_external_data=False).graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 5
    assert kinds.count("QuantizeLinear") == 3


def test_the_written_graph_holds_its_weights_once_and_small(tmp_path: Path) -> None:
    values = weights()
    graph = FloatGraph(write_float_graph(tmp_path, values))
    (tmp_path / "package").mkdir()
    counts = graph.write(tmp_path / "package" / "model.onnx", "weights.bin", precise=["value"])
    assert counts["INT8"] == 5  # four layers and the table
    assert counts["INT8_BLOCKS"] == 1
    size = (tmp_path / "package" / "weights.bin").stat().st_size
    assert VOCAB * WIDTH < size < 1.6 * VOCAB * WIDTH
    assert (tmp_path / "package" / "model.onnx").stat().st_size < 20_000
    onnx.checker.check_model(str(tmp_path / "package" / "model.onnx"), full_check=False)


def test_table_rows_are_within_half_a_step(tmp_path: Path) -> None:
    values = weights()
    graph = FloatGraph(write_float_graph(tmp_path, values))
    graph.write_probe(tmp_path / "probe.onnx", [], tables=True)
    model = onnx.load(str(tmp_path / "probe.onnx"), load_external_data=False)
    model.graph.output.append(helper.make_tensor_value_info("embedded", TensorProto.FLOAT, None))
    onnx.save(model, str(tmp_path / "probe.onnx"))
    ids = np.arange(VOCAB, dtype=np.int64)[None, :60]
    feeds = {"input_ids": ids, "token_type_ids": np.zeros_like(ids)}
    rows = OnnxSession(tmp_path / "probe.onnx", threads=1).run(["embedded"], feeds)[0][0]
    steps = np.abs(values["table"][:60]).max(axis=1, keepdims=True) / 127
    assert (np.abs(rows - values["table"][:60]) <= steps * 0.5001).all()
    assert np.abs(rows - values["table"][:60]).max() > 0


def test_probes_lie_beside_the_weights(linear: tuple[FloatGraph, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="beside the float graph"):
        linear[0].write_probe(tmp_path / "elsewhere" / "probe.onnx", ["weight"], tables=False)
